//! Fixed buckets of times, for what is counted often or many times over: a listener's closes.
//!
//! A recorder of [`hdrhistogram`] takes 24 KB, too much for each listener; these are the buckets that a scrape is shown,
//! counted as they happen.

use std::time::Duration;

/// Upper bounds of the buckets of all durations, in microseconds: 1, 2.5 and 5 a decade from 50 µs (a
/// round trip within a rack) to 5 minutes (the largest sensible limit of a closing state). Fewer would hide whether
/// a close took one round trip or a retransmission (200 ms and up); more would only make series.
pub const BUCKETS_US: [u64; 22] = [
    50,
    100,
    250,
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    200_000_000,
    300_000_000,
];

/// How many values fell between each two bounds, and their sum; all only grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buckets<const N: usize> {
    /// Values up to each bound and above the one before.
    pub counts: [u64; N],
    /// Values above the last bound.
    pub above: u64,
    /// Sum of all values.
    pub sum: u64,
}

/// Buckets of times, by [`BUCKETS_US`]; the sum is in microseconds.
pub type TimeBuckets = Buckets<{ BUCKETS_US.len() }>;

impl<const N: usize> Default for Buckets<N> {
    fn default() -> Self {
        Self { counts: [0; N], above: 0, sum: 0 }
    }
}

impl<const N: usize> Buckets<N> {
    /// Counts a value between ascending bounds.
    pub fn record(&mut self, bounds: &[u64; N], value: u64) {
        match self.counts.get_mut(bounds.partition_point(|b| *b < value)) {
            Some(count) => *count += 1,
            None => self.above += 1,
        }
        self.sum = self.sum.saturating_add(value);
    }

    /// Adds what another worker counted.
    pub fn merge(&mut self, other: &Self) {
        for (a, b) in self.counts.iter_mut().zip(other.counts) {
            *a += b;
        }
        self.above += other.above;
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// How many values were counted.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().sum::<u64>() + self.above
    }
}

impl TimeBuckets {
    /// Counts a time.
    pub fn record_time(&mut self, took: Duration) {
        self.record(&BUCKETS_US, u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_falls_under_the_first_bound_that_is_not_below_it() {
        let mut b = TimeBuckets::default();
        for us in [0, 50, 51, 300_000_000, 300_000_001] {
            b.record_time(Duration::from_micros(us));
        }
        assert_eq!((b.counts[0], b.counts[1], b.counts[21], b.above), (2, 1, 1, 1));
        assert_eq!((b.total(), b.sum), (5, 600_000_102));
        let mut sum = b;
        sum.merge(&b);
        assert_eq!((sum.total(), sum.above, sum.sum), (10, 2, 1_200_000_204));
    }
}
