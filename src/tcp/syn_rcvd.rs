//! A half-open connection: what is kept between a SYN for a listener and the ACK that completes the handshake
//! (RFC 9293 §3.10.7.2, and §3.10.7.4 for `SYN_RECEIVED` after a passive open).
//!
//! Its timestamp offset is not stored but derived from the tuple by the keyed hash.

use super::config::TcpConfig;
use super::ecn;
use super::isn::{Secret, ts_val};
use crate::drop::DropReason;
use crate::time::Time;
use crate::wire::tcp::Timestamps;
use crate::wire::{Flags, Header, L2, Options, SeqNum, TcpFrame, Tuple};
use std::time::Duration;

/// First wait before a SYN-ACK is sent again (RFC 6298 §2.1); it doubles each time.
pub const SYN_ACK_RTO: Duration = Duration::from_secs(1);

/// Empty segments out of place that are answered between two SYN-ACKs. Higher: two ends that answer each other say more
/// before they fall silent; lower: a confused peer waits for the next SYN-ACK sooner.
const EMPTY_ANSWERS: u8 = 3;

/// A half-open connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts; a set of flags would take as much room and say less"
)]
pub struct SynRcvd {
    /// Its name.
    pub tuple: Tuple,
    /// Link layer of what we send.
    pub l2: L2,
    /// When the SYN came.
    pub since: Time,
    /// The peer's initial sequence number.
    pub irs: SeqNum,
    /// Ours.
    pub iss: SeqNum,
    /// The peer's timestamp, if it sent one.
    pub ts_recent: Option<u32>,
    /// Number of the listener.
    pub listener: u16,
    /// The peer's MSS option; none is 0, which counts as none on the wire too.
    pub peer_mss: u16,
    /// The peer's window scale option.
    pub peer_scale: Option<u8>,
    /// The peer permits SACK.
    pub sack: bool,
    /// The peer asks for ECN, and the listener takes it.
    pub ecn: bool,
    /// How often the SYN-ACK was sent again.
    pub tries: u8,
    /// Empty segments out of place that were answered since then.
    pub answers: u8,
    /// The SYN-ACK was sent more than once: the handshake's round trip is unknown (Karn).
    pub repeated: bool,
    /// Segments of this handshake are traced.
    pub traced: bool,
}

/// What a segment does to a half-open connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum HalfVerdict {
    /// The same SYN again, or a segment that shows the SYN-ACK was lost: send it again.
    SynAckAgain,
    /// The handshake is complete: make a connection and give it the segment.
    Promote,
    /// Answer with an ACK of where we are.
    Ack,
    /// Answer with a RST of this sequence number; the record stays.
    Reset(SeqNum),
    /// The peer took it back: drop the record.
    Remove,
    /// Not used.
    Drop(DropReason),
}

impl SynRcvd {
    /// From a SYN for a listener.
    #[must_use]
    pub fn new(f: &TcpFrame, listener: u16, iss: SeqNum, cfg: &TcpConfig, now: Time) -> Self {
        let o = &f.header.options;
        Self {
            tuple: f.tuple,
            l2: f.l2.reply(),
            since: now,
            irs: f.header.seq,
            iss,
            ts_recent: o.timestamps.map(|t| t.val),
            listener,
            peer_mss: o.mss.unwrap_or(0),
            peer_scale: o.window_scale,
            sack: o.sack_permitted,
            ecn: ecn::asks(&f.header) && cfg.limits(listener).ecn,
            tries: 0,
            answers: 0,
            repeated: false,
            traced: false,
        }
    }

    /// The peer's MSS option.
    #[must_use]
    pub fn mss(&self) -> Option<u16> {
        (self.peer_mss != 0).then_some(self.peer_mss)
    }

    /// The window field of the SYN-ACK: never scaled (RFC 7323 §2.2).
    #[must_use]
    pub fn offered_window(&self, cfg: &TcpConfig) -> u32 {
        u32::from(cfg.syn_window(self.listener))
    }

    /// The SYN-ACK. Options are offered only where the peer offered them.
    #[must_use]
    pub fn syn_ack(&self, cfg: &TcpConfig, secret: &Secret, now: Time) -> Header {
        Header {
            seq: self.iss,
            ack: self.irs + 1,
            flags: Flags::SYN | Flags::ACK | if self.ecn { Flags::ECE } else { Flags::NONE },
            window: self.offered_window(cfg) as u16,
            options: Options {
                mss: Some(cfg.offered_mss(self.tuple.is_v4())),
                window_scale: self.peer_scale.map(|_| cfg.window_scale(self.listener)),
                sack_permitted: self.sack,
                timestamps: self.timestamps(secret, now),
                ..Options::default()
            },
        }
    }

    /// An ACK of where we are, for a segment that is out of place. Its window is scaled, as on every segment without
    /// SYN (RFC 7323 §2.2).
    #[must_use]
    pub fn ack(&self, cfg: &TcpConfig, secret: &Secret, now: Time) -> Header {
        Header {
            seq: self.iss + 1,
            ack: self.irs + 1,
            flags: Flags::ACK,
            window: (self.offered_window(cfg)
                >> self.peer_scale.map_or(0, |_| cfg.window_scale(self.listener))) as u16,
            options: Options { timestamps: self.timestamps(secret, now), ..Options::default() },
        }
    }

    fn timestamps(&self, secret: &Secret, now: Time) -> Option<Timestamps> {
        self.ts_recent.map(|ecr| Timestamps { val: ts_val(now, secret.ts_offset(&self.tuple)), ecr })
    }

    /// Judges a segment in the order of §3.10.7.4.
    pub fn on_segment(&self, h: &Header, payload: usize, cfg: &TcpConfig) -> HalfVerdict {
        let rcv_nxt = self.irs + 1;
        if h.flags.syn() && !h.flags.ack() && h.seq == self.irs {
            return HalfVerdict::SynAckAgain;
        }
        let edge = rcv_nxt + self.offered_window(cfg);
        let end = h.seq + h.seg_len(payload);
        let in_window = h.seq.before(edge) && (end.after(rcv_nxt) || h.seq == rcv_nxt);
        if h.flags.rst() {
            return match (h.seq == rcv_nxt, in_window) {
                (true, _) => HalfVerdict::Remove,
                (false, true) => HalfVerdict::Ack,
                (false, false) => HalfVerdict::Drop(DropReason::BadReset),
            };
        }
        match (self.ts_recent, h.options.timestamps) {
            // Once negotiated, timestamps are on every segment (RFC 7323 §3.2).
            (Some(_), None) if !h.flags.syn() => return HalfVerdict::Drop(DropReason::Paws),
            (Some(recent), Some(ts)) if ts.val.wrapping_sub(recent).cast_signed() < 0 => {
                return HalfVerdict::Ack;
            }
            (Some(_) | None, None | Some(_)) => {}
        }
        if !in_window || h.flags.syn() {
            // A SYN with another number is another attempt of the same peer: the ACK makes it reset the old one.
            return HalfVerdict::Ack;
        }
        if !h.flags.ack() {
            return HalfVerdict::Drop(DropReason::NoAck);
        }
        if h.ack != self.iss + 1 {
            return HalfVerdict::Reset(h.ack);
        }
        HalfVerdict::Promote
    }

    /// Whether a segment out of place, of this length, may be answered. An empty one needs no answer, for the SYN-ACK comes
    /// again anyway, and its sender may be one that answers as well (a SYN that landed at two workers leaves a half-open
    /// record behind, which meets the peer's `TIME_WAIT`): the two would go on until the record is given up.
    #[must_use]
    pub fn may_answer(&mut self, seg_len: u32) -> bool {
        let may = seg_len > 0 || self.answers < EMPTY_ANSWERS;
        self.answers += u8::from(may && seg_len == 0);
        may
    }

    /// The SYN came again: its timestamp is the newer one (RFC 7323 §4.3). Echoing the first would make the peer take
    /// its own wait for a round trip.
    pub fn syn_again(&mut self, h: &Header) {
        self.repeated = true;
        // Who asked for ECN and now does not has fallen back (RFC 3168 §6.1.1.1); it is not agreed on later.
        self.ecn &= ecn::asks(h);
        if let (Some(recent), Some(ts)) = (&mut self.ts_recent, h.options.timestamps)
            && ts.val.wrapping_sub(*recent).cast_signed() >= 0
        {
            *recent = ts.val;
        }
    }

    /// The SYN-ACK is due again: it is to be sent, and the wait before the next time; `None` to give up.
    #[must_use]
    pub fn on_timer(&mut self, cfg: &TcpConfig) -> Option<Duration> {
        if self.tries >= cfg.syn_retries {
            return None;
        }
        self.tries += 1;
        self.answers = 0;
        self.repeated = true;
        Some(SYN_ACK_RTO * (1 << self.tries.min(6)))
    }
}

#[cfg(test)]
mod tests;
