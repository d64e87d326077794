//! A budget per second: what this worker answers to segments that belong to no live connection.
//!
//! It belongs to one worker and is not readable from outside by probing one connection (compare RFC 5961 §7 and
//! CVE-2016-5696: challenge ACKs have a budget of their own in each connection).

use crate::time::Time;

/// So many per second, counted in whole seconds of the worker's clock.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    per_second: u32,
    second: u64,
    used: u32,
}

impl Budget {
    /// A budget of `per_second`.
    #[must_use]
    pub const fn new(per_second: u32) -> Self {
        Self { per_second, second: 0, used: 0 }
    }

    /// Takes one, if one is left in this second.
    #[must_use]
    pub fn take(&mut self, now: Time) -> bool {
        let second = now.millis() / 1000;
        if second != self.second {
            self.second = second;
            self.used = 0;
        }
        let ok = self.used < self.per_second;
        self.used += u32::from(ok);
        ok
    }
}

/// Counters of a [`SharedOut`]. More: less that two pairs have one in common; fewer: a second begins sooner for one that is
/// cleared.
const COUNTERS: usize = 4096;

/// A budget for each of more pairs than there is memory to count for: a keyed hash chooses one of 4096 counters, so that
/// nobody can tell which other pair has the same one, or read one pair's count by another.
pub struct SharedOut {
    per_second: u8,
    second: u64,
    used: Box<[u8; COUNTERS]>,
}

impl SharedOut {
    /// A budget of `per_second` for each pair.
    #[must_use]
    pub fn new(per_second: u8) -> Self {
        Self { per_second, second: 0, used: Box::new([0; COUNTERS]) }
    }

    /// Takes one for the pair with this keyed hash, if one is left in this second.
    #[must_use]
    pub fn take(&mut self, hash: u64, now: Time) -> bool {
        let second = now.millis() / 1000;
        if second != self.second {
            self.second = second;
            self.used.fill(0);
        }
        // The index takes the low and the high bits of the same hash.
        let used = &mut self.used[(hash >> 20) as usize % COUNTERS];
        let ok = *used < self.per_second;
        *used += u8::from(ok);
        ok
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r07_a_budget_refills_each_second() {
        let mut b = Budget::new(2);
        let t = |ms: u64| Time::from_micros(ms * 1000);
        assert!(b.take(t(100)) && b.take(t(200)) && !b.take(t(999)));
        assert!(b.take(t(1000)) && b.take(t(1001)) && !b.take(t(1002)));
    }

    #[test]
    fn t03_each_pair_has_its_share_of_a_second() {
        let mut b = SharedOut::new(2);
        let t = |ms: u64| Time::from_micros(ms * 1000);
        let (one, other) = (1 << 20, 2 << 20);
        for start in [1000, 2000] {
            assert!(b.take(one, t(start)) && b.take(one, t(start + 1)) && !b.take(one, t(start + 999)));
            assert!(b.take(other, t(start + 999)));
        }
        assert!(!SharedOut::new(0).take(one, t(1)));
    }
}
