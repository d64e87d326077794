//! Expiry of `TIME_WAIT` records: in by append, out in bulk.
//!
//! ```text
//!  append(record, deadline) ──▶ slot of its tick: [62 records]─▶[62 records]─▶[…]
//!                                                      │
//!  pop_due(now, budget) ◀── slots in order of time ────┘   emptied chunks go back to the arena
//! ```
//!
//! A plain FIFO would do if every record lived equally long, but the length of `TIME_WAIT` is set by listener and
//! can be reloaded: one long record at the head would hold up all shorter ones behind it. A timer wheel as for
//! connections takes 12 bytes an entry and touches three cache lines to remove one. Here a slot is a list of
//! chunks that is only ever appended to and taken from at the front: 4.13 bytes a record, no links to mend,
//! and a burst of expiries reads memory in a row.
//!
//! Nothing is removed from the middle. The owner keeps to two rules:
//!
//! * a record whose expiry has moved on (a retransmitted FIN restarts 2MSL, RFC 9293 §3.10.7.8) stays where it is;
//!   when it is popped the owner compares the expiry stored in the record and appends it again;
//! * a record's number is used for another only after it was popped, so every number is queued at most once.
//!
//! The worker owns the wheel; all its memory is reserved at construction; no syscall, no clock.

use crate::memory;

/// Records in a chunk, so that a chunk with its header is 256 bytes, four cache lines.
///
/// Higher: each slot in use wastes more in its last chunk. Lower: the header weighs more.
const RECORDS: usize = 62;

/// No chunk.
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Chunk {
    next: u32,
    first: u16,
    end: u16,
    records: [u32; RECORDS],
}

const _: () = assert!(size_of::<Chunk>() == 256);

#[derive(Clone, Copy)]
struct Slot {
    head: u32,
    tail: u32,
}

/// Why a record was not queued: as many as the wheel was made for are queued already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the expiry wheel holds as many records as it was made for")]
pub struct WheelFull;

/// Record numbers by expiry, for lifetimes within a horizon.
pub struct BulkWheel {
    /// Grows, within its reserved capacity, as chunks are used for the first time.
    chunks: Vec<Chunk>,
    free: u32,
    /// A power of two of them; a tick's slot is its remainder.
    slots: Box<[Slot]>,
    /// One bit a slot that is not empty.
    occupied: Box<[u64]>,
    /// The earliest tick that is not wholly popped.
    tick: u64,
    tick_ms: u64,
    len: usize,
    capacity: usize,
}

impl BulkWheel {
    /// A wheel for `capacity` records that starts at `now_ms`.
    ///
    /// `tick_ms` (at least 1; 16 to 64 is right for `TIME_WAIT`) is how late a record may come; finer ticks mean more
    /// slots with a partly filled chunk each. `horizon_ms` is the longest lifetime; a longer one comes due at
    /// the horizon and is appended again by its owner. Memory: 256 bytes for 62 records, plus at most 520 bytes
    /// for each of the `horizon_ms / tick_ms` slots, rounded up to a power of two; touched on first use.
    ///
    /// # Panics
    ///
    /// If `tick_ms` is 0, or the memory cannot be reserved: at start, not later.
    #[must_use]
    pub fn new(capacity: usize, tick_ms: u64, horizon_ms: u64, now_ms: u64) -> Self {
        assert!(tick_ms > 0, "a tick of the expiry wheel lasts at least 1 ms");
        // One slot for the tick in progress and one because deadlines are rounded up.
        let slots = usize::try_from(horizon_ms / tick_ms + 2)
            .ok()
            .and_then(usize::checked_next_power_of_two)
            .expect("the expiry wheel's horizon fits in memory")
            .max(64);
        // Of a slot's chunks all but the first and the last are full, and none is empty.
        let chunks = capacity / RECORDS + 2 * slots.min(capacity);
        assert!(chunks < NONE as usize, "the expiry wheel's chunks fit in 32 bits");
        Self {
            chunks: memory::reserve(chunks),
            free: NONE,
            slots: vec![Slot { head: NONE, tail: NONE }; slots].into_boxed_slice(),
            occupied: vec![0; slots / 64].into_boxed_slice(),
            tick: now_ms / tick_ms,
            tick_ms,
            len: 0,
            capacity,
        }
    }

    /// Records queued.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none is queued.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Records that can be queued at most.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Queues a record for `deadline_ms`: it is popped within the tick after it, or at the horizon if that comes
    /// first. The horizon is counted from the last [`pop_due`](Self::pop_due), which the worker calls every turn.
    ///
    /// # Errors
    ///
    /// [`WheelFull`] when `capacity` records are queued: cannot happen to an owner of that many records.
    pub fn append(&mut self, record: u32, deadline_ms: u64) -> Result<(), WheelFull> {
        if self.len >= self.capacity {
            return Err(WheelFull);
        }
        let last = self.tick + self.slots.len() as u64 - 1;
        let tick = deadline_ms.div_ceil(self.tick_ms).clamp(self.tick, last);
        let at = self.slot_of(tick);
        let tail = self.slots[at].tail;
        let id = if tail == NONE || usize::from(self.chunks[tail as usize].end) == RECORDS {
            self.grow(at)
        } else {
            tail
        };
        let chunk = &mut self.chunks[id as usize];
        chunk.records[usize::from(chunk.end)] = record;
        chunk.end += 1;
        self.len += 1;
        Ok(())
    }

    /// Links an empty chunk to the end of a slot. There is one: fewer than `capacity` records are queued.
    fn grow(&mut self, at: usize) -> u32 {
        let empty = Chunk { next: NONE, first: 0, end: 0, records: [0; RECORDS] };
        let id = if self.free == NONE {
            debug_assert!(self.chunks.len() < self.chunks.capacity());
            self.chunks.push(empty);
            self.chunks.len() as u32 - 1
        } else {
            let id = self.free;
            let chunk = &mut self.chunks[id as usize];
            self.free = chunk.next;
            // The records need not be wiped: only those before `end` are read.
            (chunk.next, chunk.first, chunk.end) = (NONE, 0, 0);
            id
        };
        let slot = &mut self.slots[at];
        if slot.tail == NONE {
            slot.head = id;
            self.occupied[at / 64] |= 1 << (at % 64);
        } else {
            self.chunks[slot.tail as usize].next = id;
        }
        slot.tail = id;
        id
    }

    /// Appends the records that are due at `now_ms` to `out`, in order of their ticks and within a tick in that of
    /// their arrival; how many. Never more than `budget`: the rest comes with the next call.
    ///
    /// Costs a step a record and one a slot in use; empty slots are skipped by words of a bitmap, so an idle jump
    /// of any length costs at most one look at the whole bitmap.
    pub fn pop_due(&mut self, now_ms: u64, out: &mut Vec<u32>, budget: usize) -> usize {
        let now = now_ms / self.tick_ms;
        let mut popped = 0;
        while popped < budget && self.tick <= now {
            let Some(tick) = self.next_tick().filter(|&t| t <= now) else {
                self.tick = now + 1;
                break;
            };
            self.tick = tick;
            popped += self.take(self.slot_of(self.tick), out, budget - popped);
        }
        popped
    }

    /// Pops the record that comes due first, due or not, and its tick: what is given up when the table is full.
    pub fn pop_oldest(&mut self) -> Option<(u32, u64)> {
        let tick = self.next_tick()?;
        let at = self.slot_of(tick);
        let head = self.slots[at].head as usize;
        let chunk = &mut self.chunks[head];
        let record = chunk.records[usize::from(chunk.first)];
        chunk.first += 1;
        self.len -= 1;
        if chunk.first == chunk.end {
            self.drop_head(at);
        }
        Some((record, tick))
    }

    /// Moves up to `most` records from the front of a slot to `out`.
    fn take(&mut self, at: usize, out: &mut Vec<u32>, most: usize) -> usize {
        let mut taken = 0;
        while taken < most && self.slots[at].head != NONE {
            let chunk = &mut self.chunks[self.slots[at].head as usize];
            let (first, end) = (usize::from(chunk.first), usize::from(chunk.end));
            let n = (end - first).min(most - taken);
            out.extend_from_slice(&chunk.records[first..first + n]);
            chunk.first += n as u16;
            taken += n;
            if first + n == end {
                self.drop_head(at);
            }
        }
        self.len -= taken;
        taken
    }

    /// Gives a slot's first chunk back to the arena.
    fn drop_head(&mut self, at: usize) {
        let slot = &mut self.slots[at];
        let id = slot.head;
        let chunk = &mut self.chunks[id as usize];
        slot.head = chunk.next;
        chunk.next = self.free;
        self.free = id;
        if slot.head == NONE {
            slot.tail = NONE;
            self.occupied[at / 64] &= !(1 << (at % 64));
        }
    }

    /// When the next record comes due, in ms; `None` when none is queued.
    #[must_use]
    pub fn next_due_ms(&self) -> Option<u64> {
        self.next_tick().map(|t| t.saturating_mul(self.tick_ms))
    }

    fn slot_of(&self, tick: u64) -> usize {
        (tick & (self.slots.len() as u64 - 1)) as usize
    }

    /// The first tick from the present one on whose slot is not empty.
    fn next_tick(&self) -> Option<u64> {
        if self.len == 0 {
            return None;
        }
        let (from, words) = (self.slot_of(self.tick), self.occupied.len());
        // The first word is looked at twice: its upper bits first, its lower bits after a full turn.
        (0..=words).find_map(|i| {
            let word = (from / 64 + i) % words;
            let mask = match i {
                0 => !0 << (from % 64),
                i if i == words => !(!0 << (from % 64)),
                _ => !0,
            };
            let bits = self.occupied[word] & mask;
            let slot = word * 64 + bits.trailing_zeros() as usize;
            let ahead = slot.wrapping_sub(from) & (self.slots.len() - 1);
            (bits != 0).then(|| self.tick + ahead as u64)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_million_records_of_one_tick_come_out_in_slices_and_in_order() {
        let n = 1_000_000;
        let mut w = BulkWheel::new(n, 64, 60_000, 0);
        for r in 0..n as u32 {
            w.append(r, 60_000).unwrap();
        }
        assert_eq!(w.append(0, 1), Err(WheelFull));
        let mut out = Vec::with_capacity(1024);
        assert_eq!(w.pop_due(59_999, &mut out, 1024), 0);
        let mut next = 0;
        while !w.is_empty() {
            out.clear();
            assert!(w.pop_due(70_000, &mut out, 1000) <= 1000);
            for &r in &out {
                assert_eq!(r, next);
                next += 1;
            }
        }
        assert_eq!(next as usize, n);
        // 4.13 bytes each, and what the arena was reserved for was enough.
        assert_eq!(w.chunks.len(), n.div_ceil(RECORDS));
    }

    #[test]
    fn a_long_record_does_not_hold_up_shorter_ones() {
        let mut w = BulkWheel::new(10, 16, 240_000, 5);
        w.append(1, 240_000).unwrap();
        w.append(2, 1000).unwrap();
        let mut out = Vec::new();
        assert_eq!(w.next_due_ms(), Some(1008));
        w.pop_due(1007, &mut out, 9);
        assert_eq!(out, [0u32; 0]);
        w.pop_due(1008, &mut out, 9);
        assert_eq!(out, [2]);
        w.pop_due(240_000, &mut out, 9);
        assert_eq!(out, [2, 1]);
        assert_eq!(w.next_due_ms(), None);
    }

    #[test]
    fn a_lifetime_beyond_the_horizon_comes_back_to_its_owner_at_the_horizon() {
        let mut w = BulkWheel::new(1, 10, 600, 0);
        w.append(7, 1 << 40).unwrap();
        let mut out = Vec::new();
        assert_eq!(w.pop_due(600, &mut out, 1), 0);
        assert_eq!(w.pop_due(10_000, &mut out, 1), 1);
    }

    #[test]
    fn the_oldest_goes_first_when_room_is_needed() {
        let mut w = BulkWheel::new(200, 16, 60_000, 0);
        for r in 0..200 {
            w.append(r, 60_000 - u64::from(r) * 100).unwrap();
        }
        assert_eq!(w.pop_oldest(), Some((199, 40_100u64.div_ceil(16))));
        w.append(500, 30_000).unwrap();
        assert_eq!(w.pop_oldest().map(|(r, _)| r), Some(500));
        assert_eq!(w.pop_oldest().map(|(r, _)| r), Some(198));
        assert_eq!(w.len(), 198);
    }

    #[derive(Clone, Debug)]
    enum Op {
        Append(u64),
        Bulk(u8, u64),
        Pop(u64, usize),
        Oldest,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            6 => (0..80_000u64).prop_map(Op::Append),
            2 => (any::<u8>(), 0..70_000u64).prop_map(|(n, d)| Op::Bulk(n, d)),
            4 => (prop_oneof![0..300u64, 0..5000u64, 0..500_000u64], 0..400usize).prop_map(|(t, b)| Op::Pop(t, b)),
            1 => Just(Op::Oldest),
        ]
    }

    proptest! {
        /// Against a list sorted by tick: nothing early, nothing late, in order, and no memory but what was reserved.
        #[test]
        fn is_a_list_sorted_by_tick(
            start in 0..1u64 << 40,
            tick_ms in 1..100u64,
            capacity in 1..2000usize,
            ops in prop::collection::vec(op(), 1..150),
        ) {
            let mut w = BulkWheel::new(capacity, tick_ms, 60_000, start);
            let reserved = w.chunks.capacity();
            let mut model: Vec<(u64, u32)> = Vec::new();
            let (mut now, mut number) = (start, 0);
            for op in ops {
                let (count, delay) = match op {
                    Op::Append(d) => (1, d),
                    Op::Bulk(n, d) => (n, d),
                    Op::Pop(passed, budget) => {
                        now += passed;
                        let mut out = Vec::new();
                        let n = w.pop_due(now, &mut out, budget);
                        let due = model.iter().take_while(|(t, _)| *t <= now / tick_ms).count();
                        prop_assert_eq!(n, due.min(budget));
                        let want: Vec<u32> = model.drain(..n).map(|(_, r)| r).collect();
                        prop_assert_eq!(out, want);
                        (0, 0)
                    }
                    Op::Oldest => {
                        let want = if model.is_empty() { None } else { Some(model.remove(0)).map(|(t, r)| (r, t)) };
                        prop_assert_eq!(w.pop_oldest(), want);
                        (0, 0)
                    }
                };
                for _ in 0..count {
                    let full = model.len() == capacity;
                    prop_assert_eq!(w.append(number, now + delay).is_err(), full);
                    if !full {
                        let horizon = w.tick + w.slots.len() as u64 - 1;
                        let tick = (now + delay).div_ceil(tick_ms).clamp(w.tick, horizon);
                        let at = model.partition_point(|(t, _)| *t <= tick);
                        model.insert(at, (tick, number));
                    }
                    number += 1;
                }
                prop_assert_eq!(w.len(), model.len());
                prop_assert_eq!(w.next_due_ms(), model.first().map(|(t, _)| t * tick_ms));
                prop_assert_eq!(w.chunks.capacity(), reserved);
            }
        }
    }
}
