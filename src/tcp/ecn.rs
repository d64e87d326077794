//! Explicit congestion notification (RFC 3168): a router marks instead of dropping, the receiver says so in every ACK, and
//! the sender slows down as it would for a loss, without having lost anything.
//!
//! ```text
//!  data, ECT(0) ──▶ router: CE ──▶ received CE ──▶ ECE on every segment back ──▶ window reduced, once a window
//!                                     ▲                                              │
//!                                     └────── CWR on the next new data ◀─────────────┘
//! ```
//!
//! Agreed on in the handshake (§6.1.1): SYN with ECE and CWR, SYN-ACK with ECE alone. Anything else is no agreement, the
//! bits thrown back by a broken peer included. Only new data is marked ECT: what is sent again, probes, and whatever
//! carries no data would tell a router that a loss of it is noticed, and it is not (§6.1.4, §6.1.5, §6.1.6).

use super::conn::{ConnFlags, Live};
use super::output::Outgoing;
use super::recovery::Phase;
use crate::wire::{Flags, Header};

/// ECN field: an ECN-capable transport (§5). The other codepoint, ECT(1), has another meaning by now (RFC 9331).
pub const ECT_0: u8 = 0b10;
/// ECN field: congestion experienced.
pub const CE: u8 = 0b11;

/// The two bits of a SYN that ask for ECN (§6.1.1); SYN-ACKs with both are SYNs that were thrown back.
pub(super) const SETUP: Flags = Flags::from_bits(Flags::ECE.bits() | Flags::CWR.bits());

/// What the ECN bits of a segment said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Marks {
    /// A router marked it.
    pub experienced: bool,
    /// The peer heard of a mark on what was sent from here.
    pub echoed: bool,
}

/// Whether a SYN asks for ECN.
#[must_use]
pub fn asks(h: &Header) -> bool {
    h.flags.syn() && !h.flags.ack() && h.flags.has(SETUP)
}

impl Live<'_> {
    /// The answer to the SYN that was sent from here: ECN only if it is the one SYN that was sent that asked for it, and the
    /// answer is ECE alone (§6.1.1, §6.1.1.1).
    pub(super) fn take_ecn_answer(&mut self, h: &Header) {
        let asked = self.flags.take(ConnFlags::ECN_ASKED);
        if asked && h.flags.ack() && h.flags.has(Flags::ECE) && !h.flags.has(Flags::CWR) {
            self.flags.set(ConnFlags::ECN);
        }
    }

    /// Takes the ECN bits of a segment that was accepted; `field` is that of the IP header. A mark on what is outside of
    /// the window says nothing about this connection's path (§6.1.5), so that forged segments slow nobody down.
    pub fn note_marks(&mut self, field: u8, h: &Header, payload: usize) -> Marks {
        if !self.flags.has(ConnFlags::ECN) || h.flags.syn() {
            return Marks::default();
        }
        // First the answer to the last echo: the very segment that brings it may be marked again (§6.1.3).
        if h.flags.has(Flags::CWR) {
            self.flags.clear(ConnFlags::ECN_ECHO);
        }
        let experienced = field & CE == CE && payload > 0;
        if experienced {
            self.flags.set(ConnFlags::ECN_ECHO);
        }
        Marks { experienced, echoed: h.flags.has(Flags::ECE) }
    }

    /// Whether this acknowledgment echoes a mark.
    pub(super) fn echoes(&self, h: &Header) -> bool {
        self.flags.has(ConnFlags::ECN) && h.flags.has(Flags::ECE) && !h.flags.syn()
    }

    /// An acceptable acknowledgment echoes a mark; `flight` bytes were out before it. The window is reduced once for a
    /// window of data (§6.1.2): a loss in the same one has reduced it already, and is answered by CWR all the same.
    pub(super) fn on_echo(&mut self, h: &Header, flight: u32) {
        if !h.ack.after(self.flight.ecn_point) {
            return;
        }
        self.flight.ecn_point = self.snd_max;
        self.flags.set(ConnFlags::ECN_REDUCED);
        if self.flight.recovery.phase == Phase::Open && h.ack.after(self.flight.recovery.recover) {
            self.flight.congestion.on_ecn(flight);
        }
    }

    /// Puts the bits into a segment that is about to go, all but those of a SYN.
    pub(super) fn mark(&mut self, out: &mut Outgoing) {
        if !self.flags.has(ConnFlags::ECN) || out.header.flags.syn() {
            return;
        }
        let flags = &mut out.header.flags;
        if self.flags.has(ConnFlags::ECN_ECHO) {
            *flags = *flags | Flags::ECE;
        }
        // On new data only: it arrives, or its loss is noticed (§6.1.2).
        if out.len > 0 && out.retransmission.is_none() && self.flags.take(ConnFlags::ECN_REDUCED) {
            *flags = *flags | Flags::CWR;
        }
    }

    /// The ECN field of the IP header of a segment.
    #[must_use]
    pub fn ecn_field(&self, out: &Outgoing) -> u8 {
        let new_data = out.len > 0 && out.retransmission.is_none();
        if new_data && self.flags.has(ConnFlags::ECN) { ECT_0 } else { 0 }
    }
}
