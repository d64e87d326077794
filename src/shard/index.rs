//! From a connection's 4-tuple to its record.
//!
//! ```text
//!  Tuple ──TupleHasher──▶ 64-bit hash ──▶ part ──▶ bucket ──▶ Handle (kind + number) ──▶ a table of records
//! ```
//!
//! A bucket holds a 4-byte handle and no tuple: the record has that, and the caller compares it in the closure it
//! passes. The worker owns the index; it makes no syscall.
//!
//! # Why in parts
//!
//! One hashbrown table for everything would be simpler, but it stops the world. A removal within a run of 16 full
//! buckets leaves a tombstone; when tombstones have used up the spare buckets, the next insertion rehashes the table,
//! in place if it is less than half full and otherwise into **a new one twice as large**: seconds, and an allocation,
//! for ten million connections. This is no rare case: under churn tombstones pile up even in a table that is
//! three fifths full. Staying below half full only puts it off, and costs up to 20 bytes an entry, because
//! sizes are powers of two.
//!
//! So the index is split by hash into parts of [`PART_BUCKETS`] buckets, as many as the capacity needs:
//!
//! * parts are filled to eleven sixteenths on average, 7.3 bytes an entry, whatever the capacity;
//! * a part that has run out of spare buckets, and it alone, is cleared and filled again through a scratch list
//!   that is reserved at construction: at most 1664 hashes of records, and never an allocation. With random churn at
//!   capacity that comes to 0.6 hashes an insertion (the tests hold it below 1); [`Index::rebuilds`] counts.
//!
//! Which part an entry falls in is chance, but the keyed hash makes it a fair one: a part of 1408 expected entries
//! strays by 38 (one standard deviation), and it takes 256 more than expected before it refuses one.

use crate::wire::Tuple;
use hashbrown::HashTable;
use siphasher::sip::SipHasher13;

/// Buckets in a full-sized part, 10 KiB.
///
/// Higher: filling a part again stops the worker for longer. Lower: chance fills parts less evenly, so that the index
/// must be larger, and the list of parts no longer stays in the cache.
pub const PART_BUCKETS: usize = 2048;

/// Entries a part of `buckets` is expected to hold: eleven sixteenths.
///
/// Higher: tombstones and chance leave few spare buckets, so parts are filled again more often. Lower: more memory
/// an entry.
const fn expected(buckets: usize) -> usize {
    buckets / 16 * 11
}

/// Entries a part of `buckets` takes at most: thirteen sixteenths. At fourteen hashbrown would make it grow;
/// the sixteenth between is what insertions use up before the fullest part is filled again.
const fn most(buckets: usize) -> usize {
    buckets / 16 * 13
}

/// What kind of record a [`Handle`] names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A half-open connection.
    SynRcvd = 0,
    /// A connection in a synchronized state, or an active open.
    Conn = 1,
    /// A closed connection in `TIME_WAIT`.
    TimeWait = 2,
}

const KEY_BITS: u32 = 30;

/// Records of one kind that can be named.
pub const MAX_KEYS: u32 = 1 << KEY_BITS;

/// A record: its kind in the top 2 bits, its number in the table of its kind below them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handle(u32);

impl Handle {
    /// Names record `key` of a kind.
    ///
    /// # Panics
    ///
    /// If `key` is not below [`MAX_KEYS`]: tables are made smaller than that.
    #[must_use]
    pub const fn new(kind: Kind, key: u32) -> Self {
        assert!(key < MAX_KEYS, "record numbers have 30 bits");
        Self((kind as u32) << KEY_BITS | key)
    }
    /// The record's kind.
    #[must_use]
    pub const fn kind(self) -> Kind {
        // `new` is the only way to make one, so the fourth value of the two bits does not occur.
        match self.0 >> KEY_BITS {
            0 => Kind::SynRcvd,
            1 => Kind::Conn,
            _ => Kind::TimeWait,
        }
    }
    /// The record's number.
    #[must_use]
    pub const fn key(self) -> u32 {
        self.0 & (MAX_KEYS - 1)
    }
}

/// Why an entry was not taken: the index, or by a rare chance the part the entry falls in, is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection index is full")]
pub struct IndexFull;

/// Handles by hash, for a fixed number of entries; never grows and never rehashes as a whole.
pub struct Index {
    parts: Box<[HashTable<Handle>]>,
    /// Buckets of each part.
    buckets: usize,
    /// Where a part's entries stay while it is cleared.
    scratch: Vec<Handle>,
    len: usize,
    capacity: usize,
    rebuilds: u64,
}

impl Index {
    /// An index for `capacity` entries: about 7.3 bytes each; one of fewer than 1408 may round up to twice that.
    ///
    /// # Panics
    ///
    /// If the memory cannot be reserved: at start, not later.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let count = capacity.div_ceil(expected(PART_BUCKETS)).max(1);
        let buckets = if count == 1 {
            // Twice the group width of a table at least, so that the fractions above are whole.
            capacity.saturating_mul(16).div_ceil(11).next_power_of_two().max(32)
        } else {
            PART_BUCKETS
        };
        // A table of a power of two of buckets has room for 7/8 of them.
        let parts: Box<[_]> = (0..count).map(|_| HashTable::with_capacity(buckets / 8 * 7)).collect();
        assert!(parts.iter().all(|p| p.num_buckets() == buckets), "hashbrown sizes its tables differently");
        Self { parts, buckets, scratch: Vec::with_capacity(buckets), len: 0, capacity, rebuilds: 0 }
    }

    /// Entries held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Entries that can be held.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// How often a part was filled again because tombstones had used up its spare buckets.
    #[must_use]
    pub fn rebuilds(&self) -> u64 {
        self.rebuilds
    }

    /// Bytes reserved.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.parts.iter().map(|p| p.allocation_size() + size_of_val(p)).sum::<usize>()
            + self.scratch.capacity() * size_of::<Handle>()
    }

    /// Which part a hash falls in. hashbrown takes the lowest bits for the bucket and the top 7 for its tags; this
    /// takes 32 from between them.
    fn part_of(&self, hash: u64) -> usize {
        let middle = u64::from((hash >> 20) as u32);
        ((middle * self.parts.len() as u64) >> 32) as usize
    }

    /// The entry with this hash that `eq` recognises.
    #[must_use]
    pub fn find(&self, hash: u64, mut eq: impl FnMut(Handle) -> bool) -> Option<Handle> {
        self.parts[self.part_of(hash)].find(hash, |&h| eq(h)).copied()
    }

    /// Adds an entry, which must not be in the index yet. `rehash` gives the hash of an entry's tuple; it is asked
    /// only when a part is filled again (see the module's text), and then for entries other than this one.
    ///
    /// # Errors
    ///
    /// [`IndexFull`]: nothing has changed, and the caller answers as for a full table.
    pub fn insert(
        &mut self,
        hash: u64,
        handle: Handle,
        rehash: impl Fn(Handle) -> u64,
    ) -> Result<(), IndexFull> {
        let at = self.part_of(hash);
        let part = &mut self.parts[at];
        if self.len >= self.capacity || part.len() >= most(self.buckets) {
            return Err(IndexFull);
        }
        // The table's capacity counts what it holds and its spare buckets, without tombstones.
        if part.capacity() == part.len() {
            self.scratch.extend(part.iter());
            part.clear();
            for h in self.scratch.drain(..) {
                part.insert_unique(rehash(h), h, |&h| rehash(h));
            }
            self.rebuilds += 1;
        }
        part.insert_unique(hash, handle, |&h| rehash(h));
        self.len += 1;
        debug_assert_eq!(part.num_buckets(), self.buckets, "a part has grown");
        Ok(())
    }

    /// Removes the entry with this hash that `eq` recognises.
    pub fn remove(&mut self, hash: u64, mut eq: impl FnMut(Handle) -> bool) -> Option<Handle> {
        let at = self.part_of(hash);
        let (handle, _) = self.parts[at].find_entry(hash, |&h| eq(h)).ok()?.remove();
        self.len -= 1;
        Some(handle)
    }

    /// Lets the entry with this hash that `eq` recognises name another record, in place, as when a connection
    /// becomes a `TIME_WAIT` record; the handle it had.
    pub fn replace(&mut self, hash: u64, mut eq: impl FnMut(Handle) -> bool, with: Handle) -> Option<Handle> {
        let at = self.part_of(hash);
        self.parts[at].find_mut(hash, |&h| eq(h)).map(|h| std::mem::replace(h, with))
    }
}

/// The keyed hash of 4-tuples: SipHash-1-3, so that a peer who does not know the key cannot make entries collide.
#[derive(Clone, Copy)]
pub struct TupleHasher(SipHasher13);

impl TupleHasher {
    /// With a key of 128 random bits, drawn anew at every start.
    #[must_use]
    pub fn new(k0: u64, k1: u64) -> Self {
        Self(SipHasher13::new_with_keys(k0, k1))
    }

    /// The hash of a tuple: over 12 bytes where both ends are IPv4, else over 36.
    #[must_use]
    pub fn hash(&self, t: &Tuple) -> u64 {
        let [l, r] = [t.local.port.to_be_bytes(), t.remote.port.to_be_bytes()];
        if let (Some(local), Some(remote)) = (t.local.addr.as_v4(), t.remote.addr.as_v4()) {
            let mut b = [0; 12];
            b[..4].copy_from_slice(&local);
            b[4..8].copy_from_slice(&remote);
            b[8..10].copy_from_slice(&l);
            b[10..].copy_from_slice(&r);
            self.0.hash(&b)
        } else {
            let mut b = [0; 36];
            b[..16].copy_from_slice(t.local.addr.octets());
            b[16..32].copy_from_slice(t.remote.addr.octets());
            b[32..34].copy_from_slice(&l);
            b[34..].copy_from_slice(&r);
            self.0.hash(&b)
        }
    }
}

#[cfg(test)]
mod tests;
