//! A worker's account of its connections' states: population, transitions, and the last moves of a traced one.
//!
//! Written by [`Conn::event`](super::conn::Conn) alone (and by the shard for the records that are no `Conn`), so the
//! gauges of the metrics are the states themselves and not a second book.

use super::state::{Event, State};
use std::cell::Cell;

/// Moves kept between two looks of the tracer. A segment causes three at most (ACK of SYN, ACK of FIN, FIN), a
/// service's answer one more.
const RECENT: usize = 8;

/// One move of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// State before.
    pub from: State,
    /// What happened.
    pub event: Event,
    /// State after.
    pub to: State,
}

/// The account.
#[derive(Clone, Debug)]
pub struct StateLog {
    /// Connections and records by state; `CLOSED` is not counted.
    pub population: [u64; State::COUNT],
    /// How often each (state, event) pair happened.
    pub transitions: [[u64; Event::COUNT]; State::COUNT],
    /// Events the table calls impossible.
    pub impossible: u64,
    /// Answers to what is out of place that a connection's own budget refused. In a cell, since who owes an answer sees
    /// its surroundings by a shared reference.
    pub refused_answers: Cell<u64>,
    recent: [Option<Move>; RECENT],
    recent_len: usize,
}

impl Default for StateLog {
    fn default() -> Self {
        Self {
            population: [0; State::COUNT],
            transitions: [[0; Event::COUNT]; State::COUNT],
            impossible: 0,
            refused_answers: Cell::new(0),
            recent: [None; RECENT],
            recent_len: 0,
        }
    }
}

impl StateLog {
    /// A connection moved (or stayed, when `from` is `to`).
    pub fn moved(&mut self, from: State, event: Event, to: State) {
        self.moved_together(from, event, to, 1);
        if let Some(slot) = self.recent.get_mut(self.recent_len) {
            *slot = Some(Move { from, event, to });
            self.recent_len += 1;
        }
    }

    /// So many records moved for the same reason; the tracer hears of each elsewhere.
    pub fn moved_together(&mut self, from: State, event: Event, to: State, count: u64) {
        self.transitions[from as usize][event as usize] += count;
        self.depopulate(from, count);
        self.populate(to, count);
    }

    /// The engine let an event reach a state that cannot have it: counted, and loud in tests.
    pub fn impossible(&mut self, state: State, event: Event) {
        self.impossible += 1;
        debug_assert!(false, "{event:?} in {state:?}");
    }

    /// A record in this state came to be.
    pub fn enter(&mut self, state: State) {
        self.populate(state, 1);
    }

    /// A record in this state is gone.
    pub fn leave(&mut self, state: State) {
        self.depopulate(state, 1);
    }

    fn populate(&mut self, state: State, count: u64) {
        if state != State::Closed {
            self.population[state as usize] += count;
        }
    }

    fn depopulate(&mut self, state: State, count: u64) {
        if state != State::Closed {
            let p = &mut self.population[state as usize];
            debug_assert!(*p >= count, "population of {state:?} below zero");
            *p = p.saturating_sub(count);
        }
    }

    /// Takes the moves since the last call, oldest first.
    pub fn take_recent(&mut self) -> impl Iterator<Item = Move> + use<> {
        let moves = self.recent;
        let n = std::mem::take(&mut self.recent_len);
        moves.into_iter().take(n).flatten()
    }
}
