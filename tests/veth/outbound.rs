//! finwheel as the client of the kernel's servers.

use crate::capture::{Capture, dissect, judge_all};
use crate::dial::Client;
use crate::talk::{Plan, Shape};
use crate::tools::{LIMIT, rig_with};
use finwheel::metrics::block::Retransmission;
use finwheel::rig::{Rig, RigConfig};

/// Connections at a time: every shape over both IP versions, several times.
const WAVE: usize = Shape::ALL.len() * 8;

/// Plays `waves` waves and ends the client: nothing may be left.
fn waves(rig: &Rig, seed: u64, waves: u64) {
    let client = Client::start(rig);
    for wave in 0..waves {
        let plans: Vec<Plan> = (0..WAVE).map(|n| Plan::numbered(seed + wave, n)).collect();
        let took = client.play(rig, &plans, |n| n / Shape::ALL.len() % 2 == 1, LIMIT);
        println!("{WAVE} connections in {took:?}");
    }
    let counters = client.report();
    assert_eq!(counters.opened_active, waves * WAVE as u64);
    assert_eq!(counters.illegal_transitions, 0);
    let outcome = client.stop();
    assert!(outcome.failures.is_empty() && outcome.missing_frames == 0, "{:?}", outcome.failures);
}

#[test]
fn the_kernels_servers_are_used_and_close_in_every_way() {
    let rig = rig_with!(RigConfig::default(),);
    waves(&rig, 1, 4);
}

#[test]
fn two_workers_open_from_ports_of_their_own() {
    let rig = rig_with!(RigConfig::with_queues(2),);
    waves(&rig, 2, 4);
}

#[test]
fn loss_keeps_no_connection_from_its_end() {
    let rig = rig_with!(RigConfig::default(), "nft");
    rig.loss(5.0).unwrap();
    waves(&rig, 3, 1);
}

#[test]
fn the_judge_finds_no_blemish_in_what_the_client_does() {
    const ROUNDS: u64 = 40;
    /// Few at a time: what piles up in a ring while the worker waits for its core looks like loss.
    const AT_A_TIME: usize = Shape::ALL.len() * 2;
    let rig = rig_with!(RigConfig::default(), "tcpdump", "tshark");
    // The kernel probes for a lost tail after a few milliseconds without an ACK, which a busy machine may well take.
    rig.client_ns().sysctl("net/ipv4/tcp_early_retrans", "0").unwrap();
    let client = Client::start(&rig);
    let capture = Capture::start(&rig, "tcp portrange 9100-9300");
    let mut streams = 0;
    for round in 0..ROUNDS {
        // All but the resets, and bytes both ways: that is what the judge calls complete.
        let plans = (0..AT_A_TIME).map(|n| Plan::numbered(100 + round, n)).filter(|p| p.shape.graceful());
        let plans: Vec<Plan> = plans
            .map(|p| Plan { we_send: p.we_send.max(10), stranger_sends: p.stranger_sends.max(10), ..p })
            .collect();
        streams += plans.len();
        client.play(&rig, &plans, |n| n % 2 == 1, LIMIT);
    }
    let (pcap, _dir) = capture.stop();
    let frames = dissect(&pcap, &rig);
    let counters = client.report();
    let by = |kind| counters.retransmissions[kind as usize];
    let others = Retransmission::ALL.into_iter().filter(|&kind| kind != Retransmission::TailProbe);
    assert_eq!(others.map(by).sum::<u64>(), 0, "{:?}", counters.retransmissions);
    judge_all(&frames, &pcap, streams, by(Retransmission::TailProbe));
}
