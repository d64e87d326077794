//! What all generators counted, together.

use crate::service::blast::desk::Desk;
use crate::service::blast::tally::{Counts, Tally};
use std::sync::Arc;

/// One generator, seen from here.
struct Worker {
    desk: Arc<Desk>,
    /// An empty tally, while none is asked for.
    empty: Option<Box<Tally>>,
    /// Its gauges, as they last were.
    live: u64,
    peak: u64,
}

/// The sum over all generators and the time so far.
pub struct Sums {
    workers: Vec<Worker>,
    /// The sum.
    pub sum: Tally,
}

impl Sums {
    /// Nothing yet, of these.
    #[must_use]
    pub fn new(desks: Vec<Arc<Desk>>) -> Self {
        let worker = |desk| Worker { desk, empty: Some(Box::default()), live: 0, peak: 0 };
        Self { workers: desks.into_iter().map(worker).collect(), sum: Tally::default() }
    }

    /// Lets them begin.
    pub fn go(&self) {
        self.workers.iter().for_each(|w| w.desk.go());
    }

    /// Whether none has anything left to do.
    #[must_use]
    pub fn done(&self) -> bool {
        self.workers.iter().all(|w| w.desk.is_done())
    }

    /// Takes what was handed over since the last time, and asks for the next: returns the sum of what came, `None` when
    /// nothing did.
    pub fn collect(&mut self) -> Option<Tally> {
        let mut interval = None;
        for w in &mut self.workers {
            while let Some(mut t) = w.desk.answer() {
                take(&mut interval, &mut self.sum, w, &t);
                t.reset();
                w.empty = Some(t);
            }
            if let Some(empty) = w.empty.take()
                && let Err(back) = w.desk.ask(empty)
            {
                w.empty = Some(back);
            }
        }
        self.gauges();
        interval
    }

    /// Takes what is left, of generators that have ended.
    pub fn last(&mut self) {
        let mut interval = None;
        for w in &mut self.workers {
            while let Some(t) = w.desk.answer() {
                take(&mut interval, &mut self.sum, w, &t);
            }
        }
        self.gauges();
    }

    fn gauges(&mut self) {
        let sum = |f: fn(&Worker) -> u64| self.workers.iter().map(f).sum();
        let (live, peak) = (sum(|w| w.live), sum(|w| w.peak));
        self.sum.counts = Counts { live, peak, ..self.sum.counts };
    }
}

fn take(interval: &mut Option<Tally>, sum: &mut Tally, w: &mut Worker, t: &Tally) {
    sum.merge(t);
    interval.get_or_insert_with(Tally::default).merge(t);
    (w.live, w.peak) = (t.counts.live, t.counts.peak);
}
