//! Bytes that the service has not read when both sides have closed (c06, c12, c15, c17).

use super::harness::PEER_PORT;
use super::words::ACK;
use super::{Do, Harness, Seg, Told, after, nothing, recv, send, state};
use crate::shard::mailbox::Command;
use crate::shard::tables::Found;
use crate::tcp::record::{Cause, ClosePath, First};
use crate::wire::Flags;

/// A service that has half-closed and read nothing of 3,000 bytes; then the peer's FIN came.
fn in_time_wait() -> Harness {
    let mut h = Harness::open();
    h.service().take = 0;
    h.act(&[Do::Shutdown]);
    recv!(h, FIN|ACK seq=1, ack=1);
    for i in 0..3 {
        h.send(&Seg::new(&ACK).seq(1 + i * 1000).ack(2).len(1000));
    }
    send!(h, FIN|ACK seq=3001, ack=2);
    h.skip();
    state!(h, TimeWait);
    assert!(matches!(h.found(), Found::Conn(_)), "the service may read on");
    assert!(h.service().records.is_empty());
    let _ = h.told();
    h
}

/// As [`in_time_wait`], but the peer closed first.
fn in_last_ack() -> Harness {
    let mut h = Harness::open();
    h.service().take = 0;
    send!(h, FIN|ACK seq=1, ack=1, len=1000);
    recv!(h, ACK seq=1, ack=1002);
    h.act(&[Do::Shutdown]);
    recv!(h, FIN|ACK seq=1, ack=1002);
    send!(h, ACK seq=1002, ack=2);
    nothing!(h);
    state!(h, LastAck);
    let _ = h.told();
    h
}

/// The service resumes reading and takes this much a call.
fn read(h: &mut Harness, take: usize) {
    h.service().take = take;
    h.act(&[Do::Resume(PEER_PORT)]);
}

#[test]
fn c06_what_is_unread_in_time_wait_is_read_to_the_end_and_then_the_close_is_told() {
    let mut h = in_time_wait();
    after!(h, 1000);
    h.service().quota = 700;
    read(&mut h, 300);
    assert!(h.told().iter().all(|t| matches!(t, Told::Data(_))), "neither end nor close yet");
    after!(h, 1000);
    h.service().quota = usize::MAX;
    read(&mut h, 900);
    let told = h.told();
    assert_eq!(told[told.len() - 2..], [Told::PeerClosed, Told::Closed]);
    assert_eq!(h.service().got(), 3000);
    let record = h.closed(ClosePath::HalfClose, First::Us, Cause::Service);
    assert!(record.time_wait && record.bytes_in == 3000, "{record:?}");
    assert!(matches!(h.found(), Found::Wait(_)));
    assert_eq!(h.shard.chunks_used(), 0);
    // The two seconds that the service took are part of 2MSL.
    after!(h, 57_900);
    state!(h, TimeWait);
    after!(h, 150);
    state!(h, Closed);
    h.all_gone();
}

#[test]
fn c06_fins_that_cross_leave_time_to_read() {
    let mut h = Harness::open();
    h.service().take = 0;
    h.act(&[Do::Shutdown]);
    recv!(h, FIN|ACK seq=1, ack=1);
    send!(h, FIN|ACK seq=1, ack=1, len=500);
    recv!(h, ACK seq=2, ack=502);
    state!(h, Closing);
    send!(h, ACK seq=502, ack=2);
    state!(h, TimeWait);
    let _ = h.told();
    read(&mut h, usize::MAX);
    assert_eq!(h.told(), [Told::Data(500), Told::PeerClosed, Told::Closed]);
    h.closed(ClosePath::Simultaneous, First::Both, Cause::Service);
    h.wait_out();
}

#[test]
fn c06_what_is_unread_in_last_ack_is_read_to_the_end() {
    let mut h = in_last_ack();
    after!(h, 200_000);
    nothing!(h);
    state!(h, LastAck);
    read(&mut h, 400);
    assert_eq!(
        h.told(),
        [Told::Data(1000), Told::Data(600), Told::Data(200), Told::PeerClosed, Told::Closed]
    );
    h.closed(ClosePath::Passive, First::Peer, Cause::Peer);
    h.all_gone();
}

#[test]
fn c06_another_connections_service_call_resumes_reading() {
    let mut h = in_time_wait();
    h.peer(PEER_PORT + 1);
    h.handshake(super::Syn::PLAIN);
    h.service().take = usize::MAX;
    h.service().data = vec![Do::Resume(PEER_PORT)];
    send!(h, ACK seq=1, ack=1, len=1);
    let told = h.told();
    assert_eq!(told.first(), Some(&Told::Data(1)));
    assert_eq!(told[told.len() - 2..], [Told::PeerClosed, Told::Closed]);
    h.peer(PEER_PORT);
    h.closed(ClosePath::HalfClose, First::Us, Cause::Service);
    assert_eq!(h.shard.chunks_used(), 0);
}

#[test]
fn c10_towards_the_peer_it_is_in_time_wait_while_the_service_reads() {
    let mut h = in_time_wait();
    after!(h, 30_000);
    // The FIN again starts 2MSL anew; RST and old data move nothing.
    send!(h, FIN|ACK seq=3001, ack=2);
    recv!(h, ACK seq=2, ack=3002);
    send!(h, RST seq=3002);
    nothing!(h);
    send!(h, ACK seq=2001, ack=2, len=1000);
    recv!(h, ACK seq=2, ack=3002);
    // A new incarnation has to wait for the service.
    send!(h, SYN seq=9000, ack=0);
    recv!(h, ACK seq=2, ack=3002);
    state!(h, TimeWait);
    read(&mut h, usize::MAX);
    h.closed(ClosePath::HalfClose, First::Us, Cause::Service);
    after!(h, 59_000);
    state!(h, TimeWait);
    after!(h, 1100);
    h.all_gone();
}

#[test]
fn c17_a_service_that_never_reads_is_waited_for_no_longer_than_in_close_wait() {
    let mut h = in_time_wait();
    after!(h, 200_000);
    // What it takes renews the wait.
    h.service().quota = 1000;
    read(&mut h, usize::MAX);
    after!(h, 299_000);
    state!(h, TimeWait);
    assert!(h.service().records.is_empty());
    after!(h, 2000);
    let record = h.closed(ClosePath::HalfClose, First::Us, Cause::CloseWaitLimit);
    assert!(record.time_wait);
    nothing!(h);
    h.all_gone();

    let mut h = in_last_ack();
    after!(h, 301_000);
    h.closed(ClosePath::Passive, First::Peer, Cause::CloseWaitLimit);
    h.all_gone();
}

#[test]
fn c12_a_close_over_unread_bytes_sends_no_rst_when_both_sides_have_closed() {
    for act in [Do::Close, Do::Linger, Do::Abort] {
        let mut h = in_time_wait();
        h.act(&[act]);
        nothing!(h);
        assert!(matches!(h.found(), Found::Wait(_)), "{act:?}");
        assert_eq!(h.shard.chunks_used(), 0);
        let mut h = in_last_ack();
        h.act(&[act]);
        nothing!(h);
        state!(h, Closed);
        assert_eq!((h.shard.records(), h.shard.chunks_used()), (0, 0), "{act:?}");
    }
}

#[test]
fn c17_a_drain_does_not_wait_for_what_nobody_reads() {
    for make in [in_time_wait, in_last_ack] {
        let mut h = make();
        h.command(Command::Drain);
        assert_eq!(h.told().first(), Some(&Told::Drain));
        assert_eq!(h.shard.live(), 0);
        nothing!(h);
        // A service that does not let go is cut off; the peer hears nothing of it.
        let mut h = make();
        h.service().drain = Vec::new();
        h.command(Command::Drain);
        assert_eq!(h.shard.live(), 1);
        h.command(Command::CutOff);
        assert_eq!(h.shard.live(), 0);
        nothing!(h);
        assert_eq!(h.service().records.pop().expect("a record").cause, Cause::Drain);
        assert_eq!(h.shard.chunks_used(), 0);
    }
}

#[test]
fn c09_data_beyond_the_fin_is_not_read() {
    let mut h = in_time_wait();
    h.send(&Seg::new(&[Flags::ACK]).seq(3002).ack(2).len(100));
    recv!(h, ACK seq=2, ack=3002);
    read(&mut h, usize::MAX);
    assert_eq!(h.service().got(), 3000);
}
