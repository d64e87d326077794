//! What the tests of the real port share: the rig, the loop, kernel peers, and the few bytes of TCP they look at.

use finwheel::port::xsk::{Claim, OpenConfig, Opened, SetupError, XskPort, open};
use finwheel::port::{Frame, Port};
use finwheel::rig::{Rig, SERVER_INTERFACE};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// The claimed port.
pub const PORT: u16 = 8080;

pub fn server(rig: &Rig, port: u16) -> SocketAddr {
    (rig.server_v4().unwrap(), port).into()
}

pub fn server_v6(rig: &Rig, port: u16) -> SocketAddr {
    (rig.server_v6().unwrap(), port).into()
}

pub fn config(rig: &Rig) -> OpenConfig {
    OpenConfig {
        claims: vec![Claim::listen(server(rig, PORT)), Claim::listen(server_v6(rig, PORT))],
        ..OpenConfig::new(SERVER_INTERFACE)
    }
}

pub fn try_open(rig: &Rig, config: &OpenConfig) -> Result<Opened, SetupError> {
    rig.server_ns().run_in(|| open(config)).unwrap()
}

pub fn open_or_panic(rig: &Rig, config: &OpenConfig) -> Opened {
    try_open(rig, config).unwrap_or_else(|e| panic!("{e}"))
}

/// Gives all received frames to `each` until it says that it has seen enough or `limit` passes. `each` gets the port
/// and the frame, and must end the frame.
pub fn pump(
    ports: &mut [XskPort],
    limit: Duration,
    mut each: impl FnMut(&mut XskPort, Frame) -> bool,
) -> bool {
    let end = Instant::now() + limit;
    let mut burst = Vec::with_capacity(64);
    let mut enough = false;
    while !enough && Instant::now() < end {
        let several = ports.len() > 1;
        for port in ports.iter_mut() {
            port.rx(&mut burst);
            for frame in burst.drain(..) {
                enough |= each(port, frame);
            }
            port.flush().unwrap();
            let sleep = Duration::from_millis(if several { 1 } else { 20 });
            if !enough {
                port.wait(sleep).unwrap();
            }
        }
    }
    enough
}

pub fn assert_nothing_leaked(ports: &[XskPort]) {
    for port in ports {
        let accounting = port.accounting();
        assert!(accounting.balanced(), "{accounting:?}");
        assert_eq!(accounting.lent, 0, "{accounting:?}");
        assert_eq!(port.audit(), accounting);
    }
}

pub fn sum(words: impl Iterator<Item = u16>) -> u16 {
    let mut total: u32 = words.map(u32::from).sum();
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

pub fn words(bytes: &[u8]) -> impl Iterator<Item = u16> + '_ {
    bytes.chunks(2).map(|c| u16::from_be_bytes([c[0], c.get(1).copied().unwrap_or(0)]))
}

/// Folded sum of the IPv4 pseudo-header of a frame whose TCP part starts at byte 34.
pub fn pseudo_v4(frame: &[u8], tcp_len: usize) -> u16 {
    sum(words(&frame[26..34]).chain([6, tcp_len as u16]))
}

/// What the tests need of an IPv4 TCP frame.
pub fn tcp_ports_v4(bytes: &[u8]) -> Option<(u16, u16)> {
    let ihl = usize::from(bytes.get(14)? & 0x0f) * 4;
    if bytes.get(12..14)? != [0x08, 0x00] || *bytes.get(23)? != 6 {
        return None;
    }
    let at = 14 + ihl;
    let word = |i: usize| Some(u16::from_be_bytes(bytes.get(i..i + 2)?.try_into().ok()?));
    Some((word(at)?, word(at + 2)?))
}

pub fn tcp_ports_v6(bytes: &[u8]) -> Option<(u16, u16)> {
    if bytes.get(12..14)? != [0x86, 0xdd] || *bytes.get(20)? != 6 {
        return None;
    }
    let word = |i: usize| Some(u16::from_be_bytes(bytes.get(i..i + 2)?.try_into().ok()?));
    Some((word(54)?, word(56)?))
}

/// A TCP connect from the client's namespace; the thread ends when it is answered or the time is over.
pub fn connect(rig: &Rig, to: SocketAddr, timeout: Duration) -> std::io::Result<TcpStream> {
    rig.client_ns().run_in(|| TcpStream::connect_timeout(&to, timeout)).unwrap()
}

/// Whether the server's kernel serves `port`: a whole connection with bytes both ways.
pub fn kernel_serves(rig: &Rig, port: u16) {
    let at = server(rig, port);
    let listener = rig.server_ns().run_in(|| TcpListener::bind(at)).unwrap().unwrap();
    std::thread::scope(|s| {
        s.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut bytes = [0; 4];
            stream.read_exact(&mut bytes).unwrap();
            stream.write_all(&bytes).unwrap();
        });
        let mut stream = connect(rig, at, Duration::from_secs(2)).unwrap();
        stream.write_all(b"ping").unwrap();
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"ping");
    });
}

pub fn ping(rig: &Rig, to: &str) -> bool {
    rig.client_command("ping")
        .args(["-c", "1", "-W", "2", to])
        .stdout(Stdio::null())
        .status()
        .unwrap()
        .success()
}
