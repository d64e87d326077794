//! Timeouts that were none (RFC 3522, RFC 4015, RFC 5682), over a path whose round trip was 100 ms and then is longer.

use super::recovery::{MSS, at, sack, segments};
use super::tail_probe::{RTT, open, sending};
use super::{Do, Harness, Seg, Syn, after, nothing};
use crate::wire::{Flags, Options};

/// Bytes of a segment beside timestamps.
const TIMED: i64 = MSS - 12;

fn timed(n: i64) -> i64 {
    1 + n * TIMED
}

/// The next segments are full ones beside timestamps, from `n` on; the peer takes note of their timestamps only when
/// asked: gives that of the first.
#[track_caller]
fn take_timed(h: &mut Harness, n: impl IntoIterator<Item = i64>) -> u32 {
    let mut first = None;
    for i in n {
        let seen = h.out.pop_front().unwrap_or_else(|| panic!("segment {i} was not sent"));
        let irs = h.peer_mut().irs.expect("the handshake is done");
        assert_eq!(i64::from(seen.header.seq - irs), timed(i), "segment {i}");
        let ts = seen.header.options.timestamps.expect("timestamps are on every segment");
        first.get_or_insert(ts.val);
    }
    first.unwrap_or_default()
}

/// The peer acknowledges all before segment `una`, and echoes `ecr`.
fn ack_timed(h: &mut Harness, una: i64, ecr: u32) {
    h.peer_mut().ts_recent = ecr;
    h.send(&Seg::new(&[Flags::ACK]).ack(timed(una)));
}

/// Ten segments are out, a probe was sent and the timer has fired once. Gives the timestamps of the first segment when it
/// was first sent, and of the one that the timeout sent again.
fn timed_out() -> (Harness, u32, u32) {
    let mut h = open(Syn { sack: true, ts: true, ..Syn::PLAIN });
    h.act(&[Do::Send((30 * TIMED) as usize)]);
    let original = take_timed(&mut h, 0..10);
    after!(h, 2 * RTT);
    take_timed(&mut h, [10]);
    after!(h, 3 * RTT);
    let again = take_timed(&mut h, [0]);
    nothing!(h);
    (h, original, again)
}

#[test]
fn d09_a_timeout_that_an_old_echo_proves_spurious_is_undone() {
    let (mut h, original, _) = timed_out();
    ack_timed(&mut h, 1, original);
    // Ten are out, and the window is that of before, for as many: nothing of what is out goes again.
    nothing!(h);
    for n in 2..=6 {
        ack_timed(&mut h, n, original);
    }
    assert!(h.out.len() >= 5, "{}", h.out.len());
    take_timed(&mut h, 11..16);
    let again: u64 = h.counters().retransmissions.iter().sum();
    assert_eq!(again, 1);
}

#[test]
fn d09_a_timeout_that_a_new_echo_proves_genuine_stands() {
    let (mut h, _, again) = timed_out();
    ack_timed(&mut h, 1, again);
    // Slow start, from the first hole on.
    take_timed(&mut h, [1, 2]);
    nothing!(h);
}

#[test]
fn d09_the_round_trip_that_made_the_timeout_spurious_is_learnt() {
    let (mut h, original, _) = timed_out();
    ack_timed(&mut h, 11, original);
    h.skip();
    // The sample was 500 ms: twice the smoothed round trip is 300, and the RTO far beyond.
    after!(h, 290);
    nothing!(h);
}

#[test]
fn d09_of_several_timeouts_the_first_is_what_an_echo_is_held_against() {
    let (mut h, _, again) = timed_out();
    after!(h, 6 * RTT);
    take_timed(&mut h, [0]);
    // This answers what the first timeout sent.
    ack_timed(&mut h, 1, again);
    take_timed(&mut h, [1, 2]);
    nothing!(h);
}

/// The same without timestamps: ten segments are out, `more` are unsent but one that went as the probe.
fn silent(total: i64) -> Harness {
    let mut h = sending(total);
    after!(h, 2 * RTT);
    segments(&mut h, [if total > 10 { 10 } else { 9 }]);
    after!(h, 3 * RTT);
    segments(&mut h, [0]);
    nothing!(h);
    h
}

#[test]
fn d09_without_timestamps_new_data_shows_that_a_timeout_was_spurious() {
    let mut h = silent(30);
    sack(&mut h, 1, &[]);
    // Two segments, and new ones.
    segments(&mut h, [11, 12]);
    nothing!(h);
    // Acknowledged, and sent once only.
    sack(&mut h, 2, &[]);
    assert!(h.out.is_empty() || h.out.iter().all(|s| s.payload.len() == MSS as usize));
    let irs = h.peer_mut().irs.expect("the handshake is done");
    assert!(h.out.iter().all(|s| i64::from(s.header.seq - irs) >= at(13)), "new data only: {:?}", h.out);
    h.skip();
    for n in 3..=8 {
        sack(&mut h, n, &[]);
    }
    // The window is what it was.
    assert!(h.out.len() >= 6, "{}", h.out.len());
    let again: u64 = h.counters().retransmissions.iter().sum();
    assert_eq!(again, 1);
}

#[test]
fn d09_without_timestamps_a_duplicate_after_new_data_shows_that_it_was_genuine() {
    let mut h = silent(30);
    sack(&mut h, 1, &[]);
    segments(&mut h, [11, 12]);
    sack(&mut h, 1, &[(11, 12)]);
    segments(&mut h, [1]);
}

#[test]
fn d09_without_anything_new_to_send_a_timeout_stands() {
    let mut h = silent(10);
    sack(&mut h, 1, &[]);
    segments(&mut h, [1, 2]);
    nothing!(h);
}

#[test]
fn d09_what_came_twice_after_timeouts_says_that_acks_were_lost_and_not_that_the_path_is_long() {
    let (mut h, original, _) = timed_out();
    // Two more timeouts, of 600 ms and 1.2 s or so: what arrives last draws the echo of what arrived first.
    let mut again = 0;
    for _ in 0..2 {
        while h.out.is_empty() {
            after!(h, 10);
        }
        again = take_timed(&mut h, [0]);
    }
    assert!(again.wrapping_sub(original) > 1000, "the first was sent long ago");
    h.peer_mut().ts_recent = original;
    let irs = h.peer_mut().irs.expect("the handshake is done");
    let mut options = Options { sack_len: 1, ..Options::default() };
    options.sack[0] = (irs + timed(0) as u32, irs + timed(1) as u32);
    h.send(&Seg::new(&[Flags::ACK]).ack(timed(11)).options(options));
    h.skip();
    // Had the wait been taken for the round trip, a lone segment would be waited for by the second.
    h.act(&[Do::Send(100)]);
    h.skip();
    let rto = 3 * RTT;
    after!(h, rto + 200);
    assert!(!h.out.is_empty(), "sent again within {} ms", rto + 200);
}
