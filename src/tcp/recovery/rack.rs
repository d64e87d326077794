//! What is lost, by the order of sending and by time (RFC 8985 §6).
//!
//! A segment is lost when one that was sent later has arrived, and reordering has had its time. What is sent for the
//! first time goes out in the order of its numbers, so that what lies below the highest byte that the peer has was
//! overtaken; what was sent again is watched by the journal ([`resent`](crate::tcp::resent)). No time of sending is kept
//! with a segment: the time for reordering begins when an ACK shows that something was overtaken, which is later than by
//! the RFC by as much as the two were sent apart. It runs for all that was overtaken by then; what is overtaken meanwhile
//! waits for the next such time.
//!
//! | reordering | before recovery | in recovery |
//! |---|---|---|
//! | never seen | three ACKs with news, or a quarter of the round trip | at once |
//! | seen | a quarter of the least round trip, more after each D-SACK | the same |

use super::{AckNews, Env, Live, Phase, Prr};
use crate::tcp::conn::ConnFlags;
use crate::tcp::resent::Evidence;
use crate::tcp::sack::DUP_THRESHOLD;
use crate::time::Time;
use crate::wire::{Header, SeqNum};
use std::time::Duration;

/// Recoveries without a D-SACK after which the time for reordering is the least again (RFC 8985 §6.2, step 4).
const PERSIST: u8 = 16;

/// The least time for reordering: a tick of the timers. Lower: on a short path two segments of one burst that arrive
/// swapped are a loss.
const LEAST_TIME: Duration = Duration::from_millis(1);

/// How much time reordering is given: what a connection at rest keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tcp) struct ReorderingPatience {
    /// Quarters of the least round trip (`RACK.reo_wnd_mult`).
    quarters: u8,
    /// Recoveries that `quarters` lasts for.
    persist: u8,
}

impl ReorderingPatience {
    /// Before anything came out of order.
    pub(in crate::tcp) const LEAST: Self = Self { quarters: 1, persist: 0 };
}

/// The time that reordering is given, and what it runs for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tcp) struct Reordering {
    patience: ReorderingPatience,
    /// What was sent again last was so for being overtaken: its D-SACK means reordering, where that of a timeout means lost
    /// ACKs.
    overtaken: bool,
    /// A D-SACK counts again when all below this is acknowledged (`RACK.dsack_round`).
    round: SeqNum,
    /// What lies below this was overtaken when the time began.
    edge: SeqNum,
}

impl Reordering {
    pub(super) fn new(iss: SeqNum) -> Self {
        Self::resume(iss, ReorderingPatience::LEAST)
    }

    /// Of a connection that was at rest.
    pub(super) fn resume(una: SeqNum, patience: ReorderingPatience) -> Self {
        Self { patience, overtaken: false, round: una, edge: una }
    }

    /// Whether there is nothing to be kept but the patience; a late D-SACK is not waited for.
    pub(super) fn at_rest(&self, una: SeqNum, max: SeqNum) -> bool {
        !self.in_round(una, max)
    }

    /// What a connection at rest keeps.
    pub(in crate::tcp) const fn patience(&self) -> ReorderingPatience {
        self.patience
    }

    /// Whether a D-SACK may still say that what was sent again need not have been.
    pub(in crate::tcp) const fn awaits_report(&self) -> bool {
        self.overtaken
    }

    /// Such a D-SACK is not waited for any more.
    pub(in crate::tcp) const fn give_up_report(&mut self) {
        self.overtaken = false;
    }

    fn in_round(&self, una: SeqNum, max: SeqNum) -> bool {
        una.before(self.round) && self.round.at_or_before(max)
    }

    /// Segments go again from now on, for being overtaken or for another reason.
    pub(super) fn again(self, overtaken: bool) -> Self {
        Self { overtaken, ..self }
    }

    /// A recovery is over.
    pub(super) fn recovered(&mut self) {
        self.patience.persist = self.patience.persist.saturating_sub(1);
        if self.patience.persist == 0 {
            self.patience.quarters = 1;
        }
    }

    /// Something was sent again in vain: more time from now on, once a round trip.
    fn widen(&mut self, una: SeqNum, max: SeqNum) {
        if self.in_round(una, max) {
            return;
        }
        self.round = max;
        self.patience.quarters = self.patience.quarters.saturating_add(1);
        self.patience.persist = PERSIST;
    }
}

impl Live<'_> {
    /// How long reordering may take (`RACK_update_reo_wnd`): at most a round trip, or what the timers can tell.
    fn reordering_time(&self) -> Duration {
        let quarters = u32::from(self.flight.recovery.reordering.patience.quarters);
        (self.rtt.least() / 4 * quarters).min(self.rtt.srtt()).max(LEAST_TIME)
    }

    /// Something was acknowledged that others had overtaken, and had been sent once only.
    pub(super) fn notice_reordering(&mut self, news: AckNews) {
        let una_was = self.snd_una - news.acked;
        // A gap at the front, and it closed by itself.
        let closed = news.acked > 0 && news.noted > 0;
        if closed
            && self.flight.recovery.phase == Phase::Open
            && una_was.at_or_after(self.flight.recovery.high_rxt)
            && !self.flags.has(ConnFlags::PROBED)
        {
            self.flags.set(ConnFlags::REORDERED);
        }
    }

    /// A D-SACK of what was sent again says that it need not have been.
    pub(super) fn on_duplicate_report(&mut self, h: &Header) {
        let Some((first, end)) = super::tlp::duplicate_block(h) else { return };
        let (c, r) = (&mut *self.conn, &mut self.flight.recovery);
        let probe = end == r.probe_end;
        let ours = r.reordering.overtaken && first.before(r.high_rxt) && r.high_rxt.at_or_before(c.snd_max);
        if c.flags.has(ConnFlags::SACK) && ours && !probe && !r.missed {
            c.flags.set(ConnFlags::REORDERED);
            r.reordering.widen(c.snd_una, c.snd_max);
        }
    }

    /// Outside of recovery: begins one when something is lost, or gives it time.
    pub(super) fn look_for_loss(&mut self, env: &mut Env<'_>, delivered: u32) {
        let Some(highest) = self.flight.scoreboard.highest(env.pool) else { return };
        if self.snd_una.before(self.flight.recovery.recover) {
            return;
        }
        let many = self.flight.recovery.dup_acks >= DUP_THRESHOLD
            || self
                .flight
                .scoreboard
                .lost_edge(env.pool, self.snd_una, u32::from(self.mss))
                .after(self.snd_una);
        if many && !self.flags.has(ConnFlags::REORDERED) {
            self.enter_recovery(env, highest, delivered);
        } else {
            self.flight.recovery.lost_edge = self.snd_una;
            self.await_order(env);
        }
    }

    /// In recovery: moves on the edge below which all is lost, and looks through what was sent again.
    pub(super) fn review_losses(&mut self, env: &mut Env<'_>) {
        let una = self.snd_una;
        let highest = self.flight.scoreboard.highest(env.pool).unwrap_or(una);
        let at_once = !self.flags.has(ConnFlags::REORDERED);
        let r = &mut self.flight.recovery;
        r.high_rxt = r.high_rxt.max(una);
        r.lost_edge = r.lost_edge.max(if at_once { highest } else { una });
        let was_lost = self.flight.scoreboard.lost_again_bytes(env.pool);
        // What found no room on the scoreboard may seem to have arrived by what was sent again.
        let known =
            Evidence { highest, at_once: at_once && !self.flight.recovery.missed, ..self.evidence(env) };
        self.flight.scoreboard.review(env.pool, &known);
        self.note_lost_again(env, was_lost);
        self.await_order(env);
    }

    /// What is known now, before the scoreboard is asked.
    pub(super) fn evidence(&self, env: &Env<'_>) -> Evidence {
        Evidence {
            una: self.snd_una,
            highest: self.snd_una,
            now_us: env.now.micros() as u32,
            min_rtt_us: self.rtt.least().as_micros() as u32,
            at_once: false,
        }
    }

    /// The loss of a retransmission is a second sign of congestion (RFC 5681 §4.3).
    fn note_lost_again(&mut self, env: &Env<'_>, was_lost: u32) {
        if self.flight.recovery.reduced_again || self.flight.scoreboard.lost_again_bytes(env.pool) <= was_lost
        {
            return;
        }
        self.flight.recovery.reduced_again = true;
        self.flags.set(ConnFlags::RETRANSMIT);
        if self.flight.recovery.missed && matches!(self.flight.recovery.phase, Phase::Loss(_)) {
            // After the timeout of a loss that was too large for the scoreboard little is sure, and the window is at its least.
            return;
        }
        let c = &mut self.flight.congestion;
        // With rate reduction the window follows what is on the path: what it is on its way to counts.
        let by_rate = matches!(self.flight.recovery.phase, Phase::Sack(_));
        let aim = if by_rate { c.threshold() } else { c.window() };
        c.set_window(aim);
        c.on_loss(aim);
        c.set_window(c.threshold().min(aim));
        if by_rate {
            self.flight.recovery.phase = Phase::Sack(Prr { flight: aim, ..Prr::default() });
        }
    }

    /// With something overtaken and no time running for it, the time begins.
    fn await_order(&mut self, env: &mut Env<'_>) {
        let r = &self.flight.recovery;
        let from = if r.by_scoreboard() { r.lost_edge } else { self.snd_una }.max(self.snd_una);
        if self.flags.has(ConnFlags::REO_WAIT) {
            let gap = self.flight.scoreboard.next_hole(env.pool, from, r.reordering.edge).is_some();
            if gap || self.flight.scoreboard.holds(env.pool) {
                return;
            }
            self.flags.clear(ConnFlags::REO_WAIT);
        }
        let highest = self.flight.scoreboard.highest(env.pool).unwrap_or(self.snd_una);
        let gap = self.flight.scoreboard.next_hole(env.pool, from, highest).is_some();
        if self.flight.scoreboard.hold_overtaken(env.pool) || gap {
            self.flight.recovery.reordering.edge = highest;
            self.flags.set(ConnFlags::REO_WAIT);
            self.conn.loss_at.set(env.now + self.reordering_time());
        }
    }

    /// Reordering has had its time: what was overtaken when it began is lost.
    pub(in crate::tcp) fn reordering_timeout(&mut self, env: &mut Env<'_>) {
        let edge = self.flight.recovery.reordering.edge.max(self.snd_una);
        match self.flight.recovery.phase {
            Phase::Open => {
                if self.flight.scoreboard.next_hole(env.pool, self.snd_una, edge).is_some() {
                    self.enter_recovery(env, edge, 0);
                }
            }
            Phase::Sack(_) | Phase::Loss(_) => {
                self.flight.recovery.lost_edge = self.flight.recovery.lost_edge.max(edge);
                let was_lost = self.flight.scoreboard.lost_again_bytes(env.pool);
                self.flight.scoreboard.give_up_held(env.pool);
                self.note_lost_again(env, was_lost);
                self.sack_step(env, 0);
            }
            Phase::Fast => {}
        }
    }

    /// The time for reordering has run out, if it was running.
    pub(in crate::tcp) fn take_reordering_timeout(&mut self) -> bool {
        self.conn.loss_at.set(Time::NEVER);
        self.flags.take(ConnFlags::REO_WAIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seq(n: u32) -> SeqNum {
        SeqNum::new(n)
    }

    #[test]
    fn d10_the_time_for_reordering_grows_once_a_round_trip_and_lasts_sixteen_recoveries() {
        let mut r = Reordering::new(seq(0));
        r.widen(seq(100), seq(1000));
        r.widen(seq(500), seq(1500));
        assert_eq!(r.patience.quarters, 2, "the same round trip");
        r.widen(seq(1000), seq(2000));
        assert_eq!(r.patience.quarters, 3);
        for _ in 1..PERSIST {
            r.recovered();
        }
        assert_eq!(r.patience.quarters, 3);
        r.recovered();
        assert_eq!(r.patience.quarters, 1);
        // A round of two gigabytes ago is over.
        r.round = seq(2000);
        r.widen(seq(2000) + 0x9000_0000, seq(3000) + 0x9000_0000);
        assert_eq!(r.patience.quarters, 2);
    }
}
