//! The scoreboard: which of the bytes in flight the peer says it has (RFC 2018, RFC 6675 §3).
//!
//! ```text
//!  SACK blocks ──insert──▶ [ranges, sorted, disjoint] ──next_hole, lost_edge, sacked──▶ what to send again
//!       cumulative ACK ──ack──▶ what lies below is forgotten; the last one gives the chunk back
//! ```
//!
//! The ranges lie in one chunk of the worker's pool, which is borrowed with the first block and given back with the
//! last range: a connection without a gap owns nothing but this record of 12 bytes. A chunk holds [`MAX_RANGES`]; what
//! finds no room, or no chunk, is not noted. That is safe: a SACK is advice, and the bytes are at worst sent again.
//! Behind them in the chunk lies the journal of what was sent again ([`resent`](super::resent)).

mod audit;

use super::chunk::{CHUNK_BYTES, ChunkPool, NONE};
use crate::wire::SeqNum;

/// Bytes of a range in the chunk: its two edges.
const RANGE_BYTES: usize = 8;
/// Ranges a scoreboard holds (176): a flight of twice as many segments with every second one lost. Fewer, and a large
/// window with scattered loss sends again what arrived; more would need a second chunk.
pub const MAX_RANGES: usize = JOURNAL_AT / RANGE_BYTES;
/// Where the journal begins in the chunk.
pub(super) const JOURNAL_AT: usize = CHUNK_BYTES - super::resent::JOURNAL_BYTES;
/// Discontiguous ranges, or segments less one, that must be `SACKed` above a byte before it counts as lost
/// (`DupThresh`, RFC 6675 §2). Lower takes reordering for loss; higher waits longer.
pub const DUP_THRESHOLD: u8 = 3;

/// A block found no room or no chunk, and was not noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotNoted;

/// What the peer has beyond the cumulative acknowledgment.
///
/// Holds a chunk of a pool: [`clear`](Self::clear) it before it is dropped.
#[derive(Debug)]
pub struct Scoreboard {
    pub(super) chunk: u32,
    count: u16,
    /// Entries of the journal.
    pub(super) resent: u16,
    bytes: u32,
}

const _: () = assert!(size_of::<Scoreboard>() <= 12);

impl Default for Scoreboard {
    fn default() -> Self {
        Self { chunk: NONE, count: 0, resent: 0, bytes: 0 }
    }
}

fn word(bytes: &[u8], at: usize) -> SeqNum {
    SeqNum::new(number(bytes, at))
}

pub(super) fn number(bytes: &[u8], at: usize) -> u32 {
    let mut w = [0; 4];
    if let Some(from) = bytes.get(at..at + 4) {
        w.copy_from_slice(from);
    }
    u32::from_ne_bytes(w)
}

impl Scoreboard {
    /// Whether no range is noted.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether nothing at all is noted, so that it owns no chunk.
    #[must_use]
    pub const fn is_blank(&self) -> bool {
        self.chunk == NONE
    }

    /// Bytes noted in all.
    #[must_use]
    pub const fn bytes(&self) -> u32 {
        self.bytes
    }

    /// The ranges from low to high; `[first, end)`.
    #[must_use]
    pub fn ranges<'p>(
        &self,
        pool: &'p ChunkPool,
    ) -> impl DoubleEndedIterator<Item = (SeqNum, SeqNum)> + use<'p> {
        let used = usize::from(self.count) * RANGE_BYTES;
        let bytes = if self.count == 0 { &[][..] } else { &pool.whole(self.chunk)[..used] };
        bytes.chunks_exact(RANGE_BYTES).map(|r| (word(r, 0), word(r, 4)))
    }

    fn put(&self, pool: &mut ChunkPool, i: usize, range: (SeqNum, SeqNum)) {
        let at = i * RANGE_BYTES;
        let bytes = pool.whole_mut(self.chunk);
        bytes[at..at + 4].copy_from_slice(&range.0.raw().to_ne_bytes());
        bytes[at + 4..at + 8].copy_from_slice(&range.1.raw().to_ne_bytes());
    }

    /// Puts ranges `from..to` of the chunk's table out and makes room for `new` ones in their place.
    fn splice(&mut self, pool: &mut ChunkPool, from: usize, to: usize, new: usize) {
        let tail = to * RANGE_BYTES..usize::from(self.count) * RANGE_BYTES;
        pool.whole_mut(self.chunk).copy_within(tail, (from + new) * RANGE_BYTES);
        self.count = self.count + new as u16 - (to - from) as u16;
    }

    /// Notes that the peer has `[first, end)`, which the caller has found to be in flight. Gives how many of the bytes
    /// were not noted before.
    ///
    /// # Errors
    /// There is no room or no chunk; nothing changed.
    pub fn insert(&mut self, pool: &mut ChunkPool, first: SeqNum, end: SeqNum) -> Result<u32, NotNoted> {
        if !end.after(first) {
            return Ok(0);
        }
        // Those that overlap or touch: all between the ones entirely before and the ones entirely after.
        let (mut from, mut to) = (0, 0);
        let (mut merged, mut had) = ((first, end), 0);
        for r in self.ranges(pool) {
            if r.1.before(first) {
                from += 1;
            } else if r.0.after(end) {
                break;
            } else {
                merged = (merged.0.min(r.0), merged.1.max(r.1));
                had += r.1 - r.0;
            }
            to += 1;
        }
        if from == to && (usize::from(self.count) == MAX_RANGES || !self.borrow(pool)) {
            return Err(NotNoted);
        }
        self.splice(pool, from, to, 1);
        self.put(pool, from, merged);
        let new = (merged.1 - merged.0) - had;
        self.bytes += new;
        Ok(new)
    }

    /// Everything below `una` is acknowledged: forgets it, and gives the chunk back with the last range.
    pub fn ack(&mut self, pool: &mut ChunkPool, una: SeqNum) {
        if self.is_empty() {
            return;
        }
        let (mut gone, mut bytes, mut cut) = (0, 0, None);
        for r in self.ranges(pool) {
            if r.1.after(una) {
                if r.0.before(una) {
                    cut = Some((una, r.1));
                    bytes += una - r.0;
                }
                break;
            }
            gone += 1;
            bytes += r.1 - r.0;
        }
        self.bytes -= bytes;
        if gone == usize::from(self.count) {
            self.count = 0;
            self.give_back(pool);
            return;
        }
        if let Some(range) = cut {
            self.put(pool, gone, range);
        }
        if gone > 0 {
            self.splice(pool, 0, gone, 0);
        }
    }

    /// Makes sure of the chunk; false when the pool has none.
    pub(super) fn borrow(&mut self, pool: &mut ChunkPool) -> bool {
        if self.chunk == NONE {
            self.chunk = pool.alloc().unwrap_or(NONE);
        }
        self.chunk != NONE
    }

    /// Gives the chunk back when nothing is in it.
    pub(super) fn give_back(&mut self, pool: &mut ChunkPool) {
        if self.count == 0 && self.resent == 0 && self.chunk != NONE {
            pool.free(self.chunk);
            self.chunk = NONE;
        }
    }

    /// Forgets all: the connection ends, or the peer may have thrown away what it had (RFC 2018 §8).
    pub fn clear(&mut self, pool: &mut ChunkPool) {
        (self.count, self.resent, self.bytes) = (0, 0, 0);
        self.give_back(pool);
    }

    /// How many of the bytes in `[from, to)` the peer has.
    #[must_use]
    pub fn sacked(&self, pool: &ChunkPool, from: SeqNum, to: SeqNum) -> u32 {
        self.ranges(pool).map(|(a, b)| b.min(to).bytes_since(a.max(from))).sum()
    }

    /// Whether the peer said that it has the byte at `seq`.
    #[must_use]
    pub fn has(&self, pool: &ChunkPool, seq: SeqNum) -> bool {
        self.ranges(pool).any(|(a, b)| a.at_or_before(seq) && seq.before(b))
    }

    /// One past the highest byte the peer has; `None` when nothing is noted.
    #[must_use]
    pub fn highest(&self, pool: &ChunkPool) -> Option<SeqNum> {
        self.ranges(pool).next_back().map(|r| r.1)
    }

    /// The first stretch at or after `from` and before `limit` that the peer does not have.
    #[must_use]
    pub fn next_hole(&self, pool: &ChunkPool, from: SeqNum, limit: SeqNum) -> Option<(SeqNum, SeqNum)> {
        let mut at = from;
        for (a, b) in self.ranges(pool) {
            if a.after(at) {
                return at.before(limit).then(|| (at, a.min(limit)));
            }
            at = at.max(b);
        }
        at.before(limit).then_some((at, limit))
    }

    /// The highest stretch in `[una, max)` that the peer does not have.
    #[must_use]
    pub fn last_hole(&self, pool: &ChunkPool, una: SeqNum, max: SeqNum) -> Option<(SeqNum, SeqNum)> {
        let mut end = max;
        for (a, b) in self.ranges(pool).rev() {
            if b.before(end) {
                return Some((b.max(una), end));
            }
            end = end.min(a);
        }
        una.before(end).then_some((una, end))
    }

    /// What the peer does not have below this is lost (`IsLost`, RFC 6675 §4): three discontiguous ranges, or more than
    /// two segments of `mss` bytes, are `SACKed` above it. `una` when nothing is.
    #[must_use]
    pub fn lost_edge(&self, pool: &ChunkPool, una: SeqNum, mss: u32) -> SeqNum {
        let (mut ranges, mut bytes) = (0u8, 0);
        for (a, b) in self.ranges(pool).rev() {
            ranges += 1;
            bytes += b - a;
            if ranges >= DUP_THRESHOLD || bytes > u32::from(DUP_THRESHOLD - 1) * mss {
                return a.max(una);
            }
        }
        una
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SPAN: usize = 400;

    fn at(base: u32, n: usize) -> SeqNum {
        SeqNum::new(base) + n as u32
    }

    /// The model: one bool a byte.
    #[derive(Clone)]
    struct Model {
        has: Vec<bool>,
        una: usize,
    }

    impl Model {
        fn runs(&self) -> Vec<(usize, usize)> {
            let mut runs: Vec<(usize, usize)> = Vec::new();
            for i in (self.una..SPAN).filter(|&i| self.has[i]) {
                match runs.last_mut() {
                    Some(r) if r.1 == i => r.1 = i + 1,
                    _ => runs.push((i, i + 1)),
                }
            }
            runs
        }
        /// `IsLost` of RFC 6675 §4 for one byte.
        fn is_lost(&self, i: usize, mss: usize) -> bool {
            let above: Vec<_> = self.runs().into_iter().filter(|r| r.0 > i).collect();
            above.len() >= 3 || above.iter().map(|r| r.1 - r.0).sum::<usize>() > 2 * mss
        }
    }

    proptest! {
        #[test]
        fn d10_the_scoreboard_is_a_set_of_bytes(
            base in prop_oneof![Just(0u32), Just(u32::MAX - 150), any::<u32>()],
            ops in prop::collection::vec((0..SPAN, 0usize..60, any::<bool>()), 1..40),
            mss in 1usize..40,
        ) {
            let mut pool = ChunkPool::new(1);
            let mut s = Scoreboard::default();
            let mut m = Model { has: vec![false; SPAN], una: 0 };
            for (from, len, ack) in ops {
                if ack {
                    m.una = m.una.max(from / 4);
                    s.ack(&mut pool, at(base, m.una));
                } else {
                    let (a, b) = (from.max(m.una), (from + len).min(SPAN).max(m.una));
                    let new = (a..b.max(a)).filter(|&i| !m.has[i]).count();
                    prop_assert_eq!(s.insert(&mut pool, at(base, a), at(base, b)), Ok(new as u32));
                    m.has[a..b.max(a)].fill(true);
                }
                let runs = m.runs();
                let want: Vec<_> = runs.iter().map(|&(a, b)| (at(base, a), at(base, b))).collect();
                prop_assert_eq!(s.ranges(&pool).collect::<Vec<_>>(), want);
                prop_assert_eq!(s.bytes() as usize, runs.iter().map(|r| r.1 - r.0).sum::<usize>());
                prop_assert_eq!(pool.used(), usize::from(!runs.is_empty()));
                prop_assert_eq!(s.highest(&pool), runs.last().map(|r| at(base, r.1)));
                let edge = s.lost_edge(&pool, at(base, m.una), mss as u32);
                for i in m.una..SPAN {
                    let seq = at(base, i);
                    prop_assert_eq!(s.has(&pool, seq), m.has[i]);
                    if !m.has[i] {
                        prop_assert_eq!(seq.before(edge), m.is_lost(i, mss), "byte {}", i);
                    }
                }
                let holes = |from: usize| {
                    let first = (from..SPAN).find(|&i| !m.has[i])?;
                    let end = (first..SPAN).find(|&i| m.has[i]).unwrap_or(SPAN);
                    Some((at(base, first), at(base, end)))
                };
                prop_assert_eq!(s.next_hole(&pool, at(base, from.max(m.una)), at(base, SPAN)), holes(from.max(m.una)));
                let last = (m.una..SPAN).rfind(|&i| !m.has[i]).map(|e| {
                    let first = (m.una..e).rfind(|&i| m.has[i]).map_or(m.una, |i| i + 1);
                    (at(base, first), at(base, e + 1))
                });
                prop_assert_eq!(s.last_hole(&pool, at(base, m.una), at(base, SPAN)), last);
                let (a, b) = (from / 2, from);
                let sacked = (a.max(m.una)..b.max(m.una)).filter(|&i| m.has[i]).count();
                prop_assert_eq!(s.sacked(&pool, at(base, a), at(base, b)) as usize, sacked);
            }
            s.clear(&mut pool);
            prop_assert_eq!(pool.used(), 0);
        }
    }

    #[test]
    fn d10_a_full_scoreboard_notes_no_more_but_still_merges() {
        let mut pool = ChunkPool::new(1);
        let mut s = Scoreboard::default();
        for i in 0..MAX_RANGES {
            assert_eq!(s.insert(&mut pool, at(0, 10 * i + 5), at(0, 10 * i + 6)), Ok(1));
        }
        assert_eq!(s.insert(&mut pool, at(0, 100_000), at(0, 100_001)), Err(NotNoted));
        assert_eq!(s.bytes() as usize, MAX_RANGES);
        assert_eq!(s.insert(&mut pool, at(0, 6), at(0, 15)), Ok(9), "a hole closes");
        assert_eq!(s.insert(&mut pool, at(0, 100_000), at(0, 100_001)), Ok(1));
        s.clear(&mut pool);
    }

    #[test]
    fn d10_without_a_chunk_nothing_is_noted() {
        let mut pool = ChunkPool::new(0);
        let mut s = Scoreboard::default();
        assert_eq!(s.insert(&mut pool, at(0, 5), at(0, 6)), Err(NotNoted));
        assert!(s.is_empty());
        s.ack(&mut pool, at(0, 50));
        s.clear(&mut pool);
    }
}
