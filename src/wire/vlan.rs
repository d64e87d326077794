//! The tags of a frame (IEEE 802.1Q, 802.1ad): what an answer must carry to find its way back.

use std::fmt;
use std::num::NonZeroU8;

/// `EtherType` of an 802.1Q tag (C-tag).
pub(crate) const CUSTOMER: u16 = 0x8100;
/// `EtherType` of an 802.1ad service tag (S-tag), the outer one of `QinQ`.
const SERVICE: u16 = 0x88a8;
/// `EtherType` of outer tags before 802.1ad; switches still send it.
const OLD_SERVICE: u16 = 0x9100;

/// Most tags before the IP header: an outer and an inner one (802.1ad). With fewer `QinQ` is lost; more would only
/// be work for frames that nobody sends.
pub(crate) const MAX_TAGS: usize = 2;

/// One tag, or an outer and an inner one. An `Option` of it takes 5 bytes, for every connection has one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Vlan {
    /// Two bits a tag, from the outermost: which `EtherType` announces it; 0 is no tag.
    kinds: NonZeroU8,
    /// Tag control information, as on the wire.
    tci: [[u8; 2]; MAX_TAGS],
}

/// One tag of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// The `EtherType` that announces it (TPID).
    pub ethertype: u16,
    /// Tag control information: priority, drop eligibility, and the VLAN's number.
    pub tci: u16,
}

/// The two bits of an `EtherType`; `None` when it announces no tag.
const fn kind(ethertype: u16) -> Option<NonZeroU8> {
    match ethertype {
        CUSTOMER => NonZeroU8::new(1),
        SERVICE => NonZeroU8::new(2),
        OLD_SERVICE => NonZeroU8::new(3),
        _ => None,
    }
}

const fn ethertype(kind: u8) -> Option<u16> {
    match kind {
        1 => Some(CUSTOMER),
        2 => Some(SERVICE),
        3 => Some(OLD_SERVICE),
        _ => None,
    }
}

/// Whether an `EtherType` announces a tag.
pub(crate) const fn announces(ethertype: u16) -> bool {
    kind(ethertype).is_some()
}

impl Vlan {
    /// One 802.1Q tag.
    #[must_use]
    pub const fn new(tci: u16) -> Self {
        Self { kinds: NonZeroU8::MIN, tci: [tci.to_be_bytes(), [0; 2]] }
    }

    /// With a further tag, the innermost one; `None` when the `EtherType` announces none, or there are two already.
    #[must_use]
    pub(crate) fn with(outer: Option<Self>, tag: Tag) -> Option<Self> {
        let kind = kind(tag.ethertype)?;
        let Some(mut vlan) = outer else {
            return Some(Self { kinds: kind, tci: [tag.tci.to_be_bytes(), [0; 2]] });
        };
        if vlan.kinds.get() >> 2 != 0 {
            return None;
        }
        vlan.kinds |= kind.get() << 2;
        vlan.tci[1] = tag.tci.to_be_bytes();
        Some(vlan)
    }

    /// The tags, from the outermost.
    pub fn tags(self) -> impl Iterator<Item = Tag> {
        let kinds = [self.kinds.get() & 3, self.kinds.get() >> 2];
        kinds
            .into_iter()
            .zip(self.tci)
            .filter_map(|(kind, tci)| Some(Tag { ethertype: ethertype(kind)?, tci: u16::from_be_bytes(tci) }))
    }

    /// How many tags there are: one or two.
    #[must_use]
    pub const fn count(self) -> usize {
        if self.kinds.get() >> 2 == 0 { 1 } else { MAX_TAGS }
    }
}

/// `5` for one 802.1Q tag, `88a8:9.5` for an outer and an inner one.
impl fmt::Display for Vlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, tag) in self.tags().enumerate() {
            if i > 0 {
                f.write_str(".")?;
            }
            if tag.ethertype != CUSTOMER {
                write!(f, "{:x}:", tag.ethertype)?;
            }
            write!(f, "{}", tag.tci)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Vlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

const _: () = assert!(size_of::<Option<Vlan>>() == 5);
