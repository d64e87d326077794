//! From the bytes of a request head to what must be done about it.

use super::chunked::Chunked;
use super::response::{Persist, Reply, Status};

/// Header fields of a request; more are answered with 431.
const FIELDS_MAX: usize = 64;

/// How the body of a request ends (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// After so many more bytes.
    Length(u64),
    /// Where the chunked coding says.
    Chunked(Chunked),
}

/// A request head, understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// Bytes of the head.
    pub len: usize,
    pub framing: Framing,
    pub reply: Reply,
    /// The client waits for 100 (Continue) before it sends its body.
    pub expects_continue: bool,
}

/// What the bytes so far are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The beginning of a head.
    Partial,
    /// A whole one.
    Request(Request),
    /// None, or one that cannot be followed; the connection ends with this status.
    Refused(Status),
}

/// The fields that matter, gathered.
#[derive(Default)]
struct Fields<'a> {
    hosts: u32,
    close: bool,
    keep_alive: bool,
    length: Option<u64>,
    coding: Option<&'a [u8]>,
    codings: u32,
    expect: Option<&'a [u8]>,
}

/// Reads a head at the start of `bytes`. `body_max` bounds the body in bytes.
pub(super) fn read(bytes: &[u8], body_max: u64) -> Verdict {
    let mut space = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut space);
    let len = match request.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Verdict::Partial,
        Err(httparse::Error::TooManyHeaders) => return Verdict::Refused(Status::HeadTooLarge),
        Err(httparse::Error::Version) => return Verdict::Refused(Status::Version),
        Err(_) => return Verdict::Refused(Status::BadRequest),
    };
    let one_one = request.version == Some(1);
    match judge(request.method.unwrap_or(""), one_one, request.headers, body_max) {
        Ok((framing, reply, expects_continue)) => {
            Verdict::Request(Request { len, framing, reply, expects_continue })
        }
        Err(status) => Verdict::Refused(status),
    }
}

fn judge(
    method: &str,
    one_one: bool,
    headers: &[httparse::Header<'_>],
    body_max: u64,
) -> Result<(Framing, Reply, bool), Status> {
    let fields = gather(headers)?;
    // RFC 9112 §3.2: exactly one Host in HTTP/1.1.
    if fields.hosts > 1 || (one_one && fields.hosts == 0) {
        return Err(Status::BadRequest);
    }
    let framing = framing(&fields, one_one, body_max)?;
    // RFC 9112 §9.3.
    let persist = match (one_one, fields.close, fields.keep_alive) {
        (_, true, _) | (false, false, false) => Persist::Close,
        (true, false, _) => Persist::Silent,
        (false, false, true) => Persist::Told,
    };
    let status = match method {
        "GET" | "HEAD" | "POST" => Status::Ok,
        "PUT" | "DELETE" | "OPTIONS" | "PATCH" | "TRACE" | "CONNECT" => Status::MethodNotAllowed,
        _ => Status::NotImplemented,
    };
    // RFC 9110 §10.1.1: in an HTTP/1.0 request the field is ignored.
    let expects_continue = match fields.expect {
        Some(e) if one_one && e.eq_ignore_ascii_case(b"100-continue") => framing != Framing::Length(0),
        Some(_) if one_one => return Err(Status::ExpectationFailed),
        Some(_) | None => false,
    };
    Ok((framing, Reply { status, persist, body: method != "HEAD" }, expects_continue))
}

fn gather<'a>(headers: &[httparse::Header<'a>]) -> Result<Fields<'a>, Status> {
    let mut f = Fields::default();
    for h in headers {
        if h.name.eq_ignore_ascii_case("host") {
            f.hosts += 1;
        } else if h.name.eq_ignore_ascii_case("connection") {
            for token in h.value.split(|b| *b == b',').map(<[u8]>::trim_ascii) {
                f.close |= token.eq_ignore_ascii_case(b"close");
                f.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
            }
        } else if h.name.eq_ignore_ascii_case("content-length") {
            // RFC 9112 §6.3: several lengths that differ, or one that is no number, are unrecoverable.
            let n = number(h.value.trim_ascii()).ok_or(Status::BadRequest)?;
            if f.length.is_some_and(|before| before != n) {
                return Err(Status::BadRequest);
            }
            f.length = Some(n);
        } else if h.name.eq_ignore_ascii_case("transfer-encoding") {
            f.coding = Some(h.value.trim_ascii());
            f.codings += 1;
        } else if h.name.eq_ignore_ascii_case("expect") {
            f.expect = Some(h.value.trim_ascii());
        }
    }
    Ok(f)
}

fn framing(fields: &Fields<'_>, one_one: bool, body_max: u64) -> Result<Framing, Status> {
    match (fields.coding, fields.length) {
        (None, None) => Ok(Framing::Length(0)),
        (None, Some(n)) if n > body_max => Err(Status::TooLarge),
        (None, Some(n)) => Ok(Framing::Length(n)),
        // RFC 9112 §6.1, §11.2: both, or a coding in HTTP/1.0, is how requests are smuggled.
        (Some(_), Some(_)) => Err(Status::BadRequest),
        (Some(_), None) if !one_one => Err(Status::BadRequest),
        (Some(c), None) if fields.codings == 1 && c.eq_ignore_ascii_case(b"chunked") => {
            Ok(Framing::Chunked(Chunked::new(body_max)))
        }
        (Some(_), None) => Err(Status::NotImplemented),
    }
}

/// Decimal digits and nothing else.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |n, d| {
        let d = d.is_ascii_digit().then(|| u64::from(d - b'0'))?;
        n.checked_mul(10)?.checked_add(d)
    })
}
