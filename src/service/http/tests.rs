use super::*;
use crate::service::testing::{Ended, FakeConn};
use crate::tcp::record::{Cause, ClosePath};
use proptest::prelude::*;

fn server(body: &[u8]) -> Http {
    Http::new(HttpConfig {
        body: body.to_vec(),
        content_type: "text/x".to_owned(),
        connections: 8,
        partial_heads: 2,
        body_max: 1000,
    })
}

/// Sends `stream` whole, reads everything; how the service ended it, and what it said.
fn talk(stream: &[u8]) -> (String, Ended) {
    let mut http = server(b"BODY");
    let mut conn = FakeConn::open(&mut http, 1 << 16);
    conn.deliver(&mut http, stream);
    let said = String::from_utf8(conn.take(&mut http, usize::MAX)).unwrap();
    let ended = conn.cx.ended;
    conn.over(&mut http, ClosePath::Passive, Cause::Peer);
    assert_eq!(http.in_use(), (0, 0));
    (said, ended)
}

fn statuses(said: &str) -> Vec<&str> {
    said.split("HTTP/1.1 ").skip(1).map(|r| &r[..3]).collect()
}

#[test]
fn a_get_gets_the_body_and_the_connection_stays() {
    let (said, ended) = talk(b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n");
    let want = "HTTP/1.1 200 OK\r\nServer: finwheel\r\nContent-Type: text/x\r\nContent-Length: 4\r\n\r\nBODY";
    assert_eq!((said.as_str(), ended), (want, Ended::Open));
}

#[test]
fn head_has_the_length_but_no_body() {
    let (said, ended) = talk(b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(said.contains("Content-Length: 4\r\n") && said.ends_with("\r\n\r\n"), "{said}");
    assert_eq!(ended, Ended::Open);
}

#[test]
fn persistence_follows_version_and_connection_field() {
    for (request, field, ended) in [
        ("GET / HTTP/1.0\r\n\r\n", "Connection: close", Ended::Lingering),
        ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", "Connection: keep-alive", Ended::Open),
        ("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", "Connection: close", Ended::Lingering),
        ("GET / HTTP/1.1\r\nHost: h\r\nConnection: x, CLOSE\r\n\r\n", "Connection: close", Ended::Lingering),
        ("GET / HTTP/1.1\r\nHost: h\r\nConnection: keep-alive\r\n\r\n", "", Ended::Open),
    ] {
        let (said, how) = talk(request.as_bytes());
        assert_eq!(how, ended, "{request}");
        if field.is_empty() {
            assert!(!said.contains("Connection"), "{said}");
        } else {
            assert!(said.contains(field), "{said}");
        }
        assert_eq!(statuses(&said), ["200"]);
    }
}

#[test]
fn requests_after_a_close_are_not_answered() {
    let (said, ended) = talk(
        b"GET / HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    );
    assert_eq!((statuses(&said), ended), (vec!["200", "200"], Ended::Lingering));
}

#[test]
fn bodies_are_skipped_in_both_codings() {
    let (said, ended) = talk(
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello\
          POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n\
          PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nxx\
          BREW / HTTP/1.1\r\nHost: h\r\n\r\n\
          GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    );
    assert_eq!((statuses(&said), ended), (vec!["200", "200", "405", "501", "200"], Ended::Open));
    assert!(said.contains("Allow: GET, HEAD, POST"));
}

#[test]
fn what_cannot_be_followed_is_refused_with_a_lingering_close() {
    let long = format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}", "y".repeat(HEAD_MAX));
    let many = format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "a: b\r\n".repeat(80));
    for (request, status) in [
        ("\0\0\0\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: a\r\nbad header\r\n\r\n", "400"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "400"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", "400"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n", "400"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", "400"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "400"),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", "400"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "400"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "501"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n", "413"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n", "413"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: tea\r\n\r\n", "417"),
        (&long, "431"),
        (&many, "431"),
        ("GET / HTTP/2.0\r\n\r\n", "505"),
    ] {
        let (said, ended) = talk(request.as_bytes());
        let shown = &request[..request.len().min(90)];
        assert_eq!((statuses(&said), ended), (vec![status], Ended::Lingering), "{shown}");
        assert!(said.contains("Connection: close"), "{said}");
    }
}

#[test]
fn a_head_gathered_beyond_its_bound_is_refused() {
    let mut http = server(b"");
    let mut conn = FakeConn::open(&mut http, 1 << 16);
    conn.deliver(&mut http, b"GET / HTTP/1.1\r\n");
    for _ in 0..HEAD_MAX / 8 {
        conn.deliver(&mut http, b"a: bcd\r\n");
        if conn.cx.ended != Ended::Open {
            break;
        }
    }
    let mut slow = FakeConn::open(&mut http, 1 << 16);
    for _ in 0..HEAD_MAX {
        slow.deliver(&mut http, b"G");
    }
    for conn in [conn, slow] {
        assert_eq!(conn.cx.ended, Ended::Lingering);
        assert!(conn.cx.out.starts_with(b"HTTP/1.1 431"));
    }
    assert_eq!(http.in_use(), (0, 0));
}

#[test]
fn expect_continue_is_answered_before_the_body_and_only_once() {
    let mut http = server(b"BODY");
    let mut conn = FakeConn::open(&mut http, 10);
    conn.deliver(
        &mut http,
        b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-Continue\r\nContent-Length: 3\r\n\r\n",
    );
    let mut said = Vec::new();
    for _ in 0..5 {
        said.extend(conn.take(&mut http, 10));
    }
    assert_eq!(said, CONTINUE);
    conn.deliver(&mut http, b"abc");
    for _ in 0..20 {
        said.extend(conn.take(&mut http, 10));
    }
    assert_eq!(statuses(&String::from_utf8(said).unwrap()), ["100", "200"]);
    let (said, _) = talk(b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(statuses(&said), ["200"], "no body, nothing to wait for");
}

#[test]
fn a_large_response_goes_on_as_space_is_freed_even_after_the_peers_fin() {
    let body: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
    let mut http = server(&body);
    let mut conn = FakeConn::open(&mut http, 5000);
    conn.deliver(&mut http, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    conn.deliver_fin(&mut http);
    let mut said = Vec::new();
    while !conn.sent_fin() {
        let part = conn.take(&mut http, 1460);
        assert!(!part.is_empty(), "it must not stall");
        said.extend(part);
    }
    assert!(said.ends_with(&body));
    assert_eq!(conn.cx.ended, Ended::Close);
    assert_eq!(http.in_use(), (0, 0));
}

#[test]
fn a_pipelining_client_that_does_not_read_is_held_back() {
    let mut http = server(&[1; 900]);
    let mut conn = FakeConn::open(&mut http, 1000);
    let request = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    for _ in 0..10 {
        conn.deliver(&mut http, request);
    }
    assert!(conn.unread() >= 8 * request.len());
    let mut got = 0;
    for _ in 0..100 {
        got += conn.take(&mut http, 300).len();
    }
    assert_eq!((conn.unread(), http.counters().replies, got % 10), (0, 10, 0));
    assert_eq!(http.in_use(), (0, 0));
}

#[test]
fn without_a_buffer_503_and_without_a_slot_an_abort() {
    let mut http = server(&[0; 5000]);
    let mut held: Vec<FakeConn> = (0..2).map(|_| FakeConn::open(&mut http, 100)).collect();
    for conn in &mut held {
        conn.deliver(&mut http, b"GET /");
    }
    assert_eq!(http.in_use(), (2, 2));
    let mut third = FakeConn::open(&mut http, 1000);
    third.deliver(&mut http, b"GET /");
    assert!(third.cx.out.starts_with(b"HTTP/1.1 503"));
    assert_eq!((third.cx.ended, http.counters().no_buffer), (Ended::Lingering, 1));
    // A complete head needs no buffer; an unfinished reply needs a slot.
    for _ in 0..6 {
        let mut conn = FakeConn::open(&mut http, 100);
        conn.deliver(&mut http, b"GET / HTTP/1.0\r\n\r\n");
        assert_eq!(conn.cx.ended, Ended::Open);
        held.push(conn);
    }
    let mut last = FakeConn::open(&mut http, 100);
    last.deliver(&mut http, b"GET / HTTP/1.0\r\n\r\n");
    assert_eq!((last.cx.ended, http.counters().no_slot), (Ended::Abort, 1));
    for conn in held {
        conn.over(&mut http, ClosePath::Reset, Cause::PeerReset);
    }
    assert_eq!(http.in_use(), (0, 0));
}

#[test]
fn an_unfinished_request_at_the_peers_fin_is_closed_without_an_answer() {
    for part in ["", "\r\n", "GET / HT", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc"] {
        let mut http = server(b"");
        let mut conn = FakeConn::open(&mut http, 1000);
        conn.deliver(&mut http, part.as_bytes());
        conn.deliver_fin(&mut http);
        assert_eq!((conn.cx.ended, conn.cx.out.len()), (Ended::Close, 0), "{part:?}");
        assert_eq!(http.in_use(), (0, 0));
    }
}

#[test]
fn drain_finishes_the_request_at_hand_and_closes() {
    let mut http = server(b"BODY");
    let mut idle = FakeConn::open(&mut http, 1000);
    http.drain(&mut idle.cx);
    assert_eq!(idle.cx.ended, Ended::Lingering);
    for cut in [5, 30, 55] {
        let request = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 12\r\n\r\nabcdefghijkl";
        let mut busy = FakeConn::open(&mut http, 1000);
        busy.deliver(&mut http, &request[..cut]);
        http.drain(&mut busy.cx);
        assert_eq!(busy.cx.ended, Ended::Open);
        busy.deliver(&mut http, &request[cut..]);
        let said = String::from_utf8(busy.take(&mut http, usize::MAX)).unwrap();
        assert!(said.contains("Connection: close") && said.ends_with("BODY"), "{said}");
        assert_eq!(busy.cx.ended, Ended::Lingering);
    }
    assert_eq!(http.in_use(), (0, 0));
}

fn request() -> impl Strategy<Value = Vec<u8>> {
    let body = prop::collection::vec(any::<u8>(), 0..300);
    let pad = "[a-z]{0,200}";
    (0usize..7, body, pad).prop_map(|(kind, body, pad)| {
        let (line, fields) = match kind {
            0 => ("GET / HTTP/1.1\r\nHost: h\r\n", String::new()),
            1 => ("HEAD / HTTP/1.1\r\nHost: h\r\n", String::new()),
            2 => ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n", String::new()),
            3 => ("POST / HTTP/1.1\r\nHost: h\r\n", format!("Content-Length: {}\r\n", body.len())),
            4 => (
                "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n",
                "Transfer-Encoding: chunked\r\n".into(),
            ),
            5 => ("DELETE / HTTP/1.1\r\nHost: h\r\n", format!("Content-Length: {}\r\n", body.len())),
            _ => ("WHAT / HTTP/1.1\r\nHost: h\r\n", String::new()),
        };
        let mut r = format!("{line}{fields}X-Pad: {pad}\r\n\r\n").into_bytes();
        match kind {
            3 | 5 => r.extend(body),
            4 => {
                for part in body.chunks(70) {
                    r.extend(format!("{:x};e\r\n", part.len()).into_bytes());
                    r.extend(part);
                    r.extend(b"\r\n");
                }
                r.extend(b"0\r\nT: t\r\n\r\n");
            }
            _ => {}
        }
        r
    })
}

/// Delivers `stream` in `parts` over a send buffer of `space`; everything that was said, and how it ended.
fn converse(stream: &[u8], parts: &[usize], space: usize) -> (Vec<u8>, Ended, (usize, usize)) {
    let mut http = server(b"some body to be sent");
    let mut conn = FakeConn::open(&mut http, space);
    let mut said = Vec::new();
    let mut rest = stream;
    let mut sizes = parts.iter().cycle();
    while !rest.is_empty() {
        let n = sizes.next().copied().unwrap_or(1).min(rest.len());
        conn.deliver(&mut http, &rest[..n]);
        rest = &rest[n..];
        said.extend(conn.take(&mut http, n));
    }
    conn.deliver_fin(&mut http);
    for _ in 0..200_000 {
        let part = conn.take(&mut http, 50);
        if part.is_empty() {
            break;
        }
        said.extend(part);
    }
    // Whether the last reply was out before the peer's FIN decides between the two: with both FINs known there is nothing
    // to linger for.
    let ended = if conn.cx.ended == Ended::Lingering { Ended::Close } else { conn.cx.ended };
    (said, ended, http.in_use())
}

proptest! {
    #[test]
    fn any_split_of_a_pipelined_stream_gives_the_same_responses(
        requests in prop::collection::vec(request(), 1..8),
        end in prop::sample::select(vec![&b""[..], b"junk\x01\r\n\r\n", b"GET / HTTP/1.0\r\n\r\nmore"]),
        parts in prop::collection::vec(1usize..120, 1..20),
        space in 1usize..400,
    ) {
        let mut stream = requests.concat();
        stream.extend_from_slice(end);
        let whole = converse(&stream, &[stream.len()], 1 << 20);
        let answers = whole.0.windows(9).filter(|w| *w == b"HTTP/1.1 ").count();
        prop_assert!(answers >= requests.len(), "{answers} answers");
        prop_assert_eq!(whole.2, (0, 0));
        let split = converse(&stream, &parts, space);
        prop_assert_eq!(&split, &whole);
        prop_assert_eq!(converse(&stream, &[1], space), whole);
    }

    #[test]
    fn arbitrary_bytes_neither_panic_nor_leak(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        parts in prop::collection::vec(1usize..50, 1..5),
    ) {
        let (_, ended, in_use) = converse(&bytes, &parts, 100);
        prop_assert!(ended != Ended::Open);
        prop_assert_eq!(in_use, (0, 0));
    }
}
