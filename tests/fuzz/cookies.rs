//! SYN cookies: those given out come back, and no others.

use crate::engine::Reader;
use finwheel::tcp::TcpConfig;
use finwheel::tcp::isn::Secret;
use finwheel::tcp::syncookie::{CookieVerdict, SynCookies};
use finwheel::time::Time;
use finwheel::wire::tcp::Timestamps;
use finwheel::wire::{Addr, Endpoint, Flags, Header, L2, Options, SeqNum, TcpFrame, Tuple};
use std::sync::atomic::{AtomicU64, Ordering};

/// Segments that were judged and cannot have been given out, and those of them that were believed.
static FORGED: AtomicU64 = AtomicU64::new(0);
static BELIEVED: AtomicU64 = AtomicU64::new(0);

fn segment(tuple: Tuple, flags: Flags, seq: SeqNum, ack: SeqNum, options: Options) -> TcpFrame {
    let header = Header { seq, ack, flags, window: 1000, options };
    TcpFrame { l2: L2::default(), tuple, ecn: 0, header, payload: 54..54 }
}

/// The same for segments with a cookie's own acknowledgment and another sequence number: the later segments of a peer that
/// has it, which only the tag over everything tells from the first.
static LATER: AtomicU64 = AtomicU64::new(0);
static LATER_BELIEVED: AtomicU64 = AtomicU64::new(0);

/// A SYN is answered; the answer is brought back, then changed. A change that is believed must have been found by chance:
/// with 28 bits of tag, once in 2²⁸; with the sequence number alone changed, once in 2¹⁴.
pub fn cookies(bytes: &[u8]) {
    let mut r = Reader(bytes);
    let secret = Secret::new(u64::from(r.u32()), 7);
    let mut cookies = SynCookies::new(&secret, (u64::from(r.u8()), 3));
    let now = Time::from_micros(u64::from(r.u32()) * 1000);
    let remote = Endpoint::new(Addr::v4([10, 0, r.u8(), 9]), r.u16() | 1);
    let tuple = Tuple { local: Endpoint::new(Addr::v4([10, 0, 0, 1]), 80), remote };
    let with = r.u8();
    let ts = Timestamps { val: r.u32(), ecr: 0 };
    let syn = segment(
        tuple,
        Flags::SYN,
        SeqNum::new(r.u32()),
        SeqNum::new(0),
        Options {
            mss: (with & 1 != 0).then(|| r.u16()).filter(|&mss| mss != 0),
            window_scale: (with & 2 != 0).then(|| r.u8()),
            sack_permitted: with & 4 != 0,
            timestamps: (with & 8 != 0).then_some(ts),
            ..Options::default()
        },
    );
    let cfg = TcpConfig::default();
    let answer = cookies.answer(&syn, 0, &cfg, &secret, now);
    let echoed = answer.options.timestamps.map(|t| Timestamps { val: ts.val.wrapping_add(1), ecr: t.val });
    let options = Options { timestamps: echoed, ..Options::default() };
    let ack = segment(tuple, Flags::ACK, syn.header.seq + 1, answer.seq + 1, options);

    // Good, for as long as its counter says.
    let wait = std::time::Duration::from_millis(u64::from(r.u16()));
    match cookies.check(&ack, 0, &cfg, &secret, now + wait) {
        CookieVerdict::Good(half) => {
            assert_eq!((half.irs, half.iss, half.tuple), (syn.header.seq, answer.seq, tuple));
            let offered = syn.header.options.mss.unwrap_or(536);
            let kept = half.mss().expect("a cookie tells an MSS");
            assert!(kept <= offered.max(88), "an MSS of {kept}, offered {offered}");
            let scaled = with & 0b1010 == 0b1010;
            assert_eq!(
                half.peer_scale,
                syn.header.options.window_scale.filter(|_| scaled).map(|s| s.min(14))
            );
            assert_eq!(half.sack, with & 0b1100 == 0b1100);
        }
        v => assert!(wait.as_secs() >= 64, "a cookie {wait:?} old: {v:?}"),
    }

    // Changed in one place: somebody else's, or forged.
    let mut forged = ack;
    let n = 1 + r.u32() % u32::from(u16::MAX);
    let kind = r.below(4);
    match kind {
        0 => forged.header.ack = ack_of(&forged) + n,
        1 => forged.tuple.remote.port ^= (n as u16).max(1),
        2 => forged.tuple.remote.addr = Addr::v4([10, 1, (n >> 8) as u8, n as u8]),
        _ => forged.header.seq += n,
    }
    let (tried, taken) = if kind == 3 { (&LATER, &LATER_BELIEVED) } else { (&FORGED, &BELIEVED) };
    tried.fetch_add(1, Ordering::Relaxed);
    if matches!(cookies.check(&forged, 0, &cfg, &secret, now), CookieVerdict::Good(_)) {
        taken.fetch_add(1, Ordering::Relaxed);
    }
    // At another worker it is nothing.
    let other = SynCookies::new(&secret, (u64::from(u32::MAX) + 1, 3));
    FORGED.fetch_add(1, Ordering::Relaxed);
    if matches!(
        other.check(&ack_frame(&syn, &answer, options), 0, &cfg, &secret, now),
        CookieVerdict::Good(_)
    ) {
        BELIEVED.fetch_add(1, Ordering::Relaxed);
    }
    let (forged, believed) = (FORGED.load(Ordering::Relaxed), BELIEVED.load(Ordering::Relaxed));
    assert!(believed <= 2 + (forged >> 20), "{believed} of {forged} forged cookies were believed");
    let (later, believed) = (LATER.load(Ordering::Relaxed), LATER_BELIEVED.load(Ordering::Relaxed));
    assert!(believed <= 10 + (later >> 12), "{believed} of {later} later segments opened a connection");
}

const fn ack_of(f: &TcpFrame) -> SeqNum {
    f.header.ack
}

fn ack_frame(syn: &TcpFrame, answer: &Header, options: Options) -> TcpFrame {
    segment(syn.tuple, Flags::ACK, syn.header.seq + 1, answer.seq + 1, options)
}
