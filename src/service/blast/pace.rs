//! When the next connection is to be opened.
//!
//! The workers share one schedule: connection `n` of all is that of worker `n mod workers`. In an open loop it is due `n /
//! rate` seconds after the start, whatever became of the earlier ones; its latency counts from there, also when it was
//! opened late, so that a stall is felt by every connection that it held up (no coordinated omission). In a closed
//! loop it is due as soon as there is room for it.

use std::time::Duration;

/// How long after the end of the run what was due before it may still be opened. A generator that is further behind does
/// not make the load that was asked for: the rest is counted as missed.
const GRACE: Duration = Duration::from_secs(1);

/// A worker's share of the schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Connections of all workers in 1000 seconds; `None` is a closed loop.
    pub rate_milli: Option<u64>,
    /// Connections of all workers; `None` is as many as the time allows.
    pub total: Option<u64>,
    /// How long connections are opened; `None` is until all are.
    pub duration: Option<Duration>,
    /// This worker.
    pub worker: u64,
    /// Workers there are.
    pub workers: u64,
}

/// What the schedule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Due {
    /// One is due, since this long after the start.
    Now(Duration),
    /// The next is due this long after the start.
    At(Duration),
    /// No more. So many of an open loop's could not be opened in time.
    Over {
        /// Connections that were due and are not made.
        missed: u64,
    },
}

impl Pace {
    /// What is due `elapsed` after the start, when this worker has opened `begun`.
    pub fn next(&self, begun: u64, elapsed: Duration) -> Due {
        let n = self.worker + begun * self.workers;
        if self.total.is_some_and(|total| n >= total) {
            return Due::Over { missed: 0 };
        }
        let Some(due) = self.due(n) else {
            let over = self.duration.is_some_and(|d| elapsed >= d);
            return if over { Due::Over { missed: 0 } } else { Due::Now(elapsed) };
        };
        if self.duration.is_some_and(|d| due >= d) {
            return Due::Over { missed: 0 };
        }
        if self.duration.is_some_and(|d| elapsed >= d + GRACE) {
            return Due::Over { missed: self.share() - begun };
        }
        if due <= elapsed { Due::Now(due) } else { Due::At(due) }
    }

    /// When connection `n` of all is due after the start; `None` in a closed loop.
    fn due(&self, n: u64) -> Option<Duration> {
        let us = u128::from(n) * 1_000_000_000 / u128::from(self.rate_milli?.max(1));
        Some(Duration::from_micros(u64::try_from(us).unwrap_or(u64::MAX)))
    }

    /// How many an open loop has for this worker until the end, which there is.
    fn share(&self) -> u64 {
        let by_time = match (self.rate_milli, self.duration) {
            // Those whose time, in whole microseconds, is before the end: n * 1e9 / rate < end.
            (Some(rate), Some(d)) => {
                u64::try_from((d.as_micros() * u128::from(rate.max(1))).div_ceil(1_000_000_000))
                    .unwrap_or(u64::MAX)
            }
            (None, _) | (_, None) => u64::MAX,
        };
        let all = self.total.map_or(by_time, |t| t.min(by_time));
        all.saturating_sub(self.worker).div_ceil(self.workers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    fn pace(rate: Option<u64>, total: Option<u64>, duration: Option<Duration>) -> Pace {
        Pace { rate_milli: rate.map(|r| r * 1000), total, duration, worker: 0, workers: 1 }
    }

    #[test]
    fn an_open_loop_is_due_by_the_clock_and_not_by_what_was_opened() {
        let p = pace(Some(1000), None, Some(10 * MS));
        assert_eq!(p.next(0, Duration::ZERO), Due::Now(Duration::ZERO));
        assert_eq!(p.next(1, Duration::ZERO), Due::At(MS));
        assert_eq!(p.next(1, 5 * MS), Due::Now(MS), "four behind: its own time counts");
        assert_eq!(p.next(9, 20 * MS), Due::Now(9 * MS), "late, but due before the end");
        assert_eq!(p.next(10, 20 * MS), Due::Over { missed: 0 });
        assert_eq!(p.next(4, 10 * MS + GRACE), Due::Over { missed: 6 });
    }

    #[test]
    fn a_closed_loop_is_due_at_once_until_the_number_or_the_time_is_reached() {
        let p = pace(None, Some(3), Some(10 * MS));
        assert_eq!(p.next(2, 9 * MS), Due::Now(9 * MS));
        assert_eq!(p.next(2, 10 * MS), Due::Over { missed: 0 });
        assert_eq!(p.next(3, MS), Due::Over { missed: 0 });
    }

    #[test]
    fn a_rate_below_one_a_second_is_one() {
        let p = Pace { rate_milli: Some(100), ..pace(None, None, None) };
        assert_eq!(p.next(2, Duration::ZERO), Due::At(Duration::from_secs(20)));
    }

    proptest! {
        /// In virtual time, all workers together: every connection of the schedule, once, at its time.
        #[test]
        fn workers_make_the_schedule_together(
            rate_milli in 1u64..2_000_000,
            total in 0u64..500,
            ms in 0u32..3000,
            workers in 1u64..5,
        ) {
            let duration = ms * MS;
            let mut dues = Vec::new();
            let mut missed = 0;
            for worker in 0..workers {
                let p = Pace { rate_milli: Some(rate_milli), total: Some(total), duration: Some(duration), worker, workers };
                let (mut now, mut begun) = (Duration::ZERO, 0);
                loop {
                    match p.next(begun, now) {
                        Due::Now(due) => {
                            prop_assert_eq!(due, now, "nothing holds it up");
                            dues.push(due);
                            begun += 1;
                        }
                        Due::At(at) => { prop_assert!(at > now); now = at; }
                        Due::Over { missed: 0 } => break,
                        Due::Over { .. } => prop_assert!(false, "nothing is missed"),
                    }
                }
                if let Due::Over { missed: m } = p.next(0, duration + GRACE) { missed += m; }
            }
            dues.sort();
            let want: Vec<Duration> = (0..total)
                .map(|n| Duration::from_micros(n * 1_000_000_000 / rate_milli))
                .take_while(|&d| d < duration)
                .collect();
            prop_assert_eq!(&dues, &want);
            prop_assert_eq!(missed, want.len() as u64, "a generator that did nothing missed them all");
        }
    }
}
