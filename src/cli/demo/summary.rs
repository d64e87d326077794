//! What a demo run amounts to: the totals, for people and as JSON.

use crate::drop::DropReason;
use crate::metrics::block::{Counters, Histograms, ResetCause, Retransmission};
use crate::tcp::record::ClosePath;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::fmt::Write;

/// What the clients saw.
#[derive(Clone, Debug, Default)]
pub struct ClientTally {
    /// Connections that did everything as planned.
    pub ok: u64,
    /// Connections that did not, other than by a reset.
    pub failed: u64,
    /// Connections that were reset.
    pub reset: u64,
    /// What went wrong, the first few.
    pub complaints: Vec<String>,
}

/// Complaints that are kept: enough to see a pattern.
const MAX_COMPLAINTS: usize = 10;

impl ClientTally {
    /// Notes what went wrong with a connection.
    pub fn complain(&mut self, what: String) {
        if self.complaints.len() < MAX_COMPLAINTS {
            self.complaints.push(what);
        }
    }
}

/// Closes by path: the four graceful ones.
#[derive(Clone, Copy, Debug, Default, Serialize, PartialEq, Eq)]
pub struct ByPath {
    /// The client's FIN first.
    pub passive: u64,
    /// finwheel's FIN first.
    pub active: u64,
    /// Data flowed after the first FIN.
    pub half_close: u64,
    /// The FINs crossed.
    pub simultaneous: u64,
}

/// Percentiles of the close latency.
#[derive(Clone, Copy, Debug, Default, Serialize, PartialEq)]
pub struct CloseMs {
    /// Median, milliseconds.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
    /// 99.9th percentile.
    pub p999: f64,
}

/// `TIME_WAIT` during the run.
#[derive(Clone, Copy, Debug, Default, Serialize, PartialEq, Eq)]
pub struct TimeWaitTotals {
    /// Most records held at once.
    pub peak: u64,
    /// Records that expired.
    pub expired: u64,
}

/// The one object that `--json` prints.
#[derive(Clone, Debug, Serialize, PartialEq)]
pub struct Summary {
    /// `af_xdp` or `memory`.
    pub backend: &'static str,
    /// How frames went: `native, copy` and the like.
    pub mode: String,
    /// Connections the server accepted.
    pub opened: u64,
    /// Connections that ended with both FINs exchanged and acknowledged, by the server's records.
    pub graceful: u64,
    /// The graceful ones by path.
    pub by_path: ByPath,
    /// Connections that a client found wrong, or that the server did not end gracefully.
    pub failed: u64,
    /// RSTs, sent, accepted or seen by a client.
    pub resets: u64,
    /// From the first FIN to the end of the connection at the server.
    pub close_ms: CloseMs,
    /// `TIME_WAIT` at the server.
    pub time_wait: TimeWaitTotals,
    /// Connections asked for.
    pub asked: u64,
    /// Close latency of each graceful path that happened.
    #[serde(skip)]
    pub latency_by_path: Vec<(ClosePath, CloseMs)>,
    /// What was out of the ordinary, by name: resets, retransmissions, dropped frames.
    #[serde(skip)]
    pub events: Vec<(String, u64)>,
    /// Those of the resets that end nothing: a client whose ACK was late, or lost, acknowledges once more what was sent again
    /// meanwhile, and by then there is no connection here (RFC 9293 §3.10.7.1). A busy machine makes such.
    pub to_late_acks: u64,
}

impl Summary {
    /// From the server's counters and what the clients saw.
    #[must_use]
    pub fn new(
        backend: &'static str,
        mode: String,
        asked: u64,
        c: &Counters,
        h: &Histograms,
        clients: &ClientTally,
    ) -> Self {
        let by_path = ByPath {
            passive: c.closes_by_path(ClosePath::Passive),
            active: c.closes_by_path(ClosePath::Active),
            half_close: c.closes_by_path(ClosePath::HalfClose),
            simultaneous: c.closes_by_path(ClosePath::Simultaneous),
        };
        let graceful = by_path.passive + by_path.active + by_path.half_close + by_path.simultaneous;
        let ungraceful: u64 =
            ClosePath::ALL.into_iter().filter(|p| !p.graceful()).map(|p| c.closes_by_path(p)).sum();
        let unfinished = c.opened_passive.saturating_sub(graceful + ungraceful);
        let not_done = asked.saturating_sub(clients.ok);
        Self {
            backend,
            mode,
            opened: c.opened_passive,
            graceful,
            by_path,
            failed: not_done.max(ungraceful + unfinished).max(clients.failed + clients.reset),
            resets: c.resets() + clients.reset,
            close_ms: overall(h),
            time_wait: TimeWaitTotals { peak: c.time_wait_peak, expired: c.time_wait_expired },
            asked,
            latency_by_path: graceful_paths()
                .map(|p| (p, &h.close[p as usize]))
                .filter(|(_, h)| !h.is_empty())
                .map(|(p, h)| (p, percentiles(h)))
                .collect(),
            events: events(c),
            to_late_acks: to_late_acks(c),
        }
    }

    /// Whether every connection was opened and closed gracefully.
    #[must_use]
    pub fn good(&self) -> bool {
        self.failed == 0
            && self.resets == self.to_late_acks
            && self.opened == self.asked
            && self.graceful == self.asked
    }

    /// The totals for people.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = String::new();
        let p = &self.by_path;
        // Writing to a String cannot fail.
        let _ = writeln!(out, "totals ({}, {})", self.backend, self.mode);
        let _ = writeln!(out, "  opened          {:>9}   of {} asked for", self.opened, self.asked);
        let _ = writeln!(out, "  graceful        {:>9}", self.graceful);
        let _ = writeln!(out, "    client first  {:>9}   passive", p.passive);
        let _ = writeln!(out, "    server first  {:>9}   active", p.active);
        let _ = writeln!(out, "    half-close    {:>9}   data after the first FIN", p.half_close);
        let _ = writeln!(out, "    both at once  {:>9}   simultaneous", p.simultaneous);
        let _ = writeln!(out, "  failed          {:>9}", self.failed);
        let _ = writeln!(out, "  resets          {:>9}", self.resets);
        let c = &self.close_ms;
        let _ = writeln!(
            out,
            "  close latency    p50 {:.3} ms   p99 {:.3} ms   p99.9 {:.3} ms   (first FIN to the end)",
            c.p50, c.p99, c.p999
        );
        for (path, l) in &self.latency_by_path {
            let _ = writeln!(
                out,
                "    {:<13} p50 {:.3} ms   p99 {:.3} ms   p99.9 {:.3} ms",
                path.as_str(),
                l.p50,
                l.p99,
                l.p999
            );
        }
        let t = &self.time_wait;
        let _ = writeln!(out, "  TIME_WAIT       {:>9} at the peak, {} expired", t.peak, t.expired);
        for (what, n) in &self.events {
            let _ = writeln!(out, "  {what:<28} {n}");
        }
        out
    }
}

/// Resets to nobody's connection, no more than segments of connections were sent again.
fn to_late_acks(c: &Counters) -> u64 {
    use Retransmission::{DataFast, DataTimeout, Fin, TailProbe};
    let again: u64 =
        [DataTimeout, DataFast, Fin, TailProbe].iter().map(|&kind| c.retransmissions[kind as usize]).sum();
    c.resets_sent[ResetCause::NoConnection as usize].min(again)
}

/// Resets, retransmissions and drops that happened.
fn events(c: &Counters) -> Vec<(String, u64)> {
    let resets = |name: &'static str, n: [u64; ResetCause::ALL.len()]| {
        ResetCause::ALL.into_iter().zip(n).map(move |(r, n)| (format!("reset {name}: {}", r.as_str()), n))
    };
    let again = Retransmission::ALL.into_iter().zip(c.retransmissions);
    let drops = DropReason::ALL.into_iter().zip(c.drops);
    let all = resets("sent", c.resets_sent)
        .chain(resets("received", c.resets_received))
        .chain(again.map(|(k, n)| (format!("sent again: {}", k.as_str()), n)))
        .chain(drops.map(|(d, n)| (format!("frames dropped: {}", d.as_str()), n)))
        .chain([(String::from("receive ring full"), c.port.xsk_rx_ring_full)])
        .chain([(String::from("fill ring empty"), c.port.xsk_fill_ring_empty)]);
    all.filter(|(_, n)| *n > 0).collect()
}

/// The paths that count as graceful.
fn graceful_paths() -> impl Iterator<Item = ClosePath> {
    ClosePath::ALL.into_iter().filter(|p| p.graceful())
}

/// Percentiles over all graceful closes.
fn overall(h: &Histograms) -> CloseMs {
    let mut all: Histogram<u64> = h.close[ClosePath::Passive as usize].clone();
    for p in graceful_paths().filter(|p| *p != ClosePath::Passive) {
        // All histograms of a block are made with the same bounds, so adding cannot fail.
        if all.add(&h.close[p as usize]).is_err() {
            debug_assert!(false, "histograms of different bounds");
        }
    }
    percentiles(&all)
}

fn percentiles(h: &Histogram<u64>) -> CloseMs {
    let ms = |q: f64| h.value_at_quantile(q) as f64 / 1e3;
    CloseMs { p50: ms(0.50), p99: ms(0.99), p999: ms(0.999) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(c: &Counters) -> Summary {
        let clients = ClientTally { ok: 1, ..ClientTally::default() };
        Summary::new("memory", String::new(), 1, c, &Histograms::default(), &clients)
    }

    #[test]
    fn resets_to_late_acks_are_shown_and_no_failure_but_as_many_only_as_was_sent_again() {
        let mut c = Counters { opened_passive: 1, ..Counters::default() };
        c.closes[ClosePath::Passive as usize][0][0] = 1;
        assert!(summary(&c).good());
        c.resets_sent[ResetCause::NoConnection as usize] = 2;
        assert!(!summary(&c).good(), "nothing was sent again");
        c.retransmissions[Retransmission::Fin as usize] = 1;
        assert!(!summary(&c).good(), "one was, and two are reset");
        c.retransmissions[Retransmission::TailProbe as usize] = 1;
        let s = summary(&c);
        assert!(s.good());
        assert_eq!(s.resets, 2);
        c.resets_sent[ResetCause::Service as usize] = 1;
        assert!(!summary(&c).good(), "a connection was reset");
    }
}
