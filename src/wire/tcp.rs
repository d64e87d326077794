//! The TCP header as a plain value: flags, options, and what is derived from them.

use super::SeqNum;
use std::fmt;
use std::ops::BitOr;

/// TCP control bits (RFC 9293 §3.1), in wire order.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Flags(u8);

impl Flags {
    /// No bit.
    pub const NONE: Self = Self(0);
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronize sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// Push.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgment field is significant.
    pub const ACK: Self = Self(0x10);
    /// The urgent pointer is significant.
    pub const URG: Self = Self(0x20);
    /// ECN echo (RFC 3168).
    pub const ECE: Self = Self(0x40);
    /// Congestion window reduced (RFC 3168).
    pub const CWR: Self = Self(0x80);

    /// From the wire's byte.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }
    /// The wire's byte.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }
    /// Whether all bits of `other` are set.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
    /// Whether any bit of `other` is set.
    #[must_use]
    pub const fn any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
    /// SYN is set.
    #[must_use]
    pub const fn syn(self) -> bool {
        self.has(Self::SYN)
    }
    /// ACK is set.
    #[must_use]
    pub const fn ack(self) -> bool {
        self.has(Self::ACK)
    }
    /// FIN is set.
    #[must_use]
    pub const fn fin(self) -> bool {
        self.has(Self::FIN)
    }
    /// RST is set.
    #[must_use]
    pub const fn rst(self) -> bool {
        self.has(Self::RST)
    }
}

impl BitOr for Flags {
    type Output = Self;
    fn bitor(self, o: Self) -> Self {
        Self(self.0 | o.0)
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (Self::SYN, "SYN"),
            (Self::FIN, "FIN"),
            (Self::RST, "RST"),
            (Self::PSH, "PSH"),
            (Self::ACK, "ACK"),
            (Self::URG, "URG"),
            (Self::ECE, "ECE"),
            (Self::CWR, "CWR"),
        ];
        let mut first = true;
        for (bit, name) in names {
            if self.has(bit) {
                if !first {
                    f.write_str(",")?;
                }
                f.write_str(name)?;
                first = false;
            }
        }
        if first { f.write_str("none") } else { Ok(()) }
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Blocks a SACK option can carry next to a timestamp (RFC 2018 §3: 3; without one, 4).
pub const MAX_SACK_BLOCKS: usize = 4;

/// The options finwheel knows; others are skipped by their length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Maximum segment size in bytes (RFC 9293 §3.7.1); only on SYN.
    pub mss: Option<u16>,
    /// Window scale shift as sent, before the clamp to 14 (RFC 7323 §2); only on SYN.
    pub window_scale: Option<u8>,
    /// SACK permitted (RFC 2018 §2); only on SYN.
    pub sack_permitted: bool,
    /// Timestamps: value and echo reply (RFC 7323 §3).
    pub timestamps: Option<Timestamps>,
    /// SACK blocks, left and right edge; `sack_len` of them count.
    pub sack: [(SeqNum, SeqNum); MAX_SACK_BLOCKS],
    /// How many SACK blocks there are.
    pub sack_len: u8,
    /// The option list was malformed: what was read before the fault is dropped too.
    pub malformed: bool,
}

/// The timestamps option's two fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timestamps {
    /// `TSval`.
    pub val: u32,
    /// `TSecr`; meaningful when ACK is set.
    pub ecr: u32,
}

impl Options {
    /// The SACK blocks that count.
    #[must_use]
    pub fn sack_blocks(&self) -> &[(SeqNum, SeqNum)] {
        &self.sack[..usize::from(self.sack_len).min(MAX_SACK_BLOCKS)]
    }
}

/// A TCP header with its options; ports are in the tuple.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// `SEG.SEQ`.
    pub seq: SeqNum,
    /// `SEG.ACK`; meaningful when ACK is set.
    pub ack: SeqNum,
    /// Control bits.
    pub flags: Flags,
    /// `SEG.WND` as on the wire, unscaled.
    pub window: u16,
    /// Options.
    pub options: Options,
}

impl Header {
    /// `SEG.LEN`: payload plus one for SYN and one for FIN.
    #[must_use]
    pub fn seg_len(&self, payload: usize) -> u32 {
        payload as u32 + u32::from(self.flags.syn()) + u32::from(self.flags.fin())
    }
}
