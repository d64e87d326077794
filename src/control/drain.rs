//! When a drain goes on to its next step: a decision from populations and the clock, without effects.
//!
//! ```text
//! Closing ──all closed, nobody in TIME_WAIT──────────────────────────────▶ stop
//!    │  └───all closed──▶ Grace ──no FIN can come again──────────────────▶ stop
//!    └──────────────the reserve before the deadline begins──▶ CuttingOff ──▶ stop
//! ```

use crate::metrics::block::Counters;
use crate::tcp::state::State;
use std::time::{Duration, Instant};

/// How long records in `TIME_WAIT` may still answer when everything else is closed. A peer whose FIN was not
/// acknowledged, because the ACK was lost, sends it again after its retransmission timeout, which is at least one second
/// (RFC 6298 §2.4; Linux takes 0.2 s on a short path), and half a second is left for the way and the back-off of a
/// faster peer. Shorter, and such a peer meets the kernel, which answers with RST; longer, and every stop takes longer
/// for a loss that is rarer still.
pub const GRACE: Duration = Duration::from_millis(1500);

/// How long half-open connections are waited for: the first retransmission of a SYN-ACK (1 s, RFC 6298 §2.1) has had its
/// answer by then. Without a bound a flood of SYNs would hold every drain up to its deadline.
pub const HALF_OPEN_WAIT: Duration = Duration::from_secs(2);

/// What of the deadline is kept back for resetting what is left, so that the process has ended when the deadline
/// passes. A worker resets some hundred thousand connections in this time.
const RESERVE: Duration = Duration::from_millis(500);

/// Of a short deadline no more than this part is kept back.
const RESERVE_PART: u32 = 4;

/// Populations that matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Synchronized connections that have not ended.
    pub live: u64,
    /// Handshakes under way.
    pub half_open: u64,
    /// `TIME_WAIT` records.
    pub time_wait: u64,
}

impl Left {
    /// From a worker's counters, or those of all.
    #[must_use]
    pub fn of(c: &Counters) -> Self {
        let mut left = Self::default();
        for (state, &n) in State::ALL.iter().zip(&c.states) {
            match state {
                State::Established
                | State::FinWait1
                | State::FinWait2
                | State::CloseWait
                | State::Closing
                | State::LastAck => left.live += n,
                State::SynSent | State::SynReceived => left.half_open += n,
                State::TimeWait => left.time_wait += n,
                State::Closed | State::Listen => {}
            }
        }
        left
    }
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// Ask again soon.
    Wait,
    /// Reset what is left; then ask again.
    CutOff,
    /// Stop the workers.
    Stop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Closing,
    /// Everything was closed at this moment.
    Grace(Instant),
    CuttingOff,
}

/// A drain under way.
#[derive(Clone, Copy, Debug)]
pub struct Drain {
    began: Instant,
    cut_off_at: Instant,
    ends_at: Instant,
    stage: Stage,
}

impl Drain {
    /// A drain that begins at `now` and has ended `deadline` later.
    #[must_use]
    pub fn begin(now: Instant, deadline: Duration) -> Self {
        let reserve = RESERVE.min(deadline / RESERVE_PART);
        Self {
            began: now,
            cut_off_at: now + (deadline - reserve),
            // Even without any time the RSTs get some.
            ends_at: now + deadline.max(RESERVE / RESERVE_PART),
            stage: Stage::Closing,
        }
    }

    /// Brings the deadline forward, if the new one is earlier.
    pub fn hasten(&mut self, now: Instant, deadline: Duration) {
        let other = Self::begin(now, deadline);
        self.cut_off_at = self.cut_off_at.min(other.cut_off_at);
        self.ends_at = self.ends_at.min(other.ends_at);
    }

    /// When it began.
    #[must_use]
    pub const fn began(&self) -> Instant {
        self.began
    }

    /// Whether what was left has been reset.
    #[must_use]
    pub fn was_cut_off(&self) -> bool {
        self.stage == Stage::CuttingOff
    }

    /// Decides by what the workers have left. Asked again and again until it says [`Step::Stop`].
    pub fn step(&mut self, now: Instant, left: Left) -> Step {
        let closed = left.live == 0 && (left.half_open == 0 || now >= self.began + HALF_OPEN_WAIT);
        match self.stage {
            Stage::CuttingOff => {
                if left.live == 0 && left.half_open == 0 || now >= self.ends_at {
                    return Step::Stop;
                }
            }
            Stage::Closing | Stage::Grace(_) if closed => {
                let since = match self.stage {
                    Stage::Grace(since) => since,
                    Stage::Closing | Stage::CuttingOff => now,
                };
                self.stage = Stage::Grace(since);
                if left.time_wait == 0 || now >= (since + GRACE).min(self.cut_off_at) {
                    return Step::Stop;
                }
            }
            Stage::Closing | Stage::Grace(_) => {
                self.stage = Stage::Closing;
                if now >= self.cut_off_at {
                    self.stage = Stage::CuttingOff;
                    return Step::CutOff;
                }
            }
        }
        Step::Wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Left = Left { live: 0, half_open: 0, time_wait: 0 };
    const LIVE: Left = Left { live: 3, ..NONE };
    const HALF: Left = Left { half_open: 9, ..NONE };
    const WAIT: Left = Left { time_wait: 5, ..NONE };
    const DEADLINE: Duration = Duration::from_secs(30);

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn with_nothing_left_it_stops_at_once() {
        let t = Instant::now();
        assert_eq!(Drain::begin(t, DEADLINE).step(t, NONE), Step::Stop);
    }

    #[test]
    fn time_wait_gets_its_grace_after_the_last_close() {
        let t = Instant::now();
        let mut d = Drain::begin(t, DEADLINE);
        assert_eq!(d.step(t, LIVE), Step::Wait);
        assert_eq!(d.step(t + ms(4000), WAIT), Step::Wait);
        assert_eq!(d.step(t + ms(4000) + GRACE - ms(1), WAIT), Step::Wait);
        assert_eq!(d.step(t + ms(4000) + GRACE, WAIT), Step::Stop);
        assert!(!d.was_cut_off());
    }

    #[test]
    fn a_connection_that_completes_in_the_grace_begins_it_anew() {
        let t = Instant::now();
        let mut d = Drain::begin(t, DEADLINE);
        assert_eq!(d.step(t, WAIT), Step::Wait);
        assert_eq!(d.step(t + ms(1000), LIVE), Step::Wait);
        assert_eq!(d.step(t + ms(2000), WAIT), Step::Wait);
        assert_eq!(d.step(t + ms(3000), WAIT), Step::Wait);
        assert_eq!(d.step(t + ms(2000) + GRACE, WAIT), Step::Stop);
    }

    #[test]
    fn half_open_connections_are_waited_for_but_not_for_ever() {
        let t = Instant::now();
        let mut d = Drain::begin(t, DEADLINE);
        assert_eq!(d.step(t, HALF), Step::Wait);
        assert_eq!(d.step(t + HALF_OPEN_WAIT - ms(1), HALF), Step::Wait);
        assert_eq!(d.step(t + HALF_OPEN_WAIT, HALF), Step::Stop);
    }

    #[test]
    fn what_is_left_is_cut_off_before_the_deadline_and_never_waited_for_after_it() {
        let t = Instant::now();
        let mut d = Drain::begin(t, DEADLINE);
        assert_eq!(d.step(t + DEADLINE - RESERVE - ms(1), LIVE), Step::Wait);
        assert_eq!(d.step(t + DEADLINE - RESERVE, LIVE), Step::CutOff);
        assert!(d.was_cut_off());
        assert_eq!(d.step(t + DEADLINE - ms(1), LIVE), Step::Wait);
        assert_eq!(d.step(t + DEADLINE, LIVE), Step::Stop);
    }

    #[test]
    fn once_cut_off_it_stops_when_nothing_is_left() {
        let t = Instant::now();
        let mut d = Drain::begin(t, Duration::ZERO);
        assert_eq!(d.step(t, LIVE), Step::CutOff);
        assert_eq!(d.step(t + ms(1), LIVE), Step::Wait);
        assert_eq!(d.step(t + ms(2), WAIT), Step::Stop);
    }

    #[test]
    fn the_grace_ends_with_the_deadline() {
        let t = Instant::now();
        let mut d = Drain::begin(t, ms(1000));
        assert_eq!(d.step(t, WAIT), Step::Wait);
        assert_eq!(d.step(t + ms(750), WAIT), Step::Stop);
    }

    #[test]
    fn a_second_reason_can_only_hasten() {
        let t = Instant::now();
        let mut d = Drain::begin(t, ms(1000));
        d.hasten(t, DEADLINE);
        assert_eq!(d.step(t + ms(750), LIVE), Step::CutOff);
        let mut d = Drain::begin(t, DEADLINE);
        d.hasten(t + ms(10), Duration::ZERO);
        assert_eq!(d.step(t + ms(10), LIVE), Step::CutOff);
    }
}
