//! Who gets how much of the pool, and what happens without any (d01, d02, d05).

use super::harness::{PEER_PORT, Setup};
use super::words::{ACK, ack, data};
use super::{Do, Harness, Seg, Syn, Told, after, nothing, recv, send, state};
use crate::drop::DropReason;
use crate::metrics::block::ResetCause;
use crate::tcp::config::Limits;
use crate::tcp::record::{Cause, ClosePath, First};
use crate::wire::Flags;
use std::time::Duration;

fn zero_window_after(secs: u64) -> impl FnOnce(&mut Setup) {
    move |s| {
        let limits = Limits { zero_window: Duration::from_secs(secs), ..Limits::DEFAULT };
        s.tcp.limits = vec![limits];
    }
}

/// The peers of this many connections go without a word but a RST each; then nothing may be left.
fn all_reset(h: &mut Harness, ports: impl Iterator<Item = u16>) {
    for port in ports {
        h.peer(port);
        let crate::shard::tables::Found::Conn(key) = h.found() else { continue };
        let conn = h.shard.core.tables.conns.get(key).expect("in the index");
        let at = i64::from(conn.rcv_nxt() - h.peer_mut().iss);
        h.send(&Seg::new(&[Flags::RST]).seq(at));
    }
    h.skip();
    h.service().records.clear();
    h.all_gone();
}

/// Everybody who is probed answers that the window is still closed.
fn answer_probes(h: &mut Harness) -> usize {
    let probes = std::mem::take(&mut h.out);
    for seen in &probes {
        assert!(seen.payload.is_empty(), "into a closed window");
        h.peer(seen.tuple.local.port);
        h.send(&ack(1).win(0));
    }
    probes.len()
}

#[test]
fn d05_a_thousand_closed_windows_leave_another_connection_its_service_and_end_at_the_limit() {
    const HOGS: u16 = 1000;
    let mut h = Harness::tuned(|s| {
        zero_window_after(300)(s);
        s.capacity.connections = 1100;
        s.capacity.chunks = 32_768;
    });
    for i in 1..=HOGS {
        h.peer(PEER_PORT + i);
        h.handshake(Syn::PLAIN);
        h.send(&ack(1).win(0));
        h.act(&[Do::Send(256 * 1024)]);
    }
    // Had each got its quarter of a megabyte, 256 of them would have it all.
    assert_eq!(h.shard.chunks_used(), 4 * usize::from(HOGS), "8 KiB each");
    h.peer(PEER_PORT);
    h.handshake(Syn::PLAIN);
    let before = h.service().sent;
    h.service().writable = vec![Do::Send(1 << 20)];
    h.act(&[Do::Send(1 << 20)]);
    let (mut una, mut rounds) = (1i64, 0);
    while h.service().sent - before < 1 << 20 {
        rounds += 1;
        assert!(rounds < 100, "{} bytes", h.service().sent - before);
        for seen in std::mem::take(&mut h.out) {
            let irs = h.peer_mut().irs.expect("the handshake is done");
            una = una.max(i64::from(seen.header.seq - irs) + seen.payload.len() as i64);
        }
        h.send(&ack(una));
        if rounds % 10 == 0 {
            after!(h, 1000);
            let (mine, probes): (Vec<_>, Vec<_>) =
                std::mem::take(&mut h.out).into_iter().partition(|s| s.tuple.local.port == PEER_PORT);
            h.out.extend(probes);
            answer_probes(&mut h);
            h.out.extend(mine);
            h.peer(PEER_PORT);
        }
    }
    all_but_the_hogs_are_gone(&mut h);
    // They answer every probe, for five minutes and no longer.
    let mut probes = 0;
    for _ in 0..310 {
        after!(h, 1000);
        h.out.retain(|s| !s.header.flags.rst());
        probes += answer_probes(&mut h);
    }
    assert!(probes > 5 * usize::from(HOGS), "{probes}");
    let c = h.counters();
    let (path, first, cause) = (ClosePath::Timeout, First::Us, Cause::ZeroWindow);
    assert_eq!(c.closes[path as usize][first as usize][cause as usize], u64::from(HOGS));
    assert_eq!(c.resets_sent[ResetCause::Limit as usize], u64::from(HOGS), "their peers were told");
    h.service().records.clear();
    h.skip();
    h.all_gone();
}

/// The connection that had its service is reset by its peer, and its records are looked at by nobody.
fn all_but_the_hogs_are_gone(h: &mut Harness) {
    h.peer(PEER_PORT);
    send!(h, RST seq=1);
    state!(h, Closed);
    h.skip();
    h.service().records.clear();
    h.service().writable.clear();
}

#[test]
fn d05_a_window_that_opens_by_a_byte_now_and_then_does_not_renew_the_wait() {
    let mut h = Harness::open_tuned(zero_window_after(10));
    h.send(&ack(1).win(0));
    h.act(&[Do::Send(5000)]);
    for _ in 0..99 {
        after!(h, 100);
        h.send(&ack(1).win(1));
        h.send(&ack(1).win(0));
    }
    h.skip();
    state!(h, Established);
    after!(h, 200);
    recv!(h, RST|ACK seq=1, ack=1);
    let record = h.closed(ClosePath::Timeout, First::Us, Cause::ZeroWindow);
    assert_eq!(record.unacknowledged, 5000);
    h.all_gone();
}

#[test]
fn d05_a_peer_that_takes_what_waits_is_not_stalled_and_nor_is_one_for_whom_nothing_waits() {
    let mut h = Harness::open_tuned(zero_window_after(10));
    h.act(&[Do::Send(1460)]);
    data(&mut h, 1, 1460);
    h.send(&ack(1461).win(0));
    after!(h, 60_000);
    nothing!(h);
    h.act(&[Do::Send(4 * 1460)]);
    for n in 1..=4 {
        after!(h, 9000);
        h.out.clear();
        h.send(&ack(1 + n * 1460).win(1460));
        data(&mut h, 1 + n * 1460, 1460);
        h.send(&ack(1 + (n + 1) * 1460).win(0));
        h.send(&ack(1 + (n + 1) * 1460).win(0));
        if n == 4 {
            break;
        }
        state!(h, Established);
    }
    state!(h, Established);
}

#[test]
fn d02_peers_whose_services_do_not_read_cannot_empty_the_pool() {
    const HOGS: u16 = 60;
    let mut h = Harness::tuned(|s| (s.capacity.connections, s.capacity.chunks) = (100, 2048));
    h.service().take = 0;
    // Each was promised 64 KiB. In order that nearly fits; beyond gaps it takes half as much again.
    for i in 0..HOGS {
        h.peer(PEER_PORT + i);
        h.handshake(Syn::PLAIN);
    }
    for i in 0..HOGS {
        h.peer(PEER_PORT + i);
        for n in 0..44 {
            let at = if i % 2 == 0 { 1 + n * 1460 } else { 2 + n * 1461 };
            h.send(&Seg::new(&ACK).seq(at).len(1460));
        }
        h.out.clear();
    }
    let left = h.shard.core.pool.available();
    assert!(left >= 2048 / 8, "{left} chunks are left");
    assert!(h.counters().drops[DropReason::NoChunk as usize] > 100, "what is not kept is counted");
    // Who comes then and is read is served.
    h.peer(PEER_PORT + HOGS);
    h.handshake(Syn::PLAIN);
    h.service().take = usize::MAX;
    h.service().data = vec![Do::Send(100)];
    send!(h, ACK seq=1, ack=1, len=1460);
    recv!(h, PSH|ACK seq=1, ack=1461, len=100);
    h.service().data.clear();
    all_reset(&mut h, PEER_PORT..=PEER_PORT + HOGS);
}

#[test]
fn d05_peers_that_acknowledge_a_byte_a_second_cost_their_share_and_a_segment_now_and_then() {
    const HOGS: u16 = 60;
    const SECONDS: u16 = 30;
    let mut h = Harness::tuned(|s| (s.capacity.connections, s.capacity.chunks) = (100, 2048));
    // They offer 64 KiB and are sent what that allows; four times the pool would like to wait behind it.
    for i in 1..=HOGS {
        h.peer(PEER_PORT + i);
        h.handshake(Syn::PLAIN);
        h.act(&[Do::Send(256 * 1024)]);
        h.out.clear();
    }
    let left = h.shard.core.pool.available();
    assert!(left >= 2048 / 10, "{left} chunks are left");
    let mut segments = 0;
    for second in 1..=SECONDS {
        for i in 1..=HOGS {
            h.peer(PEER_PORT + i);
            h.send(&ack(1 + i64::from(second)));
        }
        after!(h, 1000);
        segments += std::mem::take(&mut h.out).len();
    }
    let each = segments / usize::from(HOGS * SECONDS);
    assert!(each <= 3, "{segments} segments");
    assert!(h.shard.core.pool.available() >= left, "none of them got more");
    // Who comes then has its service.
    h.peer(PEER_PORT);
    h.handshake(Syn::PLAIN);
    let before = h.service().sent;
    h.service().writable = vec![Do::Send(1 << 20)];
    h.act(&[Do::Send(1 << 20)]);
    let (mut una, mut rounds) = (1i64, 0);
    while h.service().sent - before < 1 << 20 {
        rounds += 1;
        assert!(rounds < 200, "{} bytes", h.service().sent - before);
        for seen in std::mem::take(&mut h.out) {
            let irs = h.peer_mut().irs.expect("the handshake is done");
            una = una.max(i64::from(seen.header.seq - irs) + seen.payload.len() as i64);
        }
        h.send(&ack(una));
    }
    all_but_the_hogs_are_gone(&mut h);
    all_reset(&mut h, PEER_PORT + 1..=PEER_PORT + HOGS);
}

#[test]
fn d01_with_an_empty_pool_every_answer_is_counted_and_the_peer_recovers() {
    let mut h = Harness::open_tuned(|s| s.capacity.chunks = 8);
    let taken: Vec<u32> = std::iter::from_fn(|| h.shard.core.pool.alloc()).collect();
    let no_chunk = |h: &mut Harness| h.counters().drops[DropReason::NoChunk as usize];
    // Beyond a gap: refused, the peer is told where we stand.
    send!(h, ACK seq=101, ack=1, len=100);
    recv!(h, ACK seq=1, ack=1);
    assert_eq!(no_chunk(&mut h), 1);
    // In order and not read: refused, and told at once.
    h.service().take = 0;
    send!(h, ACK seq=1, ack=1, len=100);
    recv!(h, ACK seq=1, ack=1);
    assert_eq!(no_chunk(&mut h), 2);
    // In order and read: no chunk is needed; the answer has to wait for one.
    h.service().take = usize::MAX;
    h.service().data = vec![Do::Send(50)];
    h.service().writable = vec![Do::Send(50)];
    send!(h, ACK seq=1, ack=1, len=100);
    after!(h, 40);
    recv!(h, ACK seq=1, ack=101);
    assert_eq!(h.service().sent, 0);
    assert_eq!(no_chunk(&mut h), 2);
    nothing!(h);
    // As soon as there is one, the service is asked again, and what was refused comes again and is kept.
    let _ = h.told();
    for id in taken {
        h.shard.core.pool.free(id);
    }
    h.run();
    assert_eq!(h.told(), [Told::Writable]);
    recv!(h, PSH|ACK seq=1, ack=101, len=50);
    h.service().data.clear();
    send!(h, ACK seq=201, ack=51, len=100);
    recv!(h, ACK seq=51, ack=101);
    send!(h, ACK seq=101, ack=51, len=100);
    recv!(h, ACK seq=51, ack=301);
    assert_eq!((h.service().got(), h.shard.chunks_used()), (300, 0));
}

#[test]
fn d02_what_is_beyond_a_gap_is_given_up_for_what_closes_it() {
    let mut h = Harness::open_tuned(|s| s.capacity.chunks = 3);
    // A service that has stopped reading; two of three chunks are beyond a gap, the third is somebody else's.
    h.service().take = 0;
    for at in [2001, 6001] {
        h.send(&Seg::new(&ACK).seq(at).len(1000));
    }
    assert_eq!(h.shard.chunks_used(), 2);
    let other = h.shard.core.pool.alloc().expect("one is left");
    h.out.clear();
    send!(h, ACK seq=1, ack=1, len=1000);
    recv!(h, ACK seq=1, ack=1001);
    assert_eq!(h.counters().out_of_order_given_up, 2000);
    assert_eq!(h.shard.chunks_used(), 2);
    // It comes again and nothing is lost.
    h.service().take = usize::MAX;
    for at in [1001, 2001, 3001] {
        h.send(&Seg::new(&ACK).seq(at).len(1000));
    }
    assert_eq!(h.service().got(), 4000);
    h.shard.core.pool.free(other);
    assert_eq!(h.shard.chunks_used(), 0);
}

#[test]
fn d05_a_service_that_fills_its_send_buffer_sees_it_full_and_hears_when_it_is_not() {
    let limits = Limits { send_buffer: Some(3000), ..Limits::DEFAULT };
    let mut h = Harness::open_tuned(|s| s.tcp.limits = vec![limits]);
    h.act(&[Do::Send(1000), Do::Send(5000), Do::Send(1)]);
    assert_eq!(h.service().sent, 3000, "the listener's bound, not [tcp]'s");
    h.service().writable = vec![Do::Send(7)];
    let _ = h.told();
    h.out.clear();
    h.send(&ack(1461));
    assert_eq!(h.told(), [Told::Writable]);
    assert_eq!(h.service().sent, 3007);
    h.send(&ack(2001));
    assert_eq!(h.told(), [], "it got all that it offered");
}
