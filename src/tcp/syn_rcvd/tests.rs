use super::*;
use crate::wire::{Addr, Endpoint};

const IRS: u32 = 5_000;
const ISS: u32 = 900_000;
const NOW: Time = Time::from_micros(7_000_000);
/// The unscaled window that a SYN-ACK offers with the default buffer.
const WND: u32 = 65_535;

fn seq(n: u32) -> SeqNum {
    SeqNum::new(n)
}

fn tuple() -> Tuple {
    Tuple {
        local: Endpoint::new(Addr::v4([10, 0, 0, 1]), 80),
        remote: Endpoint::new(Addr::v4([10, 0, 0, 2]), 4000),
    }
}

fn half(options: Options) -> SynRcvd {
    let frame = TcpFrame {
        l2: L2::default(),
        tuple: tuple(),
        ecn: 0,
        header: Header { seq: seq(IRS), flags: Flags::SYN, window: 1000, options, ..Header::default() },
        payload: 0..0,
    };
    SynRcvd::new(&frame, 3, seq(ISS), &TcpConfig::default(), NOW)
}

fn plain() -> SynRcvd {
    half(Options::default())
}

fn stamped(val: u32) -> Options {
    Options { timestamps: Some(Timestamps { val, ecr: 0 }), ..Options::default() }
}

fn header(at: u32, ack: u32, flags: Flags) -> Header {
    Header { seq: seq(at), ack: seq(ack), flags, window: 1000, ..Header::default() }
}

/// The verdict on a segment without options.
fn judge(at: u32, ack: u32, flags: Flags, payload: usize) -> HalfVerdict {
    plain().on_segment(&header(at, ack, flags), payload, &TcpConfig::default())
}

const ACK: Flags = Flags::ACK;

#[test]
fn o01_the_exact_ack_promotes_with_and_without_data_or_fin() {
    assert_eq!(judge(IRS + 1, ISS + 1, ACK, 0), HalfVerdict::Promote);
    assert_eq!(judge(IRS + 1, ISS + 1, ACK, 100), HalfVerdict::Promote);
    assert_eq!(judge(IRS + 1, ISS + 1, ACK | Flags::FIN, 0), HalfVerdict::Promote);
    // Data ahead of a lost first segment acknowledges our SYN as well.
    assert_eq!(judge(IRS + 500, ISS + 1, ACK, 100), HalfVerdict::Promote);
}

#[test]
fn o01_a_wrong_ack_is_reset_and_the_record_stays() {
    for ack in [ISS, ISS + 2, ISS.wrapping_sub(1), ISS + 70_000, 0] {
        assert_eq!(judge(IRS + 1, ack, ACK, 0), HalfVerdict::Reset(seq(ack)), "{ack}");
        assert_eq!(judge(IRS + 1, ack, ACK, 10), HalfVerdict::Reset(seq(ack)), "{ack}");
    }
}

#[test]
fn o01_segments_outside_the_window_are_answered_by_an_ack() {
    for (at, payload) in [
        (IRS, 0),
        (IRS.wrapping_sub(100), 0),
        (IRS.wrapping_sub(100), 50),
        (IRS + 1 + WND, 0),
        (IRS + 1 + WND, 10),
        (IRS + 1_000_000, 10),
        (IRS + 0x8000_0000, 10),
    ] {
        assert_eq!(judge(at, ISS + 1, ACK, payload), HalfVerdict::Ack, "{at} {payload}");
    }
    assert_eq!(judge(IRS + WND, ISS + 1, ACK, 10), HalfVerdict::Promote, "the last byte of the window");
    assert_eq!(judge(IRS, ISS + 1, ACK, 2), HalfVerdict::Promote, "old and new bytes");
}

#[test]
fn o01_no_ack_means_nothing() {
    assert_eq!(judge(IRS + 1, 0, Flags::FIN, 0), HalfVerdict::Drop(DropReason::NoAck));
    assert_eq!(judge(IRS + 1, 0, Flags::PSH, 10), HalfVerdict::Drop(DropReason::NoAck));
}

#[test]
fn o05_the_same_syn_again_is_answered_again() {
    assert_eq!(judge(IRS, 0, Flags::SYN, 0), HalfVerdict::SynAckAgain);
    assert_eq!(judge(IRS, 0, Flags::SYN, 30), HalfVerdict::SynAckAgain);
    assert_eq!(judge(IRS, 0, Flags::SYN | Flags::ECE | Flags::CWR, 0), HalfVerdict::SynAckAgain);
}

#[test]
fn r02_another_syn_is_answered_by_an_ack_wherever_it_lies() {
    for at in [IRS + 1, IRS + 5, IRS - 1, IRS + WND + 1, IRS + 0x8000_0000] {
        assert_eq!(judge(at, 0, Flags::SYN, 0), HalfVerdict::Ack, "{at}");
        assert_eq!(judge(at, ISS + 1, Flags::SYN | ACK, 0), HalfVerdict::Ack, "{at}");
    }
    assert_eq!(judge(IRS, ISS + 1, Flags::SYN | ACK, 0), HalfVerdict::Ack, "a SYN-ACK for a listener");
}

#[test]
fn r01_a_rst_counts_only_at_the_exact_number() {
    for flags in [Flags::RST, Flags::RST | ACK] {
        assert_eq!(judge(IRS + 1, 0, flags, 0), HalfVerdict::Remove);
        for at in [IRS + 2, IRS + 100, IRS + WND] {
            assert_eq!(judge(at, 0, flags, 0), HalfVerdict::Ack, "{at}: challenge");
        }
        for at in [IRS, IRS - 1, IRS + 1 + WND, IRS + 0x8000_0000] {
            assert_eq!(judge(at, 0, flags, 0), HalfVerdict::Drop(DropReason::BadReset), "{at}");
        }
    }
}

#[test]
fn d12_paws_holds_before_the_handshake_is_complete() {
    let cfg = TcpConfig::default();
    let r = half(stamped(1000));
    let with = |val| Header { options: stamped(val), ..header(IRS + 1, ISS + 1, ACK) };
    assert_eq!(r.on_segment(&with(1000), 0, &cfg), HalfVerdict::Promote);
    assert_eq!(r.on_segment(&with(1001), 0, &cfg), HalfVerdict::Promote);
    assert_eq!(r.on_segment(&with(999), 10, &cfg), HalfVerdict::Ack);
    assert_eq!(r.on_segment(&with(1000 + 0x8000_0000), 10, &cfg), HalfVerdict::Ack);
    assert_eq!(r.on_segment(&with(999), 0, &cfg), HalfVerdict::Ack);
    let bare = header(IRS + 1, ISS + 1, ACK);
    assert_eq!(
        r.on_segment(&bare, 0, &cfg),
        HalfVerdict::Drop(DropReason::Paws),
        "a connection would refuse it"
    );
    let rst = header(IRS + 1, 0, Flags::RST);
    assert_eq!(r.on_segment(&rst, 0, &cfg), HalfVerdict::Remove, "PAWS is not for RST (RFC 7323 §5.2)");
    assert_eq!(plain().on_segment(&with(1), 0, &cfg), HalfVerdict::Promote, "not negotiated");
}

#[test]
fn o06_the_syn_ack_offers_what_the_syn_offered() {
    let cfg = TcpConfig::default();
    let secret = Secret::new(1, 2);
    let h = plain().syn_ack(&cfg, &secret, NOW);
    assert_eq!((h.seq, h.ack), (seq(ISS), seq(IRS + 1)));
    assert_eq!(h.flags, Flags::SYN | ACK);
    assert_eq!(h.options, Options { mss: Some(1460), ..Options::default() });
    let full = half(Options { mss: Some(1400), window_scale: Some(9), sack_permitted: true, ..stamped(77) });
    let o = full.syn_ack(&cfg, &secret, NOW).options;
    assert_eq!(o.window_scale, Some(cfg.window_scale(0)));
    assert!(o.sack_permitted);
    assert_eq!(o.timestamps.map(|t| t.ecr), Some(77));
    assert_eq!(full.mss(), Some(1400));
}

#[test]
fn d13_the_window_of_a_syn_ack_is_unscaled_and_that_of_an_ack_is_scaled() {
    let cfg = TcpConfig::default();
    let secret = Secret::new(1, 2);
    let scaled = half(Options { window_scale: Some(2), ..Options::default() });
    assert_eq!(scaled.syn_ack(&cfg, &secret, NOW).window, u16::MAX);
    let edge = u32::from(scaled.ack(&cfg, &secret, NOW).window) << cfg.window_scale(0);
    assert!(edge <= WND && edge + (1 << cfg.window_scale(0)) > WND, "{edge}: no more than was offered");
    assert_eq!(u32::from(plain().ack(&cfg, &secret, NOW).window), WND);
}

#[test]
fn o11_the_syn_ack_backs_off_and_is_given_up() {
    let cfg = TcpConfig { syn_retries: 3, ..TcpConfig::default() };
    let mut r = plain();
    let waits: Vec<_> = std::iter::from_fn(|| r.on_timer(&cfg)).map(|wait| wait.as_secs()).collect();
    assert_eq!((SYN_ACK_RTO.as_secs(), waits), (1, vec![2, 4, 8]));
    let mut r = plain();
    let none = TcpConfig { syn_retries: 0, ..TcpConfig::default() };
    assert_eq!(r.on_timer(&none), None);
    let many = TcpConfig { syn_retries: u8::MAX, ..TcpConfig::default() };
    for _ in 0..u8::MAX {
        assert!(r.on_timer(&many).unwrap() <= Duration::from_secs(64), "bounded");
    }
    assert_eq!(r.on_timer(&many), None);
}
