//! How losses are found and repaired: exact segments, with SACK and without.

use super::harness::Setup;
use super::{Do, Harness, Seg, Syn, after, nothing, recv, send};
use crate::tcp::config::Limits;
use crate::tcp::congestion::Algorithm;
use crate::wire::{Flags, Options};

/// Bytes of a segment: windows are counted in these.
pub const MSS: i64 = 1460;

/// With SACK and nothing else; windows are literal.
pub const SACK: Syn = Syn { sack: true, ..Syn::PLAIN };

pub fn new_reno(s: &mut Setup) {
    s.tcp.limits = vec![Limits { congestion: Algorithm::NewReno, ..Limits::DEFAULT }];
}

/// A connection with SACK whose service has offered so many full segments.
fn sending(segments: usize) -> Harness {
    let mut h = Harness::tuned(new_reno);
    h.handshake(SACK);
    h.act(&[Do::Send(segments * MSS as usize)]);
    h
}

/// First byte of the `n`th segment.
pub fn at(n: i64) -> i64 {
    1 + n * MSS
}

/// The shard has sent segments `n` next, each full.
#[track_caller]
pub fn segments(h: &mut Harness, n: impl IntoIterator<Item = i64>) {
    for i in n {
        let seen = h.out.front().unwrap_or_else(|| panic!("segment {i} was not sent")).header.flags;
        let mut want = Seg::new(&[Flags::ACK]).seq(at(i)).ack(1).len(MSS as usize);
        if seen.has(Flags::PSH) {
            want = Seg::new(&[Flags::ACK, Flags::PSH]).seq(at(i)).ack(1).len(MSS as usize);
        }
        h.recv(&want);
    }
}

/// The peer acknowledges all before segment `una` and says that it has the segments `ranges`, each `[first, end)`.
pub fn sack(h: &mut Harness, una: i64, ranges: &[(i64, i64)]) {
    let irs = h.peer_mut().irs.expect("the handshake is done");
    let mut options = Options::default();
    for (slot, &(a, b)) in options.sack.iter_mut().zip(ranges) {
        *slot = (irs + at(a) as u32, irs + at(b) as u32);
        options.sack_len += 1;
    }
    h.send(&Seg::new(&[Flags::ACK]).seq(1).ack(at(una)).options(options));
}

#[test]
fn d10_several_holes_are_repaired_in_one_round_trip() {
    let mut h = sending(10);
    segments(&mut h, 0..10);
    // 0, 2 and 4 are lost.
    sack(&mut h, 0, &[(1, 2)]);
    sack(&mut h, 0, &[(3, 4), (1, 2)]);
    nothing!(h);
    sack(&mut h, 0, &[(5, 6), (3, 4), (1, 2)]);
    segments(&mut h, [0]);
    sack(&mut h, 0, &[(5, 10), (3, 4), (1, 2)]);
    segments(&mut h, [2, 4]);
    nothing!(h);
    // A round trip after the first repair everything is there: nothing that the peer had was sent again.
    sack(&mut h, 2, &[(5, 10), (3, 4)]);
    sack(&mut h, 4, &[(5, 10)]);
    sack(&mut h, 10, &[]);
    nothing!(h);
    let c = h.counters();
    assert_eq!(c.retransmissions[crate::tcp::output::Retransmission::DataFast as usize], 3);
    assert_eq!(h.shard.chunks_used(), 0, "buffer and scoreboard are given back");
}

#[test]
fn d10_a_large_gap_is_a_loss_at_the_first_acknowledgment() {
    let mut h = sending(10);
    segments(&mut h, 0..10);
    // Two acknowledgments were lost; more than two segments above the hole say enough (RFC 6675, IsLost).
    sack(&mut h, 0, &[(1, 4)]);
    segments(&mut h, [0]);
}

#[test]
fn d10_the_first_two_duplicates_let_new_segments_out() {
    let mut h = sending(20);
    segments(&mut h, 0..10);
    sack(&mut h, 0, &[(1, 2)]);
    segments(&mut h, [10]);
    sack(&mut h, 0, &[(1, 3)]);
    segments(&mut h, [11]);
    nothing!(h);
    // A D-SACK, and what is known already, are no news.
    sack(&mut h, 0, &[(1, 3)]);
    sack(&mut h, 0, &[(-1, 0), (1, 3)]);
    nothing!(h);
}

#[test]
fn d10_limited_transmit_without_sack() {
    let mut h = Harness::open_tuned(new_reno);
    h.act(&[Do::Send(20 * MSS as usize)]);
    segments(&mut h, 0..10);
    send!(h, ACK seq=1, ack=1);
    segments(&mut h, [10]);
    send!(h, ACK seq=1, ack=1);
    segments(&mut h, [11]);
    send!(h, ACK seq=1, ack=1);
    segments(&mut h, [0]);
    nothing!(h);
}

#[test]
fn d10_the_reduction_lets_one_segment_out_for_two_delivered() {
    let mut h = sending(40);
    segments(&mut h, 0..10);
    sack(&mut h, 0, &[(1, 2)]);
    sack(&mut h, 0, &[(1, 3)]);
    segments(&mut h, [10, 11]);
    sack(&mut h, 0, &[(1, 4)]);
    segments(&mut h, [0]);
    nothing!(h);
    let mut sent = Vec::new();
    for n in 5..=12 {
        sack(&mut h, 0, &[(1, n)]);
        sent.push(h.out.len());
        h.skip();
    }
    let total: usize = sent.iter().sum();
    assert!(sent.iter().all(|&n| n <= 1), "no burst: {sent:?}");
    assert!((3..=4).contains(&total), "half of the eight delivered, the repair included: {sent:?}");
    // The repair arrives: five segments may be out.
    sack(&mut h, 12, &[]);
    assert_eq!(h.out.len() + total, 5, "half of ten");
}

#[test]
fn d10_the_last_segment_is_rescued() {
    let mut h = sending(8);
    segments(&mut h, 0..8);
    // 0 and 7 are lost; nothing comes after 7 that could show it.
    sack(&mut h, 0, &[(1, 2)]);
    sack(&mut h, 0, &[(1, 3)]);
    sack(&mut h, 0, &[(1, 4)]);
    segments(&mut h, [0]);
    sack(&mut h, 0, &[(1, 5)]);
    sack(&mut h, 0, &[(1, 6)]);
    segments(&mut h, [7]);
    sack(&mut h, 0, &[(1, 7)]);
    nothing!(h);
    sack(&mut h, 7, &[]);
    sack(&mut h, 8, &[]);
    nothing!(h);
    assert_eq!(h.counters().retransmissions.iter().sum::<u64>(), 2);
}

#[test]
fn d10_after_a_timeout_only_the_holes_are_sent_again() {
    let mut h = sending(6);
    segments(&mut h, 0..6);
    // 0, 2, 3 and 5 are lost, and so are the repairs: of the tail, of the first hole.
    after!(h, 10);
    segments(&mut h, [5]);
    sack(&mut h, 0, &[(1, 2)]);
    sack(&mut h, 0, &[(4, 5), (1, 2)]);
    after!(h, 5);
    segments(&mut h, [0]);
    h.skip();
    after!(h, 200);
    segments(&mut h, [0]);
    nothing!(h);
    sack(&mut h, 2, &[(4, 5)]);
    segments(&mut h, [2, 3]);
    nothing!(h);
    sack(&mut h, 5, &[]);
    segments(&mut h, [5]);
    sack(&mut h, 6, &[]);
    after!(h, 5000);
    nothing!(h);
    assert_eq!(h.shard.chunks_used(), 0);
}

#[test]
fn d10_a_peer_that_threw_away_what_it_had_gets_it_again() {
    let mut h = sending(4);
    segments(&mut h, 0..4);
    sack(&mut h, 0, &[(1, 2)]);
    sack(&mut h, 0, &[(1, 3)]);
    after!(h, 150);
    h.skip();
    after!(h, 150);
    segments(&mut h, [0]);
    // It acknowledges up to where it had said that it has more: it has it no longer (RFC 2018 §8).
    sack(&mut h, 1, &[]);
    segments(&mut h, [3]);
    after!(h, 500);
    segments(&mut h, [1]);
    sack(&mut h, 2, &[]);
    segments(&mut h, [2, 3]);
    sack(&mut h, 4, &[]);
    nothing!(h);
}

#[test]
fn d10_a_fin_that_was_lost_with_data_is_repaired() {
    let mut h = Harness::tuned(new_reno);
    h.handshake(SACK);
    h.act(&[Do::Send(6 * MSS as usize), Do::Shutdown]);
    segments(&mut h, 0..5);
    recv!(h, FIN|ACK|PSH seq=at(5), ack=1, len=MSS as usize);
    sack(&mut h, 0, &[(1, 5)]);
    segments(&mut h, [0]);
    nothing!(h);
    sack(&mut h, 5, &[]);
    recv!(h, FIN|ACK|PSH seq=at(5), ack=1, len=MSS as usize);
    nothing!(h);
    send!(h, ACK seq=1, ack=at(6) + 1);
    nothing!(h);
    assert_eq!(h.state(), crate::tcp::state::State::FinWait2);
}

#[test]
fn d10_blocks_of_what_was_never_sent_are_not_believed() {
    let mut h = sending(4);
    segments(&mut h, 0..4);
    for ranges in [[(4, 6)], [(2, 5)], [(3, 3)], [(3, 2)], [(0, 4)], [(-5, 4)]] {
        sack(&mut h, 0, &ranges);
    }
    nothing!(h);
    let before = h.shard.chunks_used();
    sack(&mut h, 4, &[]);
    assert!(before > 0 && h.shard.chunks_used() == 0);
}

#[test]
fn d10_without_memory_for_the_scoreboard_three_duplicates_repair_the_first_hole() {
    let mut h = Harness::tuned(|s| {
        new_reno(s);
        s.capacity.chunks = 5;
    });
    h.handshake(SACK);
    h.act(&[Do::Send(7 * MSS as usize)]);
    segments(&mut h, 0..7);
    assert_eq!(h.shard.chunks_used(), 5, "the buffer has them all");
    for n in 2..=4 {
        nothing!(h);
        sack(&mut h, 0, &[(1, n)]);
    }
    segments(&mut h, [0]);
}

#[test]
fn d11_after_idleness_the_window_begins_anew() {
    let mut h = sending(40);
    let mut next = 10;
    segments(&mut h, 0..10);
    for n in 1..=30 {
        sack(&mut h, n, &[]);
        let out = h.out.len() as i64;
        segments(&mut h, next..next + out);
        next += out;
    }
    sack(&mut h, 40, &[]);
    nothing!(h);
    after!(h, 5000);
    h.act(&[Do::Send(40 * MSS as usize)]);
    segments(&mut h, 40..50);
    nothing!(h);
}

#[test]
fn d11_what_is_not_used_does_not_grow() {
    let mut h = sending(0);
    // A segment at a time for long: the window stays what it was at first.
    for n in 0..30 {
        h.act(&[Do::Send(MSS as usize)]);
        segments(&mut h, [n]);
        sack(&mut h, n + 1, &[]);
    }
    h.act(&[Do::Send(40 * MSS as usize)]);
    segments(&mut h, 30..40);
    nothing!(h);
}

#[test]
fn d10_what_the_scoreboard_has_no_room_for_was_delivered_all_the_same() {
    let mut h = Harness::tuned(|s| {
        new_reno(s);
        s.tcp.send_buffer = 4 << 20;
        (s.capacity.chunks, s.frames) = (8192, 2048);
    });
    h.handshake(Syn { scale: Some(7), ..SACK });
    h.act(&[Do::Send(2000 * MSS as usize)]);
    // Slow start to a flight that is larger than all that the scoreboard can note of it.
    let (mut una, mut max) = (0, h.out.len() as i64);
    while max - una < 600 {
        h.skip();
        una += 1;
        sack(&mut h, una, &[]);
        max += h.out.len() as i64;
    }
    h.skip();
    // Every second segment arrives. All ranges but the last hundred find room, and the rate of sending is half of what arrives.
    let arrived: Vec<_> = (una + 1..max).step_by(2).collect();
    let (noted, unnoted) = arrived.split_at(176);
    assert!(unnoted.len() > 100);
    for part in [noted, unnoted] {
        let mut sent = 0;
        for &n in part {
            sack(&mut h, una, &[(n, n + 1)]);
            sent += h.out.len();
            h.skip();
        }
        let half = part.len() / 2;
        assert!(sent.abs_diff(half) <= 5, "{sent} were sent when {} had arrived", part.len());
    }
}
