//! Which listener a SYN is for.

use crate::wire::{Endpoint, Tuple};
use hashbrown::HashMap;
use siphasher::sip::SipHasher13;
use std::hash::BuildHasherDefault;

type Map<K> = HashMap<K, u16, BuildHasherDefault<SipHasher13>>;

/// Listeners by exact endpoint, else by port on any address of the family.
#[derive(Debug, Default)]
pub struct Listeners {
    exact: Map<Endpoint>,
    any: Map<(bool, u16)>,
    count: u16,
}

impl Listeners {
    /// Adds an endpoint of a listener; the unspecified address stands for all addresses of its family.
    pub fn add(&mut self, endpoint: Endpoint, listener: u16) {
        if endpoint.addr.to_ip().is_unspecified() {
            self.any.insert((endpoint.addr.is_v4(), endpoint.port), listener);
        } else {
            self.exact.insert(endpoint, listener);
        }
        self.count = self.count.max(listener + 1);
    }

    /// The listener for a segment to this end.
    #[must_use]
    pub fn find(&self, tuple: &Tuple) -> Option<u16> {
        self.exact
            .get(&tuple.local)
            .or_else(|| self.any.get(&(tuple.local.addr.is_v4(), tuple.local.port)))
            .copied()
    }

    /// How many listeners there are.
    #[must_use]
    pub const fn count(&self) -> u16 {
        self.count
    }
}
