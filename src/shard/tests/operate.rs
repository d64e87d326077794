//! What operators ask of a worker: listings in slices, ends by filter, drains at a pace, other listeners, close records,
//! captures.

use super::harness::{PEER_PORT, PORT, Seg};
use super::{Harness, Syn, Told, after, nothing, recv, send, state};
use crate::drop::DropReason;
use crate::service::discard::Discard;
use crate::shard::Capacity;
use crate::shard::capture::{CaptureRing, CaptureTap};
use crate::shard::closes::{ClosePage, CloseTap};
use crate::shard::drain::{DrainOrder, NewConnections};
use crate::shard::filter::{Filter, States};
use crate::shard::listen::Listeners;
use crate::shard::mailbox::{Command, Reply};
use crate::shard::reload::Change;
use crate::shard::sweep::{Deed, Row, Sweep};
use crate::tcp::record::{Cause, ClosePath, First};
use crate::tcp::state::State;
use crate::wire::{self, Endpoint, Parsed};
use crossbeam::queue::ArrayQueue;
use std::sync::Arc;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// Sends a sweep and takes it back.
fn sweep(h: &mut Harness, sweep: Box<Sweep>) -> Box<Sweep> {
    h.command(Command::Sweep(sweep));
    match h.mailbox.reply() {
        Some(Reply::Sweep(sweep)) => sweep,
        other => panic!("{other:?}"),
    }
}

/// All rows that a filter means, by pages of `page` rows.
fn list(h: &mut Harness, filter: Filter, page: usize) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut s = Box::new(Sweep::new(Deed::List, filter, page, 10_000));
    loop {
        s = sweep(h, s);
        assert!(s.rows.len() <= page && s.meant == s.rows.len() as u64);
        rows.extend(s.rows.iter().copied());
        if s.done {
            return rows;
        }
        s.turn_over(10_000);
    }
}

fn end(h: &mut Harness, deed: Deed, filter: Filter) -> (u64, u64) {
    let s = sweep(h, Box::new(Sweep::new(deed, filter, 0, 10_000)));
    assert!(s.done);
    (s.meant, s.ended)
}

/// The peer's connections from so many ports on.
fn open(h: &mut Harness, count: u16) {
    for n in 0..count {
        h.peer(PEER_PORT + n);
        h.handshake(Syn::PLAIN);
    }
}

/// One half-open record, one connection, one in `TIME_WAIT`, opened a second apart.
fn one_of_each() -> Harness {
    let mut h = Harness::new();
    h.handshake(Syn::PLAIN);
    h.act(&[super::Do::Close]);
    recv!(h, FIN | ACK seq = 1, ack = 1);
    send!(h, FIN|ACK seq=1, ack=2);
    recv!(h, ACK seq = 2, ack = 2);
    state!(h, TimeWait);
    h.closed(ClosePath::Active, First::Us, Cause::Service);
    after!(h, 1000);
    h.peer(PEER_PORT + 1);
    h.handshake(Syn::PLAIN);
    after!(h, 500);
    h.peer(PEER_PORT + 2);
    send!(h, SYN seq=0, ack=0, syn=Syn::PLAIN);
    recv!(h, SYN | ACK seq = 0, ack = 1);
    h
}

#[test]
fn a_listing_shows_every_kind_of_record_once_whatever_the_page() {
    for page in [1, 2, 64] {
        let mut h = one_of_each();
        let rows = list(&mut h, Filter::default(), page);
        let seen: Vec<_> =
            rows.iter().map(|r| (r.state, r.tuple.remote.port - PEER_PORT, r.listener)).collect();
        let expected = [
            (State::SynReceived, 2, Some(0)),
            (State::Established, 1, Some(0)),
            (State::TimeWait, 0, Some(0)),
        ];
        assert_eq!(seen, expected, "pages of {page}");
        assert_eq!(rows[1].age, Duration::from_millis(500));
        // A tick of the wheel more or less.
        let left = rows[2].left.unwrap() + rows[2].age;
        assert_eq!(left, Duration::from_secs(60));
        assert!(
            rows[2].age.abs_diff(Duration::from_millis(1500)) <= Duration::from_millis(32),
            "{:?}",
            rows[2].age
        );
    }
}

#[test]
fn filters_choose_by_state_peer_listener_and_age() {
    let mut h = one_of_each();
    let mut ports = |filter: Filter| -> Vec<u16> {
        list(&mut h, filter, 8).iter().map(|r| r.tuple.remote.port - PEER_PORT).collect()
    };
    let states = States::NONE.with(State::TimeWait).with(State::SynReceived);
    assert_eq!(ports(Filter { states, ..Filter::default() }), [2, 0]);
    assert_eq!(ports(Filter { older_than: Duration::from_millis(400), ..Filter::default() }), [1, 0]);
    assert_eq!(ports(Filter { older_than: SECOND, ..Filter::default() }), [0]);
    assert_eq!(ports(Filter { listeners: Some(vec![1]), ..Filter::default() }), [0; 0]);
    assert_eq!(ports(Filter { peer: Some("10.0.0.9".parse().unwrap()), ..Filter::default() }), [2, 1, 0]);
    assert_eq!(ports(Filter { peer: Some("10.0.0.8".parse().unwrap()), ..Filter::default() }), [0; 0]);
}

#[test]
fn a_sweep_goes_in_slices_between_which_frames_are_served() {
    const RECORDS: u16 = 4000;
    let mut h = Harness::tuned(|s| {
        s.capacity = Capacity { connections: 16, half_open: 5000, time_wait: 1024, chunks: 64 };
        s.tcp.syn_cookies = None;
    });
    for n in 0..RECORDS {
        h.peer(PEER_PORT + n);
        send!(h, SYN seq=0, ack=0, syn=Syn::PLAIN);
        h.skip();
    }
    let nobody = Filter { peer: Some("192.0.2.0/24".parse().unwrap()), ..Filter::default() };
    let s = Box::new(Sweep::new(Deed::List, nobody, 8, u32::MAX));
    h.mailbox.send(Command::Sweep(s)).unwrap();
    let mut turns = 0;
    let done = loop {
        turns += 1;
        // A segment in every turn gets its answer in the same one.
        h.peer(PEER_PORT + RECORDS + turns);
        h.put(&Seg::new(&[crate::wire::Flags::SYN]).seq(0).ack(0).syn(Syn::PLAIN));
        h.turn();
        recv!(h, SYN | ACK seq = 0, ack = 1);
        if let Some(Reply::Sweep(s)) = h.mailbox.reply() {
            break s;
        }
    };
    assert!(done.done && done.rows.is_empty() && done.meant == 0);
    assert!((8..=10).contains(&turns), "{turns} turns for {RECORDS} records");
}

#[test]
fn a_page_goes_back_when_its_slots_are_used_up_and_goes_on_from_there() {
    let mut h = Harness::new();
    open(&mut h, 8);
    // Only the table of connections can hold what is meant.
    let filter = Filter { states: States::NONE.with(State::Established), ..Filter::default() };
    let mut s = sweep(&mut h, Box::new(Sweep::new(Deed::List, filter, 64, 3)));
    assert_eq!((s.rows.len(), s.done), (3, false));
    s.turn_over(100);
    let s = sweep(&mut h, s);
    assert_eq!((s.rows.len(), s.done), (5, true));
}

#[test]
fn closing_by_filter_sends_a_fin_and_names_the_operator() {
    let mut h = Harness::new();
    open(&mut h, 2);
    let one = Filter { peer: Some("10.0.0.9".parse().unwrap()), ..Filter::default() };
    h.told();
    assert_eq!(end(&mut h, Deed::Close, one.clone()), (2, 2));
    assert_eq!(h.told(), [Told::Drain, Told::Drain]);
    for n in 0..2 {
        h.peer(PEER_PORT + n);
        recv!(h, FIN | ACK seq = 1, ack = 1);
    }
    nothing!(h);
    // What is closing already is let be.
    assert_eq!(end(&mut h, Deed::Close, one), (2, 0));
    send!(h, FIN|ACK seq=1, ack=2);
    recv!(h, ACK seq = 2, ack = 2);
    h.closed(ClosePath::Active, First::Us, Cause::Operator);
}

#[test]
fn aborting_by_filter_resets_connections_and_handshakes_but_not_time_wait() {
    let mut h = one_of_each();
    assert_eq!(end(&mut h, Deed::Abort, Filter::default()), (2, 2));
    recv!(h, RST seq = 1, ack = 0);
    h.peer(PEER_PORT + 1);
    recv!(h, RST | ACK seq = 1, ack = 1);
    nothing!(h);
    h.closed(ClosePath::Reset, First::Us, Cause::Operator);
    assert_eq!(h.shard.population()[State::TimeWait as usize], 1);
    assert_eq!(h.shard.records(), 1);
}

#[test]
fn a_drain_at_a_pace_tells_connections_evenly_and_wakes_for_each() {
    let mut h = Harness::new();
    open(&mut h, 5);
    let order = DrainOrder { over: Duration::from_secs(10), new: NewConnections::Drop };
    let began = h.now();
    h.command(Command::DrainAs(order));
    after!(h, 9_000);
    let fins: Vec<u64> =
        h.out.iter().filter(|s| s.header.flags.fin()).map(|s| s.at.since(began).as_millis() as u64).collect();
    // Retransmissions of those that nobody answers come in between.
    let mut first = fins.clone();
    first.retain(|ms| ms % 2000 == 0);
    assert_eq!(first, [0, 2000, 4000, 6000, 8000], "{fins:?}");
    let c = h.counters();
    assert_eq!((c.operated.drain_total, c.operated.drain_told), (5, 5));
}

#[test]
fn an_undrain_keeps_those_that_were_not_told_and_takes_new_ones() {
    let mut h = Harness::new();
    open(&mut h, 4);
    h.command(Command::DrainAs(DrainOrder { over: Duration::from_secs(8), new: NewConnections::Drop }));
    assert_eq!(h.shard.population()[State::Listen as usize], 0);
    after!(h, 1000);
    h.peer(PEER_PORT);
    recv!(h, FIN | ACK seq = 1, ack = 1);
    h.skip();
    h.peer(PEER_PORT + 9);
    send!(h, SYN seq=0, ack=0, syn=Syn::PLAIN);
    nothing!(h);
    assert_eq!(h.counters().drops[DropReason::Draining as usize], 1);
    h.command(Command::Undrain);
    assert_eq!(h.shard.population()[State::Listen as usize], 1);
    h.told();
    h.handshake(Syn::PLAIN);
    after!(h, 10_000);
    assert_eq!(h.shard.population()[State::Established as usize], 4, "three and the new one");
}

#[test]
fn while_draining_a_syn_may_be_reset_or_accepted_and_closed() {
    let mut h = Harness::new();
    h.command(Command::DrainAs(DrainOrder { over: Duration::ZERO, new: NewConnections::Reset }));
    send!(h, SYN seq=0, ack=0, syn=Syn::PLAIN);
    let header = h.out.pop_front().expect("a RST").header;
    assert!(header.flags.rst() && header.flags.ack());
    h.command(Command::DrainAs(DrainOrder { over: Duration::ZERO, new: NewConnections::Close }));
    send!(h, SYN seq=0, ack=0, syn=Syn::PLAIN);
    recv!(h, SYN | ACK seq = 0, ack = 1);
    send!(h, ACK seq=1, ack=1);
    recv!(h, FIN | ACK seq = 1, ack = 1);
    send!(h, FIN|ACK seq=1, ack=2);
    recv!(h, ACK seq = 2, ack = 2);
    h.closed(ClosePath::Active, First::Us, Cause::Drain);
}

#[test]
fn a_changed_listener_keeps_its_connections_and_a_removed_one_drops_syns() {
    let mut h = Harness::open();
    let here = h.tuple().local;
    let mut tcp = h.shard.core.cfg.clone();
    tcp.ttl = 7;
    let mut listeners = Listeners::default();
    listeners.add(here, 2);
    listeners.set_count(1);
    let service = Arc::new(|| Box::new(Discard) as Box<dyn crate::service::Service>);
    let change = |listeners, services, begin, end| {
        Box::new(Change { tcp: tcp.clone(), listeners, services, gone: Vec::new(), begin, end })
    };
    h.command(Command::Configure(change(listeners, vec![service], 1, 1)));
    assert!(matches!(h.mailbox.reply(), Some(Reply::Configured(_))));
    assert_eq!(h.shard.core.cfg.ttl, 7);
    assert_eq!(h.shard.population()[State::Listen as usize], 1);
    // The old connection is the old service's.
    h.told();
    send!(h, PSH|ACK seq=1, ack=1, len=10);
    assert_eq!(h.told(), [Told::Data(10)]);
    after!(h, 100);
    recv!(h, ACK seq = 1, ack = 11);
    // A new one is the new one's, which tells the script nothing.
    h.peer(PEER_PORT + 1);
    send!(h, SYN seq=0, ack=0, syn=Syn::PLAIN);
    recv!(h, SYN | ACK seq = 0, ack = 1);
    send!(h, ACK seq=1, ack=1);
    state!(h, Established);
    assert!(h.told().is_empty());
    let numbers: Vec<_> = list(&mut h, Filter::default(), 8).iter().map(|r| r.listener).collect();
    assert_eq!(numbers, [Some(0), Some(2)]);

    let mut none = Listeners::default();
    none.set_retired(vec![here]);
    h.command(Command::Configure(change(none, Vec::new(), 0, 1)));
    h.peer(PEER_PORT + 2);
    send!(h, SYN seq=0, ack=0, syn=Syn::PLAIN);
    nothing!(h);
    assert_eq!(h.counters().drops[DropReason::Draining as usize], 1);
    h.peer(PEER_PORT);
    send!(h, PSH|ACK seq=11, ack=1, len=10);
    assert_eq!(h.told(), [Told::Data(10)]);
    assert_eq!(h.shard.population()[State::Listen as usize], 0);
    assert!(h.shard.audit().is_empty(), "{:?}", h.shard.audit());
}

#[test]
fn close_records_are_kept_and_passed_on_and_what_finds_the_queue_full_is_counted() {
    let mut h = Harness::new();
    h.shard.keep_closes(2);
    let queue = Arc::new(ArrayQueue::new(2));
    h.command(Command::TapCloses(Some(CloseTap { queue: Arc::clone(&queue), every: 1 })));
    open(&mut h, 3);
    assert_eq!(end(&mut h, Deed::Abort, Filter::default()), (3, 3));
    assert_eq!((queue.len(), h.counters().operated.close_log_lost), (2, 1));
    assert_eq!(queue.pop().unwrap().cause, Cause::Operator);
    h.command(Command::Closes(Box::new(ClosePage::new(8))));
    let Some(Reply::Closes(page)) = h.mailbox.reply() else { panic!("no page") };
    let ports: Vec<_> = page.records.iter().map(|(n, r)| (*n, r.tuple.remote.port - PEER_PORT)).collect();
    assert_eq!(ports, [(1, 1), (2, 2)]);
}

#[test]
fn a_capture_has_both_directions_up_to_its_limit_and_counts_what_it_loses() {
    let mut h = Harness::new();
    let ring = Arc::new(CaptureRing::new(4, 64));
    let tap = |left| Some(Box::new(CaptureTap { filter: Filter::default(), ring: Arc::clone(&ring), left }));
    h.command(Command::Capture(tap(100)));
    h.handshake(Syn::PLAIN);
    send!(h, PSH|ACK seq=1, ack=1, len=1000);
    let frames: Vec<_> = std::iter::from_fn(|| ring.filled.pop()).collect();
    assert_eq!(frames.iter().map(|f| f.sent).collect::<Vec<_>>(), [false, true, false, false]);
    assert_eq!((frames[3].original, frames[3].bytes.len()), (1054, 64), "cut off at the buffer's length");
    for f in &frames[..3] {
        let parsed = wire::parse(&f.bytes, wire::Checksums::Verify).unwrap();
        let Parsed::Tcp(seg) = parsed else { panic!("{parsed:?}") };
        // As whoever receives it names it.
        assert_eq!(seg.tuple.local.port, if f.sent { PEER_PORT } else { PORT });
    }
    // No buffer came back: what follows is lost and counted.
    after!(h, 100);
    let c = h.counters();
    assert_eq!((c.operated.captured, c.operated.capture_lost), (4, 1));
    for mut f in frames {
        f.bytes.clear();
        ring.spare.push(f).unwrap();
    }
    h.command(Command::Capture(tap(1)));
    send!(h, PSH|ACK seq=1001, ack=1, len=10);
    send!(h, PSH|ACK seq=1011, ack=1, len=10);
    assert_eq!(ring.filled.len(), 1, "the limit");
    h.command(Command::Capture(None));
    let other = Filter { peer: Some("192.0.2.1".parse().unwrap()), ..Filter::default() };
    h.command(Command::Capture(Some(Box::new(CaptureTap {
        filter: other,
        ring: Arc::clone(&ring),
        left: 9,
    }))));
    send!(h, PSH|ACK seq=1021, ack=1, len=10);
    assert_eq!(ring.filled.len(), 1, "not meant");
}

#[test]
fn frames_of_a_listener_are_chosen_by_their_local_end() {
    let mut listeners = Listeners::default();
    let at = |text: &str| Endpoint::from(text.parse::<std::net::SocketAddr>().unwrap());
    listeners.add(at("0.0.0.0:80"), 4);
    let filter = Filter { listeners: Some(vec![4]), ..Filter::default() };
    let tuple = |local: &str| crate::wire::Tuple { local: at(local), remote: at("192.0.2.9:5") };
    assert!(filter.wants_frame(&tuple("192.0.2.1:80"), &listeners));
    assert!(!filter.wants_frame(&tuple("192.0.2.1:81"), &listeners));
}
