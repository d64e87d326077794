//! When a connection is at rest, and what it is lent while it is not.

use super::harness::Setup;
use super::recovery::{MSS, SACK, at, sack, segments};
use super::words::{ACK, ack, data, retransmissions};
use super::{Do, Harness, Seg, Syn, after, nothing, recv, send, state};
use crate::metrics::block::Retransmission;
use crate::tcp::record::{Cause, ClosePath, First};
use crate::wire::Flags;

#[track_caller]
fn lent(h: &Harness, flights: usize) {
    assert_eq!(h.shard.flights_lent(), flights, "flights lent");
}

fn both_families(life: impl Fn(Harness)) {
    for v6 in [false, true] {
        life(Harness::tuned(|s| s.v6 = v6));
    }
}

#[test]
fn a_connection_without_data_never_keeps_a_flight() {
    both_families(|mut h| {
        h.service().peer_closed = vec![Do::Close];
        h.handshake(Syn::FULL);
        lent(&h, 0);
        after!(h, 60_000);
        lent(&h, 0);
        send!(h, FIN|ACK seq=1, ack=1);
        recv!(h, FIN|ACK seq=1, ack=2);
        state!(h, LastAck);
        lent(&h, 0);
        send!(h, ACK seq=2, ack=2);
        h.closed(ClosePath::Passive, First::Peer, Cause::Peer);
        h.all_gone();
    });
    both_families(|mut h| {
        h.handshake(Syn::FULL);
        h.act(&[Do::Close]);
        recv!(h, FIN|ACK seq=1, ack=1);
        lent(&h, 0);
        send!(h, ACK seq=1, ack=2);
        state!(h, FinWait2);
        lent(&h, 0);
        send!(h, FIN|ACK seq=1, ack=2);
        recv!(h, ACK seq=2, ack=2);
        h.closed(ClosePath::Active, First::Us, Cause::Service);
        lent(&h, 0);
        h.wait_out();
    });
}

#[test]
fn a_connection_opened_from_here_has_none_while_its_syn_is_on_its_way() {
    let mut h = Harness::new();
    h.connect();
    recv!(h, SYN seq=0, ack=0);
    lent(&h, 0);
    after!(h, 1000);
    recv!(h, SYN seq=0, ack=0);
    lent(&h, 0);
    h.send(&Seg::new(&[Flags::SYN, Flags::ACK]).seq(0).ack(1).syn(Syn::PLAIN));
    recv!(h, ACK seq=1, ack=1);
    state!(h, Established);
    lent(&h, 0);
}

#[test]
fn a_fin_that_was_sent_again_holds_one_until_it_is_acknowledged() {
    both_families(|mut h| {
        h.handshake(Syn::PLAIN);
        h.act(&[Do::Close]);
        recv!(h, FIN|ACK seq=1, ack=1);
        after!(h, 1000);
        h.skip();
        lent(&h, 1);
        send!(h, ACK seq=1, ack=2);
        state!(h, FinWait2);
        lent(&h, 0);
        send!(h, RST seq=1);
        h.closed(ClosePath::Reset, First::Us, Cause::PeerReset);
        h.all_gone();
    });
}

#[test]
fn what_is_sent_holds_one_until_it_is_acknowledged() {
    let mut h = Harness::open();
    for n in 0..3 {
        h.act(&[Do::Send(100)]);
        data(&mut h, 1 + 100 * n, 100);
        lent(&h, 1);
        h.send(&ack(101 + 100 * n));
        lent(&h, 0);
    }
    // And a closed window holds what waits for it.
    h.send(&ack(301).win(0));
    lent(&h, 0);
    h.act(&[Do::Send(100)]);
    nothing!(h);
    lent(&h, 1);
    h.send(&ack(301));
    data(&mut h, 301, 100);
    h.send(&ack(401));
    lent(&h, 0);
}

#[test]
fn what_arrived_holds_one_until_it_is_acknowledged_and_taken() {
    let mut h = Harness::open();
    send!(h, ACK seq=1, ack=1, len=100);
    lent(&h, 1);
    after!(h, 40);
    recv!(h, ACK seq=1, ack=101);
    lent(&h, 0);
    // Beyond a gap.
    send!(h, ACK seq=201, ack=1, len=100);
    recv!(h, ACK seq=1, ack=101);
    lent(&h, 1);
    send!(h, ACK seq=101, ack=1, len=100);
    recv!(h, ACK seq=1, ack=301);
    lent(&h, 0);
    // Unread.
    h.service().take = 0;
    send!(h, ACK seq=301, ack=1, len=100);
    after!(h, 40);
    recv!(h, ACK seq=1, ack=401);
    lent(&h, 1);
    h.service().take = usize::MAX;
    let tuple = h.tuple();
    assert!(h.shard.offer_unread(&tuple));
    h.run();
    lent(&h, 0);
}

#[test]
fn a_lingering_close_holds_one_to_its_end() {
    let mut h = Harness::open();
    h.act(&[Do::Linger]);
    recv!(h, FIN|ACK seq=1, ack=1);
    lent(&h, 1);
    send!(h, ACK seq=1, ack=2);
    lent(&h, 1);
    send!(h, FIN|ACK seq=1, ack=2);
    recv!(h, ACK seq=2, ack=2);
    h.closed(ClosePath::Active, First::Us, Cause::Service);
    lent(&h, 0);
    h.wait_out();
}

/// A connection that has lost a segment, repaired it, and has nothing on its way.
fn after_a_loss(tune: impl FnOnce(&mut Setup)) -> Harness {
    let mut h = Harness::tuned(tune);
    h.handshake(SACK);
    h.act(&[Do::Send(8 * MSS as usize)]);
    segments(&mut h, 0..8);
    sack(&mut h, 0, &[(1, 4)]);
    segments(&mut h, [0]);
    lent(&h, 1);
    h.send(&Seg::new(&ACK).ack(at(8)));
    h.skip();
    h
}

#[test]
fn a_loss_is_remembered_for_an_rto_and_then_forgotten() {
    let mut h = after_a_loss(|_| ());
    lent(&h, 1);
    after!(h, 190);
    lent(&h, 1);
    after!(h, 20);
    lent(&h, 0);
    nothing!(h);
    after!(h, 600_000);
    nothing!(h);
    // What is sent before that goes on with what is remembered, and does not wait for it.
    let mut h = after_a_loss(|_| ());
    after!(h, 100);
    h.act(&[Do::Send(MSS as usize)]);
    segments(&mut h, [8]);
    after!(h, 10);
    h.send(&Seg::new(&ACK).ack(at(9)));
    after!(h, 190);
    lent(&h, 1);
    after!(h, 20);
    lent(&h, 0);
}

#[test]
fn a_tail_probe_is_concluded_within_an_rto_of_its_answer() {
    let mut h = Harness::new();
    h.handshake(SACK);
    h.act(&[Do::Send(MSS as usize)]);
    segments(&mut h, [0]);
    after!(h, 150);
    h.skip();
    assert_eq!(retransmissions(&mut h, Retransmission::TailProbe), 1);
    h.send(&Seg::new(&ACK).ack(at(1)));
    lent(&h, 1);
    after!(h, 220);
    lent(&h, 0);
    nothing!(h);
}

#[test]
fn a_full_table_of_connections_with_data_on_their_way_lacks_no_flight() {
    let mut h = Harness::new();
    for n in 0..16 {
        h.peer(super::harness::PEER_PORT + n);
        h.handshake(Syn::PLAIN);
        h.act(&[Do::Send(100)]);
        data(&mut h, 1, 100);
        lent(&h, usize::from(n) + 1);
    }
    for n in 0..16 {
        h.peer(super::harness::PEER_PORT + n);
        send!(h, RST seq=1);
    }
    h.service().records.clear();
    lent(&h, 0);
    h.all_gone();
}
