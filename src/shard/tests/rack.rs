//! What is lost by time (RFC 8985 §6), over a path with a round trip of 100 ms: reordering, lost retransmissions, D-SACK.

use super::recovery::{MSS, sack, segments};
use super::tail_probe::{RTT, quiet_for, sending};
use super::{Do, Harness, after, nothing};
use crate::metrics::block::Retransmission;

/// A quarter of the round trip: the time that reordering is given at first.
const TIME: u64 = RTT / 4;

fn again(h: &mut Harness) -> u64 {
    h.counters().retransmissions.iter().sum()
}

/// The peer got segment 0 after the two behind it: it is known that segments of ours overtake each other.
fn reordered(n: i64) -> Harness {
    let mut h = sending(n);
    after!(h, RTT);
    sack(&mut h, 0, &[(1, 3)]);
    after!(h, TIME - 1);
    sack(&mut h, 3, &[]);
    h.skip();
    h
}

#[test]
fn d10_a_segment_that_comes_late_is_not_sent_again() {
    let mut h = reordered(10);
    sack(&mut h, 10, &[]);
    after!(h, 1000);
    nothing!(h);
    assert_eq!(again(&mut h), 0);
    assert_eq!(h.shard.chunks_used(), 0);
}

#[test]
fn d10_one_segment_behind_a_hole_proves_it_after_a_quarter_of_the_round_trip() {
    let mut h = sending(2);
    after!(h, RTT);
    sack(&mut h, 0, &[(1, 2)]);
    quiet_for(&mut h, TIME);
    segments(&mut h, [0]);
    nothing!(h);
    assert_eq!(h.counters().retransmissions[Retransmission::DataFast as usize], 1);
}

#[test]
fn d10_the_answer_to_a_tail_probe_shows_all_that_is_lost() {
    let mut h = sending(4);
    quiet_for(&mut h, 2 * RTT);
    segments(&mut h, [3]);
    after!(h, RTT);
    sack(&mut h, 0, &[(3, 4)]);
    quiet_for(&mut h, TIME);
    segments(&mut h, [0]);
    nothing!(h);
    sack(&mut h, 1, &[(3, 4)]);
    segments(&mut h, [1, 2]);
    sack(&mut h, 4, &[]);
    after!(h, 5000);
    nothing!(h);
}

#[test]
fn d10_once_reordering_was_seen_three_duplicates_prove_nothing() {
    let mut h = reordered(10);
    for n in 5..=9 {
        sack(&mut h, 3, &[(4, n)]);
    }
    nothing!(h);
    quiet_for(&mut h, TIME);
    segments(&mut h, [3]);
    nothing!(h);
}

#[test]
fn d10_what_is_overtaken_while_the_time_runs_waits_for_the_next() {
    let mut h = reordered(10);
    sack(&mut h, 3, &[(4, 6)]);
    after!(h, TIME - 5);
    sack(&mut h, 3, &[(7, 10), (4, 6)]);
    nothing!(h);
    quiet_for(&mut h, 5);
    segments(&mut h, [3]);
    nothing!(h);
    quiet_for(&mut h, TIME);
    segments(&mut h, [6]);
    nothing!(h);
}

#[test]
fn d10_a_gap_that_closes_in_time_stops_the_clock() {
    let mut h = reordered(10);
    sack(&mut h, 3, &[(4, 6)]);
    after!(h, TIME - 5);
    sack(&mut h, 6, &[]);
    sack(&mut h, 6, &[(7, 8)]);
    // Its own time, not the rest of the other's.
    quiet_for(&mut h, TIME);
    segments(&mut h, [6]);
}

#[test]
fn d10_a_lost_retransmission_is_found_by_what_was_sent_after_it() {
    let mut h = sending(20);
    after!(h, RTT);
    sack(&mut h, 0, &[(1, 4)]);
    segments(&mut h, [0]);
    h.skip();
    // All of the first flight, and then what went out after the repair: it was lost again.
    after!(h, RTT);
    sack(&mut h, 0, &[(1, 10)]);
    let out: Vec<_> = std::mem::take(&mut h.out).into();
    assert!(!out.is_empty() && again(&mut h) == 1, "new data goes on: {out:?}");
    after!(h, RTT);
    sack(&mut h, 0, &[(1, 11)]);
    segments(&mut h, [0]);
    assert_eq!(h.counters().retransmissions[Retransmission::DataFast as usize], 2);
    assert_eq!(h.counters().retransmissions[Retransmission::DataTimeout as usize], 0);
}

#[test]
fn d10_a_lost_retransmission_is_found_by_a_later_one() {
    let mut h = sending(10);
    after!(h, RTT);
    // 0 and 2 are lost, nothing new is there to send.
    sack(&mut h, 0, &[(1, 2), (3, 10)]);
    segments(&mut h, [0, 2]);
    nothing!(h);
    after!(h, RTT);
    sack(&mut h, 0, &[(1, 10)]);
    segments(&mut h, [0]);
    nothing!(h);
    sack(&mut h, 10, &[]);
    after!(h, 5000);
    nothing!(h);
}

#[test]
fn d10_a_lost_retransmission_reduces_the_window_once_more() {
    let window = |lost_again: bool| {
        let mut h = sending(10);
        after!(h, RTT);
        sack(&mut h, 0, &[(1, 2), (3, 10)]);
        segments(&mut h, [0, 2]);
        after!(h, RTT);
        if lost_again {
            sack(&mut h, 0, &[(1, 10)]);
            segments(&mut h, [0]);
        }
        sack(&mut h, 10, &[]);
        h.act(&[Do::Send(100 * MSS as usize)]);
        h.out.len()
    };
    assert_eq!(window(false), 5, "half of ten");
    assert_eq!(window(true), 2, "half of that");
}

#[test]
fn d10_a_d_sack_gives_reordering_more_time() {
    let mut h = sending(10);
    after!(h, RTT);
    sack(&mut h, 0, &[(1, 4)]);
    segments(&mut h, [0]);
    h.skip();
    // 0 was only late; the repair came on top.
    after!(h, 10);
    sack(&mut h, 10, &[]);
    sack(&mut h, 10, &[(0, 1)]);
    h.act(&[Do::Send(5 * MSS as usize)]);
    segments(&mut h, 10..15);
    after!(h, RTT);
    sack(&mut h, 10, &[(11, 15)]);
    quiet_for(&mut h, 2 * TIME);
    segments(&mut h, [10]);
}

#[test]
fn d10_what_comes_twice_is_reported_once() {
    let mut h = sending(0);
    let n = |seq: i64| crate::shard::tests::Seg::new(&[crate::wire::Flags::ACK]).seq(seq).len(100);
    let irs = h.peer_mut().iss;
    let blocks = |h: &mut Harness, ack: i64| {
        let header = h.recv(&crate::shard::tests::Seg::new(&[crate::wire::Flags::ACK]).ack(ack));
        let relative = |s: crate::wire::SeqNum| i64::from(s - irs);
        header.options.sack_blocks().iter().map(|&(a, b)| (relative(a), relative(b))).collect::<Vec<_>>()
    };
    h.send(&n(1));
    h.send(&n(101));
    assert_eq!(blocks(&mut h, 201), []);
    // Below the ACK.
    h.send(&n(101));
    assert_eq!(blocks(&mut h, 201), [(101, 201)]);
    // Beyond a gap: the first time, and again.
    h.send(&n(401));
    assert_eq!(blocks(&mut h, 201), [(401, 501)]);
    h.send(&n(401));
    assert_eq!(blocks(&mut h, 201), [(401, 501), (401, 501)]);
    h.send(&n(501));
    assert_eq!(blocks(&mut h, 201), [(401, 601)]);
    // Partly below.
    h.send(&n(151));
    assert_eq!(blocks(&mut h, 251), [(151, 201), (401, 601)]);
}
