//! The end of a worker's connections: told at once or at an even pace, and reset when the time is over.
//!
//! ```text
//! No ──Drain──▶ Telling(slot) ──all told──▶ Told ──CutOff──▶ CuttingOff(slot) ──▶ Over
//!  ▲                │                        │
//!  └────Undrain─────┴────────────────────────┘
//! ```
//!
//! With a pace, connection *k* of *n* is told after *k/n* of the time, so that clients do not come back in one storm. The
//! count is that of the beginning: those that end by themselves meanwhile leave the last part of the time empty.

use super::{Core, Drain, Shard};
use crate::drop::DropReason;
use crate::metrics::block::ResetCause;
use crate::port::{Frame, Port};
use crate::tcp::conn::Env;
use crate::tcp::record::Cause;
use crate::tcp::state::{Event, State};
use crate::time::Time;
use crate::wire::{Flags, SeqNum, TcpFrame};
use std::time::Duration;

/// Connections told of a drain, or reset, per turn.
const DRAIN_BUDGET: usize = 64;
/// Slots looked at for them per turn: an almost empty table of millions must not hold up a burst.
const SLOT_BUDGET: u32 = 4096;

/// What a SYN gets while no connections are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NewConnections {
    /// Nothing: the peer tries again and finds whoever takes over.
    #[default]
    Drop,
    /// A RST, within the budget: the peer knows at once.
    Reset,
    /// It is accepted, served as a drained connection is, and closed.
    Close,
}

/// How connections are to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrainOrder {
    /// The time over which those there are get told, evenly; zero is at once.
    pub over: Duration,
    /// What new ones get.
    pub new: NewConnections,
}

/// How far a drain may have come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    began: Time,
    over: Duration,
    /// Connections there were at the beginning.
    pub(super) total: u64,
    /// Those that have been told.
    pub(super) told: u64,
}

impl Pace {
    fn new(order: &DrainOrder, total: usize, now: Time) -> Self {
        Self { began: now, over: order.over, total: total as u64, told: 0 }
    }

    /// When the next one may be told: after `told` of `total` parts of the time.
    fn next(&self) -> Time {
        let parts = u128::from(self.told) * self.over.as_micros() / u128::from(self.total.max(1));
        self.began + Duration::from_micros(u64::try_from(parts).unwrap_or(u64::MAX))
    }

    fn may_tell(&self, now: Time) -> bool {
        self.next().due(now)
    }
}

impl<P: Port> Shard<P> {
    /// Begins a drain, or gives the present one another pace for what is left.
    pub(super) fn begin_drain(&mut self, order: &DrainOrder) {
        match self.core.drain {
            Drain::No => {
                self.stop_listening();
                self.core.drain = Drain::Telling(0);
            }
            Drain::Telling(_) => {}
            Drain::Told => {
                self.core.new_connections = order.new;
                return;
            }
            Drain::CuttingOff(_) | Drain::Over => return,
        }
        let core = &mut self.core;
        // Of a drain under way, those that were told and have not ended yet count too: a little too quick for the rest.
        core.pace = Pace::new(order, core.tables.conns.len(), core.now);
        core.new_connections = order.new;
    }

    /// Takes connections again. Those that were told of the drain end; the others stay.
    pub(super) fn end_drain(&mut self) {
        match self.core.drain {
            Drain::Telling(_) | Drain::Told => {}
            Drain::No | Drain::CuttingOff(_) | Drain::Over => return,
        }
        self.core.drain = Drain::No;
        self.core.pace = Pace::default();
        for _ in 0..self.core.listeners.count() {
            self.core.log.moved(State::Closed, Event::PassiveOpen, State::Listen);
        }
    }

    /// The time is over.
    pub(super) fn begin_cut_off(&mut self) {
        match self.core.drain {
            Drain::No => {
                self.stop_listening();
                self.core.drain = Drain::CuttingOff(0);
            }
            Drain::Telling(_) | Drain::Told => self.core.drain = Drain::CuttingOff(0),
            Drain::CuttingOff(_) | Drain::Over => return,
        }
        self.core.new_connections = NewConnections::Drop;
    }

    /// Listeners take no more connections. They keep their addresses: what a SYN gets is the drain's to say.
    fn stop_listening(&mut self) {
        for _ in 0..self.core.listeners.count() {
            self.core.log.moved(State::Listen, Event::Close, State::Closed);
        }
    }

    /// Tells a slice of the connections that they are to end.
    pub(super) fn tell_drain(&mut self) -> bool {
        let Drain::Telling(from) = self.core.drain else { return false };
        let mut next = from;
        let (mut slots, mut told) = (0, 0);
        while let Some(key) = self.core.tables.conns.next_slot(next) {
            if slots == SLOT_BUDGET || told == DRAIN_BUDGET || !self.core.pace.may_tell(self.core.now) {
                self.core.drain = Drain::Telling(next);
                return slots > 0;
            }
            next = key + 1;
            slots += 1;
            if self.core.tables.conns.get(key).is_some() {
                self.core.drain_conn(key, Cause::Drain);
                self.settle(key, None);
                self.core.pace.told += 1;
                told += 1;
            }
        }
        self.core.drain = Drain::Told;
        true
    }

    /// When the next connection is to be told, `Time::NEVER` for none.
    pub(super) fn next_told(&self) -> Time {
        match self.core.drain {
            Drain::Telling(_) => self.core.pace.next(),
            Drain::No | Drain::Told | Drain::CuttingOff(_) | Drain::Over => Time::NEVER,
        }
    }

    /// Resets a slice of the connections, no more than there is room to send RSTs for, and at last forgets the half-open
    /// ones: their peers have not been promised anything.
    pub(super) fn cut_off(&mut self) -> bool {
        let Drain::CuttingOff(from) = self.core.drain else { return false };
        let mut next = from;
        let (mut slots, mut cut) = (0, 0);
        while let Some(key) = self.core.tables.conns.next_slot(next) {
            // Without room to send nothing is done, and nothing can be before there is.
            if slots == SLOT_BUDGET || cut == DRAIN_BUDGET || self.port.tx_room() == 0 {
                self.core.drain = Drain::CuttingOff(next);
                return slots > 0;
            }
            next = key + 1;
            slots += 1;
            let core = &mut self.core;
            if let Some(mut conn) = core.tables.conns.live(key) {
                let mut env = Env { now: core.now, cfg: &core.cfg, pool: &mut core.pool, log: &mut core.log };
                conn.cut_off(&mut env, Cause::Drain);
                self.settle(key, None);
                cut += 1;
            }
        }
        self.drop_half_open();
        self.core.drain = Drain::Over;
        true
    }

    /// Drops half-open records when draining has reached its end: nobody waits for them.
    pub fn drop_half_open(&mut self) {
        for key in self.core.tables.half.keys() {
            if self.core.tables.remove_half(key, self.core.now).is_some() {
                self.core.log.moved(State::SynReceived, Event::Limit, State::Closed);
            }
        }
    }

    /// A SYN for a listener while no connections are taken. Returns the frame if it is to be accepted all the same.
    pub(super) fn refuse_new(&mut self, frame: Frame, seg: &TcpFrame) -> Option<Frame> {
        if self.core.takes_new() {
            return Some(frame);
        }
        self.core.block.counters.drop_frame(DropReason::Draining);
        if self.core.new_connections == NewConnections::Reset {
            let ack = seg.header.seq + seg.seg_len();
            let flags = Flags::RST | Flags::ACK;
            self.reply_reset(frame, seg, SeqNum::new(0), flags, ack, ResetCause::ClosedPort);
        } else {
            self.port.free(frame);
        }
        None
    }
}

impl Core {
    /// Whether SYNs are accepted.
    pub(super) fn takes_new(&self) -> bool {
        match self.drain {
            Drain::No => true,
            Drain::Telling(_) | Drain::Told => self.new_connections == NewConnections::Close,
            Drain::CuttingOff(_) | Drain::Over => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_spreads_what_there_is_over_the_time() {
        let began = Time::from_micros(5_000_000);
        let at = |ms: u64| began + Duration::from_millis(ms);
        let order = DrainOrder { over: Duration::from_secs(10), new: NewConnections::Drop };
        let mut pace = Pace::new(&order, 4, began);
        for ms in [0, 2500, 5000, 7500] {
            assert!(pace.may_tell(at(ms)), "{ms}");
            assert!(ms == 0 || !pace.may_tell(began + Duration::from_micros(ms * 1000 - 1)), "{ms}");
            pace.told += 1;
        }
        let mut at_once = Pace::new(&DrainOrder::default(), 1000, began);
        at_once.told = 999;
        assert!(at_once.may_tell(began));
        assert!(Pace::new(&order, 0, began).may_tell(began));
    }
}
