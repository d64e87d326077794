//! The real port: an `AF_XDP` socket with its own memory on one queue of an interface.
//!
//! ```text
//!            ┌── fill ring ◀── refill ──┐
//!  kernel ◀──┤                        [Pool]──▶ alloc ─┐
//!         ──▶├── rx ring ── rx() ──────────────────────┼──▶ worker ── free() ──▶ [Pool]
//!         ◀──┼── tx ring ◀── flush() ◀── queue ◀── send()
//!         ──▶└── completion ring ── reap ──▶ [Pool]
//! ```
//!
//! Each [`XskPort`] is owned by one worker thread and shares nothing with the others: socket, rings and frames are
//! its own. The [`Steering`] program that feeds all of them belongs to the control plane. [`open`] makes both.
//!
//! On the packet path the only syscalls are the rings' own: sendto when the kernel asks to be woken for
//! transmission (`need_wakeup`; always in copy mode, one for each 32 frames), recvfrom when it asks for reception.
//! [`Port::wait`] is a ppoll.
//!
//! Privileges: see [`NEEDED`]; only [`open`] needs them, a port goes on without.

mod config;
mod error;
mod open;
mod pool;
mod socket;
mod waker;

pub use super::bpf::{AttachMode, Claim, Counter, DEFAULT_LEASE, MAX_LEASE, Mode, SteerCounters, Steering};
pub use config::{RingConfig, RingConfigError};
pub use error::{NEEDED, SetupError};
pub use open::{OpenConfig, Opened, Queues, Report, open};
pub use socket::{CopyMode, ZeroCopy};
pub use waker::Waker;

use super::{Accounting, BURST, Checksums, Frame, Port, PortStats, RingDepths};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use pool::{Pool, Received};
use socket::{Bound, Woken};
use std::fmt;
use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;
use xsk_rs::umem::frame::FrameDesc;
use xsk_rs::{CompQueue, FillQueue, RxQueue, TxQueue};

/// Frames that the kernel sends per wake-up in copy mode: `TX_BATCH_SIZE` of net/xdp/xsk.c. It bounds the wake-ups
/// of one flush; were the kernel's number smaller, the rest would wait for the next flush.
const KERNEL_TX_BATCH: u32 = 32;

/// Part of the receive ring that is waiting when reception goes before sending: a flush then sends one batch. In copy mode a
/// frame costs more to send than to receive, so a flood of what is answered would otherwise overflow the ring, and whom it hits
/// is chance. Higher: less room for what arrives while the worker is without its core; lower: what can be answered waits.
const BEHIND: u32 = 2;

/// Batches of one flush while a burst or more waits to be received: twice what the answers to a burst fill, so that a backlog of
/// answers shrinks, and no more, so that it holds up neither reception nor timers. Sending all of a ring of 16384 takes 20 ms.
const BATCHES: u32 = 2 * (BURST as u32).div_ceil(KERNEL_TX_BATCH);

/// The longest sleep while the kernel still has frames to send that it would not take.
const TX_RETRY: Duration = Duration::from_millis(1);

/// A bound queue of an interface.
pub struct XskPort {
    // The rings go before the memory that they are about.
    rx: RxQueue,
    tx: TxQueue,
    fill: FillQueue,
    comp: CompQueue,
    pool: Pool,
    /// Descriptors sent and not yet in the ring; at most `tx_ring`.
    queued: Vec<FrameDesc>,
    rings: RingConfig,
    queue: u32,
    mode: CopyMode,
    checksums: Checksums,
    waker: Waker,
    stats: PortStats,
    /// Frames and descriptors refused here, apart from what the kernel counts.
    own_dropped: u64,
    own_invalid: u64,
}

impl fmt::Debug for XskPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("XskPort")
            .field("queue", &self.queue)
            .field("mode", &self.mode)
            .field("frames", &self.pool.accounting())
            .finish_non_exhaustive()
    }
}

impl XskPort {
    /// A port on a bound socket, its fill ring full. Checksums are verified until it is known how frames arrive.
    fn new(bound: Bound, queue: u32, rings: RingConfig) -> io::Result<Self> {
        let Bound { pool, rx, tx, fill, comp, mode } = bound;
        let mut port = Self {
            rx,
            tx,
            fill,
            comp,
            pool,
            queued: Vec::with_capacity(rings.tx_ring as usize),
            rings,
            queue,
            mode,
            checksums: Checksums::Verify,
            waker: Waker::new()?,
            stats: PortStats::default(),
            own_dropped: 0,
            own_invalid: 0,
        };
        port.pool.refill(&mut port.fill, rings.rx_ring);
        Ok(port)
    }

    /// The queue's number.
    #[must_use]
    pub const fn queue(&self) -> u32 {
        self.queue
    }

    /// Zero-copy or copy, as the kernel says.
    #[must_use]
    pub const fn copy_mode(&self) -> CopyMode {
        self.mode
    }

    /// The most bytes of a frame, link header included.
    #[must_use]
    pub fn frame_capacity(&self) -> usize {
        usize::from(self.pool.capacity())
    }

    /// A handle that ends [`Port::wait`] from another thread.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// As [`Port::accounting`], but counted frame by frame instead of kept up by moves: a pass over all frames, for
    /// tests and for the end of a run.
    #[must_use]
    pub fn audit(&self) -> Accounting {
        self.pool.audit()
    }

    fn reap(&mut self) {
        self.own_invalid += self.pool.reap(&mut self.comp);
    }

    fn room(&mut self) -> usize {
        // Asked for this many, libxdp looks at the kernel's side of the ring only when what it remembers falls short.
        let slots = self.tx.nb_free((self.queued.len() + BURST) as u32) as usize;
        // `in_tx` counts what is queued, in the ring, and sent but not reaped: bounded by the completion ring, which
        // is as long as the transmit ring, or the kernel would have nowhere to put its completions.
        let uncompleted = self.rings.tx_ring.saturating_sub(self.pool.in_tx()) as usize;
        slots.saturating_sub(self.queued.len()).min(uncompleted)
    }

    /// Frames in the transmit ring that the kernel has not taken yet.
    fn untaken(&mut self) -> u32 {
        self.rings.tx_ring.saturating_sub(self.tx.nb_free_exact())
    }

    fn hand_over(&mut self) {
        if self.queued.is_empty() {
            return;
        }
        // `room` was checked frame by frame, and it only grows; should the ring all the same refuse, the frames wait.
        if Pool::transmit(&mut self.tx, &self.queued) != self.queued.len() {
            return;
        }
        self.stats.tx_frames += self.queued.len() as u64;
        self.stats.tx_bytes += self.queued.iter().map(|d| d.lengths().data() as u64).sum::<u64>();
        self.queued.clear();
    }

    fn kick(&mut self) -> io::Result<()> {
        let mut untaken = self.untaken();
        let behind = self.rings.rx_ring / BEHIND;
        // The wake-ups that a full ring can need, and one more for frames that another path has taken half of.
        let budget = untaken.div_ceil(KERNEL_TX_BATCH) + 1;
        let mut batches = 0;
        while untaken > 0 && batches < budget && self.tx.needs_wakeup() {
            self.stats.tx_wakeups += 1;
            batches += 1;
            let _: Woken = socket::kick_tx(self.rx.fd().as_raw_fd())?;
            let left = self.untaken();
            // Progress is what counts, not the answer: EAGAIN is also what the kernel says after a full batch. None:
            // with zero-copy the device goes on by itself, otherwise its queue is full. The next flush tries again.
            if left >= untaken {
                break;
            }
            untaken = left;
            let waiting = self.rx.nb_avail_exact();
            if waiting >= behind || (waiting >= BURST as u32 && batches >= BATCHES) {
                break;
            }
        }
        Ok(())
    }
}

impl Port for XskPort {
    fn rx(&mut self, out: &mut Vec<Frame>) -> usize {
        let max = BURST.saturating_sub(out.len());
        let before = out.len();
        let (stats, dropped, invalid) = (&mut self.stats, &mut self.own_dropped, &mut self.own_invalid);
        self.pool.receive(&mut self.rx, max, |received| match received {
            Received::Frame(frame) => {
                stats.rx_frames += 1;
                stats.rx_bytes += frame.len() as u64;
                out.push(frame);
            }
            Received::TooLong => *dropped += 1,
            Received::NotOurs => *invalid += 1,
        });
        out.len() - before
    }

    fn bytes<'a>(&'a self, frame: &'a Frame) -> &'a [u8] {
        self.pool.bytes(frame)
    }

    fn buffer<'a>(&'a mut self, frame: &'a mut Frame) -> &'a mut [u8] {
        self.pool.buffer(frame)
    }

    fn set_len(&mut self, frame: &mut Frame, len: usize) {
        // At most the capacity, which is a u16.
        frame.len = len.min(usize::from(self.pool.capacity())) as u16;
    }

    fn alloc(&mut self) -> Option<Frame> {
        if let Some(frame) = self.pool.alloc() {
            return Some(frame);
        }
        self.reap();
        self.pool.alloc()
    }

    fn send(&mut self, frame: Frame) -> bool {
        if self.tx_room() == 0 {
            self.pool.release(&frame);
            self.stats.tx_ring_full += 1;
            return false;
        }
        if let Some(desc) = self.pool.take_for_tx(&frame) {
            self.queued.push(desc);
            return true;
        }
        self.own_invalid += 1;
        false
    }

    fn tx_room(&mut self) -> usize {
        match self.room() {
            0 => {
                self.reap();
                self.room()
            }
            room => room,
        }
    }

    fn free(&mut self, frame: Frame) {
        self.pool.release(&frame);
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hand_over();
        // Before the time that sending takes: what is read meanwhile would find no buffer.
        self.pool.refill(&mut self.fill, self.rings.rx_ring);
        self.kick()?;
        self.reap();
        self.pool.refill(&mut self.fill, self.rings.rx_ring);
        if self.fill.needs_wakeup() {
            self.stats.rx_wakeups += 1;
            // Later is as good: the flag stays up, and the next flush asks again.
            let _: Woken = socket::kick_rx(self.rx.fd().as_raw_fd())?;
        }
        Ok(())
    }

    fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        let timeout =
            if self.untaken() > 0 || !self.queued.is_empty() { timeout.min(TX_RETRY) } else { timeout };
        let socket = socket::borrow(&self.rx);
        let mut fds =
            [PollFd::new(socket, PollFlags::POLLIN), PollFd::new(self.waker.fd(), PollFlags::POLLIN)];
        match ppoll(&mut fds, Some(TimeSpec::from_duration(timeout)), None) {
            // A socket that lost its device polls as if nothing had happened (xsk_poll), so a sleep that ended by
            // itself asks; the wake-up for reception is the call that answers and changes nothing.
            Ok(0) => {
                let _: Woken = socket::kick_rx(socket.as_raw_fd())?;
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
        let broken = PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL;
        if fds[0].revents().is_some_and(|r| r.intersects(broken)) {
            return Err(socket::pending_error(socket));
        }
        if fds[1].any().unwrap_or(false) {
            self.waker.clear();
        }
        Ok(())
    }

    fn checksums(&self) -> Checksums {
        self.checksums
    }

    fn accounting(&self) -> Accounting {
        self.pool.accounting()
    }

    fn stats(&mut self) -> PortStats {
        // A socket that lost its device has no statistics any more; what was read last stays.
        if let Ok(xdp) = self.rx.fd().xdp_statistics() {
            self.stats.xsk_rx_dropped = xdp.rx_dropped() + self.own_dropped;
            self.stats.xsk_rx_ring_full = xdp.rx_ring_full();
            self.stats.xsk_fill_ring_empty = xdp.rx_fill_ring_empty_descs();
            self.stats.xsk_invalid_descs = xdp.rx_invalid_descs() + xdp.tx_invalid_descs() + self.own_invalid;
        }
        self.stats
    }

    fn depths(&mut self) -> RingDepths {
        let (rx_ring, tx_ring) = (self.rings.rx_ring, self.rings.tx_ring);
        let of = |n: u32, slots: u32| [u64::from(n), u64::from(slots)];
        RingDepths {
            rx: of(self.rx.nb_avail_exact(), rx_ring),
            // The fill ring is as long as the receive ring, the completion ring as the transmit ring.
            fill: of(rx_ring.saturating_sub(self.fill.nb_free_exact()), rx_ring),
            tx: of(self.untaken(), tx_ring),
            completion: of(self.comp.nb_avail_exact(), tx_ring),
        }
    }
}
