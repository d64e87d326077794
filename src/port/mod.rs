//! Where frames come from and go to.
//!
//! A [`Port`] owns the memory of its frames. The worker gets [`Frame`]s, which are tickets for buffers: not
//! clonable, and each must end in exactly one of [`Port::send`] or [`Port::free`]. A port counts what it lent
//! ([`Port::accounting`]), so a test (and the worker at exit) can prove that nothing leaked.
//!
//! Two ports: [`xsk`] is an AF_XDP socket on one queue of a real interface, [`mem`] one end of a simulated link
//! under a simulated clock.

pub mod bpf;
pub(crate) mod ethtool;
pub mod link;
pub mod mem;
pub(crate) mod netdev;
pub(crate) mod netlink;
pub mod privileges;
pub mod replay;
pub mod xsk;

pub use crate::wire::Checksums;

use std::io;
use std::time::Duration;

/// Frames taken per burst; also the bound of every per-burst array.
///
/// 64 descriptors are one to two cache-line groups of a ring; more does not amortise better, less leaves misses
/// that could overlap.
pub const BURST: usize = 64;

/// Bytes of the longest frame that a port can hold: a buffer of 4 KiB, the largest that the kernel takes for a socket,
/// less the headroom it keeps for XDP programs.
pub const FRAME_MAX: usize = 3840;

/// A ticket for one buffer of a port. Must go back by [`Port::send`] or [`Port::free`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a frame that is neither sent nor freed leaks its buffer"]
pub struct Frame {
    /// Number of the buffer within the port.
    pub(crate) index: u32,
    /// Bytes in use.
    pub(crate) len: u16,
}

impl Frame {
    /// Bytes in use.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len as usize
    }
    /// Whether no byte is in use.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Where the frames of a port are at one moment. The sum of all fields but `total` equals `total`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accounting {
    /// Frames the port was made with.
    pub total: u64,
    /// In the port's free pool.
    pub free: u64,
    /// With the kernel (or the link) to be filled by reception.
    pub in_rx: u64,
    /// With the kernel (or the link) for transmission, or waiting for the next flush.
    pub in_tx: u64,
    /// Lent to the caller by [`Port::rx`] or [`Port::alloc`] and not yet back.
    pub lent: u64,
}

impl Accounting {
    /// Whether every frame is where the port can name it.
    #[must_use]
    pub const fn balanced(&self) -> bool {
        self.free + self.in_rx + self.in_tx + self.lent == self.total
    }
}

/// Counters of a port that only the port can know; all monotonic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Frames received.
    pub rx_frames: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Frames handed to the kernel (or link) for transmission.
    pub tx_frames: u64,
    /// Bytes handed over for transmission.
    pub tx_bytes: u64,
    /// Frames that could not be queued for transmission and were dropped.
    pub tx_ring_full: u64,
    /// System calls that woke the kernel for transmission.
    pub tx_wakeups: u64,
    /// System calls that woke the kernel for reception.
    pub rx_wakeups: u64,
    /// XDP statistics: dropped for other reasons (`rx_dropped`).
    pub xsk_rx_dropped: u64,
    /// XDP statistics: dropped because the receive ring was full.
    pub xsk_rx_ring_full: u64,
    /// XDP statistics: the fill ring was empty.
    pub xsk_fill_ring_empty: u64,
    /// XDP statistics: invalid descriptors on receive or transmit.
    pub xsk_invalid_descs: u64,
}

/// How many entries the rings of a socket hold, and how many they can.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingDepths {
    /// Frames received and not yet taken, and the slots of the ring.
    pub rx: [u64; 2],
    /// Buffers that the kernel may fill; none left means that it drops what arrives.
    pub fill: [u64; 2],
    /// Frames to be sent that the kernel has not taken.
    pub tx: [u64; 2],
    /// Frames sent whose buffers have not been taken back.
    pub completion: [u64; 2],
}

impl RingDepths {
    /// Each ring's name (the `ring` label) with its depth and its slots.
    #[must_use]
    pub const fn named(&self) -> [(&'static str, [u64; 2]); 4] {
        [("rx", self.rx), ("fill", self.fill), ("tx", self.tx), ("completion", self.completion)]
    }
}

/// A bound queue of an interface (or an end of a simulated link).
pub trait Port {
    /// Takes up to [`BURST`] received frames, appended to `out` (which never reallocates beyond `BURST`).
    /// Returns how many.
    fn rx(&mut self, out: &mut Vec<Frame>) -> usize;

    /// The bytes in use of a frame.
    fn bytes<'a>(&'a self, frame: &'a Frame) -> &'a [u8];

    /// The whole buffer of a frame for writing (at least MTU + 22 bytes); [`Port::set_len`] says how much of it counts.
    fn buffer<'a>(&'a mut self, frame: &'a mut Frame) -> &'a mut [u8];

    /// Sets the bytes in use. `len` beyond the buffer is cut to it.
    fn set_len(&mut self, frame: &mut Frame, len: usize);

    /// A fresh frame for transmission; `None` when the pool is empty.
    fn alloc(&mut self) -> Option<Frame>;

    /// Queues a frame (fresh, or a received one that was rewritten in place) for the next flush.
    /// Returns `false` when there was no room; the frame is then dropped, back in the pool, and counted.
    fn send(&mut self, frame: Frame) -> bool;

    /// How many more frames [`Port::send`] will take now.
    fn tx_room(&mut self) -> usize;

    /// Gives a frame back.
    fn free(&mut self, frame: Frame);

    /// Hands queued frames over, takes back transmitted ones, refills reception, wakes the kernel if it asks for it.
    ///
    /// # Errors
    /// Only fatal ones (the interface went away); transient conditions are retried at the next flush.
    fn flush(&mut self) -> io::Result<()>;

    /// Sleeps until a frame arrives, the port's waker is written, or `timeout` passes.
    ///
    /// # Errors
    /// Only fatal ones.
    fn wait(&mut self, timeout: Duration) -> io::Result<()>;

    /// How checksums are to be checked on this port.
    fn checksums(&self) -> Checksums;

    /// Where the frames are.
    fn accounting(&self) -> Accounting;

    /// The port's own counters. May make a system call: for housekeeping, not for the packet path.
    fn stats(&mut self) -> PortStats;

    /// How full the rings are, for housekeeping. A port without rings has none.
    fn depths(&mut self) -> RingDepths {
        RingDepths::default()
    }
}
