//! One turn of the loop, in its fixed order: rx burst → mailbox → timers → pending output → flush → housekeeping.
//!
//! Every stage has a budget, so that no stage can starve another.

use super::Shard;
use super::drain::DrainOrder;
use super::mailbox::{Command, Reply};
use super::trace::Trace;
use crate::metrics::gauges::BudgetKind;
use crate::port::{BURST, Port};
use crate::tcp::conn::{ActiveOpen, Conn, ConnFlags, Env};
use crate::time::Time;
use std::io;

/// Forwarded frames per turn.
const FORWARDED_BUDGET: usize = 64;
/// Connections asked again per turn because there was no room for their segments.
const PENDING_BUDGET: usize = 64;

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
        worked |= self.sweep_slice();
        self.port.flush()?;
        self.core.block.counters.turns += 1;
        let next = self.next_timer_ms().map_or(Time::NEVER, |ms| Time::from_micros(ms.saturating_mul(1000)));
        Ok(Turn { worked, next: next.min(self.errands_at).min(self.next_told()) })
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
                Command::Drain => self.begin_drain(&DrainOrder::default()),
                Command::DrainAs(order) => self.begin_drain(&order),
                Command::Undrain => self.end_drain(),
                Command::CutOff => self.begin_cut_off(),
                Command::Stop => self.stopped = true,
                Command::Trace(t) => self.core.trace = Some(t),
                Command::TakeTrace => {
                    let trace = self.core.trace.take().unwrap_or_default();
                    let _ = self.mailbox.replies.push(Reply::Trace(trace));
                }
                Command::Connect(out) => self.open_or_tell(&out),
                Command::Sweep(sweep) => match self.sweep {
                    None => self.sweep = Some(sweep),
                    // The control plane sends the next one when this one is back.
                    Some(_) => self.mailbox.answer(Reply::Sweep(sweep)),
                },
                Command::Configure(mut change) => {
                    self.reconfigure(&mut change);
                    self.mailbox.answer(Reply::Configured(change));
                }
                Command::Closes(mut page) => {
                    self.core.closes.fill(&mut page);
                    self.mailbox.answer(Reply::Closes(page));
                }
                Command::TapCloses(tap) => self.core.closes.tap(tap),
                Command::Capture(tap) => self.core.capture = tap,
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
        (c.operated.drain_total, c.operated.drain_told) = (core.pace.total, core.pace.told);
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

    /// Hands over what is queued and takes back what was sent.
    ///
    /// # Errors
    /// The port's fatal ones.
    pub fn flush(&mut self) -> io::Result<()> {
        self.port.flush()
    }

    /// Connections that are not closed yet: what a drain waits for.
    #[must_use]
    pub fn live(&self) -> usize {
        self.core.tables.conns.len() + self.core.tables.half.len()
    }
}

#[cfg(test)]
mod tests;
