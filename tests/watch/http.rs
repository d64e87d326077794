//! One exchange of HTTP in the server's namespace, where everything that is looked at listens on the loopback.

use crate::common::PATIENCE;
use finwheel::rig::Rig;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

/// Status and body of the answer.
pub fn exchange(rig: &Rig, at: SocketAddr, method: &str, path: &str, body: &str) -> (u16, String) {
    let connected = rig.server_ns().run_in(|| TcpStream::connect_timeout(&at, PATIENCE)).unwrap();
    let mut s = connected.unwrap_or_else(|e| panic!("{at}: {e}"));
    s.set_read_timeout(Some(PATIENCE * 2)).unwrap();
    write!(
        s,
        "{method} {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut s = BufReader::new(s);
    let mut line = String::new();
    s.read_line(&mut line).unwrap();
    let code = line.get(9..12).and_then(|c| c.parse().ok()).unwrap_or_else(|| panic!("no status: {line}"));
    let mut length = None;
    loop {
        line.clear();
        s.read_line(&mut line).unwrap();
        let head = line.trim_end().to_ascii_lowercase();
        if head.is_empty() {
            break;
        }
        length = length.or_else(|| head.strip_prefix("content-length:").and_then(|n| n.trim().parse().ok()));
        if head == "transfer-encoding: chunked" {
            length = None;
        }
    }
    let mut text = Vec::new();
    match length {
        Some(n) => s.take(n).read_to_end(&mut text).unwrap(),
        None => s.read_to_end(&mut text).unwrap(),
    };
    (code, String::from_utf8(text).unwrap())
}

/// A text as part of a query.
pub fn encoded(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { (b as char).to_string() } else { format!("%{b:02X}") })
        .collect()
}
