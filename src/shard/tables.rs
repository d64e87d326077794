//! The records of a shard, by kind, with one index over all and a wheel for each kind.
//!
//! | record | slab | timers |
//! |---|---|---|
//! | [`SynRcvd`] | `half`, packed | wheels of its own, in [`HalfTable`]: the SYN-ACK's retransmission |
//! | [`Conn`] | `conns`, packed | wheels of its own, in [`ConnTable`], lazily armed: one entry at the earliest deadline |
//! | [`TimeWait`] | `waits`, packed | a bulk wheel of its own, in [`WaitTable`] |

use super::Capacity;
use super::conn_table::{self, ConnTable};
use super::half_table::{self, HalfTable};
use super::index::{Handle, Index, Kind, TupleHasher};
use super::sweep::Table;
use super::wait_table::{self, WaitTable};
use crate::metrics::gauges::Fill;
use crate::tcp::conn::Conn;
use crate::tcp::syn_rcvd::{SYN_ACK_RTO, SynRcvd};
use crate::tcp::time_wait::TimeWait;
use crate::time::Time;
use crate::wire::Tuple;
use std::time::Duration;

/// Hundredths of a byte that an entry of the index takes: 64 bytes for 12 entries, eleven sixteenths of them in use.
const INDEX: usize = 776;
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
/// Bytes a connection takes at rest, IPv4 and IPv6: record, index, wheel, queues.
pub const CONNECTION_BYTES: [usize; 2] = [
    all_in(conn_table::RECORD_BYTES[0], INDEX + TIMER + QUEUES),
    all_in(conn_table::RECORD_BYTES[1], INDEX + TIMER + QUEUES),
];
/// Bytes more, and chunks beside, while a connection sends, keeps what arrived, or lingers.
pub const FLIGHT_BYTES: usize = conn_table::FLIGHT_BYTES;
/// Bytes a connection in `TIME_WAIT` takes, IPv4 and IPv6: record, index, wheel.
pub const TIME_WAIT_BYTES: [usize; 2] =
    [all_in(wait_table::RECORD_BYTES[0], INDEX + BULK), all_in(wait_table::RECORD_BYTES[1], INDEX + BULK)];

// What was promised (ARCHITECTURE.md, "Three records").
const _: () = assert!(TIME_WAIT_BYTES[0] <= 40 && TIME_WAIT_BYTES[1] <= 64);
const _: () = assert!(CONNECTION_BYTES[0] <= 256 && CONNECTION_BYTES[1] <= 288);
const _: () = assert!(HALF_OPEN_BYTES[0] <= 64 && HALF_OPEN_BYTES[1] <= 96);

/// Records that expire together: as many misses as a core has in flight, and some to spare.
const TOGETHER: usize = 32;

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

impl Found {
    #[inline]
    fn of(h: Handle) -> Self {
        match h.kind() {
            Kind::SynRcvd => Self::Half(h.key()),
            Kind::Conn => Self::Conn(h.key()),
            Kind::TimeWait => Self::Wait(h.key()),
        }
    }
}

/// All records of a shard.
pub(super) struct Tables {
    hasher: TupleHasher,
    index: Index,
    pub(super) half: HalfTable,
    pub(super) conns: ConnTable,
    pub(super) waits: WaitTable,
    /// What there is room for, in the order of [`Table`](crate::metrics::gauges::Table).
    capacity: [u64; 3],
}

impl Tables {
    pub(super) fn new(c: &Capacity, key: (u64, u64), time_wait: Duration, now: Time) -> Self {
        Self {
            hasher: TupleHasher::new(key.0, key.1),
            index: Index::new(c.connections + c.half_open + c.time_wait),
            half: HalfTable::new(c.half_open, now),
            conns: ConnTable::new(c.connections, now),
            waits: WaitTable::new(c.time_wait, time_wait, now),
            capacity: [c.connections, c.half_open, c.time_wait].map(|n| n as u64),
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

    /// How full each table is, in the order of [`Table`](crate::metrics::gauges::Table).
    pub(super) fn fills(&self) -> [Fill; 3] {
        let [conns, half, waits] = self.capacity;
        [
            Fill { used: self.conns.len() as u64, capacity: conns },
            Fill { used: self.half.len() as u64, capacity: half },
            Fill { used: self.waits.held() as u64, capacity: waits },
        ]
    }

    /// Entries on the wheels, those of ended `TIME_WAIT` records not counted.
    pub(super) fn timers(&self) -> usize {
        self.half.timers() + self.conns.timers() + self.waits.held()
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
            Table::Conns => self.conns.touched(false),
            Table::ConnsWide => self.conns.touched(true),
            Table::Waits => self.waits.touched(false),
            Table::WaitsWide => self.waits.touched(true),
        }
    }

    /// Hash of a tuple for [`Tables::find`].
    #[inline]
    pub(super) fn hash(&self, tuple: &Tuple) -> u64 {
        self.hasher.hash(tuple)
    }

    /// Has the place of a hash in the index fetched into the cache.
    #[inline]
    pub(super) fn prefetch_place(&self, hash: u64) {
        self.index.prefetch(hash);
    }

    /// Has the record fetched that a hash most likely leads to, and its timer. Returns its handle.
    #[inline]
    pub(super) fn prefetch_record(&self, hash: u64) -> Option<Handle> {
        let h = self.index.first(hash)?;
        match h.kind() {
            Kind::SynRcvd => self.half.prefetch(h.key()),
            Kind::Conn => self.conns.prefetch(h.key()),
            Kind::TimeWait => self.waits.prefetch(h.key()),
        }
        Some(h)
    }

    /// What this tuple is here.
    #[inline]
    pub(super) fn find(&self, hash: u64, tuple: &Tuple) -> Found {
        self.index.find(hash, |h| self.is_of(h, tuple)).map_or(Found::Nothing, Found::of)
    }

    /// As [`find`](Self::find), where the record may be `likely`. Every record is in the index, and no two are of one tuple: one
    /// of this tuple is the one, however long ago it was thought of.
    #[inline]
    pub(super) fn find_likely(&self, hash: u64, likely: Option<Handle>, tuple: &Tuple) -> Found {
        match likely {
            Some(h) if self.is_of(h, tuple) => Found::of(h),
            Some(_) | None => self.find(hash, tuple),
        }
    }

    /// Whether a handle names the record of a tuple.
    #[inline]
    fn is_of(&self, h: Handle, tuple: &Tuple) -> bool {
        match h.kind() {
            Kind::SynRcvd => self.half.holds(h.key(), tuple),
            Kind::Conn => self.conns.holds(h.key(), tuple),
            Kind::TimeWait => self.waits.holds(h.key(), tuple),
        }
    }

    /// Adds a record that is in its slab to the index; `false` when the index is full.
    fn link(&mut self, tuple: &Tuple, kind: Kind, key: u32) -> bool {
        let hash = self.hasher.hash(tuple);
        self.index.insert(hash, Handle::new(kind, key)).is_ok()
    }

    fn unlink(&mut self, tuple: &Tuple, kind: Kind, key: u32) {
        self.unlink_hashed(self.hasher.hash(tuple), kind, key);
    }

    fn unlink_hashed(&mut self, hash: u64, kind: Kind, key: u32) {
        let removed = self.index.remove(hash, |h| h == Handle::new(kind, key));
        debug_assert!(removed.is_some(), "a record was not in the index");
    }

    /// Adds a half-open record whose tuple has this hash; `None` when there is no room.
    pub(super) fn add_half(&mut self, r: &SynRcvd, hash: u64, now: Time) -> Option<u32> {
        let key = self.half.insert(r)?;
        if self.index.insert(hash, Handle::new(Kind::SynRcvd, key)).is_err() {
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

    /// Lets a connection take the place of the half-open record `half` of its tuple, which has this hash; `None` when
    /// there is no room, and the record stays.
    pub(super) fn promote(&mut self, half: u32, tuple: &Tuple, hash: u64, c: Conn) -> Option<u32> {
        let key = self.conns.insert(tuple, c)?;
        let (old, new) = (Handle::new(Kind::SynRcvd, half), Handle::new(Kind::Conn, key));
        let replaced = self.index.replace(hash, |h| h == old, new);
        debug_assert!(replaced.is_some(), "a record was not in the index");
        self.half.remove(half);
        Some(key)
    }

    /// Adds a connection; `None` when there is no room.
    pub(super) fn add_conn(&mut self, tuple: &Tuple, c: Conn) -> Option<u32> {
        let key = self.conns.insert(tuple, c)?;
        if !self.link(tuple, Kind::Conn, key) {
            self.conns.remove(key);
            return None;
        }
        Some(key)
    }

    /// Takes a connection out whose tuple has this hash. It has released its chunks.
    pub(super) fn remove_conn(&mut self, key: u32, hash: u64) {
        self.conns.remove(key);
        self.forget_conn(key, hash);
    }

    /// Drops the place in the index of a connection that was taken out of its table.
    pub(super) fn forget_conn(&mut self, key: u32, hash: u64) {
        self.unlink_hashed(hash, Kind::Conn, key);
    }

    /// Holds a `TIME_WAIT` record until `expires`, in the place in the index of the connection `conn`, which was taken out
    /// and whose tuple has this hash; `false` when there is no room.
    #[must_use]
    pub(super) fn add_wait(&mut self, w: &TimeWait, expires: Time, conn: u32, hash: u64) -> bool {
        let Some(key) = self.waits.insert(w, expires) else { return false };
        let (old, new) = (Handle::new(Kind::Conn, conn), Handle::new(Kind::TimeWait, key));
        let replaced = self.index.replace(hash, |h| h == old, new);
        debug_assert!(replaced.is_some(), "a record was not in the index");
        true
    }

    /// Holds a record that no connection leaves behind.
    #[cfg(test)]
    pub(super) fn add_lone_wait(&mut self, w: &TimeWait, expires: Time) -> bool {
        self.waits.insert(w, expires).is_some_and(|key| self.link(&w.tuple, Kind::TimeWait, key))
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

    /// Ends records that were due, but those that were restarted; `expired` hears of each that is gone.
    ///
    /// Some are worked on together, so that their cache misses overlap: while the places in the index of one group are
    /// on their way, the records of the next are asked for.
    pub(super) fn expire_waits(&mut self, due: &[u32], now: Time, mut expired: impl FnMut(&TimeWait)) {
        let Self { hasher, index, waits, .. } = self;
        let mut hashes = [0; TOGETHER];
        for group in due.chunks(TOGETHER) {
            for &key in group {
                waits.prefetch(key);
            }
            for (hash, &key) in hashes.iter_mut().zip(group) {
                *hash = waits.hash(key, hasher);
                index.prefetch(*hash);
            }
            for (&hash, &key) in hashes.iter().zip(group) {
                let Some(w) = waits.settle(key, now) else { continue };
                let removed = index.remove(hash, |h| h == Handle::new(Kind::TimeWait, key));
                debug_assert!(removed.is_some(), "a record was not in the index");
                expired(&w);
            }
        }
    }

    /// When the next `TIME_WAIT` record is due, in milliseconds.
    pub(super) fn next_wait_ms(&self) -> Option<u64> {
        self.waits.next_due_ms()
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
        assert_eq!(conn_table::RECORD_BYTES, [228, 252], "connection at rest");
        assert_eq!(CONNECTION_BYTES, [256, 280], "the same with what goes with it");
        assert_eq!(wait_table::RECORD_BYTES, [28, 52], "TIME_WAIT");
    }
}
