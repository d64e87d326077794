//! The responses, formatted once when the service is made; sending one is copying slices.

use std::fmt::Write;

/// The statuses the service answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Status {
    Ok,
    BadRequest,
    MethodNotAllowed,
    TooLarge,
    ExpectationFailed,
    HeadTooLarge,
    NotImplemented,
    Unavailable,
    Version,
}

impl Status {
    const ALL: [Self; 9] = [
        Self::Ok,
        Self::BadRequest,
        Self::MethodNotAllowed,
        Self::TooLarge,
        Self::ExpectationFailed,
        Self::HeadTooLarge,
        Self::NotImplemented,
        Self::Unavailable,
        Self::Version,
    ];

    /// Code and reason (RFC 9110 §15, RFC 6585 §5).
    const fn line(self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::BadRequest => "400 Bad Request",
            Self::MethodNotAllowed => "405 Method Not Allowed",
            Self::TooLarge => "413 Content Too Large",
            Self::ExpectationFailed => "417 Expectation Failed",
            Self::HeadTooLarge => "431 Request Header Fields Too Large",
            Self::NotImplemented => "501 Not Implemented",
            Self::Unavailable => "503 Service Unavailable",
            Self::Version => "505 HTTP Version Not Supported",
        }
    }
}

/// What becomes of the connection after a response (RFC 9112 §9.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Persist {
    /// HTTP/1.1: it stays open, which need not be said.
    Silent,
    /// HTTP/1.0 with `Connection: keep-alive`: it stays open, and must be told.
    Told,
    /// It is closed, and told.
    Close,
}

const PERSISTS: [Persist; 3] = [Persist::Silent, Persist::Told, Persist::Close];

/// A response to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub status: Status,
    pub persist: Persist,
    /// Whether the body goes with it: not for HEAD.
    pub body: bool,
}

impl Reply {
    /// A response that ends the connection.
    pub(super) const fn last(status: Status) -> Self {
        Self { status, persist: Persist::Close, body: true }
    }
}

/// The interim response to `Expect: 100-continue` (RFC 9110 §15.2.1).
pub(super) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// All heads and bodies.
pub(super) struct Responses {
    /// By status, then by persistence.
    heads: Vec<[Box<[u8]>; 3]>,
    /// By status; for `Ok` the service's own.
    bodies: Vec<Box<[u8]>>,
}

impl Responses {
    /// Formats everything for a fixed body.
    pub(super) fn new(body: Vec<u8>, content_type: &str) -> Self {
        let mut ok = Some(body);
        let mut heads = Vec::with_capacity(Status::ALL.len());
        let mut bodies = Vec::with_capacity(Status::ALL.len());
        for status in Status::ALL {
            let (body, kind) = match status {
                Status::Ok => (ok.take().unwrap_or_default(), content_type),
                _ => (format!("{}\n", status.line()).into_bytes(), "text/plain"),
            };
            heads.push(PERSISTS.map(|p| head(status, p, kind, body.len())));
            bodies.push(body.into_boxed_slice());
        }
        Self { heads, bodies }
    }

    /// The bytes of a reply: head and body.
    pub(super) fn parts(&self, reply: Reply) -> (&[u8], &[u8]) {
        let body: &[u8] = if reply.body { &self.bodies[reply.status as usize] } else { &[] };
        (&self.heads[reply.status as usize][reply.persist as usize], body)
    }
}

fn head(status: Status, persist: Persist, content_type: &str, length: usize) -> Box<[u8]> {
    let mut h = format!("HTTP/1.1 {}\r\nServer: finwheel\r\n", status.line());
    if status == Status::MethodNotAllowed {
        h.push_str("Allow: GET, HEAD, POST\r\n");
    }
    match persist {
        Persist::Silent => {}
        Persist::Told => h.push_str("Connection: keep-alive\r\n"),
        Persist::Close => h.push_str("Connection: close\r\n"),
    }
    // Writing to a String cannot fail.
    let _ = write!(h, "Content-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n");
    h.into_bytes().into_boxed_slice()
}
