//! HTTP requests in pieces: where segments end must make no difference.

use crate::engine::Reader;
use finwheel::service::http::{Http, HttpConfig, HttpCounters};
use finwheel::service::{Context, Service};
use finwheel::time::Time;
use finwheel::wire::{Addr, Endpoint, Tuple};

/// Pieces of requests, good and bad, from which inputs are made.
const PARTS: &[&[u8]] = &[
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"3\r\nabc\r\n",
    b"A;x=y\r\n0123456789\r\n",
    b"0\r\nTrailer: x\r\n\r\n",
    b"0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"GET / HTTP/2.0\r\n\r\n",
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\x00",
    b"PUT / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\n",
    b"Host: b\r\n",
    b"Content-Length: 2\r\n",
];

/// A connection with a send buffer of any size, read at once by the peer.
struct Cx {
    user: u32,
    out: Vec<u8>,
    room: usize,
    ended: Option<&'static str>,
}

impl Context for Cx {
    fn tuple(&self) -> Tuple {
        let end = |n| Endpoint::new(Addr::v4([10, 0, 0, n]), 80);
        Tuple { local: end(1), remote: end(2) }
    }
    fn now(&self) -> Time {
        Time::ZERO
    }
    fn user(&self) -> u32 {
        self.user
    }
    fn set_user(&mut self, word: u32) {
        self.user = word;
    }
    fn send_space(&self) -> usize {
        if self.ended.is_some() { 0 } else { self.room }
    }
    fn send(&mut self, bytes: &[u8]) -> usize {
        let n = bytes.len().min(self.send_space());
        self.out.extend(&bytes[..n]);
        self.room -= n;
        n
    }
    fn unacknowledged(&self) -> usize {
        0
    }
    fn shutdown(&mut self) {
        self.ended.get_or_insert("shutdown");
    }
    fn close(&mut self) {
        self.ended.get_or_insert("close");
    }
    fn close_lingering(&mut self) {
        self.ended.get_or_insert("lingering");
    }
    fn abort(&mut self) {
        self.ended.get_or_insert("abort");
    }
}

/// What came of a request stream.
#[derive(Debug, PartialEq)]
struct Outcome {
    answer: Vec<u8>,
    ended: Option<&'static str>,
    counters: HttpCounters,
}

/// Offers `stream` in pieces, `room` bytes of send buffer at a time, as the engine does; then the peer's FIN.
fn serve(stream: &[u8], mut piece: impl FnMut() -> usize, room: usize) -> Outcome {
    let body = vec![b'x'; 300];
    let mut http = Http::new(HttpConfig {
        body,
        connections: 2,
        partial_heads: 1,
        body_max: 100,
        ..HttpConfig::default()
    });
    let mut cx = Cx { user: 0, out: Vec::new(), room, ended: None };
    http.opened(&mut cx);
    let (mut unread, mut arrived) = (Vec::new(), 0);
    while arrived < stream.len() && cx.ended.is_none() {
        let n = piece().clamp(1, stream.len() - arrived);
        unread.extend(&stream[arrived..arrived + n]);
        arrived += n;
        drive(&mut http, &mut cx, &mut unread, room);
    }
    if cx.ended.is_none() {
        http.peer_closed(&mut cx);
        drive(&mut http, &mut cx, &mut unread, room);
    }
    assert!(cx.ended.is_some(), "the peer has closed, and the service goes on");
    http.closed(&cx.tuple(), cx.user, &record());
    assert_eq!(http.in_use(), (0, 0), "a slot or a buffer is left");
    Outcome { answer: cx.out, ended: cx.ended, counters: http.counters() }
}

/// Calls the service until nothing moves.
fn drive(http: &mut Http, cx: &mut Cx, unread: &mut Vec<u8>, room: usize) {
    for turn in 0.. {
        assert!(turn < 10_000, "the service goes on for ever");
        let (before, sent) = (unread.len(), cx.out.len());
        if cx.ended.is_none() && !unread.is_empty() {
            let used = http.data(cx, unread);
            assert!(used <= unread.len(), "it consumed more than there is");
            unread.drain(..used);
        }
        cx.room = room;
        if cx.ended.is_none() {
            http.writable(cx);
        }
        cx.room = room;
        if (unread.len(), cx.out.len()) == (before, sent) || cx.ended.is_some() {
            return;
        }
    }
}

fn record() -> finwheel::tcp::record::CloseRecord {
    use finwheel::tcp::record::{Cause, ClosePath, CloseRecord, ClosingTimes, First};
    let end = |n| Endpoint::new(Addr::v4([10, 0, 0, n]), 80);
    CloseRecord {
        tuple: Tuple { local: end(1), remote: end(2) },
        listener: None,
        opened_at: Time::ZERO,
        closed_at: Time::ZERO,
        path: ClosePath::Passive,
        first: First::Peer,
        cause: Cause::Peer,
        fin_retransmissions: 0,
        times: ClosingTimes::default(),
        unacknowledged: 0,
        bytes_in: 0,
        bytes_out: 0,
        time_wait: false,
    }
}

/// The same bytes whole, and in pieces with a small send buffer: the same answer.
pub fn pieces(bytes: &[u8]) {
    let mut r = Reader(bytes);
    let room = 1 + usize::from(r.u8());
    let cuts: Vec<usize> = (0..8).map(|_| usize::from(r.u8())).collect();
    let mut stream = Vec::new();
    while !r.0.is_empty() && stream.len() < 20_000 {
        match r.u8() {
            n if usize::from(n) < PARTS.len() => stream.extend(PARTS[usize::from(n)]),
            0xff => stream.extend(std::iter::repeat_n(b'h', usize::from(r.u8()) * 64)),
            0xfe => stream.push(r.u8()),
            n => stream.push(n),
        }
    }
    let whole = serve(&stream, || usize::MAX, 1 << 20);
    let mut next = cuts.iter().copied().cycle();
    let split = serve(&stream, || next.next().unwrap_or(1), room);
    assert_eq!(split, whole, "pieces of {cuts:?}, a send buffer of {room}");
}
