//! The packet log: what went over the link, in a bounded ring, for the report of a failed run.

use super::Direction;
use super::steer::glance;
use crate::time::Time;
use crate::wire::Tuple;
use siphasher::sip::SipHasher13;
use std::collections::VecDeque;
use std::fmt;
use std::hash::{Hash, Hasher};

/// What the link did with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    /// On its way, due at the time given.
    Passed(Time),
    /// The second copy of a frame, due at the time given.
    Duplicate(Time),
    /// Put on the line by [`LinkHandle::inject`](super::LinkHandle::inject), due at the time given.
    Injected(Time),
    /// Lost by chance.
    Lost,
    /// Lost because the line was down.
    Down,
    /// Dropped by the filter.
    Filtered,
    /// Dropped at the tail of the rate limit's queue.
    QueueFull,
    /// Longer than the MTU allows.
    Oversize,
    /// Due, but the receiver had no frame posted.
    NoFrame,
    /// Due, but the receive ring was full.
    RingFull,
    /// Taken by the receiver.
    Taken,
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// When it was sent; for `NoFrame` and `RingFull`, when it was due; for `Taken`, when it was taken.
    pub at: Time,
    /// Which way.
    pub direction: Direction,
    /// The sender's queue; for `NoFrame`, `RingFull` and `Taken`, the receiver's.
    pub queue: usize,
    /// The first bytes of the frame as carried: after corruption.
    pub bytes: Vec<u8>,
    /// Bytes of the whole frame.
    pub len: usize,
    /// What became of it.
    pub fate: Fate,
    /// A bit was flipped.
    pub corrupted: bool,
    /// It was held back.
    pub reordered: bool,
}

impl LogEntry {
    /// Whether this happened at the receiving end.
    #[must_use]
    pub const fn at_receiver(&self) -> bool {
        matches!(self.fate, Fate::NoFrame | Fate::RingFull | Fate::Taken)
    }

    /// The flow, as the end names it where this happened.
    #[must_use]
    pub fn tuple(&self) -> Option<Tuple> {
        let g = glance(&self.bytes, self.len)?;
        let (local, remote) = if self.at_receiver() { (g.dst, g.src) } else { (g.src, g.dst) };
        Some(Tuple { local, remote })
    }

    /// The segment and its fate, without when and where.
    #[must_use]
    pub fn segment(&self) -> impl fmt::Display + '_ {
        Segment(self)
    }
}

struct Segment<'a>(&'a LogEntry);

impl fmt::Display for Segment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let e = self.0;
        match glance(&e.bytes, e.len) {
            Some(g) => write!(
                f,
                "{} > {} [{}] seq {} ack {} win {} len {}",
                g.src, g.dst, g.flags, g.seq, g.ack, g.window, g.payload
            )?,
            None => write!(f, "not TCP, {} bytes", e.len)?,
        }
        write!(f, ": {:?}", e.fate)?;
        if e.corrupted {
            f.write_str(", corrupted")?;
        }
        if e.reordered {
            f.write_str(", held back")?;
        }
        Ok(())
    }
}

/// One line as a packet capture tool would print it, with the fate at its end.
impl fmt::Display for LogEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = self.at.micros();
        let arrow = match self.direction {
            Direction::AToB => "a>b",
            Direction::BToA => "b>a",
        };
        write!(f, "{:>5}.{:06} {arrow} q{} {}", us / 1_000_000, us % 1_000_000, self.queue, self.segment())
    }
}

/// The ring; the oldest entry makes room.
pub(super) struct Log {
    ring: VecDeque<LogEntry>,
    limit: usize,
    snap: usize,
    digest: Option<SipHasher13>,
}

impl Log {
    pub(super) fn new(limit: usize, snap: usize, digest: bool) -> Self {
        Self { ring: VecDeque::new(), limit, snap, digest: digest.then(SipHasher13::new) }
    }

    pub(super) fn digest(&self) -> u64 {
        self.digest.map_or(0, |h| h.finish())
    }

    pub(super) fn take(&mut self) -> Vec<LogEntry> {
        self.ring.drain(..).collect()
    }

    /// Records one event. `marks` is (corrupted, reordered).
    pub(super) fn push(
        &mut self,
        at: Time,
        direction: Direction,
        queue: usize,
        frame: &[u8],
        fate: Fate,
        marks: (bool, bool),
    ) {
        if let Some(h) = &mut self.digest {
            (at, direction, queue, fate).hash(h);
            h.write(frame);
        }
        if self.limit == 0 {
            return;
        }
        if self.ring.len() == self.limit {
            self.ring.pop_front();
        }
        self.ring.push_back(LogEntry {
            at,
            direction,
            queue,
            bytes: frame[..frame.len().min(self.snap)].to_vec(),
            len: frame.len(),
            fate,
            corrupted: marks.0,
            reordered: marks.1,
        });
    }

    pub(super) fn entries(&self) -> Vec<LogEntry> {
        self.ring.iter().cloned().collect()
    }
}
