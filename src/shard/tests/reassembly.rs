//! Data beyond a gap: kept within bounds, joined when the gap closes (d02).

use super::words::{ACK, reseal_tcp};
use super::{Harness, Seg, Syn, Told, recv, send};
use crate::drop::DropReason;
use crate::wire::Flags;
use proptest::prelude::*;

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
}
