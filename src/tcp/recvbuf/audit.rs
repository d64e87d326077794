//! Whether a receive buffer agrees with its chains.

use super::{ChunkPool, NONE, RecvBuf, SeqNum};

impl RecvBuf {
    /// Walks both chains and gives their number of chunks.
    ///
    /// # Errors
    /// What contradicts itself.
    pub(in crate::tcp) fn audit(&self, pool: &ChunkPool, rcv_nxt: SeqNum) -> Result<usize, String> {
        let (unread_chunks, unread, last) = walk(pool, self.head)?;
        if unread != self.unread() || last != self.tail {
            return Err(format!(
                "receive buffer: {unread} unread bytes in the chain, {} counted",
                self.unread
            ));
        }
        let (ooo_chunks, ooo, last) = walk(pool, self.ooo_head)?;
        if ooo != self.buffered_ooo() || last != self.ooo_tail || ooo_chunks != usize::from(self.ooo_chunks) {
            return Err(format!(
                "receive buffer: {ooo} bytes in {ooo_chunks} chunks beyond the gap, {} in {} counted",
                self.ooo_bytes, self.ooo_chunks
            ));
        }
        let mut before = rcv_nxt;
        for (first, end) in self.ranges(pool) {
            if !first.after(before) || !end.after(first) {
                return Err(format!("receive buffer: range {first:?}..{end:?} after {before:?}"));
            }
            before = end;
        }
        Ok(unread_chunks + ooo_chunks)
    }
}

/// Chunks and bytes of a chain, and its last chunk.
fn walk(pool: &ChunkPool, head: u32) -> Result<(usize, usize, u32), String> {
    let (mut id, mut chunks, mut bytes, mut last) = (head, 0, 0, NONE);
    while id != NONE {
        let m = pool.meta(id);
        chunks += 1;
        bytes += m.len();
        last = id;
        id = m.next;
        if chunks > pool.total() {
            return Err("receive buffer: a chain has a loop".to_owned());
        }
    }
    Ok((chunks, bytes, last))
}
