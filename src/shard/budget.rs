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
}
