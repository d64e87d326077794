//! Initial sequence numbers and timestamp offsets from a keyed hash of the tuple (RFC 6528 §3, RFC 7323 §5.4).
//!
//! Both come from one SipHash of the tuple, so an off-path attacker learns neither, a tuple that is used again gets
//! an ISN above the old one for as long as the clock has moved on faster than data did, and nothing is stored.

use crate::time::Time;
use crate::wire::pair::{Pair, Pair4, Pair6};
use crate::wire::{SeqNum, Tuple};
use siphasher::sip::SipHasher13;
use std::hash::Hasher;

/// The secret of a process. All workers share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Secret {
    k0: u64,
    k1: u64,
}

impl Secret {
    /// From 16 random bytes.
    #[must_use]
    pub const fn new(k0: u64, k1: u64) -> Self {
        Self { k0, k1 }
    }

    /// The secret mixed with a worker's own key.
    #[must_use]
    pub const fn of_worker(&self, worker: (u64, u64)) -> Self {
        Self { k0: self.k0 ^ worker.0.rotate_left(32), k1: self.k1 ^ worker.1.rotate_left(32) }
    }

    /// Its words, for keys that are derived from it.
    pub(super) const fn words(&self) -> (u64, u64) {
        (self.k0, self.k1)
    }

    /// A key for another purpose, from which this one cannot be found.
    #[must_use]
    pub fn derived(&self, purpose: u64) -> (u64, u64) {
        let word = |n: u64| {
            let mut h = SipHasher13::new_with_keys(self.k0, self.k1);
            h.write_u64(purpose);
            h.write_u64(n);
            h.finish()
        };
        (word(0), word(1))
    }

    fn hash(&self, t: &Tuple) -> u64 {
        let hasher = SipHasher13::new_with_keys(self.k0, self.k1);
        if t.is_v4() {
            hasher.hash(Pair4::of(t).bytes().as_ref())
        } else {
            hasher.hash(Pair6::of(t).bytes().as_ref())
        }
    }

    /// The ISN for a new connection: the hash plus a clock of 4-microsecond ticks.
    #[must_use]
    pub fn isn(&self, t: &Tuple, now: Time) -> SeqNum {
        SeqNum::new((self.hash(t) as u32).wrapping_add((now.micros() / 4) as u32))
    }

    /// What is added to the millisecond clock in this connection's timestamps.
    #[must_use]
    pub fn ts_offset(&self, t: &Tuple) -> u32 {
        (self.hash(t) >> 32) as u32
    }
}

/// The timestamp clock: milliseconds plus the connection's offset (RFC 7323 §5.4).
#[must_use]
pub fn ts_val(now: Time, offset: u32) -> u32 {
    (now.millis() as u32).wrapping_add(offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Addr, Endpoint};
    use std::time::Duration;

    fn tuple(port: u16) -> Tuple {
        Tuple {
            local: Endpoint::new(Addr::v4([10, 0, 0, 1]), 80),
            remote: Endpoint::new(Addr::v4([10, 0, 0, 2]), port),
        }
    }

    #[test]
    fn o07_isn_moves_with_the_clock_and_differs_by_tuple_and_key() {
        let s = Secret::new(1, 2);
        let t0 = Time::from_micros(1_000_000);
        let a = s.isn(&tuple(1000), t0);
        assert_eq!(s.isn(&tuple(1000), t0 + Duration::from_millis(4)) - a, 1000);
        assert_ne!(s.isn(&tuple(1001), t0), a);
        assert_ne!(Secret::new(1, 3).isn(&tuple(1000), t0), a);
        assert_ne!(s.ts_offset(&tuple(1000)), s.ts_offset(&tuple(1001)));
    }
}
