//! Cookies by themselves: what they carry, how long, and for whom.

use super::*;
use crate::wire::{Addr, Endpoint, Flags, L2, Options};
use proptest::prelude::*;

const NOW: Time = Time::from_micros(1_000_000_000);

fn secret() -> Secret {
    Secret::new(11, 12)
}

fn frame(v6: bool, seq: u32, ack: u32, flags: Flags, options: Options) -> TcpFrame {
    let host = |n| if v6 { Addr::v6([n; 16]) } else { Addr::v4([10, 0, 0, n]) };
    TcpFrame {
        l2: L2::default(),
        tuple: Tuple { local: Endpoint::new(host(1), 80), remote: Endpoint::new(host(2), 5000) },
        ecn: 0,
        header: Header { seq: SeqNum::new(seq), ack: SeqNum::new(ack), flags, window: 1000, options },
        payload: 0..0,
    }
}

fn syn_options(mss: u16, scale: Option<u8>, sack: bool, ts: bool) -> Options {
    Options {
        mss: Some(mss),
        window_scale: scale,
        sack_permitted: sack,
        timestamps: ts.then_some(Timestamps { val: 77, ecr: 0 }),
        ..Options::default()
    }
}

/// The ACK that completes the handshake of this SYN-ACK.
fn answer_to(v6: bool, irs: u32, syn_ack: &Header) -> TcpFrame {
    let timestamps = syn_ack.options.timestamps.map(|t| Timestamps { val: 78, ecr: t.val });
    let options = Options { timestamps, ..Options::default() };
    frame(v6, irs.wrapping_add(1), syn_ack.seq.raw().wrapping_add(1), Flags::ACK, options)
}

fn good(v: CookieVerdict) -> SynRcvd {
    match v {
        CookieVerdict::Good(half) => half,
        other @ (CookieVerdict::Early | CookieVerdict::Unknown) => panic!("{other:?}"),
    }
}

proptest! {
    /// Whatever the peer offers comes back as it can be used, at any time within the life, on both families.
    #[test]
    fn o10_what_a_syn_offered_comes_back(
        irs: u32, mss in 0u16.., scale in proptest::option::of(0u8..=14), sack: bool, ts: bool, v6: bool,
        start in 0u64..1 << 45, after_ms in 0u64..64_000,
    ) {
        let (cfg, s) = (TcpConfig::default(), secret());
        let mut c = SynCookies::new(&s, (1, 2));
        let sent = Time::from_micros(start);
        let syn = frame(v6, irs, 0, Flags::SYN, syn_options(mss, scale, sack, ts));
        let h = c.answer(&syn, 0, &cfg, &s, sent);
        prop_assert_eq!(h.options.timestamps.is_some(), ts);
        prop_assert_eq!(h.options.window_scale.is_some(), ts && scale.is_some());
        prop_assert_eq!(h.options.sack_permitted, ts && sack);
        if let Some(t) = h.options.timestamps {
            // Never ahead of the clock: later segments must not seem older (PAWS at the peer).
            let behind = ts_val(sent, s.ts_offset(&syn.tuple)).wrapping_sub(t.val);
            prop_assert!(behind < 64, "{}", behind);
        }
        let now = sent + Duration::from_millis(after_ms);
        prop_assert!(c.out(now));
        let half = good(c.check(&answer_to(v6, irs, &h), 3, &TcpConfig::default(), &s, now));
        prop_assert_eq!((half.irs, half.iss, half.listener), (SeqNum::new(irs), h.seq, 3));
        prop_assert_eq!(half.peer_scale, scale.filter(|_| ts));
        prop_assert_eq!(half.sack, ts && sack);
        prop_assert_eq!(half.ts_recent, ts.then_some(78));
        let kept = half.mss().unwrap();
        prop_assert!(kept <= mss.max(88) && MSS_TABLE.contains(&kept));
    }

    /// A guess opens nothing.
    #[test]
    fn o10_a_guessed_acknowledgment_is_no_cookie(guess: u32, irs: u32) {
        let s = secret();
        let mut c = SynCookies::new(&s, (1, 2));
        let syn = frame(false, irs, 0, Flags::SYN, syn_options(1460, None, false, false));
        let h = c.answer(&syn, 0, &TcpConfig::default(), &s, NOW);
        // Only the lowest three bits, the MSS, may differ from the true one by an accident of one in 2^28.
        prop_assume!(guess >> 3 != h.seq.raw() >> 3);
        let f = frame(false, irs.wrapping_add(1), guess.wrapping_add(1), Flags::ACK, Options::default());
        let v = c.check(&f, 0, &TcpConfig::default(), &s, NOW);
        prop_assert!(!matches!(v, CookieVerdict::Good(_)), "{:?}", v);
    }
}

#[test]
fn o10_a_cookie_is_good_for_two_counters_and_no_longer() {
    let s = secret();
    let mut c = SynCookies::new(&s, (1, 2));
    // The very beginning of a counter: the longest life.
    let sent = Time::from_micros(640_000_000);
    let syn = frame(false, 5, 0, Flags::SYN, syn_options(1460, Some(7), true, false));
    let h = c.answer(&syn, 0, &TcpConfig::default(), &s, sent);
    let ack = answer_to(false, 5, &h);
    for (after, lives) in [(0, true), (63, true), (127, true), (128, false), (192, false), (6400, false)] {
        let now = sent + Duration::from_secs(after);
        assert_eq!(
            matches!(c.check(&ack, 0, &TcpConfig::default(), &s, now), CookieVerdict::Good(_)),
            lives,
            "{after} s"
        );
    }
    assert!(c.out(sent + Duration::from_secs(127)) && !c.out(sent + LIFE));
}

#[test]
fn o10_a_cookie_is_good_for_its_tuple_its_peers_isn_and_its_worker() {
    let s = secret();
    let mut c = SynCookies::new(&s, (1, 2));
    let syn = frame(false, 5, 0, Flags::SYN, syn_options(1460, None, false, false));
    let h = c.answer(&syn, 0, &TcpConfig::default(), &s, NOW);
    let ack = answer_to(false, 5, &h);
    let mut other = ack.clone();
    other.tuple.remote.port += 1;
    assert!(matches!(c.check(&other, 0, &TcpConfig::default(), &s, NOW), CookieVerdict::Unknown));
    let later = answer_to(false, 1005, &h);
    assert!(
        matches!(c.check(&later, 0, &TcpConfig::default(), &s, NOW), CookieVerdict::Early),
        "of ours, but not the first segment"
    );
    let stranger = SynCookies::new(&s, (1, 3));
    assert!(matches!(stranger.check(&ack, 0, &TcpConfig::default(), &s, NOW), CookieVerdict::Unknown));
    let _ = good(c.check(&ack, 0, &TcpConfig::default(), &s, NOW));
}

#[test]
fn o10_an_echo_that_no_cookie_had_is_refused() {
    let s = secret();
    let mut c = SynCookies::new(&s, (1, 2));
    let syn = frame(true, 5, 0, Flags::SYN, syn_options(1440, Some(3), true, true));
    let h = c.answer(&syn, 0, &TcpConfig::default(), &s, NOW);
    let mut ack = answer_to(true, 5, &h);
    for wrong in [1 << 20, u32::MAX - 1000, 1 << 31] {
        let sent = h.options.timestamps.unwrap().val;
        ack.header.options.timestamps = Some(Timestamps { val: 78, ecr: sent.wrapping_add(wrong) });
        let fine = matches!(c.check(&ack, 0, &TcpConfig::default(), &s, NOW), CookieVerdict::Good(_));
        // One second earlier is within the life; far away and ahead is not.
        assert_eq!(fine, wrong == u32::MAX - 1000, "{wrong}");
    }
}

#[test]
fn o10_the_mss_is_the_largest_that_is_not_too_large() {
    for (mss, kept) in
        [(0, 88), (88, 88), (535, 88), (536, 536), (1219, 536), (1459, 1452), (1460, 1460), (9000, 8940)]
    {
        assert_eq!(MSS_TABLE[mss_index(mss) as usize], kept, "{mss}");
    }
}
