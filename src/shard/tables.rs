//! The records of a shard, by kind, with one index over all and a wheel for each kind.
//!
//! | record | slab | timers |
//! |---|---|---|
//! | [`SynRcvd`] | `half` | [`TimerWheel`]: the SYN-ACK's retransmission |
//! | [`Conn`] | `conns` | [`TimerWheel`], lazily armed: one entry at the earliest deadline |
//! | [`TimeWait`] | `waits` | [`BulkWheel`]: in by append, out in bulk |
//!
//! A `TIME_WAIT` slot is used again only after its entry came off the wheel: a record that ended early (re-opened)
//! leaves its slot as [`Wait::Gone`] until then.

use super::Capacity;
use super::bulk_wheel::BulkWheel;
use super::index::{Handle, Index, Kind, TupleHasher};
use super::slab::Slab;
use super::wheel::TimerWheel;
use crate::tcp::conn::Conn;
use crate::tcp::syn_rcvd::SynRcvd;
use crate::tcp::time_wait::TimeWait;
use crate::time::Time;
use crate::wire::Tuple;
use std::time::Duration;

/// Width of a `TIME_WAIT` tick in milliseconds: a record stays up to this much longer than 2MSL. Smaller makes more
/// slots and no user happier; larger makes the bulk of one tick longer.
const WAIT_TICK_MS: u64 = 16;

/// Bytes of an entry of the index (7.3), rounded up.
const INDEX_BYTES: usize = 8;
/// Bytes of an entry of a timer wheel.
const TIMER_BYTES: usize = 12;
/// Bytes of an entry of the bulk wheel (4.13), rounded up.
const BULK_BYTES: usize = 5;
/// Bytes of a connection's places in the queues for output and for chunks.
const QUEUE_BYTES: usize = 2 * size_of::<u32>();

/// Bytes a half-open connection takes: record, index, wheel.
pub const HALF_OPEN_BYTES: usize = Slab::<SynRcvd>::RECORD_BYTES + INDEX_BYTES + TIMER_BYTES;
/// Bytes a connection takes, without its buffers: record, index, wheel, queues.
pub const CONNECTION_BYTES: usize = Slab::<Conn>::RECORD_BYTES + INDEX_BYTES + TIMER_BYTES + QUEUE_BYTES;
/// Bytes a connection in `TIME_WAIT` takes: record, index, wheel.
pub const TIME_WAIT_BYTES: usize = Slab::<Wait>::RECORD_BYTES + INDEX_BYTES + BULK_BYTES;

/// A slot of the `TIME_WAIT` slab.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wait {
    /// A record.
    Held(TimeWait),
    /// It ended early; the slot waits for its entry on the wheel.
    Gone,
}

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
    pub(super) half: Slab<SynRcvd>,
    pub(super) half_wheel: TimerWheel,
    pub(super) conns: Slab<Conn>,
    pub(super) conn_wheel: TimerWheel,
    pub(super) waits: Slab<Wait>,
    pub(super) wait_wheel: BulkWheel,
    /// Held `TIME_WAIT` records, without the slots that wait for their entry.
    held: usize,
}

impl Tables {
    pub(super) fn new(c: &Capacity, key: (u64, u64), time_wait: Duration, now: Time) -> Self {
        let ms = now.millis();
        Self {
            hasher: TupleHasher::new(key.0, key.1),
            index: Index::new(c.connections + c.half_open + c.time_wait),
            half: Slab::new(c.half_open),
            half_wheel: TimerWheel::new(c.half_open, ms),
            conns: Slab::new(c.connections),
            conn_wheel: TimerWheel::new(c.connections, ms),
            waits: Slab::new(c.time_wait),
            wait_wheel: BulkWheel::new(c.time_wait, WAIT_TICK_MS, time_wait.as_millis() as u64, ms),
            held: 0,
        }
    }

    /// Records of any kind.
    pub(super) fn len(&self) -> usize {
        self.half.len() + self.conns.len() + self.held
    }

    /// Entries on the wheels, those of ended `TIME_WAIT` records not counted.
    pub(super) fn timers(&self) -> usize {
        self.half_wheel.len() + self.conn_wheel.len() + self.held
    }

    /// `TIME_WAIT` records held.
    pub(super) const fn held(&self) -> usize {
        self.held
    }

    /// Hash of a tuple for [`Tables::find`].
    pub(super) fn hash(&self, tuple: &Tuple) -> u64 {
        self.hasher.hash(tuple)
    }

    /// What this tuple is here.
    pub(super) fn find(&self, hash: u64, tuple: &Tuple) -> Found {
        match self.index.find(hash, |h| tuple_of(&self.half, &self.conns, &self.waits, h) == Some(tuple)) {
            None => Found::Nothing,
            Some(h) => match h.kind() {
                Kind::SynRcvd => Found::Half(h.key()),
                Kind::Conn => Found::Conn(h.key()),
                Kind::TimeWait => Found::Wait(h.key()),
            },
        }
    }

    /// Adds a record that is in its slab to the index; `false` when the index is full.
    fn link(&mut self, tuple: &Tuple, kind: Kind, key: u32) -> bool {
        let hash = self.hasher.hash(tuple);
        let Self { hasher, index, half, conns, waits, .. } = self;
        let rehash = |h: Handle| tuple_of(half, conns, waits, h).map_or(0, |t| hasher.hash(t));
        index.insert(hash, Handle::new(kind, key), rehash).is_ok()
    }

    fn unlink(&mut self, tuple: &Tuple, kind: Kind, key: u32) {
        let hash = self.hasher.hash(tuple);
        let removed = self.index.remove(hash, |h| h == Handle::new(kind, key));
        debug_assert!(removed.is_some(), "a record was not in the index");
    }

    /// Adds a half-open record; `None` when there is no room.
    pub(super) fn add_half(&mut self, r: SynRcvd) -> Option<u32> {
        let (tuple, due) = (r.tuple, r.due);
        let key = self.half.insert(r)?;
        if !self.link(&tuple, Kind::SynRcvd, key) {
            self.half.remove(key);
            return None;
        }
        self.half_wheel.arm(key, ceil_ms(due));
        Some(key)
    }

    /// Takes a half-open record out.
    pub(super) fn remove_half(&mut self, key: u32) -> Option<SynRcvd> {
        let r = self.half.remove(key)?;
        self.half_wheel.disarm(key);
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

    /// Adds a `TIME_WAIT` record; `false` when there is no room.
    #[must_use]
    pub(super) fn add_wait(&mut self, w: TimeWait) -> bool {
        let (tuple, expires) = (w.tuple, w.expires);
        let Some(key) = self.waits.insert(Wait::Held(w)) else { return false };
        if !self.link(&tuple, Kind::TimeWait, key) {
            self.waits.remove(key);
            return false;
        }
        let queued = self.wait_wheel.append(key, ceil_ms(expires));
        debug_assert!(queued.is_ok(), "the wheel has room for every slot of the slab");
        self.held += 1;
        true
    }

    /// The record in a slot.
    pub(super) fn wait(&self, key: u32) -> Option<&TimeWait> {
        match self.waits.get(key) {
            Some(Wait::Held(w)) => Some(w),
            Some(Wait::Gone) | None => None,
        }
    }

    /// Moves a record's expiry; its entry stays where it is and is queued again when its turn comes.
    pub(super) fn restart_wait(&mut self, key: u32, expires: Time) {
        if let Some(Wait::Held(w)) = self.waits.get_mut(key) {
            w.expires = expires;
        }
    }

    /// Ends a record before its time; the slot stays until its entry comes off the wheel.
    pub(super) fn end_wait(&mut self, key: u32) {
        if let Some(slot) = self.waits.get_mut(key)
            && let Wait::Held(w) = std::mem::replace(slot, Wait::Gone)
        {
            self.held -= 1;
            self.unlink(&w.tuple, Kind::TimeWait, key);
        }
    }

    /// A slot's entry came off the wheel: frees the slot if its time has come. Returns the record that expired.
    pub(super) fn expire_wait(&mut self, key: u32, now: Time) -> Option<TimeWait> {
        match self.waits.get(key) {
            Some(Wait::Held(w)) if !w.expires.due(now) => {
                let later = ceil_ms(w.expires);
                let queued = self.wait_wheel.append(key, later);
                debug_assert!(queued.is_ok(), "its own entry has just made room");
                None
            }
            Some(Wait::Held(_)) => self.take_wait(key),
            Some(Wait::Gone) => {
                self.waits.remove(key);
                None
            }
            None => None,
        }
    }

    /// Frees a slot whose entry is off the wheel.
    pub(super) fn take_wait(&mut self, key: u32) -> Option<TimeWait> {
        match self.waits.remove(key)? {
            Wait::Held(w) => {
                self.held -= 1;
                self.unlink(&w.tuple, Kind::TimeWait, key);
                Some(w)
            }
            Wait::Gone => None,
        }
    }
}

/// The tuple of the record that a handle names.
fn tuple_of<'a>(
    half: &'a Slab<SynRcvd>,
    conns: &'a Slab<Conn>,
    waits: &'a Slab<Wait>,
    h: Handle,
) -> Option<&'a Tuple> {
    match h.kind() {
        Kind::SynRcvd => half.get(h.key()).map(|r| &r.tuple),
        Kind::Conn => conns.get(h.key()).map(|r| &r.tuple),
        Kind::TimeWait => match waits.get(h.key()) {
            Some(Wait::Held(w)) => Some(&w.tuple),
            Some(Wait::Gone) | None => None,
        },
    }
}

/// A deadline in the wheels' milliseconds, never early.
fn ceil_ms(t: Time) -> u64 {
    t.micros().div_ceil(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `ARCHITECTURE.md` gives these figures. A record that grows costs every table that was sized for it, so it
    /// grows here first, on purpose.
    #[test]
    fn records_take_the_bytes_that_are_written_down() {
        assert_eq!(Slab::<SynRcvd>::RECORD_BYTES, 96, "half-open");
        assert_eq!(Slab::<Conn>::RECORD_BYTES, 504, "connection");
        assert_eq!(Slab::<Wait>::RECORD_BYTES, 64, "TIME_WAIT");
    }
}
