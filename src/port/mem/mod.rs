//! The simulated link: two ends that implement [`Port`](super::Port), between them lines that lose, double,
//! reorder, corrupt and delay, all from one seed and under a clock that only [`LinkHandle::advance`] moves.
//!
//! ```text
//!  MemPort (end A, queue i)                     Shared                        MemPort (end B, queue j)
//!  alloc ▶ send ▶ [tx ring] ── flush: copy ──▶ line A→B: impairment, heap ── advance ──▶ [inbox j] ▶ rx
//!  rx ◀ [inbox i] ◀── advance ── heap, impairment: line B→A ◀── flush: copy ── [tx ring] ◀ send ◀ alloc
//! ```
//!
//! Each port owns the memory of its frames; what is on a line is a copy owned by the link, so a frame is always in
//! exactly one place and [`Port::accounting`](super::Port::accounting) balances at any moment. A port posts frames
//! for reception at `flush`, as an AF_XDP socket fills its ring; a copy that comes due when none is posted, or when
//! the receive ring is full, is dropped and counted. Every copy that was ever made ends in exactly one counter of
//! [`Counters`] (see [`Counters::balanced`]).
//!
//! Single-threaded by design. No syscall, no clock, no randomness but the seed's.

mod end;
mod line;
mod log;
mod steer;
#[cfg(test)]
mod tests;

pub use end::MemPort;
pub use line::{Counters, Filter, Verdict};
pub use log::{Fate, LogEntry};
pub use steer::{flow_of, queue_of};

use super::Checksums;
use crate::time::Time;
use line::Shared;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

/// Which way a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the first end to the second.
    AToB,
    /// From the second end to the first.
    BToA,
}

impl Direction {
    /// The other way.
    #[must_use]
    pub const fn reverse(self) -> Self {
        match self {
            Self::AToB => Self::BToA,
            Self::BToA => Self::AToB,
        }
    }
    pub(super) const fn index(self) -> usize {
        match self {
            Self::AToB => 0,
            Self::BToA => 1,
        }
    }
}

/// The speed of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Bits per second; a frame takes its bytes plus 24 (preamble, check sequence, gap: IEEE 802.3). 0 counts as 1.
    pub bits_per_second: u64,
    /// How long a frame may wait for the line; one that would wait longer is dropped at the tail.
    pub queue: Duration,
}

/// What one direction does to frames. The probabilities are per frame, 0 to 1. The default is a perfect line.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Impairment {
    /// Probability that a frame is lost.
    pub loss: f64,
    /// Probability that a frame arrives twice.
    pub duplication: f64,
    /// Probability that a frame is held back by up to `reordering_delay`, so that later ones overtake it.
    pub reordering: f64,
    /// Longest hold of a reordered frame; at least 1 µs is used.
    pub reordering_delay: Duration,
    /// Probability that one bit of a frame is flipped: a single bit is always caught by the Internet checksum where
    /// that covers it, so a test's oracle stays exact.
    pub corruption: f64,
    /// Shortest and longest delay, drawn evenly. Frames keep their order in spite of the spread, unless reordered.
    pub delay: (Duration, Duration),
    /// Speed limit, if any.
    pub rate: Option<Rate>,
    /// Spans, from (inclusive) to (exclusive), in which everything sent is lost.
    pub down: Vec<(Time, Time)>,
}

impl Impairment {
    /// A line without faults that takes `delay`.
    #[must_use]
    pub fn delayed(delay: Duration) -> Self {
        Self { delay: (delay, delay), ..Self::default() }
    }
}

/// What a link is made of. The sizes hold for each port (queue) of both ends.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkConfig {
    /// Source of everything random.
    pub seed: u64,
    /// The line from the first end to the second.
    pub a_to_b: Impairment,
    /// The line from the second end to the first.
    pub b_to_a: Impairment,
    /// Frames of a port's pool. Too low and reception or answers are dropped for want of a frame.
    pub frames: u32,
    /// Of these, how many are kept posted for reception, at most.
    pub fill: usize,
    /// Slots of the receive ring: due frames not yet taken by `rx`.
    pub rx_ring: usize,
    /// Slots of the transmit ring: frames sent and not yet flushed.
    pub tx_ring: usize,
    /// IP MTU in bytes; a frame longer than MTU + 22 (Ethernet and two VLAN tags) is dropped.
    pub mtu: u16,
    /// Probability that a frame lands at another queue of the receiving end than the one its flow hashes to.
    pub scatter: f64,
    /// How the ports say that checksums are to be checked.
    pub checksums: Checksums,
    /// Entries of the packet log; 0 keeps none.
    pub log: usize,
    /// Bytes of a frame that the log keeps.
    pub log_snap: usize,
    /// Whether everything that happens on the link goes into [`LinkHandle::digest`].
    pub digest: bool,
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            a_to_b: Impairment::default(),
            b_to_a: Impairment::default(),
            frames: 4096,
            fill: 2048,
            rx_ring: 2048,
            tx_ring: 2048,
            mtu: 1500,
            scatter: 0.0,
            checksums: Checksums::Verify,
            log: 0,
            log_snap: 128,
            digest: false,
        }
    }
}

impl LinkConfig {
    /// Sets the same impairment both ways.
    #[must_use]
    pub fn both(mut self, impairment: Impairment) -> Self {
        self.a_to_b = impairment.clone();
        self.b_to_a = impairment;
        self
    }
}

/// Makes a link with one port at each end.
#[must_use]
pub fn link(config: LinkConfig) -> (MemPort, MemPort, LinkHandle) {
    let shared = Rc::new(RefCell::new(Shared::new(config, 1, 1)));
    let a = MemPort::new(&shared, Direction::AToB, 0);
    let b = MemPort::new(&shared, Direction::BToA, 0);
    (a, b, LinkHandle { shared })
}

/// Makes a link whose ends have several ports (queues, at least one each). A frame goes to the queue that
/// [`queue_of`] names for its flow, or by `scatter` to another one; what is no TCP goes to queue 0.
#[must_use]
pub fn link_multi(
    config: LinkConfig,
    queues_a: usize,
    queues_b: usize,
) -> (Vec<MemPort>, Vec<MemPort>, LinkHandle) {
    let (queues_a, queues_b) = (queues_a.max(1), queues_b.max(1));
    let shared = Rc::new(RefCell::new(Shared::new(config, queues_a, queues_b)));
    let a = (0..queues_a).map(|q| MemPort::new(&shared, Direction::AToB, q)).collect();
    let b = (0..queues_b).map(|q| MemPort::new(&shared, Direction::BToA, q)).collect();
    (a, b, LinkHandle { shared })
}

/// The experimenter's hand on a link: moves its clock, reads its counters, changes its faults.
#[derive(Clone)]
pub struct LinkHandle {
    shared: Rc<RefCell<Shared>>,
}

impl LinkHandle {
    /// Moves the clock (never back) and makes every frame that is due visible to the receiving ports. Returns how
    /// many were delivered.
    #[expect(clippy::must_use_candidate, reason = "the clock is moved; how many arrived is extra")]
    pub fn advance(&self, now: Time) -> usize {
        self.shared.borrow_mut().advance(now)
    }

    /// The link's clock.
    #[must_use]
    pub fn now(&self) -> Time {
        self.shared.borrow().now
    }

    /// When the next frame is due, not before [`LinkHandle::now`]; `None` when nothing is on the way.
    #[must_use]
    pub fn next_delivery(&self) -> Option<Time> {
        self.shared.borrow().next_delivery()
    }

    /// Copies on their way in one direction.
    #[must_use]
    pub fn in_flight(&self, direction: Direction) -> usize {
        self.shared.borrow().lines[direction.index()].in_flight()
    }

    /// Frames delivered in one direction and not yet taken by the receiver's `rx`.
    #[must_use]
    pub fn waiting(&self, direction: Direction) -> usize {
        self.shared.borrow().lines[direction.index()].waiting()
    }

    /// What happened to the frames of one direction.
    #[must_use]
    pub fn counters(&self, direction: Direction) -> Counters {
        self.shared.borrow().lines[direction.index()].counters
    }

    /// Replaces the impairment of one direction, for frames sent from now on.
    pub fn impair(&self, direction: Direction, impairment: Impairment) {
        self.shared.borrow_mut().lines[direction.index()].impairment = impairment;
    }

    /// Sets (or with `None` removes) a filter that sees every frame of one direction before the impairment does, and
    /// decides: how a test loses exactly the second FIN. The filter must not use the handle or a port of this link.
    pub fn set_filter(&self, direction: Direction, filter: Option<Filter>) {
        self.shared.borrow_mut().lines[direction.index()].filter = filter;
    }

    /// Puts a frame on the line as if the sending end had sent it, due now, past filter and impairment: forged and
    /// malformed frames come this way. `bytes` beyond MTU + 22 are dropped as oversize.
    pub fn inject(&self, direction: Direction, bytes: &[u8]) {
        self.shared.borrow_mut().inject(direction, bytes);
    }

    /// Sets how often frames of either direction land at another queue than their flow's, from now on.
    pub fn scatter(&self, probability: f64) {
        self.shared.borrow_mut().config.scatter = probability;
    }

    /// Changes the table by which the end that receives in `direction` steers flows to its queues: some flows move, as
    /// when a NIC's RSS table is rewritten. Table 0 is that of [`queue_of`].
    pub fn steer(&self, direction: Direction, table: u64) {
        self.shared.borrow_mut().lines[direction.index()].steering = table;
    }

    /// Holds (or lets go) what a queue sends in `direction`: its frames stay in the transmit ring, as when the kernel
    /// does not come round to sending.
    pub fn hold(&self, direction: Direction, queue: usize, held: bool) {
        if let Some(h) = self.shared.borrow_mut().lines[direction.index()].held.get_mut(queue) {
            *h = held;
        }
    }

    /// Has one of the ports lose a buffer at its next flush: a fault of the port, for tests that one is noticed.
    pub fn lose_buffer(&self) {
        self.shared.borrow_mut().lose_buffer = true;
    }

    /// A hash of everything that has happened on the link, if [`LinkConfig::digest`] asks for one: two runs of one seed
    /// have the same.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.shared.borrow().log.digest()
    }

    /// Takes what the packet log holds, oldest entry first.
    #[must_use]
    pub fn take_log(&self) -> Vec<LogEntry> {
        self.shared.borrow_mut().log.take()
    }

    /// The packet log, oldest entry first.
    #[must_use]
    pub fn log(&self) -> Vec<LogEntry> {
        self.shared.borrow().log.entries()
    }
}
