//! The close record: who ended a connection, why, and how it went.
//!
//! One is made for every connection that was opened, when it enters `TIME_WAIT` or `CLOSED`. It is what the service
//! is told, what the close metrics are made of, and what answers "who closed, and why?".

use super::packed::Span;
use super::state::State;
use crate::time::Time;
use crate::wire::Tuple;
use std::time::Duration;

/// How a connection was closed, in one word: the `path` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ClosePath {
    /// The peer's FIN came first; we closed with nothing more to say.
    Passive,
    /// Our FIN went first; the peer closed with nothing more to say.
    Active,
    /// One side's FIN came first and the other went on sending data before its own.
    HalfClose,
    /// Both FINs crossed (through `CLOSING`).
    Simultaneous,
    /// A RST ended it, sent or received.
    Reset,
    /// A time limit ended it without both FINs acknowledged.
    Timeout,
}

impl ClosePath {
    /// All paths in counter order.
    pub const ALL: [Self; 6] =
        [Self::Passive, Self::Active, Self::HalfClose, Self::Simultaneous, Self::Reset, Self::Timeout];
    /// The value of the `path` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Passive => "passive",
            Self::Active => "active",
            Self::HalfClose => "half_close",
            Self::Simultaneous => "simultaneous",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
        }
    }
    /// Whether both sides' FINs were exchanged and acknowledged.
    #[must_use]
    pub const fn graceful(self) -> bool {
        match self {
            Self::Passive | Self::Active | Self::HalfClose | Self::Simultaneous => true,
            Self::Reset | Self::Timeout => false,
        }
    }
}

/// Who sent the first FIN or RST: the `first` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum First {
    /// This side.
    Us,
    /// The peer.
    Peer,
    /// Both, crossing.
    Both,
    /// Nobody: a limit ended it.
    Nobody,
}

impl First {
    /// All values in counter order.
    pub const ALL: [Self; 4] = [Self::Us, Self::Peer, Self::Both, Self::Nobody];
    /// The value of the `first` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Us => "us",
            Self::Peer => "peer",
            Self::Both => "both",
            Self::Nobody => "nobody",
        }
    }
}

/// Why the connection ended; the first cause stays: the `cause` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Cause {
    /// The peer sent the first FIN.
    Peer,
    /// Our service closed.
    Service,
    /// No data for the listener's idle limit.
    Idle,
    /// The worker was drained.
    Drain,
    /// Retransmissions unanswered for the give-up time, or all keep-alive probes.
    GiveUp,
    /// `FIN_WAIT_2` for longer than its limit with nobody reading.
    FinWait2Limit,
    /// The service kept the connection in `CLOSE_WAIT` beyond the limit.
    CloseWaitLimit,
    /// The lingering close reached its limit of bytes or time.
    LingerLimit,
    /// Closed with unread data (RFC 2525 §2.17).
    UnreadData,
    /// The peer sent data after we had closed for good.
    DataAfterClose,
    /// The peer sent RST.
    PeerReset,
    /// Our service aborted.
    Abort,
    /// An active open was refused, by RST or by a hard ICMP error.
    Refused,
    /// The peer answered but took nothing of what waited for it, for the listener's limit.
    ZeroWindow,
    /// An operator closed or aborted it.
    Operator,
}

impl Cause {
    /// All causes in counter order.
    pub const ALL: [Self; 15] = [
        Self::Peer,
        Self::Service,
        Self::Idle,
        Self::Drain,
        Self::GiveUp,
        Self::FinWait2Limit,
        Self::CloseWaitLimit,
        Self::LingerLimit,
        Self::UnreadData,
        Self::DataAfterClose,
        Self::PeerReset,
        Self::Abort,
        Self::Refused,
        Self::ZeroWindow,
        Self::Operator,
    ];
    /// The value of the `cause` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Service => "service",
            Self::Idle => "idle",
            Self::Drain => "drain",
            Self::GiveUp => "give_up",
            Self::FinWait2Limit => "fin_wait_2_limit",
            Self::CloseWaitLimit => "close_wait_limit",
            Self::LingerLimit => "linger_limit",
            Self::UnreadData => "unread_data",
            Self::DataAfterClose => "data_after_close",
            Self::PeerReset => "peer_reset",
            Self::Abort => "abort",
            Self::Refused => "refused",
            Self::ZeroWindow => "zero_window",
            Self::Operator => "operator",
        }
    }
}

/// Time spent in each closing state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClosingTimes {
    /// In `FIN_WAIT_1`.
    pub fin_wait_1: Duration,
    /// In `FIN_WAIT_2`.
    pub fin_wait_2: Duration,
    /// In `CLOSE_WAIT`.
    pub close_wait: Duration,
    /// In `CLOSING`.
    pub closing: Duration,
    /// In `LAST_ACK`.
    pub last_ack: Duration,
}

impl ClosingTimes {
    /// From the first FIN to the end.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.fin_wait_1 + self.fin_wait_2 + self.close_wait + self.closing + self.last_ack
    }
}

/// What is known so far of how a connection ends, as a live one keeps it: who was first, the cause, and what ended it if
/// it was not the close itself. Four bits each, 0 for nothing and else its number and one.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Ending(u16);

const _: () = assert!(First::ALL.len() < 16 && Cause::ALL.len() < 16 && ClosePath::ALL.len() < 16);

impl Ending {
    const FIRST: u16 = 0;
    const CAUSE: u16 = 4;
    const PATH: u16 = 8;

    fn part<T: Copy>(self, at: u16, all: &[T]) -> Option<T> {
        let number = usize::from(self.0 >> at & 0xf).checked_sub(1)?;
        all.get(number).copied()
    }

    fn put(&mut self, at: u16, number: u8) {
        self.0 = self.0 & !(0xf << at) | (u16::from(number) + 1) << at;
    }

    /// Who was first.
    pub(super) fn first(self) -> Option<First> {
        self.part(Self::FIRST, &First::ALL)
    }
    /// The cause.
    pub(super) fn cause(self) -> Option<Cause> {
        self.part(Self::CAUSE, &Cause::ALL)
    }
    /// What ended it: a RST or a limit; decides the path.
    pub(super) fn path(self) -> Option<ClosePath> {
        self.part(Self::PATH, &ClosePath::ALL)
    }
    /// This one was first.
    pub(super) fn set_first(&mut self, first: First) {
        self.put(Self::FIRST, first as u8);
    }
    /// This is the cause.
    pub(super) fn set_cause(&mut self, cause: Cause) {
        self.put(Self::CAUSE, cause as u8);
    }
    /// This ended it.
    pub(super) fn set_path(&mut self, path: ClosePath) {
        self.put(Self::PATH, path as u8);
    }
}

impl std::fmt::Debug for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", (self.first(), self.cause(), self.path()))
    }
}

/// Time spent in closing states, as a live connection keeps it. There are two at most, one after the other: `FIN_WAIT_1`
/// or `CLOSE_WAIT`, and then `FIN_WAIT_2`, `CLOSING` or `LAST_ACK`; which, the connection knows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ClosingSpans {
    first: Span,
    second: Span,
}

impl ClosingSpans {
    /// The time spent in a state, of the closing ones.
    pub(super) fn of(&mut self, state: State) -> Option<&mut Span> {
        match state {
            State::FinWait1 | State::CloseWait => Some(&mut self.first),
            State::FinWait2 | State::Closing | State::LastAck => Some(&mut self.second),
            State::Closed
            | State::Listen
            | State::SynSent
            | State::SynReceived
            | State::Established
            | State::TimeWait => None,
        }
    }

    /// As the close record shows it, of a connection whose peer closed first (`passive`), or whose FINs crossed.
    pub(super) fn times(self, passive: bool, crossed: bool) -> ClosingTimes {
        let (first, second) =
            (Duration::from_micros(self.first.micros()), Duration::from_micros(self.second.micros()));
        let mut times = ClosingTimes::default();
        if passive {
            (times.close_wait, times.last_ack) = (first, second);
        } else if crossed {
            (times.fin_wait_1, times.closing) = (first, second);
        } else {
            (times.fin_wait_1, times.fin_wait_2) = (first, second);
        }
        times
    }
}

/// How one connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseRecord {
    /// The connection.
    pub tuple: Tuple,
    /// Number of the listener in the configuration; `None` for one that was opened from here.
    pub listener: Option<u16>,
    /// When the handshake completed (or the active open began, if it never did).
    pub opened_at: Time,
    /// When it entered `TIME_WAIT` or `CLOSED`, or later, when its service had read what came before the peer's FIN.
    pub closed_at: Time,
    /// How.
    pub path: ClosePath,
    /// Who was first.
    pub first: First,
    /// Why.
    pub cause: Cause,
    /// How often our FIN was retransmitted.
    pub fin_retransmissions: u32,
    /// Where the time went.
    pub times: ClosingTimes,
    /// Bytes taken from the service and never acknowledged, sent or not.
    pub unacknowledged: u32,
    /// Payload bytes received in order.
    pub bytes_in: u64,
    /// Payload bytes sent and acknowledged.
    pub bytes_out: u64,
    /// Whether the record leaves a `TIME_WAIT` behind.
    pub time_wait: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ending_gives_back_what_was_put_into_it() {
        for path in ClosePath::ALL {
            for first in First::ALL {
                for cause in Cause::ALL {
                    let mut e = Ending::default();
                    assert_eq!((e.first(), e.cause(), e.path()), (None, None, None));
                    e.set_cause(Cause::ZeroWindow);
                    e.set_path(path);
                    e.set_first(first);
                    e.set_cause(cause);
                    assert_eq!((e.first(), e.cause(), e.path()), (Some(first), Some(cause), Some(path)));
                }
            }
        }
    }
}
