//! The path: how large a segment it takes, and what ICMP says about it (RFC 1191, RFC 8201, RFC 5927).
//!
//! Two things lower the segment size: a router that says so, quoting a segment in flight, and silence, when full
//! segments time out again and again where smaller ones may pass (RFC 4821 §7.7, without its search). Either is
//! forgotten after ten minutes, when the negotiated size is tried again. A path that loses small segments too gets its
//! full ones back before: then it was not the size. What was in flight is then sent again at once
//! in the new size; the window stays, for a segment that was too large says nothing of congestion (RFC 1191 §6.5).
//!
//! What is learnt holds for the connection alone: there is no cache of paths that a forgery could poison for others.

use super::conn::{Env, Live};
use super::record::{Cause, ClosePath};
use super::recovery::Undo;
use super::state::{Event, State};
use crate::time::Time;
use crate::wire::SeqNum;
use std::time::Duration;

/// After this long a larger segment is tried again (RFC 1191 §6.3, RFC 8201 §4: 10 minutes). Lower: a segment is lost
/// more often on paths that stay narrow; higher: a path that became wider is used later.
const RAISE_AFTER: Duration = Duration::from_secs(600);
/// The least packet size in bytes that an IPv4 path is believed to have, after RFC 791 §3.1, which every host takes.
/// The true minimum of 68 would let a forged message make every byte of data cost a packet (RFC 5927 §7.2).
const V4_FLOOR: u16 = 576;
/// What every IPv6 link carries (RFC 8200 §5); a message that names less is discarded (RFC 8201 §4).
const V6_FLOOR: u16 = 1280;
/// What every IPv4 link carries (RFC 791 §3.2): a message that names less is no message of a router.
const V4_LEAST: u32 = 68;
/// Packet sizes in bytes that links have (RFC 1191 §7, table 7-1), for routers that name none. Below the floor there is
/// no need for more.
const PLATEAUS: [u16; 8] = [32_000, 17_914, 8166, 4352, 2002, 1492, 1006, V4_FLOOR];
/// Packet sizes in bytes that are tried on a path that swallows full segments: what tunnels and every IPv6 link
/// leave, what RFC 4821 §7.2 begins with, the floor. IPv6 ends with the first.
const BLACK_HOLE_STEPS: [u16; 3] = [V6_FLOOR, 1024, V4_FLOOR];
/// Timeouts of one full segment from which each takes a step down: R1 of RFC 9293 §3.8.3, from which on the path itself
/// is in doubt. Fewer: lost segments make all later ones smaller; more: the connection stands still for longer.
const BLACK_HOLE_TIMEOUTS: u8 = 3;
/// Losses of smaller segments after which full ones are tried again: so many at first, twice as many each time the full ones
/// fall silent again, at most [`MOST_ACQUITTALS`]. Lower: a path that swallows full segments and loses some of the small ones
/// stands still for three timeouts more often; higher: a path that loses a tenth of whatever is sent carries small segments
/// for longer.
const ACQUITTALS: u8 = 1;
const MOST_ACQUITTALS: u8 = 8;
/// Options beside the payload that the packet of a quoted segment can have had, in bytes.
const MOST_OPTIONS: u32 = 40;

/// Whether the size of segments was lowered because of silence, and what speaks for the path since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Suspicion {
    /// It was.
    holds: bool,
    /// Timeouts of smaller segments since, each after something had been acknowledged.
    small_losses: u8,
    /// So many of them show that size is not the matter.
    enough: u8,
}

impl Suspicion {
    /// Nothing speaks against the path.
    pub(super) const NONE: Self = Self { holds: false, small_losses: 0, enough: ACQUITTALS };

    /// The size is lowered.
    fn raise(&mut self) {
        (self.holds, self.small_losses) = (true, 0);
    }

    /// The size is what was agreed on again.
    fn drop(&mut self) {
        self.holds = false;
    }

    /// A smaller segment was lost. Returns whether it was not the size.
    fn small_loss(&mut self) -> bool {
        self.small_losses += 1;
        if self.small_losses < self.enough {
            return false;
        }
        self.enough = self.enough.saturating_mul(2).min(MOST_ACQUITTALS);
        true
    }
}

impl Live<'_> {
    fn headers(&self) -> u16 {
        if self.is_v4() { 40 } else { 60 }
    }

    fn floor(&self) -> u16 {
        if self.is_v4() { V4_FLOOR } else { V6_FLOOR }
    }

    /// A router could not pass on the segment at `seq`, which is in flight; `mtu` is what it says its next link takes, 0
    /// for nothing. Returns whether it was believed; there is then something to send.
    #[must_use]
    pub fn packet_too_big(&mut self, env: &mut Env<'_>, seq: SeqNum, mtu: u32) -> bool {
        if !self.state().synchronized() {
            // A SYN is no large packet.
            return false;
        }
        let size = self.mss + self.headers();
        let mtu = match u16::try_from(mtu) {
            Ok(0) if self.is_v4() => PLATEAUS.iter().copied().find(|&p| p < size).unwrap_or(size),
            Ok(m) if self.is_v4() && u32::from(m) < V4_LEAST => return false,
            Ok(m) if !self.is_v4() && m < V6_FLOOR => return false,
            Ok(m) => m.max(self.floor()),
            Err(_) => return false,
        };
        // The segment cannot have been larger than what was sent from there on: one that fits was not refused.
        let largest = (self.snd_max - seq) + MOST_OPTIONS + u32::from(self.headers());
        if mtu >= size || largest <= u32::from(mtu) {
            return false;
        }
        // Now the size is known, not guessed.
        self.flight.suspicion.drop();
        self.shrink(env, mtu);
        true
    }

    /// The first segment timed out. When it was full, and this is not the first time, the path may swallow its size in
    /// silence: the next smaller one is tried.
    pub(super) fn suspect_black_hole(&mut self, env: &mut Env<'_>) {
        if self.flight.suspicion.holds && self.rtt.timeouts() == 1 && self.flight.suspicion.small_loss() {
            self.try_larger();
            return;
        }
        let size = self.mss + self.headers();
        // Timestamps may take 12 of it.
        let full = self.flight.sndbuf.len().min(self.in_flight() as usize) + 12 >= usize::from(self.mss);
        // Who closes the window answers; who agreed on no more than what every IPv6 link carries knows of a narrow one.
        let suspicious = self.snd_wnd > 0 && self.flight.mss_agreed + self.headers() > V6_FLOOR;
        if !full || !suspicious || self.rtt.timeouts() < BLACK_HOLE_TIMEOUTS {
            return;
        }
        let floor = self.floor();
        // A step of a few bytes would try nothing.
        if let Some(step) = BLACK_HOLE_STEPS.into_iter().find(|&s| s <= size - size / 8 && s >= floor) {
            self.shrink(env, step);
            self.flight.suspicion.raise();
        }
    }

    /// Segments of packets of `mtu` bytes from now on, and everything in flight again.
    fn shrink(&mut self, env: &mut Env<'_>, mtu: u16) {
        self.mss = mtu.saturating_sub(self.headers()).max(super::config::MIN_MSS).min(self.mss);
        self.flight.raise_at = env.now + RAISE_AFTER;
        self.flight.congestion.set_mss(self.mss);
        // What is sent again for its size is no loss, and its duplicates mean none.
        self.lose_all(env, Undo::default());
    }

    /// Ten minutes have passed, or it was not the size: what was agreed on is tried again.
    pub(super) fn try_larger(&mut self) {
        self.flight.suspicion.drop();
        self.flight.raise_at = Time::NEVER;
        self.mss = self.flight.mss_agreed;
        self.flight.congestion.set_mss(self.mss);
    }

    /// A hard ICMP error about our SYN: nobody is there. It ends an attempt to open, as RFC 1122 §4.2.3.9 has it; a
    /// connection that was open once, or whose SYN was answered, is never ended by one (RFC 5927 §5.2), and soft errors
    /// end nothing at all: the SYN's own retries do. Returns whether it ended.
    #[must_use]
    pub fn unreachable(&mut self, env: &mut Env<'_>) -> bool {
        if self.state() != State::SynSent {
            return false;
        }
        self.end(Event::Limit, ClosePath::Timeout, Cause::Refused, env);
        true
    }
}
