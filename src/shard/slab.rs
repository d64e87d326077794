//! A table of records of one kind, of fixed capacity, by number.
//!
//! The worker owns one for each kind of record. All memory is reserved at construction but touched only as
//! records are first used, so a table sized for the worst day costs nothing on others. A number that was freed last
//! is used first: its memory is likeliest to be in the cache.
//!
//! The free list runs through the free records themselves. Where `T` has a niche (a field that is an enum, a `bool`
//! or a `NonZero`) that leaves room for a `u32` beside it, a record takes no more than `size_of::<T>()`.

use crate::memory;

/// No number: the end of the free list.
const NONE: u32 = u32::MAX;

enum Slot<T> {
    Free(u32),
    Used(T),
}

/// Up to `capacity` values of `T`, by `u32` numbers below it.
pub struct Slab<T> {
    /// Grows within its reserved capacity.
    slots: Vec<Slot<T>>,
    capacity: u32,
    free: u32,
    len: u32,
}

impl<T> Slab<T> {
    /// Bytes a record takes.
    pub const RECORD_BYTES: usize = size_of::<Slot<T>>();

    /// An empty table of `capacity` records of [`RECORD_BYTES`](Self::RECORD_BYTES).
    ///
    /// # Panics
    ///
    /// If `capacity` does not fit in the numbers (2³² − 1) or the memory cannot be reserved: at start, not later.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let records = u32::try_from(capacity)
            .ok()
            .filter(|&n| n < NONE)
            .expect("a table holds fewer than 2^32 - 1 records");
        Self { slots: memory::reserve(capacity), capacity: records, free: NONE, len: 0 }
    }

    /// Values held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether none is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether no further one can be held.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.len == self.capacity
    }

    /// Values that can be held.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity as usize
    }

    /// Numbers that have been used so far are below this one.
    #[must_use]
    pub fn touched(&self) -> u32 {
        self.slots.len() as u32
    }

    /// Keeps a value and names it; `None` when the table is full, and the value is dropped.
    #[must_use]
    pub fn insert(&mut self, value: T) -> Option<u32> {
        self.insert_with(|| value)
    }

    /// As [`insert`](Self::insert), of a value that is made in its place if there is room.
    #[inline]
    #[must_use]
    pub fn insert_with(&mut self, make: impl FnOnce() -> T) -> Option<u32> {
        let key = if self.free == NONE {
            let key = self.slots.len() as u32;
            if key >= self.capacity {
                return None;
            }
            self.slots.push(Slot::Used(make()));
            key
        } else {
            let key = self.free;
            let slot = &mut self.slots[key as usize];
            if let Slot::Free(next) = *slot {
                self.free = next;
            }
            *slot = Slot::Used(make());
            key
        };
        self.len += 1;
        Some(key)
    }

    /// Gives a value back; `None` when there is none of that number.
    #[inline]
    pub fn remove(&mut self, key: u32) -> Option<T> {
        let slot = self.slots.get_mut(key as usize).filter(|s| matches!(s, Slot::Used(_)))?;
        let Slot::Used(value) = std::mem::replace(slot, Slot::Free(self.free)) else {
            return None;
        };
        self.free = key;
        self.len -= 1;
        Some(value)
    }

    /// The value of a number.
    #[must_use]
    pub fn get(&self, key: u32) -> Option<&T> {
        match self.slots.get(key as usize) {
            Some(Slot::Used(value)) => Some(value),
            Some(Slot::Free(_)) | None => None,
        }
    }

    /// Has the record of a number fetched into the cache.
    #[inline]
    pub fn prefetch(&self, key: u32) {
        for line in 0..size_of::<Slot<T>>().div_ceil(64) {
            memory::prefetch_part(&self.slots, key as usize, 64 * line);
        }
    }

    /// The value of a number, to change it.
    #[must_use]
    pub fn get_mut(&mut self, key: u32) -> Option<&mut T> {
        match self.slots.get_mut(key as usize) {
            Some(Slot::Used(value)) => Some(value),
            Some(Slot::Free(_)) | None => None,
        }
    }

    /// The first number from `from` on that is in use.
    #[must_use]
    pub fn next_key(&self, from: u32) -> Option<u32> {
        let slots = self.slots.get(from as usize..)?;
        let at = slots.iter().position(|s| matches!(s, Slot::Used(_)))?;
        Some(from + at as u32)
    }

    /// A page of a listing: what is held of the `max` numbers from `from` on, and the number at which the next page
    /// begins, `None` after the last. Bounded by the numbers looked at, not by those found, so that a sparse
    /// table stalls nobody. A value that stays is seen exactly once over all pages.
    pub fn scan(&self, from: u32, max: usize) -> (impl Iterator<Item = (u32, &T)>, Option<u32>) {
        let first = (from as usize).min(self.slots.len());
        let end = first.saturating_add(max).min(self.slots.len());
        let page = (from..).zip(&self.slots[first..end]).filter_map(|(key, slot)| match slot {
            Slot::Used(value) => Some((key, value)),
            Slot::Free(_) => None,
        });
        (page, (end < self.slots.len()).then_some(end as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_record_with_a_niche_takes_no_more_than_its_own_size() {
        struct Record {
            _words: [u32; 6],
            _short: u16,
            _v6: bool,
        }
        assert_eq!(size_of::<Record>(), 28);
        assert_eq!(Slab::<Record>::RECORD_BYTES, 28);
    }

    #[test]
    fn a_full_table_says_so_and_the_number_freed_last_is_used_first() {
        let mut s = Slab::new(3);
        assert_eq!([s.insert('a'), s.insert('b'), s.insert('c')], [Some(0), Some(1), Some(2)]);
        assert!(s.is_full());
        assert_eq!(s.insert('d'), None);
        assert_eq!(s.remove(0), Some('a'));
        assert_eq!(s.remove(2), Some('c'));
        assert_eq!(s.remove(2), None);
        assert_eq!([s.insert('e'), s.insert('f')], [Some(2), Some(0)]);
        assert_eq!(s.get(99), None);
        assert_eq!(s.remove(99), None);
    }

    #[derive(Clone, Debug)]
    enum Op {
        Insert(u16),
        Remove(u32),
        Change(u32, u16),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => any::<u16>().prop_map(Op::Insert),
            3 => (0..40u32).prop_map(Op::Remove),
            1 => (0..40u32, any::<u16>()).prop_map(|(k, v)| Op::Change(k, v)),
        ]
    }

    proptest! {
        #[test]
        fn is_a_map(ops in prop::collection::vec(op(), 1..200), page in 1..12usize) {
            let mut s = Slab::new(30);
            let reserved = s.slots.capacity();
            let mut model = BTreeMap::new();
            for op in ops {
                match op {
                    Op::Insert(v) => {
                        let key = s.insert(v);
                        prop_assert_eq!(key.is_none(), model.len() == 30);
                        if let Some(key) = key {
                            prop_assert!(key < 30);
                            prop_assert_eq!(model.insert(key, v), None);
                        }
                    }
                    Op::Remove(k) => prop_assert_eq!(s.remove(k), model.remove(&k)),
                    Op::Change(k, v) => {
                        prop_assert_eq!(s.get_mut(k).is_some(), model.contains_key(&k));
                        if let Some(value) = s.get_mut(k) {
                            *value = v;
                            model.insert(k, v);
                        }
                    }
                }
                prop_assert_eq!(s.len(), model.len());
                for k in 0..40 {
                    prop_assert_eq!(s.get(k), model.get(&k));
                }
            }
            let keys = std::iter::successors(s.next_key(0), |&k| s.next_key(k + 1));
            prop_assert_eq!(keys.collect::<Vec<_>>(), model.keys().copied().collect::<Vec<_>>());
            let mut seen = Vec::new();
            let mut from = Some(0);
            while let Some(at) = from {
                let (items, next) = s.scan(at, page);
                seen.extend(items.map(|(k, v)| (k, *v)));
                prop_assert!(next.is_none_or(|n| n > at));
                from = next;
            }
            prop_assert_eq!(seen, model.into_iter().collect::<Vec<_>>());
            prop_assert_eq!(s.slots.capacity(), reserved);
            prop_assert_eq!(s.scan(u32::MAX, usize::MAX).0.count(), 0);
        }
    }
}
