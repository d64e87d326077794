//! The half-open records of a shard, packed, each with its timer.
//!
//! ```text
//!  key (30 bits) ──▶ width (1 bit) + number ──▶ narrow  44 bytes a record: IPv4
//!                                           └─▶ wide    76 bytes: IPv6, and what does not fit the other
//! ```
//!
//! With the index and the wheel (see [`super::tables`]) that makes 64 and 96 bytes. Both are reserved for the whole
//! capacity, because nobody knows the mix beforehand; memory is touched as it is used, and the two together hold
//! no more records than were asked for.
//!
//! A record is unpacked to be judged and packed again when that changed it: a handshake has few segments, and a
//! flood of SYNs must find as many slots as can be had.

use super::slab::Slab;
use super::wheel::TimerWheel;
use crate::tcp::syn_rcvd::SynRcvd;
use crate::time::Time;
use crate::wire::pair::{Pair, Pair4, Pair6};
use crate::wire::vlan::Vlan;
use crate::wire::{L2, MacAddr, SeqNum, Tuple};
use std::num::NonZeroU16;
use std::time::Duration;

/// Link-layer addresses of our own that a narrow record can name. A worker has one, or a few more with virtual router
/// addresses; frames for further ones make wide records.
const OWN_MACS: usize = 256;

/// The bit of a key that says in which slab its record is.
pub(super) const WIDE: u32 = 1 << 29;

/// Records a table can hold at most.
const MAX_HALF: usize = WIDE as usize;

/// Yes or no, and the window scale, in one word that is never zero: a free slot takes no room of its own.
#[derive(Clone, Copy)]
struct Bits(NonZeroU16);

impl Bits {
    const USED: NonZeroU16 = NonZeroU16::MIN;
    const SACK: u16 = 1 << 1;
    const TIMESTAMPS: u16 = 1 << 2;
    const ECN: u16 = 1 << 3;
    const VLAN: u16 = 1 << 4;
    const REPEATED: u16 = 1 << 5;
    const TRACED: u16 = 1 << 6;
    /// Four bits; the largest value says that the peer sent none (RFC 7323 §2.3: at most 14).
    const SCALE: u32 = 12;
    const NO_SCALE: u16 = 15;

    fn of(r: &SynRcvd) -> Self {
        let scale = r.peer_scale.map_or(Self::NO_SCALE, |s| u16::from(s.min(14)));
        let bit = |on: bool, bit: u16| u16::from(on) * bit;
        let set = bit(r.sack, Self::SACK)
            | bit(r.ts_recent.is_some(), Self::TIMESTAMPS)
            | bit(r.ecn, Self::ECN)
            | bit(r.l2.vlan.is_some(), Self::VLAN)
            | bit(r.repeated, Self::REPEATED)
            | bit(r.traced, Self::TRACED);
        Self(Self::USED | set | scale << Self::SCALE)
    }

    const fn has(self, bit: u16) -> bool {
        self.0.get() & bit != 0
    }

    fn scale(self) -> Option<u8> {
        let scale = self.0.get() >> Self::SCALE;
        (scale != Self::NO_SCALE).then_some(scale as u8)
    }
}

/// The numbers of a handshake.
#[derive(Clone, Copy)]
struct Numbers {
    irs: SeqNum,
    iss: SeqNum,
    ts_recent: u32,
    /// When the SYN came: the low 32 bits of the microseconds; half their range is 35 minutes, and no handshake lasts as
    /// long.
    since: u32,
}

/// What else a record of either width keeps. Apart from the numbers, because the two together would be padded.
#[derive(Clone, Copy)]
struct Facts {
    listener: u16,
    mss: u16,
    bits: Bits,
}

/// Retransmissions (`[tcp] syn_retries` is 10 at most) and answers, four bits each.
#[derive(Clone, Copy)]
struct Counts(u8);

impl Counts {
    const MOST: u8 = 15;

    fn of(r: &SynRcvd) -> Self {
        Self(r.tries.min(Self::MOST) << 4 | r.answers.min(Self::MOST))
    }

    fn put_into(self, r: SynRcvd) -> SynRcvd {
        SynRcvd { tries: self.0 >> 4, answers: self.0 & Self::MOST, ..r }
    }
}

/// What both widths keep of a record.
fn pack(r: &SynRcvd) -> (Numbers, Facts) {
    let numbers = Numbers {
        irs: r.irs,
        iss: r.iss,
        ts_recent: r.ts_recent.unwrap_or(0),
        since: r.since.micros() as u32,
    };
    (numbers, Facts { listener: r.listener, mss: r.peer_mss, bits: Bits::of(r) })
}

/// The record again, without its counts.
fn unpack((numbers, facts): (Numbers, Facts), tuple: Tuple, l2: L2, now: Time) -> SynRcvd {
    // Not negative: the time that is passed in does not run back, and if it did the SYN would have come now.
    let age = (now.micros() as u32).wrapping_sub(numbers.since).cast_signed().max(0).unsigned_abs();
    let bits = facts.bits;
    SynRcvd {
        tuple,
        l2,
        since: Time::from_micros(now.micros().saturating_sub(u64::from(age))),
        irs: numbers.irs,
        iss: numbers.iss,
        ts_recent: bits.has(Bits::TIMESTAMPS).then_some(numbers.ts_recent),
        listener: facts.listener,
        peer_mss: facts.mss,
        peer_scale: bits.scale(),
        sack: bits.has(Bits::SACK),
        ecn: bits.has(Bits::ECN),
        tries: 0,
        answers: 0,
        repeated: bits.has(Bits::REPEATED),
        traced: bits.has(Bits::TRACED),
    }
}

/// The tag of a frame that a narrow record can keep: none, or one of 802.1Q. `None` for other tags.
fn plain_tag(vlan: Option<Vlan>) -> Option<u16> {
    let Some(vlan) = vlan else { return Some(0) };
    let mut tags = vlan.tags();
    tags.next().filter(|tag| vlan == Vlan::new(tag.tci)).map(|tag| tag.tci)
}

/// A record over IPv4 with a plain tag or none, from one of our first [`OWN_MACS`] addresses.
#[derive(Clone, Copy)]
struct Narrow {
    pair: Pair4,
    numbers: Numbers,
    facts: Facts,
    tci: u16,
    peer: MacAddr,
    /// Our address, by its place in [`HalfTable::own`].
    own: u8,
    counts: Counts,
}

/// Any record.
#[derive(Clone, Copy)]
struct Wide {
    pair: Pair6,
    numbers: Numbers,
    facts: Facts,
    peer: MacAddr,
    own: MacAddr,
    vlan: Option<Vlan>,
    counts: Counts,
}

/// Bytes a record takes, narrow and wide.
pub(super) const RECORD_BYTES: [usize; 2] = [Slab::<Narrow>::RECORD_BYTES, Slab::<Wide>::RECORD_BYTES];

const _: () = assert!(RECORD_BYTES[0] == 44 && RECORD_BYTES[1] == 76);

/// Records of one width and their timers.
struct Records<R> {
    slab: Slab<R>,
    wheel: TimerWheel,
}

impl<R> Records<R> {
    fn new(capacity: usize, ms: u64) -> Self {
        Self { slab: Slab::new(capacity), wheel: TimerWheel::new(capacity, ms) }
    }

    fn remove(&mut self, number: u32) {
        if self.slab.remove(number).is_some() {
            self.wheel.disarm(number);
        }
    }
}

/// The records and their timers.
pub(super) struct HalfTable {
    narrow: Records<Narrow>,
    wide: Records<Wide>,
    own: Vec<MacAddr>,
    capacity: usize,
}

impl HalfTable {
    /// Room for `capacity` records.
    pub(super) fn new(capacity: usize, now: Time) -> Self {
        assert!(capacity <= MAX_HALF, "a table of half-open records holds up to {MAX_HALF}");
        let ms = now.millis();
        Self {
            narrow: Records::new(capacity, ms),
            wide: Records::new(capacity, ms),
            own: Vec::with_capacity(OWN_MACS),
            capacity,
        }
    }

    /// Records held.
    pub(super) fn len(&self) -> usize {
        self.narrow.slab.len() + self.wide.slab.len()
    }

    /// Whether no further one can be held.
    pub(super) fn is_full(&self) -> bool {
        self.len() >= self.capacity
    }

    /// Numbers of one width that have been used so far are below this one.
    pub(super) fn touched(&self, wide: bool) -> u32 {
        if wide { self.wide.slab.touched() } else { self.narrow.slab.touched() }
    }

    /// Records that can be held.
    pub(super) const fn capacity(&self) -> usize {
        self.capacity
    }

    /// Records that are armed: all of them.
    pub(super) fn timers(&self) -> usize {
        self.narrow.wheel.len() + self.wide.wheel.len()
    }

    /// Keeps a record and names it; its timer is not armed yet. `None` when there is no room.
    pub(super) fn insert(&mut self, r: &SynRcvd) -> Option<u32> {
        if self.is_full() {
            return None;
        }
        let (numbers, facts) = pack(r);
        let (peer, counts) = (r.l2.dst, Counts::of(r));
        let narrow = plain_tag(r.l2.vlan).filter(|_| r.tuple.is_v4());
        if let Some((tci, own)) = narrow.and_then(|tci| Some((tci, self.own_mac(r.l2.src)?))) {
            let pair = Pair4::of(&r.tuple);
            return self.narrow.slab.insert(Narrow { pair, numbers, facts, tci, peer, own, counts });
        }
        let (pair, own, vlan) = (Pair6::of(&r.tuple), r.l2.src, r.l2.vlan);
        let number = self.wide.slab.insert(Wide { pair, numbers, facts, peer, own, vlan, counts })?;
        Some(number | WIDE)
    }

    /// The place of one of our own addresses, which it is given when it is new and there is room.
    fn own_mac(&mut self, mac: MacAddr) -> Option<u8> {
        let known = self.own.iter().position(|&m| m == mac);
        if known.is_none() && self.own.len() < OWN_MACS {
            self.own.push(mac);
            return Some((self.own.len() - 1) as u8);
        }
        known.map(|place| place as u8)
    }

    /// The record of a key.
    pub(super) fn get(&self, key: u32, now: Time) -> Option<SynRcvd> {
        if key & WIDE == 0 {
            let r = self.narrow.slab.get(key)?;
            let src = self.own.get(usize::from(r.own)).copied()?;
            let vlan = r.facts.bits.has(Bits::VLAN).then(|| Vlan::new(r.tci));
            let half = unpack((r.numbers, r.facts), r.pair.tuple(), L2 { src, dst: r.peer, vlan }, now);
            Some(r.counts.put_into(half))
        } else {
            let r = self.wide.slab.get(key & !WIDE)?;
            let l2 = L2 { src: r.own, dst: r.peer, vlan: r.vlan };
            let half = unpack((r.numbers, r.facts), r.pair.tuple(), l2, now);
            Some(r.counts.put_into(half))
        }
    }

    /// Keeps what has changed in a record: anything but its pair and its link layer.
    pub(super) fn put(&mut self, key: u32, r: &SynRcvd) {
        let (numbers, facts) = pack(r);
        if key & WIDE == 0 {
            if let Some(held) = self.narrow.slab.get_mut(key) {
                (held.numbers, held.facts, held.counts) = (numbers, facts, Counts::of(r));
            }
        } else if let Some(held) = self.wide.slab.get_mut(key & !WIDE) {
            (held.numbers, held.facts, held.counts) = (numbers, facts, Counts::of(r));
        }
    }

    /// Has the record of a key fetched into the cache, and its timer.
    #[inline]
    pub(super) fn prefetch(&self, key: u32) {
        if key & WIDE == 0 {
            self.narrow.slab.prefetch(key);
            self.narrow.wheel.prefetch(key);
        } else {
            self.wide.slab.prefetch(key & !WIDE);
            self.wide.wheel.prefetch(key & !WIDE);
        }
    }

    /// Whether the record of a key is of this tuple.
    pub(super) fn holds(&self, key: u32, tuple: &Tuple) -> bool {
        if key & WIDE == 0 {
            tuple.is_v4() && self.narrow.slab.get(key).is_some_and(|r| r.pair == Pair4::of(tuple))
        } else {
            self.wide.slab.get(key & !WIDE).is_some_and(|r| r.pair == Pair6::of(tuple))
        }
    }

    /// Takes a record out, and its timer.
    pub(super) fn remove(&mut self, key: u32) {
        if key & WIDE == 0 { self.narrow.remove(key) } else { self.wide.remove(key & !WIDE) }
    }

    /// A record's SYN-ACK is due again after `wait`.
    pub(super) fn arm(&mut self, key: u32, now: Time, wait: Duration) {
        let at = (now + wait).micros().div_ceil(1000);
        if key & WIDE == 0 {
            self.narrow.wheel.arm(key, at);
        } else {
            self.wide.wheel.arm(key & !WIDE, at);
        }
    }

    /// Keys of records that are due go to `out`, at most `budget`.
    pub(super) fn pop_due(&mut self, now: Time, out: &mut Vec<u32>, budget: usize) {
        let ms = now.millis();
        let first = out.len();
        // Half of the budget at most for one width, so that neither waits for the other.
        let wide = self.wide.wheel.advance(ms, budget / 2, out);
        for number in &mut out[first..] {
            *number |= WIDE;
        }
        self.narrow.wheel.advance(ms, budget - wide, out);
    }

    /// When the next timer is due, in milliseconds; in the past when a wheel is behind.
    pub(super) fn appointment_ms(&self) -> Option<u64> {
        [self.narrow.wheel.appointment_ms(), self.wide.wheel.appointment_ms()].into_iter().flatten().min()
    }

    /// Whether a record's timer is armed.
    pub(super) fn is_armed(&self, key: u32) -> bool {
        let (wheel, number) =
            if key & WIDE == 0 { (&self.narrow.wheel, key) } else { (&self.wide.wheel, key & !WIDE) };
        wheel.queued(number).is_some()
    }

    /// Every key that a record can have.
    pub(super) fn keys(&self) -> impl Iterator<Item = u32> + use<> {
        let numbers = 0..self.capacity as u32;
        numbers.clone().chain(numbers.map(|number| number | WIDE))
    }
}

#[cfg(test)]
mod tests;
