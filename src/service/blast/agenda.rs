//! Connections by the time they are to be looked at, in the order in which they were put there.
//!
//! Every connection in one list waits for the same length of time, so the list is in order by itself; it is linked
//! through the entries, so that one that ends takes itself out at once and nothing is left behind.

/// Links of an entry: words of the neighbours, 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Links {
    prev: u32,
    next: u32,
}

/// A list, by its ends: words, 0 for none.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct List {
    head: u32,
    tail: u32,
}

/// Where the entries lie.
pub(super) trait Entries {
    /// The links of an entry.
    fn links(&mut self, word: u32) -> Option<&mut Links>;
}

impl List {
    /// The entry that was put there first, 0 for none.
    pub(super) const fn first(self) -> u32 {
        self.head
    }

    /// Puts an entry, which is in no list, at the end.
    pub(super) fn append(&mut self, entries: &mut impl Entries, word: u32) {
        let Some(links) = entries.links(word) else { return };
        *links = Links { prev: self.tail, next: 0 };
        match entries.links(self.tail) {
            Some(last) => last.next = word,
            None => self.head = word,
        }
        self.tail = word;
    }

    /// Takes an entry of this list out.
    pub(super) fn remove(&mut self, entries: &mut impl Entries, word: u32) {
        let Some(links) = entries.links(word) else { return };
        let Links { prev, next } = std::mem::take(links);
        match entries.links(prev) {
            Some(before) => before.next = next,
            None => self.head = next,
        }
        match entries.links(next) {
            Some(after) => after.prev = prev,
            None => self.tail = prev,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Room(Vec<Links>);

    impl Entries for Room {
        fn links(&mut self, word: u32) -> Option<&mut Links> {
            self.0.get_mut(word.checked_sub(1)? as usize)
        }
    }

    fn listed(list: List, room: &mut Room) -> Vec<u32> {
        let mut out = Vec::new();
        let mut at = list.first();
        while at != 0 {
            out.push(at);
            at = room.links(at).unwrap().next;
        }
        out
    }

    proptest! {
        #[test]
        fn a_list_is_what_a_vector_would_be(steps in prop::collection::vec(1u32..12, 0..100)) {
            let mut room = Room(vec![Links::default(); 12]);
            let (mut list, mut want) = (List::default(), Vec::new());
            for word in steps {
                if let Some(at) = want.iter().position(|&w| w == word) {
                    want.remove(at);
                    list.remove(&mut room, word);
                } else {
                    want.push(word);
                    list.append(&mut room, word);
                }
                prop_assert_eq!(&listed(list, &mut room), &want);
                prop_assert_eq!(list.tail, want.last().copied().unwrap_or(0));
            }
        }
    }
}
