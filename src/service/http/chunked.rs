//! Skipping a chunked body (RFC 9112 §7.1), byte by byte and in bounds, without keeping any of it.

/// Bytes that chunk extensions and trailers may take in all: they carry nothing we use, so more is abuse.
const OVERHEAD_MAX: u32 = 8 * 1024;

/// Digits of a chunk size; 16 hex digits fill 64 bits.
const SIZE_DIGITS_MAX: u8 = 16;

/// Where in the chunked coding the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// In the hex digits of a chunk size.
    Size { value: u64, digits: u8 },
    /// In a chunk extension or after the size.
    Extension { value: u64 },
    /// Before the LF of a size line.
    SizeLf { value: u64 },
    /// In chunk data, so many bytes left.
    Data(u64),
    /// Before the CR after chunk data.
    DataCr,
    /// Before the LF after chunk data.
    DataLf,
    /// At the start of a trailer line, or of the empty line that ends it all.
    TrailerStart,
    /// Inside a trailer line.
    Trailer,
    /// Before the LF of the last, empty line.
    EndLf,
}

/// Position within a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::service) struct Chunked {
    at: At,
    /// Data bytes that the limit still allows.
    left: u64,
    overhead: u32,
}

/// Why a body cannot be skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::service) enum BodyFault {
    /// Not chunked coding.
    Malformed,
    /// Longer than the service takes.
    TooLarge,
}

impl Chunked {
    /// At the start of a body of at most `limit` bytes of data.
    pub(in crate::service) const fn new(limit: u64) -> Self {
        Self { at: At::Size { value: 0, digits: 0 }, left: limit, overhead: 0 }
    }

    /// Takes what belongs to the body. Returns how many bytes that was, and whether the body is complete.
    ///
    /// # Errors
    /// Malformed coding, or more than the limit.
    pub(in crate::service) fn skip(&mut self, bytes: &[u8]) -> Result<(usize, bool), BodyFault> {
        let mut i = 0;
        while i < bytes.len() {
            if let At::Data(n) = self.at {
                let here = (bytes.len() - i).min(usize::try_from(n).unwrap_or(usize::MAX));
                i += here;
                let n = n - here as u64;
                self.at = if n == 0 { At::DataCr } else { At::Data(n) };
                continue;
            }
            let done = self.step(bytes[i])?;
            i += 1;
            if done {
                return Ok((i, true));
            }
        }
        Ok((i, false))
    }

    /// Takes one byte that is not chunk data; true when it was the last of the body.
    fn step(&mut self, byte: u8) -> Result<bool, BodyFault> {
        self.at = match (self.at, byte) {
            (At::Size { value, digits }, b) if b.is_ascii_hexdigit() => {
                if digits == SIZE_DIGITS_MAX {
                    return Err(BodyFault::Malformed);
                }
                let digit = (b as char).to_digit(16).unwrap_or(0);
                At::Size { value: value << 4 | u64::from(digit), digits: digits + 1 }
            }
            (At::Size { digits: 0, .. }, _) => return Err(BodyFault::Malformed),
            (At::Size { value, .. } | At::Extension { value }, b'\r') => At::SizeLf { value },
            (At::Size { value, .. }, b';' | b' ' | b'\t') => At::Extension { value },
            (At::Extension { value }, b) if b != b'\n' => {
                self.spend()?;
                At::Extension { value }
            }
            (At::SizeLf { value: 0 }, b'\n') => At::TrailerStart,
            (At::SizeLf { value }, b'\n') => {
                self.left = self.left.checked_sub(value).ok_or(BodyFault::TooLarge)?;
                At::Data(value)
            }
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => At::Size { value: 0, digits: 0 },
            (At::TrailerStart, b'\r') => At::EndLf,
            (At::TrailerStart | At::Trailer, b) => {
                self.spend()?;
                if b == b'\n' { At::TrailerStart } else { At::Trailer }
            }
            (At::EndLf, b'\n') => return Ok(true),
            (
                At::Size { .. }
                | At::Extension { .. }
                | At::SizeLf { .. }
                | At::DataCr
                | At::DataLf
                | At::EndLf
                | At::Data(_),
                _,
            ) => return Err(BodyFault::Malformed),
        };
        Ok(false)
    }

    fn spend(&mut self) -> Result<(), BodyFault> {
        self.overhead += 1;
        if self.overhead > OVERHEAD_MAX { Err(BodyFault::TooLarge) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = b"5\r\nhello\r\n1A;name=v\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\nTrailer: x\r\n\r\n";

    #[test]
    fn any_split_ends_at_the_same_byte() {
        let mut stream = BODY.to_vec();
        stream.extend_from_slice(b"GET /next");
        for first in 0..BODY.len() {
            for second in first..BODY.len() {
                let mut c = Chunked::new(31);
                assert_eq!(c.skip(&stream[..first]), Ok((first, false)));
                assert_eq!(c.skip(&stream[first..second]), Ok((second - first, false)));
                assert_eq!(c.skip(&stream[second..]), Ok((BODY.len() - second, true)));
            }
        }
    }

    #[test]
    fn malformed_coding_is_found() {
        for bad in [
            &b"\r\n"[..],
            b"x\r\n",
            b"5\nhello",
            b"5\r\nhelloX",
            b"5\r\nhello\rX",
            b"00000000000000005\r\n",
            b"5;a\nb",
            b"0\r\n\rX",
            b"-1\r\n",
        ] {
            assert_eq!(Chunked::new(100).skip(bad), Err(BodyFault::Malformed), "{bad:?}");
        }
    }

    #[test]
    fn bounds_hold_for_data_extensions_and_trailers() {
        assert_eq!(Chunked::new(4).skip(b"5\r\nhello"), Err(BodyFault::TooLarge));
        assert_eq!(Chunked::new(8).skip(b"5\r\nhello\r\n4\r\n"), Err(BodyFault::TooLarge));
        assert_eq!(Chunked::new(9).skip(b"FFFFFFFFFFFFFFFF\r\n"), Err(BodyFault::TooLarge));
        let mut c = Chunked::new(9);
        assert_eq!(c.skip(b"0\r\n"), Ok((3, false)));
        assert_eq!(c.skip(&[b't'; 10_000]), Err(BodyFault::TooLarge));
        let mut c = Chunked::new(9);
        assert_eq!(c.skip(b"1;"), Ok((2, false)));
        assert_eq!(c.skip(&[b'e'; 10_000]), Err(BodyFault::TooLarge));
    }
}
