//! What becomes of the peer's data and when it is acknowledged, and what Nagle's algorithm holds back (d01, d03, d07,
//! d08, d15).

use super::words::{ACK, ack, data, reseal_tcp, thousand};
use super::{Do, Harness, Seg, Told, after, nothing, recv, send};
use crate::wire::Flags;

#[test]
fn d01_bytes_in_order_reach_the_service_at_once() {
    let mut h = Harness::open();
    for i in 0..20 {
        h.send(&Seg::new(&ACK).seq(1 + i * 100).len(100));
        assert_eq!(h.told(), [Told::Data(100)]);
    }
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

#[test]
fn d07_every_second_full_segment_is_acknowledged_within_a_burst_too() {
    let mut h = Harness::open();
    for n in 0..40 {
        h.put(&Seg::new(&ACK).seq(1 + n * 1460).len(1460));
    }
    let turn = h.turn();
    assert!(turn.worked);
    assert_eq!(h.out.len(), 20, "one turn took the whole burst");
    for n in 1..=20 {
        recv!(h, ACK seq=1, ack=1 + n * 2920);
    }
    // The odd one waits for its second or the timer.
    h.send(&Seg::new(&ACK).seq(1 + 40 * 1460).len(1460));
    nothing!(h);
    after!(h, 40);
    recv!(h, ACK seq=1, ack=1 + 41 * 1460);
}
