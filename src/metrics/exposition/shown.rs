//! What the registry asks for series: the catalogue filled in.

use super::{Inner, Worker, lock};
use crate::drop::DropReason;
use crate::metrics::block::{Counters, Histograms, ResetCause, Retransmission};
use crate::metrics::buckets::{BUCKETS_US, Buckets};
use crate::metrics::catalog::{self as c, Kind, Metric};
use crate::metrics::gauges::{BATCH_BOUNDS, BudgetKind, ListenerCounters, Queue, Table};
use crate::metrics::process;
use crate::tcp::record::{Cause, ClosePath, First};
use crate::tcp::state::{State, TABLE};
use hdrhistogram::Histogram;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{self, LabelPair, MetricFamily, MetricType};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What the registry asks for series.
pub(super) struct Shown {
    inner: Arc<Mutex<Inner>>,
    descs: Vec<Desc>,
}

impl Shown {
    pub(super) fn new(inner: Arc<Mutex<Inner>>) -> prometheus::Result<Self> {
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
        of_process(&mut out, now.saturating_duration_since(inner.started));
        let sum = inner.counters();
        connections(&mut out, &sum);
        closes(&mut out, &sum);
        transitions(&mut out, &sum);
        listeners(&mut out, &inner);
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

fn of_process(out: &mut Families, uptime: Duration) {
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    out.count(&c::BUILD_INFO, &[env!("CARGO_PKG_VERSION"), profile, std::env::consts::ARCH], 1);
    out.number(&c::UPTIME, &[], uptime.as_secs_f64());
    // A host without /proc shows no memory rather than none in use.
    if let Some(bytes) = process::resident_bytes() {
        out.count(&c::RESIDENT_MEMORY, &[], bytes);
    }
    for (mode, seconds) in ["user", "system"].into_iter().zip(process::cpu_seconds().into_iter().flatten()) {
        out.number(&c::CPU, &[mode], seconds);
    }
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
    for (budget, v) in BudgetKind::ALL.iter().zip(n.budget_refusals) {
        out.count(&c::BUDGET_REFUSALS, &[budget.as_str()], v);
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

fn closes(out: &mut Families, n: &Counters) {
    for (path, by_first) in ClosePath::ALL.iter().zip(&n.closes) {
        for (first, by_cause) in First::ALL.iter().zip(by_first) {
            for (cause, v) in Cause::ALL.iter().zip(by_cause) {
                if *v > 0 {
                    out.count(&c::CLOSES, &[path.as_str(), first.as_str(), cause.as_str()], *v);
                }
            }
        }
    }
}

fn transitions(out: &mut Families, n: &Counters) {
    for row in TABLE {
        let v = n.transitions[row.from as usize][row.event as usize];
        out.count(&c::TRANSITIONS, &[row.from.as_str(), row.event.as_str(), row.to.as_str()], v);
    }
}

fn listeners(out: &mut Families, inner: &Inner) {
    for (name, l) in inner.by_listener() {
        listener(out, name, &l);
    }
}

fn listener(out: &mut Families, name: &str, l: &ListenerCounters) {
    out.count(&c::LISTENER_OPENED, &[name], l.opened);
    out.count(&c::LISTENER_ACTIVE, &[name], l.active);
    out.count(&c::LISTENER_BYTES, &[name, "in"], l.bytes_in);
    out.count(&c::LISTENER_BYTES, &[name, "out"], l.bytes_out);
    for (path, by_cause) in ClosePath::ALL.iter().zip(&l.closes) {
        for (cause, v) in Cause::ALL.iter().zip(by_cause) {
            if *v > 0 {
                out.count(&c::LISTENER_CLOSES, &[name, path.as_str(), cause.as_str()], *v);
            }
        }
    }
    out.histogram(&c::LISTENER_CLOSE_DURATION, &[name], counted(&l.close_time, &BUCKETS_US, 1e6));
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
}

fn durations(out: &mut Families, h: &Histograms) {
    for (path, h) in ClosePath::ALL.iter().zip(&h.close) {
        out.histogram(&c::CLOSE_DURATION, &[path.as_str()], buckets(h));
    }
    out.histogram(&c::HANDSHAKE_DURATION, &[], buckets(&h.handshake));
}

fn workers(out: &mut Families, workers: &[Worker], now: Instant) {
    let mut batches = Buckets::default();
    for w in workers {
        batches.merge(&w.gauges.expiry_batch);
    }
    out.histogram(&c::EXPIRY_BATCH, &[], counted(&batches, &BATCH_BOUNDS, 1.0));
    for (i, w) in workers.iter().enumerate() {
        let id = i.to_string();
        let age = now.saturating_duration_since(w.reported);
        out.number(&c::WORKER_BUSY, &[&id], w.busy_ratio);
        out.count(&c::WORKER_TURNS, &[&id], w.counters.turns);
        out.number(&c::WORKER_REPORT_AGE, &[&id], age.as_secs_f64());
        out.count(&c::TIME_WAIT_PEAK, &[&id], w.counters.time_wait_peak);
        out.count(&c::CHUNKS_USED, &[&id], w.counters.chunks_used);
        out.count(&c::CHUNKS_CAPACITY, &[&id], w.counters.chunks_total);
        for (ring, [depth, slots]) in w.gauges.rings.named() {
            out.count(&c::RING_DEPTH, &[&id, ring], depth);
            out.count(&c::RING_SLOTS, &[&id, ring], slots);
        }
        for (queue, depth) in Queue::ALL.iter().zip(w.gauges.mailbox) {
            out.count(&c::MAILBOX_DEPTH, &[&id, queue.as_str()], depth);
        }
        for (table, fill) in Table::ALL.iter().zip(w.gauges.tables) {
            out.count(&c::TABLE_RECORDS, &[&id, table.as_str()], fill.used);
            out.count(&c::TABLE_CAPACITY, &[&id, table.as_str()], fill.capacity);
        }
        for (wheel, lag) in Table::ALL.iter().zip(w.gauges.wheel_lag_ms) {
            out.number(&c::WHEEL_LAG, &[&id, wheel.as_str()], lag as f64 / 1e3);
        }
    }
}

/// The fixed buckets of a recorded histogram.
///
/// Every recorded cell is counted whole, in the first bucket whose bound is not below the cell's largest value. So
/// no bucket claims a time that was longer than its bound, the counts add up exactly, and a cell that straddles a
/// bound (under 0.8 % of it wide) counts one bucket later. The sum takes the middle of each cell.
pub(super) fn buckets(h: &Histogram<u64>) -> proto::Histogram {
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

/// Buckets that a worker counted itself; `per` of its units are one of the metric's.
fn counted<const N: usize>(b: &Buckets<N>, bounds: &[u64; N], per: f64) -> proto::Histogram {
    let mut cumulative = 0;
    let bucket = |(n, bound): (&u64, &u64)| {
        cumulative += n;
        let mut bucket = proto::Bucket::default();
        bucket.set_upper_bound(*bound as f64 / per);
        bucket.set_cumulative_count(cumulative);
        bucket
    };
    let mut out = proto::Histogram::default();
    out.set_bucket(b.counts.iter().zip(bounds).map(bucket).collect());
    out.set_sample_count(b.total());
    out.set_sample_sum(b.sum as f64 / per);
    out
}
