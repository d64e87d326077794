//! Round-trip time and the retransmission timeout (RFC 6298), in microseconds.

use crate::time::Time;
use std::time::Duration;

/// Lower bound of the RTO. RFC 6298 §2.4 says 1 s; every deployed stack uses 200 ms, which is above the delayed
/// ACK of any peer. Lower and a delayed ACK looks like a loss; higher and a lost FIN costs too long.
const MIN_RTO_US: u32 = 200_000;
/// Upper bound of the RTO with back-off (RFC 6298 §2.5: at least 60 s).
const MAX_RTO_US: u32 = 60_000_000;
/// RTO before the first sample (RFC 6298 §2.1).
const INITIAL_RTO_US: u32 = 1_000_000;
/// RTO of the first data after a handshake whose SYN (or SYN-ACK) was sent again and gave no sample (RFC 6298 §5.7).
const AFTER_LOST_SYN_US: u32 = 3_000_000;
/// Clock granularity `G`: the connection timers tick in milliseconds.
const GRANULARITY_US: u32 = 1_000;

/// Half the time for which the least round trip is remembered, in milliseconds: it is that of the last two and a half to five
/// minutes. Linux remembers for five (`tcp_min_rtt_wlen`). Longer: where a path grew longer, reordering is given too little
/// time for so long; shorter: a queue that stands for that long counts as the path's own.
const LEAST_HALF_MS: u64 = 150_000;

/// Smoothed round-trip time, its variation, and the back-off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rtt {
    srtt_us: u32,
    rttvar_us: u32,
    /// The least sample of this half of the window and of the one before.
    least_us: u32,
    /// The least sample of this half.
    newest_us: u32,
    /// The number of this half, as far as it has room: after a silence of whole multiples of ten hours an old one counts as new.
    half: u8,
    /// The SYN was sent again and gave no sample.
    lost_syn: bool,
    backoff: u8,
    /// Timeouts since something new was last acknowledged.
    timeouts: u8,
}

impl Default for Rtt {
    fn default() -> Self {
        Self {
            srtt_us: 0,
            rttvar_us: 0,
            least_us: u32::MAX,
            newest_us: u32::MAX,
            half: 0,
            lost_syn: false,
            backoff: 0,
            timeouts: 0,
        }
    }
}

impl Rtt {
    /// Takes a sample (never one of a retransmitted segment without timestamps: Karn, RFC 6298 §3). It ends the
    /// back-off (§5.7, last paragraph).
    pub fn sample(&mut self, rtt: Duration, now: Time) {
        self.sample_micros(u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX), now);
    }

    /// As [`sample`](Self::sample), in microseconds.
    pub fn sample_micros(&mut self, us: u64, now: Time) {
        let r = us.clamp(1, u64::from(MAX_RTO_US)) as u32;
        self.remember_least(r, now);
        if self.srtt_us == 0 {
            self.srtt_us = r;
            self.rttvar_us = r / 2;
        } else {
            // RFC 6298 §2.3 with alpha 1/8 and beta 1/4; the variation first.
            self.rttvar_us = self.rttvar_us - self.rttvar_us / 4 + self.srtt_us.abs_diff(r) / 4;
            self.srtt_us = self.srtt_us - self.srtt_us / 8 + r / 8;
        }
        self.backoff = 0;
        self.timeouts = 0;
    }

    /// The least of a window that moves by halves (RFC 8985 §6.2 wants one that forgets).
    fn remember_least(&mut self, us: u32, now: Time) {
        let half = (now.millis() / LEAST_HALF_MS) as u8;
        match half.wrapping_sub(self.half) {
            0 => self.newest_us = self.newest_us.min(us),
            passed => {
                self.least_us = if passed == 1 { self.newest_us } else { us };
                (self.half, self.newest_us) = (half, us);
            }
        }
        self.least_us = self.least_us.min(us);
    }

    /// The timeout without back-off.
    fn base_us(&self) -> u32 {
        match (self.srtt_us, self.lost_syn) {
            (0, false) => INITIAL_RTO_US,
            (0, true) => AFTER_LOST_SYN_US,
            (srtt, _) => (srtt + GRANULARITY_US.max(4 * self.rttvar_us)).clamp(MIN_RTO_US, MAX_RTO_US),
        }
    }

    /// The timeout now, back-off included.
    #[must_use]
    pub fn rto(&self) -> Duration {
        let us = u64::from(self.base_us()) << self.backoff.min(16);
        Duration::from_micros(us.min(u64::from(MAX_RTO_US)))
    }

    /// A timeout passed unanswered: the next one is twice as long (RFC 6298 §5.5).
    pub fn back_off(&mut self) {
        self.backoff = self.backoff.saturating_add(1).min(16);
        self.timeouts = self.timeouts.saturating_add(1);
    }

    /// Something new was acknowledged, perhaps by a retransmission. The back-off stays until there is a sample
    /// (Karn's second half, RFC 6298 §5.7): where the true round trip is longer than the RTO, it is what lets a
    /// segment ever be timed.
    pub fn progressed(&mut self) {
        self.timeouts = 0;
    }

    /// What was backed off for was no loss: a closed window has opened.
    pub fn window_opened(&mut self) {
        self.backoff = 0;
        self.timeouts = 0;
    }

    /// The handshake is complete. Without a sample the SYN had to be sent again, and data begins with an RTO of three
    /// seconds (RFC 6298 §5.7).
    pub fn handshake_done(&mut self, sampled: bool) {
        self.lost_syn = !sampled;
        self.backoff = 0;
        self.timeouts = 0;
    }

    /// Whether what waits for an acknowledgment has timed out before.
    #[must_use]
    pub fn timed_out_before(&self) -> bool {
        self.timeouts > 0
    }

    /// Timeouts since something new was last acknowledged.
    #[must_use]
    pub fn timeouts(&self) -> u8 {
        self.timeouts
    }

    /// Whether the RTO is backed off: no sample since a timeout.
    #[must_use]
    pub fn backed_off(&self) -> bool {
        self.backoff > 0
    }

    /// The least round-trip time of the last minutes; zero before the first sample.
    #[must_use]
    pub fn least(&self) -> Duration {
        Duration::from_micros(u64::from(self.least_us.min(self.srtt_us)))
    }

    /// Timeouts since there was a sample.
    #[must_use]
    pub fn backoffs(&self) -> u8 {
        self.backoff
    }

    /// Smoothed round-trip time; zero before the first sample.
    #[must_use]
    pub fn srtt(&self) -> Duration {
        Duration::from_micros(u64::from(self.srtt_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;
    const NOW: Time = Time::from_micros(1_000_000);

    #[test]
    fn d09_rto_follows_rfc_6298() {
        let mut r = Rtt::default();
        assert_eq!(r.rto(), MS(1000), "before the first sample");
        r.sample(MS(500), NOW);
        assert_eq!(r.rto(), MS(1500), "SRTT + 4 * RTT/2");
        r.sample(MS(500), NOW);
        assert_eq!(r.rto(), MS(1250), "the variation decays by a quarter");
        for _ in 0..100 {
            r.sample(Duration::from_micros(50), NOW);
        }
        assert_eq!(r.rto(), MS(200), "the lower bound");
    }

    #[test]
    fn d09_back_off_doubles_to_the_bound_and_ends_with_a_sample_only() {
        let mut r = Rtt::default();
        for want in [2, 4, 8, 16, 32, 60, 60] {
            r.back_off();
            assert_eq!(r.rto(), Duration::from_secs(want));
        }
        assert!(r.timed_out_before() && r.backed_off());
        r.progressed();
        assert!(!r.timed_out_before());
        assert_eq!(r.rto(), Duration::from_secs(60), "Karn: an ACK of a retransmission proves no round trip");
        r.sample(MS(500), NOW);
        assert_eq!(r.rto(), MS(1500));
        assert!(!r.backed_off());
    }

    #[test]
    fn d09_a_lost_syn_without_a_sample_makes_the_first_rto_three_seconds() {
        let mut r = Rtt::default();
        r.back_off();
        r.back_off();
        r.handshake_done(false);
        assert_eq!(r.rto(), MS(3000));
        assert!(!r.backed_off());
        let mut timed = Rtt::default();
        timed.back_off();
        timed.sample(MS(100), NOW);
        timed.handshake_done(true);
        assert_eq!(timed.rto(), MS(300), "timestamps gave a sample");
    }

    #[test]
    fn d09_an_opened_window_ends_the_probes_back_off() {
        let mut r = Rtt::default();
        r.back_off();
        r.back_off();
        r.window_opened();
        assert_eq!(r.rto(), MS(1000));
    }

    #[test]
    fn d09_samples_of_any_size_keep_the_rto_within_its_bounds() {
        for us in [0, 1, 999, 200_000, 59_999_999, 60_000_000, u64::MAX / 2] {
            let mut r = Rtt::default();
            for _ in 0..50 {
                r.sample(Duration::from_micros(us), NOW);
                assert!(r.rto() >= MS(200) && r.rto() <= Duration::from_secs(60), "{us}: {:?}", r.rto());
            }
            assert!(r.srtt() > Duration::ZERO);
        }
    }

    #[test]
    fn d10_the_least_round_trip_is_forgotten_within_five_minutes() {
        let half = Duration::from_millis(LEAST_HALF_MS);
        let mut r = Rtt::default();
        r.sample(MS(10), NOW);
        for quarter in 1..=8 {
            r.sample(MS(50), NOW + half / 4 * quarter);
            let remembered = r.least_us == 10_000;
            assert_eq!(remembered, quarter < 8, "{quarter} quarters of a half later: {}", r.least_us);
        }
        assert_eq!(r.least_us, 50_000);
        r.sample(MS(20), NOW + half * 2);
        assert_eq!(r.least_us, 20_000, "what is less counts at once");
        r.sample(MS(80), NOW + half * 7);
        assert_eq!(r.least_us, 80_000, "after a long silence nothing of before counts");
    }
}
