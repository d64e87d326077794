//! Loss: how it is found, and what is sent again (RFC 5681, RFC 6582, RFC 6675, RFC 6937, RFC 8985).
//!
//! ```text
//!            without SACK: three duplicates
//!   Open ────────────────────────────────────────▶ Fast   NewReno: one hole a round trip, window inflated
//!    ▲  │ something overtook snd_una (rack) ─────▶ Sack   scoreboard: all holes in one round trip, pace by PRR
//!    │  └ timeout, or a smaller path MTU ────────▶ Loss   all is lost but what the peer has, pace by slow start;
//!    │                                              │     without SACK: Open, and snd_nxt goes back to snd_una
//!    ├── all acknowledged that was out when the loss was found (recovery point)
//!    └── the timeout was spurious: the window is what it was (timeout)
//! ```
//!
//! What is lost is decided in [`rack`], the silence behind the last segment is [`tlp`]'s, timeouts are [`timeout`]'s. A
//! connection with SACK whose scoreboard finds no memory recovers as one without.

mod rack;
mod timeout;
mod tlp;

use super::congestion::{Arrival, Congestion};
use super::conn::{ConnFlags, Env, Live};
use super::output::Retransmission;
use super::sack::DUP_THRESHOLD;
use crate::time::Time;
use crate::wire::{Header, SeqNum};
pub(super) use rack::{Reordering, ReorderingPatience};

/// Bytes by which the end of what was sent again may lie behind: a window is no larger (RFC 7323 §2.3).
const FAR_BEHIND: u32 = 1 << 30;

/// Where a connection stands with its losses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// No loss is known; without SACK, or a timeout has taken care of it.
    Open,
    /// Fast recovery without SACK (RFC 6582).
    Fast,
    /// Recovery by the scoreboard (RFC 6675).
    Sack(Prr),
    /// After a timeout, with SACK; how to take it back.
    Loss(Undo),
}

/// The books of proportional rate reduction (RFC 6937 §3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Prr {
    /// Bytes delivered since the recovery began, and bytes sent.
    delivered: u32,
    sent: u32,
    /// Bytes in flight when it began (`RecoverFS`).
    flight: u32,
}

/// What was before a timeout, in case it proves spurious.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Undo {
    window: u32,
    threshold: u32,
    /// Our timestamp when the timer fired: an echo of an older one answers what was sent before.
    ts: u32,
}

/// The state of recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Recovery {
    pub(super) phase: Phase,
    pub(super) dup_acks: u8,
    /// The rescue retransmission of this recovery has been sent (RFC 6675 §4, `NextSeg` rule 4).
    pub(super) rescued: bool,
    /// The window has been reduced for a lost retransmission of this recovery.
    reduced_again: bool,
    /// The scoreboard had no room for something in this recovery. What is reported twice, or seems late, may be that.
    missed: bool,
    pub(super) reordering: Reordering,
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

/// What the blocks of an acknowledgment brought.
#[derive(Clone, Copy, Debug, Default)]
struct SackNews {
    /// Bytes that were not noted before.
    fresh: u32,
    /// Some of them were out when the timer fired, and were sent once only.
    original: bool,
    /// A block found no room.
    missed: bool,
}

impl Recovery {
    /// Of a connection that sends from `iss` on.
    pub(super) fn new(iss: SeqNum) -> Self {
        Self {
            phase: Phase::Open,
            dup_acks: 0,
            rescued: false,
            reduced_again: false,
            missed: false,
            reordering: Reordering::new(iss),
            recover: iss,
            high_rxt: iss,
            lost_edge: iss,
            probe_end: iss,
            pipe: 0,
        }
    }

    /// Of a connection that was at rest. `here` says that the recovery point is `una` itself; else it lies below, and how
    /// far is of no matter.
    pub(super) fn resume(una: SeqNum, here: bool, patience: ReorderingPatience) -> Self {
        Self {
            reordering: Reordering::resume(una, patience),
            recover: if here { una } else { una - 1 },
            ..Self::new(una)
        }
    }

    /// Whether there is nothing to be kept but what [`Recovery::resume`] is given, for a connection that has sent
    /// `[una, max)`. What lies below `una` says the same as `una`.
    pub(super) fn at_rest(&self, una: SeqNum, max: SeqNum) -> bool {
        self.phase == Phase::Open
            && self.dup_acks == 0
            && self.recover.at_or_before(una)
            && self.high_rxt.at_or_before(una)
            && self.reordering.at_rest(una, max)
    }

    /// A recovery begins: all that is below `edge` is lost, `max` is the highest sequence number sent.
    fn begin(&mut self, phase: Phase, una: SeqNum, edge: SeqNum, max: SeqNum) {
        let overtaken = matches!(phase, Phase::Sack(_));
        *self = Self {
            phase,
            recover: max,
            high_rxt: una,
            lost_edge: edge,
            reordering: self.reordering.again(overtaken),
            // A timeout does not make known what found no room.
            missed: self.missed,
            ..Self::new(una)
        };
    }

    /// Whether what is sent again is chosen by the scoreboard.
    pub(super) fn by_scoreboard(&self) -> bool {
        matches!(self.phase, Phase::Sack(_) | Phase::Loss(_))
    }

    /// How a segment counts that is sent again now.
    pub(super) fn kind(&self) -> Retransmission {
        match self.phase {
            Phase::Loss(_) => Retransmission::DataTimeout,
            Phase::Open | Phase::Fast | Phase::Sack(_) => Retransmission::DataFast,
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

    /// The retransmission timer fired, without SACK; `max` is the highest sequence number sent.
    pub(super) fn on_timeout(&mut self, max: SeqNum) {
        self.recover = max;
        self.phase = Phase::Open;
        self.dup_acks = 0;
    }

    /// With nothing to recover its points stay close behind what is acknowledged: two gigabytes later they would seem to
    /// lie ahead.
    fn pass(&mut self, una: SeqNum) {
        if una.after(self.recover) {
            self.recover = una - 1;
        }
        if una.bytes_since(self.high_rxt) > FAR_BEHIND {
            self.high_rxt = una - FAR_BEHIND;
        }
    }

    /// How much the window may grow for what was delivered: proportional rate reduction (RFC 6937 §3.1) with the slow
    /// start bound. Down to the threshold in the time of a round trip, and back up to it if more was lost.
    fn prr(&mut self, c: &mut Congestion, delivered: u32) {
        let Phase::Sack(prr) = &mut self.phase else { return };
        prr.delivered = prr.delivered.saturating_add(delivered);
        let may = if self.pipe > c.threshold() {
            let share = u64::from(prr.delivered) * u64::from(c.threshold());
            let due = share.div_ceil(u64::from(prr.flight.max(1)));
            due.saturating_sub(u64::from(prr.sent)).min(u64::from(u32::MAX)) as u32
        } else {
            let limit = prr.delivered.saturating_sub(prr.sent).max(delivered).saturating_add(c.mss());
            (c.threshold() - self.pipe).min(limit)
        };
        c.set_window(self.pipe.saturating_add(may));
    }
}

impl Live<'_> {
    /// Takes what an acceptable acknowledgment says about losses. `snd_una` has moved already.
    pub(super) fn on_loss_news(&mut self, env: &mut Env<'_>, h: &Header, news: AckNews) {
        self.on_probe_answer(h, news);
        self.on_duplicate_report(h);
        let sack = self.take_blocks(env, h, news);
        match self.flight.recovery.phase {
            Phase::Sack(_) => self.in_sack_recovery(env, h.ack, news, sack),
            Phase::Loss(undo) => self.in_timeout_recovery(env, h, news, sack, undo),
            Phase::Open | Phase::Fast => self.outside_of_recovery(env, h, news, sack),
        }
        if self.flight.scoreboard.is_empty() && self.flight.recovery.phase == Phase::Open {
            self.flags.clear(ConnFlags::REO_WAIT);
        }
        if self.may_probe() {
            if news.acked > 0 {
                self.arm_probe(env.now);
            }
        } else if !self.flags.has(ConnFlags::REO_WAIT) {
            self.conn.loss_at.set(Time::NEVER);
        }
    }

    /// Notes the SACK blocks on the scoreboard.
    fn take_blocks(&mut self, env: &mut Env<'_>, h: &Header, news: AckNews) -> SackNews {
        let mut sack = SackNews::default();
        if !self.flags.has(ConnFlags::SACK) {
            return sack;
        }
        let highest = self.flight.scoreboard.highest(env.pool);
        self.notice_reordering(news);
        for &(first, end) in h.options.sack_blocks() {
            // What begins at or below `snd_una` is a D-SACK (RFC 2883) or old; beyond `snd_max` is nothing of ours.
            if !first.after(self.snd_una) || !end.after(first) || end.after(self.snd_max) {
                continue;
            }
            let once = first.max(self.flight.recovery.high_rxt);
            let unknown = |s: &Self, to: SeqNum| {
                to.bytes_since(once) > s.flight.scoreboard.sacked(env.pool, once, to.max(once))
            };
            let late = highest.is_some_and(|fack| unknown(self, end.min(fack)));
            sack.original |= unknown(self, end.min(self.flight.recovery.recover));
            let known = self.evidence(env);
            self.flight.scoreboard.note_arrival(env.pool, &known, first, end);
            match self.flight.scoreboard.insert(env.pool, first, end) {
                Ok(new) => sack.fresh += new,
                Err(_) => sack.missed = true,
            }
            self.flight.recovery.missed |= sack.missed;
            if late && !self.flight.recovery.missed {
                self.flags.set(ConnFlags::REORDERED);
            }
        }
        sack
    }

    fn outside_of_recovery(&mut self, env: &mut Env<'_>, h: &Header, news: AckNews, sack: SackNews) {
        if news.acked > 0 {
            if self.flight.congestion.wants_round_trips() {
                let rtt_ms = self.since_echo(env.now, h).and_then(|d| u16::try_from(d.as_millis()).ok());
                let least_us = self.rtt.least().as_micros() as u32;
                let a = Arrival {
                    ack: h.ack,
                    nxt: self.snd_max,
                    rtt_ms,
                    now_us: env.now.micros() as u32,
                    least_us,
                };
                self.flight.congestion.on_round_trip(&a);
            }
            self.on_progress(env, h.ack, news);
        }
        let by_duplicates =
            !self.flags.has(ConnFlags::SACK) || (sack.missed && self.flight.scoreboard.is_empty());
        if by_duplicates {
            if news.duplicate {
                let (una, max, flight) = (self.snd_una, self.snd_max, self.in_flight());
                let verdict =
                    self.flight.recovery.on_duplicate(&mut self.flight.congestion, una, max, flight);
                self.follow(verdict);
            }
            return;
        }
        if self.flight.recovery.phase == Phase::Open {
            if news.acked == 0 && sack.fresh > 0 {
                self.flight.recovery.dup_acks = self.flight.recovery.dup_acks.saturating_add(1);
            }
            let delivered = self.delivered(news, sack);
            self.look_for_loss(env, delivered);
        }
    }

    /// Bytes that left the path, by what the peer says. What found no room on the scoreboard did so too, a segment an ACK:
    /// if it did not count, what is sent would follow what is noted, and stand still while nothing is.
    fn delivered(&self, news: AckNews, sack: SackNews) -> u32 {
        let unnoted = if sack.missed { self.flight.congestion.mss() } else { 0 };
        (news.acked + self.flight.scoreboard.bytes() + unnoted).saturating_sub(news.noted)
    }

    fn follow(&mut self, verdict: AckVerdict) {
        match verdict {
            AckVerdict::Continue => {}
            AckVerdict::Retransmit => self.flags.set(ConnFlags::RETRANSMIT),
        }
    }

    /// Something new is acknowledged outside of recovery by the scoreboard.
    fn on_progress(&mut self, env: &Env<'_>, ack: SeqNum, news: AckNews) {
        self.flags.clear(ConnFlags::RETRANSMIT);
        if self.flight.recovery.phase == Phase::Fast {
            let flight = self.in_flight();
            let verdict = self.flight.recovery.on_ack(&mut self.flight.congestion, ack, news.acked, flight);
            self.follow(verdict);
            return;
        }
        self.flight.recovery.dup_acks = 0;
        self.flight.recovery.pass(self.snd_una);
        if news.limited {
            self.flight.congestion.on_ack(news.acked, env.now, self.rtt.srtt());
        } else {
            self.flight.congestion.on_unused();
        }
    }

    /// What lies below `edge` is lost: recovery by the scoreboard begins (RFC 6675 §5, steps 4.1 to 4.3).
    fn enter_recovery(&mut self, env: &mut Env<'_>, edge: SeqNum, delivered: u32) {
        let flight = self.in_flight();
        self.flight.congestion.on_loss(flight);
        let phase = Phase::Sack(Prr { flight, ..Prr::default() });
        self.flight.recovery.begin(phase, self.snd_una, edge, self.snd_max);
        self.flags.clear(ConnFlags::PROBED | ConnFlags::TAIL_PROBE);
        self.flags.set(ConnFlags::RETRANSMIT);
        self.sack_step(env, delivered);
    }

    /// RFC 6675 §5, steps A and B.
    fn in_sack_recovery(&mut self, env: &mut Env<'_>, ack: SeqNum, news: AckNews, sack: SackNews) {
        let delivered = self.delivered(news, sack);
        if ack.at_or_after(self.flight.recovery.recover) {
            self.flight.congestion.set_window(self.flight.congestion.threshold());
            self.leave_recovery(env);
            self.look_for_loss(env, delivered);
            return;
        }
        self.sack_step(env, delivered);
    }

    /// All is acknowledged that was out when the loss was found.
    fn leave_recovery(&mut self, env: &mut Env<'_>) {
        self.flight.recovery.phase = Phase::Open;
        self.flight.recovery.dup_acks = 0;
        self.flight.recovery.missed = false;
        self.flight.recovery.pass(self.snd_una);
        self.flight.recovery.reordering.recovered();
        self.flight.scoreboard.forget_resent(env.pool);
        self.flags.clear(ConnFlags::RETRANSMIT | ConnFlags::REO_WAIT);
    }

    /// What is lost, what is on the path (RFC 6675 §4, `SetPipe`), and what may be sent for it.
    fn sack_step(&mut self, env: &mut Env<'_>, delivered: u32) {
        self.review_losses(env);
        let (una, max) = (self.snd_una, self.snd_max);
        let board = &self.flight.scoreboard;
        let r = &mut self.flight.recovery;
        // Once for what is not lost, and once for what was sent again, unless that is lost too.
        let first_time = (max - r.lost_edge) - board.sacked(env.pool, r.lost_edge, max);
        let again = (r.high_rxt - una) - board.sacked(env.pool, una, r.high_rxt);
        r.pipe = first_time + again.saturating_sub(board.lost_again_bytes(env.pool));
        r.prr(&mut self.flight.congestion, delivered);
    }

    /// Bytes of `[snd_una, snd_nxt)` that count against the window: what the peer has does not.
    pub(super) fn outstanding(&self, env: &Env<'_>, offset: u32) -> u32 {
        match self.flight.recovery.phase {
            Phase::Sack(_) | Phase::Loss(_) => self.flight.recovery.pipe,
            Phase::Fast | Phase::Open if self.flight.scoreboard.is_empty() => offset,
            Phase::Fast | Phase::Open => offset.saturating_sub(self.flight.scoreboard.sacked(
                env.pool,
                self.snd_una,
                self.flight.snd_nxt,
            )),
        }
    }

    /// The window, and a segment for each of the first two duplicates: they say that as much has left the path
    /// (limited transmit, RFC 3042). With SACK the same follows from what is outstanding.
    pub(super) fn congestion_window(&self) -> u32 {
        let r = &self.flight.recovery;
        let more =
            if r.phase == Phase::Open && !self.flags.has(ConnFlags::SACK) && self.snd_una.after(r.recover) {
                u32::from(r.dup_acks.min(DUP_THRESHOLD - 1)) * self.flight.congestion.mss()
            } else {
                0
            };
        self.flight.congestion.window() + more
    }

    /// Bytes were sent in recovery by the scoreboard (RFC 6675 §5, step C.4).
    pub(super) fn count_recovery(&mut self, len: u32) {
        let r = &mut self.flight.recovery;
        match &mut r.phase {
            Phase::Sack(prr) => prr.sent = prr.sent.saturating_add(len),
            Phase::Loss(_) => {}
            Phase::Open | Phase::Fast => return,
        }
        r.pipe = r.pipe.saturating_add(len);
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
        r.phase = Phase::Sack(Prr { flight: 20_000, ..Prr::default() });
        // One lost, 19 delivered; with each acknowledgment the path empties by a segment, and half as much goes in.
        r.pipe = 19_000;
        let mut sent = 0;
        for _ in 0..19 {
            r.pipe -= 1000;
            r.prr(&mut c, 1000);
            while c.window() - r.pipe >= 1000 {
                r.pipe += 1000;
                sent += 1000;
                let Phase::Sack(prr) = &mut r.phase else { unreachable!("it is not over") };
                prr.sent = sent;
            }
        }
        assert!((9000..=10_000).contains(&sent), "half of what was delivered: {sent}");
        assert!((9000..=10_000).contains(&r.pipe), "and the path is at the threshold: {}", r.pipe);
    }

    #[test]
    fn d10_after_a_heavy_loss_the_path_is_filled_up_to_the_threshold_without_a_burst() {
        let (mut r, mut c) = fresh();
        c.set_window(20_000);
        c.on_loss(20_000);
        r.phase = Phase::Sack(Prr { flight: 20_000, ..Prr::default() });
        r.pipe = 2000;
        r.prr(&mut c, 1000);
        assert_eq!(c.window(), 4000, "what was delivered and a segment");
    }
}
