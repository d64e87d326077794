//! The receive window: how much is offered, how that grows, and when the peer hears of it (RFC 9293 §3.8.6, RFC 7323 §2).
//!
//! ```text
//!  taken by the service per round trip ──right_size──▶ rcv_space ──┐
//!  what is left in the worker's pool ───────────────── share ──────┴─min─▶ right edge ──▶ window field
//! ```
//!
//! A window is a promise of memory that most connections never call in. So it begins modest and follows the measured
//! rate of delivery: three times what the service took within a round trip, so that a sender whose window doubles finds
//! room (dynamic right-sizing, Fisk and Feng 2001; Linux has the same). It never falls again by itself; but as the pool
//! empties, a connection's share of it does, and then the right edge stays where it is while data moves the left one.
//! The edge is never taken back.

use super::conn::{ConnFlags, Env, Live};
use super::recvbuf::OOO_OVERHEAD;
use std::time::Duration;

/// Segments whose room is offered however little is left in the pool: a service that reads at once needs no chunk.
///
/// Higher: more comes than can be kept from peers of services that do not read, and has to come again. Lower: a sender
/// cannot fill the round trip, or find a loss by three duplicates.
const LEAST_SEGMENTS: u32 = 4;

/// Window by the rate of a round trip. A sender in slow start doubles, and the look at the rate is up to a round trip old:
/// with twice the rate it is held back by this window, and then its own does not grow. Higher: more is promised.
const RATE_FACTOR: u32 = 3;

/// Segments beyond the rate: what a sender adds while the window's news is on its way.
const SPARE_SEGMENTS: u32 = 16;

/// Round trip that is assumed where none was measured (after a cookie, before anything of ours was acknowledged). Longer:
/// the window grows for slower senders than it need; shorter: later.
const ASSUMED_RTT: Duration = Duration::from_millis(100);

impl Live<'_> {
    /// Bytes that may be unread now: what is offered.
    fn receive_limit(&self, env: &Env<'_>) -> u32 {
        let share = env.pool.share(self.flight.rcvbuf.held(), self.rcv_space as usize) as u32;
        share.max(LEAST_SEGMENTS * u32::from(self.mss)).min(self.rcv_space)
    }

    /// Bytes in order that may be kept now: what was offered may have been more, of a pool that had more.
    fn keep_limit(&self, env: &Env<'_>) -> usize {
        // Less than one unit of the scale may have been offered beyond it.
        env.pool.share(self.flight.rcvbuf.held(), self.rcv_space as usize + (1 << self.scales.rcv()))
    }

    /// Bytes of the pool that may hold what is beyond a gap.
    pub(super) fn ooo_limit(&self, env: &Env<'_>) -> usize {
        env.pool.share(self.flight.rcvbuf.memory_ooo(), self.rcv_space as usize * OOO_OVERHEAD)
    }

    /// Keeps in-order bytes the service did not consume. Returns how many the connection's share of the pool had room
    /// for, and how many bytes beyond a gap were given up for them: those come again (RFC 2018 §8), while without these
    /// nothing goes on.
    #[must_use]
    pub fn keep(&mut self, env: &mut Env<'_>, bytes: &[u8]) -> (usize, usize) {
        if bytes.is_empty() {
            return (0, 0);
        }
        let mut kept = self.keep_within_share(env, bytes);
        let beyond = self.flight.rcvbuf.buffered_ooo();
        if kept == bytes.len() || beyond == 0 {
            return (kept, 0);
        }
        self.flight.rcvbuf.discard_ooo(env.pool);
        self.flags.set(ConnFlags::ACK_NOW);
        kept += self.keep_within_share(env, &bytes[kept..]);
        (kept, beyond)
    }

    fn keep_within_share(&mut self, env: &mut Env<'_>, bytes: &[u8]) -> usize {
        let held = self.flight.rcvbuf.held();
        let room = self.keep_limit(env).saturating_sub(held).min(bytes.len());
        self.flight.rcvbuf.append(env.pool, &bytes[..room])
    }

    /// Follows the rate at which the service takes what arrives: looked at once a round trip. While the pool is short,
    /// nothing grows.
    pub(super) fn right_size(&mut self, env: &Env<'_>) {
        let most = env.cfg.receive_most(self.service);
        if self.rcv_space >= most {
            return;
        }
        // 32 bits of microseconds wrap in 71 minutes: a rest that long may make this look a round trip later.
        let now = env.now.micros() as u32;
        let rtt = if self.rtt.srtt().is_zero() { ASSUMED_RTT } else { self.rtt.srtt() };
        if u128::from(now.wrapping_sub(self.space_at)) < rtt.as_micros() {
            return;
        }
        let taken_to = self.rcv_nxt - self.flight.rcvbuf.unread() as u32;
        let taken = taken_to.bytes_since(self.space_seq);
        self.space_at = now;
        self.space_seq = taken_to;
        let wanted = taken.saturating_mul(RATE_FACTOR).saturating_add(SPARE_SEGMENTS * u32::from(self.mss));
        let share = env.pool.share(self.flight.rcvbuf.held(), most as usize) as u32;
        self.rcv_space = self.rcv_space.max(wanted.min(share));
    }

    /// The window field: how far the right edge is from `rcv_nxt`. The edge moves only right, and only by a worthwhile
    /// step (§3.8.6.2.2).
    pub(super) fn advertise(&mut self, env: &Env<'_>) -> u16 {
        let most = self.receive_limit(env);
        let free = most.saturating_sub(self.flight.rcvbuf.unread() as u32);
        let limit = u32::from(u16::MAX) << self.scales.rcv();
        let scaled = (free.min(limit) >> self.scales.rcv()) << self.scales.rcv();
        let candidate = self.rcv_nxt + scaled;
        let step = (most / 2).min(u32::from(self.mss));
        if candidate.after(self.rcv_adv) && candidate - self.rcv_adv >= step {
            self.rcv_adv = candidate;
        }
        // An edge that was promised at another offset is no multiple of the scale from here. Rounded up, so that it does
        // not move left, and kept, so that what is sent into it is taken; but only once beyond the buffer, or small
        // segments would push it on for ever. Then it is rounded down, which RFC 7323 §2.4 allows for.
        let promised = self.rcv_adv.bytes_since(self.rcv_nxt);
        let rounding = (1 << self.scales.rcv()) - 1;
        let up = (promised + rounding) & !rounding;
        let shown = if up <= free + rounding { up } else { promised & !rounding };
        self.rcv_adv = self.rcv_adv.max(self.rcv_nxt + shown);
        (shown >> self.scales.rcv()).min(u32::from(u16::MAX)) as u16
    }

    /// The service read: if the window the peer sees is small and could now be much larger, it must hear of it.
    pub(super) fn maybe_update_window(&mut self, env: &Env<'_>) {
        let most = self.receive_limit(env);
        // What the field cannot say is no news.
        let limit = u32::from(u16::MAX) << self.scales.rcv();
        let free = most.saturating_sub(self.flight.rcvbuf.unread() as u32).min(limit);
        let seen = self.rcv_adv.bytes_since(self.rcv_nxt);
        let worth = (2 * u32::from(self.mss)).min(most / 2);
        if self.state().can_receive() && seen < most / 2 && free >= seen + worth {
            self.flags.set(ConnFlags::ACK_NOW);
        }
    }
}
