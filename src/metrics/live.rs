//! The last minutes, for whoever watches without a Prometheus: the page at the metrics address, `finwheel top`.
//!
//! ```text
//! Exposition ──sample, once a second──▶ Live ──snapshot──▶ /live.json ──▶ the page; finwheel top
//! ```
//!
//! [`Live`] keeps two sets of counters, from which rates come, some seconds of latencies, and a history of a few numbers a
//! second. It is the control plane's; no worker knows of it. [`Snapshot`] is what goes over the wire, both ways.

use super::block::{Counters, Histograms};
use crate::drop::DropReason;
use crate::tcp::record::ClosePath;
use crate::tcp::state::{State, TABLE};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::time::Instant;

/// Samples kept: five minutes of one a second. More makes the answer longer than a page shows; fewer forgets what an
/// operator has come to look for.
pub const HISTORY: usize = 300;
/// Samples whose latencies make the percentiles shown: ten seconds. Fewer: a quiet second shows none; more: a stall that
/// is over still shows.
const WINDOW: usize = 10;

/// Everything a live view shows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Version of finwheel.
    pub version: String,
    /// Phase of the process: starting, ready, draining, stopped.
    pub phase: String,
    /// Seconds since the start.
    pub uptime_s: f64,
    /// Connections by state, in the order of the RFC; `CLOSED` is always 0.
    pub states: Vec<StateCount>,
    /// Every row of the transition table.
    pub transitions: Vec<TransitionRate>,
    /// What happens a second.
    pub rates: Rates,
    /// How connections closed.
    pub closes: Vec<Counted>,
    /// Dropped frames by reason, those that occurred.
    pub drops: Vec<Counted>,
    /// From the first FIN to the end, over the last seconds; `None` when nothing closed.
    pub close_ms: Option<Percentiles>,
    /// From SYN to the acknowledgment of the SYN-ACK.
    pub handshake_ms: Option<Percentiles>,
    /// Listeners, then connections opened from here.
    pub listeners: Vec<ListenerLive>,
    /// Workers.
    pub workers: Vec<WorkerLive>,
    /// The last minutes, oldest first.
    pub history: History,
}

/// A state's population.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StateCount {
    /// The RFC's name.
    pub state: String,
    /// How many.
    pub count: u64,
}

/// A row of the transition table at work.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TransitionRate {
    /// State before.
    pub from: String,
    /// What happened.
    pub event: String,
    /// State after.
    pub to: String,
    /// What the engine does.
    pub action: String,
    /// How often since the start.
    pub count: u64,
    /// A second.
    pub rate: f64,
}

/// A number by name, since the start and a second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counted {
    /// The name: a path, a reason.
    pub name: String,
    /// Since the start.
    pub count: u64,
    /// A second.
    pub rate: f64,
}

/// What happens a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Connections opened.
    pub opens: f64,
    /// Connections closed.
    pub closes: f64,
    /// Frames received.
    pub rx_frames: f64,
    /// Frames sent.
    pub tx_frames: f64,
    /// Bits received.
    pub rx_bits: f64,
    /// Bits sent.
    pub tx_bits: f64,
    /// Frames dropped.
    pub drops: f64,
    /// Segments sent again.
    pub retransmissions: f64,
    /// RSTs sent and accepted.
    pub resets: f64,
}

/// Percentiles of a time, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Half took no longer.
    pub p50: f64,
    /// 90 %.
    pub p90: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.9 %.
    pub p999: f64,
    /// The longest.
    pub max: f64,
    /// How many there were.
    pub count: u64,
}

/// A listener at work.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ListenerLive {
    /// Its name.
    pub name: String,
    /// Connections open now.
    pub active: u64,
    /// Connections opened since the start.
    pub opened: u64,
    /// Connections closed since the start.
    pub closed: u64,
}

/// A worker at work.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerLive {
    /// Share of its time in turns that found work.
    pub busy: f64,
    /// Seconds since it reported.
    pub report_age_s: f64,
    /// Worst lag of its timers between its last reports, milliseconds.
    pub lag_ms: u64,
    /// Depth and slots of each ring.
    pub rings: Vec<Level>,
    /// Records and capacity of each table, then chunks.
    pub tables: Vec<Level>,
}

/// How full something is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Level {
    /// What.
    pub name: String,
    /// In use.
    pub used: u64,
    /// There are.
    pub capacity: u64,
}

/// The last minutes: one number a sample in each list, oldest first, all of the same length.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// Seconds ago at which each sample was taken.
    pub age_s: Vec<f64>,
    /// Connections opened a second.
    pub opens: Vec<f64>,
    /// Connections closed a second.
    pub closes: Vec<f64>,
    /// Frames dropped a second.
    pub drops: Vec<f64>,
    /// Connections in `ESTABLISHED`.
    pub established: Vec<u64>,
    /// Records in `TIME_WAIT`.
    pub time_wait: Vec<u64>,
    /// Median time to close, milliseconds; `null` when nothing closed.
    pub close_p50_ms: Vec<Option<f64>>,
    /// 99th percentile of it.
    pub close_p99_ms: Vec<Option<f64>>,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    rates: Rates,
    established: u64,
    time_wait: u64,
    close: Option<(f64, f64)>,
}

/// Latencies of one sample.
#[derive(Clone, Debug)]
struct Latencies {
    close: Histogram<u64>,
    handshake: Histogram<u64>,
}

impl Latencies {
    fn of(h: &Histograms) -> Self {
        let mut l = Self { close: h.handshake.clone(), handshake: h.handshake.clone() };
        l.reset();
        l
    }
    fn reset(&mut self) {
        self.close.reset();
        self.handshake.reset();
    }
    fn add(&mut self, close: &[Histogram<u64>], handshake: &Histogram<u64>) {
        for h in close {
            add(&mut self.close, h);
        }
        add(&mut self.handshake, handshake);
    }
}

fn add(mine: &mut Histogram<u64>, theirs: &Histogram<u64>) {
    // All are clones of one shape, which is all that an addition can fail for.
    mine.add(theirs).unwrap_or_else(|e| unreachable!("histograms of one shape: {e}"));
}

/// The keeper of the last minutes.
#[derive(Debug)]
pub struct Live {
    latest: (Instant, Counters),
    /// What happened a second between the last two samples, by what is subtracted.
    earlier: (Instant, Counters),
    history: VecDeque<Sample>,
    /// The last seconds' latencies, the newest last; the newest is still being filled.
    window: VecDeque<Latencies>,
}

impl Live {
    /// Begins at `now` with nothing.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            latest: (now, Counters::default()),
            earlier: (now, Counters::default()),
            history: VecDeque::with_capacity(HISTORY),
            window: VecDeque::from([Latencies::of(&Histograms::default())]),
        }
    }

    /// Takes the latencies of a report.
    pub fn record(&mut self, h: &Histograms) {
        if let Some(newest) = self.window.back_mut() {
            newest.add(&h.close, &h.handshake);
        }
    }

    /// Ends an interval: `counters` are all workers' as they were last reported.
    pub fn sample(&mut self, now: Instant, counters: Counters) {
        self.earlier = std::mem::replace(&mut self.latest, (now, counters));
        let close = self.window.back().and_then(|l| percentiles(&l.close)).map(|p| (p.p50, p.p99));
        let n = &self.latest.1;
        let sample = Sample {
            at: now,
            rates: self.rates(),
            established: n.states[State::Established as usize],
            time_wait: n.states[State::TimeWait as usize],
            close,
        };
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(sample);
        // The oldest interval's recorders are the next one's.
        let mut next = if self.window.len() > WINDOW { self.window.pop_front() } else { None }
            .unwrap_or_else(|| Latencies::of(&Histograms::default()));
        next.reset();
        self.window.push_back(next);
    }

    fn elapsed(&self) -> f64 {
        self.latest.0.saturating_duration_since(self.earlier.0).as_secs_f64()
    }

    /// What was counted a second between the last two samples; 0 before there are two.
    fn rate(&self, of: impl Fn(&Counters) -> u64) -> f64 {
        let grown = of(&self.latest.1).saturating_sub(of(&self.earlier.1)) as f64;
        if self.elapsed() > 0.0 { grown / self.elapsed() } else { 0.0 }
    }

    fn rates(&self) -> Rates {
        Rates {
            opens: self.rate(|c| c.opened_passive + c.opened_active),
            closes: self.rate(|c| c.closes.as_flattened().as_flattened().iter().sum()),
            rx_frames: self.rate(|c| c.port.rx_frames),
            tx_frames: self.rate(|c| c.port.tx_frames),
            rx_bits: 8.0 * self.rate(|c| c.port.rx_bytes),
            tx_bits: 8.0 * self.rate(|c| c.port.tx_bytes),
            drops: self.rate(|c| c.drops.iter().sum()),
            retransmissions: self.rate(|c| c.retransmissions.iter().sum()),
            resets: self.rate(Counters::resets),
        }
    }

    /// What a view shows at `now`, but for what the exposition adds: phase, listeners, workers.
    #[must_use]
    pub fn snapshot(&self, now: Instant) -> Snapshot {
        let n = &self.latest.1;
        let state = |s: &State| StateCount { state: s.as_str().to_owned(), count: n.states[*s as usize] };
        let transitions = TABLE.iter().map(|row| {
            let (from, event) = (row.from as usize, row.event as usize);
            TransitionRate {
                from: row.from.as_str().to_owned(),
                event: row.event.as_str().to_owned(),
                to: row.to.as_str().to_owned(),
                action: row.action.to_owned(),
                count: n.transitions[from][event],
                rate: self.rate(|c| c.transitions[from][event]),
            }
        });
        let path = |p: &ClosePath| Counted {
            name: p.as_str().to_owned(),
            count: n.closes_by_path(*p),
            rate: self.rate(|c| c.closes_by_path(*p)),
        };
        let drops = DropReason::ALL.iter().filter(|r| n.drops[**r as usize] > 0).map(|r| Counted {
            name: r.as_str().to_owned(),
            count: n.drops[*r as usize],
            rate: self.rate(|c| c.drops[*r as usize]),
        });
        let mut window = Latencies::of(&Histograms::default());
        for l in &self.window {
            window.add(std::slice::from_ref(&l.close), &l.handshake);
        }
        Snapshot {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            states: State::ALL.iter().map(state).collect(),
            transitions: transitions.collect(),
            rates: self.rates(),
            closes: ClosePath::ALL.iter().map(path).collect(),
            drops: drops.collect(),
            close_ms: percentiles(&window.close),
            handshake_ms: percentiles(&window.handshake),
            history: self.history(now),
            ..Snapshot::default()
        }
    }

    fn history(&self, now: Instant) -> History {
        let all = self.history.iter();
        let mut h = History::default();
        for s in all {
            h.age_s.push(round(now.saturating_duration_since(s.at).as_secs_f64()));
            h.opens.push(round(s.rates.opens));
            h.closes.push(round(s.rates.closes));
            h.drops.push(round(s.rates.drops));
            h.established.push(s.established);
            h.time_wait.push(s.time_wait);
            h.close_p50_ms.push(s.close.map(|(p50, _)| p50));
            h.close_p99_ms.push(s.close.map(|(_, p99)| p99));
        }
        h
    }
}

/// To a tenth: more digits would only make the answer longer.
fn round(v: f64) -> f64 {
    (v * 10.0).round() / 10.0
}

/// `None` of nothing.
fn percentiles(h: &Histogram<u64>) -> Option<Percentiles> {
    let at = |q| h.value_at_quantile(q) as f64 / 1000.0;
    (!h.is_empty()).then(|| Percentiles {
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
        p999: at(0.999),
        max: h.max() as f64 / 1000.0,
        count: h.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::state::Event;
    use std::time::Duration;

    fn counters(closes: u64, in_time_wait: u64) -> Counters {
        let mut c = Counters::default();
        c.closes[ClosePath::Active as usize][0][1] = closes;
        c.states[State::TimeWait as usize] = in_time_wait;
        c.transitions[State::FinWait2 as usize][Event::Fin as usize] = closes;
        c.drops[DropReason::Paws as usize] = closes / 10;
        c
    }

    #[test]
    fn rates_are_of_the_last_interval_by_the_time_it_really_took() {
        let start = Instant::now();
        let mut live = Live::new(start);
        assert!(live.snapshot(start).rates.closes.abs() < 1e-9);
        live.sample(start + Duration::from_secs(1), counters(100, 7));
        live.sample(start + Duration::from_secs(3), counters(500, 9));
        let s = live.snapshot(start + Duration::from_secs(4));
        assert!((s.rates.closes - 200.0).abs() < 1e-6, "{:?}", s.rates);
        let t = s.transitions.iter().find(|t| t.from == "FIN_WAIT_2" && t.event == "FIN").unwrap();
        assert_eq!((t.to.as_str(), t.count), ("TIME_WAIT", 500));
        assert!((t.rate - 200.0).abs() < 1e-6);
        assert_eq!(s.drops.iter().map(|d| (d.name.as_str(), d.count)).collect::<Vec<_>>(), [("paws", 50)]);
        assert_eq!(s.history.time_wait, [7, 9]);
        assert_eq!(s.history.age_s, [3.0, 1.0]);
        assert_eq!(s.transitions.len(), TABLE.len());
        let active = s.closes.iter().find(|c| c.name == "active").unwrap();
        assert_eq!(active.count, 500);
    }

    #[test]
    fn percentiles_are_of_the_last_seconds_and_history_is_bounded() {
        let start = Instant::now();
        let mut live = Live::new(start);
        let mut h = Histograms::default();
        h.record_close(ClosePath::Passive, Duration::from_millis(40));
        h.record_handshake(Duration::from_millis(2));
        live.record(&h);
        let at = |i: usize| start + Duration::from_secs(i as u64);
        live.sample(at(1), counters(1, 0));
        let s = live.snapshot(at(1));
        let close = s.close_ms.unwrap();
        assert!((close.p99 - 40.0).abs() < 0.5 && close.count == 1, "{close:?}");
        assert!((s.handshake_ms.unwrap().p50 - 2.0).abs() < 0.1);
        assert!(s.history.close_p99_ms[0].is_some());
        for i in 2..HISTORY + 40 {
            live.sample(at(i), counters(1, 0));
        }
        let s = live.snapshot(at(HISTORY + 40));
        assert_eq!((s.close_ms, s.handshake_ms), (None, None));
        assert_eq!((s.history.closes.len(), s.history.close_p50_ms.last()), (HISTORY, Some(&None)));
    }

    #[test]
    fn a_snapshot_survives_the_wire() {
        let start = Instant::now();
        let mut live = Live::new(start);
        live.sample(start + Duration::from_secs(1), counters(30, 3));
        let s = live.snapshot(start + Duration::from_secs(1));
        let text = serde_json::to_string(&s).unwrap();
        let back: Snapshot = serde_json::from_str(&text).unwrap();
        assert_eq!(back.states, s.states);
        assert_eq!(back.history, s.history);
        assert!(text.len() < 20_000, "{}", text.len());
    }
}
