//! Windows in both directions: closed, probed, opened in worthwhile steps, scaled (d05, d06, d13).

use super::words::{ACK, ack, data, retransmissions, thousand};
use super::{Do, Harness, Seg, Syn, after, nothing, recv, send, state};
use crate::metrics::block::Retransmission;
use crate::tcp::record::{Cause, ClosePath, First};
use crate::wire::{Header, SeqNum};
use proptest::prelude::*;

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
fn d13_scaled_windows_are_respected_both_ways() {
    let mut h = Harness::tuned(|s| s.tcp.receive_window = s.tcp.receive_buffer);
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
    }) << h.shard.core.cfg.window_scale(0);
    assert!(ours > 65_535 && ours <= h.shard.core.cfg.receive_buffer + 7, "{ours}");
}

/// The right edge of the window that a header shows.
fn edge(h: &Header, scale: u8) -> SeqNum {
    h.ack + (u32::from(h.window) << scale)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn d13_the_window_is_never_taken_back(
        steps in prop::collection::vec((1..1460usize, prop_oneof![Just(0), 0..2000usize], any::<bool>()), 1..80),
        buffer in prop_oneof![2000..20_000u32, 66_000..90_000u32, 262_100..300_000u32],
        first in prop_oneof![Just(u32::MAX), 2000..70_000u32],
    ) {
        let mut h = Harness::tuned(|s| (s.tcp.receive_buffer, s.tcp.receive_window) = (buffer, first.min(buffer)));
        h.handshake(Syn { ts: false, ..Syn::FULL });
        let scale = h.shard.core.cfg.window_scale(0);
        let start = h.peer_mut().iss + 1;
        let (mut furthest, mut next, mut acked) = (start + buffer.min(first).min(65_535), 0i64, start);
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
