use super::*;
use crate::tcp::syn_rcvd::SYN_ACK_RTO;
use crate::wire::vlan::Tag;
use crate::wire::{Addr, Endpoint};
use proptest::prelude::*;
use std::collections::BTreeMap;

const NOW: Time = Time::from_micros(90_000_000_123);

fn tuple(v4: bool, n: u16) -> Tuple {
    let addr = |last| if v4 { Addr::v4([10, 0, 0, last]) } else { Addr::v6([last; 16]) };
    Tuple { local: Endpoint::new(addr(1), 443), remote: Endpoint::new(addr(2), n) }
}

/// None, one of 802.1Q, one of 802.1ad, or two.
fn any_vlan() -> impl Strategy<Value = Option<Vlan>> {
    let tag = |ethertype| any::<u16>().prop_map(move |tci| Tag { ethertype, tci });
    prop_oneof![
        Just(None),
        tag(0x8100).prop_map(|t| Vlan::with(None, t)),
        tag(0x88a8).prop_map(|t| Vlan::with(None, t)),
        (tag(0x88a8), tag(0x8100)).prop_map(|(outer, inner)| Vlan::with(Vlan::with(None, outer), inner)),
    ]
}

fn any_half() -> impl Strategy<Value = SynRcvd> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let options = (any::<Option<u32>>(), any::<u16>(), prop::option::of(0..=14u8), any_vlan());
    let rest =
        (any::<u32>(), any::<u32>(), any::<u16>(), any::<u16>(), (0..=15u8, 0..=15u8), 0..300_000_000u64);
    (flags, options, rest, any::<[u8; 6]>(), 0..300u16).prop_map(|(flags, options, rest, peer, own)| {
        let (v4, sack, ecn, repeated, traced) = flags;
        let (ts_recent, peer_mss, peer_scale, vlan) = options;
        let (irs, iss, listener, port, (tries, answers), age) = rest;
        let [own0, own1] = own.to_be_bytes();
        SynRcvd {
            tuple: tuple(v4, port),
            l2: L2 { src: MacAddr([2, 0, 0, 0, own0, own1]), dst: MacAddr(peer), vlan },
            since: Time::from_micros(NOW.micros() - age),
            irs: SeqNum::new(irs),
            iss: SeqNum::new(iss),
            ts_recent,
            listener,
            peer_mss,
            peer_scale,
            sack,
            ecn,
            tries,
            answers,
            repeated,
            traced,
        }
    })
}

proptest! {
    /// Nothing of a record is lost at rest, whichever width it gets; what has changed is kept.
    #[test]
    fn is_a_map_of_records(all in prop::collection::vec(any_half(), 1..600)) {
        let mut t = HalfTable::new(500, NOW);
        let mut model = BTreeMap::new();
        for (i, r) in all.iter().enumerate() {
            match t.insert(r) {
                Some(key) => prop_assert!(model.insert(key, *r).is_none(), "a key in use was given out"),
                None => prop_assert!(t.is_full() && model.len() == 500),
            }
            if i % 5 == 0 && let Some((&key, held)) = model.iter_mut().next() {
                let changed = SynRcvd { tuple: held.tuple, l2: held.l2, ..*r };
                t.put(key, &changed);
                *held = changed;
            }
            if i % 7 == 0 && let Some((key, _)) = model.pop_last() {
                t.remove(key);
                prop_assert_eq!(t.get(key, NOW), None);
            }
        }
        prop_assert_eq!(t.len(), model.len());
        for (&key, r) in &model {
            prop_assert_eq!(t.get(key, NOW), Some(*r));
            prop_assert!(t.holds(key, &r.tuple));
            prop_assert!(!t.holds(key, &r.tuple.flipped()));
        }
        let keys: Vec<_> = t.keys().filter(|&key| t.get(key, NOW).is_some()).collect();
        prop_assert_eq!(keys, model.into_keys().collect::<Vec<_>>());
    }
}

fn half(v4: bool, n: u16, own: u16) -> SynRcvd {
    let [own0, own1] = own.to_be_bytes();
    SynRcvd {
        tuple: tuple(v4, n),
        l2: L2 { src: MacAddr([2, 0, 0, 0, own0, own1]), ..L2::default() },
        since: NOW,
        irs: SeqNum::new(1),
        iss: SeqNum::new(2),
        ts_recent: None,
        listener: 0,
        peer_mss: 0,
        peer_scale: None,
        sack: false,
        ecn: false,
        tries: 0,
        answers: 0,
        repeated: false,
        traced: false,
    }
}

#[test]
fn ipv4_is_narrow_until_the_addresses_of_our_own_run_out() {
    let mut t = HalfTable::new(1000, NOW);
    for own in 0..OWN_MACS as u16 + 10 {
        let key = t.insert(&half(true, own, own)).unwrap();
        assert_eq!(key & WIDE != 0, usize::from(own) >= OWN_MACS, "address {own}");
        assert_eq!(t.get(key, NOW), Some(half(true, own, own)));
    }
    let known = t.insert(&half(true, 999, 3)).unwrap();
    assert_eq!(known & WIDE, 0);
    assert_ne!(t.insert(&half(false, 999, 3)).unwrap() & WIDE, 0);
}

#[test]
fn o11_both_widths_come_due_and_share_the_budget() {
    let mut t = HalfTable::new(200, NOW);
    for n in 0..100 {
        for v4 in [true, false] {
            let key = t.insert(&half(v4, n, 0)).unwrap();
            t.arm(key, NOW, SYN_ACK_RTO);
        }
    }
    assert_eq!(t.timers(), 200);
    let mut due = Vec::new();
    t.pop_due(NOW + SYN_ACK_RTO / 2, &mut due, 10);
    assert_eq!(due, [0u32; 0]);
    let then = NOW + SYN_ACK_RTO + Duration::from_millis(1);
    assert!(t.appointment_ms() <= Some(then.millis()));
    let mut seen = [0, 0];
    for _ in 0..200 {
        due.clear();
        t.pop_due(then, &mut due, 10);
        // Five of the wide ones leave room for five of the others, in every call.
        assert!(due.len() <= 10, "{} keys", due.len());
        assert!(due.iter().filter(|&key| key & WIDE != 0).count() <= 5);
        for key in &due {
            assert!(t.get(*key, then).is_some());
            seen[usize::from(key & WIDE != 0)] += 1;
        }
    }
    assert_eq!(seen, [100, 100]);
    // A record that goes takes its timer along.
    let key = t.insert(&half(true, 500, 0));
    assert_eq!(key, None, "full");
    for key in t.keys().take(300) {
        t.remove(key);
    }
    let key = t.insert(&half(true, 500, 0)).unwrap();
    t.arm(key, then, SYN_ACK_RTO);
    t.remove(key);
    assert_eq!(t.timers(), 0);
}
