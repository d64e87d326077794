//! Closing on a lossy path: c07. "Lost" means that the script goes on as if the segment had not arrived.

use super::*;
use crate::metrics::block::Retransmission;
use crate::tcp::record::{Cause, ClosePath, First};
use std::time::Duration;

/// Waits of a FIN over a path without delay, in milliseconds: the least RTO, doubled each time (RFC 6298 §5.5). Their
/// sum is within the give-up time of 100 s, and with the next one it is not.
const BACK_OFF: [u64; 8] = [200, 400, 800, 1600, 3200, 6400, 12_800, 25_600];

#[test]
fn c07_fin_lost_in_fin_wait_1_is_retransmitted_with_back_off() {
    let mut h = Harness::open();
    h.act(&[Do::Close]);
    recv!(h, FIN|ACK seq=1, ack=1);
    for ms in BACK_OFF {
        after!(h, ms - 1);
        nothing!(h);
        after!(h, 1);
        recv!(h, FIN|ACK seq=1, ack=1);
        nothing!(h);
    }
    state!(h, FinWait1);
    assert_eq!(h.counters().retransmissions[Retransmission::Fin as usize], 8);
    send!(h, FIN|ACK seq=1, ack=2);
    recv!(h, ACK seq=2, ack=2);
    let r = h.closed(ClosePath::Active, First::Us, Cause::Service);
    assert_eq!(r.fin_retransmissions, 8);
    assert_eq!(r.times.fin_wait_1, Duration::from_secs(51));
    h.wait_out();
}

#[test]
fn c07_fin_lost_in_closing_is_retransmitted_with_back_off() {
    let mut h = Harness::open();
    h.act(&[Do::Close]);
    recv!(h, FIN|ACK seq=1, ack=1);
    after!(h, 100);
    send!(h, FIN|ACK seq=1, ack=1);
    recv!(h, ACK seq=2, ack=2);
    after!(h, 99);
    nothing!(h);
    after!(h, 1);
    recv!(h, FIN|ACK seq=1, ack=2);
    state!(h, Closing);
    after!(h, 400);
    recv!(h, FIN|ACK seq=1, ack=2);
    send!(h, ACK seq=2, ack=2);
    let r = h.closed(ClosePath::Simultaneous, First::Both, Cause::Service);
    assert_eq!(r.fin_retransmissions, 2);
    h.wait_out();
}

#[test]
fn c07_fin_lost_in_last_ack_is_retransmitted_with_back_off() {
    let mut h = Harness::open();
    h.service().peer_closed = vec![Do::Close];
    send!(h, FIN|ACK seq=1, ack=1);
    recv!(h, FIN|ACK seq=1, ack=2);
    for ms in BACK_OFF {
        after!(h, ms - 1);
        nothing!(h);
        after!(h, 1);
        recv!(h, FIN|ACK seq=1, ack=2);
        nothing!(h);
        state!(h, LastAck);
    }
    send!(h, ACK seq=2, ack=2);
    let r = h.closed(ClosePath::Passive, First::Peer, Cause::Peer);
    assert_eq!(r.fin_retransmissions, 8);
    h.all_gone();
}

#[test]
fn c07_fin_waits_for_the_round_trip_that_was_measured() {
    let mut h = Harness::new();
    send!(h, SYN seq=0, ack=0, syn=Syn::PLAIN);
    recv!(h, SYN|ACK seq=0, ack=1);
    // A round trip of 500 ms: RTO 1500 ms (RFC 6298 §2.2).
    after!(h, 500);
    send!(h, ACK seq=1, ack=1);
    h.act(&[Do::Close]);
    recv!(h, FIN|ACK seq=1, ack=1);
    for ms in [1500, 3000, 6000] {
        after!(h, ms - 1);
        nothing!(h);
        after!(h, 1);
        recv!(h, FIN|ACK seq=1, ack=1);
    }
    send!(h, FIN|ACK seq=1, ack=2);
    recv!(h, ACK seq=2, ack=2);
    let r = h.closed(ClosePath::Active, First::Us, Cause::Service);
    assert_eq!(r.fin_retransmissions, 3);
    h.wait_out();
}

#[test]
fn c07_data_and_fin_in_one_segment_are_lost_and_sent_again_together() {
    let mut h = Harness::open();
    h.act(&[Do::Send(100), Do::Close]);
    recv!(h, FIN|PSH|ACK seq=1, ack=1, len=100);
    after!(h, 200);
    recv!(h, FIN|PSH|ACK seq=1, ack=1, len=100);
    after!(h, 400);
    recv!(h, FIN|PSH|ACK seq=1, ack=1, len=100);
    send!(h, FIN|ACK seq=1, ack=102);
    recv!(h, ACK seq=102, ack=2);
    let r = h.closed(ClosePath::Active, First::Us, Cause::Service);
    assert_eq!((r.fin_retransmissions, r.bytes_out, r.unacknowledged), (2, 100, 0));
    h.wait_out();
}

#[test]
fn c07_the_data_arrives_and_the_fin_behind_it_is_lost() {
    let mut h = Harness::open();
    h.act(&[Do::Send(100)]);
    recv!(h, PSH|ACK seq=1, ack=1, len=100);
    h.act(&[Do::Close]);
    recv!(h, FIN|ACK seq=101, ack=1);
    after!(h, 10);
    send!(h, ACK seq=1, ack=101);
    state!(h, FinWait1);
    nothing!(h);
    after!(h, 200);
    recv!(h, FIN|ACK seq=101, ack=1);
    nothing!(h);
    send!(h, ACK seq=1, ack=102);
    state!(h, FinWait2);
    send!(h, FIN|ACK seq=1, ack=102);
    recv!(h, ACK seq=102, ack=2);
    let r = h.closed(ClosePath::Active, First::Us, Cause::Service);
    assert_eq!(r.fin_retransmissions, 1);
    h.wait_out();
}

#[test]
fn c07_three_duplicate_acks_bring_the_lost_data_back_with_our_fin_outstanding() {
    let mut h = Harness::open();
    h.act(&[Do::Send(4 * 1460), Do::Close]);
    for i in 0..3 {
        recv!(h, ACK seq=1 + i * 1460, ack=1, len=1460);
    }
    recv!(h, FIN|PSH|ACK seq=4381, ack=1, len=1460);
    // The first segment is lost; the three behind it are duplicates to the peer.
    for _ in 0..3 {
        nothing!(h);
        send!(h, ACK seq=1, ack=1);
    }
    recv!(h, ACK seq=1, ack=1, len=1460);
    send!(h, ACK seq=1, ack=5842);
    state!(h, FinWait2);
    send!(h, FIN|ACK seq=1, ack=5842);
    recv!(h, ACK seq=5842, ack=2);
    let r = h.closed(ClosePath::Active, First::Us, Cause::Service);
    assert_eq!((r.fin_retransmissions, r.bytes_out), (0, 5840));
    h.wait_out();
}

#[test]
fn c07_our_ack_of_the_fin_is_lost_in_close_wait() {
    let mut h = Harness::open();
    send!(h, FIN|ACK seq=1, ack=1);
    recv!(h, ACK seq=1, ack=2);
    for ms in BACK_OFF {
        after!(h, ms);
        nothing!(h);
        send!(h, FIN|ACK seq=1, ack=1);
        recv!(h, ACK seq=1, ack=2);
        nothing!(h);
    }
    assert_eq!(h.told(), [Told::PeerClosed]);
    h.act(&[Do::Close]);
    recv!(h, FIN|ACK seq=1, ack=2);
    send!(h, ACK seq=2, ack=2);
    h.closed(ClosePath::Passive, First::Peer, Cause::Peer);
    h.all_gone();
}

#[test]
fn c07_our_ack_of_the_fin_is_lost_in_time_wait() {
    let mut h = Harness::open();
    h.act(&[Do::Close]);
    recv!(h, FIN|ACK seq=1, ack=1);
    send!(h, FIN|ACK seq=1, ack=2);
    recv!(h, ACK seq=2, ack=2);
    h.closed(ClosePath::Active, First::Us, Cause::Service);
    for ms in [200, 400, 800, 1600] {
        after!(h, ms);
        send!(h, FIN|ACK seq=1, ack=2);
        recv!(h, ACK seq=2, ack=2);
        nothing!(h);
    }
    h.wait_out();
}

#[test]
fn c07_the_ack_of_our_fin_is_lost_and_our_fin_is_acknowledged_again() {
    let mut h = Harness::open();
    h.service().peer_closed = vec![Do::Close];
    send!(h, FIN|ACK seq=1, ack=1);
    recv!(h, FIN|ACK seq=1, ack=2);
    after!(h, 200);
    recv!(h, FIN|ACK seq=1, ack=2);
    // The peer, in TIME_WAIT, answers every FIN; the second answer comes when we are gone.
    send!(h, ACK seq=2, ack=2);
    let r = h.closed(ClosePath::Passive, First::Peer, Cause::Peer);
    assert_eq!(r.fin_retransmissions, 1);
    send!(h, ACK seq=2, ack=2);
    recv!(h, RST seq=2, ack=0);
    h.all_gone();
}

#[test]
fn c07_both_acks_of_a_simultaneous_close_are_lost() {
    let mut h = Harness::open();
    h.act(&[Do::Close]);
    recv!(h, FIN|ACK seq=1, ack=1);
    send!(h, FIN|ACK seq=1, ack=1);
    recv!(h, ACK seq=2, ack=2);
    // The peer is in CLOSING as well: its FIN comes again, with the ACK of ours, and lies left of the window.
    after!(h, 190);
    send!(h, FIN|ACK seq=1, ack=2);
    recv!(h, ACK seq=2, ack=2);
    state!(h, Closing);
    after!(h, 10);
    recv!(h, FIN|ACK seq=1, ack=2);
    send!(h, ACK seq=2, ack=2);
    h.closed(ClosePath::Simultaneous, First::Both, Cause::Service);
    h.wait_out();
}
