//! The lines of a link: one direction each, with its faults, its copies on the way, and the inboxes at its end.

use super::log::{Fate, Log};
use super::steer::queue_of_frame;
use super::{Direction, Impairment, LinkConfig};
use crate::time::Time;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

/// What a filter decides about a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// On to the impairment.
    Pass,
    /// Dropped, counted as `filtered`.
    Drop,
    /// Past the impairment, twice.
    Duplicate,
    /// Past the impairment, held back by this much so that later frames overtake it.
    Hold(Duration),
}

/// Sees the link's time and a frame before the impairment does.
pub type Filter = Box<dyn FnMut(Time, &[u8]) -> Verdict>;

/// What happened to the frames of one direction; all monotonic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames flushed by the sending end.
    pub sent: u64,
    /// Frames put on the line by hand.
    pub injected: u64,
    /// Second copies made.
    pub duplicated: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Lost because the line was down.
    pub down: u64,
    /// Dropped by the filter.
    pub filtered: u64,
    /// Dropped at the tail of the rate limit's queue.
    pub queue_full: u64,
    /// Dropped as longer than the MTU allows.
    pub oversize: u64,
    /// Held back so that others overtake.
    pub reordered: u64,
    /// A bit was flipped.
    pub corrupted: u64,
    /// Landed at another queue than their flow's.
    pub scattered: u64,
    /// Came due and became visible to the receiver.
    pub delivered: u64,
    /// Came due when the receiver had no frame posted.
    pub no_frame: u64,
    /// Came due when the receive ring was full.
    pub ring_full: u64,
}

impl Counters {
    /// Whether every copy made is either still on its way or ended in exactly one place.
    #[must_use]
    pub const fn balanced(&self, in_flight: usize) -> bool {
        let made = self.sent + self.injected + self.duplicated;
        let lost = self.lost + self.down + self.filtered + self.queue_full + self.oversize;
        made == lost + self.delivered + self.no_frame + self.ring_full + in_flight as u64
    }
}

/// A copy on its way. Ordered by due time, then by the order of sending.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct InFlight {
    due: Time,
    number: u64,
    queue: usize,
    bytes: Vec<u8>,
}

/// What is due at one receiving queue.
pub(super) struct Inbox {
    pub frames: VecDeque<Vec<u8>>,
    /// Frames the receiver has posted beyond those that `frames` will take.
    pub posted: usize,
    /// Copies dropped here for want of a posted frame.
    pub no_frame: u64,
    /// Copies dropped here because the ring was full.
    pub ring_full: u64,
}

/// One direction of a link.
pub(super) struct Line {
    pub impairment: Impairment,
    pub filter: Option<Filter>,
    pub counters: Counters,
    pub inboxes: Vec<Inbox>,
    heap: BinaryHeap<Reverse<InFlight>>,
    rng: SmallRng,
    /// Due time of the latest frame that keeps its order.
    last_due: Time,
    /// When the rate-limited line is free again, in nanoseconds.
    free_at_ns: u64,
    number: u64,
    /// Buffers for copies to come.
    spare: Vec<Vec<u8>>,
    /// Which table of queues the receiving end steers by.
    pub steering: u64,
    /// Sending queues whose frames stay in the transmit ring.
    pub held: Vec<bool>,
}

/// Spare buffers a line keeps; more only holds memory, fewer allocates again after a burst.
const SPARES: usize = 4096;

impl Line {
    fn new(impairment: Impairment, seed: u64, queues: usize, senders: usize) -> Self {
        let inbox = || Inbox { frames: VecDeque::new(), posted: 0, no_frame: 0, ring_full: 0 };
        Self {
            impairment,
            filter: None,
            counters: Counters::default(),
            inboxes: (0..queues).map(|_| inbox()).collect(),
            heap: BinaryHeap::new(),
            rng: SmallRng::seed_from_u64(seed),
            last_due: Time::ZERO,
            free_at_ns: 0,
            number: 0,
            spare: Vec::new(),
            steering: 0,
            held: vec![false; senders],
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.heap.len()
    }

    pub(super) fn waiting(&self) -> usize {
        self.inboxes.iter().map(|i| i.frames.len()).sum()
    }

    fn copy(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut copy = self.spare.pop().unwrap_or_default();
        copy.clear();
        copy.extend_from_slice(bytes);
        copy
    }

    /// Takes back the buffer of a copy.
    pub(super) fn recycle(&mut self, copy: Vec<u8>) {
        if self.spare.len() < SPARES {
            self.spare.push(copy);
        }
    }

    fn chance(&mut self, probability: f64) -> bool {
        // Drawn even for probability 0, so that changing one fault does not change what the others hit.
        self.rng.random::<f64>() < probability
    }

    /// Waits for the line; `None` when the queue before it is full.
    fn transmission_end(&mut self, now: Time, len: usize) -> Option<Time> {
        let Some(rate) = self.impairment.rate else {
            return Some(now);
        };
        let now_ns = now.micros().saturating_mul(1000);
        let start = self.free_at_ns.max(now_ns);
        if u128::from(start - now_ns) > rate.queue.as_nanos() {
            return None;
        }
        let bits = (len as u64 + 24) * 8;
        let takes = u128::from(bits) * 1_000_000_000 / u128::from(rate.bits_per_second.max(1));
        self.free_at_ns = start.saturating_add(u64::try_from(takes).unwrap_or(u64::MAX));
        Some(Time::from_micros(self.free_at_ns.div_ceil(1000)))
    }

    /// Draws when a copy that leaves at `start` is due. A held-back one does not hold back those after it.
    fn draw_due(&mut self, start: Time, held: bool) -> Time {
        let (min, max) = self.impairment.delay;
        let (min, max) = (min.as_micros() as u64, max.as_micros() as u64);
        let delay = self.rng.random_range(min..=max.max(min));
        let hold = (self.impairment.reordering_delay.as_micros() as u64).max(1);
        let hold = self.rng.random_range(1..=hold);
        let due = start + Duration::from_micros(delay);
        if held {
            due.max(self.last_due) + Duration::from_micros(hold)
        } else {
            self.last_due = due.max(self.last_due);
            self.last_due
        }
    }

    /// Chooses the receiving queue and puts a copy on its way.
    fn launch(&mut self, bytes: &[u8], due: Time, scatter: f64) {
        let queues = self.inboxes.len();
        let mut queue = queue_of_frame(bytes, queues, self.steering);
        let astray = self.chance(scatter);
        let step = self.rng.random_range(0..queues.max(2) - 1);
        if astray && queues > 1 {
            queue = (queue + 1 + step) % queues;
            self.counters.scattered += 1;
        }
        let bytes = self.copy(bytes);
        self.number += 1;
        self.heap.push(Reverse(InFlight { due, number: self.number, queue, bytes }));
    }
}

/// Both lines, the clock and the log.
pub(super) struct Shared {
    pub now: Time,
    pub lines: [Line; 2],
    pub log: Log,
    pub config: LinkConfig,
    /// The next buffer that a port takes back is lost.
    pub lose_buffer: bool,
}

impl Shared {
    pub(super) fn new(config: LinkConfig, queues_a: usize, queues_b: usize) -> Self {
        let lines = [
            Line::new(config.a_to_b.clone(), config.seed, queues_b, queues_a),
            Line::new(config.b_to_a.clone(), !config.seed, queues_a, queues_b),
        ];
        let log = Log::new(config.log, config.log_snap, config.digest);
        Self { now: Time::ZERO, lines, log, config, lose_buffer: false }
    }

    /// Longest frame: the MTU plus an Ethernet header and two VLAN tags.
    pub(super) fn max_frame(&self) -> usize {
        usize::from(self.config.mtu) + 22
    }

    /// One frame leaves the end that sends in `direction`.
    pub(super) fn transmit(&mut self, direction: Direction, queue: usize, frame: &[u8]) {
        let (now, max, scatter) = (self.now, self.max_frame(), self.config.scatter);
        let line = &mut self.lines[direction.index()];
        line.counters.sent += 1;
        let verdict = line.filter.as_mut().map_or(Verdict::Pass, |f| f(now, frame));
        // All draws of a frame, always the same number in the same order.
        let lost = line.chance(line.impairment.loss);
        let doubled = line.chance(line.impairment.duplication);
        let reordered = line.chance(line.impairment.reordering);
        let corrupted = line.chance(line.impairment.corruption);
        let bit = line.rng.random_range(0..(frame.len() * 8).max(1));
        let passed = verdict == Verdict::Pass;

        let dropped = if verdict == Verdict::Drop {
            line.counters.filtered += 1;
            Some(Fate::Filtered)
        } else if frame.len() > max {
            line.counters.oversize += 1;
            Some(Fate::Oversize)
        } else if passed && line.impairment.down.iter().any(|(from, to)| (*from..*to).contains(&now)) {
            line.counters.down += 1;
            Some(Fate::Down)
        } else if passed && lost {
            line.counters.lost += 1;
            Some(Fate::Lost)
        } else {
            None
        };
        if let Some(fate) = dropped {
            self.log.push(now, direction, queue, frame, fate, (false, false));
            return;
        }
        let Some(start) = line.transmission_end(now, frame.len()) else {
            line.counters.queue_full += 1;
            self.log.push(now, direction, queue, frame, Fate::QueueFull, (false, false));
            return;
        };

        let mut copy = line.copy(frame);
        let corrupted = passed && corrupted && !copy.is_empty();
        if corrupted {
            line.counters.corrupted += 1;
            copy[bit / 8] ^= 1 << (bit % 8);
        }
        let hold = match verdict {
            Verdict::Hold(d) => Some(d),
            Verdict::Pass | Verdict::Drop | Verdict::Duplicate => None,
        };
        let reordered = hold.is_some() || (passed && reordered);
        line.counters.reordered += u64::from(reordered);
        let due = match hold {
            Some(d) => start + line.impairment.delay.0 + d,
            None => line.draw_due(start, reordered),
        };
        line.launch(&copy, due, scatter);
        self.log.push(now, direction, queue, &copy, Fate::Passed(due), (corrupted, reordered));
        if verdict == Verdict::Duplicate || (passed && doubled) {
            line.counters.duplicated += 1;
            let due = line.draw_due(start, false);
            line.launch(&copy, due, scatter);
            self.log.push(now, direction, queue, &copy, Fate::Duplicate(due), (corrupted, false));
        }
        line.recycle(copy);
    }

    pub(super) fn inject(&mut self, direction: Direction, frame: &[u8]) {
        let (now, max) = (self.now, self.max_frame());
        let line = &mut self.lines[direction.index()];
        line.counters.injected += 1;
        let fate = if frame.len() > max {
            line.counters.oversize += 1;
            Fate::Oversize
        } else {
            line.launch(frame, now, 0.0);
            Fate::Injected(now)
        };
        self.log.push(now, direction, 0, frame, fate, (false, false));
    }

    pub(super) fn next_delivery(&self) -> Option<Time> {
        let first = self.lines.iter().filter_map(|l| l.heap.peek()).map(|r| r.0.due).min();
        first.map(|t| t.max(self.now))
    }

    pub(super) fn advance(&mut self, now: Time) -> usize {
        self.now = self.now.max(now);
        let mut delivered = 0;
        for direction in [Direction::AToB, Direction::BToA] {
            let line = &mut self.lines[direction.index()];
            while line.heap.peek().is_some_and(|r| r.0.due.due(self.now)) {
                let Some(Reverse(f)) = line.heap.pop() else { break };
                let inbox = &mut line.inboxes[f.queue];
                let fate = if inbox.frames.len() >= self.config.rx_ring {
                    inbox.ring_full += 1;
                    line.counters.ring_full += 1;
                    Fate::RingFull
                } else if inbox.posted == 0 {
                    inbox.no_frame += 1;
                    line.counters.no_frame += 1;
                    Fate::NoFrame
                } else {
                    inbox.posted -= 1;
                    inbox.frames.push_back(f.bytes);
                    line.counters.delivered += 1;
                    delivered += 1;
                    continue;
                };
                self.log.push(f.due, direction, f.queue, &f.bytes, fate, (false, false));
                line.recycle(f.bytes);
            }
        }
        delivered
    }
}
