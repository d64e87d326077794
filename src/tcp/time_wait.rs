//! `TIME_WAIT`: the small record that outlives a connection for 2MSL (RFC 9293 §3.4.2, §3.10.7.4; RFC 1337; RFC 6191).
//!
//! It keeps what a late segment must be judged by, no more: the window is a constant, the timestamp offset comes from
//! the keyed hash, the link layer from the segment that is answered.

use super::conn::Live;
use super::isn::{Secret, ts_val};
use crate::time::Time;
use crate::wire::tcp::Timestamps;
use crate::wire::{Flags, Header, Options, SeqNum, Tuple};

/// What is advertised from `TIME_WAIT`. The receive side is over, so no byte will come; zero would make some peers
/// probe.
const WINDOW: u16 = u16::MAX;
/// How far a new incarnation's ISN lies above the old one's last number at least: one unscaled window, so that no
/// segment of the old one falls into it.
const ISN_GAP: u32 = 65_536;

/// The record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeWait {
    /// The pair of endpoints that is held.
    pub tuple: Tuple,
    /// One past our FIN.
    pub snd_nxt: SeqNum,
    /// One past the peer's FIN.
    pub rcv_nxt: SeqNum,
    /// The peer's last timestamp, if timestamps were in use.
    pub ts_recent: Option<u32>,
    /// Segments are traced.
    pub traced: bool,
}

/// How often a record has answered what is out of place in the present second. Like a connection's, the budget is the
/// record's own, so that nobody reads it by probing another (RFC 5961 §7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// The low 4 bits of the second.
    pub second: u8,
    /// How many there were in it, up to [`Answers::MOST`].
    pub given: u8,
}

impl Answers {
    /// As many as can be counted, and so given, in a second: 4 bits.
    pub const MOST: u8 = 15;

    /// Whether there may be one more in this second.
    #[must_use]
    pub fn take(&mut self, per_second: u8, now: Time) -> bool {
        let second = (now.millis() / 1000) as u8 & 0xf;
        if self.second != second {
            *self = Self { second, given: 0 };
        }
        let may = self.given < per_second.min(Self::MOST);
        self.given += u8::from(may);
        may
    }
}

/// What a segment does to a `TIME_WAIT` record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum WaitVerdict {
    /// The peer's FIN again: acknowledge and start 2MSL anew.
    AckAndRestart,
    /// Old or out of place: acknowledge, within the budget.
    Ack,
    /// A RST: ignored (RFC 1337 §3, fix F1).
    IgnoreReset,
    /// Nothing to answer.
    Ignore,
    /// A SYN that is newer: the pair may be used again, with an ISN not below this one.
    Reopen {
        /// Least initial sequence number of the new incarnation.
        iss_floor: SeqNum,
    },
}

impl TimeWait {
    /// What remains of a connection that entered the state.
    #[must_use]
    pub fn new(c: &Live<'_>) -> Self {
        Self {
            tuple: c.tuple(),
            snd_nxt: c.snd_max(),
            rcv_nxt: c.rcv_nxt(),
            ts_recent: c.ts_recent(),
            traced: c.flags.has(super::conn::ConnFlags::TRACED),
        }
    }

    /// Judges a segment.
    pub fn on_segment(&self, h: &Header, payload: usize) -> WaitVerdict {
        if h.flags.rst() {
            return WaitVerdict::IgnoreReset;
        }
        if h.flags.syn() {
            return if !h.flags.ack() && self.newer(h) {
                WaitVerdict::Reopen { iss_floor: self.snd_nxt + ISN_GAP }
            } else {
                WaitVerdict::Ack
            };
        }
        if !h.flags.ack() {
            return WaitVerdict::Ignore;
        }
        let stale = match (self.ts_recent, h.options.timestamps) {
            (Some(recent), Some(ts)) => ts.val.wrapping_sub(recent).cast_signed() < 0,
            (Some(_) | None, None) | (None, Some(_)) => false,
        };
        let end = h.seq + h.seg_len(payload);
        if h.flags.fin() && end == self.rcv_nxt && !stale {
            return WaitVerdict::AckAndRestart;
        }
        if h.seg_len(payload) == 0 && h.seq == self.rcv_nxt && h.ack == self.snd_nxt {
            return WaitVerdict::Ignore;
        }
        WaitVerdict::Ack
    }

    /// Whether a SYN belongs to a newer incarnation (RFC 6191 §2).
    fn newer(&self, h: &Header) -> bool {
        let beyond = h.seq.at_or_after(self.rcv_nxt);
        match (self.ts_recent, h.options.timestamps) {
            (Some(recent), Some(ts)) => {
                let age = ts.val.wrapping_sub(recent).cast_signed();
                age > 0 || (age == 0 && beyond)
            }
            (None, Some(_)) => true,
            (Some(_) | None, None) => beyond,
        }
    }

    /// The answer to what is acknowledged again.
    #[must_use]
    pub fn ack(&self, secret: &Secret, now: Time) -> Header {
        Header {
            seq: self.snd_nxt,
            ack: self.rcv_nxt,
            flags: Flags::ACK,
            window: WINDOW,
            options: Options {
                timestamps: self
                    .ts_recent
                    .map(|ecr| Timestamps { val: ts_val(now, secret.ts_offset(&self.tuple)), ecr }),
                ..Options::default()
            },
        }
    }
}

#[cfg(test)]
mod tests;
