//! One queue of one end of a simulated link.

use super::Direction;
use super::line::Shared;
use super::log::Fate;
use crate::port::{Accounting, BURST, Checksums, Frame, Port, PortStats};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::Duration;

/// A port over simulated memory. It behaves as an AF_XDP socket does: frames are posted for reception and taken back
/// from transmission at [`Port::flush`] only, and every ring is bounded.
///
/// # Panics
/// [`Port::send`], [`Port::free`] and the accessors panic when given a frame that this port has not lent: a ticket of
/// another port can only come from a fault in the program under test.
pub struct MemPort {
    shared: Rc<RefCell<Shared>>,
    /// Where it sends; it receives the other way.
    out: Direction,
    queue: usize,
    memory: Vec<u8>,
    /// Bytes of one buffer.
    size: usize,
    /// Whether the frame of that number is with the caller.
    lent: Vec<bool>,
    lent_count: u64,
    free: Vec<u32>,
    /// Posted for reception, in order of use.
    posted: VecDeque<u32>,
    /// Sent, not yet flushed.
    pending: VecDeque<Frame>,
    /// Flushed; free again at the next flush, as completions are.
    completing: Vec<u32>,
    fill: usize,
    tx_ring: usize,
    stats: PortStats,
}

impl MemPort {
    /// A port that sends in direction `out`, with its frames posted for reception.
    pub(super) fn new(shared: &Rc<RefCell<Shared>>, out: Direction, queue: usize) -> Self {
        let (frames, size, fill, tx_ring) = {
            let s = shared.borrow();
            (s.config.frames, s.max_frame().next_multiple_of(64), s.config.fill, s.config.tx_ring)
        };
        let mut port = Self {
            shared: Rc::clone(shared),
            out,
            queue,
            memory: vec![0; frames as usize * size],
            size,
            lent: vec![false; frames as usize],
            lent_count: 0,
            free: (0..frames).rev().collect(),
            posted: VecDeque::new(),
            pending: VecDeque::new(),
            completing: Vec::new(),
            fill,
            tx_ring,
            stats: PortStats::default(),
        };
        port.refill();
        port
    }

    /// The number of its queue at its end.
    #[must_use]
    pub const fn queue(&self) -> usize {
        self.queue
    }

    fn refill(&mut self) {
        let before = self.posted.len();
        while self.posted.len() < self.fill {
            let Some(index) = self.free.pop() else { break };
            self.posted.push_back(index);
        }
        let added = self.posted.len() - before;
        let line = self.out.reverse().index();
        self.shared.borrow_mut().lines[line].inboxes[self.queue].posted += added;
    }

    fn lend(&mut self, index: u32, len: usize) -> Frame {
        self.lent[index as usize] = true;
        self.lent_count += 1;
        Frame { index, len: len as u16 }
    }

    fn take_back(&mut self, frame: &Frame) {
        self.check(frame);
        self.lent[frame.index as usize] = false;
        self.lent_count -= 1;
    }

    fn check(&self, frame: &Frame) {
        let lent = self.lent.get(frame.index as usize).copied().unwrap_or(false);
        assert!(lent, "frame {} is not lent by this port", frame.index);
    }

    fn start(&self, index: u32) -> usize {
        index as usize * self.size
    }
}

impl Port for MemPort {
    fn rx(&mut self, out: &mut Vec<Frame>) -> usize {
        let shared = Rc::clone(&self.shared);
        let mut shared = shared.borrow_mut();
        let Shared { now, lines, log, .. } = &mut *shared;
        let line = &mut lines[self.out.reverse().index()];
        let mut taken = 0;
        while out.len() < BURST && !self.posted.is_empty() {
            let Some(bytes) = line.inboxes[self.queue].frames.pop_front() else {
                break;
            };
            let Some(index) = self.posted.pop_front() else {
                break;
            };
            let at = self.start(index);
            self.memory[at..at + bytes.len()].copy_from_slice(&bytes);
            let frame = self.lend(index, bytes.len());
            out.push(frame);
            log.push(*now, self.out.reverse(), self.queue, &bytes, Fate::Taken, (false, false));
            taken += 1;
            self.stats.rx_frames += 1;
            self.stats.rx_bytes += bytes.len() as u64;
            line.recycle(bytes);
        }
        taken
    }

    fn bytes<'a>(&'a self, frame: &'a Frame) -> &'a [u8] {
        self.check(frame);
        let at = self.start(frame.index);
        &self.memory[at..at + frame.len()]
    }

    fn buffer<'a>(&'a mut self, frame: &'a mut Frame) -> &'a mut [u8] {
        self.check(frame);
        let at = self.start(frame.index);
        &mut self.memory[at..at + self.size]
    }

    fn set_len(&mut self, frame: &mut Frame, len: usize) {
        frame.len = len.min(self.size) as u16;
    }

    fn alloc(&mut self) -> Option<Frame> {
        let index = self.free.pop()?;
        Some(self.lend(index, 0))
    }

    fn send(&mut self, frame: Frame) -> bool {
        if self.pending.len() >= self.tx_ring {
            self.stats.tx_ring_full += 1;
            self.free(frame);
            return false;
        }
        self.take_back(&frame);
        self.pending.push_back(frame);
        true
    }

    fn tx_room(&mut self) -> usize {
        self.tx_ring - self.pending.len()
    }

    fn free(&mut self, frame: Frame) {
        self.take_back(&frame);
        self.free.push(frame.index);
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.completing.is_empty() && std::mem::take(&mut self.shared.borrow_mut().lose_buffer) {
            self.completing.pop();
        }
        self.free.append(&mut self.completing);
        if self.shared.borrow().lines[self.out.index()].held[self.queue] {
            self.refill();
            return Ok(());
        }
        while let Some(frame) = self.pending.pop_front() {
            let at = self.start(frame.index);
            let bytes = &self.memory[at..at + frame.len()];
            self.shared.borrow_mut().transmit(self.out, self.queue, bytes);
            self.stats.tx_frames += 1;
            self.stats.tx_bytes += bytes.len() as u64;
            self.completing.push(frame.index);
        }
        self.refill();
        Ok(())
    }

    /// Returns at once: simulated time is moved by [`LinkHandle::advance`](super::LinkHandle::advance) alone.
    fn wait(&mut self, _timeout: Duration) -> io::Result<()> {
        Ok(())
    }

    fn checksums(&self) -> Checksums {
        self.shared.borrow().config.checksums
    }

    fn accounting(&self) -> Accounting {
        Accounting {
            total: self.lent.len() as u64,
            free: self.free.len() as u64,
            in_rx: self.posted.len() as u64,
            in_tx: (self.pending.len() + self.completing.len()) as u64,
            lent: self.lent_count,
        }
    }

    fn stats(&mut self) -> PortStats {
        let shared = self.shared.borrow();
        let inbox = &shared.lines[self.out.reverse().index()].inboxes[self.queue];
        PortStats { xsk_rx_ring_full: inbox.ring_full, xsk_fill_ring_empty: inbox.no_frame, ..self.stats }
    }
}
