//! TCP options: read by kind and length, written in the order in which Linux writes them.

use super::SeqNum;
use super::tcp::{MAX_SACK_BLOCKS, Options, Timestamps};

/// Bytes of options a TCP header can hold: 15 words less the fixed 5 (RFC 9293 §3.1).
pub const MAX_OPTIONS_LEN: usize = 40;

const END: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;
const TIMESTAMPS: u8 = 8;

const MSS_LEN: usize = 4;
const WINDOW_SCALE_LEN: usize = 3;
const SACK_PERMITTED_LEN: usize = 2;
const TIMESTAMPS_LEN: usize = 10;
const SACK_BLOCK_LEN: usize = 8;

/// Reads a list of options. `syn` says whether the segment is a SYN: MSS, window scale and SACK-permitted count only
/// there, SACK blocks only elsewhere; in the wrong place they are checked and ignored.
///
/// A list with an impossible length, or a known kind of the wrong length, gives no options but `malformed`
/// (RFC 9293 §3.1, MUST-7). An MSS of 0 counts as absent. Of a repeated option the last one counts.
#[must_use]
pub fn parse(bytes: &[u8], syn: bool) -> Options {
    let mut options = Options::default();
    parse_into(bytes, syn, &mut options);
    options
}

/// As [`parse`], to where the options are needed. Two shapes are known at sight: what nearly every segment of an established
/// connection carries (RFC 7323 appendix A), and what Linux puts on a SYN (`tcp_options_write`).
#[inline]
pub(crate) fn parse_into(bytes: &[u8], syn: bool, into: &mut Options) {
    *into = Options::default();
    if let [NOP, NOP, TIMESTAMPS, 10, ref stamps @ ..] = *bytes
        && let Ok(stamps) = (*stamps).try_into()
    {
        let (val, ecr) = two_words(stamps);
        into.timestamps = Some(Timestamps { val, ecr });
    } else if let [
        MSS,
        4,
        m0,
        m1,
        SACK_PERMITTED,
        2,
        TIMESTAMPS,
        10,
        ref stamps @ ..,
        NOP,
        WINDOW_SCALE,
        3,
        shift,
    ] = *bytes
        && let Ok(stamps) = (*stamps).try_into()
        && syn
    {
        let (val, ecr) = two_words(stamps);
        into.mss = Some(u16::from_be_bytes([m0, m1])).filter(|&mss| mss != 0);
        into.sack_permitted = true;
        into.timestamps = Some(Timestamps { val, ecr });
        into.window_scale = Some(shift);
    } else if parse_list(bytes, syn, into).is_none() {
        *into = Options { malformed: true, ..Options::default() };
    }
}

/// The general walk; `None` when the list is malformed.
fn parse_list(mut bytes: &[u8], syn: bool, options: &mut Options) -> Option<()> {
    loop {
        let (kind, len) = match *bytes {
            [] | [END, ..] => return Some(()),
            [NOP, ref rest @ ..] => {
                bytes = rest;
                continue;
            }
            [_] => return None,
            [kind, len, ..] => (kind, usize::from(len)),
        };
        let (option, rest) = bytes.split_at_checked(len)?;
        let value = option.get(2..)?;
        match kind {
            MSS => {
                let mss = u16::from_be_bytes(value.try_into().ok()?);
                options.mss = (syn && mss != 0).then_some(mss);
            }
            WINDOW_SCALE => {
                let [shift] = value.try_into().ok()?;
                options.window_scale = syn.then_some(shift);
            }
            SACK_PERMITTED => {
                let [] = value.try_into().ok()?;
                options.sack_permitted = syn;
            }
            SACK => parse_sack(value, syn, options)?,
            TIMESTAMPS => {
                let (val, ecr) = two_words(value.try_into().ok()?);
                options.timestamps = Some(Timestamps { val, ecr });
            }
            _ => {}
        }
        bytes = rest;
    }
}

/// Reads the blocks of a SACK option (RFC 2018 §3); `None` unless they are one to four whole ones.
fn parse_sack(value: &[u8], syn: bool, options: &mut Options) -> Option<()> {
    let (blocks, tail) = value.as_chunks::<SACK_BLOCK_LEN>();
    if !tail.is_empty() || blocks.is_empty() || blocks.len() > MAX_SACK_BLOCKS {
        return None;
    }
    if !syn {
        for (to, block) in options.sack.iter_mut().zip(blocks) {
            let (left, right) = two_words(*block);
            *to = (SeqNum::new(left), SeqNum::new(right));
        }
        options.sack_len = blocks.len() as u8;
    }
    Some(())
}

/// Two 32-bit fields in network order.
const fn two_words(b: [u8; 8]) -> (u32, u32) {
    (u32::from_be_bytes([b[0], b[1], b[2], b[3]]), u32::from_be_bytes([b[4], b[5], b[6], b[7]]))
}

/// Bytes these options take in a header, padded to whole words; at most [`MAX_OPTIONS_LEN`].
///
/// What is left of the path's MSS after this is room for payload (RFC 6691).
#[must_use]
pub fn options_len(options: &Options) -> usize {
    let fixed = fixed_len(options);
    match sack_blocks_that_fit(options, fixed) {
        0 => fixed,
        n => fixed + 4 + n * SACK_BLOCK_LEN,
    }
}

/// Bytes of everything but SACK blocks. Each group is padded with NOPs to whole words, so sums are whole words too.
fn fixed_len(options: &Options) -> usize {
    let mss = if options.mss.is_some() { 4 } else { 0 };
    let scale = if options.window_scale.is_some() { 4 } else { 0 };
    // SACK-permitted takes the place of the two NOPs that align a timestamp.
    let middle = match (options.timestamps, options.sack_permitted) {
        (Some(_), _) => 12,
        (None, true) => 4,
        (None, false) => 0,
    };
    mss + middle + scale
}

/// How many SACK blocks fit behind `fixed` bytes of other options: three next to a timestamp (RFC 2018 §3).
fn sack_blocks_that_fit(options: &Options, fixed: usize) -> usize {
    let room = MAX_OPTIONS_LEN.saturating_sub(fixed + 4) / SACK_BLOCK_LEN;
    options.sack_blocks().len().min(room)
}

/// Words of options at most.
pub(crate) const MAX_OPTION_WORDS: usize = MAX_OPTIONS_LEN / 4;

/// The options as words in host order, in the order Linux writes them (`tcp_options_write`): MSS, SACK-permitted,
/// timestamps, NOP and window scale, then two NOPs and the SACK blocks that fit. Returns how many words of `to` are used,
/// which are [`options_len`] bytes.
#[inline]
pub(crate) fn words(options: &Options, to: &mut [u32; MAX_OPTION_WORDS]) -> usize {
    let mut w = Writer { to, at: 0 };
    if let Some(mss) = options.mss {
        w.put(mss_word(mss));
    }
    if let Some(ts) = options.timestamps {
        let before =
            if options.sack_permitted { (SACK_PERMITTED, SACK_PERMITTED_LEN as u8) } else { (NOP, NOP) };
        w.put(word(before.0, before.1, STAMPS));
        w.put(ts.val);
        w.put(ts.ecr);
    } else if options.sack_permitted {
        w.put(word(NOP, NOP, u16::from_be_bytes([SACK_PERMITTED, SACK_PERMITTED_LEN as u8])));
    }
    if let Some(shift) = options.window_scale {
        w.put(scale_word(shift));
    }
    if options.sack_len != 0 {
        let blocks = sack_blocks_that_fit(options, 4 * w.at);
        if blocks != 0 {
            w.put(word(NOP, NOP, u16::from_be_bytes([SACK, (2 + blocks * SACK_BLOCK_LEN) as u8])));
        }
        for (left, right) in options.sack_blocks().iter().take(blocks) {
            w.put(left.raw());
            w.put(right.raw());
        }
    }
    w.at
}

/// Timestamps alone, as [`words`] writes them.
#[inline]
pub(super) const fn timestamp_words(ts: Timestamps) -> [u32; 3] {
    [word(NOP, NOP, STAMPS), ts.val, ts.ecr]
}

/// All that a SYN can have, as [`words`] writes it.
#[inline]
pub(super) const fn syn_words(mss: u16, ts: Timestamps, shift: u8) -> [u32; 5] {
    let permitted = word(SACK_PERMITTED, SACK_PERMITTED_LEN as u8, STAMPS);
    [mss_word(mss), permitted, ts.val, ts.ecr, scale_word(shift)]
}

/// Kind and length of the timestamps: the second half of the word before them.
const STAMPS: u16 = u16::from_be_bytes([TIMESTAMPS, TIMESTAMPS_LEN as u8]);

const fn mss_word(mss: u16) -> u32 {
    word(MSS, MSS_LEN as u8, mss)
}

const fn scale_word(shift: u8) -> u32 {
    word(NOP, WINDOW_SCALE, u16::from_be_bytes([WINDOW_SCALE_LEN as u8, shift]))
}

const fn word(first: u8, second: u8, rest: u16) -> u32 {
    (first as u32) << 24 | (second as u32) << 16 | rest as u32
}

/// Appends to a buffer that the sizes above prove large enough.
struct Writer<'a> {
    to: &'a mut [u32; MAX_OPTION_WORDS],
    at: usize,
}

impl Writer<'_> {
    #[inline]
    fn put(&mut self, word: u32) {
        if let Some(to) = self.to.get_mut(self.at) {
            *to = word;
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests;
