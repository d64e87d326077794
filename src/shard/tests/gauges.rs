//! What a shard tells of itself and of its listeners beside its counters.

use super::*;
use crate::metrics::gauges::{BudgetKind, Fill, Table};
use crate::tcp::record::{Cause, ClosePath, First};
use std::time::Duration;

#[test]
fn a_listener_is_told_of_its_connections_payload_and_closes() {
    let mut h = Harness::open();
    h.peer(harness::PEER_PORT + 1);
    h.handshake(Syn::PLAIN);
    let one = h.shard.snapshot().listeners;
    assert_eq!((one.len(), one[0].opened, one[0].active, one[1].opened), (2, 2, 2, 0));
    h.service().peer_closed = vec![Do::Send(70), Do::Close];
    send!(h, ACK seq=1, ack=1, len=100);
    h.out.clear();
    send!(h, FIN|ACK seq=101, ack=1);
    recv!(h, FIN|PSH|ACK seq=1, ack=102, len=70);
    send!(h, ACK seq=102, ack=72);
    // It had something to say after the peer's FIN.
    h.closed(ClosePath::HalfClose, First::Peer, Cause::Peer);
    let l = h.shard.snapshot().listeners[0];
    assert_eq!((l.opened, l.active, l.bytes_in, l.bytes_out), (2, 1, 100, 70));
    assert_eq!(l.closes[ClosePath::HalfClose as usize][Cause::Peer as usize], 1);
    assert_eq!((l.closes.as_flattened().iter().sum::<u64>(), l.close_time.total()), (1, 1));
    h.peer(harness::PEER_PORT);
    send!(h, RST seq=1, ack=0);
    h.closed(ClosePath::Reset, First::Peer, Cause::PeerReset);
    let l = h.shard.snapshot().listeners[0];
    assert_eq!((l.active, l.closes[ClosePath::Reset as usize][Cause::PeerReset as usize]), (0, 1));
}

#[test]
fn connections_from_here_are_accounted_after_the_listeners_also_when_they_never_open() {
    let mut h = Harness::new();
    h.connect();
    recv!(h, SYN seq=0, ack=0);
    send!(h, RST|ACK seq=0, ack=1);
    h.closed(ClosePath::Reset, First::Peer, Cause::Refused);
    let l = h.shard.snapshot().listeners;
    assert_eq!((l[1].opened, l[1].active, l[0].opened), (0, 0, 0));
    assert_eq!(l[1].closes[ClosePath::Reset as usize][Cause::Refused as usize], 1);
}

#[test]
fn tables_and_expiry_are_told_as_they_are() {
    let mut h = Harness::tuned(|s| s.capacity.time_wait = 9);
    for n in 0..3 {
        h.peer(harness::PEER_PORT + n);
        h.handshake(Syn::PLAIN);
        if n == 0 {
            continue;
        }
        h.act(&[Do::Close]);
        recv!(h, FIN|ACK seq=1, ack=1);
        send!(h, FIN|ACK seq=1, ack=2);
        recv!(h, ACK seq=2, ack=2);
        h.closed(ClosePath::Active, First::Us, Cause::Service);
    }
    let w = h.shard.snapshot().worker;
    assert_eq!(w.tables[Table::Connections as usize], Fill { used: 1, capacity: 16 });
    assert_eq!(w.tables[Table::HalfOpen as usize], Fill { used: 0, capacity: 16 });
    assert_eq!(w.tables[Table::TimeWait as usize], Fill { used: 2, capacity: 9 });
    assert_eq!(w.expiry_batch.total(), 0);
    let hold = h.shard.core.cfg.time_wait + Duration::from_millis(32);
    h.after(hold);
    let w = h.shard.snapshot().worker;
    assert_eq!((w.tables[Table::TimeWait as usize].used, w.expiry_batch.sum), (0, 2));
}

#[test]
fn a_worker_that_lost_its_core_says_how_late_its_timers_were_once() {
    let mut h = Harness::open();
    h.act(&[Do::Send(10)]);
    h.out.clear();
    // The retransmission is due within a second or so; nobody comes for ten.
    h.jump(Duration::from_secs(10));
    let _ = h.turn();
    h.out.clear();
    let lag = h.shard.snapshot().worker.wheel_lag_ms;
    assert!((8_000..=10_000).contains(&lag[Table::Connections as usize]), "{lag:?}");
    assert_eq!((lag[Table::HalfOpen as usize], lag[Table::TimeWait as usize]), (0, 0));
    assert_eq!(h.shard.snapshot().worker.wheel_lag_ms, [0; 3]);
}

#[test]
fn what_a_budget_refused_is_counted_by_budget() {
    let refused = |h: &mut Harness, b: BudgetKind| h.counters().budget_refusals[b as usize];
    let mut h = Harness::open_tuned(|s| (s.tcp.challenge_acks, s.tcp.stray_replies) = (3, 5));
    after!(h, 999 - h.now().millis() % 1000 + 1);
    for _ in 0..10 {
        send!(h, SYN seq=50, ack=0);
    }
    h.out.clear();
    assert_eq!(refused(&mut h, BudgetKind::Connection), 7);
    h.peer(harness::PEER_PORT + 7);
    h.peer_mut().irs = Some(crate::wire::SeqNum::new(77));
    for _ in 0..20 {
        send!(h, ACK seq=1, ack=1);
    }
    h.out.clear();
    assert_eq!(refused(&mut h, BudgetKind::Reset), 15);
    assert_eq!(refused(&mut h, BudgetKind::TimeWait), 0);
}
