//! The oracle: whether what came back is what the plan says, byte for byte.

use super::plan::{Plan, Target};
use crate::service::{pattern, scripted};
use std::fmt;
use std::sync::Arc;

/// Longest response head in bytes; the server's are a fraction of it.
const HEAD_MAX: usize = 1024;

/// What is wrong with a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The byte at this offset of the received stream is wrong.
    Mismatch(u64),
    /// There are bytes from this offset on where none should be.
    Unexpected(u64),
    /// The response beginning before this offset is not the one asked for.
    Response(u64),
    /// The server's FIN came when so many bytes had come, and more were due or the client was to close first.
    EarlyEnd(u64),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mismatch(at) => write!(f, "wrong byte at offset {at}"),
            Self::Unexpected(at) => write!(f, "unexpected bytes from offset {at} on"),
            Self::Response(at) => write!(f, "wrong response before offset {at}"),
            Self::EarlyEnd(at) => write!(f, "end of stream too early, after {at} bytes"),
        }
    }
}

/// Checks a received stream against a plan.
#[derive(Clone, Debug)]
pub struct Checker {
    plan: Plan,
    body: Arc<[u8]>,
    received: u64,
    replies: u16,
    /// The response head so far.
    head: Vec<u8>,
    /// Within a body: the offset of its next byte.
    body_at: Option<usize>,
}

impl Checker {
    /// At the start of a stream; `body` is what the HTTP server answers with.
    #[must_use]
    pub fn new(plan: &Plan, body: Arc<[u8]>) -> Self {
        Self { plan: *plan, body, received: 0, replies: 0, head: Vec::new(), body_at: None }
    }

    /// Bytes received so far.
    #[must_use]
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// Whether everything that was due has come.
    #[must_use]
    pub fn complete(&self) -> bool {
        match self.plan.target {
            Target::Echo | Target::Discard => self.received == self.due(),
            Target::Http => self.replies == self.plan.requests_expected() && self.body_at.is_none(),
        }
    }

    fn due(&self) -> u64 {
        u64::from(self.plan.echoed()) + u64::from(self.plan.tail_expected())
    }

    /// Takes received bytes.
    ///
    /// # Errors
    /// The first fault; the stream is not to be fed further.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        match self.plan.target {
            Target::Echo | Target::Discard => self.feed_pattern(bytes),
            Target::Http => self.feed_http(bytes),
        }
    }

    fn feed_pattern(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let echoed = u64::from(self.plan.echoed());
        let left = usize::try_from(echoed.saturating_sub(self.received)).unwrap_or(usize::MAX);
        let (echo, tail) = bytes.split_at(left.min(bytes.len()));
        if let Some(at) = pattern::mismatch(self.plan.seed, self.received, echo) {
            return Err(Fault::Mismatch(at));
        }
        self.received += echo.len() as u64;
        if tail.is_empty() {
            return Ok(());
        }
        if self.received + tail.len() as u64 > self.due() {
            return Err(Fault::Unexpected(self.due()));
        }
        if let Some(at) = pattern::mismatch(scripted::TAIL_SEED, self.received - echoed, tail) {
            return Err(Fault::Mismatch(echoed + at));
        }
        self.received += tail.len() as u64;
        Ok(())
    }

    fn feed_http(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let mut rest = bytes;
        while !rest.is_empty() {
            if let Some(at) = self.body_at {
                let n = rest.len().min(self.body.len() - at);
                let wrong = rest[..n].iter().zip(&self.body[at..at + n]).position(|(a, b)| a != b);
                if let Some(i) = wrong {
                    return Err(Fault::Mismatch(self.received + i as u64));
                }
                self.received += n as u64;
                rest = &rest[n..];
                self.body_at = (at + n < self.body.len()).then_some(at + n);
                continue;
            }
            if self.complete() {
                return Err(Fault::Unexpected(self.received));
            }
            self.head.push(rest[0]);
            self.received += 1;
            rest = &rest[1..];
            if self.head.ends_with(b"\r\n\r\n") {
                self.read_head()?;
            } else if self.head.len() >= HEAD_MAX {
                return Err(Fault::Response(self.received));
            }
        }
        Ok(())
    }

    fn read_head(&mut self) -> Result<(), Fault> {
        let mut fields = [httparse::EMPTY_HEADER; 16];
        let mut response = httparse::Response::new(&mut fields);
        let parsed = response.parse(&self.head);
        let length = self.body.len().to_string();
        let right_length = response
            .headers
            .iter()
            .any(|h| h.name.eq_ignore_ascii_case("content-length") && h.value == length.as_bytes());
        let right = parsed.is_ok_and(|p| p.is_complete()) && response.code == Some(200) && right_length;
        if !right {
            return Err(Fault::Response(self.received));
        }
        self.head.clear();
        self.replies += 1;
        self.body_at = (!self.body.is_empty()).then_some(0);
        Ok(())
    }
}
