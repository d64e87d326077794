//! Which listener a SYN is for.

use super::filter::covers;
use crate::wire::{Endpoint, Tuple};
use hashbrown::HashMap;
/// Listeners by exact endpoint, else by port on any address of the family.
#[derive(Clone, Debug, Default)]
pub struct Listeners {
    exact: HashMap<Endpoint, u16>,
    any: HashMap<(bool, u16), u16>,
    /// Ends that are still claimed from the kernel for connections of listeners that are gone. Few, and looked at for SYNs
    /// that nobody listens for.
    retired: Vec<Endpoint>,
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
    }

    /// Says how many listeners there are.
    pub fn set_count(&mut self, count: u16) {
        self.count = count;
    }

    /// Says at which ends SYNs are dropped until the kernel has them back.
    pub fn set_retired(&mut self, ends: Vec<Endpoint>) {
        self.retired = ends;
    }

    /// The listener for a segment to this end.
    #[must_use]
    pub fn find(&self, tuple: &Tuple) -> Option<u16> {
        self.exact
            .get(&tuple.local)
            .or_else(|| self.any.get(&(tuple.local.addr.is_v4(), tuple.local.port)))
            .copied()
    }

    /// Whether a listener was here whose connections have not all ended.
    #[must_use]
    pub fn is_retired(&self, tuple: &Tuple) -> bool {
        self.retired.iter().any(|e| covers(e, &tuple.local))
    }

    /// How many listeners there are.
    #[must_use]
    pub const fn count(&self) -> u16 {
        self.count
    }
}
