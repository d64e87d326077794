//! What the service has written and the peer has not acknowledged, as a chain of chunks.
//!
//! ```text
//!  service ──append──▶ [tail … head] ──copy_out(offset)──▶ segments, first time or again
//!                               └─────ack(n)────▶ back to the pool
//! ```
//!
//! A connection owns one in 16 bytes and the pool owns the memory. Offsets count from the first unacknowledged
//! byte (`snd_una`). Every chunk notes the stream position of its first byte, so an offset at either end is
//! found at once, and one in between from a cursor that follows the sender along the chain.

use super::chunk::{CHUNK_BYTES, ChunkPool, NONE};
use std::cell::Cell;

/// Most bytes a buffer ever holds: the largest window there is (RFC 7323 §2.3), which keeps stream positions
/// comparable within 32 bits.
const MAX_BYTES: usize = 1 << 30;

/// Offsets below this many bytes are walked to from the head without moving the cursor, so that a
/// retransmission of the first segments does not lose the place of the new data. Higher: more steps
/// for these; lower: a retransmission of two segments costs the next new segment a walk along the chain.
const NEAR_HEAD: u32 = 4 * CHUNK_BYTES as u32;

/// Bytes written and not yet acknowledged.
///
/// Holds chunks of a pool: [`clear`](Self::clear) it before it is dropped.
#[derive(Debug)]
pub struct SendBuf {
    head: u32,
    tail: u32,
    len: u32,
    /// A chunk of the chain from which a later offset is looked for; [`NONE`] when there is none.
    cursor: Cell<u32>,
}

const _: () = assert!(size_of::<SendBuf>() <= 16);

impl Default for SendBuf {
    fn default() -> Self {
        Self { head: NONE, tail: NONE, len: 0, cursor: Cell::new(NONE) }
    }
}

impl SendBuf {
    /// Bytes held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether it holds none, and so owns no chunk.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes as many of `bytes` as keep the buffer within `limit` bytes and the pool has chunks for; how
    /// many those were.
    #[must_use]
    pub fn append(&mut self, pool: &mut ChunkPool, bytes: &[u8], limit: usize) -> usize {
        let space = limit.min(MAX_BYTES).saturating_sub(self.len());
        let mut rest = &bytes[..bytes.len().min(space)];
        let mut taken = 0;
        while !rest.is_empty() {
            if (self.tail == NONE || pool.meta(self.tail).room() == 0) && !self.grow(pool) {
                break;
            }
            let n = pool.push(self.tail, rest);
            rest = &rest[n..];
            taken += n;
        }
        self.len += taken as u32;
        taken
    }

    /// Links an empty chunk behind the tail; false when the pool has none.
    fn grow(&mut self, pool: &mut ChunkPool) -> bool {
        let Some(id) = pool.alloc() else {
            return false;
        };
        if self.tail == NONE {
            self.head = id;
        } else {
            let end = pool.meta(self.tail).end_seq();
            pool.meta_mut(id).seq = end;
            pool.meta_mut(self.tail).next = id;
        }
        self.tail = id;
        true
    }

    /// Copies bytes from `offset` (from the first unacknowledged byte) on into `out`; how many there were.
    ///
    /// Takes a step or two near the head, at the tail, and for offsets that follow on from the last one. An
    /// offset between the head and the cursor is walked to from the head: one step per 2 KiB.
    #[must_use]
    pub fn copy_out(&self, pool: &ChunkPool, offset: usize, out: &mut [u8]) -> usize {
        if offset >= self.len() {
            return 0;
        }
        let want = out.len().min(self.len() - offset);
        let (mut id, mut skip) = self.find(pool, offset as u32);
        let mut done = 0;
        while done < want && id != NONE {
            let data = &pool.data(id)[skip..];
            let n = data.len().min(want - done);
            out[done..done + n].copy_from_slice(&data[..n]);
            done += n;
            skip = 0;
            id = pool.meta(id).next;
        }
        done
    }

    /// The chunk that holds `offset` (less than `len`), and where in its bytes.
    fn find(&self, pool: &ChunkPool, offset: u32) -> (u32, usize) {
        let base = pool.meta(self.head).seq;
        // Distances from the head, which do not wrap, order the positions.
        let at = |id: u32| pool.meta(id).seq.wrapping_sub(base);
        let near = offset < NEAR_HEAD;
        let cursor = self.cursor.get();
        let mut id = if at(self.tail) <= offset {
            self.tail
        } else if !near && cursor != NONE && at(cursor) <= offset {
            cursor
        } else {
            self.head
        };
        while offset - at(id) >= pool.meta(id).len() as u32 && pool.meta(id).next != NONE {
            id = pool.meta(id).next;
        }
        if !near {
            self.cursor.set(id);
        }
        (id, (offset - at(id)) as usize)
    }

    /// Lets go of the first `n` bytes, or of all when there are fewer.
    pub fn ack(&mut self, pool: &mut ChunkPool, n: usize) {
        let mut left = n.min(self.len());
        self.len -= left as u32;
        while left > 0 && self.head != NONE {
            let head = self.head;
            let m = pool.meta_mut(head);
            if left < m.len() {
                m.start += left as u16;
                m.seq = m.seq.wrapping_add(left as u32);
                return;
            }
            left -= m.len();
            self.head = m.next;
            if self.cursor.get() == head {
                self.cursor.set(NONE);
            }
            pool.free(head);
        }
        if self.head == NONE {
            *self = Self::default();
        }
    }

    /// Walks the chain and gives its number of chunks.
    ///
    /// # Errors
    /// What contradicts itself.
    pub(super) fn audit(&self, pool: &ChunkPool) -> Result<usize, String> {
        let (mut id, mut chunks, mut bytes, mut last) = (self.head, 0, 0, NONE);
        while id != NONE {
            let m = pool.meta(id);
            if last != NONE && m.seq != pool.meta(last).end_seq() {
                return Err(format!("send buffer: chunk {id} does not follow on chunk {last}"));
            }
            chunks += 1;
            bytes += m.len();
            last = id;
            id = m.next;
            if chunks > pool.total() {
                return Err("send buffer: the chain has a loop".to_owned());
            }
        }
        if bytes != self.len() || last != self.tail {
            return Err(format!("send buffer: {bytes} bytes in the chain, {} counted", self.len));
        }
        Ok(chunks)
    }

    /// Lets go of everything.
    pub fn clear(&mut self, pool: &mut ChunkPool) {
        pool.free_chain(self.head);
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    fn pattern(from: usize, n: usize) -> Vec<u8> {
        (from..from + n).map(|i| (i * 31 + i / 256) as u8).collect()
    }

    #[test]
    fn keeps_to_its_limit_and_to_the_pool() {
        let mut pool = ChunkPool::new(2);
        let mut b = SendBuf::default();
        assert_eq!(b.append(&mut pool, &[1; 100], 30), 30);
        assert_eq!(b.append(&mut pool, &[1; 100], 30), 0);
        assert_eq!(b.append(&mut pool, &[1; 5000], 1 << 20), 2 * CHUNK_BYTES - 30);
        assert_eq!((b.len(), pool.used()), (2 * CHUNK_BYTES, 2));
        b.ack(&mut pool, usize::MAX);
        assert!(b.is_empty());
        assert_eq!(pool.used(), 0);
    }

    #[test]
    fn a_retransmission_at_the_head_keeps_the_cursor() {
        let mut pool = ChunkPool::new(64);
        let mut b = SendBuf::default();
        let data = pattern(0, 64 * CHUNK_BYTES);
        assert_eq!(b.append(&mut pool, &data, data.len()), data.len());
        let mut out = [0; 1460];
        let far = 40 * CHUNK_BYTES + 7;
        assert_eq!(b.copy_out(&pool, far, &mut out), 1460);
        let cursor = b.cursor.get();
        assert_ne!(cursor, NONE);
        assert_eq!(b.copy_out(&pool, 10, &mut out), 1460);
        assert_eq!(out[..], data[10..1470]);
        assert_eq!(b.cursor.get(), cursor);
        // The cursor's chunk is acknowledged away: it must not be used again.
        b.ack(&mut pool, 50 * CHUNK_BYTES);
        assert_eq!(b.cursor.get(), NONE);
        assert_eq!(b.copy_out(&pool, 5 * CHUNK_BYTES, &mut out), 1460);
        assert_eq!(out[..], data[55 * CHUNK_BYTES..55 * CHUNK_BYTES + 1460]);
        b.clear(&mut pool);
        assert_eq!(pool.used(), 0);
    }

    #[derive(Clone, Debug)]
    enum Op {
        Append(usize, usize),
        Copy(usize, usize),
        Ack(usize),
        Clear,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            6 => (0..9000usize, 0..60_000usize).prop_map(|(n, l)| Op::Append(n, l)),
            6 => (0..50_000usize, 0..9000usize).prop_map(|(o, n)| Op::Copy(o, n)),
            4 => (0..9000usize).prop_map(Op::Ack),
            1 => Just(Op::Clear),
        ]
    }

    proptest! {
        /// Two buffers share a pool that runs out; each behaves as a queue of bytes of its own.
        #[test]
        fn is_a_queue_of_bytes(ops in prop::collection::vec((any::<bool>(), op()), 1..80)) {
            let mut pool = ChunkPool::new(20);
            let mut bufs = [SendBuf::default(), SendBuf::default()];
            let mut models = [VecDeque::<u8>::new(), VecDeque::new()];
            let mut written = 0;
            for (which, op) in ops {
                let (b, m) = (&mut bufs[usize::from(which)], &mut models[usize::from(which)]);
                match op {
                    Op::Append(n, limit) => {
                        let data = pattern(written, n);
                        written += n;
                        let before = pool.available();
                        let took = b.append(&mut pool, &data, limit);
                        let fits = n.min(limit.saturating_sub(m.len()));
                        prop_assert!(took <= fits);
                        prop_assert!(took == fits || pool.available() == 0);
                        prop_assert!(pool.available() <= before);
                        m.extend(&data[..took]);
                    }
                    Op::Copy(offset, n) => {
                        let mut out = vec![0; n];
                        let got = b.copy_out(&pool, offset, &mut out);
                        let want: Vec<u8> = m.iter().skip(offset).take(n).copied().collect();
                        prop_assert_eq!(&out[..got], &want[..]);
                    }
                    Op::Ack(n) => {
                        b.ack(&mut pool, n);
                        m.drain(..n.min(m.len()));
                    }
                    Op::Clear => {
                        b.clear(&mut pool);
                        m.clear();
                    }
                }
                prop_assert_eq!(b.len(), m.len());
                // Only the two ends of a chain are partly used.
                let most: usize = models.iter().map(|m| m.len().div_ceil(CHUNK_BYTES) + usize::from(!m.is_empty())).sum();
                prop_assert!(pool.used() <= most);
            }
            for b in &mut bufs {
                b.clear(&mut pool);
            }
            prop_assert_eq!(pool.used(), 0);
        }
    }
}
