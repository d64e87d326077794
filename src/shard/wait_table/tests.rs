use super::*;
use crate::wire::{Addr, Endpoint};
use proptest::prelude::*;
use std::collections::BTreeMap;

const TWO_MSL: Duration = Duration::from_secs(60);

fn tuple(v4: bool, n: u32) -> Tuple {
    let [o0, o1, o2, o3] = n.to_be_bytes();
    let addr = |last| {
        if v4 {
            Addr::v4([10, o0, o1, last])
        } else {
            Addr::v6([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, o0, o1, last])
        }
    };
    Tuple { local: Endpoint::new(addr(1), 443), remote: Endpoint::new(addr(2), u16::from_be_bytes([o2, o3])) }
}

fn record(v4: bool, n: u32) -> TimeWait {
    let ts_recent = (!n.is_multiple_of(3)).then_some(n.wrapping_mul(0x9e37_79b9));
    let (snd_nxt, rcv_nxt) = (SeqNum::new(n ^ 0xdead_beef), SeqNum::new(!n));
    TimeWait { tuple: tuple(v4, n), snd_nxt, rcv_nxt, ts_recent, traced: n.is_multiple_of(5) }
}

fn at(ms: u64) -> Time {
    Time::from_micros(ms * 1000)
}

/// What is due at a time, settled.
fn expire(t: &mut WaitTable, now: Time) -> Vec<TimeWait> {
    let mut due = Vec::new();
    t.pop_due(now, &mut due, usize::MAX);
    due.into_iter().filter_map(|key| t.settle(key, now)).collect()
}

#[test]
fn a_record_comes_back_as_it_was() {
    let mut t = WaitTable::new(1000, TWO_MSL, at(5));
    for n in 0..1000 {
        let w = record(n % 2 == 0, n);
        let key = t.insert(&w, at(60_005)).unwrap();
        assert_eq!(t.get(key), Some(w));
        assert!(t.holds(key, &w.tuple));
        assert!(!t.holds(key, &tuple(n % 2 == 0, n + 1)));
        assert!(!t.holds(key, &tuple(n % 2 == 1, n)));
    }
    assert_eq!(expire(&mut t, at(60_004)).len(), 0);
    assert_eq!(expire(&mut t, at(60_021)).len(), 1000);
    assert_eq!((t.held(), t.slots()), (0, 0));
}

#[test]
fn both_families_share_the_capacity() {
    let mut t = WaitTable::new(3, TWO_MSL, Time::ZERO);
    assert!(t.insert(&record(true, 1), at(1000)).is_some());
    assert!(t.insert(&record(false, 2), at(1000)).is_some());
    assert!(t.insert(&record(false, 3), at(1000)).is_some());
    assert_eq!(t.insert(&record(true, 4), at(1000)), None);
    assert_eq!(t.evict().map(|(_, w)| w), Some(record(true, 1)));
    assert!(t.insert(&record(false, 4), at(1000)).is_some());
}

#[test]
fn an_end_is_kept_across_the_wrap_of_its_ticks() {
    // 60 s that begin just before the stored tick wraps.
    let wrap = (1u64 << TICK_BITS) * TICK_MS;
    let start = wrap - 30_000;
    let mut t = WaitTable::new(2, TWO_MSL, at(start));
    t.insert(&record(true, 1), at(start + 60_000)).unwrap();
    let other = t.insert(&record(false, 2), at(start + 20_000)).unwrap();
    t.restart(other, at(start + 80_000));
    for ms in [0, 20_000, 29_999, 30_000, 40_000, 59_999] {
        assert_eq!(expire(&mut t, at(start + ms)), [], "after {ms} ms");
    }
    assert_eq!(expire(&mut t, at(start + 60_016)), [record(true, 1)]);
    assert_eq!(expire(&mut t, at(start + 79_990)), []);
    assert_eq!(expire(&mut t, at(start + 80_016)), [record(false, 2)]);
}

#[test]
fn t05_a_restarted_record_is_not_the_oldest_any_more() {
    let mut t = WaitTable::new(3, TWO_MSL, Time::ZERO);
    let first = t.insert(&record(true, 1), at(60_000)).unwrap();
    t.insert(&record(true, 2), at(60_100)).unwrap();
    t.insert(&record(true, 3), at(60_200)).unwrap();
    t.restart(first, at(70_000));
    let order: Vec<_> = std::iter::from_fn(|| t.evict()).map(|(_, w)| w).collect();
    assert_eq!(order, [record(true, 2), record(true, 3), record(true, 1)]);
}

#[test]
fn t05_room_is_found_in_bounded_time_among_restarted_records() {
    let n = 10 * EVICT_TRIES as u32;
    let mut t = WaitTable::new(n as usize, TWO_MSL, Time::ZERO);
    for i in 0..n {
        let key = t.insert(&record(true, i), at(1000)).unwrap();
        t.restart(key, at(50_000));
    }
    assert_eq!(t.evict().map(|(_, w)| w), Some(record(true, EVICT_TRIES as u32)));
    assert_eq!(t.held(), n as usize - 1);
}

#[test]
fn an_ended_record_keeps_its_slot_until_the_wheel_gives_it_up() {
    let mut t = WaitTable::new(1, TWO_MSL, Time::ZERO);
    let key = t.insert(&record(false, 7), at(60_000)).unwrap();
    assert_eq!(t.end(key), Some(record(false, 7)));
    assert_eq!((t.get(key), t.end(key), t.held(), t.slots()), (None, None, 0, 1));
    assert!(!t.holds(key, &record(false, 7).tuple));
    t.restart(key, at(90_000));
    assert_eq!(t.insert(&record(true, 8), at(60_000)), None, "its slot is taken");
    assert_eq!(t.evict(), None, "and given up at once when room is needed");
    assert!(t.insert(&record(true, 8), at(60_000)).is_some());
}

#[derive(Clone, Debug)]
enum Op {
    Insert(bool, u64),
    Restart(usize, u64),
    End(usize),
    Pass(u64),
    Evict,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (any::<bool>(), 0..60_000u64).prop_map(|(v4, ms)| Op::Insert(v4, ms)),
        2 => (any::<usize>(), 0..60_000u64).prop_map(|(n, ms)| Op::Restart(n, ms)),
        2 => any::<usize>().prop_map(Op::End),
        3 => prop_oneof![0..500u64, 0..50_000u64].prop_map(Op::Pass),
        1 => Just(Op::Evict),
    ]
}

proptest! {
    /// Against a map of what is held: nothing is lost, nothing goes early, and nothing stays a tick too long.
    #[test]
    fn is_a_map_whose_entries_end(capacity in 1..40usize, start in 0..1u64 << 40, ops in prop::collection::vec(op(), 1..200)) {
        let mut t = WaitTable::new(capacity, TWO_MSL, at(start));
        let mut model: BTreeMap<u32, (TimeWait, u64)> = BTreeMap::new();
        let (mut now, mut n) = (start, 0);
        for op in ops {
            match op {
                Op::Insert(v4, ms) => {
                    n += 1;
                    let w = record(v4, n);
                    if let Some(key) = t.insert(&w, at(now + ms)) {
                        prop_assert!(model.insert(key, (w, now + ms)).is_none(), "a key in use was given out");
                    } else {
                        prop_assert!(t.slots() == capacity);
                    }
                }
                Op::Restart(i, ms) if !model.is_empty() => {
                    let i = i % model.len();
                    let (&key, end) = model.iter_mut().nth(i).unwrap();
                    // 2MSL begins anew: an end never moves back.
                    end.1 = end.1.max(now + ms);
                    t.restart(key, at(end.1));
                }
                Op::End(i) if !model.is_empty() => {
                    let key = *model.keys().nth(i % model.len()).unwrap();
                    prop_assert_eq!(t.end(key), model.remove(&key).map(|(w, _)| w));
                }
                Op::Restart(..) | Op::End(_) => {}
                Op::Pass(ms) => {
                    now += ms;
                    let mut due = Vec::new();
                    t.pop_due(at(now), &mut due, usize::MAX);
                    for key in due {
                        if let Some(w) = t.settle(key, at(now)) {
                            let (held, end) = model.remove(&key).expect("it was held");
                            prop_assert_eq!(held, w);
                            prop_assert!(end <= now, "early by {} ms", end - now);
                        }
                    }
                    prop_assert!(model.values().all(|(_, end)| end + TICK_MS > now), "late");
                }
                Op::Evict => {
                    if let Some((key, w)) = t.evict() {
                        prop_assert_eq!(model.remove(&key).map(|(w, _)| w), Some(w));
                    }
                }
            }
            prop_assert_eq!(t.held(), model.len());
            for (&key, (w, _)) in &model {
                prop_assert_eq!(t.get(key), Some(*w));
            }
        }
    }
}
