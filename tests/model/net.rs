//! Segments and the network between the two ends.

use std::fmt;

/// Most segments of one direction that can be under way at once, whatever the bound: the size of [`Channel`].
pub const MAX_CAPACITY: usize = 4;

/// What a segment carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A SYN.
    Syn,
    /// One unit of data.
    Text,
    /// A FIN.
    Fin,
    /// One unit of data and the FIN behind it.
    TextFin,
    /// Nothing.
    Ack,
    /// A RST.
    Rst,
}

impl Kind {
    /// What it takes of the sequence space.
    pub const fn len(self) -> u8 {
        match self {
            Self::Syn | Self::Text | Self::Fin => 1,
            Self::TextFin => 2,
            Self::Ack | Self::Rst => 0,
        }
    }
}

/// A segment. Positions count from the SYN, which is 0; the first unit of data is 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Segment {
    /// What it carries.
    pub kind: Kind,
    /// Position of the first thing it carries.
    pub seq: u8,
    /// The next position its sender expects, if it has the ACK bit.
    pub ack: Option<u8>,
}

impl Segment {
    /// One past the last position it takes.
    pub const fn end(self) -> u8 {
        self.seq + self.kind.len()
    }

    /// The FIN's position, if it has one.
    pub const fn fin(self) -> Option<u8> {
        match self.kind {
            Kind::Fin | Kind::TextFin => Some(self.end() - 1),
            Kind::Syn | Kind::Text | Kind::Ack | Kind::Rst => None,
        }
    }

    /// The unit's position, if it has one.
    pub const fn text(self) -> Option<u8> {
        match self.kind {
            Kind::Text | Kind::TextFin => Some(self.seq),
            Kind::Syn | Kind::Fin | Kind::Ack | Kind::Rst => None,
        }
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}@{}", self.kind, self.seq)?;
        self.ack.map_or(Ok(()), |a| write!(f, " ack {a}"))
    }
}

/// The segments on their way to one end: a set, for how many copies there are of one makes no difference to who can
/// receive it at any time, in any order, again and again, or never. Kept sorted, so that equal sets are equal values.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Channel {
    slots: [Option<Segment>; MAX_CAPACITY],
}

impl Channel {
    /// Puts a segment on its way; beyond `capacity` different ones it is lost.
    pub fn send(&mut self, segment: Segment, capacity: usize) {
        let used = self.len();
        if self.contains(segment) || used >= capacity.min(MAX_CAPACITY) {
            return;
        }
        self.slots[used] = Some(segment);
        self.slots[..=used].sort_unstable();
    }

    /// The last copy is gone.
    pub fn lose(&mut self, segment: Segment) {
        if let Some(at) = self.slots.iter().position(|s| *s == Some(segment)) {
            self.slots[at..].rotate_left(1);
            self.slots[MAX_CAPACITY - 1] = None;
        }
    }

    /// The segments under way.
    pub fn iter(&self) -> impl Iterator<Item = Segment> + '_ {
        self.slots.iter().flatten().copied()
    }

    /// How many different segments are under way.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Nothing is under way.
    pub const fn is_empty(&self) -> bool {
        self.slots[0].is_none()
    }

    /// This segment is under way.
    pub fn contains(&self, segment: Segment) -> bool {
        self.iter().any(|s| s == segment)
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}
