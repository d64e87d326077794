//! What the peer has sent and the service has not taken: bytes in order, and segments ahead of a gap.
//!
//! ```text
//!  segment at rcv_nxt ──receive──▶ unread chain ──front, consume──▶ service
//!                                      ▲ advance (chunks are relinked, not copied)
//!  segment beyond a gap ──insert──▶ out-of-order chain, sorted ──ranges──▶ SACK blocks
//! ```
//!
//! A connection owns one in 32 bytes and the pool owns the memory. On overlap the first copy of a byte wins,
//! in order or not. Out-of-order bytes may be dropped at any time (RFC 2018 §8): the peer keeps them until they
//! are acknowledged.

use super::chunk::{CHUNK_BYTES, ChunkPool, NONE};
use crate::wire::SeqNum;

/// Bytes ahead of `rcv_nxt` beyond which nothing is kept: the largest window there is (RFC 7323 §2.3), which
/// keeps sequence numbers comparable.
const MAX_SPAN: u32 = 1 << 30;

/// Most chunks one connection holds out of order (2 MiB).
///
/// Higher: one peer can make each of its segments walk a longer chain. Lower: a window that large is refused in
/// part after a loss, and sent again.
pub const MAX_OOO_CHUNKS: u16 = 1024;

/// Chunks that may be held out of order however little is in them (64 KiB).
///
/// Higher: a peer pins more of the pool with one-byte segments. Lower: small messages are refused
/// after fewer gaps.
pub const SPARSE_CHUNKS: u16 = 32;

/// Beyond [`SPARSE_CHUNKS`], the mean number of bytes in a chunk below which no further one is taken.
///
/// Just below the default MSS of 536 (RFC 9293 §3.7.1), so that full segments with gaps between them are kept.
/// Higher: those are refused. Lower: memory for scattered crumbs.
pub const SPARSE_BYTES: u32 = 512;

/// Memory for a byte beyond a gap, at worst.
pub const OOO_OVERHEAD: usize = CHUNK_BYTES / SPARSE_BYTES as usize;

const _: () = assert!(SPARSE_CHUNKS < MAX_OOO_CHUNKS);

/// Why an out-of-order segment was not, or not wholly, kept. It is not acknowledged, so the peer sends it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The worker's pool is empty.
    NoChunk,
    /// The connection holds as many, or as scattered, ranges as it may.
    TooManyRanges,
    /// It reaches further beyond `rcv_nxt` than any window.
    OutOfSpan,
}

/// Bytes received: unread ones in order, and ranges beyond a gap.
///
/// Holds chunks of a pool: [`clear`](Self::clear) it before it is dropped.
#[derive(Debug)]
pub struct RecvBuf {
    head: u32,
    tail: u32,
    unread: u32,
    ooo_head: u32,
    ooo_tail: u32,
    ooo_bytes: u32,
    ooo_chunks: u16,
}

const _: () = assert!(size_of::<RecvBuf>() <= 32);

impl Default for RecvBuf {
    fn default() -> Self {
        Self {
            head: NONE,
            tail: NONE,
            unread: 0,
            ooo_head: NONE,
            ooo_tail: NONE,
            ooo_bytes: 0,
            ooo_chunks: 0,
        }
    }
}

impl RecvBuf {
    /// Bytes in order that the service has not taken.
    #[must_use]
    pub fn unread(&self) -> usize {
        self.unread as usize
    }

    /// Bytes held in all.
    #[must_use]
    pub fn held(&self) -> usize {
        self.unread() + self.buffered_ooo()
    }

    /// Bytes of the pool that hold what is beyond a gap, used or not.
    #[must_use]
    pub fn memory_ooo(&self) -> usize {
        usize::from(self.ooo_chunks) * CHUNK_BYTES
    }

    /// Bytes held beyond a gap.
    #[must_use]
    pub fn buffered_ooo(&self) -> usize {
        self.ooo_bytes as usize
    }

    /// Whether it holds nothing at all, and so owns no chunk.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.head == NONE && self.ooo_head == NONE
    }

    /// Takes a segment's bytes that begin at `rcv_nxt`, along with what was waiting behind them; by how
    /// much `rcv_nxt` moves on.
    ///
    /// Where the segment overlaps what is held out of order, the held bytes stay. When the result is less than
    /// `bytes.len()`, the pool was empty: [`discard_ooo`](Self::discard_ooo) may free some of it.
    #[must_use]
    pub fn receive(&mut self, pool: &mut ChunkPool, rcv_nxt: SeqNum, bytes: &[u8]) -> u32 {
        let mut moved = self.advance(pool, rcv_nxt);
        while let Some(rest) = bytes.get(moved as usize..).filter(|r| !r.is_empty()) {
            let gap = match self.ooo_head {
                NONE => rest.len(),
                first => rest.len().min((SeqNum::new(pool.meta(first).seq) - (rcv_nxt + moved)) as usize),
            };
            let n = self.append(pool, &rest[..gap]);
            moved += n as u32;
            moved += self.advance(pool, rcv_nxt + moved);
            if n < gap {
                break;
            }
        }
        moved
    }

    /// Appends bytes in order; how many the pool had chunks for.
    ///
    /// The caller has seen to overlaps with what is held out of order: [`receive`](Self::receive) does.
    #[must_use]
    pub fn append(&mut self, pool: &mut ChunkPool, bytes: &[u8]) -> usize {
        let most = bytes.len().min((u32::MAX - self.unread) as usize);
        let mut rest = &bytes[..most];
        while !rest.is_empty() {
            if self.tail == NONE || pool.meta(self.tail).room() == 0 {
                let Some(id) = pool.alloc() else { break };
                self.link_unread(pool, id);
            }
            let n = pool.push(self.tail, rest);
            rest = &rest[n..];
        }
        let taken = most - rest.len();
        self.unread += taken as u32;
        taken
    }

    /// Puts a chunk at the end of the unread chain.
    fn link_unread(&mut self, pool: &mut ChunkPool, id: u32) {
        pool.meta_mut(id).next = NONE;
        if self.tail == NONE {
            self.head = id;
        } else {
            pool.meta_mut(self.tail).next = id;
        }
        self.tail = id;
    }

    /// The next unread bytes that lie in one piece; empty only when there are none.
    #[must_use]
    pub fn front<'p>(&self, pool: &'p ChunkPool) -> &'p [u8] {
        if self.head == NONE { &[] } else { pool.data(self.head) }
    }

    /// Lets go of the first `n` unread bytes, or of all when there are fewer.
    pub fn consume(&mut self, pool: &mut ChunkPool, n: usize) {
        let mut left = n.min(self.unread());
        self.unread -= left as u32;
        while left > 0 && self.head != NONE {
            let head = self.head;
            let m = pool.meta_mut(head);
            if left < m.len() {
                m.start += left as u16;
                return;
            }
            left -= m.len();
            self.head = m.next;
            pool.free(head);
        }
        if self.head == NONE {
            self.tail = NONE;
        }
    }

    /// Keeps a segment that begins beyond `rcv_nxt`, but for what is held already.
    ///
    /// The caller has trimmed it to the window; what reaches back before `rcv_nxt` is cut off here.
    ///
    /// # Errors
    ///
    /// [`Refused`] when not all of it could be kept; what was kept before that stays.
    pub fn insert(
        &mut self,
        pool: &mut ChunkPool,
        rcv_nxt: SeqNum,
        seq: SeqNum,
        bytes: &[u8],
    ) -> Result<(), Refused> {
        let old = rcv_nxt.bytes_since(seq) as usize;
        let Some(mut rest) = bytes.get(old..).filter(|r| !r.is_empty()) else {
            return Ok(());
        };
        let mut seq = seq + old as u32;
        if u64::from(seq - rcv_nxt) + rest.len() as u64 > u64::from(MAX_SPAN) {
            return Err(Refused::OutOfSpan);
        }
        let mut prev = self.ooo_before(pool, seq);
        while !rest.is_empty() {
            // All before `seq` is dealt with; `prev` is the last chunk that begins at or before it.
            let held_to = if prev == NONE { seq } else { SeqNum::new(pool.meta(prev).end_seq()) };
            let held = (held_to.bytes_since(seq) as usize).min(rest.len());
            rest = &rest[held..];
            seq += held as u32;
            let next = self.ooo_next(pool, prev);
            let gap = match next {
                NONE => rest.len(),
                id => rest.len().min(SeqNum::new(pool.meta(id).seq).bytes_since(seq) as usize),
            };
            if gap == 0 {
                // Either nothing is left or the next chunk begins right here.
                if next == NONE {
                    break;
                }
                prev = next;
                continue;
            }
            if prev == NONE || held_to != seq || pool.meta(prev).room() == 0 {
                prev = self.ooo_chunk(pool, prev, seq)?;
            }
            let n = pool.push(prev, &rest[..gap]);
            self.ooo_bytes += n as u32;
            rest = &rest[n..];
            seq += n as u32;
            self.absorb(pool, prev);
        }
        Ok(())
    }

    /// The last out-of-order chunk that begins at or before `seq`; [`NONE`] if all begin later.
    fn ooo_before(&self, pool: &ChunkPool, seq: SeqNum) -> u32 {
        let begins_by = |id: u32| SeqNum::new(pool.meta(id).seq).at_or_before(seq);
        // Segments behind a single gap come in order: the place is nearly always the end.
        if self.ooo_tail != NONE && begins_by(self.ooo_tail) {
            return self.ooo_tail;
        }
        let (mut prev, mut id) = (NONE, self.ooo_head);
        while id != NONE && begins_by(id) {
            prev = id;
            id = pool.meta(id).next;
        }
        prev
    }

    fn ooo_next(&self, pool: &ChunkPool, prev: u32) -> u32 {
        if prev == NONE { self.ooo_head } else { pool.meta(prev).next }
    }

    /// Links an empty out-of-order chunk for bytes from `seq` behind `prev`, within the connection's bounds.
    fn ooo_chunk(&mut self, pool: &mut ChunkPool, prev: u32, seq: SeqNum) -> Result<u32, Refused> {
        let sparse =
            self.ooo_chunks >= SPARSE_CHUNKS && self.ooo_bytes < u32::from(self.ooo_chunks) * SPARSE_BYTES;
        if sparse || self.ooo_chunks >= MAX_OOO_CHUNKS {
            return Err(Refused::TooManyRanges);
        }
        let id = pool.alloc().ok_or(Refused::NoChunk)?;
        let next = self.ooo_next(pool, prev);
        let m = pool.meta_mut(id);
        m.seq = seq.raw();
        m.next = next;
        if prev == NONE {
            self.ooo_head = id;
        } else {
            pool.meta_mut(prev).next = id;
        }
        if next == NONE {
            self.ooo_tail = id;
        }
        self.ooo_chunks += 1;
        Ok(id)
    }

    /// Copies the chunks that follow `id` without a gap into its tail, as long as they fit: so any two
    /// neighbours of a range hold more than one chunk's worth.
    fn absorb(&mut self, pool: &mut ChunkPool, id: u32) {
        loop {
            let next = pool.meta(id).next;
            if next == NONE || pool.meta(next).seq != pool.meta(id).end_seq() || !pool.push_chunk(id, next) {
                return;
            }
            pool.meta_mut(id).next = pool.meta(next).next;
            if self.ooo_tail == next {
                self.ooo_tail = id;
            }
            self.ooo_chunks -= 1;
            pool.free(next);
        }
    }

    /// After `rcv_nxt` has moved on: drops what it has passed and moves what it has reached to the unread
    /// chain; by how much it moves on further.
    #[must_use]
    pub fn advance(&mut self, pool: &mut ChunkPool, rcv_nxt: SeqNum) -> u32 {
        let mut moved = 0;
        while self.ooo_head != NONE {
            let id = self.ooo_head;
            let m = *pool.meta(id);
            let nxt = rcv_nxt + moved;
            if SeqNum::new(m.seq).after(nxt) {
                break;
            }
            self.ooo_head = m.next;
            self.ooo_chunks -= 1;
            self.ooo_bytes -= m.len() as u32;
            let passed = (nxt.bytes_since(SeqNum::new(m.seq)) as usize).min(m.len());
            let fresh = m.len() - passed;
            if fresh == 0 {
                pool.free(id);
                continue;
            }
            pool.meta_mut(id).start += passed as u16;
            if self.tail != NONE && pool.push_chunk(self.tail, id) {
                pool.free(id);
            } else {
                self.link_unread(pool, id);
            }
            self.unread += fresh as u32;
            moved += fresh as u32;
        }
        if self.ooo_head == NONE {
            self.ooo_tail = NONE;
        }
        moved
    }

    /// The ranges held beyond a gap, as (first, behind the last), in order of sequence number.
    pub fn ranges<'a>(&self, pool: &'a ChunkPool) -> impl Iterator<Item = (SeqNum, SeqNum)> + use<'a> {
        let mut id = self.ooo_head;
        std::iter::from_fn(move || {
            if id == NONE {
                return None;
            }
            let first = pool.meta(id).seq;
            let mut behind = first;
            while id != NONE && pool.meta(id).seq == behind {
                behind = pool.meta(id).end_seq();
                id = pool.meta(id).next;
            }
            Some((SeqNum::new(first), SeqNum::new(behind)))
        })
    }

    /// Drops all that is held beyond a gap.
    pub fn discard_ooo(&mut self, pool: &mut ChunkPool) {
        pool.free_chain(self.ooo_head);
        self.ooo_head = NONE;
        self.ooo_tail = NONE;
        self.ooo_bytes = 0;
        self.ooo_chunks = 0;
    }

    /// Drops everything.
    pub fn clear(&mut self, pool: &mut ChunkPool) {
        pool.free_chain(self.head);
        self.discard_ooo(pool);
        *self = Self::default();
    }
}

mod audit;
#[cfg(test)]
mod tests;
