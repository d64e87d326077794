//! From a connection's 4-tuple to its record.
//!
//! ```text
//!  Tuple ──TupleHasher──▶ 64-bit hash ──▶ bucket ──▶ Handle (kind + number) ──▶ a table of records
//! ```
//!
//! A bucket holds a 4-byte handle and no tuple: the record has that, and the caller compares it in the closure it
//! passes. The worker owns the index; it makes no syscall.
//!
//! # Why buckets of a cache line
//!
//! A table of millions of entries is never in the cache, so what a look-up costs is the lines that it touches. A bucket is
//! one line: twelve handles, a byte of the hash (the *tag*) for each, and a count. The tags answer nearly every miss
//! without a record (a stranger's segment costs a line, and one of thirty strangers a second one), and a hit costs the
//! bucket and the record. Both can be [asked for](Index::prefetch) ahead.
//!
//! An entry whose bucket is full goes into the next one that is not, and the buckets it had to pass count it
//! (`passed`): a search goes on only while it meets a count that is not zero. A removal takes the counts back. So there are
//! no tombstones, and nothing is ever rehashed: an insertion and a removal cost the same whatever came before, the index
//! takes what it was made for, and it asks for no memory after construction. One large table of another kind would stop
//! the world now and then: filling it again, when tombstones have used it up, takes seconds for ten million entries.
//!
//! Buckets are filled to eleven sixteenths on average, 7.8 bytes an entry at any capacity. Of as many
//! as it was made for, coming and going, one in eleven then lies in another bucket than its own, most of them in the next (a
//! test holds that).

use crate::memory;
use crate::wire::Tuple;
use crate::wire::pair::{Pair, Pair4, Pair6};
use siphasher::sip::SipHasher13;

/// Entries in a bucket: with their tags and the count they fill a cache line.
const SLOTS: usize = 12;

/// Buckets for `capacity` entries: so many that eleven sixteenths of the slots are in use when all are.
///
/// Higher: chance overfills more buckets, so searches touch more lines. Lower: more memory an entry.
const fn buckets_for(capacity: usize) -> usize {
    capacity.saturating_mul(16).div_ceil(11 * SLOTS) + 1
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

/// Why an entry was not taken: the index holds as many as it was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection index is full")]
pub struct IndexFull;

/// One cache line of entries.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Bucket {
    /// A byte of each entry's hash; 0 where there is none.
    tags: [u8; SLOTS],
    /// Entries of this bucket and of ones before it that lie behind it, because it was full when they came.
    passed: u32,
    handles: [Handle; SLOTS],
}

const _: () = assert!(size_of::<Bucket>() == 64);

/// The lowest bit of each tag, the highest, and all but the highest.
const LOW: u128 = (u128::MAX / 255) & TAGS;
const HIGH: u128 = LOW << 7;
const BELOW: u128 = TAGS & !HIGH;
const TAGS: u128 = (1 << (8 * SLOTS)) - 1;

impl Bucket {
    const EMPTY: Self = Self { tags: [0; SLOTS], passed: 0, handles: [Handle(0); SLOTS] };

    /// The slots with this tag, in order, as a mask of their highest bits. Exactly those: what a free slot still holds is a
    /// handle of before.
    fn having(&self, tag: u8) -> u128 {
        let [low @ .., t8, t9, t10, t11] = self.tags;
        let tags =
            u128::from(u64::from_le_bytes(low)) | u128::from(u32::from_le_bytes([t8, t9, t10, t11])) << 64;
        let eight = LOW as u64 * u64::from(tag);
        let differing = tags ^ ((u128::from(eight) | u128::from(eight) << 64) & TAGS);
        // A byte that is not zero has its highest bit set, or gets it by what is added; nothing is carried from one to the next.
        !(((differing & BELOW) + BELOW) | differing) & HIGH
    }

    fn find(&self, tag: u8, eq: &mut impl FnMut(Handle) -> bool) -> Option<usize> {
        let mut mask = self.having(tag);
        while mask != 0 {
            let slot = mask.trailing_zeros() as usize / 8;
            if eq(self.handles[slot]) {
                return Some(slot);
            }
            mask &= mask - 1;
        }
        None
    }

    fn free_slot(&self) -> Option<usize> {
        let mask = self.having(0);
        (mask != 0).then(|| mask.trailing_zeros() as usize / 8)
    }
}

/// Handles by hash, for a fixed number of entries; never grows and never rehashes.
pub struct Index {
    buckets: Vec<Bucket>,
    len: usize,
    capacity: usize,
}

impl Index {
    /// An index for `capacity` entries: about 7.8 bytes each, all touched here, for entries fall anywhere.
    ///
    /// # Panics
    ///
    /// If the memory cannot be reserved: at start, not later.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let count = buckets_for(capacity);
        let mut buckets = memory::reserve(count);
        buckets.resize(count, Bucket::EMPTY);
        Self { buckets, len: 0, capacity }
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

    /// Bytes reserved.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.buckets.capacity() * size_of::<Bucket>()
    }

    /// The bucket of a hash: its upper half, scaled to their number.
    fn home(&self, hash: u64) -> usize {
        (((hash >> 32) * self.buckets.len() as u64) >> 32) as usize
    }

    fn next(&self, at: usize) -> usize {
        if at + 1 == self.buckets.len() { 0 } else { at + 1 }
    }

    /// Has the bucket of a hash fetched into the cache.
    pub fn prefetch(&self, hash: u64) {
        memory::prefetch(&self.buckets, self.home(hash));
    }

    /// Where the entry with this hash is that `eq` recognises: bucket and slot.
    fn locate(&self, hash: u64, mut eq: impl FnMut(Handle) -> bool) -> Option<(usize, usize)> {
        let tag = tag_of(hash);
        let mut at = self.home(hash);
        // With chance on its side a search ends in the first bucket or the second; the bound is for the worst.
        for _ in 0..self.buckets.len() {
            let bucket = &self.buckets[at];
            if let Some(slot) = bucket.find(tag, &mut eq) {
                return Some((at, slot));
            }
            if bucket.passed == 0 {
                return None;
            }
            at = self.next(at);
        }
        None
    }

    /// The entry with this hash that `eq` recognises.
    #[must_use]
    pub fn find(&self, hash: u64, eq: impl FnMut(Handle) -> bool) -> Option<Handle> {
        self.locate(hash, eq).map(|(at, slot)| self.buckets[at].handles[slot])
    }

    /// The entry that a search for this hash meets first, if any: most likely the one that is looked for.
    #[must_use]
    pub fn first(&self, hash: u64) -> Option<Handle> {
        self.find(hash, |_| true)
    }

    /// Adds an entry, which must not be in the index yet.
    ///
    /// # Errors
    ///
    /// [`IndexFull`] at the capacity: nothing has changed, and the caller answers as for a full table.
    pub fn insert(&mut self, hash: u64, handle: Handle) -> Result<(), IndexFull> {
        if self.len >= self.capacity {
            return Err(IndexFull);
        }
        self.len += 1;
        let mut at = self.home(hash);
        // There are more slots than entries, so this ends.
        loop {
            let bucket = &mut self.buckets[at];
            if let Some(slot) = bucket.free_slot() {
                bucket.tags[slot] = tag_of(hash);
                bucket.handles[slot] = handle;
                return Ok(());
            }
            bucket.passed += 1;
            at = self.next(at);
        }
    }

    /// Removes the entry with this hash that `eq` recognises.
    pub fn remove(&mut self, hash: u64, eq: impl FnMut(Handle) -> bool) -> Option<Handle> {
        let (found, slot) = self.locate(hash, eq)?;
        let mut at = self.home(hash);
        while at != found {
            self.buckets[at].passed -= 1;
            at = self.next(at);
        }
        self.len -= 1;
        let bucket = &mut self.buckets[found];
        bucket.tags[slot] = 0;
        Some(bucket.handles[slot])
    }

    /// Lets the entry with this hash that `eq` recognises name another record, in place, as when a connection
    /// becomes a `TIME_WAIT` record; the handle it had.
    pub fn replace(&mut self, hash: u64, eq: impl FnMut(Handle) -> bool, with: Handle) -> Option<Handle> {
        let (at, slot) = self.locate(hash, eq)?;
        Some(std::mem::replace(&mut self.buckets[at].handles[slot], with))
    }
}

/// The byte of a hash that stands beside its handle: of the lower half, which has no part in the choice of the bucket.
/// 0 is for free slots, so 1 stands for two values.
const fn tag_of(hash: u64) -> u8 {
    let tag = hash as u8;
    if tag == 0 { 1 } else { tag }
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
    #[inline]
    pub fn hash(&self, t: &Tuple) -> u64 {
        if t.is_v4() { self.of_pair(&Pair4::of(t)) } else { self.of_pair(&Pair6::of(t)) }
    }

    /// The hash of the tuple that a pair of its family stands for.
    #[must_use]
    #[inline]
    pub fn of_pair(&self, pair: &impl Pair) -> u64 {
        self.0.hash(pair.bytes().as_ref())
    }
}

#[cfg(test)]
mod tests;
