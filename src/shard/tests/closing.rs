//! Closing, segment by segment: c01 to c06 and c08 to c11.

use super::*;
use crate::tcp::record::{Cause, ClosePath, First};
use std::time::Duration;

const S: fn(u64) -> Duration = Duration::from_secs;

#[test]
fn c01_peer_closes_and_the_service_closes_at_once() {
    let mut h = Harness::open();
    h.service().peer_closed = vec![Do::Close];
    send!(h, FIN|ACK seq=1, ack=1);
    recv!(h, FIN|ACK seq=1, ack=2);
    nothing!(h);
    state!(h, LastAck);
    send!(h, ACK seq=2, ack=2);
    state!(h, Closed);
    let r = h.closed(ClosePath::Passive, First::Peer, Cause::Peer);
    assert_eq!((r.fin_retransmissions, r.unacknowledged, r.time_wait), (0, 0, false));
    assert_eq!((r.bytes_in, r.bytes_out, r.listener), (0, 0, Some(0)));
    assert_eq!(h.told(), [Told::PeerClosed, Told::Closed]);
    h.all_gone();
}

#[test]
fn c01_the_fin_is_acknowledged_at_once_and_close_wait_lasts_as_long_as_the_service_needs() {
    let mut h = Harness::open();
    send!(h, FIN|ACK seq=1, ack=1);
    recv!(h, ACK seq=1, ack=2);
    state!(h, CloseWait);
    assert_eq!(h.told(), [Told::PeerClosed]);
    after!(h, 200_000);
    nothing!(h);
    state!(h, CloseWait);
    h.act(&[Do::Close]);
    recv!(h, FIN|ACK seq=1, ack=2);
    state!(h, LastAck);
    after!(h, 150);
    send!(h, ACK seq=2, ack=2);
    let r = h.closed(ClosePath::Passive, First::Peer, Cause::Peer);
    assert_eq!(r.times.close_wait, S(200));
    assert_eq!(r.times.last_ack, Duration::from_millis(150));
    assert_eq!(r.times.total(), Duration::from_millis(200_150));
    h.all_gone();
}

#[test]
fn c01_half_close_is_enough_to_answer_the_peers_fin() {
    let mut h = Harness::open();
    h.service().peer_closed = vec![Do::Shutdown];
    send!(h, FIN|ACK seq=1, ack=1);
    recv!(h, FIN|ACK seq=1, ack=2);
    send!(h, ACK seq=2, ack=2);
    h.closed(ClosePath::Passive, First::Peer, Cause::Peer);
    h.all_gone();
}

#[test]
fn c01_over_ipv6_with_all_options() {
    let mut h = Harness::tuned(|s| s.v6 = true);
    h.handshake(Syn::FULL);
    h.service().peer_closed = vec![Do::Close];
    send!(h, FIN|ACK seq=1, ack=1);
    recv!(h, FIN|ACK seq=1, ack=2);
    after!(h, 1);
    send!(h, ACK seq=2, ack=2);
    h.closed(ClosePath::Passive, First::Peer, Cause::Peer);
    h.all_gone();
}

#[test]
fn c02_we_close_first() {
    let mut h = Harness::open();
    h.act(&[Do::Close]);
    recv!(h, FIN|ACK seq=1, ack=1);
    state!(h, FinWait1);
    after!(h, 50);
    send!(h, ACK seq=1, ack=2);
    nothing!(h);
    state!(h, FinWait2);
    after!(h, 70);
    send!(h, FIN|ACK seq=1, ack=2);
    recv!(h, ACK seq=2, ack=2);
    let r = h.closed(ClosePath::Active, First::Us, Cause::Service);
    assert_eq!(r.times.fin_wait_1, Duration::from_millis(50));
    assert_eq!(r.times.fin_wait_2, Duration::from_millis(70));
    assert_eq!(r.times.total(), Duration::from_millis(120));
    assert!(r.time_wait);
    assert_eq!(h.told(), [Told::Closed], "nobody reads, so nobody is told of the peer's FIN");
    h.wait_out();
    assert_eq!(h.counters().time_wait_expired, 1);
}

#[test]
fn c02_we_close_first_over_ipv6_with_all_options() {
    let mut h = Harness::tuned(|s| s.v6 = true);
    h.handshake(Syn::FULL);
    h.act(&[Do::Close]);
    recv!(h, FIN|ACK seq=1, ack=1);
    send!(h, ACK seq=1, ack=2);
    send!(h, FIN|ACK seq=1, ack=2);
    recv!(h, ACK seq=2, ack=2);
    h.closed(ClosePath::Active, First::Us, Cause::Service);
    h.wait_out();
}

#[test]
fn c02_of_a_connection_opened_from_here() {
    let mut h = Harness::new();
    h.connect();
    recv!(h, SYN seq=0, ack=0);
    state!(h, SynSent);
    send!(h, SYN|ACK seq=0, ack=1, syn=Syn::PLAIN);
    recv!(h, ACK seq=1, ack=1);
    h.act(&[Do::Close]);
    recv!(h, FIN|ACK seq=1, ack=1);
    send!(h, FIN|ACK seq=1, ack=2);
    recv!(h, ACK seq=2, ack=2);
    let r = h.closed(ClosePath::Active, First::Us, Cause::Service);
    assert_eq!(r.listener, None);
    h.wait_out();
}

#[test]
fn c03_fin_acknowledged_together_with_the_peers_fin() {
    let mut h = Harness::open();
    h.act(&[Do::Close]);
    recv!(h, FIN|ACK seq=1, ack=1);
    send!(h, FIN|ACK seq=1, ack=2);
    recv!(h, ACK seq=2, ack=2);
    state!(h, TimeWait);
    let r = h.closed(ClosePath::Active, First::Us, Cause::Service);
    assert_eq!(r.times.fin_wait_2, Duration::ZERO);
    assert_eq!(r.times.closing, Duration::ZERO);
    h.wait_out();
}

#[test]
fn c04_simultaneous_close_the_fin_first() {
    let mut h = Harness::open();
    h.act(&[Do::Shutdown]);
    recv!(h, FIN|ACK seq=1, ack=1);
    after!(h, 10);
    send!(h, FIN|ACK seq=1, ack=1);
    recv!(h, ACK seq=2, ack=2);
    state!(h, Closing);
    assert_eq!(h.told(), [Told::PeerClosed]);
    after!(h, 20);
    send!(h, ACK seq=2, ack=2);
    nothing!(h);
    let r = h.closed(ClosePath::Simultaneous, First::Both, Cause::Service);
    assert_eq!(r.times.fin_wait_1, Duration::from_millis(10));
    assert_eq!(r.times.closing, Duration::from_millis(20));
    assert_eq!(h.told(), [Told::Closed]);
    h.wait_out();
}

#[test]
fn c04_simultaneous_close_the_ack_overtakes_the_fin() {
    let mut h = Harness::open();
    h.act(&[Do::Close]);
    recv!(h, FIN|ACK seq=1, ack=1);
    // The peer sent its FIN, then the ACK of ours; they arrive the other way round, in one burst.
    h.put(&Seg::new(&[crate::wire::Flags::ACK]).seq(2).ack(2));
    send!(h, FIN|ACK seq=1, ack=1);
    recv!(h, ACK seq=2, ack=2);
    h.closed(ClosePath::Active, First::Us, Cause::Service);
    h.wait_out();
}

#[test]
fn c04_simultaneous_close_with_data_on_both_fins() {
    let mut h = Harness::open();
    h.act(&[Do::Send(100), Do::Shutdown]);
    recv!(h, FIN|PSH|ACK seq=1, ack=1, len=100);
    send!(h, FIN|PSH|ACK seq=1, ack=1, len=50);
    recv!(h, ACK seq=102, ack=52);
    state!(h, Closing);
    assert_eq!(h.told(), [Told::Data(50), Told::PeerClosed]);
    // The data alone is acknowledged: still CLOSING.
    send!(h, ACK seq=52, ack=101);
    state!(h, Closing);
    send!(h, ACK seq=52, ack=102);
    let r = h.closed(ClosePath::Simultaneous, First::Both, Cause::Service);
    assert_eq!((r.bytes_in, r.bytes_out, r.unacknowledged), (50, 100, 0));
    h.wait_out();
}

#[test]
fn c05_fin_with_data() {
    let mut h = Harness::open();
    h.service().peer_closed = vec![Do::Close];
    send!(h, FIN|PSH|ACK seq=1, ack=1, len=10);
    recv!(h, FIN|ACK seq=1, ack=12);
    assert_eq!(h.told(), [Told::Data(10), Told::PeerClosed]);
    send!(h, ACK seq=12, ack=2);
    let r = h.closed(ClosePath::Passive, First::Peer, Cause::Peer);
    assert_eq!(r.bytes_in, 10);
    h.all_gone();
}

#[test]
fn c05_the_end_of_the_stream_is_told_after_the_last_byte_is_consumed() {
    let mut h = Harness::open();
    h.service().take = 4;
    send!(h, FIN|ACK seq=1, ack=1, len=10);
    assert_eq!(h.told(), [Told::Data(10), Told::Data(6), Told::Data(2), Told::PeerClosed]);
    recv!(h, ACK seq=1, ack=12);
    state!(h, CloseWait);
    h.act(&[Do::Close]);
    recv!(h, FIN|ACK seq=1, ack=12);
    send!(h, ACK seq=12, ack=2);
    h.closed(ClosePath::Passive, First::Peer, Cause::Peer);
    h.all_gone();
}

#[test]
fn c05_a_service_that_waits_for_send_space_gets_the_rest_and_then_the_end() {
    let mut h = Harness::open_tuned(|s| s.tcp.send_buffer = 1000);
    h.act(&[Do::Send(1500)]);
    recv!(h, PSH|ACK seq=1, ack=1, len=1000);
    h.service().take = 0;
    send!(h, FIN|ACK seq=1, ack=1, len=10);
    recv!(h, ACK seq=1001, ack=12);
    assert_eq!(h.told(), [Told::Data(10), Told::Data(10)], "the end is not told before the bytes are taken");
    h.service().take = usize::MAX;
    h.service().peer_closed = vec![Do::Close];
    send!(h, ACK seq=12, ack=1001);
    assert_eq!(h.told(), [Told::Data(10), Told::PeerClosed]);
    recv!(h, FIN|ACK seq=1001, ack=12);
    send!(h, ACK seq=12, ack=1002);
    h.closed(ClosePath::Passive, First::Peer, Cause::Peer);
    h.all_gone();
}

#[test]
fn c06_data_flows_in_fin_wait_2() {
    let mut h = Harness::open();
    h.act(&[Do::Shutdown]);
    recv!(h, FIN|ACK seq=1, ack=1);
    // Also before our FIN is acknowledged.
    send!(h, ACK seq=1, ack=1, len=1000);
    state!(h, FinWait1);
    after!(h, 39);
    nothing!(h);
    after!(h, 1);
    recv!(h, ACK seq=2, ack=1001);
    send!(h, ACK seq=1001, ack=2);
    state!(h, FinWait2);
    for i in 0..10 {
        send!(h, ACK seq=1001 + i * 2000, ack=2, len=1000);
        nothing!(h);
        send!(h, ACK seq=2001 + i * 2000, ack=2, len=1000);
        recv!(h, ACK seq=2, ack=3001 + i * 2000);
    }
    send!(h, FIN|ACK seq=21_001, ack=2, len=500);
    recv!(h, ACK seq=2, ack=21_502);
    assert_eq!(h.told().last_chunk(), Some(&[Told::Data(500), Told::PeerClosed, Told::Closed]));
    let r = h.closed(ClosePath::HalfClose, First::Us, Cause::Service);
    assert_eq!(r.bytes_in, 21_500);
    h.wait_out();
}

#[test]
fn c06_data_flows_in_close_wait() {
    let mut h = Harness::open();
    send!(h, FIN|ACK seq=1, ack=1);
    recv!(h, ACK seq=1, ack=2);
    h.act(&[Do::Send(3000)]);
    recv!(h, ACK seq=1, ack=2, len=1460);
    recv!(h, ACK seq=1461, ack=2, len=1460);
    recv!(h, PSH|ACK seq=2921, ack=2, len=80);
    send!(h, ACK seq=2, ack=3001);
    state!(h, CloseWait);
    h.act(&[Do::Send(100)]);
    recv!(h, PSH|ACK seq=3001, ack=2, len=100);
    // Lost: sent again as in ESTABLISHED.
    after!(h, 200);
    recv!(h, PSH|ACK seq=3001, ack=2, len=100);
    h.act(&[Do::Close]);
    recv!(h, FIN|ACK seq=3101, ack=2);
    send!(h, ACK seq=2, ack=3102);
    let r = h.closed(ClosePath::HalfClose, First::Peer, Cause::Peer);
    assert_eq!(r.bytes_out, 3100);
    h.all_gone();
}

#[test]
fn c06_an_answer_sent_with_the_close_in_one_call_is_a_half_close_too() {
    let mut h = Harness::open();
    h.service().peer_closed = vec![Do::Send(100), Do::Close];
    send!(h, FIN|ACK seq=1, ack=1);
    recv!(h, FIN|PSH|ACK seq=1, ack=2, len=100);
    send!(h, ACK seq=2, ack=102);
    h.closed(ClosePath::HalfClose, First::Peer, Cause::Peer);
    h.all_gone();
}

#[test]
fn c08_fin_out_of_order_is_kept_until_the_gap_fills() {
    let mut h = Harness::open();
    send!(h, FIN|ACK seq=101, ack=1);
    recv!(h, ACK seq=1, ack=1);
    state!(h, Established);
    assert_eq!(h.told(), []);
    send!(h, ACK seq=51, ack=1, len=50);
    recv!(h, ACK seq=1, ack=1);
    send!(h, ACK seq=1, ack=1, len=50);
    recv!(h, ACK seq=1, ack=102);
    state!(h, CloseWait);
    assert_eq!(h.told(), [Told::Data(50), Told::Data(50), Told::PeerClosed]);
    h.act(&[Do::Close]);
    recv!(h, FIN|ACK seq=1, ack=102);
    send!(h, ACK seq=102, ack=2);
    h.closed(ClosePath::Passive, First::Peer, Cause::Peer);
    h.all_gone();
}

#[test]
fn c08_fin_with_data_out_of_order_twice() {
    let mut h = Harness::open();
    for _ in 0..2 {
        send!(h, FIN|ACK seq=101, ack=1, len=50);
        recv!(h, ACK seq=1, ack=1);
    }
    send!(h, ACK seq=1, ack=1, len=100);
    recv!(h, ACK seq=1, ack=152);
    assert_eq!(h.told(), [Told::Data(100), Told::Data(50), Told::PeerClosed]);
    h.act(&[Do::Close]);
    recv!(h, FIN|ACK seq=1, ack=152);
    send!(h, ACK seq=152, ack=2);
    h.closed(ClosePath::Passive, First::Peer, Cause::Peer);
    h.all_gone();
}

#[test]
fn c08_fin_out_of_order_in_fin_wait_1_and_2() {
    for acked in [1, 2] {
        let mut h = Harness::open();
        h.act(&[Do::Shutdown]);
        recv!(h, FIN|ACK seq=1, ack=1);
        send!(h, FIN|ACK seq=101, ack=acked);
        recv!(h, ACK seq=2, ack=1);
        send!(h, ACK seq=1, ack=2, len=100);
        recv!(h, ACK seq=2, ack=102);
        h.closed(ClosePath::HalfClose, First::Us, Cause::Service);
        h.wait_out();
    }
}

#[test]
fn c09_data_beyond_the_fin_is_acknowledged_and_dropped() {
    let mut h = Harness::open();
    send!(h, FIN|ACK seq=1, ack=1, len=10);
    recv!(h, ACK seq=1, ack=12);
    assert_eq!(h.told(), [Told::Data(10), Told::PeerClosed]);
    send!(h, ACK seq=12, ack=1, len=10);
    recv!(h, ACK seq=1, ack=12);
    state!(h, CloseWait);
    assert_eq!(h.told(), []);
    assert_eq!(h.counters().drops[crate::drop::DropReason::AfterFin as usize], 1);
    h.act(&[Do::Close]);
    recv!(h, FIN|ACK seq=1, ack=12);
    send!(h, ACK seq=12, ack=1, len=10);
    recv!(h, ACK seq=2, ack=12);
    state!(h, LastAck);
    send!(h, ACK seq=12, ack=2, len=10);
    state!(h, Closed);
    let r = h.closed(ClosePath::Passive, First::Peer, Cause::Peer);
    assert_eq!(r.bytes_in, 10);
    h.all_gone();
}

#[test]
fn c09_data_that_reaches_over_a_known_fin_is_cut_there() {
    let mut h = Harness::open();
    send!(h, FIN|ACK seq=51, ack=1);
    recv!(h, ACK seq=1, ack=1);
    send!(h, ACK seq=1, ack=1, len=100);
    recv!(h, ACK seq=1, ack=52);
    assert_eq!(h.told(), [Told::Data(50), Told::PeerClosed]);
    h.act(&[Do::Abort]);
    recv!(h, RST|ACK seq=1, ack=52);
    h.closed(ClosePath::Reset, First::Peer, Cause::Abort);
    h.all_gone();
}

#[test]
fn c09_data_held_beyond_a_fin_that_comes_later_is_dropped() {
    let mut h = Harness::open();
    // Bytes 40 to 99 out of order, then a FIN after byte 50: the peer contradicts itself.
    send!(h, ACK seq=40, ack=1, len=60);
    recv!(h, ACK seq=1, ack=1);
    send!(h, FIN|ACK seq=51, ack=1);
    recv!(h, ACK seq=1, ack=1);
    send!(h, ACK seq=1, ack=1, len=50);
    recv!(h, ACK seq=1, ack=52);
    state!(h, CloseWait);
    h.act(&[Do::Close]);
    recv!(h, FIN|ACK seq=1, ack=52);
    send!(h, ACK seq=52, ack=2);
    let r = h.closed(ClosePath::Passive, First::Peer, Cause::Peer);
    assert_eq!(r.bytes_in, 50);
    h.all_gone();
}

#[test]
fn c09_a_fin_beyond_the_window_is_not_taken() {
    let mut h = Harness::open_tuned(|s| s.tcp.receive_buffer = 1000);
    send!(h, FIN|ACK seq=1002, ack=1);
    recv!(h, ACK seq=1, ack=1);
    // In part: the bytes within are kept, the FIN is not.
    send!(h, FIN|ACK seq=501, ack=1, len=600);
    recv!(h, ACK seq=1, ack=1);
    send!(h, ACK seq=1, ack=1, len=500);
    recv!(h, ACK seq=1, ack=1001, win=1000);
    state!(h, Established);
    send!(h, FIN|ACK seq=1001, ack=1, len=100);
    recv!(h, ACK seq=1, ack=1102);
    state!(h, CloseWait);
    assert_eq!(h.told().last_chunk(), Some(&[Told::Data(100), Told::PeerClosed]));
    h.act(&[Do::Close]);
    recv!(h, FIN|ACK seq=1, ack=1102);
    send!(h, ACK seq=1102, ack=2);
    h.closed(ClosePath::Passive, First::Peer, Cause::Peer);
    h.all_gone();
}

#[test]
fn c09_a_fin_is_taken_with_our_window_closed() {
    let mut h = Harness::open_tuned(|s| s.tcp.receive_buffer = 1000);
    h.service().take = 0;
    send!(h, ACK seq=1, ack=1, len=1000);
    after!(h, 40);
    recv!(h, ACK seq=1, ack=1001, win=0);
    // One byte too many: dropped with its FIN.
    send!(h, FIN|ACK seq=1001, ack=1, len=1);
    recv!(h, ACK seq=1, ack=1001, win=0);
    state!(h, Established);
    send!(h, FIN|ACK seq=1001, ack=1);
    recv!(h, ACK seq=1, ack=1002, win=0);
    state!(h, CloseWait);
    let told = h.told();
    assert!(!told.contains(&Told::PeerClosed), "{told:?}");
    h.act(&[Do::Close]);
    recv!(h, RST|ACK seq=1, ack=1002);
    h.closed(ClosePath::Reset, First::Peer, Cause::UnreadData);
    h.all_gone();
}

#[test]
fn c10_fin_again_in_close_wait_closing_and_last_ack() {
    let mut h = Harness::open();
    send!(h, FIN|ACK seq=1, ack=1, len=10);
    recv!(h, ACK seq=1, ack=12);
    send!(h, FIN|ACK seq=1, ack=1, len=10);
    recv!(h, ACK seq=1, ack=12);
    send!(h, FIN|ACK seq=11, ack=1);
    recv!(h, ACK seq=1, ack=12);
    state!(h, CloseWait);
    assert_eq!(h.told(), [Told::Data(10), Told::PeerClosed], "told once");
    h.act(&[Do::Close]);
    recv!(h, FIN|ACK seq=1, ack=12);
    send!(h, FIN|ACK seq=11, ack=1);
    recv!(h, ACK seq=2, ack=12);
    state!(h, LastAck);
    send!(h, ACK seq=12, ack=2);
    h.closed(ClosePath::Passive, First::Peer, Cause::Peer);
    h.all_gone();

    let mut h = Harness::open();
    h.act(&[Do::Close]);
    recv!(h, FIN|ACK seq=1, ack=1);
    send!(h, FIN|ACK seq=1, ack=1);
    recv!(h, ACK seq=2, ack=2);
    send!(h, FIN|ACK seq=1, ack=1);
    recv!(h, ACK seq=2, ack=2);
    state!(h, Closing);
    send!(h, ACK seq=2, ack=2);
    h.closed(ClosePath::Simultaneous, First::Both, Cause::Service);
    h.wait_out();
}

#[test]
fn c11_unsent_data_is_delivered_before_our_fin() {
    let mut h = Harness::new();
    h.win = 1000;
    h.handshake(Syn::PLAIN);
    h.act(&[Do::Send(2500), Do::Close]);
    recv!(h, ACK seq=1, ack=1, len=1000);
    nothing!(h);
    state!(h, FinWait1);
    send!(h, ACK seq=1, ack=1001, win=1000);
    recv!(h, ACK seq=1001, ack=1, len=1000);
    send!(h, ACK seq=1, ack=2001, win=1000);
    recv!(h, FIN|PSH|ACK seq=2001, ack=1, len=500);
    // All but the FIN.
    send!(h, ACK seq=1, ack=2501, win=1000);
    state!(h, FinWait1);
    send!(h, ACK seq=1, ack=2502, win=1000);
    state!(h, FinWait2);
    send!(h, FIN|ACK seq=1, ack=2502);
    recv!(h, ACK seq=2502, ack=2);
    let r = h.closed(ClosePath::Active, First::Us, Cause::Service);
    assert_eq!((r.bytes_out, r.unacknowledged), (2500, 0));
    h.wait_out();
}

#[test]
fn c11_unacknowledged_data_is_sent_again_before_our_fin_counts() {
    let mut h = Harness::open();
    send!(h, FIN|ACK seq=1, ack=1);
    recv!(h, ACK seq=1, ack=2);
    h.act(&[Do::Send(100)]);
    recv!(h, PSH|ACK seq=1, ack=2, len=100);
    h.act(&[Do::Close]);
    recv!(h, FIN|ACK seq=101, ack=2);
    // The data was lost, the FIN was not: the peer repeats where it is.
    send!(h, ACK seq=2, ack=1);
    state!(h, LastAck);
    after!(h, 200);
    recv!(h, FIN|PSH|ACK seq=1, ack=2, len=100);
    send!(h, ACK seq=2, ack=102);
    let r = h.closed(ClosePath::HalfClose, First::Peer, Cause::Peer);
    assert_eq!((r.bytes_out, r.unacknowledged, r.fin_retransmissions), (100, 0, 1));
    h.all_gone();
}

#[test]
fn c11_a_closed_window_holds_the_data_and_the_fin_behind_it() {
    let mut h = Harness::open();
    send!(h, ACK seq=1, ack=1, win=0);
    h.act(&[Do::Send(100), Do::Close]);
    nothing!(h);
    state!(h, FinWait1);
    after!(h, 200);
    recv!(h, ACK seq=0, ack=1);
    send!(h, ACK seq=1, ack=1, win=0);
    after!(h, 400);
    recv!(h, ACK seq=0, ack=1);
    nothing!(h);
    send!(h, ACK seq=1, ack=1, win=1000);
    recv!(h, FIN|PSH|ACK seq=1, ack=1, len=100);
    send!(h, FIN|ACK seq=1, ack=102);
    recv!(h, ACK seq=102, ack=2);
    let r = h.closed(ClosePath::Active, First::Us, Cause::Service);
    assert_eq!((r.bytes_out, r.fin_retransmissions), (100, 0));
    h.wait_out();
}

#[test]
fn c11_a_fin_with_nothing_before_it_needs_no_window() {
    let mut h = Harness::open();
    send!(h, ACK seq=1, ack=1, win=0);
    h.act(&[Do::Close]);
    recv!(h, FIN|ACK seq=1, ack=1);
    send!(h, FIN|ACK seq=1, ack=2, win=0);
    recv!(h, ACK seq=2, ack=2);
    h.closed(ClosePath::Active, First::Us, Cause::Service);
    h.wait_out();
}
