//! The tail loss probe (RFC 8985 §7) over a path with a round trip of 100 ms.

use super::recovery::{MSS, SACK, at, new_reno, sack, segments};
use super::{Do, Harness, Syn, after, nothing, recv, send, state};
use crate::metrics::block::Retransmission;
use crate::tcp::record::{Cause, ClosePath, First};

/// Round trip in milliseconds; the RTO after one sample is three times as long.
pub const RTT: u64 = 100;

/// A connection whose handshake took [`RTT`].
pub fn open(syn: Syn) -> Harness {
    let mut h = Harness::tuned(new_reno);
    h.peer_mut().ts = syn.ts;
    send!(h, SYN seq=0, ack=0, syn=syn);
    recv!(h, SYN|ACK seq=0, ack=1);
    after!(h, RTT);
    send!(h, ACK seq=1, ack=1);
    h
}

/// The same, and so many full segments are out.
pub fn sending(n: i64) -> Harness {
    let mut h = open(SACK);
    h.act(&[Do::Send((n * MSS) as usize)]);
    segments(&mut h, 0..n.min(10));
    h
}

/// Nothing is sent for so many milliseconds but at their end.
#[track_caller]
pub fn quiet_for(h: &mut Harness, ms: u64) {
    after!(h, ms - 1);
    nothing!(h);
    after!(h, 1);
}

fn probes(h: &mut Harness) -> u64 {
    h.counters().retransmissions[Retransmission::TailProbe as usize]
}

#[test]
fn d10_a_lost_tail_is_probed_for_after_two_round_trips() {
    let mut h = sending(3);
    quiet_for(&mut h, 2 * RTT);
    segments(&mut h, [2]);
    nothing!(h);
    assert_eq!(probes(&mut h), 1);
    // All there: the RTO that began with the probe is off again.
    sack(&mut h, 3, &[]);
    after!(h, 5000);
    nothing!(h);
}

#[test]
fn d10_an_acknowledgment_puts_the_probe_off() {
    let mut h = sending(4);
    after!(h, 150);
    sack(&mut h, 2, &[]);
    // The round trip is 106 ms by now.
    quiet_for(&mut h, 213);
    segments(&mut h, [3]);
}

#[test]
fn d10_new_data_is_the_better_probe() {
    let mut h = sending(12);
    quiet_for(&mut h, 2 * RTT);
    // Beyond the congestion window, and one only.
    segments(&mut h, [10]);
    nothing!(h);
    assert_eq!(probes(&mut h), 0, "not sent again");
    sack(&mut h, 11, &[]);
    segments(&mut h, [11]);
    // The next silence may be probed for again.
    after!(h, 299);
    segments(&mut h, [11]);
}

#[test]
fn d10_the_peers_window_holds_for_a_probe() {
    let mut h = open(SACK);
    h.win = 2 * MSS as u16;
    send!(h, ACK seq=1, ack=1);
    h.act(&[Do::Send(4 * MSS as usize)]);
    segments(&mut h, [0, 1]);
    quiet_for(&mut h, 2 * RTT);
    segments(&mut h, [1]);
}

#[test]
fn d10_a_lone_segment_waits_for_the_delayed_ack() {
    let mut h = sending(1);
    quiet_for(&mut h, 2 * RTT + 50);
    segments(&mut h, [0]);
}

#[test]
fn d10_one_probe_then_the_timeout() {
    let mut h = sending(3);
    quiet_for(&mut h, 2 * RTT);
    segments(&mut h, [2]);
    quiet_for(&mut h, 3 * RTT);
    segments(&mut h, [0]);
    quiet_for(&mut h, 6 * RTT);
    segments(&mut h, [0]);
    assert_eq!(probes(&mut h), 1);
}

#[test]
fn d10_a_probe_comes_no_later_than_the_timeout() {
    let mut h = open(SACK);
    for n in 0..20 {
        h.act(&[Do::Send(MSS as usize)]);
        segments(&mut h, [n]);
        after!(h, RTT);
        sack(&mut h, n + 1, &[]);
    }
    // The RTO is at its least, 200 ms; twice the round trip and the delay would be 250.
    h.act(&[Do::Send(MSS as usize)]);
    segments(&mut h, [20]);
    quiet_for(&mut h, 200);
    segments(&mut h, [20]);
    assert_eq!(probes(&mut h), 1);
    quiet_for(&mut h, 200);
    segments(&mut h, [20]);
    assert_eq!(probes(&mut h), 1);
}

#[test]
fn d10_without_sack_there_is_no_probe() {
    let mut h = open(Syn::PLAIN);
    h.act(&[Do::Send(3 * MSS as usize)]);
    segments(&mut h, 0..3);
    quiet_for(&mut h, 3 * RTT);
    segments(&mut h, [0]);
    assert_eq!(probes(&mut h), 0);
}

#[test]
fn d10_a_lone_fin_is_probed_for_in_fin_wait_1() {
    let mut h = open(SACK);
    h.act(&[Do::Close]);
    recv!(h, FIN|ACK seq=1, ack=1);
    quiet_for(&mut h, 2 * RTT);
    recv!(h, FIN|ACK seq=1, ack=1);
    state!(h, FinWait1);
    // Lost again: the last resort.
    quiet_for(&mut h, 3 * RTT);
    recv!(h, FIN|ACK seq=1, ack=1);
    send!(h, FIN|ACK seq=1, ack=2);
    recv!(h, ACK seq=2, ack=2);
    let r = h.closed(ClosePath::Active, First::Us, Cause::Service);
    assert_eq!(r.fin_retransmissions, 2);
    h.wait_out();
}

#[test]
fn d10_a_lone_fin_is_probed_for_in_closing() {
    let mut h = open(SACK);
    h.act(&[Do::Close]);
    recv!(h, FIN|ACK seq=1, ack=1);
    after!(h, 50);
    send!(h, FIN|ACK seq=1, ack=1);
    recv!(h, ACK seq=2, ack=2);
    state!(h, Closing);
    quiet_for(&mut h, 2 * RTT - 50);
    recv!(h, FIN|ACK seq=1, ack=2);
    send!(h, ACK seq=2, ack=2);
    h.closed(ClosePath::Simultaneous, First::Both, Cause::Service);
    h.wait_out();
}

#[test]
fn d10_a_lone_fin_is_probed_for_in_last_ack() {
    let mut h = open(SACK);
    h.service().peer_closed = vec![Do::Close];
    send!(h, FIN|ACK seq=1, ack=1);
    recv!(h, FIN|ACK seq=1, ack=2);
    state!(h, LastAck);
    quiet_for(&mut h, 2 * RTT);
    recv!(h, FIN|ACK seq=1, ack=2);
    send!(h, ACK seq=2, ack=2);
    h.closed(ClosePath::Passive, First::Peer, Cause::Peer);
    h.all_gone();
}

#[test]
fn d10_a_fin_and_the_data_before_it_are_probed_for_together() {
    let mut h = open(SACK);
    h.act(&[Do::Send(100)]);
    recv!(h, ACK|PSH seq=1, ack=1, len=100);
    h.act(&[Do::Close]);
    recv!(h, FIN|ACK seq=101, ack=1);
    quiet_for(&mut h, 2 * RTT);
    recv!(h, FIN|ACK|PSH seq=1, ack=1, len=100);
}

#[test]
fn d10_a_short_path_is_not_probed_within_milliseconds() {
    let mut h = Harness::tuned(new_reno);
    h.handshake(SACK);
    h.act(&[Do::Close]);
    recv!(h, FIN|ACK seq=1, ack=1);
    quiet_for(&mut h, 10);
    recv!(h, FIN|ACK seq=1, ack=1);
}

/// Ten segments are out, the last is probed for; then the peer answers as `answer` says, has all, and the service sends
/// more. How many segments go out at once shows the window.
fn window_after_a_probe(answer: impl FnOnce(&mut Harness)) -> usize {
    let mut h = sending(10);
    after!(h, 2 * RTT);
    segments(&mut h, [9]);
    sack(&mut h, 10, &[]);
    answer(&mut h);
    // Acknowledged beyond the probe.
    h.act(&[Do::Send(MSS as usize)]);
    segments(&mut h, [10]);
    sack(&mut h, 11, &[]);
    h.act(&[Do::Send(100 * MSS as usize)]);
    h.out.len()
}

#[test]
fn d10_a_loss_that_the_probe_repaired_reduces_the_window() {
    let full = window_after_a_probe(|h| sack(h, 10, &[(9, 10)]));
    let repaired = window_after_a_probe(|_| ());
    assert!(full >= 10, "{full}");
    assert_eq!(repaired, full / 2);
}

#[test]
fn d10_a_probe_that_arrived_twice_reduces_nothing() {
    // By a duplicate ACK from a peer that has no D-SACK, too.
    let told = window_after_a_probe(|h| sack(h, 10, &[(9, 10)]));
    let bare = window_after_a_probe(|h| sack(h, 10, &[]));
    assert_eq!(told, bare);
    // What is no duplicate says nothing.
    let other = window_after_a_probe(|h| send!(h, ACK seq=1, ack=at(10), win=60_000));
    assert_eq!(other, told / 2);
}
