//! What a peer can make one connection hold, and how little it gets for it (d02, d04, d06).

use super::words::{ACK, ack, data, thousand};
use super::{Do, Harness, Seg, after, nothing};
use crate::drop::DropReason;
use crate::tcp::recvbuf::{SPARSE_BYTES, SPARSE_CHUNKS};
use crate::wire::Flags;

/// Bytes in chunks for so much payload beyond gaps: a fixed few, then in proportion.
fn allowed(payload: usize) -> usize {
    let sparse = usize::from(SPARSE_CHUNKS) * 2048;
    sparse.max(payload * 2048 / SPARSE_BYTES as usize + 2048)
}

/// Bytes that the connection's reassembly holds.
#[expect(
    clippy::redundant_closure_for_method_calls,
    reason = "the method is of one lifetime, the closure of any"
)]
fn beyond_gaps(h: &mut Harness) -> usize {
    let crate::shard::tables::Found::Conn(key) = h.found() else { panic!("there is a connection") };
    h.shard.core.tables.conns.inspect(key, |c| c.buffered_out_of_order()).expect("in the index")
}

/// Everything from `from` to `to` in full segments, and the peer's FIN: whatever came before, the stream is whole.
fn finish(h: &mut Harness, to: i64) {
    let mut at = 1;
    while at < to {
        let len = 1460.min(to - at);
        h.send(&Seg::new(&ACK).seq(at).len(len as usize));
        at += len;
    }
    h.service().peer_closed = vec![Do::Close];
    h.send(&Seg::new(&[Flags::FIN, Flags::ACK]).seq(to));
    h.send(&Seg::new(&ACK).seq(to + 1).ack(2));
    assert_eq!(h.service().got() as i64, to - 1, "every byte once, as the service checks");
    h.service().records.clear();
    h.skip();
    h.all_gone();
}

#[test]
fn d02_one_byte_of_every_second_segment_cannot_pin_the_pool() {
    let mut h = Harness::open();
    let mut most = 0;
    for i in 0..20_000 {
        h.send(&Seg::new(&ACK).seq(3 + 2 * i).len(1));
        most = most.max(h.shard.chunks_used());
        assert!(h.shard.chunks_used() * 2048 <= allowed(beyond_gaps(&mut h)));
    }
    assert_eq!(most, usize::from(SPARSE_CHUNKS));
    let refused = h.counters().drops[DropReason::OutOfOrderLimit as usize];
    assert_eq!(refused + beyond_gaps(&mut h) as u64, 20_000, "what is not kept is counted");
    h.skip();
    finish(&mut h, 40_003);
}

#[test]
fn d02_segments_of_every_size_with_gaps_between_them_stay_in_proportion() {
    for size in [1, 7, 100, 500, 513, 1000, 1460] {
        let mut h = Harness::open_tuned(|s| s.tcp.receive_window = s.tcp.receive_buffer);
        let mut at = 2;
        while at + size < 65_000 {
            h.send(&Seg::new(&ACK).seq(at).len(size as usize));
            assert!(h.shard.chunks_used() * 2048 <= allowed(beyond_gaps(&mut h)), "{size}");
            at += size + 1;
        }
        h.skip();
        finish(&mut h, 65_001);
    }
}

#[test]
fn d02_tiny_overlapping_segments_cost_their_bytes_once() {
    let mut h = Harness::open();
    // Each begins in the middle of the last one, in both directions, over and over.
    for round in 0..3 {
        for i in 0..4000i64 {
            let i = if round % 2 == 0 { i } else { 3999 - i };
            h.send(&Seg::new(&ACK).seq(10 + 3 * i).len(6));
        }
        assert_eq!(beyond_gaps(&mut h), 12_003);
        assert!(h.shard.chunks_used() <= 2 * 12_003 / 2048 + 2, "{}", h.shard.chunks_used());
    }
    h.skip();
    finish(&mut h, 12_020);
}

#[test]
fn d04_out_of_order_data_is_taken_up_to_the_last_byte_of_the_window() {
    let mut h = Harness::open();
    let edge = 1 + 65_535;
    // Backwards from the edge, so that every segment is beyond a gap.
    let mut end = edge;
    while end > 1 + 1460 {
        h.send(&Seg::new(&ACK).seq(end - 1460).len(1460));
        end -= 1460;
    }
    let held = (edge - end) as usize;
    assert_eq!(beyond_gaps(&mut h), held);
    assert!(h.shard.chunks_used() * 2048 <= allowed(held));
    // One byte beyond, alone and as the end of a segment.
    h.send(&Seg::new(&ACK).seq(edge).len(1));
    h.send(&Seg::new(&ACK).seq(edge - 10).len(11));
    assert_eq!(beyond_gaps(&mut h), held);
    assert_eq!(h.counters().drops[DropReason::OutOfWindow as usize], 1);
    h.skip();
    h.send(&Seg::new(&ACK).seq(1).len((end - 1) as usize));
    assert_eq!(h.service().got(), 65_535, "one segment closes the gap");
    assert_eq!(h.shard.chunks_used(), 0);
}

#[test]
fn d06_a_window_that_opens_byte_by_byte_gets_no_segment_for_each() {
    let mut h = thousand(|_| ());
    h.send(&ack(1).win(0));
    h.act(&[Do::Send(5000)]);
    for window in 1..=499 {
        h.send(&ack(1).win(window));
        h.send(&ack(1).win(0));
        h.send(&ack(1).win(window));
        nothing!(h);
    }
    // The override timer sends what fits, once; the peer takes it byte by byte.
    after!(h, 200);
    data(&mut h, 1, 499);
    nothing!(h);
    for n in 1..499 {
        h.send(&ack(1 + n).win(1));
        nothing!(h);
    }
    h.send(&ack(500).win(5000));
    data(&mut h, 500, 1000);
}
