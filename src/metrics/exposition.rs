//! From workers' reports to what a scrape reads.
//!
//! The control plane calls [`Exposition::update`] with each [`Block`] a worker sends; a scrape calls
//! [`Exposition::render`]. Both take one lock, within the control plane only: no
//! worker ever waits for it.
//!
//! Cardinality is fixed by the catalogue's labels and the number of workers: about 350 series, and at most 360 more
//! for the product of `finwheel_closes_total`, of which only combinations that occurred are shown.

use super::block::{Block, Counters, Histograms, ResetCause, Retransmission};
use super::catalog::{self as c, Kind, Metric};
use crate::drop::DropReason;
use crate::tcp::record::{Cause, ClosePath, First};
use crate::tcp::state::State;
use hdrhistogram::Histogram;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{self, LabelPair, MetricFamily, MetricType};
use prometheus::{Registry, TextEncoder};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Upper bounds of the buckets of both duration histograms, in microseconds: 1, 2.5 and 5 a decade from 50 µs (a
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

/// All workers together, since the start.
#[derive(Clone, Debug, Default)]
pub struct Merged {
    /// Counters and gauges, added up (see [`Counters::merge`] for the peak).
    pub counters: Counters,
    /// Every latency recorded.
    pub histograms: Histograms,
}

/// A report for a worker that does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("worker {worker} reported, but there are {workers} only")]
pub struct UnknownWorker {
    /// The worker that was named.
    pub worker: usize,
    /// How many there are.
    pub workers: usize,
}

/// A worker that has not reported for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silent {
    /// Which.
    pub worker: usize,
    /// For how long: since its last report, or since the start when there was none.
    pub for_: Duration,
}

#[derive(Debug)]
struct Worker {
    counters: Counters,
    busy_ratio: f64,
    reported: Instant,
}

#[derive(Debug)]
struct Inner {
    started: Instant,
    workers: Vec<Worker>,
    histograms: Histograms,
    steering: Vec<(&'static str, u64)>,
}

/// Gathers reports and shows them. Clones share everything.
#[derive(Clone, Debug)]
pub struct Exposition {
    inner: Arc<Mutex<Inner>>,
    registry: Registry,
}

impl Exposition {
    /// For `workers` workers, numbered from 0.
    ///
    /// # Errors
    /// When the catalogue contradicts the rules of the format, which a test excludes.
    pub fn new(workers: usize) -> prometheus::Result<Self> {
        let now = Instant::now();
        let worker = || Worker { counters: Counters::default(), busy_ratio: 0.0, reported: now };
        let inner = Arc::new(Mutex::new(Inner {
            started: now,
            workers: (0..workers).map(|_| worker()).collect(),
            histograms: Histograms::default(),
            steering: Vec::new(),
        }));
        let registry = Registry::new();
        registry.register(Box::new(Shown::new(Arc::clone(&inner))?))?;
        Ok(Self { inner, registry })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }

    /// Takes a worker's report: its counters replace the last ones, its histograms (what was recorded since) add up.
    ///
    /// # Errors
    /// When there is no such worker.
    pub fn update(&self, worker: usize, block: &Block) -> Result<(), UnknownWorker> {
        let mut inner = self.lock();
        let workers = inner.workers.len();
        let w = inner.workers.get_mut(worker).ok_or(UnknownWorker { worker, workers })?;
        let busy = block.counters.busy_us.saturating_sub(w.counters.busy_us);
        let idle = block.counters.idle_us.saturating_sub(w.counters.idle_us);
        // Two reports within a microsecond tell nothing about load: the last answer stands.
        if busy + idle > 0 {
            w.busy_ratio = busy as f64 / (busy + idle) as f64;
        }
        w.counters.clone_from(&block.counters);
        w.reported = Instant::now();
        inner.histograms.merge(&block.histograms);
        Ok(())
    }

    /// Replaces the counters of the XDP program: verdict and packets since the start, each verdict once.
    pub fn set_steering(&self, counters: Vec<(&'static str, u64)>) {
        self.lock().steering = counters;
    }

    /// All workers together.
    #[must_use]
    pub fn merged(&self) -> Merged {
        self.lock().merged()
    }

    /// The worker that has been silent for longest, if for longer than `limit`.
    #[must_use]
    pub fn silent(&self, limit: Duration) -> Option<Silent> {
        self.lock().silent(limit, Instant::now())
    }

    /// The text that a scrape reads.
    ///
    /// # Errors
    /// When a family cannot be shown in the format, which a test excludes.
    pub fn render(&self) -> prometheus::Result<String> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

fn lock(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    // Whatever panicked while it held the lock left whole numbers behind: showing them beats showing nothing.
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    fn counters(&self) -> Counters {
        let mut sum = Counters::default();
        for w in &self.workers {
            sum.merge(&w.counters);
        }
        sum
    }

    fn merged(&self) -> Merged {
        Merged { counters: self.counters(), histograms: self.histograms.clone() }
    }

    fn silent(&self, limit: Duration, now: Instant) -> Option<Silent> {
        self.workers
            .iter()
            .enumerate()
            .map(|(worker, w)| Silent { worker, for_: now.saturating_duration_since(w.reported) })
            .filter(|s| s.for_ > limit)
            .max_by_key(|s| s.for_)
    }
}

/// What the registry asks for series.
struct Shown {
    inner: Arc<Mutex<Inner>>,
    descs: Vec<Desc>,
}

impl Shown {
    fn new(inner: Arc<Mutex<Inner>>) -> prometheus::Result<Self> {
        let desc = |m: &&Metric| {
            let labels = m.labels.iter().map(|l| (*l).to_owned()).collect();
            Desc::new(m.name.to_owned(), m.help.to_owned(), labels, HashMap::new())
        };
        let descs = c::CATALOG.iter().map(desc).collect::<prometheus::Result<_>>()?;
        Ok(Self { inner, descs })
    }
}

impl Collector for Shown {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let inner = lock(&self.inner);
        let mut out = Families::default();
        let now = Instant::now();
        process(&mut out, now.saturating_duration_since(inner.started));
        let sum = inner.counters();
        connections(&mut out, &sum);
        frames(&mut out, &sum);
        durations(&mut out, &inner.histograms);
        workers(&mut out, &inner.workers, now);
        for (verdict, n) in &inner.steering {
            out.count(&c::STEERING, &[verdict], *n);
        }
        out.done
    }
}

/// Families in the making: one for each metric of the catalogue that got a value.
#[derive(Default)]
struct Families {
    done: Vec<MetricFamily>,
}

impl Families {
    fn count(&mut self, metric: &Metric, values: &[&str], n: u64) {
        self.number(metric, values, n as f64);
    }

    fn number(&mut self, metric: &Metric, values: &[&str], v: f64) {
        let mut m = proto::Metric::from_label(labels(metric, values));
        match metric.kind {
            Kind::Counter => {
                let mut counter = proto::Counter::default();
                counter.set_value(v);
                m.set_counter(counter);
            }
            Kind::Gauge => {
                let mut gauge = proto::Gauge::default();
                gauge.set_value(v);
                m.set_gauge(gauge);
            }
            Kind::Histogram => unreachable!("{} is not a number", metric.name),
        }
        self.push(metric, m);
    }

    fn histogram(&mut self, metric: &Metric, values: &[&str], h: proto::Histogram) {
        let mut m = proto::Metric::from_label(labels(metric, values));
        m.set_histogram(h);
        self.push(metric, m);
    }

    fn push(&mut self, metric: &Metric, m: proto::Metric) {
        if let Some(family) = self.done.iter_mut().find(|f| f.name() == metric.name) {
            family.mut_metric().push(m);
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(metric.name.to_owned());
        family.set_help(metric.help.to_owned());
        family.set_field_type(match metric.kind {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge => MetricType::GAUGE,
            Kind::Histogram => MetricType::HISTOGRAM,
        });
        family.set_metric(vec![m]);
        self.done.push(family);
    }
}

fn labels(metric: &Metric, values: &[&str]) -> Vec<LabelPair> {
    debug_assert_eq!(metric.labels.len(), values.len(), "{}", metric.name);
    let pair = |(name, value): (&&str, &&str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    metric.labels.iter().zip(values).map(pair).collect()
}

fn process(out: &mut Families, uptime: Duration) {
    out.count(&c::BUILD_INFO, &[env!("CARGO_PKG_VERSION")], 1);
    out.number(&c::UPTIME, &[], uptime.as_secs_f64());
}

fn connections(out: &mut Families, n: &Counters) {
    for (state, v) in State::ALL.iter().zip(n.states) {
        // Nothing is ever in CLOSED: it is the absence of a connection.
        if *state != State::Closed {
            out.count(&c::CONNECTIONS, &[state.as_str()], v);
        }
    }
    out.count(&c::OPENED, &["passive"], n.opened_passive);
    out.count(&c::OPENED, &["active"], n.opened_active);
    out.count(&c::HALF_OPEN_GIVEN_UP, &[], n.half_open_given_up);
    for (event, v) in
        [("sent", n.cookies_sent), ("accepted", n.cookies_accepted), ("refused", n.cookies_refused)]
    {
        out.count(&c::SYN_COOKIES, &[event], v);
    }
    for (path, by_first) in ClosePath::ALL.iter().zip(&n.closes) {
        for (first, by_cause) in First::ALL.iter().zip(by_first) {
            for (cause, v) in Cause::ALL.iter().zip(by_cause) {
                if *v > 0 {
                    out.count(&c::CLOSES, &[path.as_str(), first.as_str(), cause.as_str()], *v);
                }
            }
        }
    }
    out.count(&c::TIME_WAIT_EXPIRED, &[], n.time_wait_expired);
    out.count(&c::TIME_WAIT_EVICTED, &[], n.time_wait_evicted);
    out.count(&c::TIME_WAIT_REOPENED, &[], n.time_wait_reopened);
    for (kind, v) in Retransmission::ALL.iter().zip(n.retransmissions) {
        out.count(&c::RETRANSMISSIONS, &[kind.as_str()], v);
    }
    for (direction, resets) in [("sent", n.resets_sent), ("received", n.resets_received)] {
        for (cause, v) in ResetCause::ALL.iter().zip(resets) {
            out.count(&c::RESETS, &[direction, cause.as_str()], v);
        }
    }
    out.count(&c::CHALLENGE_ACKS, &[], n.challenge_acks);
    out.count(&c::OUT_OF_ORDER_GIVEN_UP, &[], n.out_of_order_given_up);
    for (kind, v) in [("too_big", n.icmp_too_big), ("hard", n.icmp_hard), ("soft", n.icmp_soft)] {
        out.count(&c::ICMP_ERRORS, &[kind], v);
    }
    for (event, v) in [("experienced", n.ecn_experienced), ("echoed", n.ecn_echoed)] {
        out.count(&c::ECN, &[event], v);
    }
    for (cause, v) in
        [("icmp", n.path_mtu_lowered), ("black_hole", n.path_black_holes), ("raised", n.path_mtu_raised)]
    {
        out.count(&c::PATH_MTU, &[cause], v);
    }
    out.count(&c::CLOSE_LOG_LOST, &[], n.operated.close_log_lost);
    for (event, v) in [("captured", n.operated.captured), ("lost", n.operated.capture_lost)] {
        out.count(&c::CAPTURE, &[event], v);
    }
    out.count(&c::ILLEGAL_TRANSITIONS, &[], n.illegal_transitions);
}

fn frames(out: &mut Families, n: &Counters) {
    let p = &n.port;
    out.count(&c::FRAMES, &["rx"], p.rx_frames);
    out.count(&c::FRAMES, &["tx"], p.tx_frames);
    out.count(&c::BYTES, &["rx"], p.rx_bytes);
    out.count(&c::BYTES, &["tx"], p.tx_bytes);
    out.count(&c::WAKEUPS, &["rx"], p.rx_wakeups);
    out.count(&c::WAKEUPS, &["tx"], p.tx_wakeups);
    for (event, v) in [
        ("rx_dropped", p.xsk_rx_dropped),
        ("rx_ring_full", p.xsk_rx_ring_full),
        ("fill_ring_empty", p.xsk_fill_ring_empty),
        ("invalid_descs", p.xsk_invalid_descs),
        ("tx_ring_full", p.tx_ring_full),
    ] {
        out.count(&c::XSK_EVENTS, &[event], v);
    }
    for (reason, v) in DropReason::ALL.iter().zip(n.drops) {
        out.count(&c::DROPS, &[reason.as_str()], v);
    }
    out.count(&c::MISDIRECTED, &["out"], n.misdirected_out);
    out.count(&c::MISDIRECTED, &["in"], n.misdirected_in);
    out.count(&c::CHUNKS_USED, &[], n.chunks_used);
    out.count(&c::CHUNKS_CAPACITY, &[], n.chunks_total);
}

fn durations(out: &mut Families, h: &Histograms) {
    for (path, h) in ClosePath::ALL.iter().zip(&h.close) {
        out.histogram(&c::CLOSE_DURATION, &[path.as_str()], buckets(h));
    }
    out.histogram(&c::HANDSHAKE_DURATION, &[], buckets(&h.handshake));
}

fn workers(out: &mut Families, workers: &[Worker], now: Instant) {
    for (i, w) in workers.iter().enumerate() {
        let id = i.to_string();
        let age = now.saturating_duration_since(w.reported);
        out.number(&c::WORKER_BUSY, &[&id], w.busy_ratio);
        out.count(&c::WORKER_TURNS, &[&id], w.counters.turns);
        out.number(&c::WORKER_REPORT_AGE, &[&id], age.as_secs_f64());
        out.count(&c::TIME_WAIT_PEAK, &[&id], w.counters.time_wait_peak);
    }
}

/// The fixed buckets of a recorded histogram.
///
/// Every recorded cell is counted whole, in the first bucket whose bound is not below the cell's largest value. So
/// no bucket claims a time that was longer than its bound, the counts add up exactly, and a cell that straddles a
/// bound (under 0.8 % of it wide) counts one bucket later. The sum takes the middle of each cell.
fn buckets(h: &Histogram<u64>) -> proto::Histogram {
    let mut counts = [0u64; BUCKETS_US.len()];
    let (mut total, mut sum_us) = (0u64, 0.0f64);
    for cell in h.iter_recorded() {
        let (value, n) = (cell.value_iterated_to(), cell.count_at_value());
        total += n;
        sum_us += h.median_equivalent(value) as f64 * n as f64;
        let high = h.highest_equivalent(value);
        // What is beyond the last bound is in the total only: the bucket of +Inf.
        if let Some(count) = counts.get_mut(BUCKETS_US.partition_point(|bound| *bound < high)) {
            *count += n;
        }
    }
    let mut cumulative = 0;
    let mut out = proto::Histogram::default();
    out.set_bucket(
        counts
            .iter()
            .zip(BUCKETS_US)
            .map(|(n, bound)| {
                cumulative += n;
                let mut bucket = proto::Bucket::default();
                bucket.set_upper_bound(bound as f64 / 1e6);
                bucket.set_cumulative_count(cumulative);
                bucket
            })
            .collect(),
    );
    out.set_sample_count(total);
    out.set_sample_sum(sum_us / 1e6);
    out
}

#[cfg(test)]
mod tests;
