//! NewReno (RFC 5681, RFC 6582), with the initial window of RFC 6928.

use crate::wire::SeqNum;

/// Segments of the initial window (RFC 6928 §2).
const INITIAL_SEGMENTS: u32 = 10;
/// Bytes of the initial window where segments are large; two of them may be more (RFC 6928 §2).
const INITIAL_BYTES: u32 = 14_600;
/// Duplicate acknowledgments that mean a loss (RFC 5681 §3.2).
const DUP_THRESHOLD: u8 = 3;

/// The window and the state of fast recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewReno {
    cwnd: u32,
    ssthresh: u32,
    mss: u32,
    /// Highest sequence number sent when the last loss was found: one reduction a window.
    recover: SeqNum,
    dup_acks: u8,
    recovering: bool,
}

/// What an acknowledgment asks the sender to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum AckVerdict {
    /// Nothing beyond sending what the window allows.
    Continue,
    /// Send the first unacknowledged segment again now.
    Retransmit,
}

impl NewReno {
    /// For a connection that sends segments of `mss` bytes from `iss` on.
    #[must_use]
    pub fn new(mss: u16, iss: SeqNum) -> Self {
        let mss = u32::from(mss);
        Self {
            cwnd: (INITIAL_SEGMENTS * mss).min(INITIAL_BYTES.max(2 * mss)),
            ssthresh: u32::MAX,
            mss,
            recover: iss,
            dup_acks: 0,
            recovering: false,
        }
    }

    /// Bytes that may be in flight.
    #[must_use]
    pub const fn window(&self) -> u32 {
        self.cwnd
    }

    /// Segments are of another size from now on; what was sent up to `max` is sent again for that reason and not for a
    /// loss, so its duplicates mean none. The window stays (RFC 1191 §6.5), but holds one segment at least.
    pub fn set_mss(&mut self, mss: u16, max: SeqNum) {
        self.mss = u32::from(mss);
        self.cwnd = self.cwnd.max(self.mss);
        self.recover = max;
        self.recovering = false;
        self.dup_acks = 0;
    }

    /// New data up to `ack` was acknowledged, `acked` bytes of it; `flight` bytes remain.
    pub fn on_ack(&mut self, ack: SeqNum, acked: u32, flight: u32) -> AckVerdict {
        self.dup_acks = 0;
        if self.recovering {
            if ack.at_or_after(self.recover) {
                // RFC 6582 §3.2 step 3, full acknowledgment: deflate without a burst.
                self.recovering = false;
                self.cwnd = self.ssthresh.min(flight.max(self.mss) + self.mss);
                return AckVerdict::Continue;
            }
            // Partial acknowledgment: the next hole is lost too.
            self.cwnd = self.cwnd.saturating_sub(acked).max(self.mss) + self.mss;
            return AckVerdict::Retransmit;
        }
        let grow = if self.cwnd < self.ssthresh {
            acked.min(self.mss)
        } else {
            (self.mss.saturating_mul(self.mss) / self.cwnd.max(1)).max(1)
        };
        self.cwnd = self.cwnd.saturating_add(grow);
        AckVerdict::Continue
    }

    /// A duplicate acknowledgment of `una` with `flight` bytes out, `max` the highest sequence number sent.
    pub fn on_duplicate(&mut self, una: SeqNum, max: SeqNum, flight: u32) -> AckVerdict {
        self.dup_acks = self.dup_acks.saturating_add(1);
        if self.recovering {
            self.cwnd = self.cwnd.saturating_add(self.mss);
            return AckVerdict::Continue;
        }
        if self.dup_acks == DUP_THRESHOLD && una.after(self.recover) {
            self.ssthresh = (flight / 2).max(2 * self.mss);
            self.recover = max;
            self.recovering = true;
            self.cwnd = self.ssthresh + u32::from(DUP_THRESHOLD) * self.mss;
            return AckVerdict::Retransmit;
        }
        AckVerdict::Continue
    }

    /// The retransmission timer fired with `flight` bytes out (RFC 5681 §3.1: loss window of one segment).
    /// `again` says that the same data timed out before: the threshold is then kept.
    pub fn on_timeout(&mut self, max: SeqNum, flight: u32, again: bool) {
        if !again {
            self.ssthresh = (flight / 2).max(2 * self.mss);
        }
        self.cwnd = self.mss;
        self.recover = max;
        self.recovering = false;
        self.dup_acks = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seq(n: u32) -> SeqNum {
        SeqNum::new(n)
    }

    #[test]
    fn d11_slow_start_then_avoidance() {
        let mut c = NewReno::new(1000, seq(0));
        assert_eq!(c.window(), 10_000);
        assert_eq!(c.on_ack(seq(1000), 1000, 0), AckVerdict::Continue);
        assert_eq!(c.window(), 11_000);
        c.on_timeout(seq(20_000), 10_000, false);
        assert_eq!(c.window(), 1000);
        for i in 1..=4 {
            assert_eq!(c.on_ack(seq(20_000 + i * 1000), 1000, 0), AckVerdict::Continue);
        }
        assert_eq!(c.window(), 5000);
        assert_eq!(c.on_ack(seq(30_000), 1000, 0), AckVerdict::Continue);
        assert_eq!(c.window(), 5200, "beyond the threshold a segment per window");
    }

    #[test]
    fn d10_three_duplicates_retransmit_once_and_partial_acks_go_on() {
        let mut c = NewReno::new(1000, seq(0));
        let (una, max) = (seq(1000), seq(11_000));
        assert_eq!(c.on_duplicate(una, max, 10_000), AckVerdict::Continue);
        assert_eq!(c.on_duplicate(una, max, 10_000), AckVerdict::Continue);
        assert_eq!(c.on_duplicate(una, max, 10_000), AckVerdict::Retransmit);
        assert_eq!(c.window(), 8000, "half the flight plus three");
        assert_eq!(c.on_duplicate(una, max, 10_000), AckVerdict::Continue);
        assert_eq!(c.on_ack(seq(3000), 2000, 8000), AckVerdict::Retransmit, "partial");
        assert_eq!(c.on_ack(seq(11_000), 8000, 0), AckVerdict::Continue, "full");
        assert_eq!(c.window(), 2000, "no burst after recovery with nothing in flight");
    }

    #[test]
    fn d10_no_second_reduction_within_the_same_window() {
        let mut c = NewReno::new(1000, seq(0));
        c.on_timeout(seq(11_000), 10_000, false);
        for _ in 0..5 {
            assert_eq!(c.on_duplicate(seq(5000), seq(11_000), 6000), AckVerdict::Continue);
        }
    }

    #[test]
    fn d11_the_initial_window_is_that_of_rfc_6928() {
        for (mss, window) in [(88, 880), (536, 5360), (1460, 14_600), (1461, 14_600), (8960, 17_920)] {
            assert_eq!(NewReno::new(mss, seq(0)).window(), window, "{mss}");
        }
    }

    #[test]
    fn d10_two_duplicates_and_an_ack_are_no_loss() {
        let mut c = NewReno::new(1000, seq(0));
        for i in 1..50 {
            for _ in 0..2 {
                assert_eq!(c.on_duplicate(seq(i * 1000), seq(90_000), 9000), AckVerdict::Continue);
            }
            assert_eq!(c.on_ack(seq(i * 1000 + 1000), 1000, 9000), AckVerdict::Continue);
        }
    }

    #[test]
    fn d09_a_second_timeout_of_the_same_data_keeps_the_threshold() {
        let mut c = NewReno::new(1000, seq(0));
        c.on_timeout(seq(20_000), 20_000, false);
        c.on_timeout(seq(20_000), 1000, true);
        assert_eq!(c.window(), 1000);
        for i in 0..9 {
            assert_eq!(c.on_ack(seq(20_000 + i * 1000), 1000, 0), AckVerdict::Continue);
        }
        assert_eq!(c.window(), 10_000, "slow start up to half of what was in flight at first");
        assert_eq!(c.on_ack(seq(40_000), 1000, 0), AckVerdict::Continue);
        assert_eq!(c.window(), 10_100);
    }

    #[test]
    fn d11_the_window_never_wraps_or_reaches_zero() {
        let mut c = NewReno::new(u16::MAX, seq(0));
        for _ in 0..100_000 {
            let _ = c.on_ack(seq(1), u32::MAX, 0);
        }
        assert!(c.window() > 1 << 30);
        for _ in 0..3 {
            let _ = c.on_duplicate(seq(5), seq(9), 4);
        }
        for _ in 0..10 {
            let _ = c.on_ack(seq(6), u32::MAX, 1);
            assert!(c.window() >= u32::from(u16::MAX));
        }
    }
}
