//! The report of a run: for people, and as JSON with stable keys.

use super::args::{BlastArgs, RequestArg};
use crate::metrics::block::{Counters, Retransmission};
use crate::service::blast::tally::{Failure, Lap, Tally};
use crate::tcp::record::ClosePath;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// Latencies in microseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    count: u64,
    min: u64,
    mean: f64,
    p50: u64,
    p90: u64,
    p99: u64,
    p999: u64,
    max: u64,
}

impl Latency {
    fn of(h: &Histogram<u64>) -> Self {
        let q = |q: f64| h.value_at_quantile(q);
        let (p50, p90, p99, p999) = (q(0.5), q(0.9), q(0.99), q(0.999));
        Self { count: h.len(), min: h.min(), mean: h.mean(), p50, p90, p99, p999, max: h.max() }
    }
}

/// What a run came to. The keys are those of `--json`.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    target: String,
    interface: String,
    mode: String,
    workers: usize,
    #[serde(rename = "loop")]
    loop_kind: &'static str,
    rate_asked: Option<f64>,
    concurrency: u64,
    close: &'static str,
    request: String,
    hold_s: f64,
    elapsed_s: f64,
    connections: u64,
    opened: u64,
    answered: u64,
    completed: u64,
    cut_short: u64,
    peak_open: u64,
    opened_per_s: f64,
    completed_per_s: f64,
    bytes_sent: u64,
    bytes_received: u64,
    errors: BTreeMap<&'static str, u64>,
    errors_total: u64,
    ok: bool,
    latency_us: BTreeMap<&'static str, Latency>,
    closes: BTreeMap<&'static str, u64>,
    retransmissions: u64,
    tail_probes: u64,
    resets_sent: u64,
    resets_received: u64,
    time_wait_reused: u64,
    interrupted: bool,
}

/// What a report is made of beside the tally.
pub struct Facts<'a> {
    /// The command line.
    pub args: &'a BlastArgs,
    /// Attach and copy mode.
    pub mode: String,
    /// Workers there were.
    pub workers: usize,
    /// Connections that might be open at a time.
    pub concurrency: u64,
    /// From the first connection to the last one's end.
    pub elapsed: Duration,
    /// What the engine counted.
    pub engine: &'a Counters,
    /// A signal ended it.
    pub interrupted: bool,
}

impl Report {
    /// Makes it.
    #[must_use]
    pub fn new(f: &Facts<'_>, tally: &Tally) -> Self {
        let (c, e, seconds) = (&tally.counts, f.engine, f.elapsed.as_secs_f64());
        let per_second = |n: u64| if seconds > 0.0 { n as f64 / seconds } else { 0.0 };
        // What the end of the process cut off before anybody was told of it.
        let untold = c.begun.saturating_sub(c.completed + c.cut_short + ended_in_error(tally));
        Self {
            target: f.args.target.to_string(),
            interface: f.args.interface.clone(),
            mode: f.mode.clone(),
            workers: f.workers,
            loop_kind: if f.args.rate.is_some() { "open" } else { "closed" },
            rate_asked: f.args.rate.map(|r| r.0 as f64 / 1000.0),
            concurrency: f.concurrency,
            close: f.args.close.as_str(),
            request: match f.args.request {
                RequestArg::Http => "http".into(),
                RequestArg::Bytes(n) => n.to_string(),
            },
            hold_s: f.args.hold.as_secs_f64(),
            elapsed_s: seconds,
            connections: c.begun,
            opened: c.opened,
            answered: c.answered,
            completed: c.completed,
            cut_short: c.cut_short + untold,
            peak_open: c.peak,
            opened_per_s: per_second(c.opened),
            completed_per_s: per_second(c.completed),
            bytes_sent: c.bytes_out,
            bytes_received: c.bytes_in,
            errors: Failure::ALL.into_iter().map(|f| (f.as_str(), c.failed(f))).collect(),
            errors_total: c.errors(),
            ok: !f.args.max_errors.exceeded(c.errors(), c.begun),
            latency_us: Lap::ALL.into_iter().map(|l| (l.as_str(), Latency::of(tally.times(l)))).collect(),
            closes: ClosePath::ALL.into_iter().map(|p| (p.as_str(), c.paths[p as usize])).collect(),
            retransmissions: Retransmission::ALL.into_iter().map(|r| e.retransmissions[r as usize]).sum(),
            tail_probes: e.retransmissions[Retransmission::TailProbe as usize],
            resets_sent: e.resets_sent.iter().sum(),
            resets_received: e.resets_received.iter().sum(),
            time_wait_reused: e.time_wait_reopened,
            interrupted: f.interrupted,
        }
    }

    /// Whether the errors are within what was allowed.
    #[must_use]
    pub const fn ok(&self) -> bool {
        self.ok
    }

    /// Whether not one connection was answered in any way, though some were tried.
    #[must_use]
    pub fn silence(&self) -> bool {
        self.opened == 0
            && self.connections > 0
            && self.errors["timeout"] == self.errors_total
            && self.errors_total > 0
    }

    /// For people.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "{} by {} ({}), {} worker{}, {} loop, {}, close by {}",
            self.target,
            self.interface,
            self.mode,
            self.workers,
            if self.workers == 1 { "" } else { "s" },
            self.loop_kind,
            if self.request == "http" { "http".into() } else { format!("{} bytes", self.request) },
            self.close
        );
        let mut line = |what: &str, n: u64, more: String| {
            let _ = writeln!(out, "  {what:<14}{n:>12}  {more}");
        };
        line("connections", self.connections, format!("in {:.3} s", self.elapsed_s));
        let asked = self.rate_asked.map_or_else(String::new, |r| format!(" of {r} asked for"));
        line(
            "opened",
            self.opened,
            format!("{:.0}/s{asked}, {} at a time at most", self.opened_per_s, self.peak_open),
        );
        line("completed", self.completed, format!("{:.0}/s", self.completed_per_s));
        if self.cut_short > 0 {
            line("cut short", self.cut_short, "ended with the run".into());
        }
        line("errors", self.errors_total, String::new());
        for (what, n) in self.errors.iter().filter(|(_, n)| **n > 0) {
            line(&format!("  {what}"), *n, explain(what).into());
        }
        line("bytes", self.bytes_sent, format!("sent, {} received", self.bytes_received));
        let closes: Vec<String> =
            self.closes.iter().filter(|(_, n)| **n > 0).map(|(p, n)| format!("{p} {n}")).collect();
        let _ = writeln!(out, "  closes        {}", closes.join(", "));
        let _ = writeln!(
            out,
            "  segments      sent again {} ({} tail probes), RST sent {}, RST received {}, pairs taken out of TIME_WAIT {}",
            self.retransmissions,
            self.tail_probes,
            self.resets_sent,
            self.resets_received,
            self.time_wait_reused
        );
        let _ = writeln!(
            out,
            "  latency (ms) {:>12} {:>10} {:>10} {:>10} {:>10} {:>10}",
            "min", "p50", "p90", "p99", "p99.9", "max"
        );
        for lap in Lap::ALL {
            let l = &self.latency_us[lap.as_str()];
            let _ = write!(out, "    {:<10}", lap.as_str());
            for us in [l.min, l.p50, l.p90, l.p99, l.p999, l.max] {
                let _ = write!(out, " {:>10.3}", us as f64 / 1e3);
            }
            out.push('\n');
        }
        out
    }
}

/// Connections that were begun and failed: what was never begun is an error, and no connection.
fn ended_in_error(tally: &Tally) -> u64 {
    let c = &tally.counts;
    c.errors() - c.failed(Failure::NoLocalPort) - c.failed(Failure::Missed)
}

fn explain(error: &str) -> &'static str {
    match error {
        "no_local_port" => "every local end is in use or in TIME_WAIT: widen --source-net or --ports",
        "missed" => {
            "due and not opened in time: the rate is more than this machine makes, or --concurrency too low"
        }
        "refused" => "nobody listens there",
        "bad_response" => "not the answer that was asked for",
        "short_read" => "the server closed before its answer was complete",
        "closed_early" => "the server closed while the connection was to be held",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn report(extra: &str, tally: &Tally) -> Report {
        let line = format!(
            "finwheel blast --target 10.0.0.1:80 --interface eth1 --source-net 10.78.0.0/24 --rate 100 {extra}"
        );
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
        let Command::Blast(args) = cli.command else { panic!() };
        let facts = Facts {
            args: &args,
            mode: "native, copy".into(),
            workers: 2,
            concurrency: 64,
            elapsed: Duration::from_secs(2),
            engine: &Counters::default(),
            interrupted: false,
        };
        Report::new(&facts, tally)
    }

    fn tally() -> Tally {
        let mut t = Tally::default();
        t.counts.begun = 10;
        t.counts.opened = 9;
        t.counts.completed = 7;
        t.counts.failures[Failure::Refused as usize] = 1;
        t.counts.failures[Failure::Missed as usize] = 3;
        t.lap(Lap::Close, Duration::from_micros(1500));
        t
    }

    #[test]
    fn every_connection_is_accounted_for_and_what_was_never_begun_is_none() {
        let r = report("", &tally());
        assert_eq!((r.connections, r.completed, r.errors_total), (10, 7, 4));
        // 10 begun = 7 completed + 1 refused + 2 that the end cut off.
        assert_eq!(r.cut_short, 2);
        assert!(!r.ok());
        assert!(report("--max-errors 4", &tally()).ok());
        assert!(!report("--max-errors 39%", &tally()).ok());
        assert!(report("--max-errors 40%", &tally()).ok());
    }

    #[test]
    fn the_keys_of_the_json_are_these() {
        let v = serde_json::to_value(report("", &tally())).unwrap();
        let keys =
            |v: &serde_json::Value| v.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
        assert_eq!(
            keys(&v),
            "answered bytes_received bytes_sent close closes completed completed_per_s concurrency connections \
             cut_short elapsed_s errors errors_total hold_s interface interrupted latency_us loop mode ok opened \
             opened_per_s peak_open rate_asked request resets_received resets_sent retransmissions tail_probes target \
             time_wait_reused workers"
        );
        assert_eq!(
            keys(&v["errors"]),
            "bad_response closed_early missed no_local_port refused reset short_read timeout"
        );
        assert_eq!(keys(&v["latency_us"]), "close first_byte handshake total");
        assert_eq!(keys(&v["latency_us"]["close"]), "count max mean min p50 p90 p99 p999");
        assert_eq!((v["loop"].as_str(), v["rate_asked"].as_f64()), (Some("open"), Some(100.0)));
        assert_eq!(v["latency_us"]["close"]["max"].as_u64(), Some(1500));
        assert_eq!(v["opened_per_s"].as_f64(), Some(4.5));
    }

    #[test]
    fn the_table_shows_what_happened_and_what_to_do_about_it() {
        let text = report("", &tally()).render();
        for part in
            ["connections             10", "completed                7", "missed", "--concurrency", "1.500"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("short_read"), "{text}");
    }

    #[test]
    fn silence_is_when_nothing_but_time_passed() {
        assert!(!report("", &tally()).silence() && !report("", &Tally::default()).silence());
        let mut t = Tally::default();
        t.counts.begun = 5;
        t.counts.failures[Failure::Timeout as usize] = 5;
        assert!(report("", &t).silence());
        t.counts.opened = 1;
        assert!(!report("", &t).silence());
    }
}
