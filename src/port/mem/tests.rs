use super::*;
use crate::port::{Frame, Port};
use crate::wire::{Addr, Endpoint, Tuple};
use proptest::prelude::*;

const MS: Duration = Duration::from_millis(1);

/// A minimal TCP/IPv4 frame; only what the link looks at.
fn frame(sport: u16, dport: u16, payload: &[u8]) -> Vec<u8> {
    let mut f = vec![0u8; 14 + 40];
    f[12..14].copy_from_slice(&[0x08, 0x00]);
    f[14] = 0x45;
    f[16..18].copy_from_slice(&(40 + payload.len() as u16).to_be_bytes());
    f[23] = 6;
    f[26..30].copy_from_slice(&[10, 0, 0, 1]);
    f[30..34].copy_from_slice(&[10, 0, 0, 2]);
    f[34..36].copy_from_slice(&sport.to_be_bytes());
    f[36..38].copy_from_slice(&dport.to_be_bytes());
    f[46] = 0x50;
    f[47] = 0x10;
    f.extend_from_slice(payload);
    f
}

fn put(port: &mut MemPort, bytes: &[u8]) -> bool {
    let Some(mut f) = port.alloc() else { return false };
    port.buffer(&mut f)[..bytes.len()].copy_from_slice(bytes);
    port.set_len(&mut f, bytes.len());
    port.send(f)
}

fn take_all(port: &mut MemPort) -> Vec<Vec<u8>> {
    let mut got = Vec::new();
    let mut burst: Vec<Frame> = Vec::with_capacity(crate::port::BURST);
    while port.rx(&mut burst) > 0 {
        for f in burst.drain(..) {
            got.push(port.bytes(&f).to_vec());
            port.free(f);
        }
    }
    got
}

fn at(us: u64) -> Time {
    Time::from_micros(us)
}

#[test]
fn a_perfect_line_delivers_in_order_and_not_before_its_time() {
    let config = LinkConfig { a_to_b: Impairment::delayed(MS), ..LinkConfig::default() };
    let (mut a, mut b, link) = link(config);
    for n in 0..10u8 {
        assert!(put(&mut a, &frame(1, 2, &[n])));
    }
    assert_eq!(link.next_delivery(), None, "nothing leaves before the flush");
    a.flush().unwrap();
    assert_eq!(link.next_delivery(), Some(at(1000)));
    assert_eq!(link.advance(at(999)), 0);
    assert!(take_all(&mut b).is_empty());
    assert_eq!(link.advance(at(1000)), 10);
    let last: Vec<u8> = take_all(&mut b).iter().map(|f| f[54]).collect();
    assert_eq!(last, (0..10).collect::<Vec<_>>());
    assert!(a.accounting().balanced() && b.accounting().balanced());
}

#[test]
fn the_clock_never_goes_back() {
    let (_a, _b, link) = link(LinkConfig::default());
    link.advance(at(50));
    link.advance(at(10));
    assert_eq!(link.now(), at(50));
}

#[test]
fn a_full_transmit_ring_drops_counts_and_returns_the_frame() {
    let (mut a, _b, _link) = link(LinkConfig { tx_ring: 2, ..LinkConfig::default() });
    let free = a.accounting().free;
    assert!(put(&mut a, b"x") && put(&mut a, b"y"));
    assert_eq!(a.tx_room(), 0);
    assert!(!put(&mut a, b"z"));
    assert_eq!(a.stats().tx_ring_full, 1);
    assert_eq!(a.accounting().free, free - 2);
    a.flush().unwrap();
    assert_eq!(a.tx_room(), 2);
    assert_eq!(a.accounting().in_tx, 2, "completed at the next flush, as on a real ring");
    a.flush().unwrap();
    assert_eq!(a.accounting().in_tx, 0);
}

#[test]
fn an_empty_pool_gives_no_frame() {
    let (mut a, _b, _link) = link(LinkConfig { frames: 3, fill: 2, ..LinkConfig::default() });
    let f = a.alloc().unwrap();
    assert!(a.alloc().is_none());
    assert!(a.accounting().balanced());
    a.free(f);
    assert!(a.alloc().map(|f| a.free(f)).is_some());
}

#[test]
fn what_comes_due_without_a_posted_frame_or_ring_slot_is_dropped_and_counted() {
    let (mut a, mut b, link) = link(LinkConfig { fill: 4, rx_ring: 3, ..LinkConfig::default() });
    for _ in 0..5 {
        put(&mut a, b"frame");
    }
    a.flush().unwrap();
    assert_eq!(link.advance(at(1)), 3);
    assert_eq!(link.counters(Direction::AToB).ring_full, 2);
    assert_eq!(b.stats().xsk_rx_ring_full, 2);
    assert_eq!(take_all(&mut b).len(), 3);
    // One posted frame is left, and b does not flush: the second one finds none.
    put(&mut a, b"frame");
    put(&mut a, b"frame");
    a.flush().unwrap();
    assert_eq!(link.advance(at(2)), 1);
    assert_eq!(link.counters(Direction::AToB).no_frame, 1);
    assert_eq!(b.stats().xsk_fill_ring_empty, 1);
    assert!(link.counters(Direction::AToB).balanced(0));
    assert!(b.accounting().balanced());
}

#[test]
#[should_panic(expected = "not lent by this port")]
fn a_foreign_frame_is_refused() {
    let (mut a, mut b, _link) = link(LinkConfig::default());
    let f = a.alloc().unwrap();
    b.free(f);
}

#[test]
fn a_received_frame_can_be_rewritten_and_sent_back() {
    let (mut a, mut b, link) = link(LinkConfig::default());
    put(&mut a, b"ping");
    a.flush().unwrap();
    link.advance(at(0));
    let mut burst = Vec::new();
    assert_eq!(b.rx(&mut burst), 1);
    let mut f = burst.pop().unwrap();
    b.buffer(&mut f)[1] = b'o';
    assert!(b.send(f));
    b.flush().unwrap();
    link.advance(at(0));
    assert_eq!(take_all(&mut a), vec![b"pong".to_vec()]);
    assert!(b.accounting().balanced());
}

#[test]
fn the_filter_loses_exactly_what_it_names() {
    let (mut a, mut b, link) = link(LinkConfig::default());
    let mut seen = 0;
    let second = move |_: Time, _: &[u8]| {
        seen += 1;
        match seen {
            2 => Verdict::Drop,
            3 => Verdict::Duplicate,
            4 => Verdict::Hold(MS),
            _ => Verdict::Pass,
        }
    };
    link.set_filter(Direction::AToB, Some(Box::new(second)));
    for n in 1..=5u8 {
        put(&mut a, &[n]);
    }
    a.flush().unwrap();
    link.advance(at(1000));
    let got: Vec<u8> = take_all(&mut b).iter().map(|f| f[0]).collect();
    assert_eq!(got, [1, 3, 3, 5, 4]);
    let c = link.counters(Direction::AToB);
    assert_eq!((c.filtered, c.duplicated, c.reordered), (1, 1, 1));
    assert!(c.balanced(0));
}

#[test]
fn a_line_that_is_down_loses_what_is_sent_meanwhile() {
    let (mut a, mut b, link) = link(LinkConfig::default());
    link.impair(Direction::AToB, Impairment { down: vec![(at(10), at(20))], ..Impairment::default() });
    for t in [9, 10, 19, 20] {
        link.advance(at(t));
        put(&mut a, &[t as u8]);
        a.flush().unwrap();
    }
    link.advance(at(30));
    let got: Vec<u8> = take_all(&mut b).iter().map(|f| f[0]).collect();
    assert_eq!(got, [9, 20]);
    assert_eq!(link.counters(Direction::AToB).down, 2);
}

#[test]
fn the_rate_spaces_frames_out_and_drops_at_the_tail() {
    // 1000 bits of frame and overhead at 1 Mbit/s: 1 ms each.
    let rate = Rate { bits_per_second: 1_000_000, queue: 2 * MS };
    let config = LinkConfig {
        a_to_b: Impairment { rate: Some(rate), ..Impairment::default() },
        ..LinkConfig::default()
    };
    let (mut a, mut b, link) = link(config);
    for _ in 0..5 {
        put(&mut a, &[0; 101]);
    }
    a.flush().unwrap();
    let mut arrivals = Vec::new();
    while let Some(t) = link.next_delivery() {
        link.advance(t);
        arrivals.extend(take_all(&mut b).iter().map(|_| t.micros()));
    }
    assert_eq!(arrivals, [1000, 2000, 3000]);
    assert_eq!(link.counters(Direction::AToB).queue_full, 2);
}

#[test]
fn frames_beyond_the_mtu_do_not_pass() {
    let (mut a, mut b, link) = link(LinkConfig { mtu: 1000, ..LinkConfig::default() });
    put(&mut a, &[0; 1022]);
    put(&mut a, &[0; 1023]);
    a.flush().unwrap();
    link.inject(Direction::AToB, &[0; 1023]);
    link.advance(at(1));
    assert_eq!(take_all(&mut b).len(), 1);
    assert_eq!(link.counters(Direction::AToB).oversize, 2);
    assert!(link.counters(Direction::AToB).balanced(0));
}

#[test]
fn rates_are_statistically_right() {
    let faults = Impairment {
        loss: 0.02,
        duplication: 0.01,
        reordering: 0.05,
        reordering_delay: MS,
        corruption: 0.03,
        ..Impairment::default()
    };
    let (mut a, mut b, link) = link(LinkConfig { seed: 7, a_to_b: faults, ..LinkConfig::default() });
    let mut flipped = 0u64;
    let mut overtaken = 0u64;
    let mut highest = 0u32;
    for n in 0..100_000u32 {
        let mut bytes = [0u8; 64];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        bytes[4..8].copy_from_slice(&n.to_be_bytes());
        put(&mut a, &bytes);
        a.flush().unwrap();
        link.advance(at(u64::from(n) * 10));
        for got in take_all(&mut b) {
            let first = u32::from_be_bytes(got[..4].try_into().unwrap());
            let second = u32::from_be_bytes(got[4..8].try_into().unwrap());
            if first != second || got[8..].iter().any(|b| *b != 0) {
                flipped += 1;
                continue;
            }
            overtaken += u64::from(first < highest);
            highest = highest.max(first);
        }
        b.flush().unwrap();
    }
    let c = link.counters(Direction::AToB);
    let near = |got: u64, want: f64| (got as f64 - want).abs() < 5.0 * want.sqrt();
    assert!(near(c.lost, 2000.0), "{c:?}");
    assert!(near(c.duplicated, 980.0), "{c:?}");
    assert!(near(c.reordered, 4900.0), "{c:?}");
    assert!(near(c.corrupted, 2940.0), "{c:?}");
    assert!(flipped >= c.corrupted * 95 / 100, "{flipped} flips seen of {c:?}");
    assert!(overtaken > c.reordered / 2, "{overtaken} overtaken of {c:?}");
    assert_eq!(c.no_frame + c.ring_full, 0);
    assert!(c.balanced(link.in_flight(Direction::AToB)));
}

#[test]
fn a_flow_keeps_its_queue_both_ways_unless_scattered() {
    let (mut a, mut b, link) = link_multi(LinkConfig::default(), 4, 4);
    let mut used = [0u32; 4];
    for port in 1000..1200u16 {
        let local = Endpoint::new(Addr::v4([10, 0, 0, 1]), port);
        let remote = Endpoint::new(Addr::v4([10, 0, 0, 2]), 80);
        let queue = queue_of(&Tuple { local, remote }, 4);
        assert_eq!(queue, queue_of(&Tuple { local: remote, remote: local }, 4));
        put(&mut a[0], &frame(port, 80, b""));
        a[0].flush().unwrap();
        link.advance(at(1));
        for (q, end) in b.iter_mut().enumerate() {
            assert_eq!(take_all(end).len(), usize::from(q == queue));
            end.flush().unwrap();
        }
        used[queue] += 1;
    }
    assert!(used.iter().all(|n| *n > 25), "{used:?}");
}

#[test]
fn scatter_sends_its_share_to_other_queues() {
    let (mut a, mut b, link) = link_multi(LinkConfig { scatter: 0.25, ..LinkConfig::default() }, 1, 3);
    let tuple = Tuple {
        local: Endpoint::new(Addr::v4([10, 0, 0, 2]), 80),
        remote: Endpoint::new(Addr::v4([10, 0, 0, 1]), 999),
    };
    let mut got = [0usize; 3];
    for _ in 0..4000 {
        put(&mut a[0], &frame(999, 80, b""));
        a[0].flush().unwrap();
        link.advance(at(1));
        for (q, end) in b.iter_mut().enumerate() {
            got[q] += take_all(end).len();
            end.flush().unwrap();
        }
    }
    let home = queue_of(&tuple, 3);
    let astray = 4000 - got[home];
    assert_eq!(link.counters(Direction::AToB).scattered, astray as u64);
    assert!((850..1150).contains(&astray), "{got:?}");
    assert!(got.iter().all(|n| *n > 300), "{got:?}");
}

#[test]
fn the_log_is_bounded_and_readable() {
    let (mut a, _b, link) = link(LinkConfig { log: 2, log_snap: 60, ..LinkConfig::default() });
    for n in 0..3u8 {
        put(&mut a, &frame(1000, 80, &[n; 100]));
    }
    a.flush().unwrap();
    let log = link.log();
    assert_eq!(log.len(), 2);
    assert_eq!((log[0].bytes[54], log[0].bytes.len(), log[0].len), (1, 60, 154));
    assert_eq!(
        log[0].to_string(),
        "    0.000000 a>b q0 10.0.0.1:1000 > 10.0.0.2:80 [ACK] seq 0 ack 0 win 0 len 100: Passed(Time(0))"
    );
}

/// One step of a random run.
#[derive(Clone, Debug)]
enum Step {
    Send { from_a: bool, len: usize },
    Flush { a: bool },
    Receive { a: bool, keep: bool },
    Release { a: bool, back: bool },
    Advance(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (any::<bool>(), 0usize..1600).prop_map(|(from_a, len)| Step::Send { from_a, len }),
        2 => any::<bool>().prop_map(|a| Step::Flush { a }),
        2 => (any::<bool>(), any::<bool>()).prop_map(|(a, keep)| Step::Receive { a, keep }),
        2 => (any::<bool>(), any::<bool>()).prop_map(|(a, back)| Step::Release { a, back }),
        2 => (0u64..3000).prop_map(Step::Advance),
    ];
    prop::collection::vec(step, 1..200)
}

fn faults() -> impl Strategy<Value = Impairment> {
    let chance = || 0.0f64..0.5;
    let rate = prop::option::of(1_000_000u64..100_000_000);
    (chance(), chance(), chance(), chance(), 0u64..2000, 0u64..2000, rate).prop_map(
        |(loss, duplication, reordering, corruption, min, max, rate)| Impairment {
            loss,
            duplication,
            reordering,
            reordering_delay: MS,
            corruption,
            delay: (Duration::from_micros(min), Duration::from_micros(max)),
            rate: rate.map(|bits_per_second| Rate { bits_per_second, queue: MS }),
            down: vec![(at(5000), at(6000))],
        },
    )
}

/// Plays the steps, checking the books after each, and returns the log.
fn play(seed: u64, faults: &Impairment, steps: &[Step]) -> Result<Vec<LogEntry>, TestCaseError> {
    let config = LinkConfig {
        seed,
        frames: 24,
        fill: 10,
        rx_ring: 6,
        tx_ring: 8,
        log: 10_000,
        ..LinkConfig::default()
    };
    let (a, b, link) = link(config.both(faults.clone()));
    let mut ports = [a, b];
    let mut held: [Vec<Frame>; 2] = [Vec::new(), Vec::new()];
    let mut now = Time::ZERO;
    for step in steps {
        match *step {
            Step::Send { from_a, len } => {
                put(&mut ports[usize::from(!from_a)], &vec![0x5a; len.min(1518)]);
            }
            Step::Flush { a } => ports[usize::from(!a)].flush().unwrap(),
            Step::Receive { a, keep } => {
                let side = usize::from(!a);
                let mut burst = Vec::new();
                ports[side].rx(&mut burst);
                for f in burst {
                    if keep {
                        held[side].push(f);
                    } else {
                        ports[side].free(f);
                    }
                }
            }
            Step::Release { a, back } => {
                let side = usize::from(!a);
                if let Some(f) = held[side].pop() {
                    if back {
                        ports[side].send(f);
                    } else {
                        ports[side].free(f);
                    }
                }
            }
            Step::Advance(us) => {
                now += Duration::from_micros(us);
                link.advance(now);
                prop_assert!(link.next_delivery().is_none_or(|t| t > now));
            }
        }
        for (side, port) in ports.iter().enumerate() {
            let books = port.accounting();
            prop_assert!(books.balanced(), "{books:?}");
            prop_assert_eq!(books.lent as usize, held[side].len());
        }
        for d in [Direction::AToB, Direction::BToA] {
            prop_assert!(link.counters(d).balanced(link.in_flight(d)), "{:?}", link.counters(d));
        }
    }
    Ok(link.log())
}

proptest! {
    #[test]
    fn the_books_always_balance_and_the_same_seed_gives_the_same_log(
        seed in any::<u64>(), faults in faults(), steps in steps()
    ) {
        let first = play(seed, &faults, &steps)?;
        for e in &first {
            if let Fate::Passed(due) | Fate::Duplicate(due) = e.fate {
                prop_assert!(due >= e.at + faults.delay.0, "{e}");
            }
        }
        prop_assert_eq!(first, play(seed, &faults, &steps)?);
    }
}
