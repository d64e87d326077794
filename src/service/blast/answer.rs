//! Checks what a peer answers, as it arrives.

use super::{BLOCK, Request};
use crate::service::http::chunked::Chunked;

/// Bytes of a response's head at most: as much as the common servers send at most.
const HEAD_MAX: usize = 16 * 1024;
/// Header lines at most.
const HEADERS_MAX: usize = 64;
/// Heads that arrive in pieces at the same time, at most; of any more the connection fails.
const PARTIAL_MAX: usize = 1024;

/// How far an answer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// So many bytes of an echo are still due.
    Echo(u64),
    /// The head of an HTTP response is not complete.
    Head,
    /// So many bytes of the body are still due.
    Length(u64),
    /// In a body in chunks.
    Chunks(Chunked),
    /// The body ends with the connection.
    UntilClose,
    /// Nothing more is due.
    Complete,
}

/// The answer is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wrong;

/// Heads that arrived in part, by connection: rare, so they are kept apart, and bounded.
#[derive(Debug, Default)]
pub(super) struct Partial(std::collections::HashMap<u32, Vec<u8>>);

impl Partial {
    /// Forgets what a connection left.
    pub(super) fn forget(&mut self, word: u32) {
        if !self.0.is_empty() {
            self.0.remove(&word);
        }
    }

    fn keep(&mut self, word: u32, bytes: &[u8]) -> Result<(), Wrong> {
        let room = self.0.len() < PARTIAL_MAX;
        let head = match self.0.entry(word) {
            std::collections::hash_map::Entry::Occupied(e) => e.into_mut(),
            std::collections::hash_map::Entry::Vacant(e) if room => e.insert(Vec::new()),
            std::collections::hash_map::Entry::Vacant(_) => return Err(Wrong),
        };
        if head.len() + bytes.len() > HEAD_MAX {
            return Err(Wrong);
        }
        head.extend_from_slice(bytes);
        Ok(())
    }
}

impl Answer {
    /// What is due after a request.
    pub(super) fn to(request: &Request) -> Self {
        match request {
            Request::Http(_) => Self::Head,
            Request::Bytes { count: 0, .. } | Request::Bytes { echo: false, .. } => Self::Complete,
            Request::Bytes { count, echo: true } => Self::Echo(*count),
        }
    }

    /// Whether nothing more is due.
    pub(super) fn is_complete(self) -> bool {
        self == Self::Complete
    }

    /// The peer closed: whether that completes it.
    pub(super) fn close(&mut self) -> bool {
        if *self == Self::UntilClose {
            *self = Self::Complete;
        }
        self.is_complete()
    }

    /// Takes what arrived.
    pub(super) fn feed(
        &mut self,
        mut bytes: &[u8],
        request: &Request,
        partial: &mut Partial,
        word: u32,
    ) -> Result<(), Wrong> {
        while !bytes.is_empty() {
            let taken = match self {
                Self::Echo(left) => echo(left, bytes, request)?,
                Self::Head => {
                    let (taken, next) = head(bytes, partial, word)?;
                    if let Some(next) = next {
                        *self = next;
                    }
                    taken
                }
                Self::Length(left) => {
                    let n = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= n as u64;
                    n
                }
                Self::Chunks(chunks) => {
                    let (taken, complete) = chunks.skip(bytes).map_err(|_| Wrong)?;
                    if complete {
                        *self = Self::Complete;
                    }
                    taken
                }
                Self::UntilClose => bytes.len(),
                Self::Complete => return Err(Wrong),
            };
            if matches!(self, Self::Echo(0) | Self::Length(0)) {
                *self = Self::Complete;
            }
            bytes = bytes.get(taken..).unwrap_or_default();
        }
        Ok(())
    }
}

/// Compares with what was sent: the stream is [`BLOCK`] over and over.
fn echo(left: &mut u64, bytes: &[u8], request: &Request) -> Result<usize, Wrong> {
    let Request::Bytes { count, .. } = request else { return Err(Wrong) };
    let at = ((count - *left) % BLOCK.len() as u64) as usize;
    let n = bytes.len().min(BLOCK.len() - at).min(usize::try_from(*left).unwrap_or(usize::MAX));
    if bytes[..n] != BLOCK[at..at + n] {
        return Err(Wrong);
    }
    *left -= n as u64;
    Ok(n)
}

/// Takes bytes of a head: how many, and what follows it once it is complete.
fn head(bytes: &[u8], partial: &mut Partial, word: u32) -> Result<(usize, Option<Answer>), Wrong> {
    let before = partial.0.get(&word).map_or(0, Vec::len);
    if before == 0
        && let Some((len, next)) = parse(bytes)?
    {
        return Ok((len, Some(next)));
    }
    partial.keep(word, bytes)?;
    let Some(found) = partial.0.get(&word).map(|all| parse(all)).transpose()?.flatten() else {
        return Ok((bytes.len(), None));
    };
    partial.forget(word);
    // What was kept before was not complete: the end lies within these bytes.
    Ok((found.0 - before, Some(found.1)))
}

/// Parses a head: its length, and what follows it. `None` when it is not complete.
fn parse(bytes: &[u8]) -> Result<Option<(usize, Answer)>, Wrong> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let len = match response.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Wrong),
    };
    match response.code {
        // Interim: the answer proper follows (RFC 9110 §15.2).
        Some(100 | 102 | 103) => return Ok(Some((len, Answer::Head))),
        // No body (RFC 9110 §15.3.5).
        Some(204) => return Ok(Some((len, Answer::Complete))),
        Some(200..=299) => {}
        Some(_) | None => return Err(Wrong),
    }
    let value = |name: &str| {
        let header = response.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(header.value).ok().map(str::trim)
    };
    // RFC 9112 §6.3: a transfer coding goes before a length.
    let next = if let Some(coding) = value("transfer-encoding") {
        if !coding.eq_ignore_ascii_case("chunked") {
            return Err(Wrong);
        }
        Answer::Chunks(Chunked::new(u64::MAX))
    } else if let Some(length) = value("content-length") {
        match length.parse().map_err(|_| Wrong)? {
            0 => Answer::Complete,
            n => Answer::Length(n),
        }
    } else {
        Answer::UntilClose
    };
    Ok(Some((len, next)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds the bytes cut at these places. What it came to, and what is left over of partial heads.
    fn fed(request: &Request, bytes: &[u8], cut: usize) -> (Result<Answer, Wrong>, usize) {
        let mut a = Answer::to(request);
        let mut partial = Partial::default();
        for part in bytes.chunks(cut.max(1)) {
            if a.feed(part, request, &mut partial, 1).is_err() {
                return (Err(Wrong), partial.0.len());
            }
        }
        (Ok(a), partial.0.len())
    }

    fn http() -> Request {
        Request::Http(std::sync::Arc::from(&b"GET / HTTP/1.1\r\n\r\n"[..]))
    }

    #[test]
    fn an_answer_is_judged_alike_however_it_is_cut() {
        let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 2\r\n\r\nok", "x".repeat(5000));
        let rows: [(&str, Result<Answer, Wrong>); 13] = [
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", Ok(Answer::Complete)),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", Ok(Answer::Length(1))),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcd", Err(Wrong)),
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Ok(Answer::Complete)),
            ("HTTP/1.1 204 No\r\n\r\n", Ok(Answer::Complete)),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\n", Ok(Answer::Complete)),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
                Ok(Answer::Complete),
            ),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n", Err(Wrong)),
            ("HTTP/1.1 200 OK\r\n\r\nany", Ok(Answer::UntilClose)),
            ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", Err(Wrong)),
            ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", Err(Wrong)),
            ("SSH-2.0-OpenSSH\r\n", Err(Wrong)),
            (&long, Ok(Answer::Complete)),
        ];
        for (text, want) in rows {
            for cut in [1, 2, 7, 100, 10_000] {
                let (got, left) = fed(&http(), text.as_bytes(), cut);
                assert_eq!(got, want, "{text:?} in parts of {cut}");
                assert!(got.is_err() || left == 0, "{text:?}: a head is left over");
            }
        }
    }

    #[test]
    fn a_head_without_end_is_refused_and_what_a_connection_left_is_forgotten() {
        let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(2 * HEAD_MAX));
        assert_eq!(fed(&http(), endless.as_bytes(), 100).0, Err(Wrong));
        let mut partial = Partial::default();
        for word in 1..=PARTIAL_MAX as u32 {
            assert_eq!(Answer::Head.feed(b"HTTP/1.1 2", &http(), &mut partial, word), Ok(()));
        }
        assert_eq!(Answer::Head.feed(b"HTTP/1.1 2", &http(), &mut partial, 0), Err(Wrong), "one too many");
        partial.forget(1);
        assert_eq!(Answer::Head.feed(b"HTTP/1.1 2", &http(), &mut partial, 0), Ok(()));
    }

    proptest! {
        #[test]
        fn an_echo_is_complete_with_its_last_byte_and_wrong_with_any_other(
            count in 1u64..200_000,
            cut in 1usize..9000,
            at in any::<prop::sample::Index>(),
        ) {
            let request = Request::Bytes { count, echo: true };
            let mut bytes: Vec<u8> = BLOCK.iter().copied().cycle().take(count as usize).collect();
            prop_assert_eq!(fed(&request, &bytes, cut).0, Ok(Answer::Complete));
            prop_assert_eq!(fed(&request, &bytes[1..], cut).0.is_ok_and(Answer::is_complete), false);
            bytes.push(0);
            prop_assert_eq!(fed(&request, &bytes, cut).0, Err(Wrong));
            bytes.pop();
            bytes[at.index(count as usize)] ^= 1;
            prop_assert_eq!(fed(&request, &bytes, cut).0, Err(Wrong));
        }
    }
}
