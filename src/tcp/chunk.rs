//! The memory that connections borrow while bytes are in flight.
//!
//! ```text
//!  ChunkPool ──alloc──▶ chunk id ──chained by──▶ SendBuf (unacknowledged bytes)
//!      ▲                                       ▶ RecvBuf (unread bytes; out-of-order segments)
//!      └────────────────────free─────────────────┘
//! ```
//!
//! One pool a worker, all of it reserved at construction: an idle connection owns no chunk, a busy one a chain
//! of them. Whoever took a chunk owns it until it is given back; a buffer that is dropped without
//! `clear` keeps its chunks for good, so the owner of a connection clears both buffers before it
//! lets go of the record. No syscall, no allocation after [`ChunkPool::new`].

use crate::memory;

/// Bytes in a chunk.
///
/// One full segment of an Ethernet link (MSS 1460) fits with room to spare, and two chunks are a page. Higher:
/// a connection with a few bytes waiting pins more memory. Lower: every segment straddles chunks, and long
/// chains take more steps to walk.
pub const CHUNK_BYTES: usize = 2048;

/// The part of the pool, as numerator and denominator, down to which nobody's share of it is less than what it may hold at
/// most. Higher: shares shrink though there is plenty; lower: they shrink late and steeply.
const PLENTY: (u64, u64) = (3, 4);

/// No chunk: the end of a chain.
pub(super) const NONE: u32 = u32::MAX;

/// `start` of a chunk that lies in the free list; larger than any offset within a chunk.
const FREE: u16 = u16::MAX;

const _: () = assert!(CHUNK_BYTES < FREE as usize);

/// What is known of a chunk, kept apart from its bytes so that walking a chain does not touch them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meta {
    /// The next chunk of the chain, or of the free list; [`NONE`] at the end.
    pub next: u32,
    /// Position of the first byte: a sequence number or an offset into a stream, as the owner likes.
    pub seq: u32,
    /// Offset of the first byte in use.
    pub start: u16,
    /// Offset behind the last byte in use.
    pub end: u16,
}

impl Meta {
    /// Bytes in use.
    pub fn len(&self) -> usize {
        usize::from(self.end.wrapping_sub(self.start))
    }
    /// Bytes that can still be appended.
    pub fn room(&self) -> usize {
        CHUNK_BYTES.saturating_sub(usize::from(self.end))
    }
    /// Position behind the last byte in use.
    pub fn end_seq(&self) -> u32 {
        self.seq.wrapping_add(self.len() as u32)
    }
}

/// A fixed number of chunks of [`CHUNK_BYTES`], lent by id.
pub struct ChunkPool {
    bytes: Box<[u8]>,
    /// Grows, within its reserved capacity, as chunks are used for the first time: a page of the pool that no
    /// connection ever needed is never touched.
    meta: Vec<Meta>,
    total: u32,
    used: u32,
    free: u32,
}

impl ChunkPool {
    /// A pool of `chunks` chunks; memory is `chunks` × (2048 + 12) bytes, touched on first use.
    ///
    /// # Panics
    ///
    /// If `chunks` does not fit in the ids (2³² − 1) or the memory cannot be reserved: at start, not later.
    #[must_use]
    pub fn new(chunks: usize) -> Self {
        let total = u32::try_from(chunks)
            .ok()
            .filter(|&n| n < NONE)
            .expect("a chunk pool holds fewer than 2^32 - 1 chunks");
        let size = chunks.checked_mul(CHUNK_BYTES).expect("the pool's size fits in usize");
        Self { bytes: memory::zeroed(size), meta: Vec::with_capacity(chunks), total, used: 0, free: NONE }
    }

    /// Chunks lent at the moment.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used as usize
    }

    /// Chunks in all.
    #[must_use]
    pub fn total(&self) -> usize {
        self.total as usize
    }

    /// Chunks that can still be lent.
    #[must_use]
    pub fn available(&self) -> usize {
        (self.total - self.used) as usize
    }

    /// Most bytes an owner that holds `held` may hold, of the `most` that it ever may: all while the others leave
    /// three quarters of the pool, then less by the square of what they leave of that. So the first ones get all that they may,
    /// later ones ever less, and something is left for who comes next: of a pool of which `n` owners took what they could,
    /// about one part in `1 + n × most / total`. One chunk's worth is never refused as long as there is one.
    #[must_use]
    pub fn share(&self, held: usize, most: usize) -> usize {
        let total = (self.total() * CHUNK_BYTES) as u64;
        let left = (self.available() * CHUNK_BYTES + held) as u64;
        let part = ((left * PLENTY.1) << 16).checked_div(total * PLENTY.0).unwrap_or(0).min(1 << 16);
        let share = (most as u64 * ((part * part) >> 16)) >> 16;
        (share as usize).max(CHUNK_BYTES.min(most))
    }

    /// Lends an empty chunk; `None` when all are lent.
    pub fn alloc(&mut self) -> Option<u32> {
        let empty = Meta { next: NONE, seq: 0, start: 0, end: 0 };
        let id = if self.free == NONE {
            let id = self.meta.len() as u32;
            if id >= self.total {
                return None;
            }
            self.meta.push(empty);
            id
        } else {
            let id = self.free;
            self.free = self.meta[id as usize].next;
            self.meta[id as usize] = empty;
            id
        };
        self.used += 1;
        Some(id)
    }

    /// Takes a chunk back. One that is not lent is left alone (and is a failed assertion in debug builds): a
    /// free list with a loop in it would lend the same bytes to two connections.
    pub fn free(&mut self, id: u32) {
        let lent = self.meta.get(id as usize).is_some_and(|m| m.start != FREE);
        debug_assert!(lent, "chunk {id} was given back twice or never lent");
        if !lent {
            return;
        }
        self.meta[id as usize] = Meta { next: self.free, seq: 0, start: FREE, end: FREE };
        self.free = id;
        self.used -= 1;
    }

    pub(super) fn meta(&self, id: u32) -> &Meta {
        &self.meta[id as usize]
    }

    pub(super) fn meta_mut(&mut self, id: u32) -> &mut Meta {
        &mut self.meta[id as usize]
    }

    /// All bytes of a chunk, for an owner that keeps count itself of what it uses.
    pub(super) fn whole(&self, id: u32) -> &[u8] {
        let base = id as usize * CHUNK_BYTES;
        &self.bytes[base..base + CHUNK_BYTES]
    }

    /// As [`whole`](Self::whole), to write.
    pub(super) fn whole_mut(&mut self, id: u32) -> &mut [u8] {
        let base = id as usize * CHUNK_BYTES;
        &mut self.bytes[base..base + CHUNK_BYTES]
    }

    /// The bytes in use of a chunk.
    pub(super) fn data(&self, id: u32) -> &[u8] {
        let m = self.meta(id);
        let base = id as usize * CHUNK_BYTES;
        &self.bytes[base + usize::from(m.start)..base + usize::from(m.end)]
    }

    /// Appends as much of `bytes` as the chunk has room for; how much that was.
    pub(super) fn push(&mut self, id: u32, bytes: &[u8]) -> usize {
        let m = &mut self.meta[id as usize];
        let n = bytes.len().min(m.room());
        let at = id as usize * CHUNK_BYTES + usize::from(m.end);
        self.bytes[at..at + n].copy_from_slice(&bytes[..n]);
        m.end += n as u16;
        n
    }

    /// Appends all of `from` to `to` if there is room; whether there was. `from` keeps its bytes.
    pub(super) fn push_chunk(&mut self, to: u32, from: u32) -> bool {
        let (src, dst) = (*self.meta(from), *self.meta(to));
        if src.len() > dst.room() {
            return false;
        }
        let base = from as usize * CHUNK_BYTES;
        self.bytes.copy_within(
            base + usize::from(src.start)..base + usize::from(src.end),
            to as usize * CHUNK_BYTES + usize::from(dst.end),
        );
        self.meta_mut(to).end += src.len() as u16;
        true
    }

    /// Gives a whole chain back, from `head` on.
    pub(super) fn free_chain(&mut self, head: u32) {
        let mut id = head;
        while id != NONE {
            let next = self.meta(id).next;
            self.free(id);
            id = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lends_every_chunk_once_and_then_none() {
        let mut pool = ChunkPool::new(3);
        let mut ids: Vec<u32> = (0..3).map(|_| pool.alloc().unwrap()).collect();
        assert_eq!(pool.alloc(), None);
        assert_eq!((pool.used(), pool.total(), pool.available()), (3, 3, 0));
        ids.sort_unstable();
        assert_eq!(ids, [0, 1, 2]);
        pool.free(1);
        assert_eq!(pool.alloc(), Some(1));
    }

    #[test]
    #[should_panic(expected = "given back twice")]
    #[cfg(debug_assertions)]
    fn a_double_free_is_caught() {
        let mut pool = ChunkPool::new(2);
        let id = pool.alloc().unwrap();
        pool.free(id);
        pool.free(id);
    }

    #[test]
    fn d02_one_owner_may_have_its_bound_and_a_thousand_leave_something() {
        let most = 128 * CHUNK_BYTES;
        for chunks in [1, 2, 128, 32_768] {
            let mut pool = ChunkPool::new(chunks);
            for held in 0..chunks.min(128) {
                assert_eq!(pool.share(held * CHUNK_BYTES, most), most, "{held} of {chunks}");
                assert!(pool.alloc().is_some());
            }
        }
        let mut pool = ChunkPool::new(32_768);
        let mut last = usize::MAX;
        for _ in 0..1000 {
            let mut held = 0;
            while pool.share(held * CHUNK_BYTES, most) >= (held + 1) * CHUNK_BYTES && pool.alloc().is_some() {
                held += 1;
            }
            assert!(held <= last && held >= 3, "{held} after {last}");
            last = held;
        }
        assert!(pool.available() > 32_768 / 9, "{}", pool.available());
        assert_eq!((ChunkPool::new(0).share(0, 100), pool.share(0, 10)), (100, 10));
    }

    #[test]
    fn an_empty_pool_lends_nothing() {
        assert_eq!(ChunkPool::new(0).alloc(), None);
    }

    proptest! {
        #[test]
        fn no_chunk_is_lent_twice(ops in prop::collection::vec(any::<(bool, u8)>(), 1..200)) {
            let mut pool = ChunkPool::new(9);
            let mut lent: Vec<u32> = Vec::new();
            for (take, pick) in ops {
                if take {
                    if let Some(id) = pool.alloc() {
                        prop_assert!(!lent.contains(&id));
                        // What a chunk holds is its owner's alone.
                        pool.push(id, &id.to_be_bytes());
                        lent.push(id);
                    } else {
                        prop_assert_eq!(lent.len(), 9);
                    }
                } else if !lent.is_empty() {
                    let id = lent.swap_remove(usize::from(pick) % lent.len());
                    pool.free(id);
                }
                prop_assert_eq!(pool.used(), lent.len());
                for &id in &lent {
                    prop_assert_eq!(pool.data(id), &id.to_be_bytes());
                }
            }
        }
    }
}
