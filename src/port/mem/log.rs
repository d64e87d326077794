//! The packet log: what went over the link, in a bounded ring, for the report of a failed run.

use super::Direction;
use super::steer::glance;
use crate::time::Time;
use std::collections::VecDeque;
use std::fmt;

/// What the link did with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// When it was sent; for `NoFrame` and `RingFull`, when it was due.
    pub at: Time,
    /// Which way.
    pub direction: Direction,
    /// The sender's queue; for `NoFrame` and `RingFull`, the receiver's.
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

/// One line as a packet capture tool would print it, with the fate at its end.
impl fmt::Display for LogEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = self.at.micros();
        let arrow = match self.direction {
            Direction::AToB => "a>b",
            Direction::BToA => "b>a",
        };
        write!(f, "{:>5}.{:06} {arrow} q{} ", us / 1_000_000, us % 1_000_000, self.queue)?;
        match glance(&self.bytes, self.len) {
            Some(g) => write!(
                f,
                "{} > {} [{}] seq {} ack {} win {} len {}",
                g.src, g.dst, g.flags, g.seq, g.ack, g.window, g.payload
            )?,
            None => write!(f, "not TCP, {} bytes", self.len)?,
        }
        write!(f, ": {:?}", self.fate)?;
        if self.corrupted {
            f.write_str(", corrupted")?;
        }
        if self.reordered {
            f.write_str(", held back")?;
        }
        Ok(())
    }
}

/// The ring; the oldest entry makes room.
pub(super) struct Log {
    ring: VecDeque<LogEntry>,
    limit: usize,
    snap: usize,
}

impl Log {
    pub(super) fn new(limit: usize, snap: usize) -> Self {
        Self { ring: VecDeque::new(), limit, snap }
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
