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
    ix.insert(hash_of(h), h, hash_of)
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

#[test]
fn churn_at_capacity_never_grows_and_costs_less_than_a_hash_an_insertion() {
    let mut ix = Index::new(100_000);
    let before = ix.memory_bytes();
    churn(&mut ix, 1_000_000);
    assert_eq!(ix.memory_bytes(), before);
    let hashes = ix.rebuilds() as f64 * expected(PART_BUCKETS) as f64;
    assert!(ix.rebuilds() > 0 && hashes < 1_000_000.0, "{} rebuilds", ix.rebuilds());
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
fn a_part_that_chance_overfills_refuses_instead_of_growing() {
    let mut ix = Index::new(1_000_000);
    // All in the first part: the middle bits are zero.
    let hash = |h: Handle| u64::from(h.key()) & 0xf_ffff;
    let mut taken = 0;
    while ix.insert(hash(conn(taken)), conn(taken), hash).is_ok() {
        taken += 1;
    }
    assert_eq!(taken as usize, most(PART_BUCKETS));
    assert!(ix.parts.iter().all(|p| p.num_buckets() == PART_BUCKETS));
}

#[test]
fn an_entry_costs_less_than_seven_and_a_half_bytes() {
    for n in [1_000_000usize, 3_333_333] {
        let per_entry = Index::new(n).memory_bytes() as f64 / n as f64;
        assert!(per_entry < 7.5, "{per_entry:.2} bytes an entry for {n}");
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
        for remote in ends {
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
                    prop_assert_eq!(ix.insert(hash(h), h, hash).is_err(), full);
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
