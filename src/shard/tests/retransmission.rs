//! What is sent again, and when (d09, d10); loss recovery segment by segment is in `recovery`.

use super::harness::PEER_PORT;
use super::words::{ACK, ack, data, retransmissions, thousand};
use super::{Do, Harness, Seg, Syn, after, nothing, recv, send};
use crate::metrics::block::Retransmission;
use crate::port::BURST;
use crate::tcp::record::{Cause, ClosePath, First};
use crate::wire::Flags;

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

/// As many frames that lead to nothing as are taken at once.
fn a_full_burst(h: &mut Harness) {
    h.peer(PEER_PORT + 1);
    for _ in 0..BURST {
        h.put(&Seg::new(&[Flags::RST]));
    }
    h.peer(PEER_PORT);
}

/// A worker that had to do without its core reads what has come in meanwhile before it takes anything for lost.
#[test]
fn d09_no_timer_runs_before_the_ack_that_lies_in_the_ring() {
    let mut h = thousand(|_| ());
    h.act(&[Do::Send(1000)]);
    data(&mut h, 1, 1000);
    a_full_burst(&mut h);
    h.put(&Seg::new(&ACK).seq(1).ack(1001));
    h.jump(std::time::Duration::from_secs(1));
    h.turn();
    nothing!(h);
    h.turn();
    nothing!(h);
    assert_eq!(retransmissions(&mut h, Retransmission::DataTimeout), 0);
    // A ring that is never empty does not stop the timers for ever.
    h.act(&[Do::Send(1000)]);
    data(&mut h, 1001, 1000);
    h.jump(std::time::Duration::from_secs(10));
    let mut turns = 0;
    while h.out.is_empty() {
        a_full_burst(&mut h);
        h.turn();
        turns += 1;
        assert!(turns < 100, "the timers do not run");
    }
    data(&mut h, 1001, 1000);
    assert_eq!(turns, 33, "that many full bursts, and one");
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
