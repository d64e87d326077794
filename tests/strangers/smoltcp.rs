//! smoltcp as client and as server.

use crate::talk::Shape;
use crate::world::{Role, World};
use finwheel::port::mem::{Direction, Impairment};
use std::time::Duration;

/// Connections of a run: every shape over both IP versions, twice.
const CONNECTIONS: usize = Shape::ALL.len() * 4;
/// Runs of each kind.
const SEEDS: u64 = 12;

fn line() -> Impairment {
    Impairment { delay: (Duration::from_millis(1), Duration::from_millis(3)), ..Impairment::default() }
}

fn run(seed: u64, role: Role, line: Impairment, lossless: bool) -> World {
    let mut world = World::new(seed, role, CONNECTIONS, line);
    world.run();
    world.check(lossless);
    world
}

/// Runs of both roles over a line; `hit` says how many frames of a direction met its fault: the line was what it says.
fn faulty(line: &Impairment, hit: impl Fn(&finwheel::port::mem::Counters) -> u64) {
    for role in [Role::Server, Role::Client] {
        for seed in 0..SEEDS {
            let world = run(seed, role, line.clone(), false);
            for direction in [Direction::AToB, Direction::BToA] {
                let counters = world.link().counters(direction);
                assert!(hit(&counters) > 0, "{direction:?}: {counters:?}");
            }
        }
    }
}

#[test]
fn smoltcp_clients_are_served_and_close_in_every_way() {
    for seed in 0..SEEDS {
        run(seed, Role::Server, line(), true);
    }
}

#[test]
fn smoltcp_servers_are_used_and_close_in_every_way() {
    for seed in 0..SEEDS {
        run(seed, Role::Client, line(), true);
    }
}

#[test]
fn one_percent_of_loss_only_takes_time() {
    faulty(&Impairment { loss: 0.01, ..line() }, |c| c.lost);
}

#[test]
fn five_percent_of_loss_only_take_time() {
    faulty(&Impairment { loss: 0.05, ..line() }, |c| c.lost);
}

#[test]
fn ten_percent_of_loss_only_take_time() {
    faulty(&Impairment { loss: 0.10, ..line() }, |c| c.lost);
}

#[test]
fn duplicates_change_nothing() {
    faulty(&Impairment { duplication: 0.10, ..line() }, |c| c.duplicated);
}

#[test]
fn segments_may_overtake_each_other() {
    let reordering_delay = Duration::from_millis(20);
    faulty(&Impairment { reordering: 0.10, reordering_delay, ..line() }, |c| c.reordered);
}

#[test]
fn bits_that_tip_over_are_noticed() {
    faulty(&Impairment { corruption: 0.05, ..line() }, |c| c.corrupted);
}

#[test]
fn everything_at_once() {
    let line = Impairment {
        loss: 0.03,
        duplication: 0.03,
        reordering: 0.05,
        reordering_delay: Duration::from_millis(20),
        corruption: 0.02,
        ..line()
    };
    faulty(&line, |c| c.lost.min(c.duplicated).min(c.reordered).min(c.corrupted));
}

#[test]
fn the_same_seed_gives_the_same_packets() {
    let line = Impairment { loss: 0.05, duplication: 0.02, ..line() };
    for role in [Role::Server, Role::Client] {
        let [one, two] = [(); 2].map(|()| run(7, role, line.clone(), false).log());
        assert!(!one.is_empty() && one == two, "{role:?}");
    }
}
