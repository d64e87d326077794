//! Opening connections from here: which local end a worker gives a new one.
//!
//! The range of local ports is split between the workers, each has every n-th: no two workers can give out the same
//! pair, and any worker can tell from a port whose connection it is ([`PortRange::owner`]). A worker goes round its
//! share, so that a pair is used again as late as can be, and steps over what is still in `TIME_WAIT` to the same remote
//! end.

use super::Shard;
use super::tables::Found;
use crate::drop::DropReason;
use crate::port::Port;
use crate::tcp::conn::ActiveOpen;
use crate::wire::{Addr, Endpoint, L2, Tuple};
use std::net::IpAddr;
use std::ops::RangeInclusive;

/// Most ports tried for one connection. A share with so many pairs in a row taken is as good as used up; looking further
/// would hold up the turn.
const TRIES: u16 = 64;

/// A connection to be opened by whichever worker is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outbound {
    /// The peer's end.
    pub remote: Endpoint,
    /// Link layer of what we send.
    pub l2: L2,
    /// The service's word.
    pub user: u32,
}

/// Local ports, split between workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    first: u16,
    /// Ports there are, 65,535 at most.
    count: u16,
    workers: u16,
}

impl PortRange {
    /// A range for so many workers; `None` when it gives not each of them a port, or contains port 0.
    #[must_use]
    pub fn new(ports: &RangeInclusive<u16>, workers: usize) -> Option<Self> {
        let (first, last) = (*ports.start(), *ports.end());
        let workers = u16::try_from(workers).ok().filter(|&w| w > 0)?;
        if first == 0 || last < first {
            return None;
        }
        // From port 1 on there are 65,535 at most.
        let count = last - first + 1;
        (count >= workers).then_some(Self { first, count, workers })
    }

    /// Whose port it is; `None` when it is not in the range.
    #[must_use]
    pub fn owner(self, port: u16) -> Option<usize> {
        let at = port.checked_sub(self.first).filter(|&at| at < self.count)?;
        Some(usize::from(at % self.workers))
    }

    /// How many ports a worker has.
    const fn share(self, worker: u16) -> u16 {
        (self.count - worker).div_ceil(self.workers)
    }
}

/// The local ends that one worker may use.
#[derive(Clone, Debug)]
pub struct LocalEnds {
    v4: Option<Addr>,
    v6: Option<Addr>,
    range: PortRange,
    worker: u16,
    /// Number of the next port to be tried, within the share.
    next: u16,
}

impl LocalEnds {
    /// The share of `worker`. Of each IP version the first address is used.
    ///
    /// # Panics
    /// When the range was made for fewer workers.
    #[must_use]
    pub fn new(addresses: &[IpAddr], range: PortRange, worker: usize) -> Self {
        assert!(worker < usize::from(range.workers), "worker {worker} of {}", range.workers);
        let first = |v4| addresses.iter().map(|&a| Addr::from(a)).find(|a| a.is_v4() == v4);
        // Less than `workers`, which is 16 bits.
        Self { v4: first(true), v6: first(false), range, worker: worker as u16, next: 0 }
    }

    /// Ports to be tried for one connection: each of the share once at most.
    fn tries(&self) -> u16 {
        self.range.share(self.worker).min(TRIES)
    }

    /// The next local end towards a remote one; `None` without an address of its IP version.
    fn next(&mut self, remote: &Endpoint) -> Option<Endpoint> {
        let addr = if remote.addr.is_v4() { self.v4 } else { self.v6 }?;
        let at = self.worker + self.next * self.range.workers;
        self.next = (self.next + 1) % self.range.share(self.worker);
        Some(Endpoint::new(addr, self.range.first + at))
    }
}

impl<P: Port> Shard<P> {
    /// Lets connections be opened from these ends, for the service that was given as the client's.
    pub fn set_local_ends(&mut self, ends: LocalEnds) {
        self.local_ends = Some(ends);
    }

    /// Opens a connection from the next local end that is free. Returns its name; `None` when there is no such end, or
    /// no room.
    pub fn open(&mut self, out: &Outbound) -> Option<Tuple> {
        let service = self.client_service();
        for _ in 0..self.local_ends.as_ref()?.tries() {
            let local = self.local_ends.as_mut()?.next(&out.remote)?;
            let tuple = Tuple { local, remote: out.remote };
            let tables = &self.core.tables;
            if tables.conns.is_full() {
                return None;
            }
            if tables.find(tables.hash(&tuple), &tuple) != Found::Nothing {
                continue;
            }
            let open = ActiveOpen { tuple, l2: out.l2, service, user: out.user };
            return self.connect(&open).then_some(tuple);
        }
        None
    }

    /// A command to open a connection: the service hears of it when that cannot be.
    pub(super) fn open_or_tell(&mut self, out: &Outbound) {
        if self.open(out).is_some() {
            return;
        }
        self.core.block.counters.drop_frame(DropReason::ConnTableFull);
        let client = self.client_service();
        if let Some(service) = self.core.services.get_mut(usize::from(client)) {
            service.not_begun(out.remote, out.user);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn remote() -> Endpoint {
        Endpoint::new(Addr::v4([10, 0, 0, 1]), 80)
    }

    #[test]
    fn every_port_is_in_exactly_one_share_and_comes_once_a_round() {
        for (ports, workers) in [(40_000..=40_006, 3), (1..=65_535, 2), (7..=7, 1), (65_530..=65_535, 4)] {
            let range = PortRange::new(&ports, workers).unwrap();
            let mut seen = HashSet::new();
            for worker in 0..workers {
                let mut ends = LocalEnds::new(&["10.0.0.9".parse().unwrap()], range, worker);
                for _ in 0..range.share(worker as u16) {
                    let port = ends.next(&remote()).unwrap().port;
                    assert_eq!(range.owner(port), Some(worker), "port {port} of {ports:?}");
                    assert!(seen.insert(port), "port {port} of {ports:?} twice");
                }
            }
            assert_eq!(seen.len(), ports.clone().count(), "{ports:?}");
            assert!(seen.iter().all(|p| ports.contains(p)), "{ports:?}");
        }
    }

    #[test]
    fn ports_outside_have_no_owner() {
        let range = PortRange::new(&(100..=199), 2).unwrap();
        assert_eq!([99, 100, 199, 200].map(|p| range.owner(p)), [None, Some(0), Some(1), None]);
    }

    #[test]
    fn a_range_that_cannot_be_is_none() {
        #[expect(clippy::reversed_empty_ranges)]
        let reversed = 9..=8;
        for (ports, workers) in [(0..=9, 1), (reversed, 1), (8..=9, 3), (8..=9, 0), (8..=9, 1 << 17)] {
            assert_eq!(PortRange::new(&ports, workers), None, "{ports:?} for {workers}");
        }
    }

    #[test]
    fn an_ip_version_without_address_has_no_end() {
        let range = PortRange::new(&(100..=199), 1).unwrap();
        let mut ends = LocalEnds::new(&["fd00::1".parse().unwrap()], range, 0);
        assert_eq!(ends.next(&remote()), None);
        assert!(ends.next(&Endpoint::new(Addr::v6([0xfd; 16]), 80)).is_some());
    }
}
