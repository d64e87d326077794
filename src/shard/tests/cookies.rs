//! SYN cookies (o10): handshakes of which nothing is kept.

use super::harness::PEER_PORT;
use super::*;
use crate::drop::DropReason;
use crate::metrics::block::Counters;
use crate::port::Port;
use crate::port::mem::{Direction, Impairment, LinkConfig, Verdict};
use crate::shard::Capacity;
use crate::sim::fleet::{ECHO_PORT, Fleet};
use crate::sim::world::{CLIENT_MAC, SERVER_MAC, WorldConfig, tuple};
use crate::tcp::TcpConfig;
use crate::wire::{Addr, Emit, Flags, Header, L2, Options, SeqNum};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

/// Every SYN is answered by a cookie.
fn always(v6: bool) -> Harness {
    Harness::tuned(|s| {
        s.tcp.syn_cookies = Some(0);
        s.v6 = v6;
    })
}

fn cookies(c: &Counters) -> [u64; 3] {
    [c.cookies_sent, c.cookies_accepted, c.cookies_refused]
}

#[test]
fn o10_a_handshake_by_cookie_on_both_families_with_and_without_timestamps() {
    for v6 in [false, true] {
        for syn in [Syn::PLAIN, Syn::FULL, Syn { ts: false, ..Syn::FULL }] {
            let mut h = always(v6);
            h.peer_mut().ts = syn.ts;
            send!(h, SYN seq=0, ack=0, syn=syn);
            assert_eq!((h.shard.records(), h.shard.timers()), (0, 0), "nothing is kept");
            let got = recv!(h, SYN|ACK seq=0, ack=1);
            assert_eq!(got.options.window_scale.is_some(), syn.ts, "scale lives in the timestamp");
            assert_eq!(got.options.sack_permitted, syn.ts);
            send!(h, ACK seq=1, ack=1, win=1000);
            state!(h, Established);
            assert_eq!(h.told(), [Told::Opened]);
            assert_eq!(cookies(&h.counters()), [1, 1, 0]);
            assert_eq!(h.shard.snapshot().histograms.handshake.len(), 0, "its duration is unknown");
            // Scaled by what the peer offered, if it could be kept: more than one segment fits.
            h.act(&[Do::Send(20_000)]);
            let segments = h.out.len();
            assert_eq!(segments > 1, syn.ts, "{segments} segments into a window of 1000, scaled or not");
            h.skip();
            send!(h, ACK seq=1, ack=1, len=10, win=1000);
            assert_eq!(h.told(), [Told::Data(10)]);
        }
    }
}

#[test]
fn o10_data_and_fin_with_the_cookie_are_taken() {
    let mut h = always(false);
    send!(h, SYN seq=0, ack=0, syn=Syn::PLAIN);
    recv!(h, SYN|ACK seq=0, ack=1);
    // The ACK is lost; the first data completes the handshake.
    send!(h, FIN|ACK seq=1, ack=1, len=100);
    assert_eq!(h.told(), [Told::Opened, Told::Data(100), Told::PeerClosed]);
    recv!(h, ACK seq=1, ack=102);
    state!(h, CloseWait);
}

#[test]
fn o10_a_segment_that_overtook_the_cookie_comes_again() {
    let mut h = always(false);
    send!(h, SYN seq=0, ack=0, syn=Syn::PLAIN);
    recv!(h, SYN|ACK seq=0, ack=1);
    send!(h, ACK seq=101, ack=1, len=100);
    nothing!(h);
    assert_eq!(h.counters().drops[DropReason::OutOfWindow as usize], 1);
    send!(h, ACK seq=1, ack=1, len=100);
    send!(h, ACK seq=101, ack=1, len=100);
    recv!(h, ACK seq=1, ack=201);
    assert_eq!(h.told(), [Told::Opened, Told::Data(100), Told::Data(100)]);
}

#[test]
fn o10_what_is_no_cookie_is_answered_as_ever_and_counted() {
    let mut h = always(false);
    // Before any cookie was sent nothing is tried.
    send!(h, ACK seq=1, ack=1);
    recv!(h, RST seq=1, ack=0);
    assert_eq!(cookies(&h.counters()), [0, 0, 0]);
    send!(h, SYN seq=0, ack=0, syn=Syn::PLAIN);
    recv!(h, SYN|ACK seq=0, ack=1);
    send!(h, ACK seq=1, ack=2);
    recv!(h, RST seq=2, ack=0);
    send!(h, RST|ACK seq=1, ack=1);
    nothing!(h);
    assert_eq!(cookies(&h.counters()), [1, 0, 1]);
    // Too late.
    after!(h, 128_000);
    send!(h, ACK seq=1, ack=1);
    recv!(h, RST seq=1, ack=0);
    h.all_gone();
}

#[test]
fn o10_cookies_begin_at_the_share_and_a_full_table_drops_no_syn() {
    let mut h = Harness::tuned(|s| {
        s.capacity.half_open = 4;
        s.tcp.syn_cookies = Some(50);
    });
    for n in 0..8 {
        h.peer(PEER_PORT + n);
        send!(h, SYN seq=0, ack=0, syn=Syn::PLAIN);
        recv!(h, SYN|ACK seq=0, ack=1);
    }
    assert_eq!(h.shard.records(), 2);
    assert_eq!(h.counters().cookies_sent, 6);
    for n in 0..8 {
        h.peer(PEER_PORT + n);
        send!(h, ACK seq=1, ack=1);
        state!(h, Established);
    }
    let c = h.counters();
    assert_eq!((c.opened_passive, c.cookies_accepted), (8, 6));
    assert_eq!(c.drops[DropReason::SynTableFull as usize], 0);
}

#[test]
fn o10_a_burst_of_syns_leaves_room_to_answer_what_is_open_and_no_record_of_what_it_dropped() {
    for syn_cookies in [Some(0), None] {
        let mut h = Harness::open_tuned(|s| {
            s.tcp.syn_cookies = syn_cookies;
            s.capacity.half_open = 64;
        });
        let room = h.shard.port_mut().tx_room();
        h.shard.kept_slots = room - 4;
        let before = h.shard.records();
        for n in 1..=10 {
            h.peer(PEER_PORT + n);
            h.put(&Seg::new(&[Flags::SYN]).seq(0).ack(0).syn(Syn::PLAIN));
        }
        h.peer(PEER_PORT);
        send!(h, ACK seq=1, ack=1, len=1460);
        send!(h, ACK seq=1461, ack=1, len=1460);
        let answers: Vec<_> = h.out.iter().map(|s| s.header.flags).collect();
        assert_eq!(answers, [&[Flags::SYN | Flags::ACK; 5][..], &[Flags::ACK]].concat());
        assert_eq!(h.counters().drops[DropReason::TxRingFull as usize], 5);
        let kept = if syn_cookies.is_some() { 0 } else { 5 };
        assert_eq!(h.shard.records() - before, kept);
        h.skip();
        // A moment later the ring has room again.
        h.peer(PEER_PORT + 10);
        send!(h, SYN seq=0, ack=0, syn=Syn::PLAIN);
        recv!(h, SYN|ACK seq=0, ack=1);
    }
}

#[test]
fn o10_the_cookie_of_a_first_syn_counts_though_the_second_made_a_record() {
    let mut h = Harness::tuned(|s| {
        s.capacity.half_open = 1;
        s.tcp.syn_cookies = Some(100);
    });
    h.peer(PEER_PORT + 1);
    send!(h, SYN seq=0, ack=0, syn=Syn::PLAIN);
    recv!(h, SYN|ACK seq=0, ack=1);
    h.peer(PEER_PORT);
    send!(h, SYN seq=0, ack=0, syn=Syn::PLAIN);
    recv!(h, SYN|ACK seq=0, ack=1);
    // Room again: the SYN that comes again, its SYN-ACK being late, makes a record with another ISN.
    h.peer(PEER_PORT + 1);
    send!(h, ACK seq=1, ack=1);
    h.peer(PEER_PORT);
    send!(h, SYN seq=0, ack=0, syn=Syn::PLAIN);
    assert_eq!(h.shard.records(), 2);
    h.out.clear();
    send!(h, ACK seq=1, ack=1);
    nothing!(h);
    state!(h, Established);
    assert_eq!(h.shard.records(), 2, "the connection took the record's place");
}

#[test]
fn o10_a_cookie_that_finds_the_connection_table_full_may_come_again() {
    let mut h = Harness::tuned(|s| {
        s.capacity.connections = 1;
        s.tcp.syn_cookies = Some(0);
    });
    h.handshake(Syn::PLAIN);
    h.peer(PEER_PORT + 1);
    send!(h, SYN seq=0, ack=0, syn=Syn::PLAIN);
    recv!(h, SYN|ACK seq=0, ack=1);
    send!(h, ACK seq=1, ack=1);
    nothing!(h);
    assert_eq!(h.counters().drops[DropReason::ConnTableFull as usize], 1);
    h.peer(PEER_PORT);
    h.act(&[Do::Abort]);
    h.skip();
    h.service().records.clear();
    h.peer(PEER_PORT + 1);
    send!(h, ACK seq=1, ack=1, len=5);
    state!(h, Established);
}

/// A SYN from an address that does not answer.
fn spoofed(n: u32, v6: bool) -> Vec<u8> {
    let mut tuple = tuple(n % 50_000, ECHO_PORT, v6).flipped();
    let [_, hi, mid, lo] = n.to_be_bytes();
    tuple.remote.addr = if v6 {
        Addr::v6([0xfd, 0x66, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, hi, mid, lo])
    } else {
        Addr::v4([66, hi, mid, lo])
    };
    let options = Options { mss: Some(1460), sack_permitted: true, ..Options::default() };
    let header =
        Header { seq: SeqNum::new(n), flags: Flags::SYN, window: 1024, options, ..Header::default() };
    let l2 = L2 { src: CLIENT_MAC, dst: SERVER_MAC, vlan: None };
    let (flipped, mut frame) = (tuple.flipped(), vec![0; 128]);
    let emit = Emit { l2, tuple: &flipped, header: &header, ttl: 64, ecn: 0, ip_id: 0 };
    let len = emit.emit(&mut frame, 0).expect("a SYN fits");
    frame.truncate(len);
    frame
}

/// Whether a frame goes to an address that [`spoofed`] made up.
fn to_nobody(frame: &[u8]) -> bool {
    match frame[12..14] {
        [8, 0] => frame[30] == 66,
        _ => frame[38..40] == [0xfd, 0x66],
    }
}

/// Runs clients against servers that are flooded by thousands of SYNs for each of them. Returns the servers' counters.
fn flooded(workers: usize, percent: Option<u8>, seed: u64) -> (bool, Counters) {
    const LIVE: u64 = 40;
    const SYNS_PER_LIVE: u64 = 3000;
    let tcp = TcpConfig { syn_cookies: percent, ..TcpConfig::default() };
    let line = Impairment {
        delay: (Duration::from_millis(1), Duration::from_millis(4)),
        reordering: 0.1,
        reordering_delay: Duration::from_millis(3),
        ..Impairment::default()
    };
    let cfg = WorldConfig {
        link: LinkConfig {
            seed,
            frames: 16_384,
            fill: 8192,
            rx_ring: 8192,
            tx_ring: 8192,
            ..LinkConfig::default()
        }
        .both(line),
        workers,
        server: tcp.clone(),
        client: TcpConfig { syn_retries: 3, ..tcp },
        capacity: Capacity { connections: 256, half_open: 64, time_wait: 1024, chunks: 4096 },
        key: seed,
    };
    let mut fleet = Fleet::new(cfg, seed, LIVE, 4);
    fleet.world.link.set_filter(
        Direction::BToA,
        Some(Box::new(|_, f| if to_nobody(f) { Verdict::Drop } else { Verdict::Pass })),
    );
    let sent = Rc::new(Cell::new(0u64));
    let flood = |f: &mut Fleet, most: u64| {
        for _ in 0..most {
            let n = sent.get();
            f.world.link.inject(Direction::AToB, &spoofed(n as u32, n % 2 == 1));
            sent.set(n + 1);
        }
    };
    flood(&mut fleet, 512);
    let ended = fleet
        .run(Duration::from_secs(300), |f| {
            // As many for each connection, whenever it was begun.
            let due = (f.begun() * SYNS_PER_LIVE).saturating_sub(sent.get());
            flood(f, due.min(256));
        })
        .expect("the ports work");
    let good = ended && fleet.tally().all_good();
    let mut sum = Counters::default();
    for s in &mut fleet.world.servers {
        sum.merge(&s.snapshot().counters);
    }
    assert_eq!(sum.illegal_transitions, 0);
    assert!(sent.get() > 1000 * LIVE, "{} SYNs", sent.get());
    (good, sum)
}

#[test]
fn o10_a_flood_of_syns_keeps_no_client_out() {
    for (workers, seed) in [(1, 1), (2, 2)] {
        let (good, c) = flooded(workers, Some(75), seed);
        assert!(good, "every client completes");
        assert_eq!(c.opened_passive, 40);
        assert!(c.cookies_sent > 30_000 && c.cookies_accepted > 20, "{:?}", cookies(&c));
        assert_eq!(c.drops[DropReason::SynTableFull as usize], 0);
    }
    // Without cookies the same flood keeps them out: the test can fail.
    let (good, c) = flooded(1, None, 1);
    assert!(!good && c.drops[DropReason::SynTableFull as usize] > 30_000);
}
