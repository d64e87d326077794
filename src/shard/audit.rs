//! What must hold of a shard between any two turns: books that are kept in two places agree, and nothing is without its
//! timer. For fuzzing and simulation; it walks every table, and nothing on the packet path calls it.

use super::Shard;
use super::tables::{Found, Wait, ceil_ms};
use crate::port::Port;
use crate::tcp::conn::ConnFlags;
use crate::tcp::state::State;
use crate::time::Time;
use crate::wire::{SeqNum, Tuple};

impl<P: Port> Shard<P> {
    /// Everything that contradicts itself; empty when all is well.
    #[must_use]
    pub fn audit(&self) -> Vec<String> {
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

    fn audit_conns(&self, population: &mut [u64; State::COUNT], faults: &mut Vec<String>) {
        let (core, tables) = (&self.core, &self.core.tables);
        let (mut chunks, mut queued) = (0, 0);
        for (key, conn) in tables.conns.scan(0, usize::MAX).0 {
            let state = conn.state();
            let mut fault = |what: String| faults.push(format!("{} {state:?}: {what}", conn.tuple.remote));
            if state != State::Closed {
                population[state as usize] += 1;
            }
            match conn.audit(&core.pool, &core.cfg) {
                Ok(n) => chunks += n,
                Err(what) => fault(what),
            }
            if self.found(&conn.tuple) != Found::Conn(key) {
                fault("the index does not lead to it".to_owned());
            }
            let waits = conn.flags.has(ConnFlags::QUEUED);
            queued += usize::from(waits);
            let due = tables.conn_wheel.queued(key);
            let deadline = conn.deadline(&core.cfg);
            // What is in the output queue is settled, and armed, when its turn comes.
            if !waits && deadline != Time::NEVER && due.is_none_or(|due| due > ceil_ms(deadline)) {
                fault(format!("deadline {deadline:?}, on the wheel {due:?}"));
            }
            if !waits && matches!(state, State::Closed | State::TimeWait) {
                fault("it has ended and stays".to_owned());
            }
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
        for (key, half) in tables.half.scan(0, usize::MAX).0 {
            population[State::SynReceived as usize] += 1;
            if self.found(&half.tuple) != Found::Half(key) {
                faults.push(format!("{} half open: the index does not lead to it", half.tuple.remote));
            }
            if tables.half_wheel.queued(key).is_none_or(|due| due > ceil_ms(half.due)) {
                faults.push(format!("{} half open: no timer", half.tuple.remote));
            }
        }
        if tables.half_wheel.len() != tables.half.len() {
            faults.push(format!("{} half open, {} timers", tables.half.len(), tables.half_wheel.len()));
        }
    }

    fn audit_waits(&self, population: &mut [u64; State::COUNT], faults: &mut Vec<String>) {
        let tables = &self.core.tables;
        for (key, wait) in tables.waits.scan(0, usize::MAX).0 {
            let Wait::Held(w) = wait else { continue };
            population[State::TimeWait as usize] += 1;
            if self.found(&w.tuple) != Found::Wait(key) {
                faults.push(format!("{} TIME_WAIT: the index does not lead to it", w.tuple.remote));
            }
        }
        let slots = tables.waits.len();
        if tables.wait_wheel.len() != slots {
            faults.push(format!("{slots} TIME_WAIT slots, {} entries on the wheel", tables.wait_wheel.len()));
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
