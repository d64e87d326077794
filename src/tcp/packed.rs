//! Numbers in fewer bytes, for a record that is held by the million. Reading one is a load and a shift; what is at work
//! uses the plain types.

use crate::time::Time;
use std::fmt;

/// A point in time in six bytes.
///
/// They last for nine years after the epoch of the process ([`Time`]); what is later counts as "never".
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C, packed(2))]
pub(super) struct PackedTime {
    low: u32,
    high: u16,
}

/// The last value of 48 bits is no time.
const NEVER: u64 = (1 << 48) - 1;

impl PackedTime {
    /// No deadline.
    pub(super) const NEVER: Self = Self { low: u32::MAX, high: u16::MAX };

    /// Packs a time.
    pub(super) const fn of(t: Time) -> Self {
        let us = if t.micros() < NEVER { t.micros() } else { NEVER };
        Self { low: us as u32, high: (us >> 32) as u16 }
    }

    /// The time again.
    pub(super) const fn get(self) -> Time {
        let us = self.low as u64 | (self.high as u64) << 32;
        if us == NEVER { Time::NEVER } else { Time::from_micros(us) }
    }

    /// Another time takes its place.
    pub(super) const fn set(&mut self, t: Time) {
        *self = Self::of(t);
    }
}

impl fmt::Debug for PackedTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// A count of 64 bits that asks for no more alignment than one of 32.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Count([u32; 2]);

impl Count {
    /// The count.
    pub(super) const fn get(self) -> u64 {
        self.0[0] as u64 | (self.0[1] as u64) << 32
    }

    /// Counts `n` more.
    pub(super) const fn add(&mut self, n: u64) {
        let sum = self.get().wrapping_add(n);
        self.0 = [sum as u32, (sum >> 32) as u32];
    }
}

impl fmt::Debug for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// A length of time in four bytes: in microseconds up to 35 minutes, in milliseconds up to 24 days.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span(u32);

/// Set when the other bits are milliseconds.
const IN_MILLIS: u32 = 1 << 31;

impl Span {
    /// The length in microseconds.
    pub(super) const fn micros(self) -> u64 {
        let n = (self.0 & !IN_MILLIS) as u64;
        if self.0 & IN_MILLIS == 0 { n } else { n * 1000 }
    }

    /// Adds microseconds; what is longer than can be said is as long as can be said.
    pub(super) const fn add(&mut self, us: u64) {
        let sum = self.micros().saturating_add(us);
        let (millis, most) = (sum / 1000, (IN_MILLIS - 1) as u64);
        self.0 = if sum < IN_MILLIS as u64 {
            sum as u32
        } else {
            IN_MILLIS | (if millis < most { millis } else { most }) as u32
        };
    }
}

/// Both window shifts, four bits each: 14 at most (RFC 7323 §2.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Scales(u8);

const _: () = assert!(super::config::MAX_WINDOW_SCALE < 1 << 4);

impl Scales {
    /// Of what the peer offers, and of what is offered from here.
    pub(super) const fn new(snd: u8, rcv: u8) -> Self {
        Self(snd << 4 | rcv & 0xf)
    }
    /// Of what the peer offers.
    pub(super) const fn snd(self) -> u8 {
        self.0 >> 4
    }
    /// Of what is offered from here.
    pub(super) const fn rcv(self) -> u8 {
        self.0 & 0xf
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_packed_time_is_exact_for_nine_years_and_then_never() {
        for us in [0, 1, 0xffff, 0x1_0000, 0x1_2345_6789, NEVER - 1] {
            assert_eq!(PackedTime::of(Time::from_micros(us)).get().micros(), us);
        }
        assert_eq!(PackedTime::of(Time::NEVER), PackedTime::NEVER);
        assert_eq!(PackedTime::NEVER.get(), Time::NEVER);
        let nine_years = Duration::from_secs(9 * 365 * 24 * 3600);
        assert_eq!(PackedTime::of(Time::ZERO + nine_years).get(), Time::NEVER);
    }

    #[test]
    fn a_span_is_exact_while_it_is_short_and_never_wraps() {
        let mut s = Span::default();
        for (us, all) in [(7, 7), (1 << 30, (1 << 30) + 7), (1 << 30, 2_147_483_000), (999, 2_147_483_000)] {
            s.add(us);
            assert_eq!(s.micros(), all);
        }
        s.add(3_600_000_000);
        assert_eq!(s.micros(), 2_147_483_000 + 3_600_000_000);
        s.add(u64::MAX);
        assert_eq!(s.micros() / 1_000_000, 2_147_483, "24 days");
    }

    #[test]
    fn a_count_carries_and_scales_keep_apart() {
        let mut c = Count::default();
        for _ in 0..3 {
            c.add(u64::from(u32::MAX));
        }
        assert_eq!(c.get(), 3 * u64::from(u32::MAX));
        assert_eq!((Scales::new(14, 3).snd(), Scales::new(14, 3).rcv()), (14, 3));
    }
}
