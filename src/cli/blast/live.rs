//! A line a second while it runs, on standard error, where somebody watches a terminal.

use crate::service::blast::tally::{Counts, Lap, Tally};
use std::fmt::Write;
use std::io::IsTerminal;
use std::time::Duration;

/// Whether lines are wanted.
#[must_use]
pub fn wanted(quiet: bool) -> bool {
    !quiet && std::io::stderr().is_terminal()
}

/// The line of one interval: rates and latencies are of the interval, the rest of the run.
#[must_use]
pub fn line(at: Duration, took: Duration, interval: &Tally, sum: &Counts) -> String {
    let mut text = String::new();
    let i = &interval.counts;
    let rate = |n: u64| n as f64 / took.as_secs_f64().max(1e-6);
    let p99 = |l: Lap| interval.times(l).value_at_quantile(0.99) as f64 / 1e3;
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "{:>6.1}s  open {:>8}  opened {:>9.0}/s  completed {:>9.0}/s  of {:>10}  errors {:>6}  p99 handshake {:.3} ms  \
         first byte {:.3} ms  close {:.3} ms",
        at.as_secs_f64(),
        sum.live,
        rate(i.opened),
        rate(i.completed),
        sum.completed,
        sum.errors(),
        p99(Lap::Handshake),
        p99(Lap::FirstByte),
        p99(Lap::Close)
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_the_interval_and_totals_of_the_run() {
        let mut interval = Tally::default();
        interval.counts.opened = 500;
        interval.lap(Lap::Close, Duration::from_micros(2500));
        let sum = Counts { completed: 9000, live: 42, ..Counts::default() };
        let text = line(Duration::from_secs(3), Duration::from_millis(500), &interval, &sum);
        assert!(text.starts_with("   3.0s  open       42  opened      1000/s"), "{text}");
        assert!(text.contains("of       9000  errors      0") && text.contains("close 2.5"), "{text}");
    }
}
