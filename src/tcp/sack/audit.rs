//! Whether a scoreboard agrees with itself and with what is in flight.

use super::{ChunkPool, Scoreboard, SeqNum};

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
        let (mut before, mut bytes) = (snd_una, 0);
        for (first, end) in self.ranges(pool) {
            if !first.after(before) || !end.after(first) || end.after(snd_max) {
                return Err(format!("scoreboard: {first:?}..{end:?} after {before:?}, sent to {snd_max:?}"));
            }
            bytes += end - first;
            before = end;
        }
        if bytes != self.bytes {
            return Err(format!("scoreboard: {bytes} bytes in the ranges, {} counted", self.bytes));
        }
        Ok(usize::from(!self.is_empty()))
    }
}
