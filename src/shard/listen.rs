//! Which listener a SYN is for.

use crate::wire::{Endpoint, Tuple};

/// Listeners by exact endpoint, else by port on any address of the family. Both lists are sorted: they are short, written at
/// start only, and a search in one is over before a hash would be made.
#[derive(Debug, Default)]
pub struct Listeners {
    exact: Vec<(Endpoint, u16)>,
    any: Vec<((bool, u16), u16)>,
    count: u16,
}

/// Puts a listener in its place; an earlier one of the same key gives way.
fn put<K: Ord>(list: &mut Vec<(K, u16)>, key: K, listener: u16) {
    match list.binary_search_by(|(k, _)| k.cmp(&key)) {
        Ok(at) => list[at].1 = listener,
        Err(at) => list.insert(at, (key, listener)),
    }
}

fn get<K: Ord>(list: &[(K, u16)], key: &K) -> Option<u16> {
    list.binary_search_by(|(k, _)| k.cmp(key)).ok().map(|at| list[at].1)
}

impl Listeners {
    /// Adds an endpoint of a listener; the unspecified address stands for all addresses of its family.
    pub fn add(&mut self, endpoint: Endpoint, listener: u16) {
        if endpoint.addr.to_ip().is_unspecified() {
            put(&mut self.any, (endpoint.addr.is_v4(), endpoint.port), listener);
        } else {
            put(&mut self.exact, endpoint, listener);
        }
        self.count = self.count.max(listener + 1);
    }

    /// The listener for a segment to this end.
    #[must_use]
    pub fn find(&self, tuple: &Tuple) -> Option<u16> {
        get(&self.exact, &tuple.local)
            .or_else(|| get(&self.any, &(tuple.local.addr.is_v4(), tuple.local.port)))
    }

    /// How many listeners there are.
    #[must_use]
    pub const fn count(&self) -> u16 {
        self.count
    }
}
