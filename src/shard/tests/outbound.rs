//! Connections opened from a worker's share of the local ports.

use crate::port::mem::{Impairment, LinkConfig};
use crate::service::discard::Discard;
use crate::service::{Context, Service};
use crate::shard::outbound::{LocalEnds, Outbound, PortRange};
use crate::shard::{Capacity, Listener};
use crate::sim::world::{CLIENT_MAC, SERVER_MAC, World, WorldConfig, tuple};
use crate::tcp::TcpConfig;
use crate::tcp::record::CloseRecord;
use crate::wire::{Endpoint, L2, Tuple};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

/// What the client's service was told, with the word it was told for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Opened(u32),
    Closed(u32),
    NotBegun(u32),
}

/// Closes as soon as it is open, so that `TIME_WAIT` is on this side.
struct CloseAtOnce(Rc<RefCell<Vec<Told>>>);

impl Service for CloseAtOnce {
    fn opened(&mut self, cx: &mut dyn Context) {
        self.0.borrow_mut().push(Told::Opened(cx.user()));
        cx.close();
    }
    fn data(&mut self, _: &mut dyn Context, bytes: &[u8]) -> usize {
        bytes.len()
    }
    fn peer_closed(&mut self, _: &mut dyn Context) {}
    fn not_begun(&mut self, _: Endpoint, user: u32) {
        self.0.borrow_mut().push(Told::NotBegun(user));
    }
    fn closed(&mut self, _: &Tuple, user: u32, _: &CloseRecord) {
        self.0.borrow_mut().push(Told::Closed(user));
    }
}

/// A world whose client has three ports.
fn world() -> (World, Rc<RefCell<Vec<Told>>>) {
    let told = Rc::new(RefCell::new(Vec::new()));
    let server = tuple(0, 9, false).remote;
    let cfg = WorldConfig {
        link: LinkConfig::default().both(Impairment::delayed(Duration::from_millis(1))),
        workers: 1,
        server: TcpConfig::default(),
        client: TcpConfig::default(),
        capacity: Capacity { connections: 8, half_open: 8, time_wait: 8, chunks: 64 },
        key: 1,
    };
    let listeners = || vec![Listener { endpoints: vec![server], service: Box::new(Discard) }];
    let mut world = World::new(cfg, listeners, Box::new(CloseAtOnce(Rc::clone(&told))));
    let range = PortRange::new(&(5000..=5002), 1).expect("three ports for one worker");
    world.client.set_local_ends(LocalEnds::new(&[tuple(0, 9, false).local.addr.to_ip()], range, 0));
    (world, told)
}

fn out(user: u32) -> Outbound {
    let l2 = L2 { src: CLIENT_MAC, dst: SERVER_MAC, vlan: None };
    Outbound { remote: tuple(0, 9, false).remote, l2, user }
}

#[test]
fn a_pair_in_time_wait_is_stepped_over_until_it_is_free_again() {
    let (mut w, told) = world();
    for port in [5000, 5001] {
        assert_eq!(w.client.open(&out(1)).map(|t| t.local.port), Some(port));
    }
    w.run(Duration::from_secs(5), |_| told.borrow().len() == 4).expect("the ports work");
    assert_eq!(w.client.records(), 2, "both pairs are held");
    let next: Vec<_> = (0..2).map(|_| w.client.open(&out(1)).map(|t| t.local.port)).collect();
    assert_eq!(next, [Some(5002), None], "what is held is not given out");
    w.run(Duration::from_secs(120), |w| w.client.records() == 0).expect("the ports work");
    assert_eq!(w.client.open(&out(1)).map(|t| t.local.port), Some(5000), "all are free");
}

#[test]
fn the_service_is_told_what_cannot_be_begun_and_of_nothing_else() {
    let (mut w, told) = world();
    for user in 1..=5 {
        w.client.open_or_tell(&out(user));
    }
    w.run(Duration::from_secs(120), |w| w.client.records() == 0).expect("the ports work");
    let mut told = told.borrow().clone();
    let of = |t: &Told| match *t {
        Told::Opened(user) | Told::Closed(user) | Told::NotBegun(user) => user,
    };
    told.sort_by_key(of);
    let expected: Vec<_> = (1..=3).flat_map(|n| [Told::Opened(n), Told::Closed(n)]).collect();
    assert_eq!(told, [&expected[..], &[Told::NotBegun(4), Told::NotBegun(5)]].concat());
}
