//! How a [`Terminator`](super::Terminator) ended.

use crate::metrics::exposition::Merged;
use std::fmt;
use std::time::Duration;

/// A worker that ended before it was told to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerFailure {
    /// Its number.
    pub worker: usize,
    /// Its queue.
    pub queue: u32,
    /// What happened.
    pub cause: String,
}

impl fmt::Display for WorkerFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker {} of queue {} failed: {}", self.worker, self.queue, self.cause)
    }
}

/// How it ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Workers that failed; empty when all ended in order.
    pub failures: Vec<WorkerFailure>,
    /// Connections that were reset because the drain's time was over.
    pub cut_off: u64,
    /// Frames that a port could not account for: a fault of finwheel's.
    pub missing_frames: u64,
    /// From the beginning of the drain to the end.
    pub took: Duration,
    /// Everything that was counted.
    pub merged: Merged,
}

impl Outcome {
    /// Whether no worker failed and every frame was accounted for. Connections that were cut off are no failure: the
    /// deadline was the operator's.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.failures.is_empty() && self.missing_frames == 0
    }
}
