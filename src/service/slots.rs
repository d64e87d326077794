//! State per connection in a bounded slab, named by the connection's `user` word.

use slab::Slab;

/// A slab that never grows beyond what it was made with. The word of an entry is never 0, which stands for "none".
pub(crate) struct Slots<T> {
    slab: Slab<T>,
    limit: usize,
}

impl<T> Slots<T> {
    /// Room for `limit` entries, allocated now.
    pub(crate) fn new(limit: usize) -> Self {
        let limit = limit.min(u32::MAX as usize - 1);
        Self { slab: Slab::with_capacity(limit), limit }
    }

    /// Stores a value and returns its word; gives the value back when all slots are taken.
    pub(crate) fn insert(&mut self, value: T) -> Result<u32, T> {
        if self.slab.len() >= self.limit {
            return Err(value);
        }
        Ok(self.slab.insert(value) as u32 + 1)
    }

    /// The entry of a word.
    pub(crate) fn get_mut(&mut self, word: u32) -> Option<&mut T> {
        self.slab.get_mut(Self::key(word)?)
    }

    /// Takes the entry of a word out.
    pub(crate) fn remove(&mut self, word: u32) -> Option<T> {
        self.slab.try_remove(Self::key(word)?)
    }

    /// Entries in use.
    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }

    fn key(word: u32) -> Option<usize> {
        word.checked_sub(1).map(|k| k as usize)
    }
}
