//! How everything is, for `finwheel status`: made of the workers' last reports.

use super::admin::model::{DrainStatus, Rates, Status, WorkerStatus};
use super::drain::{Drain, Left};
use super::operate::Former;
use super::supervisor::{Supervisor, Watched};
use crate::metrics::block::Counters;
use crate::shard::drain::NewConnections;
use crate::tcp::record::ClosePath;
use crate::tcp::state::State;
use std::time::{Duration, Instant};

/// What rates are made of.
pub(super) struct Sample {
    at: Instant,
    totals: Rates,
}

impl Supervisor {
    /// A second has passed: what rates are made of.
    pub(super) fn sample(&mut self) {
        let sample = Sample { at: Instant::now(), totals: totals(&self.sum()) };
        let [_, last] = std::mem::take(&mut self.operations.samples);
        self.operations.samples = [last, Some(sample)];
    }

    fn sum(&self) -> Counters {
        let mut sum = Counters::default();
        for w in &self.workers {
            sum.merge(&w.counters);
        }
        sum
    }

    pub(super) fn status(&self) -> Status {
        let o = &self.operations;
        let sum = self.sum();
        let states = State::ALL.iter().zip(sum.states).filter(|(s, _)| **s != State::Closed);
        let rates = match &o.samples {
            [Some(a), Some(b)] => a.totals.per_second(&b.totals, b.at.duration_since(a.at)),
            _ => Rates::default(),
        };
        let worker = |(i, w): (usize, &Watched)| {
            let left = w.left;
            WorkerStatus {
                worker: i,
                queue: w.worker.queue,
                core: w.worker.core,
                copy: o.now.copies.get(i).cloned().unwrap_or_default(),
                busy: w.busy,
                connections: left.live,
                half_open: left.half_open,
                time_wait: left.time_wait,
            }
        };
        let former = o.former.iter().filter_map(|f| match f {
            Former::End(end) => Some(end.to_socket()),
            Former::Number(_) => None,
        });
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            phase: self.phases.now().as_str().to_owned(),
            uptime_s: o.started.elapsed().as_secs_f64(),
            interface: o.now.interface.clone(),
            xdp: o.now.xdp.clone(),
            workers: self.workers.iter().enumerate().map(worker).collect(),
            population: states.map(|(s, n)| (s.as_str().to_owned(), n)).collect(),
            totals: totals(&sum),
            rates,
            drain: self.drain_status(&sum),
            reloads: o.reloads,
            retiring: former.collect(),
        }
    }

    fn drain_status(&self, sum: &Counters) -> Option<DrainStatus> {
        let pause = self.operations.pause.as_ref();
        let ending = self.drain.as_ref();
        let began = ending.map(Drain::began).or(pause.map(|p| p.began))?;
        let order = pause.map_or(self.operations.now.order, |p| p.order);
        let left = Left::of(sum);
        Some(DrainStatus {
            ending: ending.is_some(),
            elapsed_s: began.elapsed().as_secs_f64(),
            over_s: order.over.as_secs_f64(),
            new: word(order.new).to_owned(),
            total: sum.operated.drain_total,
            told: sum.operated.drain_told,
            left: left.live,
            half_open: left.half_open,
            time_wait: left.time_wait,
        })
    }
}

/// The word of a policy.
pub(super) const fn word(new: NewConnections) -> &'static str {
    match new {
        NewConnections::Drop => "drop",
        NewConnections::Reset => "reset",
        NewConnections::Close => "close",
    }
}

fn totals(c: &Counters) -> Rates {
    let by_path = |graceful: bool| -> u64 {
        ClosePath::ALL.iter().filter(|p| p.graceful() == graceful).map(|&p| c.closes_by_path(p)).sum()
    };
    Rates {
        opened: (c.opened_passive + c.opened_active) as f64,
        closed: (by_path(true) + by_path(false)) as f64,
        not_graceful: by_path(false) as f64,
        rx_frames: c.port.rx_frames as f64,
        tx_frames: c.port.tx_frames as f64,
        rx_bytes: c.port.rx_bytes as f64,
        tx_bytes: c.port.tx_bytes as f64,
        dropped: c.drops.iter().sum::<u64>() as f64,
    }
}

impl Rates {
    /// How fast these have become those.
    fn per_second(&self, later: &Self, took: Duration) -> Self {
        let rate = |a: f64, b: f64| (b - a).max(0.0) / took.as_secs_f64().max(0.001);
        Self {
            opened: rate(self.opened, later.opened),
            closed: rate(self.closed, later.closed),
            not_graceful: rate(self.not_graceful, later.not_graceful),
            rx_frames: rate(self.rx_frames, later.rx_frames),
            tx_frames: rate(self.tx_frames, later.tx_frames),
            rx_bytes: rate(self.rx_bytes, later.rx_bytes),
            tx_bytes: rate(self.tx_bytes, later.tx_bytes),
            dropped: rate(self.dropped, later.dropped),
        }
    }
}
