//! Which local end the next connection gets.
//!
//! Addresses and ports are gone through in a circle, so that an end is used again as late as can be. The ports are split
//! between the workers, each has every n-th: no two of them can use the same pair.

use crate::wire::{Addr, Endpoint};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// A worker's circle of local ends.
#[derive(Clone, Debug)]
pub struct Pairs {
    addresses: Arc<[Addr]>,
    first: u16,
    step: u16,
    /// Ports of this worker.
    ports: u32,
    next: u64,
    /// Ends in a row that could not be used.
    refused: u64,
    /// One of these can be used in a moment.
    soon: bool,
}

/// What the ends that were tried come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Circle {
    /// There are more to be tried.
    Open,
    /// It was gone round, and some will be free in a moment.
    Soon,
    /// It was gone round, and none will.
    Exhausted,
}

impl Pairs {
    /// The share of `worker` of so many; `None` when it has no end at all.
    #[must_use]
    pub fn new(
        addresses: &Arc<[Addr]>,
        ports: &RangeInclusive<u16>,
        worker: usize,
        workers: usize,
    ) -> Option<Self> {
        let step = u16::try_from(workers).ok().filter(|&n| n > 0)?;
        let first = u16::try_from(worker).ok().filter(|&n| n < step)?.checked_add(*ports.start())?;
        if first == 0 || first > *ports.end() || addresses.is_empty() {
            return None;
        }
        let ports = u32::from((ports.end() - first) / step) + 1;
        Some(Self { addresses: Arc::clone(addresses), first, step, ports, next: 0, refused: 0, soon: false })
    }

    /// How many ends there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.addresses.len() as u64 * u64::from(self.ports)
    }

    /// The next end to be tried. The address changes first: that spreads flows over the queues of a peer.
    pub fn draw(&mut self) -> Endpoint {
        let n = self.addresses.len() as u64;
        // Both lie within what `count` says: addresses fit usize, ports u16.
        let (address, port) = ((self.next % n) as usize, (self.next / n) as u16);
        self.next = (self.next + 1) % self.count();
        Endpoint::new(self.addresses[address], self.first + port * self.step)
    }

    /// The end that was given last could be used.
    pub fn taken(&mut self) {
        self.refused = 0;
        self.soon = false;
    }

    /// The end that was given last cannot be used; `soon` says that it can be in a moment.
    pub fn in_use(&mut self, soon: bool) {
        self.refused += 1;
        self.soon |= soon;
    }

    /// Whether the circle was gone round without one that can be used; if some can be soon, it begins anew.
    pub fn circle(&mut self) -> Circle {
        if self.refused < self.count() {
            return Circle::Open;
        }
        if self.soon {
            self.taken();
            return Circle::Soon;
        }
        Circle::Exhausted
    }
}

/// The first `most` addresses of a network that a host can have, in order; all bits above `prefix_len` are the network's.
/// The network's own address and the broadcast address are left out where the network has them.
#[must_use]
pub fn addresses(net: IpAddr, prefix_len: u8, most: usize) -> Arc<[Addr]> {
    let (bits, base) = match net {
        IpAddr::V4(a) => (32, u128::from(a.to_bits())),
        IpAddr::V6(a) => (128, a.to_bits()),
    };
    let host_bits = bits - u32::from(prefix_len).min(bits);
    let mask = if host_bits == 128 { u128::MAX } else { (1 << host_bits) - 1 };
    let base = base & !mask;
    let last = base | mask;
    let (first, last) = match (net, host_bits) {
        (_, 0) | (IpAddr::V4(_), 1) => (base, last),
        (IpAddr::V4(_), _) => (base + 1, last - 1),
        // The subnet-router anycast address (RFC 4291 §2.6.1) is no host's.
        (IpAddr::V6(_), _) => (base + 1, last),
    };
    let count = (last - first).saturating_add(1).min(most as u128);
    (0..count)
        .map(|i| match net {
            IpAddr::V4(_) => Addr::v4(((first + i) as u32).to_be_bytes()),
            IpAddr::V6(_) => Addr::v6((first + i).to_be_bytes()),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{HashSet, VecDeque};

    fn net(text: &str, most: usize) -> Vec<String> {
        let (ip, len) = text.split_once('/').unwrap();
        addresses(ip.parse().unwrap(), len.parse().unwrap(), most).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_network_gives_its_hosts_and_neither_its_own_address_nor_the_broadcast() {
        assert_eq!(net("10.1.2.7/30", 9), ["10.1.2.5", "10.1.2.6"]);
        assert_eq!(net("10.1.2.7/32", 9), ["10.1.2.7"]);
        assert_eq!(net("10.1.2.7/31", 9), ["10.1.2.6", "10.1.2.7"]);
        assert_eq!(net("10.1.0.0/16", 3), ["10.1.0.1", "10.1.0.2", "10.1.0.3"]);
        assert_eq!(net("0.0.0.0/0", 1), ["0.0.0.1"]);
        assert_eq!(net("fd00::/64", 2), ["fd00::1", "fd00::2"]);
        assert_eq!(net("fd00::9/128", 2), ["fd00::9"]);
        assert_eq!(net("::/0", 1), ["::1"]);
    }

    #[test]
    fn workers_without_a_port_have_no_share() {
        let all: Arc<[Addr]> = addresses("10.0.0.1".parse().unwrap(), 32, 1);
        assert!(Pairs::new(&all, &(5..=6), 2, 3).is_none());
        assert!(Pairs::new(&all, &(5..=6), 1, 2).is_some());
        assert!(Pairs::new(&all, &(0..=6), 0, 1).is_none(), "port 0");
        assert!(Pairs::new(&all, &(65_535..=65_535), 1, 2).is_none());
        assert!(Pairs::new(&Arc::from([]), &(5..=6), 0, 1).is_none());
    }

    #[test]
    fn a_circle_is_exhausted_only_when_none_of_it_will_be_free_soon() {
        let mut p = Pairs::new(&addresses("10.0.0.1".parse().unwrap(), 32, 1), &(5..=6), 0, 1).unwrap();
        assert_eq!(p.circle(), Circle::Open);
        p.in_use(true);
        p.in_use(false);
        assert_eq!((p.circle(), p.circle()), (Circle::Soon, Circle::Open), "it begins anew");
        p.in_use(false);
        p.in_use(false);
        assert_eq!((p.circle(), p.circle()), (Circle::Exhausted, Circle::Exhausted));
        p.taken();
        assert_eq!(p.circle(), Circle::Open);
    }

    proptest! {
        /// Against a table of what is in use, as the shard has it.
        #[test]
        fn no_pair_is_given_twice_while_it_is_in_use_and_none_is_missed(
            hosts in 1usize..5,
            first in 1u16..=65_000,
            count in 1u16..40,
            workers in 1usize..4,
            steps in prop::collection::vec(any::<(bool, u8)>(), 1..300),
        ) {
            let all = addresses("10.9.0.0".parse().unwrap(), 24, hosts);
            let ports = first..=first + count - 1;
            let shares = (0..workers).filter_map(|w| Pairs::new(&all, &ports, w, workers));
            let mut shares: Vec<Pairs> = shares.collect();
            let total: u64 = shares.iter().map(Pairs::count).sum();
            prop_assert_eq!(total, hosts as u64 * u64::from(count));
            let mut used: VecDeque<(usize, Endpoint)> = VecDeque::new();
            let mut set = HashSet::new();
            for (open, which) in steps {
                let w = usize::from(which) % shares.len();
                if !open {
                    if let Some((_, e)) = used.pop_front() { set.remove(&e); }
                    continue;
                }
                let share = &mut shares[w];
                let mine = used.iter().filter(|(owner, _)| *owner == w).count() as u64;
                let mut got = None;
                share.taken();
                while got.is_none() && share.circle() == Circle::Open {
                    let e = share.draw();
                    if set.contains(&e) { share.in_use(false); } else { share.taken(); got = Some(e); }
                }
                prop_assert_eq!(got.is_some(), mine < share.count(), "one is found whenever one is free");
                if let Some(e) = got {
                    prop_assert!(ports.contains(&e.port) && all.contains(&e.addr));
                    prop_assert!(set.insert(e), "{} is in use at another worker", e);
                    used.push_back((w, e));
                }
            }
        }
    }
}
