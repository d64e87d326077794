//! The frames of one queue: memory, and where each of them is.
//!
//! ```text
//!            refill                    rx
//!   Free ───────────▶ Rx (kernel) ─────────▶ Lent
//!    ▲ ▲                                      │ │
//!    │ └──────────────── free ────────────────┘ │ send
//!    └── completion ── Tx (queued, kernel) ◀────┘         alloc: Free ─▶ Lent
//! ```
//!
//! The place of every frame is kept, one byte each, and every move is checked against it in release builds too: an
//! address that the kernel hands back for a frame it does not have is refused and counted, so a frame can neither
//! be lent twice nor written while the kernel owns it. That check is what the unsafe blocks below rest on.

#![allow(unsafe_code)]

use super::config::RingConfig;
use crate::port::{Accounting, Frame};
use std::io;
use std::num::NonZeroU32;
use std::ptr::NonNull;
use xsk_rs::config::{FrameSize, QueueSize, UmemConfig};
use xsk_rs::umem::frame::FrameDesc;
use xsk_rs::{CompQueue, FillQueue, RxQueue, TxQueue, Umem};

/// Who has a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Place {
    /// The pool.
    Free,
    /// The kernel, to receive into.
    Rx,
    /// The transmit queue or the kernel.
    Tx,
    /// The caller.
    Lent,
}

/// One frame.
struct Slot {
    /// The address as the rings have it, and the length for transmission.
    desc: FrameDesc,
    /// First byte of the packet area; `capacity` bytes from here belong to this frame alone.
    data: NonNull<u8>,
    place: Place,
}

/// What became of a descriptor of the receive ring.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Received {
    /// A whole frame, now lent.
    Frame(Frame),
    /// A frame that does not fit one buffer, or a part of one; its buffer is free again.
    TooLong,
    /// An address that is none of the kernel's frames; nothing has changed.
    NotOurs,
}

/// All frames of one queue.
pub(super) struct Pool {
    slots: Box<[Slot]>,
    /// Stack of free indices: the last one used is the warmest in cache.
    free: Vec<u32>,
    /// log2 of the frame size.
    shift: u32,
    /// Bytes of packet area per frame.
    capacity: u16,
    in_rx: u32,
    in_tx: u32,
    lent: u32,
    /// Within a frame of several buffers, until its last one.
    in_multi: bool,
    /// Scratch for ring operations of up to [`BATCH`] descriptors.
    scratch: Box<[FrameDesc; BATCH]>,
    /// Owns the memory that `slots` point into.
    umem: Umem,
}

/// Descriptors per ring operation: one burst.
pub(super) const BATCH: usize = crate::port::BURST;

// SAFETY: the pointers in `slots` point into the mapping that `umem` keeps, which is not bound to a thread; access
// goes through `&self` and `&mut self` of the one pool.
unsafe impl Send for Pool {}

impl Pool {
    /// Maps and registers the memory of `config.frames` frames.
    pub(super) fn new(config: &RingConfig) -> io::Result<Self> {
        let size = |n| QueueSize::new(n).map_err(io::Error::other);
        let umem_config = UmemConfig::builder()
            .frame_size(FrameSize::new(config.frame_size).map_err(io::Error::other)?)
            .fill_queue_size(size(config.rx_ring)?)
            .comp_queue_size(size(config.tx_ring)?)
            .build()
            .map_err(io::Error::other)?;
        let frames =
            NonZeroU32::new(config.frames).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let (umem, descs) = Umem::new(umem_config, frames, false).map_err(|e| root_cause(&e))?;
        let capacity = config.capacity();
        let mut slots = Vec::with_capacity(descs.len());
        for mut desc in descs {
            // SAFETY: `desc` is of this UMEM, and no socket exists yet that could make the kernel write to it; each
            // frame is visited once, so the slices do not overlap.
            let mut data = unsafe { umem.data_mut(&mut desc) };
            data.cursor().set_pos(usize::from(capacity));
            let area = data.contents_mut();
            if area.len() != usize::from(capacity) {
                return Err(io::Error::other("frame layout is not what the configuration says"));
            }
            slots.push(Slot { data: NonNull::from(area).cast(), desc, place: Place::Free });
        }
        Ok(Self {
            // From the last to the first, so that frames are first used in the order of memory.
            free: (0..config.frames).rev().collect(),
            slots: slots.into_boxed_slice(),
            shift: config.frame_size.trailing_zeros(),
            capacity,
            in_rx: 0,
            in_tx: 0,
            lent: 0,
            in_multi: false,
            scratch: Box::new([FrameDesc::default(); BATCH]),
            umem,
        })
    }

    /// The registered memory.
    pub(super) fn umem(&self) -> &Umem {
        &self.umem
    }

    /// Frames that the kernel has for transmission, or that wait for it.
    pub(super) fn in_tx(&self) -> u32 {
        self.in_tx
    }

    pub(super) fn accounting(&self) -> Accounting {
        Accounting {
            total: self.slots.len() as u64,
            free: self.free.len() as u64,
            in_rx: u64::from(self.in_rx),
            in_tx: u64::from(self.in_tx),
            lent: u64::from(self.lent),
        }
    }

    /// As [`accounting`](Self::accounting), counted from the places instead of kept by moves: a pass over all
    /// frames, for tests and for the end of a run.
    pub(super) fn audit(&self) -> Accounting {
        let count = |place| self.slots.iter().filter(|s| s.place == place).count() as u64;
        Accounting {
            total: self.slots.len() as u64,
            free: count(Place::Free),
            in_rx: count(Place::Rx),
            in_tx: count(Place::Tx),
            lent: count(Place::Lent),
        }
    }

    /// Moves a frame that must be in `from`; `false`, and no change, when it is not.
    fn shift_place(&mut self, index: u32, from: Place, to: Place) -> bool {
        let Some(slot) = self.slots.get_mut(index as usize) else {
            return false;
        };
        if slot.place != from {
            return false;
        }
        slot.place = to;
        match from {
            Place::Rx => self.in_rx -= 1,
            Place::Tx => self.in_tx -= 1,
            Place::Lent => self.lent -= 1,
            // Taken off the stack by the caller.
            Place::Free => {}
        }
        match to {
            Place::Rx => self.in_rx += 1,
            Place::Tx => self.in_tx += 1,
            Place::Lent => self.lent += 1,
            // Within the capacity it was made with: a frame is on the stack once.
            Place::Free => self.free.push(index),
        }
        true
    }

    /// A free frame for the caller.
    pub(super) fn alloc(&mut self) -> Option<Frame> {
        let index = self.free.pop()?;
        self.shift_place(index, Place::Free, Place::Lent);
        Some(Frame { index, len: 0 })
    }

    /// Takes a lent frame back. A ticket of another port is refused by its place, if it can be told at all.
    pub(super) fn release(&mut self, frame: &Frame) {
        let was_lent = self.shift_place(frame.index, Place::Lent, Place::Free);
        debug_assert!(was_lent, "frame {} is not lent by this port", frame.index);
    }

    /// Readies a lent frame for transmission: its descriptor, or `None` when it is not lent.
    pub(super) fn take_for_tx(&mut self, frame: &Frame) -> Option<FrameDesc> {
        if !self.shift_place(frame.index, Place::Lent, Place::Tx) {
            return None;
        }
        let slot = self.slots.get_mut(frame.index as usize)?;
        // SAFETY: the frame was lent, so the kernel does not have it, and `&mut self` excludes other borrows.
        let mut data = unsafe { self.umem.data_mut(&mut slot.desc) };
        data.cursor().set_pos(usize::from(frame.len.min(self.capacity)));
        // A received descriptor's flags are not for transmission.
        slot.desc.set_options(0);
        Some(slot.desc)
    }

    /// The bytes in use of a lent frame; none for a ticket that is not lent here.
    pub(super) fn bytes(&self, frame: &Frame) -> &[u8] {
        match self.slots.get(frame.index as usize) {
            Some(slot) if slot.place == Place::Lent && frame.len <= self.capacity => {
                // SAFETY: `data` starts `capacity` bytes that belong to this frame and live as long as `umem`; the
                // frame is lent, so the kernel does not write to it, and a `&mut` to it would need `&mut self`.
                unsafe { std::slice::from_raw_parts(slot.data.as_ptr(), usize::from(frame.len)) }
            }
            _ => &[],
        }
    }

    /// The whole packet area of a lent frame; none for a ticket that is not lent here.
    pub(super) fn buffer(&mut self, frame: &Frame) -> &mut [u8] {
        match self.slots.get_mut(frame.index as usize) {
            Some(slot) if slot.place == Place::Lent => {
                // SAFETY: as in `bytes`; `&mut self` makes this the only borrow.
                unsafe { std::slice::from_raw_parts_mut(slot.data.as_ptr(), usize::from(self.capacity)) }
            }
            _ => &mut [],
        }
    }

    /// Bytes of packet area per frame.
    pub(super) fn capacity(&self) -> u16 {
        self.capacity
    }

    /// Takes up to `max` descriptors off the receive ring and hands what they are to `each`. Returns how many.
    pub(super) fn receive(&mut self, rx: &mut RxQueue, max: usize, mut each: impl FnMut(Received)) -> usize {
        let max = max.min(BATCH);
        // SAFETY: the receive ring belongs to a socket on this UMEM; what it returns is checked before use.
        let n = unsafe { rx.consume(&mut self.scratch[..max]) };
        for i in 0..n.min(max) {
            let desc = self.scratch[i];
            each(self.take_received(&desc));
        }
        n
    }

    fn take_received(&mut self, desc: &FrameDesc) -> Received {
        let Some(index) = self.index_of(desc.addr()) else {
            return Received::NotOurs;
        };
        let len = desc.lengths().data();
        let continues = desc.has_more_frames();
        let part = self.in_multi || continues;
        self.in_multi = continues;
        // The steering program moves no packet within its buffer, so a frame starts where all frames start.
        let starts_right = self.slots.get(index as usize).is_some_and(|s| s.desc.addr() == desc.addr());
        if part || !starts_right || len > usize::from(self.capacity) {
            return if self.shift_place(index, Place::Rx, Place::Free) {
                Received::TooLong
            } else {
                Received::NotOurs
            };
        }
        if !self.shift_place(index, Place::Rx, Place::Lent) {
            return Received::NotOurs;
        }
        Received::Frame(Frame {
            index,
            // At most `capacity`, which is a u16.
            len: len as u16,
        })
    }

    fn index_of(&self, addr: usize) -> Option<u32> {
        let index = addr >> self.shift;
        (index < self.slots.len()).then_some(index as u32)
    }

    /// Takes transmitted frames back. Returns how many addresses were not ones of frames in transmission.
    pub(super) fn reap(&mut self, comp: &mut CompQueue) -> u64 {
        let mut strange = 0;
        loop {
            // SAFETY: the completion ring belongs to a socket on this UMEM; what it returns is checked before use.
            let n = unsafe { comp.consume(&mut self.scratch[..]) };
            for i in 0..n.min(BATCH) {
                let addr = self.scratch[i].addr();
                let known = self.index_of(addr);
                if !known.is_some_and(|index| self.shift_place(index, Place::Tx, Place::Free)) {
                    strange += 1;
                }
            }
            // Never more than the ring holds: `in_tx` is bounded by it, and the kernel adds no more than that.
            if n < BATCH {
                return strange;
            }
        }
    }

    /// Gives free frames to the kernel until it has `target` to receive into.
    pub(super) fn refill(&mut self, fill: &mut FillQueue, target: u32) {
        while self.in_rx < target {
            let want = ((target - self.in_rx) as usize)
                .min(BATCH)
                .min(self.free.len())
                // libxdp takes all or nothing.
                .min(fill.nb_free(BATCH as u32) as usize);
            if want == 0 {
                return;
            }
            let first = self.free.len() - want;
            for (to, &index) in self.scratch.iter_mut().zip(&self.free[first..]) {
                if let Some(slot) = self.slots.get(index as usize) {
                    *to = slot.desc;
                }
            }
            // SAFETY: the descriptors are of free frames of this UMEM: nobody reads or writes them until the kernel
            // hands them back.
            let n = unsafe { fill.produce(&self.scratch[..want]) };
            for _ in 0..n.min(want) {
                // The batch was taken from the stack's end in its order; as sets both are the same when all were
                // taken, and libxdp takes all or nothing.
                if let Some(index) = self.free.pop() {
                    self.shift_place(index, Place::Free, Place::Rx);
                }
            }
            if n < want {
                return;
            }
        }
    }

    /// Hands `descs` to the transmit ring. Returns how many it took: all or none.
    pub(super) fn transmit(tx: &mut TxQueue, descs: &[FrameDesc]) -> usize {
        // SAFETY: the descriptors come from `take_for_tx` of the pool that the ring's socket was made with; their frames
        // are in transmission, so nobody reads or writes them until they are reaped.
        unsafe { tx.produce(descs) }
    }
}

/// The io error at the root of one of xsk-rs's errors.
pub(super) fn root_cause(e: &(dyn std::error::Error + 'static)) -> io::Error {
    let code = e.source().and_then(|s| s.downcast_ref::<io::Error>()).and_then(io::Error::raw_os_error);
    code.map_or_else(|| io::Error::other(e.to_string()), io::Error::from_raw_os_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Registering memory needs an `AF_XDP` socket, so `CAP_NET_RAW`.
    fn pool() -> Option<Pool> {
        let config = RingConfig { frames: 512, rx_ring: 128, tx_ring: 128, ..RingConfig::default() };
        match Pool::new(&config) {
            Ok(pool) => Some(pool),
            Err(e) => {
                println!("skipped: no AF_XDP socket here: {e}");
                None
            }
        }
    }

    #[test]
    fn what_is_not_lent_can_be_neither_read_nor_written_nor_sent() {
        let Some(mut pool) = pool() else { return };
        let forged = Frame { index: 3, len: 10 };
        assert!(pool.bytes(&forged).is_empty());
        assert!(pool.buffer(&forged).is_empty());
        assert!(pool.take_for_tx(&forged).is_none());
        let beyond = Frame { index: 512, len: 10 };
        assert!(pool.bytes(&beyond).is_empty() && pool.take_for_tx(&beyond).is_none());
        assert_eq!(pool.audit(), pool.accounting());
    }

    #[test]
    fn every_frame_can_be_lent_once_and_has_its_own_bytes() {
        let Some(mut pool) = pool() else { return };
        let mut lent = Vec::new();
        while let Some(mut frame) = pool.alloc() {
            frame.len = 4;
            pool.buffer(&frame)[..4].copy_from_slice(&frame.index.to_be_bytes());
            lent.push(frame);
        }
        assert_eq!(lent.len(), 512);
        for frame in &lent {
            assert_eq!(pool.bytes(frame), frame.index.to_be_bytes());
        }
        assert_eq!(pool.accounting().lent, 512);
        for frame in lent {
            pool.release(&frame);
        }
        assert_eq!(pool.accounting().free, 512);
        assert_eq!(pool.audit(), pool.accounting());
    }

    #[test]
    fn an_address_of_no_frame_of_the_kernels_is_refused() {
        let Some(mut pool) = pool() else { return };
        let frame = pool.alloc().unwrap();
        let base = pool.slots[frame.index as usize].desc;
        // Lent, not the kernel's.
        assert_eq!(pool.take_received(&base), Received::NotOurs);
        // Free, not the kernel's.
        let other = pool.slots[frame.index as usize + 1].desc;
        assert_eq!(pool.take_received(&other), Received::NotOurs);
        assert_eq!(pool.index_of(512 << pool.shift), None);
        pool.release(&frame);
        assert_eq!(pool.audit(), pool.accounting());
        assert!(pool.accounting().balanced());
    }

    #[test]
    fn the_parts_of_a_frame_of_several_buffers_are_dropped_to_its_end() {
        let Some(mut pool) = pool() else { return };
        let mut descs = Vec::new();
        for _ in 0..3 {
            let index = pool.free.pop().unwrap();
            assert!(pool.shift_place(index, Place::Free, Place::Rx));
            descs.push(pool.slots[index as usize].desc);
        }
        descs[0].set_options(1);
        assert_eq!(pool.take_received(&descs[0]), Received::TooLong);
        assert_eq!(pool.take_received(&descs[1]), Received::TooLong);
        let Received::Frame(frame) = pool.take_received(&descs[2]) else {
            panic!("the frame after it is whole");
        };
        pool.release(&frame);
        assert_eq!(pool.accounting().free, 512);
        assert_eq!(pool.audit(), pool.accounting());
    }
}
