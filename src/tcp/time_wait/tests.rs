use super::*;
use crate::wire::{Addr, Endpoint};

const SND: u32 = 10_000;
const RCV: u32 = 5_000;
const RECENT: u32 = 700;

fn seq(n: u32) -> SeqNum {
    SeqNum::new(n)
}

fn record(ts_recent: Option<u32>) -> TimeWait {
    TimeWait {
        tuple: crate::wire::Tuple {
            local: Endpoint::new(Addr::v4([10, 0, 0, 1]), 80),
            remote: Endpoint::new(Addr::v4([10, 0, 0, 2]), 4000),
        },
        snd_nxt: seq(SND),
        rcv_nxt: seq(RCV),
        ts_recent,
        traced: false,
    }
}

fn segment(at: u32, ack: u32, flags: Flags, ts: Option<u32>) -> Header {
    let timestamps = ts.map(|val| Timestamps { val, ecr: 0 });
    Header {
        seq: seq(at),
        ack: seq(ack),
        flags,
        window: 1000,
        options: Options { timestamps, ..Options::default() },
    }
}

/// The verdict on a segment where neither side uses timestamps.
fn judge(at: u32, ack: u32, flags: Flags, payload: usize) -> WaitVerdict {
    record(None).on_segment(&segment(at, ack, flags, None), payload)
}

const FIN_ACK: Flags = Flags::from_bits(0x11);
const ACK: Flags = Flags::ACK;

#[test]
fn t02_no_rst_at_any_place_ends_it() {
    for at in [RCV, RCV - 1, RCV + 1, 0, RCV + 0x8000_0000] {
        for flags in [Flags::RST, Flags::RST | ACK, Flags::RST | Flags::FIN] {
            assert_eq!(judge(at, SND, flags, 0), WaitVerdict::IgnoreReset, "{at} {flags}");
        }
    }
}

#[test]
fn c10_only_the_peers_own_fin_restarts_the_wait() {
    assert_eq!(judge(RCV - 1, SND, FIN_ACK, 0), WaitVerdict::AckAndRestart);
    assert_eq!(judge(RCV - 101, SND, FIN_ACK, 100), WaitVerdict::AckAndRestart, "with its data");
    for at in [RCV, RCV - 2, RCV + 1000, 0] {
        assert_eq!(judge(at, SND, FIN_ACK, 0), WaitVerdict::Ack, "{at}");
    }
    let w = record(Some(RECENT));
    let fin = |ts| segment(RCV - 1, SND, FIN_ACK, ts);
    assert_eq!(w.on_segment(&fin(Some(RECENT)), 0), WaitVerdict::AckAndRestart);
    assert_eq!(w.on_segment(&fin(Some(RECENT + 5)), 0), WaitVerdict::AckAndRestart);
    assert_eq!(w.on_segment(&fin(Some(RECENT - 1)), 0), WaitVerdict::Ack, "an old duplicate");
}

#[test]
fn t03_what_is_old_is_acknowledged_and_what_needs_no_answer_gets_none() {
    assert_eq!(judge(RCV, SND, ACK, 0), WaitVerdict::Ignore, "the ACK of our FIN again");
    assert_eq!(judge(RCV, SND, Flags::FIN, 0), WaitVerdict::Ignore, "no ACK");
    for (at, ack, payload) in
        [(RCV, SND, 1), (RCV - 10, SND, 10), (RCV - 1, SND, 0), (RCV, SND - 1, 0), (RCV + 9, SND, 0)]
    {
        assert_eq!(judge(at, ack, ACK, payload), WaitVerdict::Ack, "{at} {ack} {payload}");
    }
}

#[test]
fn t04_a_syn_reopens_by_the_table_of_rfc_6191() {
    let floor = WaitVerdict::Reopen { iss_floor: seq(SND + ISN_GAP) };
    // (ours, the SYN's, its sequence number, newer)
    for (recent, ts, at, newer) in [
        (None, None, RCV, true),
        (None, None, RCV + 100_000, true),
        (None, None, RCV - 1, false),
        (None, None, RCV + 0x8000_0000, false),
        (None, Some(1), RCV - 1, true),
        (Some(RECENT), None, RCV, true),
        (Some(RECENT), None, RCV - 1, false),
        (Some(RECENT), Some(RECENT + 1), RCV - 1000, true),
        (Some(RECENT), Some(RECENT), RCV, true),
        (Some(RECENT), Some(RECENT), RCV - 1, false),
        (Some(RECENT), Some(RECENT - 1), RCV + 1000, false),
        (Some(RECENT), Some(RECENT.wrapping_add(0x8000_0000)), RCV + 1000, false),
    ] {
        let got = record(recent).on_segment(&segment(at, 0, Flags::SYN, ts), 0);
        assert_eq!(got, if newer { floor } else { WaitVerdict::Ack }, "{recent:?} {ts:?} {at}");
    }
    assert_eq!(judge(RCV + 1000, SND, Flags::SYN | ACK, 0), WaitVerdict::Ack, "a SYN-ACK opens nothing");
}

#[test]
fn t03_the_ack_says_where_the_connection_ended() {
    let secret = Secret::new(1, 2);
    let now = Time::from_micros(9_000_000);
    let h = record(Some(RECENT)).ack(&secret, now);
    assert_eq!((h.seq, h.ack, h.flags), (seq(SND), seq(RCV), ACK));
    assert_eq!(h.options.timestamps.map(|t| t.ecr), Some(RECENT));
    assert_eq!(record(None).ack(&secret, now).options, Options::default());
}
