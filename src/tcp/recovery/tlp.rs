//! The tail loss probe (RFC 8985 §7): when the last segments of a flight are lost, nothing comes behind them that could
//! show it. After about two round trips of silence one segment is sent that must be answered: new data where there is
//! some, else the last segment once more, be it a FIN alone. Its answer shows what is missing, a whole RTO earlier.
//!
//! ```text
//!  new data, or an ACK of some ──arm_probe──▶ loss_at ──due──▶ TAIL_PROBE ──next_tail_probe──▶ PROBED
//!                                              (the RTO begins anew)              on_probe_answer ──▶ nothing, or a reduction
//! ```
//!
//! It takes SACK: without, the answer says nothing of what lies before it (RFC 8985 §3).

use super::{AckNews, Phase};
use crate::tcp::conn::{ConnFlags, Live};
use crate::time::Time;
use crate::wire::{Header, SeqNum};
use std::time::Duration;

/// Least wait before a probe. Lower: what a peer's scheduler delays is probed for; higher: a loss on a short path is
/// found later.
const LEAST_WAIT: Duration = Duration::from_millis(10);
/// How long a peer may hold back the ACK of a lone segment (RFC 8985 §7.2, `TLP.max_ack_delay`). Deployed stacks wait
/// 40 ms; what waits longer is probed for in vain. A FIN is not waited for: it is acknowledged as it is read.
const ACK_DELAY: Duration = Duration::from_millis(50);
/// The wait before there is a round-trip time (RFC 8985 §7.2).
const UNMEASURED: Duration = Duration::from_secs(1);

impl Live<'_> {
    /// Whether a probe may be waited for: the connection has SACK, no loss is known or suspected, and no probe is out.
    pub(in crate::tcp) fn may_probe(&self) -> bool {
        self.flags.has(ConnFlags::SACK)
            && !self.flags.has(ConnFlags::PROBED)
            && self.flight.recovery.phase == Phase::Open
            && self.flight.scoreboard.is_empty()
            && !self.syn_unacknowledged()
            && self.snd_una.at_or_after(self.flight.recovery.recover)
            && self.in_flight() > 0
    }

    /// The wait for the probe begins anew: new data was sent, or some was acknowledged. Never beyond the RTO.
    pub(in crate::tcp) fn arm_probe(&mut self, now: Time) {
        self.conn.loss_at.set((now + self.probe_wait()).min(self.rtx_at.get()));
    }

    fn probe_wait(&self) -> Duration {
        let srtt = self.rtt.srtt();
        if srtt.is_zero() {
            return UNMEASURED;
        }
        let lone = self.in_flight() <= u32::from(self.mss) && !self.snd_max.after(self.data_end());
        (2 * srtt + if lone { ACK_DELAY } else { Duration::ZERO }).max(LEAST_WAIT)
    }

    /// The wait is over. The RTO begins anew: it stays the last resort, for the probe may be lost too.
    pub(in crate::tcp) fn probe_timeout(&mut self, now: Time) {
        self.flags.set(ConnFlags::TAIL_PROBE);
        self.conn.rtx_at.set(now + self.rtt.rto());
    }

    /// A probe went out that ends where sending stands now.
    pub(in crate::tcp) fn probe_sent(&mut self, again: bool) {
        self.flight.recovery.probe_end = self.snd_max;
        self.flags.set(ConnFlags::PROBED);
        self.flags.put(ConnFlags::PROBED_AGAIN, again);
    }

    /// What an ACK says about the probe (RFC 8985 §7.4.2). One that was sent again and found missing has repaired a loss
    /// that nobody else will notice: the window is reduced for it.
    pub(super) fn on_probe_answer(&mut self, h: &Header, news: AckNews) {
        let end = self.flight.recovery.probe_end;
        if !self.flags.has(ConnFlags::PROBED) || h.ack.before(end) {
            return;
        }
        if !self.flags.has(ConnFlags::PROBED_AGAIN) {
            self.flags.clear(ConnFlags::PROBED);
            return;
        }
        let twice = duplicate_block(h).is_some_and(|(_, e)| e == end);
        let bare = news.bare && news.acked == 0 && h.options.sack_blocks().is_empty();
        if twice || bare || h.ack.after(end) {
            self.flags.clear(ConnFlags::PROBED);
        }
        if !twice && h.ack.after(end) {
            self.reduce_for_probe();
        }
    }

    /// An RTO has passed since the probe's answer and nobody said that it came twice, as the peer would have at once.
    pub(in crate::tcp) fn conclude_probe(&mut self) {
        if self.flags.take(ConnFlags::PROBED) && self.flags.has(ConnFlags::PROBED_AGAIN) {
            self.reduce_for_probe();
        }
    }

    fn reduce_for_probe(&mut self) {
        let c = &mut self.flight.congestion;
        c.on_loss(c.window());
        c.set_window(c.threshold());
    }
}

/// The block that says what came twice (RFC 2883 §4): the first one, when it lies below the ACK or within the second.
pub(super) fn duplicate_block(h: &Header) -> Option<(SeqNum, SeqNum)> {
    let blocks = h.options.sack_blocks();
    let &(first, end) = blocks.first()?;
    let within = blocks.get(1).is_some_and(|&(a, b)| a.at_or_before(first) && end.at_or_before(b));
    (end.after(first) && (end.at_or_before(h.ack) || within)).then_some((first, end))
}
