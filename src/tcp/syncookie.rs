//! SYN cookies (RFC 4987 §3.6): a SYN is answered without keeping anything, and what would have been kept comes back in
//! the ACK that completes the handshake.
//!
//! ```text
//! SYN ──▶ SYN-ACK: ISN = whole tag | tuple tag | counter's lowest bit | MSS index        nothing is kept
//!                  TSval = clock | ECN | SACK | window scale
//! ACK ──▶ SEG.ACK - 1 is the cookie, TSecr the options, SEG.SEQ - 1 the peer's ISN ──▶ a half-open record again
//! ```
//!
//! **ISN layout**, from the highest bit: 22 bits of a keyed hash over everything (tuple, counter, MSS index, the peer's
//! ISN), 6 bits of one over the same without the peer's ISN, the lowest bit of the counter, 3 bits of MSS index. Who
//! does not see the SYN-ACK must guess 28 bits. Two tags, because only the first segment after the SYN tells the
//! peer's ISN: with the tag of the tuple it can be told that a later segment, which came before it, is of a
//! handshake of ours. Such a segment is dropped and comes again; a RST would end what a table would have kept.
//! The tags are of unlike size, because mistakes are: a later segment taken for the first loses the beginning of the
//! stream in silence (one in four million), a stray one taken for a later one is dropped and not reset (one in 64).
//!
//! **Timestamp layout**: the clock's low 6 bits carry, from the highest, ECN, SACK-permitted, and 4 bits of the window
//! shift (15 for none). The value never runs ahead of the clock and at most 64 ms behind. A peer without timestamps gets
//! neither window scale nor SACK nor ECN, for there is no place to keep them.
//!
//! **Life**: the counter counts 64 seconds, and a cookie of the present or the last one is good: 64 to 128 seconds.
//!
//! **What has no state is not sent again.** A SYN-ACK that is lost comes again only because the peer sends its SYN again.
//! When the peer's ACK is lost, its first data completes the handshake; a peer that only listens waits in vain. An
//! old ACK of the handshake that the network doubles, and that comes after the connection was closed from the other end
//! and within the cookie's life, opens it once more. These are the reasons not to send cookies as long as there is room.
//!
//! The key is the process's secret mixed with the worker's own: a cookie is good at the worker that sent it. A segment
//! that RSS brings elsewhere is passed on as any other. If every worker took it, the first data segment, whose numbers are
//! those of the ACK, could open the same connection a second time at another one.

use super::config::{MAX_WINDOW_SCALE, TcpConfig};
use super::isn::{Secret, ts_val};
use super::syn_rcvd::SynRcvd;
use crate::time::Time;
use crate::wire::tcp::Timestamps;
use crate::wire::{Header, SeqNum, TcpFrame, Tuple};
use siphasher::sip::SipHasher13;
use std::hash::Hasher;
use std::time::Duration;

/// Seconds a counter lasts. Lower: a slow peer's ACK comes too late; higher: who once saw a cookie can use it for longer.
const COUNTER_SECONDS: u64 = 64;
/// How long after the last cookie one can come back.
const LIFE: Duration = Duration::from_secs(2 * COUNTER_SECONDS);

/// The MSS values that a cookie can tell, ascending: what is believed at least ([`MIN_MSS`](super::config::MIN_MSS)), the
/// defaults of both families (RFC 9293 §3.7.1), what tunnels and `PPPoE` leave, Ethernet over both, jumbo frames. The
/// largest one not above the peer's is taken, so a segment is never too large.
const MSS_TABLE: [u16; 8] = [88, 536, 1220, 1360, 1440, 1452, 1460, 8940];
const _: () = assert!(MSS_TABLE[0] == super::config::MIN_MSS);

const MSS_MASK: u32 = 7;
const COUNTER_SHIFT: u32 = 3;
const TUPLE_TAG_SHIFT: u32 = 4;
const TUPLE_TAG_MASK: u32 = (1 << 6) - 1;
const WHOLE_TAG_SHIFT: u32 = 10;
const WHOLE_TAG_MASK: u32 = (1 << 22) - 1;
const _: () = assert!(WHOLE_TAG_MASK << WHOLE_TAG_SHIFT >> WHOLE_TAG_SHIFT == WHOLE_TAG_MASK);
const _: () = assert!(TUPLE_TAG_MASK << TUPLE_TAG_SHIFT < 1 << WHOLE_TAG_SHIFT);

const TS_BITS: u32 = 6;
const TS_MASK: u32 = (1 << TS_BITS) - 1;
const TS_SCALE_MASK: u32 = 15;
const TS_NO_SCALE: u32 = 15;
const TS_SACK: u32 = 1 << 4;
const TS_ECN: u32 = 1 << 5;
const _: () = assert!((MAX_WINDOW_SCALE as u32) < TS_NO_SCALE);

/// A worker's cookies: the key, and until when one can come back.
#[derive(Clone, Debug)]
pub struct SynCookies {
    k0: u64,
    k1: u64,
    until: Time,
}

/// What a segment without a record is.
#[derive(Clone, Debug)]
#[must_use]
pub enum CookieVerdict {
    /// It completes a handshake: the record that was not kept. The segment is then given to what it becomes.
    Good(SynRcvd),
    /// Of a handshake of ours, but not the first segment of it: it must come again after that.
    Early,
    /// No cookie of this worker, or one too old.
    Unknown,
}

impl SynCookies {
    /// With the process's secret and the worker's own key.
    #[must_use]
    pub const fn new(secret: &Secret, worker: (u64, u64)) -> Self {
        let (k0, k1) = secret.of_worker(worker).words();
        Self { k0, k1, until: Time::ZERO }
    }

    /// Whether a cookie may be on its way back: if not, no segment needs to be looked at.
    #[must_use]
    pub fn out(&self, now: Time) -> bool {
        now < self.until
    }

    /// The SYN-ACK to a SYN, of which nothing is kept.
    #[must_use]
    pub fn answer(
        &mut self,
        f: &TcpFrame,
        listener: u16,
        cfg: &TcpConfig,
        secret: &Secret,
        now: Time,
    ) -> Header {
        self.until = now + LIFE;
        let o = &f.header.options;
        let index = mss_index(o.mss.unwrap_or(if f.tuple.is_v4() { 536 } else { 1220 }));
        let iss = self.isn(&f.tuple, counter(now), index, f.header.seq);
        let mut half = SynRcvd::new(f, listener, iss, cfg, now);
        half.sack &= o.timestamps.is_some();
        half.ecn &= o.timestamps.is_some();
        half.peer_scale = o.window_scale.filter(|_| o.timestamps.is_some());
        let mut header = half.syn_ack(cfg, secret, now);
        if let Some(ts) = &mut header.options.timestamps {
            ts.val = timestamp(now, secret.ts_offset(&f.tuple), &half);
        }
        header
    }

    /// Judges a segment with ACK and without SYN and RST that belongs to no record.
    pub fn check(
        &self,
        f: &TcpFrame,
        listener: u16,
        cfg: &TcpConfig,
        secret: &Secret,
        now: Time,
    ) -> CookieVerdict {
        let (irs, iss) = (f.header.seq - 1, f.header.ack - 1);
        let index = iss.raw() & MSS_MASK;
        let present = counter(now);
        let age = (present ^ u64::from(iss.raw() >> COUNTER_SHIFT)) & 1;
        let Some(count) = present.checked_sub(age) else { return CookieVerdict::Unknown };
        let expected = self.isn(&f.tuple, count, index, irs);
        if (expected.raw() ^ iss.raw()) & !(WHOLE_TAG_MASK << WHOLE_TAG_SHIFT) != 0 {
            return CookieVerdict::Unknown;
        }
        if expected != iss {
            return CookieVerdict::Early;
        }
        let Some(kept) = f
            .header
            .options
            .timestamps
            .map_or(Some(Kept::default()), |ts| options(ts, now, secret.ts_offset(&f.tuple)))
        else {
            return CookieVerdict::Unknown;
        };
        let mut half = SynRcvd::new(f, listener, iss, cfg, now);
        half.irs = irs;
        half.peer_mss = MSS_TABLE.get(index as usize).copied().unwrap_or(0);
        half.peer_scale = kept.scale;
        half.sack = kept.sack;
        half.ecn = kept.ecn && cfg.limits(listener).ecn;
        // Which SYN-ACK was answered is not known: no round trip is taken from it.
        half.repeated = true;
        CookieVerdict::Good(half)
    }

    fn isn(&self, tuple: &Tuple, count: u64, index: u32, irs: SeqNum) -> SeqNum {
        let mut h = SipHasher13::new_with_keys(self.k0, self.k1);
        h.write(tuple.local.addr.octets());
        h.write(tuple.remote.addr.octets());
        h.write_u32(u32::from(tuple.local.port) << 16 | u32::from(tuple.remote.port));
        h.write_u64(count << 3 | u64::from(index));
        let of_tuple = h.finish() as u32 & TUPLE_TAG_MASK;
        h.write_u32(irs.raw());
        let whole = h.finish() as u32 & WHOLE_TAG_MASK;
        let counter_bit = (count & 1) as u32;
        SeqNum::new(
            whole << WHOLE_TAG_SHIFT | of_tuple << TUPLE_TAG_SHIFT | counter_bit << COUNTER_SHIFT | index,
        )
    }
}

/// The number of the present 64 seconds.
const fn counter(now: Time) -> u64 {
    now.millis() / (1000 * COUNTER_SECONDS)
}

/// Place of the largest MSS in the table that is not above `mss`; what is less than is believed counts as the least.
fn mss_index(mss: u16) -> u32 {
    MSS_TABLE.partition_point(|&m| m <= mss).saturating_sub(1) as u32
}

/// The timestamp that carries the options of a half-open record: at most 64 ms behind the clock.
fn timestamp(now: Time, offset: u32, half: &SynRcvd) -> u32 {
    let clock = ts_val(now, 0);
    let scale = half.peer_scale.map_or(TS_NO_SCALE, |s| u32::from(s.min(MAX_WINDOW_SCALE)));
    let bits = scale | if half.sack { TS_SACK } else { 0 } | if half.ecn { TS_ECN } else { 0 };
    let mut val = clock & !TS_MASK | bits;
    if val & TS_MASK > clock & TS_MASK {
        val = val.wrapping_sub(1 << TS_BITS);
    }
    val.wrapping_add(offset)
}

/// What an echoed timestamp has kept.
#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    scale: Option<u8>,
    sack: bool,
    ecn: bool,
}

/// What an echoed timestamp carries; `None` when no cookie that is still good had it.
fn options(ts: Timestamps, now: Time, offset: u32) -> Option<Kept> {
    let val = ts.ecr.wrapping_sub(offset);
    let age = ts_val(now, 0).wrapping_sub(val);
    let scale = (val & TS_SCALE_MASK) as u8;
    let most = LIFE.as_millis() as u32 + (1 << TS_BITS);
    (age <= most).then_some(Kept {
        scale: (u32::from(scale) != TS_NO_SCALE).then_some(scale),
        sack: val & TS_SACK != 0,
        ecn: val & TS_ECN != 0,
    })
}

#[cfg(test)]
mod tests;
