//! The `TIME_WAIT` records of a shard, packed, and the wheel that ends them in bulk.
//!
//! ```text
//!  key (30 bits) ──▶ family (1 bit) + number ──▶ Slab<Packed<Pair4>>  28 bytes a record
//!                                            └─▶ Slab<Packed<Pair6>>  52 bytes
//! ```
//!
//! With the index and the wheel (see [`super::tables`]) that makes 40 and 64 bytes. Both slabs are reserved for the whole
//! capacity, because nobody knows the mix beforehand; memory is touched as it is used, and the two together hold
//! no more records than were asked for.
//!
//! A slot is used again only after its entry came off the wheel: a record that ended early (re-opened) leaves
//! its slot *gone* until then. The end of a record is stored as a tick of the wheel in [`TICK_BITS`] bits, compared
//! within half their space, as sequence numbers are; its budget of answers takes a byte of the same word.

use super::bulk_wheel::BulkWheel;
use super::index::TupleHasher;
use super::slab::Slab;
use crate::tcp::time_wait::{Answers, TimeWait};
use crate::time::Time;
use crate::wire::pair::{Pair, Pair4, Pair6};
use crate::wire::{SeqNum, Tuple};
use std::num::NonZeroU32;
use std::time::Duration;

/// Width of a tick in milliseconds: a record stays up to this much longer than 2MSL. Smaller makes more slots of the
/// wheel and no user happier; larger makes the bulk of one tick longer.
const TICK_MS: u64 = 16;

/// Bits of a stored tick: they wrap after 4.6 hours, so an end within 2.3 hours of now is told from one past.
const TICK_BITS: u32 = 20;
const TICK_MASK: u32 = (1 << TICK_BITS) - 1;

/// Records that were put off when a full table looks for one to evict, before the next is taken as it is.
///
/// A record that a retransmitted FIN restarted waits on the wheel at its former tick. Higher: a table full of such
/// records delays the segment that needs room. Lower: one of them goes before its elders.
const EVICT_TRIES: usize = 8;

/// The bit of a key that says in which slab its record is.
pub(super) const WIDE: u32 = 1 << 29;

/// Records a table can hold at most.
pub(super) const MAX_WAITS: usize = WIDE as usize;

/// A record's end and its marks, in one word that is never zero: a free slot takes no room of its own.
#[derive(Clone, Copy)]
struct End(NonZeroU32);

impl End {
    const HELD: NonZeroU32 = NonZeroU32::new(1 << 20).unwrap();
    /// Ended early; the slot waits for its entry on the wheel.
    const GONE: NonZeroU32 = NonZeroU32::new(1 << 21).unwrap();
    const TIMESTAMPS: u32 = 1 << 22;
    const TRACED: u32 = 1 << 23;
    /// Four bits of the second in which answers were given, and above them four of how many.
    const ANSWERS: u32 = 24;

    fn held(tick: u64, w: &TimeWait) -> Self {
        let mut marks = 0;
        if w.ts_recent.is_some() {
            marks |= Self::TIMESTAMPS;
        }
        if w.traced {
            marks |= Self::TRACED;
        }
        Self(Self::HELD | marks | tick as u32 & TICK_MASK)
    }

    const fn has(self, mark: u32) -> bool {
        self.0.get() & mark != 0
    }

    const fn is_held(self) -> bool {
        self.has(Self::HELD.get())
    }

    const fn answers(self) -> Answers {
        let byte = (self.0.get() >> Self::ANSWERS) as u8;
        Answers { second: byte & 0xf, given: byte >> 4 }
    }

    fn answered(self, a: Answers) -> Self {
        let byte = u32::from(a.given << 4 | a.second & 0xf);
        Self(Self::HELD | self.0.get() & !(0xff << Self::ANSWERS) | byte << Self::ANSWERS)
    }

    fn moved(self, tick: u64) -> Self {
        Self(Self::HELD | self.0.get() & !TICK_MASK | tick as u32 & TICK_MASK)
    }

    /// Ticks from `now` to the end; not positive when it has come.
    const fn ticks_left(self, now: u64) -> i32 {
        // Moved to the top of the word, so that the sign is that of the difference in `TICK_BITS` bits.
        let unused = 32 - TICK_BITS;
        (self.0.get().wrapping_sub(now as u32) << unused).cast_signed() >> unused
    }
}

/// A record at rest.
#[derive(Clone, Copy)]
struct Packed<A> {
    pair: A,
    snd_nxt: SeqNum,
    rcv_nxt: SeqNum,
    ts_recent: u32,
    end: End,
}

/// Bytes a record takes, IPv4 and IPv6.
pub(super) const RECORD_BYTES: [usize; 2] =
    [Slab::<Packed<Pair4>>::RECORD_BYTES, Slab::<Packed<Pair6>>::RECORD_BYTES];

const _: () = assert!(RECORD_BYTES[0] == 28 && RECORD_BYTES[1] == 52);

impl<A: Pair> Packed<A> {
    fn new(w: &TimeWait, tick: u64) -> Self {
        Self {
            pair: A::of(&w.tuple),
            snd_nxt: w.snd_nxt,
            rcv_nxt: w.rcv_nxt,
            ts_recent: w.ts_recent.unwrap_or(0),
            end: End::held(tick, w),
        }
    }

    #[inline]
    fn unpack(&self) -> Option<TimeWait> {
        self.end.is_held().then(|| TimeWait {
            tuple: self.pair.tuple(),
            snd_nxt: self.snd_nxt,
            rcv_nxt: self.rcv_nxt,
            ts_recent: self.end.has(End::TIMESTAMPS).then_some(self.ts_recent),
            traced: self.end.has(End::TRACED),
        })
    }
}

/// What became of a slot whose entry came off the wheel.
enum Popped {
    /// Its record's end has come; the slot is free.
    Expired(TimeWait),
    /// Its record was restarted: the ticks it has left.
    Later(u64),
    /// It had no record any more; the slot is free.
    Freed,
}

/// One family's records.
struct Family<A>(Slab<Packed<A>>);

impl<A: Pair> Family<A> {
    fn held(&self, number: u32) -> Option<&Packed<A>> {
        self.0.get(number).filter(|p| p.end.is_held())
    }

    fn restart(&mut self, number: u32, tick: u64) {
        if let Some(p) = self.0.get_mut(number).filter(|p| p.end.is_held()) {
            p.end = p.end.moved(tick);
        }
    }

    fn may_answer(&mut self, number: u32, per_second: u8, now: Time) -> bool {
        let Some(p) = self.0.get_mut(number).filter(|p| p.end.is_held()) else { return false };
        let mut answers = p.end.answers();
        let may = answers.take(per_second, now);
        p.end = p.end.answered(answers);
        may
    }

    fn end(&mut self, number: u32) -> Option<TimeWait> {
        let p = self.0.get_mut(number)?;
        let w = p.unpack()?;
        p.end = End(End::GONE);
        Some(w)
    }

    /// An entry of `tick` came off the wheel. `early` takes the record whatever it has left.
    #[inline]
    fn popped(&mut self, number: u32, tick: u64, early: bool) -> Popped {
        let left = self.held(number).map_or(0, |p| p.end.ticks_left(tick));
        if left > 0 && !early {
            return Popped::Later(u64::from(left.unsigned_abs()));
        }
        self.0.remove(number).and_then(|p| p.unpack()).map_or(Popped::Freed, Popped::Expired)
    }
}

/// The records, the slots that wait, and the wheel.
pub(super) struct WaitTable {
    v4: Family<Pair4>,
    v6: Family<Pair6>,
    wheel: BulkWheel,
    capacity: usize,
    /// Records, without the slots that wait for their entry.
    held: usize,
}

impl WaitTable {
    /// Room for `capacity` records that are held for at most `longest`.
    pub(super) fn new(capacity: usize, longest: Duration, now: Time) -> Self {
        assert!(capacity <= MAX_WAITS, "a table of TIME_WAIT records holds up to {MAX_WAITS}");
        Self {
            v4: Family(Slab::new(capacity)),
            v6: Family(Slab::new(capacity)),
            wheel: BulkWheel::new(capacity, TICK_MS, longest.as_millis() as u64, now.millis()),
            capacity,
            held: 0,
        }
    }

    /// Records held.
    pub(super) const fn held(&self) -> usize {
        self.held
    }

    /// Whether every slot is taken, by a record or until its entry comes off the wheel.
    pub(super) fn is_full(&self) -> bool {
        self.slots() >= self.capacity
    }

    /// Slots taken, each of which has one entry on the wheel.
    pub(super) fn slots(&self) -> usize {
        self.v4.0.len() + self.v6.0.len()
    }

    /// Numbers of one family that have been used so far are below this one.
    pub(super) fn touched(&self, wide: bool) -> u32 {
        if wide { self.v6.0.touched() } else { self.v4.0.touched() }
    }

    /// Entries on the wheel.
    pub(super) fn entries(&self) -> usize {
        self.wheel.len()
    }

    /// All records, by their keys.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, TimeWait)> {
        let v4 = self.v4.0.scan(0, usize::MAX).0.map(|(number, p)| (number, p.unpack()));
        let v6 = self.v6.0.scan(0, usize::MAX).0.map(|(number, p)| (number | WIDE, p.unpack()));
        v4.chain(v6).filter_map(|(key, w)| Some((key, w?)))
    }

    /// Keeps a record until `expires`, and names it; `None` when there is no room.
    pub(super) fn insert(&mut self, w: &TimeWait, expires: Time) -> Option<u32> {
        if self.is_full() {
            return None;
        }
        let tick = tick_of(expires);
        let key = if w.tuple.is_v4() {
            self.v4.0.insert(Packed::new(w, tick))?
        } else {
            self.v6.0.insert(Packed::new(w, tick))? | WIDE
        };
        self.append(key, tick);
        self.held += 1;
        Some(key)
    }

    fn append(&mut self, key: u32, tick: u64) {
        let queued = self.wheel.append(key, tick * TICK_MS);
        debug_assert!(queued.is_ok(), "the wheel has room for every slot");
    }

    /// The record of a key.
    pub(super) fn get(&self, key: u32) -> Option<TimeWait> {
        if key & WIDE == 0 { self.v4.held(key)?.unpack() } else { self.v6.held(key & !WIDE)?.unpack() }
    }

    /// Time until the end of a record, at most a tick too long.
    pub(super) fn left(&self, key: u32, now: Time) -> Option<Duration> {
        let end = if key & WIDE == 0 {
            self.v4.held(key).map(|p| p.end)
        } else {
            self.v6.held(key & !WIDE).map(|p| p.end)
        }?;
        let ticks = end.ticks_left(now.millis() / TICK_MS);
        Some(Duration::from_millis(TICK_MS * u64::from(ticks.max(0).unsigned_abs())))
    }

    /// Whether the record of a key holds this pair.
    pub(super) fn holds(&self, key: u32, tuple: &Tuple) -> bool {
        if key & WIDE == 0 {
            tuple.is_v4() && self.v4.held(key).is_some_and(|p| p.pair == Pair4::of(tuple))
        } else {
            self.v6.held(key & !WIDE).is_some_and(|p| p.pair == Pair6::of(tuple))
        }
    }

    /// Moves a record's end; its entry stays where it is and is queued again when its turn comes.
    pub(super) fn restart(&mut self, key: u32, expires: Time) {
        let tick = tick_of(expires);
        if key & WIDE == 0 { self.v4.restart(key, tick) } else { self.v6.restart(key & !WIDE, tick) }
    }

    /// Whether a record may answer once more what is out of place.
    pub(super) fn may_answer(&mut self, key: u32, per_second: u8, now: Time) -> bool {
        if key & WIDE == 0 {
            self.v4.may_answer(key, per_second, now)
        } else {
            self.v6.may_answer(key & !WIDE, per_second, now)
        }
    }

    /// Has the record of a key fetched into the cache.
    #[inline]
    pub(super) fn prefetch(&self, key: u32) {
        if key & WIDE == 0 { self.v4.0.prefetch(key) } else { self.v6.0.prefetch(key & !WIDE) }
    }

    /// The hash of the tuple of a key's record; of one that has ended it leads nowhere.
    #[inline]
    pub(super) fn hash(&self, key: u32, hasher: &TupleHasher) -> u64 {
        if key & WIDE == 0 {
            self.v4.held(key).map_or(0, |p| hasher.of_pair(&p.pair))
        } else {
            self.v6.held(key & !WIDE).map_or(0, |p| hasher.of_pair(&p.pair))
        }
    }

    /// Ends a record before its time and gives it out; the slot stays until its entry comes off the wheel.
    pub(super) fn end(&mut self, key: u32) -> Option<TimeWait> {
        let w = if key & WIDE == 0 { self.v4.end(key) } else { self.v6.end(key & !WIDE) }?;
        self.held -= 1;
        Some(w)
    }

    /// Entries that are due go to `out`, at most `budget`; each is to be [settled](Self::settle).
    pub(super) fn pop_due(&mut self, now: Time, out: &mut Vec<u32>, budget: usize) {
        self.wheel.pop_due(now.millis(), out, budget);
    }

    /// An entry came off the wheel: frees the slot if its time has come, or queues it again. Returns the record that
    /// expired.
    #[inline]
    pub(super) fn settle(&mut self, key: u32, now: Time) -> Option<TimeWait> {
        let tick = now.millis() / TICK_MS;
        match self.popped(key, tick, false) {
            Popped::Expired(w) => Some(w),
            Popped::Later(left) => {
                self.append(key, tick + left);
                None
            }
            Popped::Freed => None,
        }
    }

    #[inline]
    fn popped(&mut self, key: u32, tick: u64, early: bool) -> Popped {
        let p = if key & WIDE == 0 {
            self.v4.popped(key, tick, early)
        } else {
            self.v6.popped(key & !WIDE, tick, early)
        };
        if let Popped::Expired(_) = p {
            self.held -= 1;
        }
        p
    }

    /// Makes room in a full table: the record that ends first goes (t05), and is returned with its key. `None` when
    /// it was enough to free slots whose records had ended.
    pub(super) fn evict(&mut self) -> Option<(u32, TimeWait)> {
        let mut tries = EVICT_TRIES;
        while let Some((key, tick)) = self.wheel.pop_oldest() {
            match self.popped(key, tick, tries == 0) {
                Popped::Expired(w) => return Some((key, w)),
                Popped::Later(left) => {
                    self.append(key, tick + left);
                    tries -= 1;
                }
                Popped::Freed => return None,
            }
        }
        None
    }

    /// When the next entry comes due, in milliseconds.
    pub(super) fn next_due_ms(&self) -> Option<u64> {
        self.wheel.next_due_ms()
    }
}

/// The tick at which a record ends, never early.
fn tick_of(expires: Time) -> u64 {
    expires.micros().div_ceil(1000 * TICK_MS)
}

#[cfg(test)]
mod tests;
