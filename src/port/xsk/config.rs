//! Sizes of rings and frames, and the relations between them.

use crate::port::{BURST, FRAME_MAX};

/// Headroom that the kernel keeps before each packet for XDP programs: `XDP_PACKET_HEADROOM` of linux/bpf.h, bytes.
const XDP_PACKET_HEADROOM: u32 = 256;
/// Link header beyond the MTU: Ethernet with two VLAN tags, bytes.
const LINK_HEADER: u32 = 14 + 2 * 4;
/// The smallest and largest frame the kernel takes: half a page and a page, bytes (`net/xdp/xdp_umem.c`).
const FRAME_SIZES: [u32; 2] = [2048, 4096];
const _: () = assert!(FRAME_SIZES[1] as usize - XDP_PACKET_HEADROOM as usize == FRAME_MAX);
/// Frames beyond what both rings can hold. Received frames lie here while a burst is worked on, and replies are
/// taken from here; with less than two bursts a full receive ring could leave none to answer with.
const SPARE_MIN: u32 = 2 * BURST as u32;
/// The largest ring. The kernel takes more; a queue this long is a second of latency already at 64 k frames/s.
const RING_MAX: u32 = 1 << 16;

/// Sizes of one queue's memory and rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingConfig {
    /// Bytes per frame: 2048 (MTU up to 1770) or 4096 (up to 3818). 256 bytes of each are the kernel's headroom.
    pub frame_size: u32,
    /// Frames of a queue. Memory locked per queue is `frames * frame_size`.
    pub frames: u32,
    /// Slots of the receive and fill rings, a power of two. Too few, and a burst while the worker is busy is dropped
    /// by the kernel (`xsk_fill_ring_empty`); too many only cost memory and cache.
    pub rx_ring: u32,
    /// Slots of the transmit and completion rings, a power of two. Too few, and replies are dropped
    /// (`tx_ring_full`).
    pub tx_ring: u32,
}

impl Default for RingConfig {
    fn default() -> Self {
        Self { frame_size: 2048, frames: 5120, rx_ring: 2048, tx_ring: 2048 }
    }
}

const _: () = assert!(RingConfig::DEFAULT_HOLDS);

/// Which relation does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingConfigError {
    /// The frame size is not one of the kernel's.
    #[error("frame size {0} must be 2048 or 4096 bytes")]
    FrameSize(u32),
    /// A ring is not a power of two within the bounds.
    #[error("{ring} ring of {size} slots must be a power of two from {BURST} to {RING_MAX}")]
    Ring {
        /// `rx` or `tx`.
        ring: &'static str,
        /// Slots asked for.
        size: u32,
    },
    /// Too few frames to fill both rings and work.
    #[error("{frames} frames are too few: rings of {rx_ring} and {tx_ring} slots need at least {min}")]
    Frames {
        /// Frames asked for.
        frames: u32,
        /// Receive ring slots.
        rx_ring: u32,
        /// Transmit ring slots.
        tx_ring: u32,
        /// The fewest that will do.
        min: u32,
    },
}

impl RingConfig {
    const DEFAULT_HOLDS: bool = 5120 >= 2048 + 2048 + SPARE_MIN;

    /// Checks the relations: sizes the kernel takes, and frames enough that neither ring can starve the other.
    ///
    /// # Errors
    /// The first relation that does not hold.
    pub fn check(&self) -> Result<(), RingConfigError> {
        if !FRAME_SIZES.contains(&self.frame_size) {
            return Err(RingConfigError::FrameSize(self.frame_size));
        }
        for (ring, size) in [("rx", self.rx_ring), ("tx", self.tx_ring)] {
            if !size.is_power_of_two() || !(BURST as u32..=RING_MAX).contains(&size) {
                return Err(RingConfigError::Ring { ring, size });
            }
        }
        // Rings are at most 2^16, so the sum cannot overflow.
        let min = self.rx_ring + self.tx_ring + SPARE_MIN;
        if self.frames < min {
            return Err(RingConfigError::Frames {
                frames: self.frames,
                rx_ring: self.rx_ring,
                tx_ring: self.tx_ring,
                min,
            });
        }
        Ok(())
    }

    /// Bytes of packet per frame.
    #[must_use]
    pub(super) const fn capacity(&self) -> u16 {
        // At most 4096.
        self.frame_size.saturating_sub(XDP_PACKET_HEADROOM) as u16
    }

    /// The largest MTU whose frames, with two VLAN tags, fit.
    #[must_use]
    pub const fn mtu_limit(&self) -> u32 {
        (self.capacity() as u32).saturating_sub(LINK_HEADER)
    }

    /// Memory of one queue, bytes.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.frames as u64 * self.frame_size as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_holds_and_takes_ethernet() {
        let config = RingConfig::default();
        assert_eq!(config.check(), Ok(()));
        assert_eq!(config.mtu_limit(), 1770);
        assert_eq!(config.bytes(), 10 << 20);
    }

    #[test]
    fn each_relation_is_checked() {
        let ok = RingConfig::default();
        for (name, config) in [
            ("frame size", RingConfig { frame_size: 1024, ..ok }),
            ("frame size", RingConfig { frame_size: 3000, ..ok }),
            ("rx ring", RingConfig { rx_ring: 100, ..ok }),
            ("rx ring", RingConfig { rx_ring: 32, ..ok }),
            ("tx ring", RingConfig { tx_ring: 0, ..ok }),
            ("tx ring", RingConfig { tx_ring: 1 << 17, ..ok }),
            ("frames", RingConfig { frames: 4223, ..ok }),
            ("frames", RingConfig { frames: 0, ..ok }),
        ] {
            assert!(config.check().is_err(), "{name}: {config:?}");
        }
        assert_eq!(RingConfig { frames: 4224, ..ok }.check(), Ok(()));
    }
}
