//! What a worker tells of itself and of its listeners beside its counters: depths, fills, lags.
//!
//! All of it is plain numbers that the worker owns; it is copied into the [`Block`](super::block::Block) of a report. No
//! name of a peer is ever a label: the sets are those of the configuration and of the code.

use super::buckets::{Buckets, TimeBuckets};
use crate::port::RingDepths;
use crate::tcp::record::{Cause, ClosePath, CloseRecord};

/// Upper bounds of the buckets of `TIME_WAIT` records that leave in one turn; the largest is a turn's budget.
pub const BATCH_BOUNDS: [u64; 6] = [1, 4, 16, 64, 256, 1024];

/// A table of a worker: the `table` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Table {
    /// Connections.
    Connections,
    /// Half-open connections.
    HalfOpen,
    /// `TIME_WAIT` records.
    TimeWait,
}

impl Table {
    /// All tables in the order of the gauges; its wheels have the same.
    pub const ALL: [Self; 3] = [Self::Connections, Self::HalfOpen, Self::TimeWait];
    /// The value of the `table` and `wheel` labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::HalfOpen => "half_open",
            Self::TimeWait => "time_wait",
        }
    }
}

/// How full a table is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fill {
    /// Records held.
    pub used: u64,
    /// Records there is room for.
    pub capacity: u64,
}

/// A queue of a worker's mailbox: the `queue` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Queue {
    /// Commands of the control plane.
    Commands,
    /// Answers to it.
    Replies,
    /// Frames from another worker.
    Frames,
}

impl Queue {
    /// All queues in the order of the gauges.
    pub const ALL: [Self; 3] = [Self::Commands, Self::Replies, Self::Frames];
    /// The value of the `queue` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Commands => "commands",
            Self::Replies => "replies",
            Self::Frames => "frames",
        }
    }
}

/// A budget of answers or of frames passed on: the `budget` label of `finwheel_budget_refusals_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum BudgetKind {
    /// RSTs to segments that belong to nothing here, by worker.
    Reset,
    /// ACKs to what is out of place while half-open, by worker.
    HalfOpen,
    /// ACKs to what is out of place, by connection.
    Connection,
    /// ACKs from `TIME_WAIT`, by worker.
    TimeWait,
    /// ACKs from `TIME_WAIT`, by pair.
    TimeWaitPair,
    /// Frames passed on to another worker, by worker.
    Forward,
}

impl BudgetKind {
    /// All budgets in counter order.
    pub const ALL: [Self; 6] =
        [Self::Reset, Self::HalfOpen, Self::Connection, Self::TimeWait, Self::TimeWaitPair, Self::Forward];
    /// The value of the `budget` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::HalfOpen => "half_open",
            Self::Connection => "connection",
            Self::TimeWait => "time_wait",
            Self::TimeWaitPair => "time_wait_pair",
            Self::Forward => "forward",
        }
    }
}

/// One worker at the moment of its report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerGauges {
    /// Its rings.
    pub rings: RingDepths,
    /// Entries in the queues of its mailbox, by [`Queue`].
    pub mailbox: [u64; Queue::ALL.len()],
    /// How full its tables are, by [`Table`].
    pub tables: [Fill; Table::ALL.len()],
    /// By how much the timers of each [`Table`] were late at most since the last report, in milliseconds.
    pub wheel_lag_ms: [u64; Table::ALL.len()],
    /// `TIME_WAIT` records that left in one turn, of turns in which any did.
    pub expiry_batch: Buckets<{ BATCH_BOUNDS.len() }>,
}

impl WorkerGauges {
    /// A turn is over, and the next timer of a table is due at `due_ms`: how late is it?
    pub fn note_due(&mut self, table: Table, due_ms: Option<u64>, now_ms: u64) {
        let lag = due_ms.map_or(0, |due| now_ms.saturating_sub(due));
        let worst = &mut self.wheel_lag_ms[table as usize];
        *worst = lag.max(*worst);
    }
}

/// One listener of one worker: counters since the start and a gauge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerCounters {
    /// Connections opened.
    pub opened: u64,
    /// Connections open now, `TIME_WAIT` not among them (gauge).
    pub active: u64,
    /// Payload bytes received in order.
    pub bytes_in: u64,
    /// Payload bytes sent and acknowledged.
    pub bytes_out: u64,
    /// Closes by path and cause.
    pub closes: [[u64; Cause::ALL.len()]; ClosePath::ALL.len()],
    /// From the first FIN to the end of the connection.
    pub close_time: TimeBuckets,
}

impl Default for ListenerCounters {
    fn default() -> Self {
        Self {
            opened: 0,
            active: 0,
            bytes_in: 0,
            bytes_out: 0,
            closes: [[0; Cause::ALL.len()]; ClosePath::ALL.len()],
            close_time: TimeBuckets::default(),
        }
    }
}

impl ListenerCounters {
    /// A connection is open.
    pub fn open(&mut self) {
        self.opened += 1;
        self.active += 1;
    }
    /// A connection ended; `was_open` when [`ListenerCounters::open`] was called for it.
    pub fn close(&mut self, r: &CloseRecord, was_open: bool) {
        self.active = self.active.saturating_sub(u64::from(was_open));
        self.closes[r.path as usize][r.cause as usize] += 1;
        self.close_time.record_time(r.times.total());
    }
    /// Adds another worker's share of the same listener.
    pub fn merge(&mut self, other: &Self) {
        let Self { opened, active, bytes_in, bytes_out, closes, close_time } = other;
        for (mine, theirs) in [
            (&mut self.opened, opened),
            (&mut self.active, active),
            (&mut self.bytes_in, bytes_in),
            (&mut self.bytes_out, bytes_out),
        ] {
            *mine += theirs;
        }
        for (mine, theirs) in self.closes.as_flattened_mut().iter_mut().zip(closes.as_flattened()) {
            *mine += theirs;
        }
        self.close_time.merge(close_time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_in_the_order_of_the_counters_with_names_of_their_own() {
        for (i, b) in BudgetKind::ALL.into_iter().enumerate() {
            assert_eq!(b as usize, i);
        }
        for (i, (t, q)) in Table::ALL.into_iter().zip(Queue::ALL).enumerate() {
            assert_eq!((t as usize, q as usize), (i, i));
        }
        let names: std::collections::HashSet<_> = BudgetKind::ALL.map(BudgetKind::as_str).into();
        assert_eq!(names.len(), BudgetKind::ALL.len());
    }

    #[test]
    fn the_worst_lag_stays_until_it_is_reported() {
        let mut w = WorkerGauges::default();
        for (due, now) in [(Some(90), 100), (Some(100), 101), (None, 200), (Some(500), 300)] {
            w.note_due(Table::TimeWait, due, now);
        }
        assert_eq!(w.wheel_lag_ms, [0, 0, 10]);
    }

    #[test]
    fn listeners_of_several_workers_add_up() {
        let mut one =
            ListenerCounters { opened: 3, active: 2, bytes_in: 5, bytes_out: 7, ..Default::default() };
        one.closes[1][2] = 4;
        one.close_time.record_time(std::time::Duration::from_micros(70));
        let mut sum = one;
        sum.merge(&one);
        assert_eq!((sum.opened, sum.active, sum.bytes_in, sum.bytes_out), (6, 4, 10, 14));
        assert_eq!((sum.closes[1][2], sum.close_time.total()), (8, 2));
    }
}
