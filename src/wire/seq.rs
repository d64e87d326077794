//! Sequence numbers (RFC 9293 §3.4): 32 bits that wrap, compared within half the space.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};

/// A TCP sequence number.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct SeqNum(u32);

impl SeqNum {
    /// From the wire's value in host order.
    #[must_use]
    pub const fn new(v: u32) -> Self {
        Self(v)
    }
    /// The wire's value in host order.
    #[must_use]
    pub const fn raw(self) -> u32 {
        self.0
    }
    /// `self < other` modulo 2³².
    #[must_use]
    pub const fn before(self, other: Self) -> bool {
        self.0.wrapping_sub(other.0).cast_signed() < 0
    }
    /// `self > other` modulo 2³².
    #[must_use]
    pub const fn after(self, other: Self) -> bool {
        other.before(self)
    }
    /// `self <= other` modulo 2³².
    #[must_use]
    pub const fn at_or_before(self, other: Self) -> bool {
        !other.before(self)
    }
    /// `self >= other` modulo 2³².
    #[must_use]
    pub const fn at_or_after(self, other: Self) -> bool {
        !self.before(other)
    }
    /// The later of two.
    #[must_use]
    pub const fn max(self, other: Self) -> Self {
        if self.before(other) { other } else { self }
    }
    /// The earlier of two.
    #[must_use]
    pub const fn min(self, other: Self) -> Self {
        if self.before(other) { self } else { other }
    }
    /// Bytes from `earlier` to `self`, zero when `earlier` is later.
    #[must_use]
    pub const fn bytes_since(self, earlier: Self) -> u32 {
        if self.before(earlier) { 0 } else { self.0.wrapping_sub(earlier.0) }
    }
}

impl Add<u32> for SeqNum {
    type Output = Self;
    fn add(self, n: u32) -> Self {
        Self(self.0.wrapping_add(n))
    }
}

impl AddAssign<u32> for SeqNum {
    fn add_assign(&mut self, n: u32) {
        *self = *self + n;
    }
}

impl Sub<u32> for SeqNum {
    type Output = Self;
    fn sub(self, n: u32) -> Self {
        Self(self.0.wrapping_sub(n))
    }
}

/// Distance modulo 2³²: the caller knows which one is later.
impl Sub<SeqNum> for SeqNum {
    type Output = u32;
    fn sub(self, other: Self) -> u32 {
        self.0.wrapping_sub(other.0)
    }
}

impl fmt::Debug for SeqNum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for SeqNum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparison_wraps() {
        let a = SeqNum::new(u32::MAX - 1);
        let b = a + 5;
        assert!(a.before(b) && b.after(a) && !b.before(a));
        assert_eq!(b - a, 5);
        assert_eq!(b.bytes_since(a), 5);
        assert_eq!(a.bytes_since(b), 0);
        assert_eq!(a.max(b), b);
        assert_eq!(a.min(b), a);
        assert!(a.at_or_before(a) && a.at_or_after(a));
    }
}
