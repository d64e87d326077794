//! Plans of every target and closing order between whole shards, over lines with faults.

use super::*;
use crate::port::mem::{Direction, Impairment, LinkConfig};
use crate::service::discard::Discard;
use crate::service::echo::Echo;
use crate::service::http::{Http, HttpConfig};
use crate::service::scripted::Scripted;
use crate::shard::{Capacity, Listener};
use crate::sim::world::{World, WorldConfig, tuple};
use crate::tcp::TcpConfig;
use crate::tcp::record::First;
use crate::wire::{Addr, Endpoint};
use std::time::Duration;

const CONNECTIONS: usize = 2048;

const fn port(target: Target) -> u16 {
    match target {
        Target::Echo => 7,
        Target::Discard => 9,
        Target::Http => 80,
    }
}

fn listeners(body: &[u8]) -> Vec<Listener> {
    let listen = |target, service| Listener {
        endpoints: vec![Endpoint::new(Addr::v4([10, 0, 0, 1]), port(target))],
        service,
    };
    let http = HttpConfig { body: body.to_vec(), ..HttpConfig::default() };
    vec![
        listen(Target::Echo, Box::new(Scripted::new(Echo, CONNECTIONS)) as Box<dyn Service>),
        listen(Target::Discard, Box::new(Scripted::new(Discard, CONNECTIONS))),
        listen(Target::Http, Box::new(Http::new(http))),
    ]
}

/// Carries the plans out, all at once, and checks that nothing is left; the tally, and how many frames the line lost.
fn run(seed: u64, line: Impairment, body: &[u8], plans: &[Plan]) -> (Tally, u64) {
    let driver = Rc::new(RefCell::new(Driver::new(plans.len(), body.into())));
    let cfg = WorldConfig {
        link: LinkConfig { seed, ..LinkConfig::default() }.both(line),
        workers: 1,
        server: TcpConfig::default(),
        client: TcpConfig::default(),
        capacity: Capacity { connections: 2048, half_open: 2048, time_wait: 4096, chunks: 8192 },
        key: seed,
    };
    let mut world = World::new(cfg, || listeners(body), Box::new(Rc::clone(&driver)));
    for (n, plan) in plans.iter().enumerate() {
        let word = driver.borrow_mut().plan(*plan).unwrap();
        let name = tuple(n as u32, port(plan.target), false);
        assert!(world.connect(name, word));
    }
    let limit = Duration::from_secs(1200);
    let done = world.run(limit, |w| w.leftovers() == (0, 0, 0)).unwrap();
    let tally = driver.borrow().tally().clone();
    assert!(done, "left: {:?}\n{tally}", world.leftovers());
    for books in world.accounting() {
        assert!(books.balanced() && books.lent == 0, "{books:?}");
    }
    assert_eq!(driver.borrow().outstanding(), 0, "{tally}");
    assert_eq!(tally.planned(), plans.len() as u64);
    let lost = [Direction::AToB, Direction::BToA].map(|d| world.link.counters(d).lost);
    (tally, lost.iter().sum())
}

fn numbered(seed: u64, n: u64) -> Vec<Plan> {
    (0..n).map(|n| Plan::numbered(seed, n)).collect()
}

#[test]
fn every_closing_order_on_a_perfect_link_goes_as_planned_and_is_named_so() {
    let (tally, lost) =
        run(1, Impairment::delayed(Duration::from_millis(1)), b"a small body\n", &numbered(1, 240));
    assert!(tally.all_good() && lost == 0, "{tally}");
    for target in Target::ALL {
        let first = |order| tally.cell(target, order).first;
        assert_eq!(first(Order::ClientFirst)[First::Us as usize], 20, "{target:?}");
        assert_eq!(first(Order::ServerFirst)[First::Peer as usize], 20, "{target:?}");
        assert_eq!(first(Order::HalfClose)[First::Us as usize], 20, "{target:?}");
        let both = tally.cell(target, Order::Both);
        assert_eq!(both.paths[ClosePath::Simultaneous as usize], 20, "{target:?}: {both:?}");
    }
}

#[test]
fn every_closing_order_under_loss_doubling_and_reordering_goes_as_planned() {
    let line = Impairment {
        loss: 0.05,
        duplication: 0.03,
        reordering: 0.1,
        reordering_delay: Duration::from_millis(5),
        corruption: 0.01,
        delay: (Duration::from_millis(1), Duration::from_millis(3)),
        ..Impairment::default()
    };
    let body: Vec<u8> = (0..20_000u32).map(|i| (i % 253) as u8).collect();
    for seed in 0..5 {
        let (tally, lost) = run(seed, line.clone(), &body, &numbered(seed, 240));
        assert!(tally.all_good(), "seed {seed}\n{tally}");
        assert!(lost > 100, "seed {seed}: only {lost} frames lost");
    }
}

#[test]
fn aborts_reach_the_other_end() {
    let plans: Vec<Plan> =
        numbered(4, 90).into_iter().map(|p| Plan { order: Order::Abort, payload: 5000, ..p }).collect();
    let (tally, lost) = run(4, Impairment::delayed(Duration::from_millis(1)), b"body", &plans);
    assert!(tally.all_good() && lost == 0, "{tally}");
}
