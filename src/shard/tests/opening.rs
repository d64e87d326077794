//! Opening, from either side (o01 to o09, o11).

use super::harness::PEER_PORT;
use super::*;
use crate::drop::DropReason;
use crate::metrics::block::Retransmission;
use crate::tcp::record::{Cause, ClosePath, First};
use crate::wire::Options;

#[test]
fn o01_passive_open_on_both_families_with_and_without_options() {
    for v6 in [false, true] {
        for syn in [Syn::PLAIN, Syn::FULL] {
            let mut h = Harness::tuned(|s| s.v6 = v6);
            h.handshake(syn);
            assert_eq!(h.told(), []);
            send!(h, ACK seq=1, ack=1, len=10);
            assert_eq!(h.told(), [Told::Data(10)]);
            assert_eq!(h.counters().opened_passive, 1);
        }
    }
}

#[test]
fn o01_data_with_the_handshakes_ack_is_delivered() {
    let mut h = Harness::new();
    send!(h, SYN seq=0, ack=0, syn=Syn::PLAIN);
    recv!(h, SYN|ACK seq=0, ack=1);
    send!(h, ACK seq=1, ack=1, len=100);
    assert_eq!(h.told(), [Told::Opened, Told::Data(100)]);
    after!(h, 40);
    recv!(h, ACK seq=1, ack=101);
}

#[test]
fn o01_the_handshakes_ack_lost_data_completes_it() {
    let mut h = Harness::new();
    send!(h, SYN seq=0, ack=0, syn=Syn::PLAIN);
    recv!(h, SYN|ACK seq=0, ack=1);
    // The first data segment is lost as well.
    send!(h, ACK seq=101, ack=1, len=100);
    state!(h, Established);
    recv!(h, ACK seq=1, ack=1);
    send!(h, ACK seq=1, ack=1, len=100);
    recv!(h, ACK seq=1, ack=201);
    assert_eq!(h.told(), [Told::Opened, Told::Data(100), Told::Data(100)]);
}

#[test]
fn o01_a_bad_ack_of_the_handshake_gets_rst_and_the_good_one_still_opens() {
    let mut h = Harness::new();
    send!(h, SYN seq=0, ack=0, syn=Syn::PLAIN);
    recv!(h, SYN|ACK seq=0, ack=1);
    for ack in [0, 2, 5000, -1] {
        send!(h, ACK seq=1, ack=ack);
        recv!(h, RST seq=ack, ack=0);
        state!(h, SynReceived);
    }
    send!(h, ACK seq=1, ack=1);
    nothing!(h);
    state!(h, Established);
}

#[test]
fn o01_a_rst_takes_a_half_open_connection_back() {
    let mut h = Harness::new();
    send!(h, SYN seq=0, ack=0);
    recv!(h, SYN|ACK seq=0, ack=1);
    send!(h, RST seq=0);
    send!(h, RST seq=70000);
    nothing!(h);
    send!(h, RST seq=2);
    recv!(h, ACK seq=1, ack=1);
    state!(h, SynReceived);
    send!(h, RST seq=1);
    state!(h, Closed);
    h.all_gone();
    assert_eq!(h.told(), [], "the service never heard of it");
}

#[test]
fn o05_a_syn_again_is_one_connection() {
    let mut h = Harness::new();
    for _ in 0..4 {
        send!(h, SYN seq=0, ack=0, syn=Syn::PLAIN);
        recv!(h, SYN|ACK seq=0, ack=1);
        assert_eq!(h.shard.records(), 1);
    }
    assert_eq!(h.counters().retransmissions[Retransmission::SynAck as usize], 3);
    send!(h, ACK seq=1, ack=1);
    assert_eq!(h.told(), [Told::Opened]);
    // Delayed on its way, after the handshake: a challenge, no more.
    send!(h, SYN seq=0, ack=0, syn=Syn::PLAIN);
    recv!(h, ACK seq=1, ack=1);
    assert_eq!(h.shard.records(), 1);
}

#[test]
fn o05_another_syn_from_the_same_port_gets_rid_of_the_old_attempt() {
    let mut h = Harness::new();
    send!(h, SYN seq=0, ack=0);
    recv!(h, SYN|ACK seq=0, ack=1);
    send!(h, SYN seq=500_000, ack=0);
    recv!(h, ACK seq=1, ack=1);
    send!(h, RST seq=1);
    state!(h, Closed);
    h.reincarnate(500_000);
    h.handshake(Syn::PLAIN);
}

#[test]
fn o04_data_in_a_syn_is_not_lost() {
    let mut h = Harness::new();
    send!(h, SYN seq=0, ack=0, len=50, syn=Syn::PLAIN);
    // Only the SYN is acknowledged, so the peer sends the data again.
    recv!(h, SYN|ACK seq=0, ack=1);
    send!(h, ACK seq=1, ack=1, len=50);
    assert_eq!(h.told(), [Told::Opened, Told::Data(50)]);
}

/// Bytes of the first segment of a bulk transfer to a peer with this SYN.
fn first_segment(v6: bool, mtu: u16, syn: Syn) -> usize {
    let mut h = Harness::tuned(|s| {
        s.v6 = v6;
        s.tcp.mtu = mtu;
    });
    h.handshake(syn);
    h.act(&[Do::Send(8000)]);
    let seen = h.out.pop_front().expect("data");
    h.out.clear();
    seen.payload.len()
}

#[test]
fn o06_the_mss_has_the_defaults_of_the_rfc_and_is_clamped() {
    let none = Syn { mss: None, ..Syn::PLAIN };
    assert_eq!(first_segment(false, 1500, none), 536);
    assert_eq!(first_segment(true, 1500, none), 1220);
    assert_eq!(first_segment(false, 1500, Syn::PLAIN), 1460);
    assert_eq!(first_segment(true, 1500, Syn::PLAIN), 1440, "no more than the interface takes");
    assert_eq!(first_segment(false, 576, none), 536);
    assert_eq!(first_segment(false, 1500, Syn { mss: Some(u16::MAX), ..Syn::PLAIN }), 1460);
    assert_eq!(first_segment(false, 1500, Syn { mss: Some(0), ..Syn::PLAIN }), 536, "0 says nothing");
    for tiny in [1, 87] {
        assert_eq!(first_segment(false, 1500, Syn { mss: Some(tiny), ..Syn::PLAIN }), 88, "MSS {tiny}");
    }
    assert_eq!(first_segment(false, 1500, Syn::FULL), 1448, "timestamps take room (RFC 6691)");
}

#[test]
fn o06_malformed_options_of_a_syn_are_as_none() {
    let mut h = Harness::new();
    let mut frame = h.frame(&Seg::new(&[crate::wire::Flags::SYN]).seq(0).syn(Syn::PLAIN));
    // The MSS option's length runs past the header; the checksum is mended for it.
    assert_eq!(frame[54..56], [2, 4]);
    frame[55] = 40;
    let sum = u16::from_be_bytes([frame[50], frame[51]]);
    let mended = u32::from(!sum) + 36;
    let mended = !((mended & 0xffff) + (mended >> 16)) as u16;
    frame[50..52].copy_from_slice(&mended.to_be_bytes());
    h.send_raw(&frame);
    let header = recv!(h, SYN|ACK seq=0, ack=1);
    assert_eq!(header.options, Options { mss: Some(1460), ..Options::default() });
    send!(h, ACK seq=1, ack=1);
    h.act(&[Do::Send(1000)]);
    recv!(h, ACK seq=1, ack=1, len=536);
}

#[test]
fn o06_a_window_scale_beyond_14_is_14() {
    let mut h = Harness::new();
    h.peer_mut().ts = false;
    send!(h, SYN seq=0, ack=0, syn=Syn { scale: Some(200), ..Syn::PLAIN });
    recv!(h, SYN|ACK seq=0, ack=1);
    send!(h, ACK seq=1, ack=1, win=1);
    h.act(&[Do::Send(100_000)]);
    // Ten segments of the initial window, then one more for each that is acknowledged, up to 1 << 14.
    h.out.clear();
    for i in 1..=10 {
        h.send(&Seg::new(&[crate::wire::Flags::ACK]).ack(1 + i * 1460).win(1));
    }
    let highest = h.out.back().expect("data").header.seq.raw();
    let len = h.out.back().expect("data").payload.len() as u32;
    let una = h.peer_mut().irs.expect("seen").raw().wrapping_add(1 + 14_600);
    assert_eq!(
        highest.wrapping_add(len).wrapping_sub(una),
        11 * 1460,
        "as many full segments as 16,384 bytes hold"
    );
}

#[test]
fn o07_each_attempt_has_an_isn_of_its_own() {
    let mut h = Harness::new();
    let mut seen = Vec::new();
    for port in PEER_PORT..PEER_PORT + 10 {
        h.peer(port);
        send!(h, SYN seq=0, ack=0);
        seen.push(recv!(h, SYN|ACK seq=0, ack=1).seq.raw());
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 10);
}

#[test]
fn o11_a_full_table_drops_the_syn_and_is_counted() {
    let mut h = Harness::tuned(|s| {
        s.capacity.half_open = 2;
        s.tcp.syn_cookies = None;
    });
    for port in PEER_PORT..PEER_PORT + 2 {
        h.peer(port);
        send!(h, SYN seq=0, ack=0, syn=Syn::PLAIN);
        recv!(h, SYN|ACK seq=0, ack=1);
    }
    h.peer(PEER_PORT + 2);
    send!(h, SYN seq=0, ack=0, syn=Syn::PLAIN);
    nothing!(h);
    assert_eq!(h.counters().drops[DropReason::SynTableFull as usize], 1);
    h.peer(PEER_PORT);
    send!(h, ACK seq=1, ack=1);
    h.peer(PEER_PORT + 2);
    h.handshake(Syn::PLAIN);
}

#[test]
fn o11_the_syn_ack_is_sent_again_with_back_off_and_given_up() {
    let mut h = Harness::tuned(|s| s.tcp.syn_retries = 3);
    send!(h, SYN seq=0, ack=0);
    recv!(h, SYN|ACK seq=0, ack=1);
    for wait in [1000, 2000, 4000] {
        after!(h, wait - 1);
        nothing!(h);
        after!(h, 1);
        recv!(h, SYN|ACK seq=0, ack=1);
    }
    after!(h, 8000);
    assert_eq!(h.counters().half_open_given_up, 1);
    h.all_gone();
}

#[test]
fn o11_an_ack_that_finds_the_connection_table_full_may_come_again() {
    let mut h = Harness::tuned(|s| s.capacity.connections = 1);
    h.handshake(Syn::PLAIN);
    h.peer(PEER_PORT + 1);
    send!(h, SYN seq=0, ack=0);
    recv!(h, SYN|ACK seq=0, ack=1);
    send!(h, ACK seq=1, ack=1);
    assert_eq!(h.counters().drops[DropReason::ConnTableFull as usize], 1);
    h.peer(PEER_PORT);
    h.act(&[Do::Abort]);
    recv!(h, RST|ACK seq=1, ack=1);
    h.service().records.clear();
    h.peer(PEER_PORT + 1);
    send!(h, ACK seq=1, ack=1, len=5);
    state!(h, Established);
}

#[test]
fn o06_timestamps_agreed_on_and_then_left_out_open_nothing() {
    let mut h = Harness::tuned(|s| s.tcp.syn_retries = 1);
    h.peer_mut().ts = true;
    send!(h, SYN seq=0, ack=0, syn=Syn::FULL);
    recv!(h, SYN|ACK seq=0, ack=1);
    send!(h, ACK seq=1, ack=1, bare=true);
    nothing!(h);
    state!(h, SynReceived);
    after!(h, 1000);
    recv!(h, SYN|ACK seq=0, ack=1);
    after!(h, 4000);
    h.all_gone();
}

#[test]
fn o02_active_open() {
    for syn in [Syn::PLAIN, Syn::FULL] {
        let mut h = Harness::new();
        h.connect();
        let ours = recv!(h, SYN seq=0, ack=0).options;
        assert!(ours.mss == Some(1460) && ours.sack_permitted && ours.window_scale.is_some());
        assert!(ours.timestamps.is_some());
        state!(h, SynSent);
        h.peer_mut().ts = syn.ts;
        send!(h, SYN|ACK seq=0, ack=1, syn=syn);
        recv!(h, ACK seq=1, ack=1);
        state!(h, Established);
        assert_eq!(h.told(), [Told::Opened]);
        send!(h, ACK seq=1, ack=1, len=10);
        assert_eq!(h.told(), [Told::Data(10)]);
        // The peer's SYN-ACK again: our ACK was lost.
        send!(h, SYN|ACK seq=0, ack=1, syn=syn);
        recv!(h, ACK seq=1, ack=11);
    }
}

#[test]
fn o04_data_in_a_syn_ack_is_delivered() {
    let mut h = Harness::new();
    h.connect();
    recv!(h, SYN seq=0, ack=0);
    send!(h, SYN|ACK seq=0, ack=1, len=20, syn=Syn::PLAIN);
    recv!(h, ACK seq=1, ack=21);
    assert_eq!(h.told(), [Told::Opened, Told::Data(20)]);
    after!(h, 1000);
    nothing!(h);
}

#[test]
fn o02_a_bad_ack_gets_rst_and_the_open_goes_on() {
    let mut h = Harness::new();
    h.connect();
    recv!(h, SYN seq=0, ack=0);
    for ack in [0, 2, -7, 100_000] {
        send!(h, SYN|ACK seq=0, ack=ack);
        recv!(h, RST seq=ack, ack=0);
        send!(h, ACK seq=0, ack=ack);
        recv!(h, RST seq=ack, ack=0);
        send!(h, RST|ACK seq=0, ack=ack);
        nothing!(h);
        state!(h, SynSent);
    }
    // Neither is anything that says nothing about our SYN.
    send!(h, RST seq=0);
    send!(h, ACK seq=0, ack=1);
    send!(h, FIN|ACK seq=0, ack=1);
    send!(h, FIN seq=0);
    nothing!(h);
    state!(h, SynSent);
    send!(h, SYN|ACK seq=0, ack=1);
    recv!(h, ACK seq=1, ack=1);
    state!(h, Established);
}

#[test]
fn o02_a_refused_open_is_told_and_gone() {
    let mut h = Harness::new();
    h.connect();
    recv!(h, SYN seq=0, ack=0);
    send!(h, RST|ACK seq=0, ack=1);
    state!(h, Closed);
    assert_eq!(h.told(), [Told::Closed]);
    h.closed(ClosePath::Reset, First::Peer, Cause::Refused);
    h.all_gone();
}

#[test]
fn o02_the_syn_is_sent_again_with_back_off_and_given_up() {
    let mut h = Harness::tuned(|s| s.tcp.syn_retries = 3);
    h.connect();
    recv!(h, SYN seq=0, ack=0);
    for wait in [1000, 2000, 4000] {
        after!(h, wait - 1);
        nothing!(h);
        after!(h, 1);
        recv!(h, SYN seq=0, ack=0);
    }
    after!(h, 8000);
    state!(h, Closed);
    assert_eq!(h.counters().retransmissions[Retransmission::Syn as usize], 3);
    h.closed(ClosePath::Timeout, First::Nobody, Cause::GiveUp);
    h.all_gone();
}

#[test]
fn o03_simultaneous_open_by_the_peers_syn_ack() {
    for syn in [Syn::PLAIN, Syn::FULL] {
        let mut h = Harness::new();
        h.connect();
        recv!(h, SYN seq=0, ack=0);
        h.peer_mut().ts = syn.ts;
        send!(h, SYN seq=0, ack=0, syn=syn);
        let ours = recv!(h, SYN|ACK seq=0, ack=1).options;
        assert_eq!((ours.timestamps.is_some(), ours.sack_permitted), (syn.ts, syn.sack));
        state!(h, SynReceived);
        // RFC 9293 §3.5, figure 8: the SYN-ACK begins before the window and completes the handshake all the same.
        send!(h, SYN|ACK seq=0, ack=1, syn=syn, win=1000);
        recv!(h, ACK seq=1, ack=1);
        state!(h, Established);
        assert_eq!(h.told(), [Told::Opened]);
        h.act(&[Do::Send(3000)]);
        recv!(h, ACK seq=1, ack=1, len=1000);
        nothing!(h);
    }
}

#[test]
fn o03_simultaneous_open_by_an_ack_and_with_lost_segments() {
    let mut h = Harness::new();
    h.connect();
    recv!(h, SYN seq=0, ack=0);
    send!(h, SYN seq=0, ack=0, syn=Syn::PLAIN);
    recv!(h, SYN|ACK seq=0, ack=1);
    // Our SYN-ACK is lost: the peer's SYN comes again, and our timer fires.
    send!(h, SYN seq=0, ack=0, syn=Syn::PLAIN);
    recv!(h, SYN|ACK seq=0, ack=1);
    after!(h, 1000);
    recv!(h, SYN|ACK seq=0, ack=1);
    send!(h, ACK seq=1, ack=2);
    recv!(h, RST seq=2, ack=0);
    state!(h, SynReceived);
    send!(h, ACK seq=1, ack=1, len=10);
    state!(h, Established);
    assert_eq!(h.told(), [Told::Opened, Told::Data(10)]);
}

#[test]
fn o03_a_simultaneous_open_is_refused_or_given_up() {
    let mut h = Harness::tuned(|s| s.tcp.syn_retries = 2);
    h.connect();
    recv!(h, SYN seq=0, ack=0);
    send!(h, SYN seq=0, ack=0);
    recv!(h, SYN|ACK seq=0, ack=1);
    send!(h, RST seq=5);
    recv!(h, ACK seq=1, ack=1);
    send!(h, SYN seq=9, ack=0);
    recv!(h, ACK seq=1, ack=1);
    after!(h, 30_000);
    recv!(h, SYN|ACK seq=0, ack=1);
    recv!(h, SYN|ACK seq=0, ack=1);
    state!(h, Closed);
    h.closed(ClosePath::Timeout, First::Nobody, Cause::GiveUp);
    h.all_gone();
}

/// Two ends that answer each other's empty segments would do nothing else.
#[test]
fn o11_a_half_open_record_answers_few_empty_segments_out_of_place() {
    let mut h = Harness::new();
    send!(h, SYN seq=0, ack=0, syn=Syn::PLAIN);
    recv!(h, SYN|ACK seq=0, ack=1);
    for _ in 0..2 {
        for _ in 0..3 {
            send!(h, ACK seq=90_000, ack=70_000);
            recv!(h, ACK seq=1, ack=1);
        }
        send!(h, ACK seq=90_000, ack=70_000);
        nothing!(h);
        // Until the SYN-ACK comes again.
        after!(h, 2000);
        recv!(h, SYN|ACK seq=0, ack=1);
    }
    assert_eq!(h.counters().drops[DropReason::OutOfWindow as usize], 2);
    send!(h, ACK seq=90_000, ack=70_000, len=10);
    recv!(h, ACK seq=1, ack=1);
    send!(h, ACK seq=1, ack=1);
    state!(h, Established);
}
