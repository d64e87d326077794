//! From workers' reports to what a scrape reads.
//!
//! The control plane calls [`Exposition::update`] with each [`Block`] a worker sends; a scrape calls
//! [`Exposition::render`]. Both take one lock, within the control plane only: no
//! worker ever waits for it.
//!
//! Cardinality is fixed by the catalogue's labels and the numbers of workers and listeners: about 400 series, 30 for each
//! worker and each listener, and at most 336 more for the product of `finwheel_closes_total` and 84 for each listener, of
//! which only combinations that occurred are shown.

use super::block::{Block, Counters, Histograms};
use super::gauges::{ListenerCounters, Table, WorkerGauges};
use super::live::{Level, ListenerLive, Live, Snapshot, WorkerLive};
use prometheus::{Registry, TextEncoder};
use shown::Shown;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use super::buckets::BUCKETS_US;

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

/// The name under which connections opened from here are shown among the listeners: no listener can have it.
pub const OUTBOUND: &str = "(outbound)";

#[derive(Debug)]
struct Worker {
    counters: Counters,
    gauges: WorkerGauges,
    listeners: Vec<ListenerCounters>,
    busy_ratio: f64,
    reported: Instant,
}

#[derive(Debug)]
struct Inner {
    started: Instant,
    workers: Vec<Worker>,
    histograms: Histograms,
    /// Names of the listeners by number, then [`OUTBOUND`] where connections are opened from here.
    listeners: Vec<String>,
    live: Live,
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
        let worker = || Worker {
            counters: Counters::default(),
            gauges: WorkerGauges::default(),
            listeners: Vec::new(),
            busy_ratio: 0.0,
            reported: now,
        };
        let inner = Arc::new(Mutex::new(Inner {
            started: now,
            workers: (0..workers).map(|_| worker()).collect(),
            histograms: Histograms::default(),
            listeners: Vec::new(),
            live: Live::new(now),
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
        w.gauges = block.worker;
        w.listeners.clone_from(&block.listeners);
        w.reported = Instant::now();
        inner.histograms.merge(&block.histograms);
        inner.live.record(&block.histograms);
        Ok(())
    }

    /// Names the listeners, by number; what a worker reports beyond them is not shown by listener. Numbers of one name, as a
    /// listener has that was changed by a reload, are shown as one.
    pub fn set_listeners(&self, names: Vec<String>) {
        self.lock().listeners = names;
    }

    /// How many listeners are named: room that a report needs.
    #[must_use]
    pub fn listener_count(&self) -> usize {
        self.lock().listeners.len()
    }

    /// Ends an interval of the live view: to be called once a second.
    pub fn sample(&self) {
        let mut inner = self.lock();
        let counters = inner.counters();
        inner.live.sample(Instant::now(), counters);
    }

    /// What a live view shows.
    #[must_use]
    pub fn snapshot(&self, phase: &str) -> Snapshot {
        self.lock().snapshot(phase, Instant::now())
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

    /// Each name over all its numbers and all workers, in the order of the numbers.
    fn by_listener(&self) -> Vec<(&str, ListenerCounters)> {
        let mut sums: Vec<(&str, ListenerCounters)> = Vec::with_capacity(self.listeners.len());
        for (i, name) in self.listeners.iter().enumerate() {
            let at = sums.iter().position(|(n, _)| n == name).unwrap_or_else(|| {
                sums.push((name, ListenerCounters::default()));
                sums.len() - 1
            });
            self.workers.iter().filter_map(|w| w.listeners.get(i)).for_each(|l| sums[at].1.merge(l));
        }
        sums
    }

    fn snapshot(&self, phase: &str, now: Instant) -> Snapshot {
        let listener = |(name, l): (&str, ListenerCounters)| ListenerLive {
            name: name.to_owned(),
            active: l.active,
            opened: l.opened,
            closed: l.closes.as_flattened().iter().sum(),
        };
        Snapshot {
            phase: phase.to_owned(),
            uptime_s: now.saturating_duration_since(self.started).as_secs_f64(),
            listeners: self.by_listener().into_iter().map(listener).collect(),
            workers: self.workers.iter().map(|w| w.live(now)).collect(),
            ..self.live.snapshot(now)
        }
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

impl Worker {
    fn live(&self, now: Instant) -> WorkerLive {
        let level = |name: &str, used, capacity| Level { name: name.to_owned(), used, capacity };
        let rings = self.gauges.rings.named();
        let tables = Table::ALL.iter().zip(self.gauges.tables);
        let mut tables: Vec<_> = tables.map(|(t, f)| level(t.as_str(), f.used, f.capacity)).collect();
        tables.push(level("chunks", self.counters.chunks_used, self.counters.chunks_total));
        WorkerLive {
            busy: self.busy_ratio,
            report_age_s: now.saturating_duration_since(self.reported).as_secs_f64(),
            lag_ms: self.gauges.wheel_lag_ms.into_iter().max().unwrap_or(0),
            rings: rings.map(|(name, [depth, slots])| level(name, depth, slots)).into(),
            tables,
        }
    }
}

mod shown;
#[cfg(test)]
mod tests;
