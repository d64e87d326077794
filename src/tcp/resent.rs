//! The journal of what was sent again and is not known to have arrived (RFC 8985 §6, for retransmissions).
//!
//! What is sent for the first time goes out in the order of its numbers: of two such segments the one with the higher
//! number was sent later, and no time need be kept. What is sent again falls out of that order. Each such segment has an
//! entry here, in the order of sending, in the chunk of the scoreboard:
//!
//! ```text
//!  repair ──note_resent──▶ [entries, oldest first] ──review──▶ overtaken ──hold──▶ held ──give_up_held──▶ lost
//!                                 arrived: gone ◀──┘                        (no reordering is known: at once)
//! ```
//!
//! It is overtaken when something has arrived that was sent after it: a later entry, or new data that did not exist yet.
//! That is how a lost retransmission is found, of which the scoreboard alone can say nothing.

use super::chunk::ChunkPool;
use super::sack::{JOURNAL_AT, Scoreboard, number};
use crate::wire::SeqNum;

/// Bytes of an entry: number, length and standing, time, the end of all that was sent by then.
const ENTRY_BYTES: usize = 16;
/// Entries of a journal. More: fewer ranges; fewer: of a heavier loss the last retransmissions are not watched, and when
/// they are lost as well they wait for a timeout.
const MAX_ENTRIES: usize = 48;
/// Bytes that the journal takes at the end of the scoreboard's chunk.
pub(super) const JOURNAL_BYTES: usize = MAX_ENTRIES * ENTRY_BYTES;

/// What is known of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
enum Standing {
    /// Nothing.
    Out,
    /// Something that was sent later has arrived.
    Overtaken,
    /// Overtaken, and the time that reordering may take runs.
    Held,
    /// It is to be sent once more.
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    first: SeqNum,
    len: u16,
    standing: Standing,
    /// When it was sent, in microseconds; wraps after an hour.
    sent_us: u32,
    /// One past the highest number that had been sent by then.
    max: SeqNum,
}

impl Entry {
    fn end(&self) -> SeqNum {
        self.first + u32::from(self.len)
    }
}

/// What is known when the journal is looked through.
#[derive(Clone, Copy, Debug)]
pub(super) struct Evidence {
    /// All below is acknowledged.
    pub(super) una: SeqNum,
    /// One past the highest byte that the peer has.
    pub(super) highest: SeqNum,
    /// Now, in microseconds.
    pub(super) now_us: u32,
    /// What arrives sooner than this after it was sent again was on its way before (RFC 8985 §6.2, step 2).
    pub(super) min_rtt_us: u32,
    /// No reordering is known of: what was overtaken is lost.
    pub(super) at_once: bool,
}

impl Scoreboard {
    fn entry(&self, pool: &ChunkPool, i: u16) -> Entry {
        let at = JOURNAL_AT + usize::from(i) * ENTRY_BYTES;
        let bytes = pool.whole(self.chunk);
        let word = number(bytes, at + 4);
        let standing = match word >> 16 {
            0 => Standing::Out,
            1 => Standing::Overtaken,
            2 => Standing::Held,
            _ => Standing::Lost,
        };
        Entry {
            first: SeqNum::new(number(bytes, at)),
            len: (word & 0xffff) as u16,
            standing,
            sent_us: number(bytes, at + 8),
            max: SeqNum::new(number(bytes, at + 12)),
        }
    }

    fn put_entry(&self, pool: &mut ChunkPool, i: u16, e: &Entry) {
        let at = JOURNAL_AT + usize::from(i) * ENTRY_BYTES;
        let word = u32::from(e.len) | u32::from(e.standing as u16) << 16;
        let bytes = &mut pool.whole_mut(self.chunk)[at..at + ENTRY_BYTES];
        for (to, from) in bytes.chunks_exact_mut(4).zip([e.first.raw(), word, e.sent_us, e.max.raw()]) {
            to.copy_from_slice(&from.to_ne_bytes());
        }
    }

    fn entries<'p>(&self, pool: &'p ChunkPool) -> impl Iterator<Item = Entry> + use<'_, 'p> {
        (0..self.resent).map(|i| self.entry(pool, i))
    }

    /// Keeps the entries that `keep` gives back, as it gives them back.
    fn rewrite(
        &mut self,
        pool: &mut ChunkPool,
        mut keep: impl FnMut(&Self, &ChunkPool, u16, Entry) -> Option<Entry>,
    ) {
        let mut kept = 0;
        for i in 0..self.resent {
            let e = self.entry(pool, i);
            if let Some(e) = keep(self, pool, i, e) {
                self.put_entry(pool, kept, &e);
                kept += 1;
            }
        }
        self.resent = kept;
        self.give_back(pool);
    }

    /// `[first, end)` was sent again; `max` is one past the highest number ever sent. What is not noted, for want of room
    /// or of a chunk, is not watched.
    pub(super) fn note_resent(
        &mut self,
        pool: &mut ChunkPool,
        first: SeqNum,
        end: SeqNum,
        now_us: u32,
        max: SeqNum,
    ) {
        // What was lost of it is out again.
        self.rewrite(pool, |_, _, _, e| {
            let here = e.first.at_or_after(first) && e.first.before(end);
            if e.standing != Standing::Lost || !here {
                return Some(e);
            }
            let rest = e.end().bytes_since(end);
            (rest > 0).then_some(Entry { first: end, len: rest as u16, ..e })
        });
        let Ok(len) = u16::try_from(end - first) else { return };
        if usize::from(self.resent) < MAX_ENTRIES && self.borrow(pool) {
            let e = Entry { first, len, standing: Standing::Out, sent_us: now_us, max };
            self.resent += 1;
            self.put_entry(pool, self.resent - 1, &e);
        }
    }

    /// Looks through the journal after an ACK: what arrived goes, what was overtaken by it is marked.
    pub(super) fn review(&mut self, pool: &mut ChunkPool, known: &Evidence) {
        if self.resent == 0 {
            return;
        }
        let arrived =
            |s: &Self, pool: &ChunkPool, e: &Entry| e.first.before(known.una) || s.has(pool, e.first);
        let plausible = |e: &Entry| known.now_us.wrapping_sub(e.sent_us) >= known.min_rtt_us;
        let newest = (0..self.resent).rev().find(|&i| {
            let e = self.entry(pool, i);
            plausible(&e) && arrived(self, pool, &e)
        });
        self.rewrite(pool, |s, pool, i, e| {
            if arrived(s, pool, &e) {
                return None;
            }
            let overtaken = newest.is_some_and(|n| i < n) || known.highest.after(e.max);
            let standing = match e.standing {
                Standing::Out | Standing::Overtaken if known.at_once && overtaken => Standing::Lost,
                Standing::Out if overtaken => Standing::Overtaken,
                was => was,
            };
            Some(Entry { standing, ..e })
        });
    }

    /// The time begins that what was overtaken may still take. Returns whether there is such.
    pub(super) fn hold_overtaken(&mut self, pool: &mut ChunkPool) -> bool {
        let mut any = false;
        self.rewrite(pool, |_, _, _, e| {
            let hold = e.standing == Standing::Overtaken;
            any |= hold;
            Some(Entry { standing: if hold { Standing::Held } else { e.standing }, ..e })
        });
        any
    }

    /// The time is over: what was held is lost.
    pub(super) fn give_up_held(&mut self, pool: &mut ChunkPool) {
        self.rewrite(pool, |_, _, _, e| {
            let standing = if e.standing == Standing::Held { Standing::Lost } else { e.standing };
            Some(Entry { standing, ..e })
        });
    }

    /// Whether something is held.
    pub(super) fn holds(&self, pool: &ChunkPool) -> bool {
        self.entries(pool).any(|e| e.standing == Standing::Held)
    }

    /// The oldest stretch that was sent again in vain.
    pub(super) fn lost_again(&self, pool: &ChunkPool) -> Option<(SeqNum, SeqNum)> {
        let e = self.entries(pool).find(|e| e.standing == Standing::Lost)?;
        self.next_hole(pool, e.first, e.end())
    }

    /// Bytes that were sent again in vain and not yet once more.
    pub(super) fn lost_again_bytes(&self, pool: &ChunkPool) -> u32 {
        let lost = self.entries(pool).filter(|e| e.standing == Standing::Lost);
        lost.map(|e| u32::from(e.len) - self.sacked(pool, e.first, e.end())).sum()
    }

    /// The journal is closed: recovery is over, or all is lost anyway.
    pub(super) fn forget_resent(&mut self, pool: &mut ChunkPool) {
        self.resent = 0;
        self.give_back(pool);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(n: u32) -> SeqNum {
        SeqNum::new(u32::MAX - 5000) + n
    }

    const KNOWN: Evidence =
        Evidence { una: SeqNum::new(0), highest: SeqNum::new(0), now_us: 0, min_rtt_us: 100, at_once: true };

    fn known(una: u32, highest: u32, now_us: u32) -> Evidence {
        Evidence { una: at(una), highest: at(highest), now_us, ..KNOWN }
    }

    /// Entries for 0, 2000 and 4000, a thousand bytes each, sent at 10, 20, 30; all sent by then ends at 9000.
    fn three() -> (ChunkPool, Scoreboard) {
        let mut pool = ChunkPool::new(1);
        let mut s = Scoreboard::default();
        for (n, us) in [(0, 10), (2000, 20), (4000, 30)] {
            s.note_resent(&mut pool, at(n), at(n + 1000), us, at(9000));
        }
        (pool, s)
    }

    #[test]
    fn d10_what_was_sent_again_before_what_arrived_is_lost() {
        let (mut pool, mut s) = three();
        assert!(s.insert(&mut pool, at(2000), at(3000)).is_ok());
        s.review(&mut pool, &known(0, 3000, 500));
        assert_eq!(s.lost_again(&pool), Some((at(0), at(1000))), "4000 was sent later");
        assert_eq!(s.lost_again_bytes(&pool), 1000);
        // Sent once more, in two pieces.
        s.note_resent(&mut pool, at(0), at(600), 600, at(9000));
        assert_eq!(s.lost_again(&pool), Some((at(600), at(1000))));
        s.note_resent(&mut pool, at(600), at(1000), 600, at(9000));
        assert_eq!(s.lost_again(&pool), None);
        // Lost a second time: 4000 was sent before it, new data after.
        assert!(s.insert(&mut pool, at(4000), at(5000)).is_ok());
        s.review(&mut pool, &known(0, 5000, 900));
        assert_eq!(s.lost_again(&pool), None);
        s.review(&mut pool, &known(0, 9000, 900));
        assert_eq!(s.lost_again(&pool), None, "what had been sent by then says nothing");
        s.review(&mut pool, &known(0, 9001, 900));
        assert_eq!(s.lost_again_bytes(&pool), 1000);
    }

    #[test]
    fn d10_an_answer_that_came_too_soon_is_that_of_the_original() {
        let (mut pool, mut s) = three();
        assert!(s.insert(&mut pool, at(4000), at(5000)).is_ok());
        s.review(&mut pool, &known(0, 5000, 129));
        assert_eq!(s.lost_again(&pool), None);
        assert_eq!(s.resent, 2, "it arrived all the same");
    }

    #[test]
    fn d10_with_reordering_what_was_overtaken_is_held_first() {
        let (mut pool, mut s) = three();
        assert!(s.insert(&mut pool, at(2000), at(3000)).is_ok());
        s.review(&mut pool, &Evidence { at_once: false, ..known(0, 3000, 500) });
        assert_eq!((s.lost_again(&pool), s.holds(&pool)), (None, false));
        assert!(s.hold_overtaken(&mut pool));
        assert!(s.holds(&pool) && !s.hold_overtaken(&mut pool), "once");
        s.give_up_held(&mut pool);
        assert_eq!(s.lost_again(&pool), Some((at(0), at(1000))));
    }

    #[test]
    fn d10_the_chunk_is_given_back_with_the_last_entry() {
        let (mut pool, mut s) = three();
        s.review(&mut pool, &known(3500, 3500, 500));
        assert_eq!((s.resent, pool.used()), (1, 1));
        s.review(&mut pool, &known(5000, 5000, 500));
        assert_eq!((s.resent, pool.used()), (0, 0));
        let (mut pool, mut s) = three();
        s.forget_resent(&mut pool);
        assert_eq!(pool.used(), 0);
    }

    #[test]
    fn d10_a_full_journal_and_an_empty_pool_watch_no_more() {
        let mut pool = ChunkPool::new(1);
        let mut s = Scoreboard::default();
        for n in 0..2 * MAX_ENTRIES as u32 {
            s.note_resent(&mut pool, at(n), at(n + 1), n, at(9000));
        }
        assert_eq!(usize::from(s.resent), MAX_ENTRIES);
        let mut none = Scoreboard::default();
        none.note_resent(&mut pool, at(0), at(1), 0, at(9000));
        none.review(&mut pool, &known(0, 9001, 500));
        assert_eq!((none.resent, none.lost_again(&pool)), (0, None));
        s.clear(&mut pool);
        assert_eq!(pool.used(), 0);
    }
}
