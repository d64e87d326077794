//! Frames copied out of the dataplane while somebody captures, both directions, as they are on the wire.
//!
//! ```text
//! rx burst, each frame sent ─▶ CaptureTap: meant? ─▶ empty buffer from `spare` ─▶ copy ─▶ `filled` ──▶ control ─┐
//!                                                          ▲────────────────────────────────────────────────────┘
//! ```
//!
//! The buffers are the control plane's, made before the capture begins, and go round. When none is spare the frame goes its
//! way uncaptured and is counted: nobody waits. Without a capture this costs a branch a frame.

use super::filter::Filter;
use super::listen::Listeners;
use crate::metrics::block::Operated;
use crate::time::Time;
use crate::wire::Tuple;
use crossbeam::queue::ArrayQueue;
use std::sync::Arc;

/// A captured frame.
#[derive(Debug)]
pub struct Captured {
    /// When: the time of the worker's turn.
    pub at: Time,
    /// Sent from here, or received.
    pub sent: bool,
    /// Bytes the frame had.
    pub original: u32,
    /// Its first bytes: no more than there was room for when the buffer was made.
    pub bytes: Vec<u8>,
}

/// The two queues that buffers go round in, one pair a worker.
#[derive(Debug)]
pub struct CaptureRing {
    /// Empty buffers.
    pub spare: ArrayQueue<Captured>,
    /// Captured frames, oldest first.
    pub filled: ArrayQueue<Captured>,
}

impl CaptureRing {
    /// With so many buffers of so many bytes.
    #[must_use]
    pub fn new(buffers: usize, snaplen: usize) -> Self {
        let ring = Self { spare: ArrayQueue::new(buffers), filled: ArrayQueue::new(buffers) };
        for _ in 0..buffers {
            let bytes = Vec::with_capacity(snaplen);
            // The queue is as long as there are buffers.
            let _ = ring.spare.push(Captured { at: Time::ZERO, sent: false, original: 0, bytes });
        }
        ring
    }
}

/// What a worker needs for a capture.
#[derive(Debug)]
pub struct CaptureTap {
    /// Which frames.
    pub filter: Filter,
    /// Where they go.
    pub ring: Arc<CaptureRing>,
    /// Frames still to be captured.
    pub left: u64,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Copy {
    /// It is not meant.
    Not,
    /// It was captured.
    Done,
    /// There was no spare buffer.
    Lost,
}

impl CaptureTap {
    /// A frame went by; `tuple` is what it is about, as seen from here, `None` when it could not be read: such a frame is
    /// captured when nothing is filtered.
    pub(super) fn see(
        &mut self,
        bytes: &[u8],
        tuple: Option<&Tuple>,
        listeners: &Listeners,
        at: Time,
        sent: bool,
    ) -> Copy {
        let meant = tuple.map_or_else(|| self.filter.is_empty(), |t| self.filter.wants_frame(t, listeners));
        if self.left == 0 || !meant {
            return Copy::Not;
        }
        let Some(mut buffer) = self.ring.spare.pop() else { return Copy::Lost };
        let n = bytes.len().min(buffer.bytes.capacity());
        buffer.bytes.clear();
        buffer.bytes.extend_from_slice(&bytes[..n]);
        (buffer.at, buffer.sent, buffer.original) = (at, sent, bytes.len() as u32);
        self.left -= 1;
        // The queue is as long as there are buffers.
        let _ = self.ring.filled.push(buffer);
        Copy::Done
    }
}

/// Shows a frame, and what it is about, to the capture under way, if there is one.
pub(super) fn show(
    tap: &mut Option<Box<CaptureTap>>,
    counters: &mut Operated,
    listeners: &Listeners,
    (bytes, tuple): (&[u8], Option<&Tuple>),
    at: Time,
    sent: bool,
) {
    let Some(tap) = tap else { return };
    match tap.see(bytes, tuple, listeners, at, sent) {
        Copy::Not => {}
        Copy::Done => counters.captured += 1,
        Copy::Lost => counters.capture_lost += 1,
    }
}

impl super::Core {
    /// Shows a frame to the capture under way.
    pub(super) fn show_capture(&mut self, bytes: &[u8], tuple: Option<&Tuple>, sent: bool) {
        let counters = &mut self.block.counters.operated;
        show(&mut self.capture, counters, &self.listeners, (bytes, tuple), self.now, sent);
    }
}
