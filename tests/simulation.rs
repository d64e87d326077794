//! Whole shards over the simulated link under heavy faults: every byte right, every connection closed, no frame, record,
//! timer or chunk left. A failure names its seed; `FINWHEEL_SEED=<seed>` replays that one alone.

use finwheel::port::mem::{Impairment, LinkConfig};
use finwheel::shard::Capacity;
use finwheel::sim::client::Tally;
use finwheel::sim::fleet::Fleet;
use finwheel::sim::world::WorldConfig;
use finwheel::tcp::TcpConfig;
use finwheel::tcp::config::Limits;
use std::time::Duration;

const CONNECTIONS: u64 = 1000;
const SEEDS: u64 = 200;

fn world(seed: u64, workers: usize, scatter: f64, line: Impairment) -> WorldConfig {
    // No limit of time may end what loss only holds up: a segment that is lost four times comes after 45 seconds.
    let patient = Limits { linger_time: Duration::from_secs(600), ..Limits::DEFAULT };
    let tcp = TcpConfig {
        give_up: Duration::from_secs(600),
        syn_retries: 10,
        limits: vec![patient; 3],
        ..TcpConfig::default()
    };
    WorldConfig {
        link: LinkConfig { seed, scatter, log: log_entries(), ..LinkConfig::default() }.both(line),
        workers,
        server: tcp.clone(),
        client: tcp,
        capacity: Capacity { connections: 2048, half_open: 1024, time_wait: 4096, chunks: 16_384 },
        key: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
    }
}

/// Frames kept when one seed is replayed.
fn log_entries() -> usize {
    if std::env::var_os("FINWHEEL_SEED").is_some() { 1 << 20 } else { 0 }
}

/// The packets of the connections that failed.
fn print_log(fleet: &Fleet, tally: &Tally) {
    for f in tally.failures() {
        println!("{f:?}");
        let end = format!("{}", f.tuple.local);
        for line in fleet.world.link.log().iter().map(ToString::to_string).filter(|l| l.contains(&end)) {
            println!("{line}");
        }
    }
}

fn faulty() -> Impairment {
    Impairment {
        loss: 0.10,
        duplication: 0.05,
        reordering: 0.10,
        reordering_delay: Duration::from_millis(20),
        delay: (Duration::from_millis(1), Duration::from_millis(3)),
        ..Impairment::default()
    }
}

/// Runs one seed and looks at everything there is to look at.
fn run(seed: u64, connections: u64, cfg: WorldConfig) {
    let mut fleet = Fleet::new(cfg, seed, connections, 500);
    let ended = fleet.run(Duration::from_secs(3600), |_| {}).expect("the ports work");
    let tally = fleet.tally();
    if std::env::var_os("FINWHEEL_SEED").is_some() {
        print_log(&fleet, &tally);
    }
    assert!(
        ended && tally.all_good(),
        "seed {seed}: {} of {connections} good, server {:?}, {:#?}",
        tally.good(),
        fleet.world.servers.iter().map(|s| *s.population()).collect::<Vec<_>>(),
        tally.failures()
    );
    assert!(
        fleet.settle(Duration::from_secs(1200)).expect("the ports work"),
        "seed {seed}: {:?} left",
        fleet.world.leftovers()
    );
    for a in fleet.world.accounting() {
        assert!(a.balanced() && a.lent == 0 && a.in_tx == 0, "seed {seed}: {a:?}");
    }
    let (mut opened, mut ended) = (0, 0);
    for server in &mut fleet.world.servers {
        let c = server.snapshot().counters;
        assert_eq!(c.illegal_transitions, 0, "seed {seed}");
        opened += c.opened_passive;
        ended += c.closes.iter().flatten().flatten().sum::<u64>();
    }
    assert_eq!(opened, connections, "seed {seed}: each connection is opened once");
    assert_eq!(ended, opened, "seed {seed}: each has one close record");
}

fn seeds() -> Box<dyn Iterator<Item = u64>> {
    match std::env::var("FINWHEEL_SEED").ok().and_then(|s| s.parse().ok()) {
        Some(one) => Box::new(std::iter::once(one)),
        None => Box::new(0..SEEDS),
    }
}

#[test]
fn a_thousand_connections_under_loss_duplication_and_reordering() {
    for seed in seeds() {
        run(seed, CONNECTIONS, world(seed, 1, 0.0, faulty()));
    }
}

#[test]
fn frames_at_the_wrong_worker_find_their_flow() {
    for seed in 0..5 {
        let line = Impairment::delayed(Duration::from_millis(1));
        run(seed, 300, world(seed, 3, 0.2, line));
    }
}
