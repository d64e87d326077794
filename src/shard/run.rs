//! One turn of the loop, in its fixed order: rx burst → mailbox → timers → pending output → flush → housekeeping.
//!
//! Every stage has a budget, so that no stage can starve another.

use super::mailbox::{Command, Reply};
use super::trace::Trace;
use super::{Drain, Shard};
use crate::metrics::gauges::BudgetKind;
use crate::port::{BURST, Port};
use crate::tcp::conn::{ActiveOpen, Conn, ConnFlags, Env};
use crate::tcp::state::{Event, State};
use crate::time::Time;
use std::io;

/// Forwarded frames per turn.
const FORWARDED_BUDGET: usize = 64;
/// Connections asked again per turn because there was no room for their segments.
const PENDING_BUDGET: usize = 64;
/// Connections told of a drain per turn.
const DRAIN_BUDGET: usize = 64;

/// What a turn did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Something was done: do not sleep.
    pub worked: bool,
    /// When the next timer is due, `Time::NEVER` for none.
    pub next: Time,
}

impl<P: Port> Shard<P> {
    /// One turn at `now`.
    ///
    /// # Errors
    /// The port's fatal ones.
    pub fn turn(&mut self, now: Time) -> io::Result<Turn> {
        self.core.now = now;
        self.note_lag();
        let received = self.receive();
        let mut worked = received > 0;
        worked |= self.receive_forwarded(FORWARDED_BUDGET) > 0;
        worked |= self.commands();
        worked |= self.run_timers(received == BURST);
        worked |= self.pending_output(PENDING_BUDGET);
        worked |= self.feed_starved();
        worked |= self.errands();
        worked |= self.tell_drain();
        worked |= self.cut_off();
        self.port.flush()?;
        self.core.block.counters.turns += 1;
        let next = self.next_timer_ms().map_or(Time::NEVER, |ms| Time::from_micros(ms.saturating_mul(1000)));
        Ok(Turn { worked, next: next.min(self.errands_at) })
    }

    /// Sleeps until a frame, a wake-up or `until`.
    ///
    /// # Errors
    /// The port's fatal ones.
    pub fn wait(&mut self, timeout: std::time::Duration) -> io::Result<()> {
        self.port.wait(timeout)
    }

    /// Accounts the time of a turn as busy or idle.
    pub fn account(&mut self, worked: bool, us: u64) {
        let c = &mut self.core.block.counters;
        if worked {
            c.busy_us += us;
        } else {
            c.idle_us += us;
        }
    }

    fn commands(&mut self) -> bool {
        let mut any = false;
        while let Some(command) = self.mailbox.commands.pop() {
            any = true;
            match command {
                Command::Report(mut block) => {
                    self.report(&mut block);
                    // The queue is as long as the commands' one: there is room for every answer.
                    let _ = self.mailbox.replies.push(Reply::Report(block));
                }
                Command::Drain => {
                    if self.core.drain == Drain::No {
                        self.stop_listening();
                        self.core.drain = Drain::Telling(0);
                    }
                }
                Command::CutOff => match self.core.drain {
                    Drain::No => {
                        self.stop_listening();
                        self.core.drain = Drain::CuttingOff(0);
                    }
                    Drain::Telling(_) | Drain::Told => self.core.drain = Drain::CuttingOff(0),
                    Drain::CuttingOff(_) | Drain::Over => {}
                },
                Command::Stop => self.stopped = true,
                Command::Trace(t) => self.core.trace = Some(t),
                Command::TakeTrace => {
                    let trace = self.core.trace.take().unwrap_or_default();
                    let _ = self.mailbox.replies.push(Reply::Trace(trace));
                }
                Command::Connect(out) => self.open_or_tell(&out),
            }
        }
        any
    }

    /// Fills a block for the control plane: counters are copied, histograms swapped.
    fn report(&mut self, block: &mut crate::metrics::block::Block) {
        let core = &mut self.core;
        let c = &mut core.block.counters;
        c.states = core.log.population;
        c.transitions = core.log.transitions;
        c.illegal_transitions = core.log.impossible;
        c.chunks_used = core.pool.used() as u64;
        c.chunks_total = core.pool.total() as u64;
        c.port = self.port.stats();
        c.budget_refusals[BudgetKind::Connection as usize] = core.log.refused_answers.get();
        block.counters.clone_from(c);
        let w = &mut core.block.worker;
        w.rings = self.port.depths();
        w.mailbox = self.mailbox.depths();
        w.tables = core.tables.fills();
        block.worker = *w;
        w.wheel_lag_ms = Default::default();
        // The control plane sends blocks with room for all: nothing is allocated here.
        block.listeners.clear();
        block.listeners.extend_from_slice(&core.block.listeners);
        block.histograms.reset();
        std::mem::swap(&mut block.histograms, &mut core.block.histograms);
    }

    /// A report without mailbox, for a shard that is driven by hand.
    #[must_use]
    pub fn snapshot(&mut self) -> crate::metrics::block::Block {
        let mut block = crate::metrics::block::Block::default();
        self.report(&mut block);
        block
    }

    /// Traces connections, without mailbox.
    pub fn set_trace(&mut self, trace: Trace) {
        self.core.trace = Some(Box::new(trace));
    }

    /// Takes the trace back, without mailbox.
    #[must_use]
    pub fn take_trace(&mut self) -> Trace {
        self.core.trace.take().map_or_else(Trace::default, |t| *t)
    }

    /// Opens a connection. Returns whether there was room for it.
    #[must_use]
    pub fn connect(&mut self, open: &ActiveOpen) -> bool {
        let core = &mut self.core;
        let hash = core.tables.hash(&open.tuple);
        if core.tables.conns.is_full() || core.tables.find(hash, &open.tuple) != super::tables::Found::Nothing
        {
            return false;
        }
        let mut env = Env { now: core.now, cfg: &core.cfg, pool: &mut core.pool, log: &mut core.log };
        let mut conn = Conn::connect(open, &core.secret, &mut env);
        if core.trace.as_ref().is_some_and(|t| t.wants(&open.tuple)) {
            conn.flags.set(ConnFlags::TRACED);
        }
        let Some(key) = core.tables.add_conn(&open.tuple, conn) else { return false };
        self.settle(key, None);
        true
    }

    fn feed_starved(&mut self) -> bool {
        let mut any = false;
        for _ in 0..self.core.starved.len().min(PENDING_BUDGET) {
            if self.core.pool.used() >= self.core.pool.total() {
                break;
            }
            let Some(key) = self.core.feed_starved() else { break };
            any = true;
            self.settle(key, None);
        }
        any
    }

    /// Listeners take no more connections. They keep their addresses: a SYN is dropped and not reset, so that the peer
    /// tries again and finds whoever takes over.
    fn stop_listening(&mut self) {
        for _ in 0..self.core.listeners.count() {
            self.core.log.moved(State::Listen, Event::Close, State::Closed);
        }
    }

    /// Tells a slice of the connections that they are to end.
    fn tell_drain(&mut self) -> bool {
        let Drain::Telling(from) = self.core.drain else { return false };
        let mut from = from;
        for _ in 0..DRAIN_BUDGET {
            let Some(key) = self.core.tables.conns.next_key(from) else {
                self.core.drain = Drain::Told;
                return true;
            };
            self.core.drain_conn(key);
            self.settle(key, None);
            from = key + 1;
        }
        self.core.drain = Drain::Telling(from);
        true
    }

    /// Resets a slice of the connections, no more than there is room to send RSTs for, and at last forgets the half-open
    /// ones: their peers have not been promised anything.
    fn cut_off(&mut self) -> bool {
        let Drain::CuttingOff(from) = self.core.drain else { return false };
        let mut next = from;
        for _ in 0..DRAIN_BUDGET {
            // Without room to send nothing is done, and nothing can be before there is.
            if self.port.tx_room() == 0 {
                return next > from;
            }
            let core = &mut self.core;
            let Some(key) = core.tables.conns.next_key(next) else {
                self.drop_half_open();
                self.core.drain = Drain::Over;
                return true;
            };
            next = key + 1;
            core.drain = Drain::CuttingOff(next);
            if let Some(mut conn) = core.tables.conns.live(key) {
                let mut env = Env { now: core.now, cfg: &core.cfg, pool: &mut core.pool, log: &mut core.log };
                conn.cut_off(&mut env);
                self.settle(key, None);
            }
        }
        true
    }

    /// Hands over what is queued and takes back what was sent.
    ///
    /// # Errors
    /// The port's fatal ones.
    pub fn flush(&mut self) -> io::Result<()> {
        self.port.flush()
    }

    /// Drops half-open records when draining has reached its end: nobody waits for them.
    pub fn drop_half_open(&mut self) {
        for key in self.core.tables.half.keys() {
            if self.core.tables.remove_half(key, self.core.now).is_some() {
                self.core.log.moved(State::SynReceived, Event::Limit, State::Closed);
            }
        }
    }

    /// Connections that are not closed yet: what a drain waits for.
    #[must_use]
    pub fn live(&self) -> usize {
        self.core.tables.conns.len() + self.core.tables.half.len()
    }
}

#[cfg(test)]
mod tests;
