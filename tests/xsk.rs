//! The real port on real interfaces: `AF_XDP` sockets on a veth between two throwaway namespaces, kernel sockets as
//! the peers. Needs root; says so and skips without.

use finwheel::port::xsk::{
    AttachMode, Claim, CopyMode, Counter, Mode, OpenConfig, Opened, Queues, SetupError, XskPort, ZeroCopy,
    open,
};
use finwheel::port::{Checksums, Frame, Port};
use finwheel::rig::{Rig, RigConfig, SERVER_INTERFACE};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// A rig, or the end of the test with the reason on stdout.
macro_rules! rig_or_skip {
    ($config:expr) => {
        match Rig::new($config) {
            Ok(rig) => rig,
            Err(e) if e.is_privilege() => {
                println!("skipped: {e}");
                return;
            }
            Err(e) => panic!("{e}"),
        }
    };
}

/// The claimed port.
const PORT: u16 = 8080;

fn server(rig: &Rig, port: u16) -> SocketAddr {
    (rig.server_v4().unwrap(), port).into()
}

fn server_v6(rig: &Rig, port: u16) -> SocketAddr {
    (rig.server_v6().unwrap(), port).into()
}

fn config(rig: &Rig) -> OpenConfig {
    OpenConfig {
        claims: vec![Claim::listen(server(rig, PORT)), Claim::listen(server_v6(rig, PORT))],
        ..OpenConfig::new(SERVER_INTERFACE)
    }
}

fn try_open(rig: &Rig, config: &OpenConfig) -> Result<Opened, SetupError> {
    rig.server_ns().run_in(|| open(config)).unwrap()
}

fn open_or_panic(rig: &Rig, config: &OpenConfig) -> Opened {
    try_open(rig, config).unwrap_or_else(|e| panic!("{e}"))
}

/// Gives all received frames to `each` until it says that it has seen enough or `limit` passes. `each` gets the port
/// and the frame, and must end the frame.
fn pump(ports: &mut [XskPort], limit: Duration, mut each: impl FnMut(&mut XskPort, Frame) -> bool) -> bool {
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

fn assert_nothing_leaked(ports: &[XskPort]) {
    for port in ports {
        let accounting = port.accounting();
        assert!(accounting.balanced(), "{accounting:?}");
        assert_eq!(accounting.lent, 0, "{accounting:?}");
        assert_eq!(port.audit(), accounting);
    }
}

/// What the tests need of an IPv4 TCP frame.
fn tcp_ports_v4(bytes: &[u8]) -> Option<(u16, u16)> {
    let ihl = usize::from(bytes.get(14)? & 0x0f) * 4;
    if bytes.get(12..14)? != [0x08, 0x00] || *bytes.get(23)? != 6 {
        return None;
    }
    let at = 14 + ihl;
    let word = |i: usize| Some(u16::from_be_bytes(bytes.get(i..i + 2)?.try_into().ok()?));
    Some((word(at)?, word(at + 2)?))
}

fn tcp_ports_v6(bytes: &[u8]) -> Option<(u16, u16)> {
    if bytes.get(12..14)? != [0x86, 0xdd] || *bytes.get(20)? != 6 {
        return None;
    }
    let word = |i: usize| Some(u16::from_be_bytes(bytes.get(i..i + 2)?.try_into().ok()?));
    Some((word(54)?, word(56)?))
}

fn sum(words: impl Iterator<Item = u16>) -> u16 {
    let mut total: u32 = words.map(u32::from).sum();
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u16> + '_ {
    bytes.chunks(2).map(|c| u16::from_be_bytes([c[0], c.get(1).copied().unwrap_or(0)]))
}

/// Folded sum of the IPv4 pseudo-header of a frame whose TCP part starts at byte 34.
fn pseudo_v4(frame: &[u8], tcp_len: usize) -> u16 {
    sum(words(&frame[26..34]).chain([6, tcp_len as u16]))
}

/// Rewrites a SYN (IPv4, no options) in its frame into the RST-ACK that answers it.
fn syn_to_rst(buffer: &mut [u8]) -> usize {
    let (dst, src): ([u8; 6], [u8; 6]) = (buffer[..6].try_into().unwrap(), buffer[6..12].try_into().unwrap());
    buffer[..6].copy_from_slice(&src);
    buffer[6..12].copy_from_slice(&dst);
    for i in 0..4 {
        buffer.swap(26 + i, 30 + i);
    }
    buffer[16..18].copy_from_slice(&40u16.to_be_bytes());
    buffer[24..26].fill(0);
    let ip = !sum(words(&buffer[14..34]));
    buffer[24..26].copy_from_slice(&ip.to_be_bytes());
    buffer.swap(34, 36);
    buffer.swap(35, 37);
    let seq = u32::from_be_bytes(buffer[38..42].try_into().unwrap());
    buffer[38..42].fill(0);
    buffer[42..46].copy_from_slice(&seq.wrapping_add(1).to_be_bytes());
    buffer[46] = 5 << 4;
    buffer[47] = 0x14;
    buffer[48..54].fill(0);
    let pseudo = pseudo_v4(buffer, 20);
    let tcp = !sum(words(&buffer[34..54]).chain([pseudo]));
    buffer[50..52].copy_from_slice(&tcp.to_be_bytes());
    54
}

/// A TCP connect from the client's namespace; the thread ends when it is answered or the time is over.
fn connect(rig: &Rig, to: SocketAddr, timeout: Duration) -> std::io::Result<TcpStream> {
    rig.client_ns().run_in(|| TcpStream::connect_timeout(&to, timeout)).unwrap()
}

/// Whether the server's kernel serves `port`: a whole connection with bytes both ways.
fn kernel_serves(rig: &Rig, port: u16) {
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

fn ping(rig: &Rig, to: &str) -> bool {
    rig.client_command("ping")
        .args(["-c", "1", "-W", "2", to])
        .stdout(Stdio::null())
        .status()
        .unwrap()
        .success()
}

#[test]
fn claimed_syns_arrive_and_everything_else_stays_with_the_kernel() {
    let rig = rig_or_skip!(RigConfig::default());
    let mut opened = open_or_panic(&rig, &config(&rig));
    assert_eq!(opened.report.attach, AttachMode::Native);
    assert_eq!(opened.report.queues, [(0, CopyMode::Copy)]);
    assert_eq!(opened.report.driver, "veth");
    assert_eq!(opened.report.checksums, Checksums::AcceptUnfinished);
    assert_eq!(opened.report.mtu, 1500);

    std::thread::scope(|s| {
        // Nobody answers, so the connects time out; the SYNs are what is wanted.
        for at in [server(&rig, PORT), server_v6(&rig, PORT)] {
            let rig = &rig;
            s.spawn(move || connect(rig, at, Duration::from_millis(1500)).unwrap_err());
        }
        let (mut v4, mut v6) = (false, false);
        let both = pump(&mut opened.ports, Duration::from_secs(3), |port, frame| {
            let bytes = port.bytes(&frame);
            v4 |= tcp_ports_v4(bytes).is_some_and(|(_, dst)| dst == PORT);
            v6 |= tcp_ports_v6(bytes).is_some_and(|(_, dst)| dst == PORT);
            assert!(
                tcp_ports_v4(bytes).or(tcp_ports_v6(bytes)).is_some_and(|(_, dst)| dst == PORT),
                "not claimed: {bytes:x?}"
            );
            port.free(frame);
            v4 && v6
        });
        assert!(both, "IPv4 {v4}, IPv6 {v6}");
    });

    kernel_serves(&rig, PORT + 1);
    assert!(ping(&rig, "10.77.0.1") && ping(&rig, "fd77::1"));
    // None of that came here.
    let mut stray = 0;
    pump(&mut opened.ports, Duration::from_millis(50), |port, frame| {
        let ours = tcp_ports_v4(port.bytes(&frame)).or(tcp_ports_v6(port.bytes(&frame)));
        stray += u32::from(ours.is_none_or(|(_, dst)| dst != PORT));
        port.free(frame);
        false
    });
    assert_eq!(stray, 0);
    let counters = opened.steering.counters().unwrap();
    assert!(counters.get(Counter::Redirected) >= 2 && counters.get(Counter::Passed) > 8, "{counters:?}");
    assert_nothing_leaked(&opened.ports);
}

#[test]
fn a_syn_rewritten_in_its_frame_into_a_rst_refuses_the_connection() {
    let rig = rig_or_skip!(RigConfig::default());
    for mode in [Mode::Native, Mode::Generic] {
        let mut opened = open_or_panic(&rig, &OpenConfig { mode, ..config(&rig) });
        assert_eq!(opened.report.attach == AttachMode::Native, mode == Mode::Native);
        let refused = std::thread::scope(|s| {
            let client = s.spawn(|| connect(&rig, server(&rig, PORT), Duration::from_secs(3)));
            pump(&mut opened.ports, Duration::from_secs(3), |port, mut frame| {
                let len = syn_to_rst(port.buffer(&mut frame));
                port.set_len(&mut frame, len);
                assert!(port.send(frame));
                true
            });
            client.join().unwrap().unwrap_err()
        });
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{mode:?}");
        assert_nothing_leaked(&opened.ports);
        assert_eq!(opened.ports[0].stats().tx_frames, 1);
    }
}

#[test]
fn a_veth_peer_leaves_the_checksum_unfinished_and_the_frame_complete() {
    let rig = rig_or_skip!(RigConfig::default());
    let mut opened = open_or_panic(&rig, &config(&rig));
    let mut seen = |finished: bool| {
        std::thread::scope(|s| {
            s.spawn(|| connect(&rig, server(&rig, PORT), Duration::from_millis(300)).unwrap_err());
            let arrived = pump(&mut opened.ports, Duration::from_secs(3), |port, frame| {
                let bytes = port.bytes(&frame);
                let len = usize::from(u16::from_be_bytes([bytes[16], bytes[17]])) - 20;
                let pseudo = pseudo_v4(bytes, len);
                let field = u16::from_be_bytes([bytes[50], bytes[51]]);
                let whole = sum(words(&bytes[34..34 + len]).chain([pseudo])) == 0xffff;
                assert_eq!(whole, finished, "checksum field {field:#x}, pseudo-header {pseudo:#x}");
                assert_eq!(field == pseudo, !finished);
                port.free(frame);
                true
            });
            assert!(arrived);
        });
    };
    seen(false);
    let off = rig
        .client_command("ethtool")
        .args(["-K", finwheel::rig::CLIENT_INTERFACE, "tx", "off"])
        .stdout(Stdio::null())
        .status();
    assert!(off.unwrap().success());
    // What is left of the first connect is drained before the second look.
    pump(&mut opened.ports, Duration::from_millis(500), |port, frame| {
        port.free(frame);
        false
    });
    let mut opened = opened;
    std::thread::scope(|s| {
        s.spawn(|| connect(&rig, server(&rig, PORT), Duration::from_millis(300)).unwrap_err());
        let arrived = pump(&mut opened.ports, Duration::from_secs(3), |port, frame| {
            let bytes = port.bytes(&frame);
            let len = usize::from(u16::from_be_bytes([bytes[16], bytes[17]])) - 20;
            let pseudo = pseudo_v4(bytes, len);
            assert_eq!(sum(words(&bytes[34..34 + len]).chain([pseudo])), 0xffff);
            port.free(frame);
            true
        });
        assert!(arrived);
    });
    assert_nothing_leaked(&opened.ports);
}

/// A frame of TCP from the client to the claimed port, which no kernel has a connection for.
fn bare_tcp(rig: &Rig, src_port: u16) -> Vec<u8> {
    let mut f = vec![0; 54];
    f[12..14].copy_from_slice(&[0x08, 0x00]);
    f[14] = 0x45;
    f[16..18].copy_from_slice(&40u16.to_be_bytes());
    f[22] = 64;
    f[23] = 6;
    f[26..30].copy_from_slice(&rig.client_v4().unwrap().octets());
    f[30..34].copy_from_slice(&rig.server_v4().unwrap().octets());
    let ip = !sum(words(&f[14..34]));
    f[24..26].copy_from_slice(&ip.to_be_bytes());
    f[34..36].copy_from_slice(&src_port.to_be_bytes());
    f[36..38].copy_from_slice(&PORT.to_be_bytes());
    f[46] = 5 << 4;
    f[47] = 0x10;
    f
}

/// Opens the client's end as a port too: a sender of any frame.
fn open_client(rig: &Rig) -> Opened {
    let config = OpenConfig {
        claims: vec![Claim::LocalPorts {
            addr: std::net::IpAddr::from(rig.client_v4().unwrap()).into(),
            lo: 1024,
            hi: 65535,
        }],
        ..OpenConfig::new(finwheel::rig::CLIENT_INTERFACE)
    };
    rig.client_ns().run_in(|| open(&config)).unwrap().unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn ten_thousand_frames_there_and_back_and_none_is_lost_track_of() {
    const FRAMES: u64 = 20_000;
    let rig = rig_or_skip!(RigConfig::default());
    let mut server = open_or_panic(&rig, &config(&rig));
    let mut client = open_client(&rig);
    let (server_mac, client_mac) = (server.report.mac, client.report.mac);
    let mut template = bare_tcp(&rig, 2000);
    template[..6].copy_from_slice(&server_mac.0);
    template[6..12].copy_from_slice(&client_mac.0);

    let started = Instant::now();
    let (mut sent, mut back, mut served) = (0, 0, 0);
    let mut burst = Vec::with_capacity(64);
    let (c, s) = (&mut client.ports[0], &mut server.ports[0]);
    while back < FRAMES && started.elapsed() < Duration::from_secs(20) {
        // A window of half a ring, so that nothing has to be dropped anywhere.
        while sent < FRAMES && sent - back < 512 && c.tx_room() > 0 {
            let mut frame = c.alloc().unwrap();
            c.buffer(&mut frame)[..54].copy_from_slice(&template);
            c.buffer(&mut frame)[38..42].copy_from_slice(&(sent as u32).to_be_bytes());
            c.set_len(&mut frame, 54);
            assert!(c.send(frame));
            sent += 1;
        }
        c.flush().unwrap();
        s.rx(&mut burst);
        for mut frame in burst.drain(..) {
            let b = s.buffer(&mut frame);
            for i in 0..6 {
                b.swap(i, i + 6);
            }
            for i in 0..4 {
                b.swap(26 + i, 30 + i);
            }
            b.swap(34, 36);
            b.swap(35, 37);
            assert!(s.send(frame));
            served += 1;
        }
        s.flush().unwrap();
        c.rx(&mut burst);
        for frame in burst.drain(..) {
            let bytes = c.bytes(&frame);
            assert_eq!(bytes.len(), 54);
            assert_eq!(bytes[38..42], (back as u32).to_be_bytes(), "in order");
            c.free(frame);
            back += 1;
        }
    }
    let rate = (4 * back) as f64 / started.elapsed().as_secs_f64();
    println!("{back} round trips on one thread, {rate:.0} frames/s through sockets");
    assert_eq!((sent, served, back), (FRAMES, FRAMES, FRAMES));
    assert_nothing_leaked(&server.ports);
    assert_nothing_leaked(&client.ports);
    let stats = server.ports[0].stats();
    assert_eq!((stats.rx_frames, stats.tx_frames), (FRAMES, FRAMES));
    assert_eq!((stats.rx_bytes, stats.tx_bytes), (54 * FRAMES, 54 * FRAMES));
    assert_eq!(stats.xsk_rx_dropped + stats.xsk_rx_ring_full + stats.xsk_fill_ring_empty, 0);
    assert_eq!((stats.xsk_invalid_descs, stats.tx_ring_full), (0, 0));
    assert!(stats.tx_wakeups > 0);
    // Everything comes home when the link is quiet: what is in transmission was sent.
    server.ports[0].flush().unwrap();
    client.ports[0].flush().unwrap();
    assert_eq!(server.ports[0].accounting().in_tx, 0);
    assert_eq!(client.ports[0].accounting().in_tx, 0);
}

#[test]
fn a_full_transmit_ring_refuses_and_keeps_its_books() {
    let rig = rig_or_skip!(RigConfig::default());
    let mut opened = open_or_panic(&rig, &config(&rig));
    let port = &mut opened.ports[0];
    let ring = 2048;
    let mut accepted = 0;
    for _ in 0..ring + 100 {
        let Some(mut frame) = port.alloc() else { break };
        port.buffer(&mut frame)[..60].fill(0xff);
        port.set_len(&mut frame, 60);
        accepted += u32::from(port.send(frame));
    }
    assert_eq!(accepted, ring);
    assert_eq!(port.tx_room(), 0);
    assert_eq!(port.stats().tx_ring_full, 100);
    assert_eq!(port.accounting().in_tx, u64::from(ring));
    assert_nothing_leaked(&opened.ports);
    let port = &mut opened.ports[0];
    let end = Instant::now() + Duration::from_secs(5);
    while port.accounting().in_tx > 0 && Instant::now() < end {
        port.flush().unwrap();
        port.wait(Duration::from_millis(1)).unwrap();
    }
    assert_eq!(port.accounting().in_tx, 0);
    assert_eq!(port.tx_room(), ring as usize);
    assert_eq!(port.stats().tx_frames, u64::from(ring));
    assert_nothing_leaked(&opened.ports);
}

#[test]
fn every_queue_is_bound_and_frames_arrive_on_several() {
    let rig = rig_or_skip!(RigConfig::with_queues(4));
    let mut opened = open_or_panic(&rig, &config(&rig));
    let queues: Vec<_> = opened.report.queues.iter().map(|(q, _)| *q).collect();
    assert_eq!(queues, [0, 1, 2, 3]);
    // The client's kernel picks a queue by flow hash; 64 flows all on one of 4 is a chance of 4^-63.
    let senders = rig.client_ns().run_in(|| {
        let to = server(&rig, PORT);
        (0..64).filter_map(|_| TcpStream::connect_timeout(&to, Duration::from_millis(2)).err()).count()
    });
    assert_eq!(senders.unwrap(), 64);
    let mut per_queue = [0u32; 4];
    pump(&mut opened.ports, Duration::from_millis(300), |port, frame| {
        per_queue[port.queue() as usize] += 1;
        port.free(frame);
        false
    });
    assert!(per_queue.iter().filter(|&&n| n > 0).count() > 1, "{per_queue:?}");
    assert!(per_queue.iter().sum::<u32>() >= 64, "{per_queue:?}");
    assert_nothing_leaked(&opened.ports);
}

#[test]
fn rebinding_right_after_a_close_works() {
    let rig = rig_or_skip!(RigConfig::with_queues(2));
    for round in 0..5 {
        let mut opened = open_or_panic(&rig, &config(&rig));
        assert_eq!(opened.ports.len(), 2, "round {round}");
        for port in &mut opened.ports {
            port.flush().unwrap();
        }
        assert_nothing_leaked(&opened.ports);
    }
}

#[test]
fn an_interface_that_is_in_use_is_refused_by_name() {
    let rig = rig_or_skip!(RigConfig::default());
    let _first = open_or_panic(&rig, &config(&rig));
    let e = try_open(&rig, &config(&rig)).unwrap_err();
    assert!(matches!(e, SetupError::Held { .. }), "{e}");
    assert!(e.to_string().contains(SERVER_INTERFACE), "{e}");
}

#[test]
fn what_the_interface_cannot_do_is_refused_with_the_way_out() {
    let rig = rig_or_skip!(RigConfig { mtu: 3000, ..RigConfig::default() });
    let e = try_open(&rig, &config(&rig)).unwrap_err().to_string();
    for part in [SERVER_INTERFACE, "3000", "1770", "ip link set dev"] {
        assert!(e.contains(part), "{part} in: {e}");
    }
    let e = try_open(&rig, &OpenConfig::new("fw-none")).unwrap_err();
    assert!(matches!(e, SetupError::NoInterface { .. }), "{e}");

    let rig = rig_or_skip!(RigConfig::default());
    let zero_copy = OpenConfig { zero_copy: ZeroCopy::Require, ..config(&rig) };
    let e = try_open(&rig, &zero_copy).unwrap_err();
    assert!(matches!(e, SetupError::NoZeroCopy { queue: 0, .. }), "{e}");
    let list = OpenConfig { queues: Queues::List(vec![1]), ..config(&rig) };
    let e = try_open(&rig, &list).unwrap_err();
    assert!(matches!(e, SetupError::NoQueue { queue: 1, queues: 1, .. }), "{e}");
    // After all these refusals the interface is as it was.
    assert!(open_or_panic(&rig, &config(&rig)).steering.mode().is_some());
}

#[test]
fn detaching_gives_the_traffic_back_to_the_kernel() {
    let rig = rig_or_skip!(RigConfig::default());
    let opened = open_or_panic(&rig, &config(&rig));
    // Claimed: the kernel's listener hears nothing.
    let at = server(&rig, PORT);
    let listener = rig.server_ns().run_in(|| TcpListener::bind(at)).unwrap().unwrap();
    let e = connect(&rig, at, Duration::from_millis(300)).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::TimedOut);
    drop(listener);
    drop(opened);
    kernel_serves(&rig, PORT);
}

#[test]
fn unclaiming_gives_one_port_back() {
    let rig = rig_or_skip!(RigConfig::default());
    let mut opened = open_or_panic(&rig, &config(&rig));
    opened.steering.unclaim(Claim::listen(server(&rig, PORT))).unwrap();
    kernel_serves(&rig, PORT);
    opened.steering.claim(Claim::listen(server(&rig, PORT))).unwrap();
    let e = connect(&rig, server(&rig, PORT), Duration::from_millis(300)).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::TimedOut);
}

#[test]
fn without_sockets_peers_wait_for_the_lease_and_are_reset_only_after_it() {
    let rig = rig_or_skip!(RigConfig::default());
    let mut opened = open_or_panic(&rig, &OpenConfig { lease: Duration::from_secs(2), ..config(&rig) });
    // What a crash leaves: the program attached, the sockets gone.
    opened.ports.clear();
    opened.steering.heartbeat().unwrap();
    let e = connect(&rig, server(&rig, PORT), Duration::from_millis(700)).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::TimedOut, "dropped within the lease");
    assert!(opened.steering.counters().unwrap().get(Counter::DroppedNoSocket) > 0);
    std::thread::sleep(Duration::from_millis(1500));
    let e = connect(&rig, server(&rig, PORT), Duration::from_millis(700)).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::ConnectionRefused, "the kernel answers after it");
    assert!(opened.steering.counters().unwrap().get(Counter::LeaseOver) > 0);
}

#[test]
fn a_program_left_behind_is_replaced_whatever_its_mode() {
    let rig = rig_or_skip!(RigConfig::default());
    for (left, next) in
        [(Mode::Native, Mode::Native), (Mode::Generic, Mode::Auto), (Mode::Native, Mode::Generic)]
    {
        let with = |mode| OpenConfig { mode, ..config(&rig) };
        let opened = open_or_panic(&rig, &with(left));
        opened.steering.leave_attached();
        drop(opened.ports);
        let e = connect(&rig, server(&rig, PORT), Duration::from_millis(200)).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::TimedOut, "still held by the program left behind");
        let mut opened = open_or_panic(&rig, &with(next));
        let want = match next {
            Mode::Auto | Mode::Native => AttachMode::Native,
            Mode::Generic => AttachMode::Generic,
        };
        assert_eq!(opened.report.attach, want, "{left:?} then {next:?}");
        opened.steering.detach().unwrap();
        opened.steering.detach().unwrap();
    }
    kernel_serves(&rig, PORT);
}

#[test]
fn an_interface_that_disappears_is_a_fatal_error() {
    let rig = rig_or_skip!(RigConfig::default());
    let mut opened = open_or_panic(&rig, &config(&rig));
    let gone = rig.client_command("ip").args(["link", "del", finwheel::rig::CLIENT_INTERFACE]).status();
    assert!(gone.unwrap().success());
    let port = &mut opened.ports[0];
    let end = Instant::now() + Duration::from_secs(5);
    let slept = loop {
        match port.wait(Duration::from_millis(100)) {
            Ok(()) if Instant::now() < end => {}
            other => break other,
        }
    };
    assert!(slept.is_err(), "wait");
    let mut frame = port.alloc().unwrap();
    port.set_len(&mut frame, 60);
    assert!(port.send(frame));
    let code = port.flush().unwrap_err().raw_os_error();
    assert!(matches!(code, Some(libc::ENXIO | libc::ENETDOWN)), "{code:?}");
    assert!(port.accounting().balanced());
}

#[test]
fn a_waker_ends_the_sleep_from_another_thread_and_is_not_lost_before_it() {
    let rig = rig_or_skip!(RigConfig::default());
    let mut opened = open_or_panic(&rig, &config(&rig));
    let port = &mut opened.ports[0];
    let waker = port.waker();
    let slept = |port: &mut XskPort, limit| {
        let started = Instant::now();
        port.wait(limit).unwrap();
        started.elapsed()
    };
    waker.wake();
    waker.wake();
    assert!(slept(port, Duration::from_secs(5)) < Duration::from_secs(1), "a wake before the sleep");
    assert!(slept(port, Duration::from_millis(60)) >= Duration::from_millis(50), "wakes count as one");
    std::thread::scope(|s| {
        s.spawn(|| {
            std::thread::sleep(Duration::from_millis(50));
            waker.wake();
        });
        assert!(slept(port, Duration::from_secs(5)) < Duration::from_secs(2), "a wake during the sleep");
    });
}

#[test]
fn a_port_works_from_a_thread_of_another_namespace() {
    fn assert_send<T: Send>(_: &T) {}
    let rig = rig_or_skip!(RigConfig::default());
    let opened = open_or_panic(&rig, &config(&rig));
    assert_send(&opened);
    let Opened { mut ports, steering, .. } = opened;
    std::thread::scope(|s| {
        s.spawn(|| connect(&rig, server(&rig, PORT), Duration::from_millis(300)).unwrap_err());
        s.spawn(move || {
            assert!(pump(&mut ports, Duration::from_secs(2), |port, frame| {
                port.free(frame);
                true
            }));
        });
    });
    // And the program is detached from the right interface, though this thread is in another namespace.
    drop(steering);
    kernel_serves(&rig, PORT);
}

#[test]
fn loss_is_about_what_was_asked_for_and_can_be_ended() {
    let rig = rig_or_skip!(RigConfig::default());
    let at = server(&rig, 5000);
    let receiver = rig.server_ns().run_in(|| UdpSocket::bind(at)).unwrap().unwrap();
    receiver.set_nonblocking(true).unwrap();
    let sender = rig.client_ns().run_in(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))).unwrap().unwrap();
    // Resolves the neighbour before anything is lost.
    assert!(ping(&rig, "10.77.0.1"));
    let through = || {
        let mut n = 0;
        for _ in 0..10 {
            for _ in 0..100 {
                // EPERM is how a datagram dropped on the way out is told.
                if let Err(e) = sender.send_to(b"x", at) {
                    assert!(matches!(e.kind(), ErrorKind::PermissionDenied | ErrorKind::WouldBlock), "{e}");
                }
            }
            std::thread::sleep(Duration::from_millis(5));
            while receiver.recv(&mut [0; 8]).is_ok() {
                n += 1;
            }
        }
        n
    };
    assert_eq!(through(), 1000);
    rig.loss(20.0).unwrap();
    let n = through();
    // Binomial with a standard deviation of 12.6: eight of them either way.
    assert!((700..900).contains(&n), "{n} of 1000 with 20 % loss");
    rig.loss(0.0).unwrap();
    assert_eq!(through(), 1000);
}

#[test]
fn a_rig_leaves_nothing_behind() {
    let rig = rig_or_skip!(RigConfig::default());
    let names = [rig.server_ns().name().to_owned(), rig.client_ns().name().to_owned()];
    let path = |n: &String| std::path::Path::new("/run/netns").join(n);
    assert!(names.iter().all(|n| path(n).exists()));
    let cleaner = rig.cleaner();
    cleaner.clean();
    assert!(!names.iter().any(|n| path(n).exists()));
    cleaner.clean();
    drop(rig);
}
