//! The journal of what was sent again and is not known to have arrived (RFC 8985 §6, for retransmissions).
//!
//! What is sent for the first time goes out in the order of its numbers: of two such segments the one with the higher
//! number was sent later, and no time need be kept. What is sent again falls out of that order. It has an entry here, in the
//! order of sending, in the chunk of the scoreboard:
//!
//! ```text
//!  repair ──note_resent──▶ [entries, oldest first] ──review──▶ overtaken ──hold──▶ held ──give_up_held──▶ lost
//!                                 arrived: gone ◀──┘                        (no reordering is known: at once)
//! ```
//!
//! It is overtaken when something has arrived that was sent after it: a later entry, or new data that did not exist yet.
//! That is how a lost retransmission is found, of which the scoreboard alone can say nothing.
//!
//! A queue that overflows loses hundreds of segments of one flight, which go again hole by hole from low to high. Such a row
//! is one entry: from its first hole to the end of its last one, between which the peer has the rest. It too goes out in the
//! order of its numbers, so that what arrived of it last (`Scoreboard::note_arrival`) has overtaken what is
//! missing before it, and the row is split there.

use super::chunk::ChunkPool;
use super::sack::{JOURNAL_AT, Scoreboard, number};
use crate::wire::SeqNum;

/// Bytes of an entry: number, length and standing, time, the end of all that was sent by then, how far it has arrived.
const ENTRY_BYTES: usize = 20;
/// Entries of a journal. More: fewer ranges; fewer: of several heavy losses in a row the last retransmissions are not
/// watched, and when they are lost as well they wait for a timeout. A row takes one for each 64 KiB: these are two
/// megabytes.
const MAX_ENTRIES: usize = 32;
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
    /// What is missing before this was overtaken within the row; `first` when nothing was.
    reached: SeqNum,
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

impl Evidence {
    fn plausible(&self, e: &Entry) -> bool {
        self.now_us.wrapping_sub(e.sent_us) >= self.min_rtt_us
    }
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
            reached: SeqNum::new(number(bytes, at + 16)),
        }
    }

    fn put_entry(&self, pool: &mut ChunkPool, i: u16, e: &Entry) {
        let at = JOURNAL_AT + usize::from(i) * ENTRY_BYTES;
        let word = u32::from(e.len) | u32::from(e.standing as u16) << 16;
        let bytes = &mut pool.whole_mut(self.chunk)[at..at + ENTRY_BYTES];
        for (to, from) in
            bytes.chunks_exact_mut(4).zip([e.first.raw(), word, e.sent_us, e.max.raw(), e.reached.raw()])
        {
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
        // What was lost of it is out again; the holes of a row are taken from low to high.
        self.rewrite(pool, |_, _, _, e| {
            let here = e.first.before(end) && first.before(e.end());
            if e.standing != Standing::Lost || !here {
                return Some(e);
            }
            let rest = e.end().bytes_since(end);
            (rest > 0).then_some(Entry { first: end, len: rest as u16, ..e })
        });
        let Ok(len) = u16::try_from(end - first) else { return };
        if let Some(row) = self.row_to(pool, first, end, max) {
            self.put_entry(pool, self.resent - 1, &Entry { sent_us: now_us, ..row });
        } else if usize::from(self.resent) < MAX_ENTRIES && self.borrow(pool) {
            let e = Entry { first, len, standing: Standing::Out, sent_us: now_us, max, reached: first };
            self.resent += 1;
            self.put_entry(pool, self.resent - 1, &e);
        }
    }

    /// The last entry, if it is a row that `[first, end)` goes on with: of the same time as far as new data can tell, and the
    /// peer has all between. Its time is that of its last hole, so that what is said to prove something about the row is
    /// never believed too early.
    fn row_to(&self, pool: &ChunkPool, first: SeqNum, end: SeqNum, max: SeqNum) -> Option<Entry> {
        let last = self.entry(pool, self.resent.checked_sub(1)?);
        let joins = last.standing == Standing::Out
            && last.max == max
            && first.at_or_after(last.end())
            && self.sacked(pool, last.end(), first) == first - last.end();
        let len = u16::try_from(end - last.first).ok()?;
        joins.then_some(Entry { len, ..last })
    }

    /// The peer is about to be noted to have `[first, end)`: what it did not have of a row has arrived, unless it is too
    /// soon for that (RFC 8985 §6.2, step 2).
    pub(super) fn note_arrival(
        &mut self,
        pool: &mut ChunkPool,
        known: &Evidence,
        first: SeqNum,
        end: SeqNum,
    ) {
        for i in 0..self.resent {
            let e = self.entry(pool, i);
            let (from, to) = (first.max(e.first), end.min(e.end()));
            if !to.after(from) || !known.plausible(&e) {
                continue;
            }
            if let Some((_, hole_end)) = self.last_hole(pool, from, to)
                && hole_end.after(e.reached)
            {
                self.put_entry(pool, i, &Entry { reached: hole_end, ..e });
            }
        }
    }

    /// Looks through the journal after an ACK: what arrived goes, what was overtaken by it is marked.
    pub(super) fn review(&mut self, pool: &mut ChunkPool, known: &Evidence) {
        if self.resent == 0 {
            return;
        }
        let newest = (0..self.resent).rev().find(|&i| {
            let e = self.entry(pool, i);
            e.reached.after(e.first) || (known.plausible(&e) && e.first.before(known.una))
        });
        self.rewrite(pool, |s, pool, i, e| {
            // What is left of it; nothing, when all has arrived.
            let from = e.first.max(known.una.min(e.end()));
            let (first, _) = s.next_hole(pool, from, e.end())?;
            let overtaken = newest.is_some_and(|n| i < n) || known.highest.after(e.max);
            let standing = match e.standing {
                Standing::Out | Standing::Overtaken if known.at_once && overtaken => Standing::Lost,
                Standing::Out if overtaken => Standing::Overtaken,
                was => was,
            };
            let reached = if standing == Standing::Out { e.reached.max(first) } else { first };
            Some(Entry { first, len: (e.end() - first) as u16, standing, reached, ..e })
        });
        self.split_rows(pool, known.at_once);
    }

    /// Of a row of which something has arrived, what was overtaken becomes an entry of its own. Without room for one that
    /// waits until there is.
    fn split_rows(&mut self, pool: &mut ChunkPool, at_once: bool) {
        let mut i = 0;
        while i < self.resent {
            let e = self.entry(pool, i);
            i += 1;
            if !e.reached.after(e.first) {
                continue;
            }
            if let Some((first, _)) = self.next_hole(pool, e.reached, e.end()) {
                if usize::from(self.resent) == MAX_ENTRIES {
                    continue;
                }
                for j in (i..self.resent).rev() {
                    let later = self.entry(pool, j);
                    self.put_entry(pool, j + 1, &later);
                }
                self.resent += 1;
                let len = (e.end() - first) as u16;
                self.put_entry(pool, i, &Entry { first, len, reached: first, ..e });
            }
            let standing = if at_once { Standing::Lost } else { Standing::Overtaken };
            let end = self.last_hole(pool, e.first, e.reached).map_or(e.reached, |h| h.1);
            let len = (end - e.first) as u16;
            self.put_entry(pool, i - 1, &Entry { len, standing, reached: e.first, ..e });
        }
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

    /// `[first, end)` arrives, and the journal is looked through.
    fn arrive(s: &mut Scoreboard, pool: &mut ChunkPool, (first, end): (u32, u32), known: &Evidence) {
        s.note_arrival(pool, known, at(first), at(end));
        assert!(s.insert(pool, at(first), at(end)).is_ok());
        s.review(pool, known);
    }

    #[test]
    fn d10_what_was_sent_again_before_what_arrived_is_lost() {
        let (mut pool, mut s) = three();
        arrive(&mut s, &mut pool, (2000, 3000), &known(0, 3000, 500));
        assert_eq!(s.lost_again(&pool), Some((at(0), at(1000))), "4000 was sent later");
        assert_eq!(s.lost_again_bytes(&pool), 1000);
        // Sent once more, in two pieces.
        s.note_resent(&mut pool, at(0), at(600), 600, at(9000));
        assert_eq!(s.lost_again(&pool), Some((at(600), at(1000))));
        s.note_resent(&mut pool, at(600), at(1000), 600, at(9000));
        assert_eq!(s.lost_again(&pool), None);
        // Lost a second time: 4000 was sent before it, new data after.
        arrive(&mut s, &mut pool, (4000, 5000), &known(0, 5000, 900));
        assert_eq!(s.lost_again(&pool), None);
        s.review(&mut pool, &known(0, 9000, 900));
        assert_eq!(s.lost_again(&pool), None, "what had been sent by then says nothing");
        s.review(&mut pool, &known(0, 9001, 900));
        assert_eq!(s.lost_again_bytes(&pool), 1000);
    }

    #[test]
    fn d10_an_answer_that_came_too_soon_is_that_of_the_original() {
        let (mut pool, mut s) = three();
        arrive(&mut s, &mut pool, (4000, 5000), &known(0, 5000, 129));
        assert_eq!(s.lost_again(&pool), None);
        assert_eq!(s.resent, 2, "it arrived all the same");
    }

    #[test]
    fn d10_with_reordering_what_was_overtaken_is_held_first() {
        let (mut pool, mut s) = three();
        arrive(&mut s, &mut pool, (2000, 3000), &Evidence { at_once: false, ..known(0, 3000, 500) });
        assert_eq!((s.lost_again(&pool), s.holds(&pool)), (None, false));
        assert!(s.hold_overtaken(&mut pool));
        assert!(s.holds(&pool) && !s.hold_overtaken(&mut pool), "once");
        s.give_up_held(&mut pool);
        assert_eq!(s.lost_again(&pool), Some((at(0), at(1000))));
    }

    /// Every second thousand bytes of `n` pairs arrived, the others were sent again, all in one row.
    fn row(n: u32) -> (ChunkPool, Scoreboard) {
        let mut pool = ChunkPool::new(1);
        let mut s = Scoreboard::default();
        send_row(&mut s, &mut pool, n);
        (pool, s)
    }

    fn send_row(s: &mut Scoreboard, pool: &mut ChunkPool, n: u32) {
        for i in 0..n {
            assert!(s.insert(pool, at(2000 * i + 1000), at(2000 * i + 2000)).is_ok());
        }
        for i in 0..n {
            s.note_resent(pool, at(2000 * i), at(2000 * i + 1000), 10 + i, at(2000 * n));
        }
    }

    #[test]
    fn d10_holes_that_are_sent_again_in_a_row_take_one_entry_for_64_kib() {
        let (pool, s) = row(100);
        assert_eq!(s.resent, 4, "200,000 bytes");
        assert_eq!(s.lost_again(&pool), None);
    }

    #[test]
    fn d10_in_a_row_what_is_missing_before_what_arrived_is_lost() {
        let (mut pool, mut s) = row(8);
        let now = known(0, 16_000, 500);
        arrive(&mut s, &mut pool, (0, 1000), &now);
        assert_eq!((s.resent, s.lost_again(&pool)), (1, None), "it arrives in order");
        // The next two are lost again, the fourth arrives.
        arrive(&mut s, &mut pool, (6000, 7000), &now);
        assert_eq!((s.lost_again(&pool), s.lost_again_bytes(&pool)), (Some((at(2000), at(3000))), 2000));
        s.note_resent(&mut pool, at(2000), at(3000), 600, at(16_000));
        assert_eq!(s.lost_again(&pool), Some((at(4000), at(5000))));
        s.note_resent(&mut pool, at(4000), at(5000), 600, at(16_000));
        assert_eq!((s.lost_again(&pool), s.lost_again_bytes(&pool)), (None, 0));
        assert_eq!(s.resent, 2, "the rest of the first row, and a second one");
        // The end of the first row was sent before the second one, and says nothing about it.
        arrive(&mut s, &mut pool, (8000, 15_000), &known(0, 16_000, 900));
        assert_eq!((s.resent, s.lost_again(&pool)), (1, None));
        s.review(&mut pool, &known(3000, 16_000, 900));
        assert_eq!(s.resent, 1, "its first hole is acknowledged");
        s.review(&mut pool, &known(16_000, 16_000, 900));
        assert_eq!(s.resent, 0);
    }

    #[test]
    fn d10_what_arrives_of_a_row_too_soon_proves_nothing_about_it() {
        let (mut pool, mut s) = row(8);
        arrive(&mut s, &mut pool, (6000, 7000), &known(0, 16_000, 116));
        assert_eq!((s.resent, s.lost_again(&pool)), (1, None));
        arrive(&mut s, &mut pool, (8000, 9000), &known(0, 16_000, 117));
        assert_eq!(s.lost_again_bytes(&pool), 3000, "a round trip after the last of them");
    }

    #[test]
    fn d10_a_row_that_cannot_be_split_for_want_of_room_is_split_later() {
        let mut pool = ChunkPool::new(1);
        let mut s = Scoreboard::default();
        for i in 1..MAX_ENTRIES as u32 {
            // Of other times, as far as new data can tell: no row.
            s.note_resent(&mut pool, at(i) - 100, at(i) - 99, 5, at(i));
        }
        send_row(&mut s, &mut pool, 8);
        assert_eq!(usize::from(s.resent), MAX_ENTRIES);
        let now = Evidence { una: at(0) - 100, ..known(0, 0, 500) };
        arrive(&mut s, &mut pool, (6000, 7000), &now);
        let others = MAX_ENTRIES as u32 - 1;
        assert_eq!((usize::from(s.resent), s.lost_again_bytes(&pool)), (MAX_ENTRIES, others), "sent before");
        s.review(&mut pool, &Evidence { una: at(2) - 100, ..now });
        assert_eq!(s.lost_again_bytes(&pool), others - 1 + 3000, "one of them is acknowledged");
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
            s.note_resent(&mut pool, at(n), at(n + 1), n, at(9000 + n));
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
