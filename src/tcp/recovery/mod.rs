//! Loss: how it is found, and what is sent again (RFC 5681, RFC 6582, RFC 6675, RFC 6937).
//!
//! ```text
//!            three duplicates, or IsLost(snd_una)
//!   Open ────────────────────────────────────────▶ Sack   scoreboard: all holes in one round trip, pace by PRR
//!    ▲  │ without SACK: three duplicates ────────▶ Fast   NewReno: one hole a round trip, window inflated
//!    │  └ timeout: stays Open, snd_nxt goes back to snd_una and jumps over what the peer has
//!    └── all acknowledged that was out when the loss was found (recovery point)
//! ```
//!
//! A connection with SACK whose scoreboard finds no memory recovers as one without. After a timeout no loss is found by
//! duplicates until the recovery point is passed: they may answer what was sent again.

mod tlp;

use super::congestion::Congestion;
use super::conn::{Conn, ConnFlags, Env};
use super::sack::DUP_THRESHOLD;
use crate::time::Time;
use crate::wire::{Header, SeqNum};

/// Where a connection stands with its losses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// No loss is known, or a timeout has taken care of it.
    Open,
    /// Fast recovery without SACK (RFC 6582).
    Fast,
    /// Recovery by the scoreboard (RFC 6675).
    Sack,
}

/// The state of recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Recovery {
    pub(super) phase: Phase,
    pub(super) dup_acks: u8,
    /// The rescue retransmission of this recovery has been sent (RFC 6675 §4, `NextSeg` rule 4).
    pub(super) rescued: bool,
    /// Highest sequence number sent when the last loss was found: one reduction a window.
    pub(super) recover: SeqNum,
    /// One past the highest byte sent again in this recovery (`HighRxt`).
    pub(super) high_rxt: SeqNum,
    /// What the peer does not have below this is lost.
    pub(super) lost_edge: SeqNum,
    /// One past the last byte of the tail loss probe that is out (`TLP.end_seq`).
    pub(super) probe_end: SeqNum,
    /// Bytes thought to be on the path (RFC 6675 §4).
    pub(super) pipe: u32,
    /// Bytes delivered since the recovery began, and bytes sent (RFC 6937 §3).
    delivered: u32,
    pub(super) sent: u32,
    /// Bytes in flight when it began (`RecoverFS`).
    flight: u32,
}

/// What an acknowledgment asks the sender to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum AckVerdict {
    /// Nothing beyond sending what the window allows.
    Continue,
    /// Send the first unacknowledged segment again now.
    Retransmit,
}

/// What an acknowledgment changed, by the numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct AckNews {
    /// Bytes newly acknowledged.
    pub(super) acked: u32,
    /// Bytes that were on the scoreboard before it.
    pub(super) noted: u32,
    /// It is a duplicate as RFC 5681 §2 defines it.
    pub(super) duplicate: bool,
    /// It carries nothing, and its window is the one that was known.
    pub(super) bare: bool,
    /// The window, and not the service, was what held the sender back.
    pub(super) limited: bool,
}

impl Recovery {
    /// Of a connection that sends from `iss` on.
    pub(super) fn new(iss: SeqNum) -> Self {
        Self {
            phase: Phase::Open,
            dup_acks: 0,
            rescued: false,
            recover: iss,
            high_rxt: iss,
            lost_edge: iss,
            probe_end: iss,
            pipe: 0,
            delivered: 0,
            sent: 0,
            flight: 0,
        }
    }

    /// Fast recovery without SACK: `ack` acknowledged `acked` bytes, `flight` remain (RFC 6582 §3.2).
    fn on_ack(&mut self, c: &mut Congestion, ack: SeqNum, acked: u32, flight: u32) -> AckVerdict {
        self.dup_acks = 0;
        if ack.at_or_after(self.recover) {
            // Step 3, full acknowledgment: deflate without a burst.
            self.phase = Phase::Open;
            c.set_window(c.threshold().min(flight.max(c.mss()) + c.mss()));
            return AckVerdict::Continue;
        }
        // Partial acknowledgment: the next hole is lost too.
        c.set_window(c.window().saturating_sub(acked).max(c.mss()) + c.mss());
        AckVerdict::Retransmit
    }

    /// A duplicate acknowledgment of `una` with `flight` bytes out, `max` the highest sequence number sent; without
    /// SACK (RFC 5681 §3.2).
    fn on_duplicate(&mut self, c: &mut Congestion, una: SeqNum, max: SeqNum, flight: u32) -> AckVerdict {
        self.dup_acks = self.dup_acks.saturating_add(1);
        if self.phase == Phase::Fast {
            c.set_window(c.window().saturating_add(c.mss()));
            return AckVerdict::Continue;
        }
        if self.dup_acks == DUP_THRESHOLD && una.after(self.recover) {
            c.on_loss(flight);
            self.recover = max;
            self.phase = Phase::Fast;
            c.set_window(c.threshold() + u32::from(DUP_THRESHOLD) * c.mss());
            return AckVerdict::Retransmit;
        }
        AckVerdict::Continue
    }

    /// The retransmission timer fired; `max` is the highest sequence number sent.
    pub(super) fn on_timeout(&mut self, max: SeqNum) {
        self.recover = max;
        self.phase = Phase::Open;
        self.dup_acks = 0;
    }

    /// With nothing to recover the recovery point stays close behind what is acknowledged: two gigabytes later it would
    /// seem to lie ahead.
    fn pass(&mut self, una: SeqNum) {
        if una.after(self.recover) {
            self.recover = una - 1;
        }
    }

    /// How much the window may grow for what was delivered: proportional rate reduction (RFC 6937 §3.1) with the slow
    /// start bound. Down to the threshold in the time of a round trip, and back up to it if more was lost.
    fn prr(&mut self, c: &mut Congestion, delivered: u32) {
        self.delivered = self.delivered.saturating_add(delivered);
        let may = if self.pipe > c.threshold() {
            let share = u64::from(self.delivered) * u64::from(c.threshold());
            let due = share.div_ceil(u64::from(self.flight.max(1)));
            due.saturating_sub(u64::from(self.sent)).min(u64::from(u32::MAX)) as u32
        } else {
            let limit = self.delivered.saturating_sub(self.sent).max(delivered).saturating_add(c.mss());
            (c.threshold() - self.pipe).min(limit)
        };
        c.set_window(self.pipe.saturating_add(may));
    }
}

impl Conn {
    /// Takes what an acceptable acknowledgment says about losses. `snd_una` has moved already.
    pub(super) fn on_loss_news(&mut self, env: &mut Env<'_>, h: &Header, news: AckNews) {
        self.on_probe_answer(h, news);
        self.find_losses(env, h, news);
        if self.may_probe() {
            if news.acked > 0 {
                self.arm_probe(env.now);
            }
        } else {
            self.loss_at = Time::NEVER;
        }
    }

    fn find_losses(&mut self, env: &mut Env<'_>, h: &Header, news: AckNews) {
        let (mut fresh, mut missed) = (0, false);
        if self.flags.has(ConnFlags::SACK) {
            for &(first, end) in h.options.sack_blocks() {
                // What begins at or below `snd_una` is a D-SACK (RFC 2883) or old; beyond `snd_max` is nothing of ours.
                if first.after(self.snd_una) && end.after(first) && end.at_or_before(self.snd_max) {
                    match self.scoreboard.insert(env.pool, first, end) {
                        Ok(new) => fresh += new,
                        Err(_) => missed = true,
                    }
                }
            }
        }
        let sack = self.flags.has(ConnFlags::SACK) && (!missed || !self.scoreboard.is_empty());
        if self.recovery.phase == Phase::Sack {
            self.in_sack_recovery(env, h.ack, news);
            return;
        }
        if news.acked > 0 {
            self.on_progress(env, h.ack, news);
        }
        if !sack {
            if news.duplicate && (missed || !self.flags.has(ConnFlags::SACK)) {
                let (una, max, flight) = (self.snd_una, self.snd_max, self.in_flight());
                let verdict = self.recovery.on_duplicate(&mut self.congestion, una, max, flight);
                self.follow(verdict);
            }
            return;
        }
        if self.recovery.phase == Phase::Open {
            if news.acked == 0 && fresh > 0 {
                self.recovery.dup_acks = self.recovery.dup_acks.saturating_add(1);
            }
            self.look_for_loss(env, news);
        }
    }

    fn follow(&mut self, verdict: AckVerdict) {
        match verdict {
            AckVerdict::Continue => {}
            AckVerdict::Retransmit => self.flags.set(ConnFlags::RETRANSMIT),
        }
    }

    /// Something new is acknowledged outside of recovery by SACK.
    fn on_progress(&mut self, env: &Env<'_>, ack: SeqNum, news: AckNews) {
        self.flags.clear(ConnFlags::RETRANSMIT);
        match self.recovery.phase {
            Phase::Fast => {
                let flight = self.in_flight();
                let verdict = self.recovery.on_ack(&mut self.congestion, ack, news.acked, flight);
                self.follow(verdict);
            }
            Phase::Open | Phase::Sack => {
                self.recovery.dup_acks = 0;
                self.recovery.pass(self.snd_una);
                if news.limited {
                    self.congestion.on_ack(news.acked, env.now, self.rtt.srtt());
                } else {
                    self.congestion.on_unused();
                }
            }
        }
    }

    /// RFC 6675 §5, steps 1 to 4: three acknowledgments with news, or as much `SACKed` above the first hole.
    fn look_for_loss(&mut self, env: &mut Env<'_>, news: AckNews) {
        let r = &self.recovery;
        if self.scoreboard.is_empty() || self.snd_una.before(r.recover) {
            return;
        }
        let edge = self.scoreboard.lost_edge(env.pool, self.snd_una, u32::from(self.mss));
        if r.dup_acks < DUP_THRESHOLD && !edge.after(self.snd_una) {
            return;
        }
        let flight = self.in_flight();
        self.congestion.on_loss(flight);
        self.recovery = Recovery {
            phase: Phase::Sack,
            flight,
            recover: self.snd_max,
            high_rxt: self.snd_una,
            ..Recovery::new(self.snd_una)
        };
        self.flags.clear(ConnFlags::PROBED | ConnFlags::TAIL_PROBE);
        self.flags.set(ConnFlags::RETRANSMIT);
        self.sack_step(env, news);
    }

    /// RFC 6675 §5, steps A and B.
    fn in_sack_recovery(&mut self, env: &mut Env<'_>, ack: SeqNum, news: AckNews) {
        if ack.at_or_after(self.recovery.recover) {
            self.recovery.phase = Phase::Open;
            self.recovery.dup_acks = 0;
            self.flags.clear(ConnFlags::RETRANSMIT);
            self.congestion.set_window(self.congestion.threshold());
            self.look_for_loss(env, news);
            return;
        }
        self.sack_step(env, news);
    }

    /// What is lost, what is on the path (RFC 6675 §4, `SetPipe`), and what may be sent for it.
    fn sack_step(&mut self, env: &Env<'_>, news: AckNews) {
        let (una, max) = (self.snd_una, self.snd_max);
        let board = &self.scoreboard;
        let r = &mut self.recovery;
        r.high_rxt = r.high_rxt.max(una);
        r.lost_edge = board.lost_edge(env.pool, una, u32::from(self.mss));
        // Once for what is not lost, and once for what was sent again.
        let first_time = (max - r.lost_edge) - board.sacked(env.pool, r.lost_edge, max);
        let again = (r.high_rxt - una) - board.sacked(env.pool, una, r.high_rxt);
        r.pipe = first_time + again;
        let delivered = (news.acked + board.bytes()).saturating_sub(news.noted);
        r.prr(&mut self.congestion, delivered);
    }

    /// Bytes of `[snd_una, snd_nxt)` that count against the window: what the peer has does not.
    pub(super) fn outstanding(&self, env: &Env<'_>, offset: u32) -> u32 {
        match self.recovery.phase {
            Phase::Sack => self.recovery.pipe,
            Phase::Fast | Phase::Open if self.scoreboard.is_empty() => offset,
            Phase::Fast | Phase::Open => {
                offset.saturating_sub(self.scoreboard.sacked(env.pool, self.snd_una, self.snd_nxt))
            }
        }
    }

    /// The window, and a segment for each of the first two duplicates: they say that as much has left the path
    /// (limited transmit, RFC 3042). With SACK the same follows from what is outstanding.
    pub(super) fn congestion_window(&self) -> u32 {
        let r = &self.recovery;
        let more =
            if r.phase == Phase::Open && !self.flags.has(ConnFlags::SACK) && self.snd_una.after(r.recover) {
                u32::from(r.dup_acks.min(DUP_THRESHOLD - 1)) * self.congestion.mss()
            } else {
                0
            };
        self.congestion.window() + more
    }

    /// Bytes were sent in recovery by SACK (RFC 6675 §5, step C.4).
    pub(super) fn count_recovery(&mut self, len: u32) {
        if self.recovery.phase == Phase::Sack {
            self.recovery.pipe = self.recovery.pipe.saturating_add(len);
            self.recovery.sent = self.recovery.sent.saturating_add(len);
        }
    }

    /// After a timeout the peer may have thrown away what it had said it has (RFC 2018 §8). It has, if it stops right
    /// where it said that it has more; and a second timeout in a row is reason enough to believe nothing.
    pub(super) fn check_reneging(&mut self, env: &mut Env<'_>) {
        if self.rtt.timed_out_before() || self.scoreboard.has(env.pool, self.snd_una) {
            self.scoreboard.clear(env.pool);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::congestion::Algorithm;

    fn seq(n: u32) -> SeqNum {
        SeqNum::new(n)
    }

    fn fresh() -> (Recovery, Congestion) {
        (Recovery::new(seq(0)), Congestion::new(Algorithm::NewReno, 1000))
    }

    #[test]
    fn d10_three_duplicates_retransmit_once_and_partial_acks_go_on() {
        let (mut r, mut c) = fresh();
        let (una, max) = (seq(1000), seq(11_000));
        assert_eq!(r.on_duplicate(&mut c, una, max, 10_000), AckVerdict::Continue);
        assert_eq!(r.on_duplicate(&mut c, una, max, 10_000), AckVerdict::Continue);
        assert_eq!(r.on_duplicate(&mut c, una, max, 10_000), AckVerdict::Retransmit);
        assert_eq!(c.window(), 8000, "half the flight plus three");
        assert_eq!(r.on_duplicate(&mut c, una, max, 10_000), AckVerdict::Continue);
        assert_eq!(r.on_ack(&mut c, seq(3000), 2000, 8000), AckVerdict::Retransmit, "partial");
        assert_eq!(r.on_ack(&mut c, seq(11_000), 8000, 0), AckVerdict::Continue, "full");
        assert_eq!(c.window(), 2000, "no burst after recovery with nothing in flight");
    }

    #[test]
    fn d10_no_second_reduction_within_the_same_window() {
        let (mut r, mut c) = fresh();
        r.on_timeout(seq(11_000));
        for _ in 0..5 {
            assert_eq!(r.on_duplicate(&mut c, seq(5000), seq(11_000), 6000), AckVerdict::Continue);
        }
    }

    #[test]
    fn d10_a_recovery_point_of_long_ago_does_not_come_up_again() {
        let (mut r, mut c) = fresh();
        let mut una = seq(5);
        for _ in 0..10 {
            una += 1 << 29;
            r.pass(una);
        }
        for want in [AckVerdict::Continue, AckVerdict::Continue, AckVerdict::Retransmit] {
            assert_eq!(r.on_duplicate(&mut c, una, una + 10_000, 10_000), want);
        }
    }

    #[test]
    fn d10_two_duplicates_are_no_loss() {
        let (mut r, mut c) = fresh();
        for _ in 0..2 {
            assert_eq!(r.on_duplicate(&mut c, seq(1000), seq(90_000), 9000), AckVerdict::Continue);
        }
        assert_eq!(r.phase, Phase::Open);
    }

    #[test]
    fn d10_the_reduction_is_spread_over_a_round_trip() {
        let (mut r, mut c) = fresh();
        c.set_window(20_000);
        c.on_loss(20_000);
        r.phase = Phase::Sack;
        r.flight = 20_000;
        // One lost, 19 delivered; with each acknowledgment the path empties by a segment, and half as much goes in.
        r.pipe = 19_000;
        for _ in 0..19 {
            r.pipe -= 1000;
            r.prr(&mut c, 1000);
            while c.window() - r.pipe >= 1000 {
                r.pipe += 1000;
                r.sent += 1000;
            }
        }
        assert!((9000..=10_000).contains(&r.sent), "half of what was delivered: {}", r.sent);
        assert!((9000..=10_000).contains(&r.pipe), "and the path is at the threshold: {}", r.pipe);
    }

    #[test]
    fn d10_after_a_heavy_loss_the_path_is_filled_up_to_the_threshold_without_a_burst() {
        let (mut r, mut c) = fresh();
        c.set_window(20_000);
        c.on_loss(20_000);
        (r.phase, r.flight, r.pipe) = (Phase::Sack, 20_000, 2000);
        r.prr(&mut c, 1000);
        assert_eq!(c.window(), 4000, "what was delivered and a segment");
    }
}
