//! Data in both directions (d01 to d09, d12, d13, d15).

use super::*;
use crate::drop::DropReason;
use crate::metrics::block::Retransmission;
use crate::tcp::record::{Cause, ClosePath, First};
use crate::wire::{Flags, Header, SeqNum};
use proptest::prelude::*;

const ACK: [Flags; 1] = [Flags::ACK];

fn ack(n: i64) -> Seg {
    Seg::new(&ACK).ack(n)
}

/// The shard has sent data next; whether with PSH is not looked at. Gives its header.
#[track_caller]
fn data(h: &mut Harness, seq: i64, len: usize) -> Header {
    let psh = h.out.front().is_some_and(|s| s.header.flags.has(Flags::PSH));
    let seg = if psh { Seg::new(&[Flags::PSH, Flags::ACK]) } else { Seg::new(&ACK) };
    h.recv(&seg.seq(seq).len(len))
}

/// A peer that takes part in nothing but the MSS of 1,000 bytes.
fn thousand(tune: impl FnOnce(&mut super::harness::Setup)) -> Harness {
    let mut h = Harness::tuned(tune);
    h.handshake(Syn { mss: Some(1000), ..Syn::PLAIN });
    h
}

fn retransmissions(h: &mut Harness, kind: Retransmission) -> u64 {
    h.counters().retransmissions[kind as usize]
}

#[test]
fn d01_bytes_in_order_reach_the_service_at_once() {
    let mut h = Harness::open();
    for i in 0..20 {
        h.send(&Seg::new(&ACK).seq(1 + i * 100).len(100));
        assert_eq!(h.told(), [Told::Data(100)]);
    }
}

#[test]
fn d02_what_is_beyond_a_gap_is_kept_and_joined() {
    let mut h = Harness::open();
    for seq in [301, 101, 501] {
        h.send(&Seg::new(&ACK).seq(seq).len(100));
        recv!(h, ACK seq=1, ack=1);
    }
    assert_eq!(h.told(), []);
    send!(h, ACK seq=1, ack=1, len=100);
    recv!(h, ACK seq=1, ack=201);
    send!(h, ACK seq=201, ack=1, len=100);
    recv!(h, ACK seq=1, ack=401);
    send!(h, ACK seq=401, ack=1, len=100);
    recv!(h, ACK seq=1, ack=601);
    let got: usize = h.told().iter().map(|t| if let Told::Data(n) = t { *n } else { 0 }).sum();
    assert_eq!(got, 600);
    assert_eq!(h.shard.chunks_used(), 0);
}

#[test]
fn d02_of_bytes_that_come_twice_the_first_copy_is_taken() {
    let mut h = Harness::open();
    send!(h, ACK seq=101, ack=1, len=100);
    recv!(h, ACK seq=1, ack=1);
    // 1 to 300, of which 101 to 200 are not what came first: the service checks every byte.
    let seg = Seg::new(&ACK).seq(1).len(300);
    let mut frame = h.frame(&seg);
    let at = frame.len() - 200;
    frame[at..at + 100].swap_with_slice(&mut [0xAA; 100]);
    reseal_tcp(&mut frame);
    h.send_raw(&frame);
    recv!(h, ACK seq=1, ack=301);
    let got: usize = h.told().iter().map(|t| if let Told::Data(n) = t { *n } else { 0 }).sum();
    assert_eq!(got, 300);
    assert_eq!(h.shard.chunks_used(), 0);
}

/// Rewrites the checksum of an IPv4 TCP frame without IP options.
fn reseal_tcp(frame: &mut [u8]) {
    frame[50..52].fill(0);
    let mut sum = 6 + (frame.len() - 34) as u32;
    for part in [&frame[26..34], &frame[34..]] {
        for w in part.chunks(2) {
            sum += u32::from(u16::from_be_bytes([w[0], w.get(1).copied().unwrap_or(0)]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    frame[50..52].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

#[test]
fn d02_out_of_order_data_is_bounded_by_the_pool_and_comes_again() {
    let mut h = Harness::open_tuned(|s| s.capacity.chunks = 2);
    for i in 0..6 {
        h.send(&Seg::new(&ACK).seq(1001 + i * 3000).len(1000));
        recv!(h, ACK seq=1, ack=1);
    }
    assert_eq!(h.shard.chunks_used(), 2);
    assert!(h.counters().drops[DropReason::NoChunk as usize] >= 4);
    send!(h, ACK seq=1, ack=1, len=1000);
    let seen = h.out.pop_front().expect("an ACK");
    assert_eq!(seen.header.ack, h.peer_mut().iss + 2001);
}

#[test]
fn d03_duplicates_are_acknowledged() {
    let mut h = Harness::open();
    send!(h, ACK seq=1, ack=1, len=100);
    after!(h, 40);
    recv!(h, ACK seq=1, ack=101);
    for _ in 0..30 {
        send!(h, ACK seq=1, ack=1, len=100);
        recv!(h, ACK seq=1, ack=101);
    }
    assert_eq!(h.told(), [Told::Data(100)]);
}

#[test]
fn d05_an_unread_buffer_closes_the_window_and_reading_opens_it() {
    let mut h = Harness::open_tuned(|s| s.tcp.receive_buffer = 4000);
    h.service().take = 0;
    for i in 0..4 {
        h.send(&Seg::new(&ACK).seq(1 + i * 1000).len(1000));
    }
    recv!(h, ACK seq=1, ack=2001, win=2000);
    recv!(h, ACK seq=1, ack=4001, win=0);
    // A probe with a byte, and one without.
    send!(h, ACK seq=4001, ack=1, len=1);
    recv!(h, ACK seq=1, ack=4001, win=0);
    send!(h, ACK seq=4000, ack=1);
    recv!(h, ACK seq=1, ack=4001, win=0);
    // The service reads: the window opens, at the next probe or at once.
    h.service().take = usize::MAX;
    send!(h, ACK seq=4001, ack=1, len=1);
    recv!(h, ACK seq=1, ack=4001, win=4000);
    nothing!(h);
    assert_eq!(h.shard.chunks_used(), 0);
}

#[test]
fn d05_an_ack_with_a_closed_window_still_counts() {
    let mut h = Harness::open_tuned(|s| s.tcp.receive_buffer = 1000);
    h.service().take = 0;
    h.act(&[Do::Send(500)]);
    data(&mut h, 1, 500);
    send!(h, ACK seq=1, ack=1, len=1000);
    after!(h, 40);
    recv!(h, ACK seq=501, ack=1001, win=0);
    send!(h, ACK seq=1001, ack=501);
    after!(h, 5000);
    nothing!(h);
    assert_eq!(retransmissions(&mut h, Retransmission::DataTimeout), 0);
}

#[test]
fn d05_a_closed_window_is_probed_with_back_off_until_it_opens() {
    let mut h = thousand(|_| ());
    h.send(&ack(1).win(0));
    h.act(&[Do::Send(2000)]);
    nothing!(h);
    for wait in [200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 60_000, 60_000] {
        after!(h, wait - 1);
        nothing!(h);
        after!(h, 1);
        recv!(h, ACK seq=0, ack=1);
        // Whoever answers is not given up, however long it takes (RFC 9293 §3.8.6.1).
        h.send(&ack(1).win(0));
    }
    assert_eq!(retransmissions(&mut h, Retransmission::Probe), 11);
    h.send(&ack(1).win(5000));
    data(&mut h, 1, 1000);
    data(&mut h, 1001, 1000);
    // The probes' back-off is over: the next timeout is the data's own.
    after!(h, 200);
    data(&mut h, 1, 1000);
    h.send(&ack(2001));
    after!(h, 100_000);
    nothing!(h);
}

#[test]
fn d05_a_peer_that_vanished_behind_a_closed_window_is_given_up() {
    let mut h = thousand(|_| ());
    h.send(&ack(1).win(0));
    after!(h, 1_000_000);
    state!(h, Established);
    // An hour of rest is not held against it.
    h.act(&[Do::Send(2000)]);
    after!(h, 90_000);
    state!(h, Established);
    after!(h, 100_000);
    state!(h, Closed);
    h.out.retain(|s| s.header.flags.rst());
    recv!(h, RST|ACK seq=1, ack=1);
    h.closed(ClosePath::Timeout, First::Us, Cause::GiveUp);
    h.all_gone();
}

#[test]
fn d05_window_taken_back_over_data_in_flight() {
    let mut h = thousand(|_| ());
    h.act(&[Do::Send(3000)]);
    for seq in [1, 1001, 2001] {
        data(&mut h, seq, 1000);
    }
    // RFC 9293 §3.8.6: a sender must be robust against this, and must not give up while the peer answers.
    h.send(&ack(1).win(0));
    for wait in [200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 60_000, 60_000] {
        after!(h, wait);
        data(&mut h, 1, 1000);
        nothing!(h);
        h.send(&ack(1).win(0));
    }
    state!(h, Established);
    h.send(&ack(1001).win(5000));
    data(&mut h, 1001, 1000);
}

#[test]
fn d06_the_sender_waits_for_a_window_worth_using() {
    let mut h = thousand(|_| ());
    h.send(&ack(1).win(400));
    h.act(&[Do::Send(5000)]);
    nothing!(h);
    // A window update resets nothing but the wait.
    after!(h, 100);
    h.send(&ack(1).win(500));
    nothing!(h);
    // The override timer: better a small segment than none.
    after!(h, 200);
    data(&mut h, 1, 500);
    nothing!(h);
    h.send(&ack(501).win(1000));
    data(&mut h, 501, 1000);
}

#[test]
fn d06_a_leftover_of_the_wait_is_no_timeout() {
    let mut h = thousand(|_| ());
    h.send(&ack(1).win(400));
    h.act(&[Do::Send(5000)]);
    after!(h, 190);
    h.send(&ack(1).win(2000));
    data(&mut h, 1, 1000);
    data(&mut h, 1001, 1000);
    after!(h, 190);
    nothing!(h);
    assert_eq!(retransmissions(&mut h, Retransmission::DataTimeout), 0);
}

#[test]
fn d06_the_receiver_opens_the_window_in_worthwhile_steps() {
    let mut h = Harness::open_tuned(|s| s.tcp.receive_buffer = 8000);
    h.service().take = 0;
    for i in 0..8 {
        h.send(&Seg::new(&ACK).seq(1 + i * 1000).len(1000));
    }
    h.out.clear();
    // 300 bytes are read at each probe: no window is offered before it is worth a segment.
    h.service().take = usize::MAX;
    for window in [0, 0, 0, 0, 1500, 1500] {
        h.service().quota = 300;
        send!(h, ACK seq=8001, ack=1, len=1);
        h.service().quota = 0;
        send!(h, ACK seq=8000, ack=1);
        let shown = h.out.drain(..).next_back().expect("an answer").header.window;
        assert_eq!(shown, window);
        if shown > 0 {
            break;
        }
    }
}

#[test]
fn d07_an_ack_waits_for_40_ms_or_a_second_segment() {
    let mut h = Harness::open();
    send!(h, ACK seq=1, ack=1, len=1460);
    after!(h, 39);
    nothing!(h);
    after!(h, 1);
    recv!(h, ACK seq=1, ack=1461);
    send!(h, ACK seq=1461, ack=1, len=1460);
    nothing!(h);
    send!(h, ACK seq=2921, ack=1, len=1460);
    recv!(h, ACK seq=1, ack=4381);
    after!(h, 1000);
    nothing!(h);
    // An answer carries it.
    h.service().data = vec![Do::Send(10)];
    send!(h, ACK seq=4381, ack=1, len=10);
    recv!(h, PSH|ACK seq=1, ack=4391, len=10);
    send!(h, ACK seq=4391, ack=11);
    after!(h, 1000);
    nothing!(h);
}

#[test]
fn d08_nagle_holds_small_segments_while_data_is_unacknowledged() {
    for nagle in [false, true] {
        let mut h = thousand(|s| s.tcp.nagle = nagle);
        h.act(&[Do::Send(10)]);
        data(&mut h, 1, 10);
        h.act(&[Do::Send(10)]);
        if nagle {
            nothing!(h);
            h.act(&[Do::Send(980)]);
            nothing!(h);
            h.act(&[Do::Send(15)]);
            // A full segment goes, the rest waits.
            data(&mut h, 11, 1000);
            nothing!(h);
            h.send(&ack(1011));
            data(&mut h, 1011, 5);
        } else {
            data(&mut h, 11, 10);
        }
    }
}

#[test]
fn d08_nagle_does_not_hold_the_last_piece_before_a_fin() {
    let mut h = thousand(|s| s.tcp.nagle = true);
    h.act(&[Do::Send(10)]);
    data(&mut h, 1, 10);
    h.act(&[Do::Send(10), Do::Close]);
    recv!(h, FIN|PSH|ACK seq=11, ack=1, len=10);
}

#[test]
fn d09_data_is_sent_again_with_back_off_and_given_up_by_time() {
    let mut h = thousand(|s| s.tcp.give_up = std::time::Duration::from_secs(4));
    h.act(&[Do::Send(3000)]);
    for seq in [1, 1001, 2001] {
        data(&mut h, seq, 1000);
    }
    for wait in [200, 400, 800, 1600] {
        after!(h, wait - 1);
        nothing!(h);
        after!(h, 1);
        // One segment: the loss window (RFC 5681 §3.1).
        data(&mut h, 1, 1000);
        nothing!(h);
    }
    assert_eq!(retransmissions(&mut h, Retransmission::DataTimeout), 4);
    after!(h, 3200);
    recv!(h, RST|ACK seq=3001, ack=1);
    let record = h.closed(ClosePath::Timeout, First::Us, Cause::GiveUp);
    assert_eq!(record.unacknowledged, 3000);
    h.all_gone();
}

#[test]
fn d09_karn_a_path_longer_than_the_first_rto_is_learnt() {
    // No timestamps, and a round trip of 1.5 s: everything seems lost once.
    let mut h = thousand(|_| ());
    h.act(&[Do::Send(1000)]);
    data(&mut h, 1, 1000);
    for wait in [200, 400, 800] {
        after!(h, wait);
        data(&mut h, 1, 1000);
    }
    after!(h, 100);
    h.send(&ack(1001));
    // With the back-off kept this is timed; without, it would be sent twice for ever.
    h.act(&[Do::Send(1000)]);
    data(&mut h, 1001, 1000);
    after!(h, 1500);
    nothing!(h);
    h.send(&ack(2001));
    h.act(&[Do::Send(1000)]);
    data(&mut h, 2001, 1000);
    after!(h, 1500);
    nothing!(h);
    assert_eq!(retransmissions(&mut h, Retransmission::DataTimeout), 3);
}

#[test]
fn d09_the_rto_follows_the_round_trip() {
    let mut h = thousand(|_| ());
    for i in 0..20 {
        h.act(&[Do::Send(1000)]);
        data(&mut h, 1 + i * 1000, 1000);
        after!(h, 100);
        h.send(&ack(1001 + i * 1000));
    }
    h.act(&[Do::Send(1000)]);
    data(&mut h, 20_001, 1000);
    after!(h, 199);
    nothing!(h);
    after!(h, 20);
    data(&mut h, 20_001, 1000);
}

#[test]
fn d10_three_duplicates_send_the_lost_segment_and_partial_acks_the_next() {
    let mut h = thousand(|_| ());
    h.act(&[Do::Send(10_000)]);
    for i in 0..10 {
        data(&mut h, 1 + i * 1000, 1000);
    }
    // The first and the fifth are lost.
    h.send(&ack(1));
    h.send(&ack(1));
    nothing!(h);
    h.send(&ack(1));
    data(&mut h, 1, 1000);
    for _ in 0..5 {
        h.send(&ack(1));
    }
    nothing!(h);
    h.send(&ack(4001));
    data(&mut h, 4001, 1000);
    nothing!(h);
    h.send(&ack(10_001));
    after!(h, 10_000);
    nothing!(h);
    assert_eq!(retransmissions(&mut h, Retransmission::DataFast), 2);
    assert_eq!(retransmissions(&mut h, Retransmission::DataTimeout), 0);
}

#[test]
fn d10_window_updates_and_segments_with_data_are_no_duplicates() {
    let mut h = thousand(|_| ());
    h.act(&[Do::Send(5000)]);
    h.out.clear();
    for i in 0..5 {
        h.send(&ack(1).win(50_000 + i));
        h.send(&ack(1).seq(1 + i64::from(i) * 10).len(10).win(50_000 + i));
    }
    assert!(h.out.iter().all(|s| s.payload.is_empty()), "nothing was sent again");
}

#[test]
fn d10_sack_blocks_name_the_latest_range_first() {
    for ts in [false, true] {
        let mut h = Harness::new();
        h.handshake(Syn { ts, ..Syn::FULL });
        let mut last = None;
        for seq in [1001, 3001, 5001, 7001, 9001, 3101] {
            h.send(&Seg::new(&ACK).seq(seq).len(100));
            last = Some(recv!(h, ACK seq=1, ack=1));
        }
        let o = last.expect("ACKs").options;
        assert_eq!(o.sack_blocks().len(), if ts { 3 } else { 4 });
        let iss = h.peer_mut().iss;
        assert_eq!(o.sack_blocks()[0], (iss + 3001, iss + 3201), "RFC 2018 §4");
        for (left, right) in o.sack_blocks() {
            assert!(left.before(*right) && left.after(iss + 1));
        }
        // Without the option agreed on there are none.
        let mut h = Harness::open();
        send!(h, ACK seq=1001, ack=1, len=100);
        assert_eq!(recv!(h, ACK seq=1, ack=1).options.sack_len, 0);
    }
}

#[test]
fn d12_timestamps_are_echoed_as_the_rfc_says() {
    let mut h = Harness::new();
    h.handshake(Syn::FULL);
    let val = |ms: u32| (u32::MAX - 1000).wrapping_add(ms);
    after!(h, 100);
    // The first of two delayed segments is the one to echo (RFC 7323 §4.3, A).
    send!(h, ACK seq=1, ack=1, len=100, ts=100);
    send!(h, ACK seq=101, ack=1, len=100, ts=105);
    assert_eq!(recv!(h, ACK seq=1, ack=201).options.timestamps.expect("agreed on").ecr, val(100));
    // Beyond a gap the last one in order is echoed (B), and the one that fills it (C).
    send!(h, ACK seq=301, ack=1, len=100, ts=120);
    assert_eq!(recv!(h, ACK seq=1, ack=201).options.timestamps.expect("agreed on").ecr, val(100));
    send!(h, ACK seq=201, ack=1, len=100, ts=130);
    assert_eq!(recv!(h, ACK seq=1, ack=401).options.timestamps.expect("agreed on").ecr, val(130));
}

#[test]
fn d12_paws_refuses_what_is_older_and_what_has_no_timestamp() {
    let mut h = Harness::new();
    h.handshake(Syn::FULL);
    after!(h, 5000);
    send!(h, ACK seq=1, ack=1, len=100);
    after!(h, 40);
    recv!(h, ACK seq=1, ack=101);
    let _ = h.told();
    send!(h, ACK seq=101, ack=1, len=100, ts=4000);
    recv!(h, ACK seq=1, ack=101);
    send!(h, ACK seq=101, ack=1, len=100, bare=true);
    nothing!(h);
    assert_eq!(h.counters().drops[DropReason::Paws as usize], 2);
    assert_eq!(h.told(), []);
    // A RST is not subject to it (RFC 7323 §5.2).
    send!(h, RST seq=101, ts=0);
    state!(h, Closed);
    h.service().records.clear();
}

#[test]
fn d12_after_24_days_of_rest_any_timestamp_is_good() {
    let mut h = Harness::new();
    h.handshake(Syn::FULL);
    after!(h, 25 * 24 * 3600 * 1000);
    // 2^31 ms have passed for the peer: its clock looks older.
    send!(h, ACK seq=1, ack=1, len=10);
    assert_eq!(h.told(), [Told::Data(10)]);
    after!(h, 40);
    recv!(h, ACK seq=1, ack=11);
    after!(h, 10);
    send!(h, ACK seq=11, ack=1, len=10);
    after!(h, 40);
    let ts = recv!(h, ACK seq=1, ack=21).options.timestamps.expect("agreed on");
    let sent = h.now().millis() as u32 - 5000 - 40;
    assert_eq!(ts.ecr, (u32::MAX - 1000).wrapping_add(sent), "and it is remembered");
}

#[test]
fn d13_scaled_windows_are_respected_both_ways() {
    let mut h = Harness::new();
    h.handshake(Syn { scale: Some(3), mss: Some(1000), ..Syn::PLAIN });
    h.send(&ack(1).win(500));
    h.act(&[Do::Send(20_000)]);
    for i in 0..4 {
        data(&mut h, 1 + i * 1000, 1000);
    }
    nothing!(h);
    let ours = u32::from({
        send!(h, ACK seq=1, ack=1, len=10, win=500);
        send!(h, ACK seq=11, ack=1, len=10, win=500);
        recv!(h, ACK seq=4001, ack=21).window
    }) << h.shard.core.cfg.window_scale();
    assert!(ours > 65_535 && ours <= h.shard.core.cfg.receive_buffer + 7, "{ours}");
}

#[test]
fn d15_urgent_data_is_delivered_in_line() {
    let mut h = Harness::open();
    for (i, pointer) in [0u16, 1, 50, u16::MAX].into_iter().enumerate() {
        let seg = Seg::new(&[Flags::ACK, Flags::URG, Flags::PSH]).seq(1 + i as i64 * 50).len(50);
        let mut frame = h.frame(&seg);
        frame[52..54].copy_from_slice(&pointer.to_be_bytes());
        reseal_tcp(&mut frame);
        h.send_raw(&frame);
        assert_eq!(h.told(), [Told::Data(50)]);
    }
}

#[test]
fn d01_the_queue_of_the_starved_is_bounded() {
    let mut h = Harness::open_tuned(|s| s.capacity.chunks = 0);
    h.service().data = vec![Do::Send(10)];
    for i in 0..200 {
        h.send(&Seg::new(&ACK).seq(1 + i * 10).len(10));
    }
    assert!(h.shard.core.starved.len() <= 16, "{}", h.shard.core.starved.len());
    assert_eq!(h.service().sent, 0);
}

/// The right edge of the window that a header shows.
fn edge(h: &Header, scale: u8) -> SeqNum {
    h.ack + (u32::from(h.window) << scale)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn d02_any_segmentation_and_order_gives_the_stream(
        segments in prop::collection::vec((0..6000i64, 1..1460usize), 1..60),
        total in 1..6000i64,
        take in prop_oneof![Just(usize::MAX), 1..700usize],
        full in any::<bool>(),
    ) {
        let mut h = Harness::new();
        h.handshake(if full { Syn::FULL } else { Syn::PLAIN });
        h.service().take = take;
        for (at, len) in segments {
            let len = len.min((total - at).max(0) as usize);
            if len > 0 {
                h.send(&Seg::new(&ACK).seq(1 + at).len(len));
            }
        }
        // Once more in order, until everything is taken: the service may take little at a time.
        let mut at = 0;
        while at < total {
            let len = 1000.min(total - at);
            h.send(&Seg::new(&ACK).seq(1 + at).len(len as usize));
            at += len;
        }
        h.service().take = usize::MAX;
        h.send(&Seg::new(&[Flags::FIN, Flags::ACK]).seq(1 + total));
        let last = h.out.back().expect("an ACK").header;
        prop_assert_eq!(last.ack, h.peer_mut().iss + (2 + total) as u32);
        prop_assert_eq!(h.shard.chunks_used(), 0);
        prop_assert_eq!(h.told().pop(), Some(Told::PeerClosed));
    }

    #[test]
    fn d13_the_window_is_never_taken_back(
        steps in prop::collection::vec((1..1460usize, prop_oneof![Just(0), 0..2000usize], any::<bool>()), 1..80),
        buffer in prop_oneof![2000..20_000u32, 66_000..90_000u32, 262_100..300_000u32],
    ) {
        let mut h = Harness::tuned(|s| s.tcp.receive_buffer = buffer);
        h.handshake(Syn { ts: false, ..Syn::FULL });
        let scale = h.shard.core.cfg.window_scale();
        let start = h.peer_mut().iss + 1;
        let (mut furthest, mut next, mut acked) = (start + buffer.min(65_535), 0i64, start);
        // Nothing is read until the window is nearly closed: there the rounding of the scale matters.
        h.service().quota = 0;
        while furthest.bytes_since(start + next as u32) > 6000 {
            h.send(&Seg::new(&ACK).seq(1 + next).len(1460));
            next += 1460;
            for seen in h.out.drain(..) {
                furthest = furthest.max(edge(&seen.header, scale));
            }
        }
        for (len, take, gap) in steps {
            h.service().quota = take;
            // Never beyond what was offered, to the byte.
            let room = furthest.bytes_since(start + next as u32) as usize;
            let len = len.min(room);
            if len > 0 {
                if gap && len > 1 {
                    h.send(&Seg::new(&ACK).seq(2 + next).len(len - 1));
                }
                h.send(&Seg::new(&ACK).seq(1 + next).len(len));
                next += len as i64;
            } else {
                h.send(&Seg::new(&ACK).seq(next));
            }
            h.after(std::time::Duration::from_millis(40));
            for seen in h.out.drain(..) {
                let shown = edge(&seen.header, scale);
                // Less than one unit of the scale may be lost to rounding (RFC 7323 §2.4).
                prop_assert!(furthest.bytes_since(shown) < 1 << scale, "{} after {}", shown, furthest);
                furthest = furthest.max(shown);
                acked = seen.header.ack;
            }
            prop_assert_eq!(acked, start + next as u32, "all that was within the window is taken");
            let held = h.shard.chunks_used() * 2048;
            prop_assert!(held <= 2 * buffer as usize + 8192, "{} held of {}", held, buffer);
        }
    }
}
