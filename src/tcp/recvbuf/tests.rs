use super::*;
use crate::tcp::chunk::CHUNK_BYTES;
use proptest::prelude::*;

fn take_all(b: &mut RecvBuf, pool: &mut ChunkPool) -> Vec<u8> {
    let mut out = Vec::new();
    while !b.front(pool).is_empty() {
        let piece = b.front(pool).to_vec();
        b.consume(pool, piece.len());
        out.extend(piece);
    }
    assert_eq!(b.unread(), 0);
    out
}

fn ranges(b: &RecvBuf, pool: &ChunkPool) -> Vec<(u32, u32)> {
    b.ranges(pool).map(|(a, z)| (a.raw(), z.raw())).collect()
}

const fn s(n: u32) -> SeqNum {
    SeqNum::new(n)
}

#[test]
fn a_filled_gap_delivers_what_waited_behind_it() {
    let mut pool = ChunkPool::new(8);
    let mut b = RecvBuf::default();
    b.insert(&mut pool, s(100), s(110), b"klmno").unwrap();
    b.insert(&mut pool, s(100), s(120), b"uvwxy").unwrap();
    assert_eq!(ranges(&b, &pool), [(110, 115), (120, 125)]);
    assert_eq!(b.buffered_ooo(), 10);
    assert_eq!(b.receive(&mut pool, s(100), b"abcdefghij"), 15);
    assert_eq!(ranges(&b, &pool), [(120, 125)]);
    assert_eq!(b.receive(&mut pool, s(115), b"pqrst"), 10);
    assert_eq!(take_all(&mut b, &mut pool), b"abcdefghijklmnopqrstuvwxy");
    assert_eq!(pool.used(), 0);
    assert!(b.is_empty());
}

#[test]
fn the_first_copy_of_a_byte_wins_also_against_data_in_order() {
    let mut pool = ChunkPool::new(8);
    let mut b = RecvBuf::default();
    b.insert(&mut pool, s(0), s(4), b"EFGH").unwrap();
    b.insert(&mut pool, s(0), s(2), b"cdefghij").unwrap();
    assert_eq!(b.receive(&mut pool, s(0), b"abXXXXXXXXXXkl"), 14);
    assert_eq!(take_all(&mut b, &mut pool), b"abcdEFGHijXXkl");
    assert_eq!(pool.used(), 0);
}

#[test]
fn adjacent_segments_share_chunks_in_either_order_of_arrival() {
    let mut pool = ChunkPool::new(8);
    let mut b = RecvBuf::default();
    for i in (0..1000u32).rev() {
        b.insert(&mut pool, s(0), s(10 + i), &[i as u8]).unwrap();
        assert_eq!(pool.used(), 1);
    }
    assert_eq!(ranges(&b, &pool), [(10, 1010)]);
    for i in 1010..2010u32 {
        b.insert(&mut pool, s(0), s(i), &[i as u8]).unwrap();
    }
    assert_eq!(pool.used(), 1);
    b.clear(&mut pool);
    assert_eq!(pool.used(), 0);
}

#[test]
fn crumbs_are_refused_before_they_pin_much_memory() {
    let mut pool = ChunkPool::new(4096);
    let mut b = RecvBuf::default();
    let mut kept = 0;
    for i in 0..5000u32 {
        match b.insert(&mut pool, s(0), s(10 + 2 * i), b"x") {
            Ok(()) => kept += 1,
            Err(e) => assert_eq!(e, Refused::TooManyRanges),
        }
    }
    assert_eq!(kept, usize::from(SPARSE_CHUNKS));
    assert_eq!(pool.used(), usize::from(SPARSE_CHUNKS));
    b.clear(&mut pool);
}

#[test]
fn full_segments_with_gaps_are_kept_up_to_the_bound() {
    let mut pool = ChunkPool::new(4096);
    let mut b = RecvBuf::default();
    let seg = [7; 536];
    let mut kept = 0;
    for i in 0..2000u32 {
        match b.insert(&mut pool, s(0), s(1 + 600 * i), &seg) {
            Ok(()) => kept += 1,
            Err(e) => assert_eq!(e, Refused::TooManyRanges),
        }
    }
    assert_eq!(kept, usize::from(MAX_OOO_CHUNKS));
    assert_eq!(b.ranges(&pool).count(), kept);
    b.clear(&mut pool);
    assert_eq!(pool.used(), 0);
}

#[test]
fn an_empty_pool_refuses_and_discarding_frees_room_for_data_in_order() {
    let mut pool = ChunkPool::new(1);
    let mut b = RecvBuf::default();
    b.insert(&mut pool, s(0), s(100), b"later").unwrap();
    assert_eq!(b.insert(&mut pool, s(0), s(300), b"no"), Err(Refused::NoChunk));
    assert_eq!(b.receive(&mut pool, s(0), b"first"), 0);
    b.discard_ooo(&mut pool);
    assert_eq!(b.receive(&mut pool, s(0), b"first"), 5);
    assert_eq!(take_all(&mut b, &mut pool), b"first");
}

#[test]
fn segments_far_outside_any_window_are_refused_or_ignored() {
    let mut pool = ChunkPool::new(4);
    let mut b = RecvBuf::default();
    assert_eq!(b.insert(&mut pool, s(0), s(1 << 30), b"x"), Err(Refused::OutOfSpan));
    assert_eq!(b.insert(&mut pool, s(50), s(10), b"old bytes"), Ok(()));
    assert_eq!(b.insert(&mut pool, s(50), s(60), b""), Ok(()));
    // Half the space away there is no before and after; whatever is done must be harmless.
    assert!(matches!(b.insert(&mut pool, s(0), s(1 << 31), b"x"), Ok(()) | Err(Refused::OutOfSpan)));
    assert!(b.is_empty());
    assert_eq!(pool.used(), 0);
}

/// The same stream, kept byte by byte.
struct Model {
    bytes: Vec<Option<u8>>,
    nxt: usize,
    read: usize,
}

impl Model {
    fn put(&mut self, at: usize, data: &[u8]) {
        for (slot, &v) in self.bytes[at..].iter_mut().zip(data) {
            slot.get_or_insert(v);
        }
    }
    fn catch_up(&mut self) {
        while self.bytes.get(self.nxt).is_some_and(Option::is_some) {
            self.nxt += 1;
        }
    }
    fn ranges(&self, isn: u32) -> Vec<(u32, u32)> {
        let mut out: Vec<(u32, u32)> = Vec::new();
        for (i, _) in self.bytes.iter().enumerate().skip(self.nxt).filter(|(_, v)| v.is_some()) {
            let at = isn.wrapping_add(i as u32);
            match out.last_mut() {
                Some(r) if r.1 == at => r.1 = at.wrapping_add(1),
                _ => out.push((at, at.wrapping_add(1))),
            }
        }
        out
    }
}

#[derive(Clone, Debug)]
enum Op {
    /// A segment at this distance from `rcv_nxt` (negative: behind it), this long, of this fill.
    Segment(isize, usize, u8),
    Read(usize),
    Renege,
}

fn op() -> impl Strategy<Value = Op> {
    let at = prop_oneof![3 => Just(0), 2 => -3000..3000isize, 4 => 0..40_000isize];
    let len = prop_oneof![1..9000usize, 1..40usize, Just(1460)];
    prop_oneof![
        12 => (at, len, any::<u8>()).prop_map(|(a, l, f)| Op::Segment(a, l, f)),
        4 => (0..9000usize).prop_map(Op::Read),
        1 => Just(Op::Renege),
    ]
}

const STREAM: usize = 400_000;

proptest! {
    /// With memory enough, the buffer is the stream: each byte as first received, in order, ranges exact.
    #[test]
    fn is_the_stream_as_first_received(isn in any::<u32>(), ops in prop::collection::vec(op(), 1..60)) {
        let mut pool = ChunkPool::new(400);
        let mut b = RecvBuf::default();
        let mut m = Model { bytes: vec![None; STREAM], nxt: 0, read: 0 };
        for op in ops {
            match op {
                Op::Segment(at, len, fill) => {
                    let at = m.nxt.saturating_add_signed(at);
                    if at + len > STREAM {
                        continue;
                    }
                    let data: Vec<u8> = (0..len).map(|i| (i as u8).wrapping_add(fill)).collect();
                    let rcv_nxt = s(isn) + m.nxt as u32;
                    if at <= m.nxt {
                        let new = data.get(m.nxt - at..).unwrap_or(&[]);
                        let moved = b.receive(&mut pool, rcv_nxt, new);
                        m.put(at, &data);
                        m.catch_up();
                        prop_assert_eq!(rcv_nxt + moved, s(isn) + m.nxt as u32);
                    } else {
                        match b.insert(&mut pool, rcv_nxt, s(isn) + at as u32, &data) {
                            Ok(()) => m.put(at, &data),
                            Err(Refused::TooManyRanges) => {
                                // A part may have been kept: the buffer itself says which.
                                for (a, z) in b.ranges(&pool) {
                                    let from = (a - s(isn)) as usize;
                                    let to = (z - s(isn)) as usize;
                                    let (lo, hi) = (from.max(at), to.min(at + len));
                                    if lo < hi {
                                        m.put(lo, &data[lo - at..hi - at]);
                                    }
                                }
                            }
                            Err(e) => prop_assert!(false, "{e:?}"),
                        }
                    }
                }
                Op::Read(n) => {
                    let mut left = n.min(b.unread());
                    while left > 0 {
                        let piece = b.front(&pool);
                        prop_assert!(!piece.is_empty());
                        let k = piece.len().min(left);
                        let want: Vec<u8> = m.bytes[m.read..m.read + k].iter().map(|v| v.unwrap()).collect();
                        prop_assert_eq!(&piece[..k], &want[..]);
                        b.consume(&mut pool, k);
                        m.read += k;
                        left -= k;
                    }
                }
                Op::Renege => {
                    b.discard_ooo(&mut pool);
                    m.bytes[m.nxt..].fill(None);
                }
            }
            prop_assert_eq!(b.unread(), m.nxt - m.read);
            let held = m.bytes[m.nxt..].iter().flatten().count();
            prop_assert_eq!(b.buffered_ooo(), held);
            let want = m.ranges(isn);
            prop_assert_eq!(ranges(&b, &pool), want.clone());
            // Neighbours without a gap hold more than a chunk's worth between them.
            let bound = 2 * (held / CHUNK_BYTES) + want.len() + 2 * (b.unread() / CHUNK_BYTES) + 2;
            prop_assert!(pool.used() <= bound, "{} chunks for {} bytes", pool.used(), held + b.unread());
        }
        let rest: Vec<u8> = m.bytes[m.read..m.nxt].iter().map(|v| v.unwrap()).collect();
        prop_assert_eq!(take_all(&mut b, &mut pool), rest);
        b.clear(&mut pool);
        prop_assert_eq!(pool.used(), 0);
    }

    /// Whatever a peer sends and however small the pool: no panic, no leak, and what is read is what was sent.
    #[test]
    fn survives_anything_with_a_small_pool(
        segs in prop::collection::vec((any::<u32>(), 0..5000usize, any::<bool>()), 1..100),
        chunks in 0..6usize,
    ) {
        let mut pool = ChunkPool::new(chunks);
        let mut b = RecvBuf::default();
        let mut nxt = s(u32::MAX - 3000);
        let byte_at = |q: SeqNum| (q.raw() % 251) as u8;
        let mut read_at = nxt;
        for (seq, len, near) in segs {
            let seq = if near { nxt + seq % 6000 } else { s(seq) };
            let data: Vec<u8> = (0..len).map(|i| byte_at(seq + i as u32)).collect();
            if seq == nxt {
                nxt += b.receive(&mut pool, nxt, &data);
            } else {
                // Any verdict will do here; the invariants below are the test.
                let _verdict = b.insert(&mut pool, nxt, seq, &data);
                nxt += b.advance(&mut pool, nxt);
            }
            prop_assert!(pool.used() <= chunks);
            let mut last = nxt;
            for (a, z) in b.ranges(&pool) {
                prop_assert!(a.after(last) && z.after(a));
                last = z;
            }
            if len % 3 == 0 {
                for v in take_all(&mut b, &mut pool) {
                    prop_assert_eq!(v, byte_at(read_at));
                    read_at += 1;
                }
                prop_assert_eq!(read_at, nxt);
            }
        }
        b.clear(&mut pool);
        prop_assert_eq!(pool.used(), 0);
    }
}
