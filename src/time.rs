//! The time that is passed into the engine.
//!
//! The engine reads no clock: the worker reads one per burst (or the simulation moves its own) and passes
//! [`Time`] down.

use std::ops::{Add, AddAssign};
use std::time::Duration;

/// A point in time: microseconds since an epoch that all workers of a process share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Time(u64);

impl Time {
    /// The epoch.
    pub const ZERO: Self = Self(0);
    /// Later than any point that is reached: "no deadline".
    pub const NEVER: Self = Self(u64::MAX);

    /// From microseconds since the epoch.
    #[must_use]
    pub const fn from_micros(us: u64) -> Self {
        Self(us)
    }
    /// Microseconds since the epoch.
    #[must_use]
    pub const fn micros(self) -> u64 {
        self.0
    }
    /// Milliseconds since the epoch, rounded down.
    #[must_use]
    pub const fn millis(self) -> u64 {
        self.0 / 1000
    }
    /// Time that has passed since `earlier`; zero when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.micros_since(earlier))
    }
    /// Microseconds that have passed since `earlier`; zero when `earlier` is later.
    #[must_use]
    pub const fn micros_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
    /// Whether a deadline at `self` has been reached at `now`.
    #[must_use]
    pub const fn due(self, now: Self) -> bool {
        self.0 <= now.0
    }
}

impl Add<Duration> for Time {
    type Output = Self;
    #[inline]
    fn add(self, d: Duration) -> Self {
        // As `Duration::as_micros`, without its 128 bits: what does not fit is later than anything.
        let us = d.as_secs().saturating_mul(1_000_000).saturating_add(u64::from(d.subsec_micros()));
        Self(self.0.saturating_add(us))
    }
}

impl AddAssign<Duration> for Time {
    fn add_assign(&mut self, d: Duration) {
        *self = *self + d;
    }
}
