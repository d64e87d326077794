use super::*;
use crate::wire::{Addr, Endpoint};
use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::{HashMap, HashSet};

fn conn(key: u32) -> Handle {
    Handle::new(Kind::Conn, key)
}

fn hash_of(h: Handle) -> u64 {
    SipHasher13::new_with_keys(1, 2).hash(&h.key().to_be_bytes())
}

fn add(ix: &mut Index, h: Handle) -> Result<(), IndexFull> {
    ix.insert(hash_of(h), h)
}

fn del(ix: &mut Index, h: Handle) -> Option<Handle> {
    ix.remove(hash_of(h), |x| x == h)
}

/// Fills an index, then removes and adds `turns` entries at its capacity.
fn churn(ix: &mut Index, turns: u32) {
    let mut rng = SmallRng::seed_from_u64(3);
    let n = ix.capacity() as u32;
    let mut live: Vec<u32> = (0..n).collect();
    for &k in &live {
        add(ix, conn(k)).unwrap();
    }
    assert_eq!(add(ix, conn(n)), Err(IndexFull));
    for k in n..n + turns {
        let at = rng.random_range(0..live.len());
        assert!(del(ix, conn(live[at])).is_some());
        add(ix, conn(k)).unwrap();
        live[at] = k;
    }
    assert_eq!(ix.len(), live.len());
    for &k in &live {
        assert_eq!(ix.find(hash_of(conn(k)), |h| h == conn(k)), Some(conn(k)));
    }
}

/// Entries that lie in another bucket than their own.
fn displaced(ix: &Index) -> usize {
    let entries = ix.buckets.iter().enumerate().flat_map(|(at, b)| {
        b.handles.iter().zip(b.tags).filter(|&(_, tag)| tag != 0).map(move |(&h, _)| (at, h))
    });
    entries.filter(|&(at, h)| ix.home(hash_of(h)) != at).count()
}

#[test]
fn churn_at_capacity_never_grows_and_leaves_nothing_behind() {
    let mut ix = Index::new(100_000);
    let before = ix.memory_bytes();
    churn(&mut ix, 1_000_000);
    assert_eq!(ix.memory_bytes(), before);
    // Whoever comes to a full index meets more full buckets than those did who filled it; but age has no cost.
    let mut younger = Index::new(100_000);
    churn(&mut younger, 300_000);
    let (old, young) = (displaced(&ix), displaced(&younger));
    assert!(
        old < ix.len() / 10 && old.abs_diff(young) < 500,
        "{old} displaced, {young} after a third of the churn"
    );
    let passed: u64 = ix.buckets.iter().map(|b| u64::from(b.passed)).sum();
    assert!(passed >= old as u64 && passed < 2 * old as u64, "{passed} passes for {old} entries");
}

#[test]
fn an_emptied_index_is_as_new() {
    let mut ix = Index::new(1000);
    churn(&mut ix, 5000);
    let held: Vec<Handle> = ix.buckets.iter().flat_map(|b| b.handles).collect();
    for h in held {
        let _ = del(&mut ix, h);
    }
    assert!(ix.is_empty());
    assert!(ix.buckets.iter().all(|b| b.passed == 0 && b.tags == [0; SLOTS]));
}

#[test]
fn a_small_index_survives_churn_at_capacity() {
    for capacity in [1, 2, 23, 24, 25, 700, 3000] {
        let mut ix = Index::new(capacity);
        let before = ix.memory_bytes();
        churn(&mut ix, 20_000);
        assert_eq!(ix.memory_bytes(), before, "capacity {capacity}");
    }
}

#[test]
fn a_bucket_that_chance_overfills_spills_into_the_next_ones() {
    let mut ix = Index::new(1000);
    // All in the last bucket: what it cannot take goes to the first ones.
    let hash = |h: Handle| u64::from(u32::MAX) << 32 | u64::from(h.key());
    for key in 0..1000 {
        ix.insert(hash(conn(key)), conn(key)).unwrap();
    }
    assert_eq!(ix.insert(hash(conn(1000)), conn(1000)), Err(IndexFull));
    for key in (0..1000).step_by(2) {
        assert_eq!(ix.remove(hash(conn(key)), |h| h == conn(key)), Some(conn(key)));
    }
    for key in 0..1000 {
        let there = (key % 2 == 1).then(|| conn(key));
        assert_eq!(ix.find(hash(conn(key)), |h| h == conn(key)), there);
    }
}

#[test]
fn a_stranger_is_hardly_ever_compared_with_a_record() {
    let mut ix = Index::new(100_000);
    churn(&mut ix, 0);
    let mut compared = 0;
    for key in 1_000_000..1_100_000 {
        let _ = ix.find(hash_of(conn(key)), |_| {
            compared += 1;
            false
        });
    }
    assert!(compared < 5_000, "{compared} of 100,000");
}

#[test]
fn an_entry_costs_less_than_eight_bytes() {
    for n in [1_000_000usize, 3_333_333] {
        let per_entry = Index::new(n).memory_bytes() as f64 / n as f64;
        assert!(per_entry < 7.8, "{per_entry:.2} bytes an entry for {n}");
    }
}

#[test]
fn a_handle_keeps_its_kind_and_number() {
    for kind in [Kind::SynRcvd, Kind::Conn, Kind::TimeWait] {
        for key in [0, 1, MAX_KEYS - 1] {
            let h = Handle::new(kind, key);
            assert_eq!((h.kind(), h.key()), (kind, key));
        }
    }
}

#[test]
fn the_tuple_hash_depends_on_the_key_and_on_every_field() {
    let ends = [Addr::v4([10, 0, 0, 1]), Addr::v4([10, 0, 0, 2]), Addr::v6([7; 16]), Addr::v6([8; 16])];
    let (a, b) = (TupleHasher::new(1, 2), TupleHasher::new(1, 3));
    let mut seen = HashSet::new();
    for local in ends {
        // A connection's ends are of one family.
        for remote in ends.into_iter().filter(|remote| remote.is_v4() == local.is_v4()) {
            for (lp, rp) in [(80, 1024), (1024, 80), (81, 1024), (80, 1025)] {
                let t = Tuple { local: Endpoint::new(local, lp), remote: Endpoint::new(remote, rp) };
                assert_eq!(a.hash(&t), TupleHasher::new(1, 2).hash(&t));
                assert!(seen.insert(a.hash(&t)) && seen.insert(b.hash(&t)));
            }
        }
    }
}

proptest! {
    /// Against a map, with hashes that collide in part and in full.
    #[test]
    fn is_a_map(ops in prop::collection::vec((0..4u8, 0..60u32, any::<bool>()), 1..300)) {
        let mut ix = Index::new(24);
        let mut model = HashMap::<u32, Handle>::new();
        // The tuple is the number modulo 64; the hash is poor on purpose.
        let hash = |h: Handle| u64::from(h.key() % 64 / 4) << 57 | u64::from(h.key() % 64 / 8);
        for (op, key, other) in ops {
            let h = conn(key);
            let same = |x: Handle| x.key() % 64 == key;
            match op {
                0 | 1 if !model.contains_key(&key) => {
                    let full = model.len() == 24;
                    prop_assert_eq!(ix.insert(hash(h), h).is_err(), full);
                    if !full {
                        model.insert(key, h);
                    }
                }
                2 => prop_assert_eq!(ix.remove(hash(h), same), model.remove(&key)),
                _ => {
                    let with = Handle::new(Kind::TimeWait, key + if other { 64 } else { 0 });
                    let had = ix.replace(hash(h), same, with);
                    prop_assert_eq!(had, model.get(&key).copied());
                    if had.is_some() {
                        model.insert(key, with);
                    }
                }
            }
            prop_assert_eq!(ix.len(), model.len());
            for k in 0..60 {
                prop_assert_eq!(ix.find(hash(conn(k)), |x| x.key() % 64 == k), model.get(&k).copied());
            }
        }
    }
}
