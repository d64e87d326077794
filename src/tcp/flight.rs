//! What a connection needs only while something is on its way, kept, lost, or lingering: a [`Flight`] is lent to it for as
//! long, so that the record of one at rest is small.
//!
//! ```text
//!  Conn at rest ──lend: Flight::of──▶ Conn + Flight = Live ──segments, timers, calls──▶ Flight::standing
//!        ▲                                                                                 │
//!        └────────── lay_down: what must be kept goes back into the record ◀── at rest ────┤
//!                                    stays lent until there is nothing more ◀── busy ──────┘
//! ```
//!
//! [`Flight::of`] makes from a record at rest what was laid down, and nothing is lost in between: what is not kept has a
//! value that follows from the record. Three things do not, and they last for one RTO after everything is acknowledged
//! ([`Standing::Remembers`]): the stage of growth that CUBIC is in, which sending after such a pause begins anew anyway
//! (RFC 5681 §4.1), the wait for a D-SACK of what was sent again, and that for what became of a tail loss probe.

use super::congestion::{Algorithm, Congestion};
use super::conn::{Conn, ConnFlags};
use super::path::Suspicion;
use super::recovery::Recovery;
use super::recvbuf::RecvBuf;
use super::sack::Scoreboard;
use super::sendbuf::SendBuf;
use crate::time::Time;
use crate::wire::SeqNum;

/// The working part of a connection.
///
/// Holds chunks of a pool while it is busy: it is laid down, or the connection is released, before it is dropped.
#[derive(Debug)]
pub struct Flight {
    pub(super) sndbuf: SendBuf,
    pub(super) rcvbuf: RecvBuf,
    pub(super) scoreboard: Scoreboard,
    pub(super) recovery: Recovery,
    pub(super) congestion: Congestion,
    pub(super) ack_at: Time,
    /// When a larger segment is tried again, on a path that did not take it.
    pub(super) raise_at: Time,
    pub(super) suspicion: Suspicion,
    /// When a lingering close ends.
    pub(super) linger_until: Time,
    /// Next to send; goes back to `snd_una` after a timeout without SACK.
    pub(super) snd_nxt: SeqNum,
    pub(super) last_ack_sent: SeqNum,
    /// Highest sequence number sent when the window was last reduced for an echoed mark.
    pub(super) ecn_point: SeqNum,
    /// Begin of the segment that was last received out of order: its range is the first SACK block.
    pub(super) sack_latest: SeqNum,
    /// What came twice and is to be reported (RFC 2883); empty for nothing.
    pub(super) twice: (SeqNum, SeqNum),
    /// `TSval` of the latest retransmission.
    pub(super) rtx_ts: u32,
    /// Bytes a lingering close has discarded.
    pub(super) discarded: u32,
    /// From the SYN to the acknowledgment of our SYN-ACK, in microseconds; for the visit in which that came.
    pub(super) handshake_us: u32,
    /// The segment size that was agreed on in the handshake.
    pub(super) mss_agreed: u16,
    /// Full segments received since the last ACK.
    pub(super) unacked_segments: u8,
}

/// Whether a flight can be given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Standing {
    /// It can: the record says all.
    AtRest,
    /// Something is kept, or on its way, that the record has no room for.
    Busy,
    /// All is acknowledged, and what is remembered is forgotten after an RTO.
    Remembers,
}

impl Flight {
    /// The working part of a connection that is at rest.
    #[must_use]
    pub fn of(c: &Conn) -> Self {
        let una = c.snd_una;
        Self {
            sndbuf: SendBuf::default(),
            rcvbuf: RecvBuf::default(),
            scoreboard: Scoreboard::default(),
            recovery: Recovery::resume(una, c.flags.has(ConnFlags::RECOVER_HERE), c.patience),
            congestion: congestion(c),
            ack_at: Time::NEVER,
            raise_at: Time::NEVER,
            suspicion: Suspicion::NONE,
            linger_until: Time::NEVER,
            snd_nxt: c.snd_max,
            last_ack_sent: c.rcv_nxt,
            ecn_point: if c.flags.has(ConnFlags::ECN_POINT_HERE) { una } else { una - 1 },
            sack_latest: c.rcv_nxt,
            twice: (una, una),
            rtx_ts: 0,
            discarded: 0,
            handshake_us: 0,
            mss_agreed: c.mss,
            unacked_segments: 0,
        }
    }

    /// Whether something waits for its acknowledgment, or to be sent.
    #[must_use]
    pub fn has_to_send(&self) -> bool {
        !self.sndbuf.is_empty()
    }

    /// The peer's options, by which the record went, came only now.
    pub(super) fn follow_options(&mut self, c: &Conn) {
        self.congestion = congestion(c);
        self.mss_agreed = c.mss;
    }

    /// Whether the connection could do without it now.
    pub fn standing(&self, c: &Conn) -> Standing {
        const BUSY: u64 = ConnFlags::LINGER
            | ConnFlags::TAIL_PROBE
            | ConnFlags::REO_WAIT
            | ConnFlags::UNDO
            | ConnFlags::NEW_FIRST
            | ConnFlags::RETRANSMIT;
        let holds = !(self.sndbuf.is_empty() && self.rcvbuf.is_empty() && self.scoreboard.is_blank());
        let owes_ack = self.last_ack_sent != c.rcv_nxt
            || self.ack_at != Time::NEVER
            || self.unacked_segments > 0
            || self.twice.1.after(self.twice.0);
        let sends_again = self.snd_nxt != c.snd_max || !self.recovery.at_rest(c.snd_una, c.snd_max);
        let narrow_path = self.mss_agreed != c.mss || self.raise_at != Time::NEVER;
        let reduced = self.ecn_point.after(c.snd_una);
        let probed = c.flags.has(ConnFlags::PROBED);
        let probes = probed && c.in_flight() > 0;
        if holds || owes_ack || sends_again || narrow_path || reduced || probes || c.flags.has(BUSY) {
            Standing::Busy
        } else if probed || self.congestion.in_growth() || self.recovery.reordering.awaits_report() {
            Standing::Remembers
        } else {
            Standing::AtRest
        }
    }

    /// Puts what must be kept into the record. [`Standing::AtRest`] says when that is all.
    pub fn lay_down(&self, c: &mut Conn) {
        c.resting = self.congestion.rest();
        c.patience = self.recovery.reordering.patience();
        c.flags.put(ConnFlags::RECOVER_HERE, self.recovery.recover == c.snd_una);
        c.flags.put(ConnFlags::ECN_POINT_HERE, self.ecn_point == c.snd_una);
    }

    /// An RTO has passed with nothing in flight.
    pub(super) fn forget(&mut self) {
        self.congestion.on_unused();
        self.recovery.reordering.give_up_report();
    }
}

fn congestion(c: &Conn) -> Congestion {
    let algorithm = if c.flags.has(ConnFlags::NEW_RENO) { Algorithm::NewReno } else { Algorithm::Cubic };
    Congestion::resume(algorithm, c.mss, &c.resting)
}
