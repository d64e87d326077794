//! A port that plays prepared frames and keeps what is sent in answer until the next burst: an engine measured with it
//! is measured alone, without link or peer.
//!
//! ```text
//!  prepared bursts ──copied──▶ Port::rx ─▶ shard ─▶ Port::send ─▶ sent(): the frames of this burst
//! ```
//!
//! The copy into a frame stands for the device's write. Nothing here allocates after construction.

use super::{Accounting, BURST, Checksums, Frame, Port, PortStats};
use std::io;
use std::time::Duration;

/// Bytes of a frame's buffer: that of AF_XDP with small frames.
const FRAME_BYTES: usize = 2048;

/// Buffers. A shard answers a frame in place or frees it and takes another, so it never holds more than a burst
/// of each.
const FRAMES: usize = 4 * BURST;

/// Prepared frames, one after the other.
#[derive(Debug, Default)]
pub struct Reel {
    bytes: Vec<u8>,
    /// Where each frame ends in `bytes`.
    ends: Vec<u32>,
    /// The next frame to play.
    next: usize,
}

impl Reel {
    /// An empty reel with room for `frames` of `bytes` in all.
    #[must_use]
    pub fn with_capacity(frames: usize, bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), ends: Vec::with_capacity(frames), next: 0 }
    }

    /// Appends a frame.
    pub fn push(&mut self, frame: &[u8]) {
        self.bytes.extend_from_slice(frame);
        self.ends.push(self.bytes.len() as u32);
    }

    /// Forgets all frames and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.next = 0;
    }

    /// Frames that are still to be played.
    #[must_use]
    pub fn left(&self) -> usize {
        self.ends.len() - self.next
    }

    /// From the first frame again.
    pub fn rewind(&mut self) {
        self.next = 0;
    }

    fn take(&mut self) -> Option<&[u8]> {
        let end = *self.ends.get(self.next)? as usize;
        let begin = self.next.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        self.next += 1;
        self.bytes.get(begin..end)
    }
}

/// The port.
#[derive(Debug)]
pub struct ReplayPort {
    buffers: Box<[[u8; FRAME_BYTES]]>,
    free: Vec<u32>,
    sent: Vec<Frame>,
    reel: Reel,
    /// Frames a burst takes at most.
    burst: usize,
    stats: PortStats,
    lent: u64,
}

impl ReplayPort {
    /// A port with nothing to play that gives out bursts of up to `burst` frames (at most [`BURST`]).
    #[must_use]
    pub fn new(burst: usize) -> Self {
        Self {
            buffers: vec![[0; FRAME_BYTES]; FRAMES].into_boxed_slice(),
            free: (0..FRAMES as u32).collect(),
            sent: Vec::with_capacity(FRAMES),
            reel: Reel::default(),
            burst: burst.clamp(1, BURST),
            stats: PortStats::default(),
            lent: 0,
        }
    }

    /// Gives out bursts of up to `burst` frames from now on.
    pub fn set_burst(&mut self, burst: usize) {
        self.burst = burst.clamp(1, BURST);
    }

    /// Puts a reel in; the one that was there comes out.
    pub fn load(&mut self, reel: Reel) -> Reel {
        std::mem::replace(&mut self.reel, reel)
    }

    /// Frames that are still to be played.
    #[must_use]
    pub fn left(&self) -> usize {
        self.reel.left()
    }

    /// Frames sent since the last burst.
    pub fn sent(&self) -> impl Iterator<Item = &[u8]> {
        self.sent.iter().map(|f| self.bytes(f))
    }

    fn recycle(&mut self) {
        self.free.extend(self.sent.drain(..).map(|f| f.index));
    }
}

impl Port for ReplayPort {
    fn rx(&mut self, out: &mut Vec<Frame>) -> usize {
        self.recycle();
        let mut n = 0;
        while n < self.burst {
            let Some(&index) = self.free.last() else { break };
            let Some(bytes) = self.reel.take() else { break };
            let len = bytes.len().min(FRAME_BYTES);
            self.buffers[index as usize][..len].copy_from_slice(&bytes[..len]);
            self.free.pop();
            out.push(Frame { index, len: len as u16 });
            self.stats.rx_frames += 1;
            self.stats.rx_bytes += len as u64;
            n += 1;
        }
        self.lent += n as u64;
        n
    }

    fn bytes<'a>(&'a self, frame: &'a Frame) -> &'a [u8] {
        &self.buffers[frame.index as usize][..frame.len()]
    }

    fn buffer<'a>(&'a mut self, frame: &'a mut Frame) -> &'a mut [u8] {
        &mut self.buffers[frame.index as usize]
    }

    fn set_len(&mut self, frame: &mut Frame, len: usize) {
        frame.len = len.min(FRAME_BYTES) as u16;
    }

    fn alloc(&mut self) -> Option<Frame> {
        let index = self.free.pop()?;
        self.lent += 1;
        Some(Frame { index, len: 0 })
    }

    fn send(&mut self, frame: Frame) -> bool {
        self.lent -= 1;
        self.stats.tx_frames += 1;
        self.stats.tx_bytes += frame.len() as u64;
        // There are as many places as frames.
        self.sent.push(frame);
        true
    }

    fn tx_room(&mut self) -> usize {
        self.free.len()
    }

    fn free(&mut self, frame: Frame) {
        self.lent -= 1;
        self.free.push(frame.index);
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Does not sleep: time is the caller's.
    fn wait(&mut self, _: Duration) -> io::Result<()> {
        Ok(())
    }

    fn checksums(&self) -> Checksums {
        Checksums::Verify
    }

    fn accounting(&self) -> Accounting {
        Accounting {
            total: FRAMES as u64,
            free: self.free.len() as u64,
            in_rx: 0,
            in_tx: self.sent.len() as u64,
            lent: self.lent,
        }
    }

    fn stats(&mut self) -> PortStats {
        self.stats
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plays_in_bursts_and_keeps_what_is_sent_until_the_next() {
        let mut reel = Reel::with_capacity(3, 30);
        for n in [1u8, 2, 3] {
            reel.push(&[n; 10]);
        }
        let mut port = ReplayPort::new(2);
        let _ = port.load(reel);
        let mut burst = Vec::with_capacity(BURST);
        assert_eq!(port.rx(&mut burst), 2);
        assert_eq!(port.left(), 1);
        let second = burst.pop().unwrap();
        let mut first = burst.pop().unwrap();
        assert_eq!((port.bytes(&first), port.bytes(&second)), (&[1; 10][..], &[2; 10][..]));
        port.buffer(&mut first)[..2].copy_from_slice(&[7, 8]);
        port.set_len(&mut first, 2);
        assert!(port.send(first));
        port.free(second);
        assert_eq!(port.sent().collect::<Vec<_>>(), [&[7, 8][..]]);
        assert!(port.accounting().balanced());
        assert_eq!((port.rx(&mut burst), port.sent().count()), (1, 0));
        let a = port.accounting();
        assert_eq!((a.lent, a.balanced()), (1, true));
        port.free(burst.pop().unwrap());
        assert_eq!((port.rx(&mut burst), port.accounting().free), (0, FRAMES as u64));
        // Again from the start.
        let mut reel = port.load(Reel::default());
        reel.rewind();
        assert_eq!(reel.left(), 3);
    }
}
