//! The records of a shard, by kind, with one index over all and a wheel for each kind.
//!
//! | record | slab | timers |
//! |---|---|---|
//! | [`SynRcvd`] | `half`, packed | wheels of its own, in [`HalfTable`]: the SYN-ACK's retransmission |
//! | [`Conn`] | `conns` | [`TimerWheel`], lazily armed: one entry at the earliest deadline |
//! | [`TimeWait`] | `waits`, packed | a bulk wheel of its own, in [`WaitTable`] |

use super::Capacity;
use super::half_table::{self, HalfTable};
use super::index::{Handle, Index, Kind, TupleHasher};
use super::slab::Slab;
use super::sweep::Table;
use super::wait_table::{self, WaitTable};
use super::wheel::TimerWheel;
use crate::tcp::conn::Conn;
use crate::tcp::syn_rcvd::{SYN_ACK_RTO, SynRcvd};
use crate::tcp::time_wait::TimeWait;
use crate::time::Time;
use crate::wire::Tuple;
use std::time::Duration;

/// Hundredths of a byte that an entry of the index takes: 5 bytes a bucket, eleven sixteenths of them in use.
const INDEX: usize = 728;
/// Of a timer wheel.
const TIMER: usize = 1200;
/// Of the bulk wheel: 256 bytes for 62 records.
const BULK: usize = 413;
/// Of a connection's places in the queues for output and for chunks.
const QUEUES: usize = 200 * size_of::<u32>();

/// Bytes of a record and of what goes with it, in hundredths.
const fn all_in(record: usize, beside: usize) -> usize {
    (record * 100 + beside).div_ceil(100)
}

/// Bytes a half-open connection takes, IPv4 and IPv6: record, index, wheel.
pub const HALF_OPEN_BYTES: [usize; 2] =
    [all_in(half_table::RECORD_BYTES[0], INDEX + TIMER), all_in(half_table::RECORD_BYTES[1], INDEX + TIMER)];
/// Bytes a connection takes, without its buffers: record, index, wheel, queues.
pub const CONNECTION_BYTES: usize = all_in(Slab::<Conn>::RECORD_BYTES, INDEX + TIMER + QUEUES);
/// Bytes a connection in `TIME_WAIT` takes, IPv4 and IPv6: record, index, wheel.
pub const TIME_WAIT_BYTES: [usize; 2] =
    [all_in(wait_table::RECORD_BYTES[0], INDEX + BULK), all_in(wait_table::RECORD_BYTES[1], INDEX + BULK)];

// What was promised (ARCHITECTURE.md, "Three records").
const _: () = assert!(TIME_WAIT_BYTES[0] <= 40 && TIME_WAIT_BYTES[1] <= 64);
const _: () = assert!(HALF_OPEN_BYTES[0] <= 64 && HALF_OPEN_BYTES[1] <= 96);

/// What a tuple is found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Half open.
    Half(u32),
    /// A connection.
    Conn(u32),
    /// In `TIME_WAIT`.
    Wait(u32),
    /// Nothing.
    Nothing,
}

/// All records of a shard.
pub(super) struct Tables {
    hasher: TupleHasher,
    index: Index,
    pub(super) half: HalfTable,
    pub(super) conns: Slab<Conn>,
    pub(super) conn_wheel: TimerWheel,
    pub(super) waits: WaitTable,
}

impl Tables {
    pub(super) fn new(c: &Capacity, key: (u64, u64), time_wait: Duration, now: Time) -> Self {
        let ms = now.millis();
        Self {
            hasher: TupleHasher::new(key.0, key.1),
            index: Index::new(c.connections + c.half_open + c.time_wait),
            half: HalfTable::new(c.half_open, now),
            conns: Slab::new(c.connections),
            conn_wheel: TimerWheel::new(c.connections, ms),
            waits: WaitTable::new(c.time_wait, time_wait, now),
        }
    }

    /// Records of any kind.
    pub(super) fn len(&self) -> usize {
        self.half.len() + self.conns.len() + self.waits.held()
    }

    /// Entries of the index.
    pub(super) fn indexed(&self) -> usize {
        self.index.len()
    }

    /// Entries on the wheels, those of ended `TIME_WAIT` records not counted.
    pub(super) fn timers(&self) -> usize {
        self.half.timers() + self.conn_wheel.len() + self.waits.held()
    }

    /// `TIME_WAIT` records held.
    pub(super) const fn held(&self) -> usize {
        self.waits.held()
    }

    /// Slots of a table that have been used so far are below this one.
    pub(super) fn touched(&self, table: Table) -> u32 {
        match table {
            Table::Half => self.half.touched(false),
            Table::HalfWide => self.half.touched(true),
            Table::Conns => self.conns.touched(),
            Table::Waits => self.waits.touched(false),
            Table::WaitsWide => self.waits.touched(true),
        }
    }

    /// Hash of a tuple for [`Tables::find`].
    pub(super) fn hash(&self, tuple: &Tuple) -> u64 {
        self.hasher.hash(tuple)
    }

    /// What this tuple is here.
    pub(super) fn find(&self, hash: u64, tuple: &Tuple) -> Found {
        match self.index.find(hash, |h| self.is_of(h, tuple)) {
            None => Found::Nothing,
            Some(h) => match h.kind() {
                Kind::SynRcvd => Found::Half(h.key()),
                Kind::Conn => Found::Conn(h.key()),
                Kind::TimeWait => Found::Wait(h.key()),
            },
        }
    }

    /// Whether a handle names the record of a tuple.
    fn is_of(&self, h: Handle, tuple: &Tuple) -> bool {
        match h.kind() {
            Kind::SynRcvd => self.half.holds(h.key(), tuple),
            Kind::Conn => self.conns.get(h.key()).is_some_and(|c| c.tuple == *tuple),
            Kind::TimeWait => self.waits.holds(h.key(), tuple),
        }
    }

    /// Adds a record that is in its slab to the index; `false` when the index is full.
    fn link(&mut self, tuple: &Tuple, kind: Kind, key: u32) -> bool {
        let hash = self.hasher.hash(tuple);
        let Self { hasher, index, half, conns, waits, .. } = self;
        let rehash = |h: Handle| tuple_of(half, conns, waits, h).map_or(0, |t| hasher.hash(&t));
        index.insert(hash, Handle::new(kind, key), rehash).is_ok()
    }

    fn unlink(&mut self, tuple: &Tuple, kind: Kind, key: u32) {
        let hash = self.hasher.hash(tuple);
        let removed = self.index.remove(hash, |h| h == Handle::new(kind, key));
        debug_assert!(removed.is_some(), "a record was not in the index");
    }

    /// Adds a half-open record; `None` when there is no room.
    pub(super) fn add_half(&mut self, r: &SynRcvd, now: Time) -> Option<u32> {
        let key = self.half.insert(r)?;
        if !self.link(&r.tuple, Kind::SynRcvd, key) {
            self.half.remove(key);
            return None;
        }
        self.half.arm(key, now, SYN_ACK_RTO);
        Some(key)
    }

    /// Takes a half-open record out.
    pub(super) fn remove_half(&mut self, key: u32, now: Time) -> Option<SynRcvd> {
        let r = self.half.get(key, now)?;
        self.half.remove(key);
        self.unlink(&r.tuple, Kind::SynRcvd, key);
        Some(r)
    }

    /// Adds a connection; `None` when there is no room.
    pub(super) fn add_conn(&mut self, c: Conn) -> Option<u32> {
        let tuple = c.tuple;
        let key = self.conns.insert(c)?;
        if !self.link(&tuple, Kind::Conn, key) {
            self.conns.remove(key);
            return None;
        }
        Some(key)
    }

    /// Takes a connection out.
    pub(super) fn remove_conn(&mut self, key: u32) -> Option<Conn> {
        let c = self.conns.remove(key)?;
        self.conn_wheel.disarm(key);
        self.unlink(&c.tuple, Kind::Conn, key);
        Some(c)
    }

    /// Keeps the connection's timer entry at or before its deadline.
    pub(super) fn arm_conn(&mut self, key: u32, deadline: Time) {
        if deadline != Time::NEVER {
            self.conn_wheel.arm_earlier(key, ceil_ms(deadline));
        }
    }

    /// Holds a `TIME_WAIT` record until `expires`; `false` when there is no room.
    #[must_use]
    pub(super) fn add_wait(&mut self, w: &TimeWait, expires: Time) -> bool {
        let Some(key) = self.waits.insert(w, expires) else { return false };
        let linked = self.link(&w.tuple, Kind::TimeWait, key);
        if !linked {
            let _ = self.waits.end(key);
        }
        linked
    }

    /// The record of a key.
    pub(super) fn wait(&self, key: u32) -> Option<TimeWait> {
        self.waits.get(key)
    }

    /// Whether a record may answer once more what is out of place.
    pub(super) fn may_answer(&mut self, key: u32, per_second: u8, now: Time) -> bool {
        self.waits.may_answer(key, per_second, now)
    }

    /// Time until the end of a record, at most a few milliseconds too long.
    pub(super) fn wait_left(&self, key: u32, now: Time) -> Option<Duration> {
        self.waits.left(key, now)
    }

    /// Moves a record's end.
    pub(super) fn restart_wait(&mut self, key: u32, expires: Time) {
        self.waits.restart(key, expires);
    }

    /// Ends a record before its time.
    pub(super) fn end_wait(&mut self, key: u32) {
        if let Some(w) = self.waits.end(key) {
            self.unlink(&w.tuple, Kind::TimeWait, key);
        }
    }

    /// Makes room among the `TIME_WAIT` records; what had to go, if it was a record.
    pub(super) fn evict_wait(&mut self) -> Option<TimeWait> {
        let (key, w) = self.waits.evict()?;
        self.unlink(&w.tuple, Kind::TimeWait, key);
        Some(w)
    }

    /// Keys of `TIME_WAIT` records that are due go to `out`, each to be [expired](Self::expire_wait); at most `budget`.
    pub(super) fn due_waits(&mut self, now: Time, out: &mut Vec<u32>, budget: usize) {
        self.waits.pop_due(now, out, budget);
    }

    /// Ends a record that was due, unless it was restarted. Returns the record that expired.
    pub(super) fn expire_wait(&mut self, key: u32, now: Time) -> Option<TimeWait> {
        let w = self.waits.settle(key, now)?;
        self.unlink(&w.tuple, Kind::TimeWait, key);
        Some(w)
    }

    /// When the next `TIME_WAIT` record is due, in milliseconds.
    pub(super) fn next_wait_ms(&self) -> Option<u64> {
        self.waits.next_due_ms()
    }
}

/// The tuple of the record that a handle names.
fn tuple_of(half: &HalfTable, conns: &Slab<Conn>, waits: &WaitTable, h: Handle) -> Option<Tuple> {
    match h.kind() {
        Kind::SynRcvd => half.tuple(h.key()),
        Kind::Conn => conns.get(h.key()).map(|c| c.tuple),
        Kind::TimeWait => waits.get(h.key()).map(|w| w.tuple),
    }
}

/// A deadline in the wheels' milliseconds, never early.
pub(super) fn ceil_ms(t: Time) -> u64 {
    t.micros().div_ceil(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `ARCHITECTURE.md` gives these figures. A record that grows costs every table that was sized for it, so it
    /// grows here first, on purpose.
    #[test]
    fn records_take_the_bytes_that_are_written_down() {
        assert_eq!(half_table::RECORD_BYTES, [44, 76], "half-open");
        assert_eq!(Slab::<Conn>::RECORD_BYTES, 528, "connection");
        assert_eq!(wait_table::RECORD_BYTES, [28, 52], "TIME_WAIT");
    }
}
