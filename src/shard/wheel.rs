//! Connection timers: a hierarchical wheel with one entry a connection.
//!
//! ```text
//!  arm(key, deadline) ──▶ level 4 ─▶ 3 ─▶ 2 ─▶ 1 ─▶ level 0 ──advance──▶ due keys
//!                         64 slots of 2²⁴ ms   …    64 slots of 1 ms
//! ```
//!
//! Keys are those of the slab of connections; entries lie in an array parallel to it and are doubly linked
//! within their slot, so arming, moving and disarming take constant time and no memory. An entry sits on the level of
//! the highest digit (base 64) in which its deadline differs from the wheel's time, and falls to a lower
//! one when the time reaches its slot: at most four times in its life. A bitmap a level names the occupied slots, so
//! hours of idling are skipped in one step.
//!
//! The owner re-arms lazily: a connection keeps its true deadline, calls [`TimerWheel::arm`] only when
//! that is earlier than [`TimerWheel::queued`], and when a key comes due too early arms it again. The worker owns the
//! wheel; it makes no syscall and reads no clock.

use crate::memory;

/// Bits of a level's digit: 64 slots, one word of occupancy.
const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;
/// Five levels of 64 slots of 1 ms span 2³⁰ ms, 12.4 days. Fewer: a day does not fit. More: nothing gains.
const LEVELS: usize = 5;

/// The furthest deadline, in ms from the wheel's time: short of a full turn by one slot of the top level, so
/// that a slot never holds entries of two turns. A later deadline comes due after this time.
pub const MAX_DELAY_MS: u64 = (1 << (BITS * LEVELS as u32)) - (1 << (BITS * (LEVELS as u32 - 1))) - 1;

const _: () = assert!(MAX_DELAY_MS > 24 * 3600 * 1000 && MAX_DELAY_MS < 1 << 31);

/// Entries moved down a level per key of the budget of [`TimerWheel::advance`]. An entry falls at most
/// `LEVELS - 1` times, so with less than that moving down could lag behind for ever.
const MOVES_PER_DUE: usize = LEVELS - 1;

/// `next` of an entry that is in no slot.
const NONE: u32 = u32::MAX;
/// A link with this bit names the anchor of a slot instead of a key.
const ANCHOR: u32 = 1 << 31;

#[derive(Clone, Copy)]
struct Links {
    next: u32,
    prev: u32,
}

/// 12 bytes a key.
#[derive(Clone, Copy)]
struct Entry {
    links: Links,
    /// The deadline's low 32 bits, in ms.
    deadline: u32,
}

const _: () = assert!(size_of::<Entry>() == 12);

/// Timers for keys below a fixed capacity, in ticks of 1 ms.
pub struct TimerWheel {
    /// Grows, within its reserved capacity, up to the highest key that was ever armed.
    entries: Vec<Entry>,
    capacity: u32,
    anchors: Box<[Links]>,
    occupied: [u64; LEVELS],
    /// All deadlines before this time have come due; entries are placed relative to it.
    elapsed: u64,
    len: u32,
}

impl TimerWheel {
    /// A wheel for keys `0..capacity` that starts at `now_ms`; 12 bytes a key, touched on first use.
    ///
    /// # Panics
    ///
    /// If `capacity` is 2³¹ or more, or the memory cannot be reserved: at start, not later.
    #[must_use]
    pub fn new(capacity: usize, now_ms: u64) -> Self {
        let keys = u32::try_from(capacity)
            .ok()
            .filter(|&n| n < ANCHOR)
            .expect("a timer wheel holds fewer than 2^31 keys");
        Self {
            entries: memory::reserve(capacity),
            capacity: keys,
            anchors: (0..(LEVELS * SLOTS) as u32)
                .map(|slot| Links { next: slot | ANCHOR, prev: slot | ANCHOR })
                .collect(),
            occupied: [0; LEVELS],
            elapsed: now_ms,
            len: 0,
        }
    }

    /// Keys that are queued.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether no key is queued.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The time at which `key` comes due, in ms; `None` when it is not queued. Differs from the deadline it was armed
    /// with when that had passed or lay beyond [`MAX_DELAY_MS`].
    #[must_use]
    pub fn queued(&self, key: u32) -> Option<u64> {
        self.entries.get(key as usize).filter(|e| e.links.next != NONE).map(|e| self.time_of(e))
    }

    fn time_of(&self, e: &Entry) -> u64 {
        self.elapsed + u64::from(e.deadline.wrapping_sub(self.elapsed as u32))
    }

    /// Has the entry of `key` fetched into the cache.
    #[inline]
    pub fn prefetch(&self, key: u32) {
        memory::prefetch(&self.entries, key as usize);
    }

    /// Queues `key` for `deadline_ms`, or moves it there.
    ///
    /// # Panics
    ///
    /// If `key` is not below the capacity: the owner's slab has the same capacity, so none is.
    pub fn arm(&mut self, key: u32, deadline_ms: u64) {
        assert!(key < self.capacity, "timer key {key} beyond the wheel's {}", self.capacity);
        if let Some(e) = self.entries.get(key as usize) {
            if e.links.next != NONE {
                self.unlink(key);
                self.len -= 1;
            }
        } else {
            let idle = Entry { links: Links { next: NONE, prev: NONE }, deadline: 0 };
            self.entries.resize(key as usize + 1, idle);
        }
        self.link(key, deadline_ms.clamp(self.elapsed, self.elapsed.saturating_add(MAX_DELAY_MS)));
        self.len += 1;
    }

    /// Queues `key` for `deadline_ms` unless it is queued for that time or an earlier one.
    pub fn arm_earlier(&mut self, key: u32, deadline_ms: u64) {
        if self.queued(key).is_none_or(|queued| deadline_ms < queued) {
            self.arm(key, deadline_ms);
        }
    }

    /// Takes `key` out; whether it was queued.
    pub fn disarm(&mut self, key: u32) -> bool {
        let queued = self.queued(key).is_some();
        if queued {
            self.unlink(key);
            self.len -= 1;
        }
        queued
    }

    /// Moves the wheel's time towards `now_ms` and appends the keys that come due, in order of their ms, to
    /// `due`; how many. Never more than `budget`, and no more steps than a small multiple of it: what is left
    /// comes with the next call, and [`next_due_ms`](Self::next_due_ms) says so.
    pub fn advance(&mut self, now_ms: u64, budget: usize, due: &mut Vec<u32>) -> usize {
        let mut popped = 0;
        let mut moves = budget.saturating_mul(MOVES_PER_DUE);
        while popped < budget && moves > 0 {
            let Some((level, slot, start)) = self.first_slot().filter(|s| s.2 <= now_ms) else {
                self.elapsed = self.elapsed.max(now_ms);
                break;
            };
            self.elapsed = start;
            let anchor = level * SLOTS + slot;
            loop {
                let key = self.anchors[anchor].next;
                if key & ANCHOR != 0 {
                    break;
                }
                if level == 0 {
                    if popped == budget {
                        break;
                    }
                    self.unlink(key);
                    self.len -= 1;
                    due.push(key);
                    popped += 1;
                } else {
                    if moves == 0 {
                        break;
                    }
                    let deadline = self.time_of(&self.entries[key as usize]);
                    self.unlink(key);
                    self.link(key, deadline);
                    moves -= 1;
                }
            }
        }
        popped
    }

    /// A time before which no key comes due, never earlier than `now_ms`; `None` when none is queued. The worker
    /// may sleep until then; it may find that nothing is due yet and sleep on, at most once a level.
    #[must_use]
    pub fn next_due_ms(&self, now_ms: u64) -> Option<u64> {
        self.first_slot().map(|(_, _, start)| start.max(now_ms))
    }

    /// As [`TimerWheel::next_due_ms`], but in the past when the wheel is behind.
    #[must_use]
    pub fn appointment_ms(&self) -> Option<u64> {
        self.first_slot().map(|(_, _, start)| start)
    }

    /// The occupied slot that comes first: level, slot, and the time at which it begins.
    fn first_slot(&self) -> Option<(usize, usize, u64)> {
        // Above level 0 the slot of the present time is empty, unless `advance` ran out of moves in it: then what it
        // still holds may be due before what has been moved down already.
        for level in (1..LEVELS).rev() {
            let slot = self.digit(level);
            if self.occupied[level] >> slot & 1 != 0 {
                return Some((level, slot, self.elapsed));
            }
        }
        // A lower level's slots all lie within the present slot of the level above, so they come first.
        let level = self.occupied.iter().position(|&o| o != 0)?;
        let now = self.digit(level);
        let ahead = self.occupied[level].rotate_right(now as u32).trailing_zeros();
        let shift = BITS * level as u32;
        let start = ((self.elapsed >> shift) + u64::from(ahead)) << shift;
        Some((level, (now + ahead as usize) % SLOTS, start))
    }

    /// The digit of the wheel's time at a level.
    fn digit(&self, level: usize) -> usize {
        (self.elapsed >> (BITS * level as u32)) as usize % SLOTS
    }

    fn links(&mut self, id: u32) -> &mut Links {
        if id & ANCHOR == 0 {
            &mut self.entries[id as usize].links
        } else {
            &mut self.anchors[(id & !ANCHOR) as usize]
        }
    }

    /// Puts a key that is in no slot at the end of the one for `deadline`, which lies within
    /// `elapsed..=elapsed + MAX_DELAY_MS`.
    fn link(&mut self, key: u32, deadline: u64) {
        let differing = (deadline ^ self.elapsed) | 1;
        // A turn of the top level shows as a difference above it.
        let level = ((differing.ilog2() / BITS) as usize).min(LEVELS - 1);
        let slot = (deadline >> (BITS * level as u32)) as usize % SLOTS;
        let anchor = (level * SLOTS + slot) as u32 | ANCHOR;
        let last = self.links(anchor).prev;
        self.entries[key as usize] =
            Entry { links: Links { next: anchor, prev: last }, deadline: deadline as u32 };
        self.links(last).next = key;
        self.links(anchor).prev = key;
        self.occupied[level] |= 1 << slot;
    }

    fn unlink(&mut self, key: u32) {
        let Links { next, prev } = self.entries[key as usize].links;
        self.links(prev).next = next;
        self.links(next).prev = prev;
        self.entries[key as usize].links = Links { next: NONE, prev: NONE };
        // Both neighbours are the anchor: the slot is empty now.
        if next == prev && next & ANCHOR != 0 {
            let slot = (next & !ANCHOR) as usize;
            self.occupied[slot / SLOTS] &= !(1 << (slot % SLOTS));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const HOUR: u64 = 3_600_000;

    fn drain(w: &mut TimerWheel, now: u64) -> Vec<u32> {
        let mut due = Vec::new();
        while w.advance(now, 1000, &mut due) > 0 {}
        due
    }

    #[test]
    fn keys_come_due_at_their_time_and_not_before() {
        let mut w = TimerWheel::new(8, 1_000_003);
        for (key, after) in [(0, 0), (1, 1), (2, 63), (3, 64), (4, 5000), (5, 26 * HOUR)] {
            w.arm(key, 1_000_003 + after);
        }
        assert_eq!(w.len(), 6);
        assert_eq!(drain(&mut w, 1_000_003), [0]);
        assert_eq!(drain(&mut w, 1_000_065), [1]);
        assert_eq!(drain(&mut w, 1_000_066), [2]);
        assert_eq!(drain(&mut w, 1_005_002), [3]);
        assert_eq!(drain(&mut w, 1_005_003), [4]);
        assert_eq!(w.queued(5), Some(1_000_003 + 26 * HOUR));
        assert_eq!(drain(&mut w, 1_000_003 + 26 * HOUR - 1), [0u32; 0]);
        assert_eq!(drain(&mut w, 1_000_003 + 26 * HOUR), [5]);
        assert!(w.is_empty());
    }

    #[test]
    fn an_idle_jump_of_hours_takes_few_steps_and_stays_within_the_budget() {
        let mut w = TimerWheel::new(100_000, 0);
        for key in 0..100_000 {
            w.arm(key, 1 + u64::from(key) * 100);
        }
        let mut due = Vec::new();
        let mut calls = 0;
        while !w.is_empty() {
            let n = w.advance(10 * HOUR, 64, &mut due);
            assert!(n <= 64);
            assert!(w.next_due_ms(10 * HOUR).is_none_or(|t| t == 10 * HOUR));
            calls += 1;
        }
        assert_eq!(due, (0..100_000).collect::<Vec<_>>());
        // Each call pops 64 or spends four moves a key, and a key falls four times at most.
        assert!(calls <= 2 * 100_000 / 64 + 2, "{calls} calls");
    }

    #[test]
    fn a_deadline_beyond_the_last_level_comes_due_early_and_can_be_armed_again() {
        let mut w = TimerWheel::new(1, 77);
        w.arm(0, u64::MAX);
        assert_eq!(w.queued(0), Some(77 + MAX_DELAY_MS));
        assert_eq!(drain(&mut w, 76 + MAX_DELAY_MS), [0u32; 0]);
        assert_eq!(drain(&mut w, 77 + MAX_DELAY_MS), [0]);
        assert_eq!(w.queued(0), None);
        w.arm(0, u64::MAX);
        assert_eq!(w.len(), 1);
    }

    #[test]
    fn time_that_stands_still_or_runs_back_changes_nothing() {
        let mut w = TimerWheel::new(2, 5000);
        w.arm(0, 4000);
        w.arm(1, 5010);
        assert_eq!(w.queued(0), Some(5000));
        assert_eq!(drain(&mut w, 4999), [0u32; 0]);
        assert_eq!(drain(&mut w, 5000), [0]);
        assert_eq!(drain(&mut w, 10), [0u32; 0]);
        assert_eq!(drain(&mut w, 5010), [1]);
    }

    #[derive(Clone, Debug)]
    enum Op {
        Arm(u32, u64),
        ArmEarlier(u32, u64),
        Disarm(u32),
        Advance(u64, usize),
    }

    fn delay() -> impl Strategy<Value = u64> {
        prop_oneof![0..3u64, 0..200u64, 0..10_000u64, 0..30 * HOUR, 0..2 * MAX_DELAY_MS]
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            5 => (0..40u32, delay()).prop_map(|(k, d)| Op::Arm(k, d)),
            1 => (0..40u32, delay()).prop_map(|(k, d)| Op::ArmEarlier(k, d)),
            1 => (0..40u32).prop_map(Op::Disarm),
            4 => (delay(), 0..20usize).prop_map(|(d, b)| Op::Advance(d, b)),
        ]
    }

    proptest! {
        /// Against a map of deadlines: nothing early, nothing lost, in order, within the budget; at any epoch.
        #[test]
        fn is_a_map_of_deadlines(
            start in prop_oneof![Just(0u64), Just((1u64 << 32) - 50), 0..1u64 << 40],
            ops in prop::collection::vec(op(), 1..120),
        ) {
            let mut w = TimerWheel::new(40, start);
            let mut model = BTreeMap::<u32, u64>::new();
            let mut now = start;
            for op in ops {
                match op {
                    Op::Arm(k, d) => {
                        w.arm(k, now + d);
                        // The wheel's own time may lag behind `now`, or cut a far deadline short.
                        let at = w.queued(k).unwrap();
                        prop_assert_eq!(at, (now + d).clamp(w.elapsed, w.elapsed + MAX_DELAY_MS));
                        model.insert(k, at);
                    }
                    Op::ArmEarlier(k, d) => {
                        let before = model.get(&k).copied();
                        w.arm_earlier(k, now + d);
                        let at = w.queued(k).unwrap();
                        prop_assert!(before.is_none_or(|b| at <= b));
                        model.insert(k, at);
                    }
                    Op::Disarm(k) => prop_assert_eq!(w.disarm(k), model.remove(&k).is_some()),
                    Op::Advance(d, budget) => {
                        now += d;
                        let mut due = Vec::new();
                        let n = w.advance(now, budget, &mut due);
                        prop_assert!(n == due.len() && n <= budget);
                        let mut last = 0;
                        for k in due {
                            let at = model.remove(&k).unwrap();
                            prop_assert!(at <= now && at >= last);
                            last = at;
                        }
                        // What was left behind must be no earlier than what came.
                        prop_assert!(model.values().all(|&at| at >= last));
                    }
                }
                prop_assert_eq!(w.len(), model.len());
                for k in 0..40 {
                    prop_assert_eq!(w.queued(k), model.get(&k).copied());
                }
                let earliest = model.values().min().copied();
                match (w.next_due_ms(now), earliest) {
                    (Some(t), Some(e)) => prop_assert!(t >= now && t <= e.max(now)),
                    (None, None) => {}
                    other => prop_assert!(false, "{other:?}"),
                }
            }
            // All that is due comes in the end, and with it everything.
            now += 2 * MAX_DELAY_MS;
            let mut due = Vec::new();
            for _ in 0..400 {
                w.advance(now, 3, &mut due);
            }
            due.sort_unstable();
            prop_assert_eq!(due, model.keys().copied().collect::<Vec<_>>());
        }
    }
}
