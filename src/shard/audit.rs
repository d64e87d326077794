//! What must hold of a shard between any two turns: books that are kept in two places agree, and nothing is without its
//! timer. For fuzzing and simulation; it walks every table, and nothing on the packet path calls it.

use super::Shard;
use super::tables::{Found, ceil_ms};
use crate::port::Port;
use crate::tcp::conn::{AT_REST, ConnFlags, Live};
use crate::tcp::flight::Standing;
use crate::tcp::state::State;
use crate::time::Time;
use crate::wire::{SeqNum, Tuple};
use std::collections::HashSet;

impl<P: Port> Shard<P> {
    /// Everything that contradicts itself; empty when all is well.
    #[must_use]
    pub fn audit(&mut self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut population = [0u64; State::COUNT];
        self.audit_conns(&mut population, &mut faults);
        self.audit_half_open(&mut population, &mut faults);
        self.audit_waits(&mut population, &mut faults);
        let log = &self.core.log;
        population[State::Listen as usize] = log.population[State::Listen as usize];
        if population != log.population {
            faults.push(format!("states: {population:?} in the tables, {:?} counted", log.population));
        }
        if log.impossible > 0 {
            faults.push(format!("{} events were impossible", log.impossible));
        }
        let tables = &self.core.tables;
        if tables.indexed() != tables.len() {
            faults.push(format!("{} records, {} in the index", tables.len(), tables.indexed()));
        }
        let frames = self.port.accounting();
        if !frames.balanced() || frames.lent != 0 {
            faults.push(format!("frames: {frames:?}"));
        }
        faults
    }

    fn audit_conns(&mut self, population: &mut [u64; State::COUNT], faults: &mut Vec<String>) {
        let (mut chunks, mut queued) = (0, 0);
        let mut lent = HashSet::new();
        let keys: Vec<u32> = self.core.tables.conns.keys().collect();
        for key in keys {
            let core = &mut self.core;
            let (pool, cfg) = (&core.pool, &core.cfg);
            let look = |c: &Live<'_>| {
                let waits = c.flags.has(ConnFlags::QUEUED);
                let flight = (c.conn.flight, c.flight.standing(c.conn));
                let ended = c.state() == State::Closed || (c.closing_done() && !c.held_by_reader());
                (c.tuple(), c.state(), c.audit(pool, cfg), waits, c.deadline(cfg), flight, ended)
            };
            let Some((tuple, state, books, waits, deadline, flight, ended)) =
                core.tables.conns.inspect(key, look)
            else {
                faults.push(format!("connection {key}: no record, or a flight that is none"));
                continue;
            };
            let mut fault = |what: String| faults.push(format!("{} {state:?}: {what}", tuple.remote));
            if state != State::Closed {
                population[state as usize] += 1;
            }
            match books {
                Ok(n) => chunks += n,
                Err(what) => fault(what),
            }
            if self.found(&tuple) != Found::Conn(key) {
                fault("the index does not lead to it".to_owned());
            }
            queued += usize::from(waits);
            match flight {
                (AT_REST, Standing::AtRest) => {}
                (AT_REST, standing) => fault(format!("{standing:?} without a flight")),
                (number, _) if !lent.insert(number) => fault(format!("shares flight {number}")),
                (_, Standing::AtRest) if !waits => fault("at rest, with a flight".to_owned()),
                (_, Standing::Remembers) if !waits && deadline == Time::NEVER => {
                    fault("will remember for ever".to_owned());
                }
                (_, Standing::AtRest | Standing::Busy | Standing::Remembers) => {}
            }
            let due = self.core.tables.conns.queued(key);
            // What is in the output queue is settled, and armed, when its turn comes.
            if !waits && deadline != Time::NEVER && due.is_none_or(|due| due > ceil_ms(deadline)) {
                fault(format!("deadline {deadline:?}, on the wheel {due:?}"));
            }
            if !waits && ended {
                fault("it has ended and stays".to_owned());
            }
        }
        let core = &self.core;
        if lent.len() != core.tables.conns.flights() {
            let flights = core.tables.conns.flights();
            faults.push(format!("flights: connections hold {}, {flights} are lent", lent.len()));
        }
        if chunks != core.pool.used() {
            faults.push(format!("chunks: connections hold {chunks}, {} are lent", core.pool.used()));
        }
        if queued > core.pending.len() {
            faults.push(format!(
                "{queued} connections wait for output, {} are in the queue",
                core.pending.len()
            ));
        }
    }

    fn audit_half_open(&self, population: &mut [u64; State::COUNT], faults: &mut Vec<String>) {
        let tables = &self.core.tables;
        for key in tables.half.keys() {
            let Some(half) = tables.half.get(key, self.core.now) else { continue };
            population[State::SynReceived as usize] += 1;
            if self.found(&half.tuple) != Found::Half(key) {
                faults.push(format!("{} half open: the index does not lead to it", half.tuple.remote));
            }
            if !tables.half.is_armed(key) {
                faults.push(format!("{} half open: no timer", half.tuple.remote));
            }
        }
        if tables.half.timers() != tables.half.len() {
            faults.push(format!("{} half open, {} timers", tables.half.len(), tables.half.timers()));
        }
    }

    fn audit_waits(&self, population: &mut [u64; State::COUNT], faults: &mut Vec<String>) {
        let tables = &self.core.tables;
        for (key, w) in tables.waits.iter() {
            population[State::TimeWait as usize] += 1;
            if self.found(&w.tuple) != Found::Wait(key) {
                faults.push(format!("{} TIME_WAIT: the index does not lead to it", w.tuple.remote));
            }
        }
        let (slots, entries) = (tables.waits.slots(), tables.waits.entries());
        if entries != slots {
            faults.push(format!("{slots} TIME_WAIT slots, {entries} entries on the wheel"));
        }
    }

    fn found(&self, tuple: &Tuple) -> Found {
        self.core.tables.find(self.core.tables.hash(tuple), tuple)
    }

    /// The right edge of the window that a synchronized connection has advertised, which must never move left (RFC 9293
    /// §3.8.6).
    #[must_use]
    pub fn window_edge(&self, tuple: &Tuple) -> Option<SeqNum> {
        match self.found(tuple) {
            Found::Conn(key) => self.core.tables.conns.get(key).and_then(crate::tcp::Conn::window_edge),
            Found::Half(_) | Found::Wait(_) | Found::Nothing => None,
        }
    }
}
