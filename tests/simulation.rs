//! The whole dataplane, servers and clients, with everything going wrong that can, seed by seed: see
//! `finwheel::sim`. `FINWHEEL_SEED=<seed>` runs that swarm alone, with its packet log; a failure prints the command that
//! does the same.
//!
//! Also proved here: that a seed gives the same run each time, that the faults are met, and that each deliberate fault of
//! the harness is found.

use finwheel::sim::faults::{Choice, Fault, FaultSet};
use finwheel::sim::report::{Deeds, Report, Rule};
use finwheel::sim::run;
use finwheel::sim::sabotage::Sabotage;
use finwheel::sim::scenario::Options;
use std::ops::Range;

/// Connections of a swarm: enough that faults meet connections in every state, few enough for many seeds.
const CONNECTIONS: u64 = 60;

#[track_caller]
fn good(report: &Report) {
    assert!(report.good(), "{report}");
}

/// The swarms of these seeds, or only the one that the environment names; what they did.
fn swarms(seeds: Range<u64>) -> Deeds {
    let mut deeds = Deeds::default();
    if let Some(seed) = std::env::var("FINWHEEL_SEED").ok().and_then(|s| s.parse().ok()) {
        if seeds.contains(&seed) {
            good(&run(&Options::of_seed(seed, CONNECTIONS), Some(&mut std::io::stdout())));
        }
        return deeds;
    }
    for seed in seeds {
        let report = run(&Options::of_seed(seed, CONNECTIONS), None);
        good(&report);
        deeds.add(&report.deeds);
    }
    deeds
}

#[test]
fn swarms_0_to_249() {
    let _ = swarms(0..250);
}

#[test]
fn swarms_250_to_499() {
    let _ = swarms(250..500);
}

#[test]
fn swarms_500_to_749() {
    let _ = swarms(500..750);
}

#[test]
fn swarms_750_to_999() {
    let _ = swarms(750..1000);
}

/// A run with these faults and no others.
fn with(seed: u64, connections: u64, faults: FaultSet) -> Report {
    run(&Options { faults: Choice::These(faults), ..Options::of_seed(seed, connections) }, None)
}

#[test]
fn a_thousand_connections_under_loss_duplication_and_reordering() {
    let faults = FaultSet::of(&[Fault::Loss, Fault::Duplication, Fault::Reordering]);
    for seed in 0..20 {
        let report = with(seed, 1000, faults);
        good(&report);
        assert_eq!((report.deeds.get("good"), report.deeds.get("given_up")), (1000, 0));
    }
}

/// A fault alone does what it is there for; without it nothing of the kind happens.
#[test]
fn faults_leave_their_marks() {
    let marks = [
        (Fault::Loss, "lost"),
        (Fault::Reordering, "challenge_acks"),
        (Fault::Corruption, "corrupted"),
        (Fault::Spikes, "retransmissions"),
        (Fault::Down, "lost"),
        (Fault::Bottleneck, "lost"),
        (Fault::Chunks, "no_chunk"),
        (Fault::Tables, "evicted"),
        (Fault::Stall, "retransmissions"),
        (Fault::Hold, "retransmissions"),
        (Fault::Clock, "retransmissions"),
        (Fault::Rss, "misdirected"),
        (Fault::Vanish, "timeout"),
        (Fault::Abort, "reset"),
        (Fault::Reuse, "reopened"),
        (Fault::Drain, "given_up"),
    ];
    let sum = |faults| {
        let mut deeds = Deeds::default();
        for seed in 0..8 {
            let report = with(seed, 150, faults);
            good(&report);
            deeds.add(&report.deeds);
        }
        deeds
    };
    let calm = sum(FaultSet::NONE);
    for (fault, mark) in marks {
        let deeds = sum(FaultSet::of(&[fault]));
        let (with, without) = (deeds.get(mark), calm.get(mark));
        assert!(with > without + 3, "{fault:?}: {mark} {with} with it, {without} without");
    }
}

#[test]
fn a_seed_gives_the_same_run_each_time_and_another_seed_another() {
    for seed in [3, 11, 12] {
        let go = |seed| {
            let mut log = Vec::new();
            let report = run(&Options::of_seed(seed, 40), Some(&mut log));
            (report, String::from_utf8(log).expect("text"))
        };
        let (a, b, other) = (go(seed), go(seed), go(seed + 100));
        assert_eq!((a.0.digest, &a.0.deeds, a.0.took, &a.1), (b.0.digest, &b.0.deeds, b.0.took, &b.1));
        assert_ne!(a.0.digest, other.0.digest);
        let unlogged = run(&Options::of_seed(seed, 40), None);
        assert_eq!(unlogged.digest, a.0.digest, "keeping a log changes nothing");
        assert!(a.1.contains(" client   out SYN_SENT     "), "{}", &a.1[..200]);
        assert!(a.1.contains(" server/0 in  SYN_RECEIVED "));
    }
}

#[test]
fn a_simulation_that_is_made_wrong_fails_and_says_how_to_see_it_again() {
    let expected = |s| match s {
        Sabotage::LostBuffer => Rule::Leak,
        Sabotage::OffByOne | Sabotage::FlippedByte => Rule::Stream,
        Sabotage::ForgottenClose | Sabotage::DeafToSpace => Rule::Stuck,
        Sabotage::EarlyClose | Sabotage::ResetForClose => Rule::Outcome,
        Sabotage::Panic => Rule::Panic,
    };
    for sabotage in Sabotage::ALL {
        let options = |seed| Options {
            sabotage: Some(sabotage),
            faults: Choice::These(FaultSet::of(&[Fault::Loss, Fault::Order])),
            ..Options::of_seed(seed, 100)
        };
        let report = (0..10).map(|seed| run(&options(seed), None)).find(|r| !r.good());
        let Some(report) = report else { panic!("{sabotage:?} goes unnoticed") };
        let rules: Vec<_> = report.violations.iter().map(|v| v.rule).collect();
        // An echo of a wrong byte is noticed by the server's witness or by the client, whoever is first.
        assert!(rules.contains(&expected(sabotage)), "{sabotage:?} is noticed as {report}");
        let replay = format!(
            "finwheel sim --seed {} --connections 100 --faults loss,order --sabotage {sabotage:?} --log -",
            report.options.seed
        );
        assert!(report.to_string().ends_with(&format!("replay: {replay}")), "{report}");
    }
}
