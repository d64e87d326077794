//! Where a generator and the control plane meet: two flags, and tallies that change hands without being copied.
//!
//! ```text
//! control ── an empty tally ──▶ requests ──▶ generator: swaps it for its own ──▶ answers ──▶ control
//! ```

use super::tally::Tally;
use crossbeam::queue::ArrayQueue;
use std::sync::atomic::{AtomicBool, Ordering};

/// Tallies that may lie in a queue: the one of this second, and the last one.
const TALLIES: usize = 2;

/// One worker's desk. The generator looks at it once a turn.
#[derive(Debug)]
pub struct Desk {
    go: AtomicBool,
    stop: AtomicBool,
    done: AtomicBool,
    requests: ArrayQueue<Box<Tally>>,
    answers: ArrayQueue<Box<Tally>>,
}

impl Default for Desk {
    fn default() -> Self {
        let flag = || AtomicBool::new(false);
        Self {
            go: flag(),
            stop: flag(),
            done: flag(),
            requests: ArrayQueue::new(TALLIES),
            answers: ArrayQueue::new(TALLIES),
        }
    }
}

impl Desk {
    /// Lets the generator begin.
    pub fn go(&self) {
        self.go.store(true, Ordering::Release);
    }

    /// Has the generator open no more; what is open ends as it would, and nothing is held any longer.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// Whether the generator has nothing left to do.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    /// Asks for what was counted since the last time. Gives the empty tally back when the last request is not answered.
    ///
    /// # Errors
    /// The tally.
    pub fn ask(&self, empty: Box<Tally>) -> Result<(), Box<Tally>> {
        self.requests.push(empty)
    }

    /// What the generator handed over, if it has.
    #[must_use]
    pub fn answer(&self) -> Option<Box<Tally>> {
        self.answers.pop()
    }

    pub(super) fn may_go(&self) -> bool {
        self.go.load(Ordering::Acquire)
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    pub(super) fn set_done(&self) {
        self.done.store(true, Ordering::Release);
    }

    /// Hands a tally over if it was asked for; in its place comes an empty one. Gauges stay.
    pub(super) fn hand_over(&self, tally: &mut Box<Tally>) {
        let Some(mut empty) = self.requests.pop() else { return };
        empty.counts.live = tally.counts.live;
        empty.counts.peak = tally.counts.peak;
        // As many may lie there as were asked for, and one more at the end.
        let _ = self.answers.force_push(std::mem::replace(tally, empty));
    }

    /// The last tally, from a generator that ends.
    pub(super) fn leave(&self, tally: Box<Tally>) {
        let _ = self.answers.force_push(tally);
    }
}
