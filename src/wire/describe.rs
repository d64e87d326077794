//! One line of text for a segment, in tcpdump's spirit: for traces, logs and failing tests, never for the packet
//! path.
//!
//! `SYN seq=0 win=64240 <mss 1460,sackOK,ts 1 0,wscale 7>`

use super::{Header, Options, SeqNum};
use std::fmt;

/// A segment that can be displayed on one line.
#[derive(Clone, Copy, Debug)]
pub struct Describe<'a> {
    header: &'a Header,
    payload_len: usize,
    seq_base: SeqNum,
    ack_base: SeqNum,
}

impl<'a> Describe<'a> {
    /// With sequence numbers as they are on the wire.
    #[must_use]
    pub const fn new(header: &'a Header, payload_len: usize) -> Self {
        Self { header, payload_len, seq_base: SeqNum::new(0), ack_base: SeqNum::new(0) }
    }

    /// With sequence numbers counted from the sender's initial one (`seq_base`), and acknowledgments and SACK blocks
    /// from the receiver's (`ack_base`).
    #[must_use]
    pub const fn relative_to(self, seq_base: SeqNum, ack_base: SeqNum) -> Self {
        Self { seq_base, ack_base, ..self }
    }

    fn options(&self, f: &mut fmt::Formatter<'_>, options: &Options) -> fmt::Result {
        let mut before = " <";
        let mut item = |f: &mut fmt::Formatter<'_>, text: fmt::Arguments<'_>| {
            f.write_str(before)?;
            before = ",";
            f.write_fmt(text)
        };
        if let Some(mss) = options.mss {
            item(f, format_args!("mss {mss}"))?;
        }
        if options.sack_permitted {
            item(f, format_args!("sackOK"))?;
        }
        if let Some(ts) = options.timestamps {
            item(f, format_args!("ts {} {}", ts.val, ts.ecr))?;
        }
        if let Some(shift) = options.window_scale {
            item(f, format_args!("wscale {shift}"))?;
        }
        for (left, right) in options.sack_blocks() {
            item(f, format_args!("sack {}:{}", *left - self.ack_base, *right - self.ack_base))?;
        }
        if options.malformed {
            item(f, format_args!("malformed"))?;
        }
        if before == "," { f.write_str(">") } else { Ok(()) }
    }
}

impl fmt::Display for Describe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let h = self.header;
        write!(f, "{} seq={}", h.flags, h.seq - self.seq_base)?;
        if h.flags.ack() {
            write!(f, " ack={}", h.ack - self.ack_base)?;
        }
        write!(f, " win={}", h.window)?;
        if self.payload_len != 0 {
            write!(f, " len={}", self.payload_len)?;
        }
        self.options(f, &h.options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Flags, tcp::Timestamps};

    fn header(flags: Flags, options: Options) -> Header {
        Header { seq: SeqNum::new(1000), ack: SeqNum::new(u32::MAX), flags, window: 64_240, options }
    }

    #[test]
    fn a_line_for_each_kind_of_segment() {
        let ts = Some(Timestamps { val: 1, ecr: 0 });
        let syn = Options {
            mss: Some(1460),
            window_scale: Some(7),
            sack_permitted: true,
            timestamps: ts,
            ..Options::default()
        };
        let mut sack = Options { timestamps: ts, sack_len: 1, ..Options::default() };
        sack.sack[0] = (SeqNum::new(9), SeqNum::new(19));
        let malformed = Options { malformed: true, ..Options::default() };
        let ack = Flags::ACK;
        let rows = [
            ("syn", Flags::SYN, syn, 0, "SYN seq=0 win=64240 <mss 1460,sackOK,ts 1 0,wscale 7>"),
            ("data", ack | Flags::PSH, Options::default(), 10, "PSH,ACK seq=0 ack=0 win=64240 len=10"),
            ("sack", ack, sack, 0, "ACK seq=0 ack=0 win=64240 <ts 1 0,sack 10:20>"),
            ("fin", ack | Flags::FIN, Options::default(), 0, "FIN,ACK seq=0 ack=0 win=64240"),
            ("malformed", ack, malformed, 0, "ACK seq=0 ack=0 win=64240 <malformed>"),
        ];
        for (name, flags, options, len, want) in rows {
            let h = header(flags, options);
            let got =
                Describe::new(&h, len).relative_to(SeqNum::new(1000), SeqNum::new(u32::MAX)).to_string();
            assert_eq!(got, want, "{name}");
        }
    }

    #[test]
    fn absolute_by_default() {
        let h = header(Flags::RST, Options::default());
        assert_eq!(Describe::new(&h, 0).to_string(), "RST seq=1000 win=64240");
    }
}
