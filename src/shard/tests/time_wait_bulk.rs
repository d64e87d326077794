//! `TIME_WAIT` by the many: t05 (full table) and t06 (expiry in slices).

use super::*;
use crate::shard::tables::Found;
use crate::shard::timers::WAIT_BUDGET;
use crate::tcp::record::{Cause, ClosePath, First};
use crate::tcp::state::State;
use crate::tcp::time_wait::TimeWait;
use crate::time::Time;
use crate::wire::{Addr, Endpoint, SeqNum, Tuple};
use std::time::Duration;

/// A connection from the peer's `n`th port goes into `TIME_WAIT`.
fn one_more(h: &mut Harness, n: u16) {
    h.peer(harness::PEER_PORT + n);
    h.handshake(Syn::PLAIN);
    h.act(&[Do::Close]);
    recv!(h, FIN|ACK seq=1, ack=1);
    send!(h, FIN|ACK seq=1, ack=2);
    recv!(h, ACK seq=2, ack=2);
    h.closed(ClosePath::Active, First::Us, Cause::Service);
}

#[test]
fn t05_a_full_table_evicts_the_oldest() {
    let mut h = Harness::tuned(|s| s.capacity.time_wait = 3);
    for n in 0..3 {
        one_more(&mut h, n);
        after!(h, 100);
    }
    assert_eq!(h.counters().time_wait_evicted, 0);
    one_more(&mut h, 3);
    let c = h.counters();
    assert_eq!((c.time_wait_evicted, c.time_wait_peak, c.states[State::TimeWait as usize]), (1, 3, 3));
    for (n, state) in [(0, State::Closed), (1, State::TimeWait), (2, State::TimeWait), (3, State::TimeWait)] {
        h.peer(harness::PEER_PORT + n);
        assert_eq!(h.state(), state, "connection {n}");
    }
    // The evicted pair is as if it had never been.
    h.peer(harness::PEER_PORT);
    send!(h, FIN|ACK seq=1, ack=2);
    recv!(h, RST seq=2, ack=0);
    h.peer(harness::PEER_PORT + 3);
    h.wait_out();
    let c = h.counters();
    assert_eq!((c.time_wait_evicted, c.time_wait_expired), (1, 3));
}

#[test]
fn t05_a_table_of_one_evicts_each_time_and_loses_count_of_none() {
    let mut h = Harness::tuned(|s| s.capacity.time_wait = 1);
    for n in 0..50 {
        one_more(&mut h, n);
        after!(h, 7);
    }
    assert_eq!(h.counters().time_wait_evicted, 49);
    h.wait_out();
    assert_eq!(h.counters().time_wait_expired, 1);
}

#[test]
fn t05_slots_of_reopened_pairs_are_used_before_anything_is_evicted() {
    let mut h = Harness::tuned(|s| s.capacity.time_wait = 2);
    one_more(&mut h, 0);
    h.reincarnate(5000);
    send!(h, SYN seq=0, ack=0, syn=Syn::PLAIN);
    recv!(h, SYN|ACK seq=0, ack=1);
    send!(h, RST seq=1, ack=0);
    one_more(&mut h, 1);
    one_more(&mut h, 2);
    assert_eq!(h.counters().time_wait_evicted, 0);
    h.peer(harness::PEER_PORT + 1);
    state!(h, TimeWait);
    one_more(&mut h, 3);
    assert_eq!(h.counters().time_wait_evicted, 1);
    h.wait_out();
    assert_eq!(h.counters().time_wait_expired, 2);
}

/// Puts `n` records straight into the table, all with the same end.
fn fill(h: &mut Harness, n: u32) -> Time {
    let expires = h.now() + Duration::from_secs(60);
    for i in 0..n {
        let tuple = Tuple {
            local: Endpoint::new(Addr::v4([10, 0, 0, 1]), harness::PORT),
            remote: Endpoint::new(Addr::v4([10, 1, (i >> 14) as u8, 9]), 1000 + (i & 0x3fff) as u16),
        };
        let (snd_nxt, rcv_nxt) = (SeqNum::new(2), SeqNum::new(2));
        let w = TimeWait { tuple, snd_nxt, rcv_nxt, ts_recent: None, traced: false };
        assert!(h.shard.core.tables.add_lone_wait(&w, expires));
        h.shard.core.log.enter(State::TimeWait);
    }
    expires
}

#[test]
fn t06_a_hundred_thousand_due_at_once_leave_in_slices_and_every_frame_is_served_between() {
    const N: u32 = 100_000;
    let mut h = Harness::tuned(|s| s.capacity.time_wait = N as usize);
    h.handshake(Syn::PLAIN);
    let expires = fill(&mut h, N);
    assert_eq!(h.shard.records(), N as usize + 1);
    let just_before = expires.micros() - 1000;
    h.after(Time::from_micros(just_before).since(h.now()));
    assert_eq!(h.shard.records(), N as usize + 1, "none goes early");
    h.jump(Duration::from_millis(17));
    let mut left = h.shard.records();
    let mut turns = 0;
    while left > 1 {
        // An old byte, which is acknowledged at once.
        h.put(&Seg::new(&[crate::wire::Flags::ACK]).seq(0).len(1));
        let turn = h.turn();
        recv!(h, ACK seq=1, ack=1);
        nothing!(h);
        let now_left = h.shard.records();
        let gone = left - now_left;
        assert!(gone <= WAIT_BUDGET, "{gone} records in one turn");
        assert!(gone == WAIT_BUDGET || now_left == 1, "{gone} records: a turn does its share");
        assert!(turn.worked, "the worker must not sleep while records are due");
        left = now_left;
        turns += 1;
    }
    assert_eq!(turns, (N as usize).div_ceil(WAIT_BUDGET));
    assert_eq!(h.counters().time_wait_expired, u64::from(N));
    send!(h, RST seq=1, ack=0);
    h.closed(ClosePath::Reset, First::Peer, Cause::PeerReset);
    h.all_gone();
}

#[test]
fn t06_restarted_records_stay_among_the_thousands_that_go() {
    const N: u32 = 5000;
    let mut h = Harness::tuned(|s| s.capacity.time_wait = N as usize + 1);
    one_more(&mut h, 0);
    fill(&mut h, N);
    after!(h, 50_000);
    send!(h, FIN|ACK seq=1, ack=2);
    recv!(h, ACK seq=2, ack=2);
    after!(h, 10_032);
    assert_eq!(h.shard.records(), 1);
    state!(h, TimeWait);
    assert!(matches!(h.found(), Found::Wait(_)));
    after!(h, 49_967);
    state!(h, TimeWait);
    after!(h, 17);
    state!(h, Closed);
    h.all_gone();
}
