//! Round-trip time and the retransmission timeout (RFC 6298), in microseconds.

use std::time::Duration;

/// Lower bound of the RTO. RFC 6298 §2.4 says 1 s; every deployed stack uses 200 ms, which is above the delayed
/// ACK of any peer. Lower and a delayed ACK looks like a loss; higher and a lost FIN costs too long.
const MIN_RTO_US: u32 = 200_000;
/// Upper bound of the RTO with back-off (RFC 6298 §2.5: at least 60 s).
const MAX_RTO_US: u32 = 60_000_000;
/// RTO before the first sample (RFC 6298 §2.1).
const INITIAL_RTO_US: u32 = 1_000_000;
/// RTO after a handshake whose SYN was sent again (RFC 6298 §5.7), until there is a sample.
const REPEATED_SYN_RTO_US: u32 = 3_000_000;
/// Clock granularity `G`: the connection timers tick in milliseconds.
const GRANULARITY_US: u32 = 1_000;

/// Smoothed round-trip time, its variation, and the back-off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rtt {
    srtt_us: u32,
    rttvar_us: u32,
    rto_us: u32,
    backoff: u8,
}

impl Default for Rtt {
    fn default() -> Self {
        Self { srtt_us: 0, rttvar_us: 0, rto_us: INITIAL_RTO_US, backoff: 0 }
    }
}

impl Rtt {
    /// Takes a sample (never one of a retransmitted segment without timestamps: Karn, RFC 6298 §3).
    pub fn sample(&mut self, rtt: Duration) {
        let r = u32::try_from(rtt.as_micros()).unwrap_or(MAX_RTO_US).clamp(1, MAX_RTO_US);
        if self.srtt_us == 0 {
            self.srtt_us = r;
            self.rttvar_us = r / 2;
        } else {
            // RFC 6298 §2.3 with alpha 1/8 and beta 1/4; the variation first.
            self.rttvar_us = self.rttvar_us - self.rttvar_us / 4 + self.srtt_us.abs_diff(r) / 4;
            self.srtt_us = self.srtt_us - self.srtt_us / 8 + r / 8;
        }
        self.rto_us = (self.srtt_us + GRANULARITY_US.max(4 * self.rttvar_us)).clamp(MIN_RTO_US, MAX_RTO_US);
    }

    /// The handshake gave no sample because the SYN was sent again: data begins with a careful timeout
    /// (RFC 6298 §5.7).
    pub fn syn_was_repeated(&mut self) {
        if self.srtt_us == 0 {
            self.rto_us = REPEATED_SYN_RTO_US;
        }
    }

    /// The timeout now, back-off included.
    #[must_use]
    pub fn rto(&self) -> Duration {
        let us = u64::from(self.rto_us) << self.backoff.min(16);
        Duration::from_micros(us.min(u64::from(MAX_RTO_US)))
    }

    /// A timeout passed unanswered: the next one is twice as long (RFC 6298 §5.5).
    pub fn back_off(&mut self) {
        self.backoff = self.backoff.saturating_add(1).min(16);
    }

    /// New data was acknowledged: the back-off ends (RFC 6298 §5.3 with §5.7).
    pub fn answered(&mut self) {
        self.backoff = 0;
    }

    /// Whether a timeout is unanswered.
    #[must_use]
    pub fn backed_off(&self) -> bool {
        self.backoff > 0
    }

    /// Whether exactly one timeout is unanswered.
    #[must_use]
    pub fn backed_off_once(&self) -> bool {
        self.backoff == 1
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

    #[test]
    fn d09_rto_follows_rfc_6298() {
        let mut r = Rtt::default();
        assert_eq!(r.rto(), MS(1000), "before the first sample");
        r.sample(MS(500));
        assert_eq!(r.rto(), MS(1500), "SRTT + 4 * RTT/2");
        r.sample(MS(500));
        assert_eq!(r.rto(), MS(1250), "the variation decays by a quarter");
        for _ in 0..100 {
            r.sample(Duration::from_micros(50));
        }
        assert_eq!(r.rto(), MS(200), "the lower bound");
    }

    #[test]
    fn d09_back_off_doubles_to_the_bound_and_ends_with_an_answer() {
        let mut r = Rtt::default();
        for want in [2, 4, 8, 16, 32, 60, 60] {
            r.back_off();
            assert_eq!(r.rto(), Duration::from_secs(want));
        }
        r.answered();
        assert_eq!(r.rto(), Duration::from_secs(1));
    }
}
