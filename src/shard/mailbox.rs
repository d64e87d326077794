//! How a worker is reached: bounded lock-free queues (crossbeam), nothing else.
//!
//! ```text
//!  control ──commands──▶ worker ──replies──▶ control          one pair a worker
//!  worker i ──forwarded frames──▶ worker i+1 ──▶ ...           a ring of workers
//! ```
//!
//! Who sends wakes the receiver, which may be asleep in poll(2); who finds a queue full counts the loss.

use super::capture::CaptureTap;
use super::closes::{ClosePage, CloseTap};
use super::drain::DrainOrder;
use super::outbound::Outbound;
use super::reload::Change;
use super::sweep::Sweep;
use super::trace::Trace;
use crate::metrics::block::Block;
use crossbeam::queue::ArrayQueue;
use std::sync::Arc;

/// Commands that may wait for a worker. The control plane sends a report request per second and little else.
const COMMANDS: usize = 64;
/// Forwarded frames that may wait for a worker: two bursts. A longer queue would only hide that RSS is wrong.
const FORWARDED: usize = 128;
/// Largest frame that is passed between workers: the largest there is. With less, connections over a link with a large
/// MTU would hang where RSS moves.
pub const FORWARD_BYTES: usize = crate::port::FRAME_MAX;

/// What the control plane asks of a worker.
#[derive(Debug)]
pub enum Command {
    /// Fill this block and send it back.
    Report(Box<Block>),
    /// Take no new connections and close the ones there are.
    Drain,
    /// The same, at a pace, and with a word for new ones.
    DrainAs(DrainOrder),
    /// Take connections again.
    Undrain,
    /// Reset what a drain has left, and forget half-open connections.
    CutOff,
    /// Leave the loop.
    Stop,
    /// Record the segments of the connections that the trace names.
    Trace(Box<Trace>),
    /// Send the trace back.
    TakeTrace,
    /// Open a connection; the service is told when that cannot be.
    Connect(Outbound),
    /// Look at all records in slices, and send the page back.
    Sweep(Box<Sweep>),
    /// Other listeners and limits; what they replace goes back.
    Configure(Box<Change>),
    /// Fill this page with the last close records and send it back.
    Closes(Box<ClosePage>),
    /// Pass close records on from now on, or not any more.
    TapCloses(Option<CloseTap>),
    /// Capture frames from now on, or not any more.
    Capture(Option<Box<CaptureTap>>),
}

/// What a worker answers.
#[derive(Debug)]
pub enum Reply {
    /// The report.
    Report(Box<Block>),
    /// The trace.
    Trace(Box<Trace>),
    /// A page of a sweep.
    Sweep(Box<Sweep>),
    /// A change was made.
    Configured(Box<Change>),
    /// A page of close records.
    Closes(Box<ClosePage>),
}

/// How far a frame still goes round the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// How many more workers may see it; on its way, the receiver included.
    pub hops: u8,
    /// The last of them is a worker that has seen it: it holds a record of the pair that the frame does not fit, and
    /// answers if no other worker has a better one.
    pub returns: bool,
}

/// A frame on its way to another worker.
#[derive(Debug)]
pub struct Forwarded {
    /// Where it goes from there.
    pub route: Route,
    /// Bytes in use.
    pub len: u16,
    /// The frame.
    pub bytes: [u8; FORWARD_BYTES],
}

/// Wakes a worker that sleeps.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// The control plane's end of a worker's mailbox.
#[derive(Clone)]
pub struct Handle {
    commands: Arc<ArrayQueue<Command>>,
    replies: Arc<ArrayQueue<Reply>>,
    wake: Wake,
}

impl Handle {
    /// Sends a command; gives it back when the worker has not taken the earlier ones.
    ///
    /// # Errors
    /// The command, when the mailbox is full.
    pub fn send(&self, command: Command) -> Result<(), Command> {
        self.commands.push(command)?;
        (self.wake)();
        Ok(())
    }

    /// The next reply, if there is one.
    #[must_use]
    pub fn reply(&self) -> Option<Reply> {
        self.replies.pop()
    }
}

/// A worker's end of all its queues.
pub struct Mailbox {
    pub(super) commands: Arc<ArrayQueue<Command>>,
    pub(super) replies: Arc<ArrayQueue<Reply>>,
    forwarded: Arc<ArrayQueue<Forwarded>>,
    next: Option<(Arc<ArrayQueue<Forwarded>>, Wake)>,
    workers: u8,
}

impl Mailbox {
    /// Answers the control plane. The queue is as long as the one of the commands, each of which has one answer at most.
    pub(super) fn answer(&self, reply: Reply) {
        let _ = self.replies.push(reply);
    }

    /// How many other workers a frame can be passed to.
    #[must_use]
    pub const fn other_workers(&self) -> u8 {
        self.workers - 1
    }

    /// The way of a frame that has arrived here: past every other worker.
    #[must_use]
    pub const fn all_others(&self) -> Route {
        Route { hops: self.other_workers(), returns: false }
    }

    /// The way past every other worker and back here.
    #[must_use]
    pub const fn and_back(&self) -> Route {
        Route { hops: self.workers, returns: true }
    }

    /// Passes a frame on. Returns whether there was room.
    #[must_use]
    pub fn forward(&self, bytes: &[u8], route: Route) -> bool {
        let Some((queue, wake)) = &self.next else { return false };
        let mut f = Forwarded { route, len: bytes.len() as u16, bytes: [0; FORWARD_BYTES] };
        let Some(room) = f.bytes.get_mut(..bytes.len()) else { return false };
        room.copy_from_slice(bytes);
        let was_empty = queue.is_empty();
        if queue.push(f).is_err() {
            return false;
        }
        if was_empty {
            wake();
        }
        true
    }

    /// Entries of its queues, in the order of [`Queue`](crate::metrics::gauges::Queue).
    #[must_use]
    pub fn depths(&self) -> [u64; 3] {
        [self.commands.len(), self.replies.len(), self.forwarded.len()].map(|n| n as u64)
    }

    /// The next forwarded frame.
    #[must_use]
    pub fn forwarded(&self) -> Option<Forwarded> {
        self.forwarded.pop()
    }
}

/// Makes the mailboxes of a group of workers, given how each is woken, in order.
#[must_use]
pub fn mailboxes(wakes: &[Wake]) -> Vec<(Mailbox, Handle)> {
    let workers = wakes.len();
    let rings: Vec<Arc<ArrayQueue<Forwarded>>> =
        (0..workers).map(|_| Arc::new(ArrayQueue::new(FORWARDED))).collect();
    (0..workers)
        .map(|i| {
            let commands = Arc::new(ArrayQueue::new(COMMANDS));
            let replies = Arc::new(ArrayQueue::new(COMMANDS));
            let next = (i + 1) % workers;
            let mailbox = Mailbox {
                commands: Arc::clone(&commands),
                replies: Arc::clone(&replies),
                forwarded: Arc::clone(&rings[i]),
                next: (workers > 1).then(|| (Arc::clone(&rings[next]), Arc::clone(&wakes[next]))),
                workers: u8::try_from(workers).unwrap_or(u8::MAX),
            };
            (mailbox, Handle { commands, replies, wake: Arc::clone(&wakes[i]) })
        })
        .collect()
}

/// A waker that does nothing: for a worker that never sleeps, or one that is driven by hand.
#[must_use]
pub fn no_wake() -> Wake {
    Arc::new(|| {})
}
