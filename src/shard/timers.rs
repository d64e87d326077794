//! The timers' share of a turn: connections, half-open records, and `TIME_WAIT` in bulk, each within a budget, so that
//! a million records due in the same tick leave in slices while frames keep flowing.

use super::Shard;
use crate::metrics::block::Retransmission;
use crate::metrics::gauges::Table;
use crate::port::Port;
use crate::tcp::conn::ConnFlags;
use crate::tcp::state::{Event, State};

/// Connection timers per turn: each may send a segment, so no more than a burst.
pub(super) const CONN_BUDGET: usize = 64;
/// Full bursts in a row that connections' timers wait for at most: 2048 frames, the ring that is made by default. Higher: a
/// worker that is never done with its ring retransmits later; lower: it does so before it has read what has arrived.
const BACKLOG_TURNS: u8 = 32;
/// Half-open timers per turn: each sends a SYN-ACK.
const HALF_BUDGET: usize = 64;
/// `TIME_WAIT` records per turn. At some 20 ns each this is 20 microseconds between two receive bursts; a million due at
/// once take a thousand turns. Fewer and the overhead of a turn shows; more and a frame waits longer.
pub(super) const WAIT_BUDGET: usize = 1024;

impl<P: Port> Shard<P> {
    /// Runs what is due. Returns whether anything was.
    ///
    /// Connections' timers wait while full bursts come in, up to [`BACKLOG_TURNS`]: after a worker had to do without its
    /// core, the ACKs that stop a timer may lie in the ring behind the burst, and what would be sent again could meet a
    /// peer that is long done.
    pub(super) fn run_timers(&mut self, full_burst: bool) -> bool {
        let waits = self.wait_timers();
        if full_burst && self.backlog < BACKLOG_TURNS {
            self.backlog += 1;
            return waits;
        }
        self.backlog = 0;
        let conns = self.conn_timers(self.core.now.millis());
        let half = self.half_timers();
        conns || half || waits
    }

    fn conn_timers(&mut self, ms: u64) -> bool {
        self.due.clear();
        self.core.tables.conns.pop_due(ms, &mut self.due, CONN_BUDGET);
        let due = std::mem::take(&mut self.due);
        for &key in &due {
            let Some(mut visit) = self.core.visit(key) else { continue };
            let traced = visit.conn.flags.has(ConnFlags::TRACED);
            if traced {
                visit.forget_moves();
            }
            let mss = visit.conn.mss();
            visit.conn.on_timer(&mut visit.env);
            visit.block.counters.path_black_holes += u64::from(visit.conn.mss() < mss);
            visit.block.counters.path_mtu_raised += u64::from(visit.conn.mss() > mss);
            if traced {
                visit.trace_moves(visit.conn.tuple());
            }
            self.settle(key, None);
        }
        let any = !due.is_empty();
        self.due = due;
        any
    }

    fn half_timers(&mut self) -> bool {
        self.due.clear();
        self.core.tables.half.pop_due(self.core.now, &mut self.due, HALF_BUDGET);
        let due = std::mem::take(&mut self.due);
        for &key in &due {
            let core = &mut self.core;
            let Some(mut half) = core.tables.half.get(key, core.now) else { continue };
            if let Some(wait) = half.on_timer(&core.cfg) {
                core.tables.half.put(key, &half);
                core.tables.half.arm(key, core.now, wait);
                core.block.counters.retransmit(Retransmission::SynAck);
                self.send_syn_ack(&half, None);
            } else {
                core.log.moved(State::SynReceived, Event::Limit, State::Closed);
                core.block.counters.half_open_given_up += 1;
                let _ = core.tables.remove_half(key, core.now);
            }
        }
        let any = !due.is_empty();
        self.due = due;
        any
    }

    fn wait_timers(&mut self) -> bool {
        self.due.clear();
        self.core.tables.due_waits(self.core.now, &mut self.due, WAIT_BUDGET);
        self.core.expire_waits(&self.due);
        !self.due.is_empty()
    }

    /// When the next timer is due, in milliseconds of the shared clock; kept by table too, so that the next turn can tell how
    /// late it comes.
    pub(super) fn next_timer_ms(&mut self) -> Option<u64> {
        let t = &self.core.tables;
        let ms = self.core.now.millis();
        self.appointments = [t.conns.appointment_ms(), t.half.appointment_ms(), t.next_wait_ms()];
        self.appointments.into_iter().flatten().min().map(|due| due.max(ms))
    }

    /// How late a turn comes for the timers of each table.
    pub(super) fn note_lag(&mut self) {
        let ms = self.core.now.millis();
        for (table, due) in Table::ALL.into_iter().zip(self.appointments) {
            self.core.block.worker.note_due(table, due, ms);
        }
    }
}
