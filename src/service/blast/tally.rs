//! What a generator has seen: counts that add up, and latencies.

use crate::tcp::record::ClosePath;
use hdrhistogram::Histogram;
use std::time::Duration;

/// Why a connection is not a success; each that failed has exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Failure {
    /// The SYN was answered by RST, or by a hard ICMP error.
    Refused,
    /// No end within the time limit, of the handshake, the exchange or the close; or given up by TCP.
    Timeout,
    /// The peer sent RST.
    Reset,
    /// The answer is not what was asked for: a status other than 2xx, no HTTP, other bytes, more than was due.
    BadResponse,
    /// The peer closed before its answer was complete.
    ShortRead,
    /// The peer closed while the connection was to be held.
    ClosedEarly,
    /// No local address and port was free. The run ends with it.
    NoLocalPort,
    /// Due, and not opened in time: the generator fell behind the rate.
    Missed,
}

impl Failure {
    /// All, in counter order.
    pub const ALL: [Self; 8] = [
        Self::Refused,
        Self::Timeout,
        Self::Reset,
        Self::BadResponse,
        Self::ShortRead,
        Self::ClosedEarly,
        Self::NoLocalPort,
        Self::Missed,
    ];

    /// The key in reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::BadResponse => "bad_response",
            Self::ShortRead => "short_read",
            Self::ClosedEarly => "closed_early",
            Self::NoLocalPort => "no_local_port",
            Self::Missed => "missed",
        }
    }
}

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Lap {
    /// From the intended start to `ESTABLISHED`.
    Handshake,
    /// From the intended start to the first byte of the answer.
    FirstByte,
    /// From our FIN to the end: `TIME_WAIT`, or the peer's acknowledgment of it.
    Close,
    /// From the intended start to the end, of connections that succeeded.
    Total,
}

impl Lap {
    /// All, in order.
    pub const ALL: [Self; 4] = [Self::Handshake, Self::FirstByte, Self::Close, Self::Total];

    /// The key in reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::FirstByte => "first_byte",
            Self::Close => "close",
            Self::Total => "total",
        }
    }
}

/// The longest time that is told apart: an hour, beyond any time limit.
const LONGEST_US: u64 = 3_600_000_000;

/// What was counted since the last report, and gauges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections begun: a SYN was sent, or was to be.
    pub begun: u64,
    /// Of those, opened.
    pub opened: u64,
    /// Of those, answered as asked.
    pub answered: u64,
    /// Of those, ended as asked.
    pub completed: u64,
    /// Ended by the end of the run: neither a success nor a failure.
    pub cut_short: u64,
    /// Failed, by [`Failure`].
    pub failures: [u64; Failure::ALL.len()],
    /// Ends by [`ClosePath`].
    pub paths: [u64; ClosePath::ALL.len()],
    /// Payload bytes sent and acknowledged.
    pub bytes_out: u64,
    /// Payload bytes received.
    pub bytes_in: u64,
    /// Gauge: begun and not ended.
    pub live: u64,
    /// Gauge: the most there were.
    pub peak: u64,
}

impl Counts {
    /// How many failed in this way.
    #[must_use]
    pub const fn failed(&self, how: Failure) -> u64 {
        self.failures[how as usize]
    }

    /// How many failed.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.failures.iter().sum()
    }
}

/// Counts and latencies.
#[derive(Clone, Debug)]
pub struct Tally {
    /// The counts.
    pub counts: Counts,
    /// Latencies in microseconds, by [`Lap`].
    laps: [Histogram<u64>; Lap::ALL.len()],
}

impl Default for Tally {
    fn default() -> Self {
        let histogram = || {
            // The bounds are constants that hdrhistogram accepts: 1 <= low, 2 * low <= high, 0 < digits <= 5.
            Histogram::new_with_bounds(1, LONGEST_US, 3)
                .unwrap_or_else(|e| unreachable!("constant bounds: {e}"))
        };
        Self { counts: Counts::default(), laps: std::array::from_fn(|_| histogram()) }
    }
}

impl Tally {
    /// Records a time.
    pub fn lap(&mut self, lap: Lap, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).clamp(1, LONGEST_US);
        self.laps[lap as usize].saturating_record(us);
    }

    /// The times of a lap.
    #[must_use]
    pub const fn times(&self, lap: Lap) -> &Histogram<u64> {
        &self.laps[lap as usize]
    }

    /// Adds what was counted later, or by another worker; gauges are left alone, they do not add up over time.
    pub fn merge(&mut self, other: &Self) {
        let (c, o) = (&mut self.counts, &other.counts);
        let sums = [
            (&mut c.begun, o.begun),
            (&mut c.opened, o.opened),
            (&mut c.answered, o.answered),
            (&mut c.completed, o.completed),
            (&mut c.cut_short, o.cut_short),
            (&mut c.bytes_out, o.bytes_out),
            (&mut c.bytes_in, o.bytes_in),
        ];
        let lists = c.failures.iter_mut().zip(o.failures).chain(c.paths.iter_mut().zip(o.paths));
        for (mine, theirs) in sums.into_iter().chain(lists) {
            *mine += theirs;
        }
        for (mine, theirs) in self.laps.iter_mut().zip(&other.laps) {
            // All are made with the same bounds, which is all that an addition can fail for.
            mine.add(theirs).unwrap_or_else(|e| unreachable!("histograms of one shape: {e}"));
        }
    }

    /// Forgets everything, keeping the memory.
    pub fn reset(&mut self) {
        self.counts = Counts::default();
        self.laps.iter_mut().for_each(Histogram::reset);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_adds_every_count_and_every_time_and_no_gauge() {
        let counts = Counts {
            begun: 1,
            opened: 2,
            answered: 3,
            completed: 4,
            cut_short: 5,
            failures: [6; Failure::ALL.len()],
            paths: [7; ClosePath::ALL.len()],
            bytes_out: 8,
            bytes_in: 9,
            live: 10,
            peak: 11,
        };
        let mut a = Tally { counts, ..Tally::default() };
        a.lap(Lap::Close, Duration::from_millis(5));
        a.lap(Lap::Close, Duration::from_secs(1 << 40));
        a.lap(Lap::Close, Duration::ZERO);
        let mut sum = Tally::default();
        sum.merge(&a);
        sum.merge(&a);
        let want = Counts {
            begun: 2,
            opened: 4,
            answered: 6,
            completed: 8,
            cut_short: 10,
            failures: [12; Failure::ALL.len()],
            paths: [14; ClosePath::ALL.len()],
            bytes_out: 16,
            bytes_in: 18,
            live: 0,
            peak: 0,
        };
        assert_eq!(sum.counts, want);
        assert_eq!(sum.counts.errors(), 12 * Failure::ALL.len() as u64);
        let close = sum.times(Lap::Close);
        assert_eq!((close.len(), close.min(), sum.times(Lap::Total).len()), (6, 1, 0));
        assert!(close.max() >= LONGEST_US, "a time beyond the bound counts as the bound");
        sum.reset();
        assert_eq!((sum.counts, sum.times(Lap::Close).len()), (Counts::default(), 0));
    }
}
