//! Closing is bounded in every state: c15 to c17, and the idle limit.

use super::*;
use crate::metrics::block::ResetCause;
use crate::tcp::config::Limits;
use crate::tcp::record::{Cause, ClosePath, First};
use std::time::Duration;

const S: fn(u64) -> Duration = Duration::from_secs;

#[test]
fn c15_fin_wait_2_is_bounded_when_nobody_reads() {
    for how in [Do::Close, Do::Linger] {
        let mut h = Harness::open();
        h.act(&[how]);
        recv!(h, FIN|ACK seq=1, ack=1);
        after!(h, 150);
        send!(h, ACK seq=1, ack=2);
        after!(h, 59_999);
        state!(h, FinWait2);
        after!(h, 1);
        state!(h, Closed);
        let r = h.closed(ClosePath::Timeout, First::Us, Cause::FinWait2Limit);
        assert_eq!(r.times.fin_wait_2, S(60));
        assert!(!r.time_wait);
        // The peer is not told: what it still sends finds a closed port.
        nothing!(h);
        send!(h, FIN|ACK seq=1, ack=2);
        recv!(h, RST seq=2, ack=0);
        h.all_gone();
    }
}

#[test]
fn c15_fin_wait_2_lasts_while_the_service_reads_and_is_bounded_from_its_close_on() {
    let mut h = Harness::open();
    h.act(&[Do::Shutdown]);
    recv!(h, FIN|ACK seq=1, ack=1);
    send!(h, ACK seq=1, ack=2);
    after!(h, 3_600_000);
    nothing!(h);
    state!(h, FinWait2);
    h.act(&[Do::Close]);
    state!(h, FinWait2);
    after!(h, 59_999);
    state!(h, FinWait2);
    after!(h, 1);
    state!(h, Closed);
    let r = h.closed(ClosePath::Timeout, First::Us, Cause::FinWait2Limit);
    assert_eq!(r.times.fin_wait_2, S(3660));
    h.all_gone();
}

#[test]
fn c15_a_late_lingering_close_is_bounded_from_then_on_too() {
    let mut h = Harness::open();
    h.act(&[Do::Shutdown]);
    recv!(h, FIN|ACK seq=1, ack=1);
    send!(h, ACK seq=1, ack=2);
    after!(h, 100_000);
    h.act(&[Do::Linger]);
    after!(h, 10_000);
    send!(h, ACK seq=1, ack=2, len=10);
    after!(h, 40);
    recv!(h, ACK seq=2, ack=11);
    send!(h, FIN|ACK seq=11, ack=2);
    recv!(h, ACK seq=2, ack=12);
    h.closed(ClosePath::HalfClose, First::Us, Cause::Service);
    h.wait_out();
}

#[test]
fn c15_a_reader_in_fin_wait_2_is_bounded_by_the_idle_limit_if_there_is_one() {
    let mut h = Harness::open_tuned(|s| s.tcp.limits = vec![Limits { idle: S(30), ..Limits::DEFAULT }]);
    h.act(&[Do::Shutdown]);
    recv!(h, FIN|ACK seq=1, ack=1);
    send!(h, ACK seq=1, ack=2);
    after!(h, 20_000);
    send!(h, ACK seq=1, ack=2, len=10);
    after!(h, 29_999);
    recv!(h, ACK seq=2, ack=11);
    state!(h, FinWait2);
    after!(h, 1);
    h.closed(ClosePath::Timeout, First::Us, Cause::Idle);
    h.all_gone();
}

#[test]
fn c16_fin_wait_1_ends_at_the_give_up_time() {
    let mut h = Harness::open();
    h.act(&[Do::Send(100), Do::Close]);
    for ms in [200, 400, 800, 1600, 3200, 6400, 12_800, 25_600] {
        recv!(h, FIN|PSH|ACK seq=1, ack=1, len=100);
        after!(h, ms);
    }
    recv!(h, FIN|PSH|ACK seq=1, ack=1, len=100);
    // 51 seconds have passed, and the next wait would be as long.
    after!(h, 48_999);
    nothing!(h);
    state!(h, FinWait1);
    after!(h, 1);
    let r = h.closed(ClosePath::Timeout, First::Us, Cause::GiveUp);
    assert_eq!((r.fin_retransmissions, r.unacknowledged, r.bytes_out), (8, 100, 0));
    assert_eq!(r.times.fin_wait_1, S(100));
    h.all_gone();
}

#[test]
fn c16_last_ack_and_closing_end_at_the_give_up_time() {
    let mut h = Harness::open_tuned(|s| s.tcp.give_up = S(10));
    h.service().peer_closed = vec![Do::Close];
    send!(h, FIN|ACK seq=1, ack=1);
    for ms in [200, 400, 800, 1600, 3200] {
        recv!(h, FIN|ACK seq=1, ack=2);
        after!(h, ms);
    }
    recv!(h, FIN|ACK seq=1, ack=2);
    after!(h, 3799);
    state!(h, LastAck);
    after!(h, 1);
    let r = h.closed(ClosePath::Timeout, First::Peer, Cause::GiveUp);
    assert_eq!((r.times.last_ack, r.fin_retransmissions), (S(10), 5));
    h.all_gone();

    let mut h = Harness::open_tuned(|s| s.tcp.give_up = S(10));
    h.act(&[Do::Close]);
    recv!(h, FIN|ACK seq=1, ack=1);
    send!(h, FIN|ACK seq=1, ack=1);
    recv!(h, ACK seq=2, ack=2);
    for ms in [200, 400, 800, 1600, 3200] {
        after!(h, ms);
        recv!(h, FIN|ACK seq=1, ack=2);
    }
    after!(h, 3799);
    state!(h, Closing);
    after!(h, 1);
    h.closed(ClosePath::Timeout, First::Both, Cause::GiveUp);
    h.all_gone();
}

#[test]
fn c16_a_peer_that_keeps_its_window_closed_cannot_hold_an_orphan() {
    for peer_closed in [false, true] {
        let mut h = Harness::open();
        if peer_closed {
            send!(h, FIN|ACK seq=1, ack=1, win=0);
            recv!(h, ACK seq=1, ack=2);
        } else {
            send!(h, ACK seq=1, ack=1, win=0);
        }
        let nxt = if peer_closed { 2 } else { 1 };
        h.act(&[Do::Send(100), Do::Close]);
        let mut probes = 0;
        for _ in 0..99 {
            after!(h, 1000);
            if !h.out.is_empty() {
                recv!(h, ACK seq=0, ack=nxt);
                send!(h, ACK seq=nxt, ack=1, win=0);
                probes += 1;
            }
        }
        assert!(probes >= 6, "{probes} probes");
        after!(h, 999);
        assert_eq!(h.shard.records(), 1);
        after!(h, 1);
        let first = if peer_closed { First::Peer } else { First::Us };
        let r = h.closed(ClosePath::Timeout, first, Cause::GiveUp);
        assert_eq!((r.unacknowledged, r.bytes_out), (100, 0));
        h.all_gone();
    }
}

#[test]
fn c16_progress_of_the_peer_holds_off_the_give_up() {
    let mut h = Harness::new();
    h.win = 1000;
    h.handshake(Syn::PLAIN);
    h.act(&[Do::Send(5000), Do::Close]);
    for i in 0..4 {
        recv!(h, ACK seq=1 + i * 1000, ack=1, len=1000);
        after!(h, 900);
        send!(h, ACK seq=1, ack=1001 + i * 1000, win=0);
        // Closed for less than the give-up time, then opened again.
        after!(h, 90_000);
        h.out.clear();
        send!(h, ACK seq=1, ack=1001 + i * 1000);
    }
    recv!(h, FIN|PSH|ACK seq=4001, ack=1, len=1000);
    send!(h, FIN|ACK seq=1, ack=5002);
    recv!(h, ACK seq=5002, ack=2);
    let r = h.closed(ClosePath::Active, First::Us, Cause::Service);
    assert_eq!(r.bytes_out, 5000);
    h.wait_out();
}

#[test]
fn c17_close_wait_is_bounded() {
    let mut h = Harness::open();
    send!(h, FIN|ACK seq=1, ack=1);
    recv!(h, ACK seq=1, ack=2);
    after!(h, 299_999);
    state!(h, CloseWait);
    nothing!(h);
    after!(h, 1);
    recv!(h, RST|ACK seq=1, ack=2);
    let r = h.closed(ClosePath::Timeout, First::Peer, Cause::CloseWaitLimit);
    assert_eq!(r.times.close_wait, S(300));
    assert_eq!(h.counters().resets_sent[ResetCause::Limit as usize], 1);
    assert_eq!(h.told(), [Told::PeerClosed, Told::Closed]);
    h.all_gone();
}

#[test]
fn c17_close_wait_is_bounded_for_a_service_that_never_reads() {
    let mut h = Harness::open();
    h.service().take = 0;
    send!(h, FIN|ACK seq=1, ack=1, len=100);
    recv!(h, ACK seq=1, ack=102);
    after!(h, 300_000);
    recv!(h, RST|ACK seq=1, ack=102);
    h.closed(ClosePath::Timeout, First::Peer, Cause::CloseWaitLimit);
    h.all_gone();
}

#[test]
fn idle_connections_are_closed_lingering() {
    let mut h = Harness::open_tuned(|s| s.tcp.limits = vec![Limits { idle: S(10), ..Limits::DEFAULT }]);
    after!(h, 5000);
    send!(h, ACK seq=1, ack=1, len=10);
    after!(h, 9999);
    recv!(h, ACK seq=1, ack=11);
    nothing!(h);
    after!(h, 1);
    recv!(h, FIN|ACK seq=1, ack=11);
    state!(h, FinWait1);
    // What crosses the FIN is read and discarded.
    send!(h, ACK seq=11, ack=2, len=10);
    send!(h, FIN|ACK seq=21, ack=2);
    recv!(h, ACK seq=2, ack=22);
    h.closed(ClosePath::HalfClose, First::Us, Cause::Idle);
    h.wait_out();
}

#[test]
fn idle_connections_whose_peer_is_gone_end_at_the_give_up_time() {
    let mut h = Harness::open_tuned(|s| {
        s.tcp.limits = vec![Limits { idle: S(10), ..Limits::DEFAULT }];
        s.tcp.give_up = S(5);
    });
    after!(h, 10_000);
    recv!(h, FIN|ACK seq=1, ack=1);
    for ms in [200, 400, 800, 1600] {
        after!(h, ms);
        recv!(h, FIN|ACK seq=1, ack=1);
    }
    after!(h, 2000);
    h.closed(ClosePath::Timeout, First::Us, Cause::GiveUp);
    h.all_gone();
}

#[test]
fn c16_established_gives_up_with_a_rst() {
    let mut h = Harness::open_tuned(|s| s.tcp.give_up = S(10));
    h.act(&[Do::Send(100)]);
    for ms in [200, 400, 800, 1600, 3200] {
        recv!(h, PSH|ACK seq=1, ack=1, len=100);
        after!(h, ms);
    }
    recv!(h, PSH|ACK seq=1, ack=1, len=100);
    // Given up when the next retransmission is due.
    after!(h, 6400);
    recv!(h, RST|ACK seq=101, ack=1);
    let r = h.closed(ClosePath::Timeout, First::Us, Cause::GiveUp);
    assert_eq!(r.unacknowledged, 100);
    h.all_gone();
}
