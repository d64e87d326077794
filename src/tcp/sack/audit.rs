//! Whether a scoreboard agrees with itself and with what is in flight.

use super::{ChunkPool, NONE, Scoreboard, SeqNum};

impl Scoreboard {
    /// Looks at every range and gives the number of chunks held: one or none.
    ///
    /// # Errors
    /// What contradicts itself, or reaches beyond what was sent.
    pub(in crate::tcp) fn audit(
        &self,
        pool: &ChunkPool,
        snd_una: SeqNum,
        snd_max: SeqNum,
    ) -> Result<usize, String> {
        // A peer that acknowledges only a part of what it said it had leaves a range that begins at `snd_una`.
        let (mut from, mut bytes) = (snd_una, 0);
        for (first, end) in self.ranges(pool) {
            if first.before(from) || !end.after(first) || end.after(snd_max) {
                return Err(format!("scoreboard: {first:?}..{end:?}, expected from {from:?} to {snd_max:?}"));
            }
            bytes += end - first;
            // Ranges that touch are one.
            from = end + 1;
        }
        if bytes != self.bytes {
            return Err(format!("scoreboard: {bytes} bytes in the ranges, {} counted", self.bytes));
        }
        // The journal of what was sent again may hold the chunk, too.
        Ok(usize::from(self.chunk != NONE))
    }
}
