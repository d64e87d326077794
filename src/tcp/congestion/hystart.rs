//! `HyStart++` (RFC 9406): the first slow start of a connection ends when round trips grow longer, before the queue on the
//! way overflows and loses what was sent beyond it.
//!
//! ```text
//!  slow start ── least round trip of a round exceeds the last round's ──▶ conservative slow start ── five rounds ──▶ avoidance
//!       ▲                                                                      │ (grows by a quarter of it)
//!       └────────────────── it was a fluctuation: back below ──────────────────┘            loss at any time ──▶ avoidance
//! ```
//!
//! A round is what was sent by the time at which the one before was acknowledged. Round trips are taken from the echoes of
//! timestamps, of every ACK, in their unit of a millisecond.
//!
//! The least round trip of a round grows only when a queue stands from one round to the next. With a queue that holds one
//! round trip that is too late: by the time the ACKs show it, what overflows is on its way. Hence the other sign of `HyStart`'s
//! first form, which Linux goes by: ACKs that come in a row, without a pause, for half a round trip. A window then takes
//! that long to pass, so that the next doubling fills the path. What it leads to here is not the end of slow start but
//! conservative slow start, by which the window grows at most threefold more; where ACKs come in bunches, which makes rows of
//! them too, that costs some rounds and no more. It needs no timestamps. When round trips grow as well, a queue stands, both
//! signs agree, and slow start is over at once.

use super::Algorithm;
use crate::wire::SeqNum;

/// Samples that a round must have before it is judged (`N_RTT_SAMPLE`).
const SAMPLES: u8 = 8;
/// What round trips must have grown by: an eighth of the least one of the last round, within these bounds, in milliseconds
/// (`MIN_RTT_THRESH`, `MAX_RTT_THRESH`, `MIN_RTT_DIVISOR`).
const LEAST_GROWTH_MS: u16 = 4;
const MOST_GROWTH_MS: u16 = 16;
const GROWTH_DIVISOR: u16 = 8;
/// Rounds of conservative slow start (`CSS_ROUNDS`), and by how much less it grows (`CSS_GROWTH_DIVISOR`).
const CONSERVATIVE_ROUNDS: u8 = 5;
pub(super) const CONSERVATIVE_DIVISOR: u32 = 4;
/// Segments by which one ACK may let the window grow, without pacing (`L`).
pub(super) const MOST_SEGMENTS: u32 = 8;
/// Longest pause within a row of ACKs, in microseconds (`hystart_ack_delta_us` of Linux), and on short paths as a part of the
/// round trip. Longer: rows of ACKs where the line is idle between them; shorter: a receiver that answers late ends a row.
const ROW_PAUSE_US: u32 = 2000;
const ROW_PAUSE_DIVISOR: u32 = 8;
/// No sample.
const NONE: u16 = u16::MAX;

/// What is kept of the first slow start; when it is over, the law takes this place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HyStart {
    /// The law that follows.
    pub(super) then: Algorithm,
    /// The round ends with the first acknowledgment beyond this (`windowEnd`); `None` before the first one. That of this
    /// alone is the last one of its row, and the next comes after a pause.
    round_end: Option<SeqNum>,
    /// Least round trips of the last round and of this one, in milliseconds.
    last_ms: u16,
    least_ms: u16,
    /// The one with which conservative slow start began. Below it, that was for nothing (`cssBaselineMinRtt`); if a row of ACKs
    /// was the sign, round trips may still grow beyond it.
    baseline_ms: u16,
    /// When the round began, and when the last ACK came that is in a row with all since then, in microseconds.
    began_us: u32,
    row_us: u32,
    samples: u8,
    /// Rounds of conservative slow start, the present one included; 0 outside of it.
    conservative: u8,
    /// It began with a row of ACKs, not with longer round trips.
    by_row: bool,
}

/// What an ACK of something new says about the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// All below is acknowledged.
    pub ack: SeqNum,
    /// What will be sent next.
    pub nxt: SeqNum,
    /// The round trip by the echo of a timestamp, in milliseconds.
    pub rtt_ms: Option<u16>,
    /// Now, in microseconds; wraps.
    pub now_us: u32,
    /// The least round trip there was, in microseconds.
    pub least_us: u32,
}

/// Whether slow start goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum SlowStart {
    GoesOn,
    IsOver,
}

impl HyStart {
    pub(super) fn new(then: Algorithm) -> Self {
        Self {
            then,
            round_end: None,
            last_ms: NONE,
            least_ms: NONE,
            baseline_ms: NONE,
            began_us: 0,
            row_us: 0,
            samples: 0,
            conservative: 0,
            by_row: false,
        }
    }

    /// Whether it grows conservatively.
    pub(super) fn is_conservative(&self) -> bool {
        self.conservative > 0
    }

    pub(super) fn on_ack(&mut self, a: &Arrival) -> SlowStart {
        if self.round_end.is_none_or(|end| a.ack.after(end)) {
            if self.conservative == CONSERVATIVE_ROUNDS {
                return SlowStart::IsOver;
            }
            self.conservative += u8::from(self.is_conservative());
            self.round_end = Some(a.nxt);
            (self.began_us, self.row_us) = (a.now_us, a.now_us);
            (self.last_ms, self.least_ms, self.samples) = (self.least_ms, NONE, 0);
        }
        if let Some(ms) = a.rtt_ms {
            self.least_ms = self.least_ms.min(ms.min(NONE - 1));
            self.samples = self.samples.saturating_add(1);
        }
        if self.samples >= SAMPLES && self.judge() == SlowStart::IsOver {
            return SlowStart::IsOver;
        }
        self.look_at_row(a);
        SlowStart::GoesOn
    }

    fn look_at_row(&mut self, a: &Arrival) {
        if a.now_us.wrapping_sub(self.row_us) > ROW_PAUSE_US.min(a.least_us / ROW_PAUSE_DIVISOR) {
            return;
        }
        self.row_us = a.now_us;
        if !self.is_conservative() && a.now_us.wrapping_sub(self.began_us) > a.least_us / 2 {
            (self.conservative, self.by_row) = (1, true);
            self.baseline_ms = self.last_ms.min(self.least_ms);
        }
    }

    fn judge(&mut self) -> SlowStart {
        if self.by_row {
            if self.has_grown_from(self.baseline_ms) {
                return SlowStart::IsOver;
            }
        } else if self.is_conservative() {
            if self.least_ms < self.baseline_ms {
                (self.conservative, self.baseline_ms) = (0, NONE);
            }
        } else if self.has_grown_from(self.last_ms) {
            (self.conservative, self.baseline_ms) = (1, self.least_ms);
        }
        SlowStart::GoesOn
    }

    /// Whether the least round trip of this round is clearly longer than one of before.
    fn has_grown_from(&self, before_ms: u16) -> bool {
        let growth = (before_ms / GROWTH_DIVISOR).clamp(LEAST_GROWTH_MS, MOST_GROWTH_MS);
        before_ms != NONE && self.least_ms >= before_ms.saturating_add(growth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without a time there is no row.
    fn arrival(ack: SeqNum, nxt: SeqNum, rtt_ms: Option<u16>) -> Arrival {
        Arrival { ack, nxt, rtt_ms, now_us: 0, least_us: u32::MAX }
    }

    /// Rounds of ten segments, one ACK each, of which all show the round trip that is given for the round. Stops when slow
    /// start is over, and gives for each round whether it was conservative at its end.
    fn rounds(h: &mut HyStart, rtts: &[u16]) -> (Vec<bool>, SlowStart) {
        let mut at = SeqNum::new(u32::MAX - 20);
        let mut seen = Vec::new();
        for &rtt in rtts {
            for i in 1..=10 {
                if h.on_ack(&arrival(at + i, at + 9 + i, Some(rtt))) == SlowStart::IsOver {
                    return (seen, SlowStart::IsOver);
                }
            }
            at += 10;
            seen.push(h.is_conservative());
        }
        (seen, SlowStart::GoesOn)
    }

    #[test]
    fn d11_slow_start_turns_conservative_when_round_trips_grow_and_ends_five_rounds_later() {
        let mut h = HyStart::new(Algorithm::Cubic);
        let (seen, end) = rounds(&mut h, &[20, 20, 21, 25, 26, 27, 28, 29, 30, 31]);
        assert_eq!(seen, [false, false, false, true, true, true, true, true]);
        assert_eq!(end, SlowStart::IsOver);
    }

    #[test]
    fn d11_the_growth_that_counts_is_an_eighth_between_four_and_sixteen_milliseconds() {
        for (rtt, growth) in [(0, 4), (1, 4), (32, 4), (40, 5), (100, 12), (128, 16), (1000, 16)] {
            for (more, conservative) in [(growth - 1, false), (growth, true)] {
                let mut h = HyStart::new(Algorithm::Cubic);
                let (seen, _) = rounds(&mut h, &[rtt, rtt + more]);
                assert_eq!(seen, [false, conservative], "{rtt} ms and {more} more");
            }
        }
    }

    #[test]
    fn d11_a_fluctuation_of_the_round_trip_does_not_end_slow_start() {
        let mut h = HyStart::new(Algorithm::Cubic);
        let (seen, end) = rounds(&mut h, &[20, 40, 39, 20, 20, 20, 20, 20, 20]);
        assert_eq!(seen, [false, true, false, false, false, false, false, false, false]);
        assert_eq!(end, SlowStart::GoesOn);
    }

    #[test]
    fn d11_a_round_with_few_samples_is_not_judged() {
        let mut h = HyStart::new(Algorithm::NewReno);
        let seven = [Some(90), Some(90), Some(90), Some(90), Some(90), Some(90), Some(90), None, None, None];
        let _ = rounds(&mut h, &[20]);
        let at = SeqNum::new(u32::MAX - 10);
        for (i, rtt) in seven.into_iter().enumerate() {
            assert_eq!(h.on_ack(&arrival(at + 1 + i as u32, at + 20, rtt)), SlowStart::GoesOn);
            assert!(!h.is_conservative());
        }
        assert_eq!(h.on_ack(&arrival(at + 10, at + 20, Some(90))), SlowStart::GoesOn);
        assert!(h.is_conservative(), "the eighth");
    }

    #[test]
    fn d11_acks_in_a_row_for_half_a_round_trip_turn_slow_start_conservative() {
        // A round of 40 ACKs so far apart, in microseconds, with a round trip of 20 ms: whether it is conservative at its end.
        let round = |apart: u32, pause: u32, rtt_ms| {
            let mut h = HyStart::new(Algorithm::Cubic);
            let at = SeqNum::new(7);
            let mut now_us = u32::MAX - 3000;
            for i in 1..=40 {
                now_us = now_us.wrapping_add(if i == 20 { pause } else { apart });
                let a = Arrival { ack: at + i, nxt: at + 100, rtt_ms, now_us, least_us: 20_000 };
                assert_eq!(h.on_ack(&a), SlowStart::GoesOn);
            }
            h.is_conservative()
        };
        for rtt_ms in [None, Some(20)] {
            assert!(!round(250, 250, rtt_ms), "not for 10 ms");
            assert!(round(260, 260, rtt_ms), "for more");
            assert!(!round(260, 2001, rtt_ms), "with a pause");
        }
    }

    /// A row of ACKs of a round trip of 20 ms, six milliseconds long and with `rtt_ms` in its echoes, for a path of 10 ms.
    fn in_a_row(rtt_ms: Option<u16>) -> HyStart {
        let mut h = HyStart::new(Algorithm::Cubic);
        let at = SeqNum::new(u32::MAX - 20);
        for now_us in [0, 1000, 2000, 3000, 4000, 5000, 5100] {
            let a = Arrival { ack: at, nxt: at + 10, rtt_ms, now_us, least_us: 10_000 };
            assert_eq!(h.on_ack(&a), SlowStart::GoesOn);
        }
        assert!(h.is_conservative());
        h
    }

    #[test]
    fn d11_after_a_row_of_acks_slow_start_is_over_in_five_rounds_even_if_round_trips_are_as_before() {
        for (rtt_ms, then) in [(Some(20), 10), (Some(20), 23), (None, 90)] {
            let (seen, end) = rounds(&mut in_a_row(rtt_ms), &[then; 7]);
            assert_eq!((seen.len(), end), (5, SlowStart::IsOver), "{rtt_ms:?}, then {then}");
        }
    }

    #[test]
    fn d11_after_a_row_of_acks_slow_start_is_over_as_soon_as_round_trips_grow_too() {
        let (seen, end) = rounds(&mut in_a_row(Some(20)), &[20, 22, 24, 24]);
        assert_eq!((seen.len(), end), (2, SlowStart::IsOver), "little by little as well");
    }
}
