//! Frames through the rings: there, back, rewritten in place, and none lost track of.

use crate::support::{
    PORT, assert_nothing_leaked, config, connect, kernel_serves, open_or_panic, pseudo_v4, pump, server, sum,
    words,
};
use finwheel::port::Port;
use finwheel::port::xsk::{AttachMode, Claim, Mode, OpenConfig, Opened, RingConfig, XskPort, open};
use finwheel::rig::{CLIENT_INTERFACE, Rig, RigConfig};
use std::io::ErrorKind;
use std::net::TcpStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

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

/// Checks the checksum of the next SYN: whole, or no more than the sum of its pseudo-header.
fn next_syn_checksum(rig: &Rig, ports: &mut [XskPort], finished: bool) {
    std::thread::scope(|s| {
        s.spawn(|| connect(rig, server(rig, PORT), Duration::from_millis(300)).unwrap_err());
        let arrived = pump(ports, Duration::from_secs(3), |port, frame| {
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
    // Retransmissions of this SYN are not the next one.
    pump(ports, Duration::from_millis(100), |port, frame| {
        port.free(frame);
        false
    });
}

#[test]
fn a_veth_peer_leaves_the_checksum_unfinished_unless_told_otherwise() {
    let rig = rig_or_skip!(RigConfig::default());
    let mut opened = open_or_panic(&rig, &config(&rig));
    next_syn_checksum(&rig, &mut opened.ports, false);
    let off = rig
        .client_command("ethtool")
        .args(["-K", CLIENT_INTERFACE, "tx", "off"])
        .stdout(Stdio::null())
        .status();
    assert!(off.unwrap().success());
    next_syn_checksum(&rig, &mut opened.ports, true);
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
        ..OpenConfig::new(CLIENT_INTERFACE)
    };
    rig.client_ns().run_in(|| open(&config)).unwrap().unwrap_or_else(|e| panic!("{e}"))
}

/// Server and client, open, and a frame from the one to the other.
fn both_ends(rig: &Rig) -> (Opened, Opened, Vec<u8>) {
    let server = open_or_panic(rig, &config(rig));
    let client = open_client(rig);
    let mut frame = bare_tcp(rig, 2000);
    frame[..6].copy_from_slice(&server.report.mac.0);
    frame[6..12].copy_from_slice(&client.report.mac.0);
    (server, client, frame)
}

#[test]
fn ten_thousand_frames_there_and_back_and_none_is_lost_track_of() {
    const FRAMES: u64 = 20_000;
    let rig = rig_or_skip!(RigConfig::default());
    let (mut server, mut client, template) = both_ends(&rig);

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
fn a_backlog_of_answers_does_not_hold_up_reception_and_is_sent_at_once_when_nothing_waits() {
    const WAITING: u64 = 200;
    const BACKLOG: u64 = 600;
    /// Four of the kernel's batches of 32.
    const AT_ONCE: u64 = 128;
    let rig = rig_or_skip!(RigConfig::default());
    let (mut server, mut client, template) = both_ends(&rig);
    let put = |port: &mut XskPort, frames: u64| {
        for _ in 0..frames {
            let mut frame = port.alloc().unwrap();
            port.buffer(&mut frame)[..54].copy_from_slice(&template);
            port.set_len(&mut frame, 54);
            assert!(port.send(frame));
        }
    };
    let (c, s) = (&mut client.ports[0], &mut server.ports[0]);
    put(c, WAITING);
    let started = Instant::now();
    while s.depths().rx[0] < WAITING {
        c.flush().unwrap();
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", s.depths());
    }
    put(s, BACKLOG);
    let mut burst = Vec::with_capacity(64);
    let mut left = BACKLOG;
    // While a burst or more is waiting, so much and no more.
    for received in [0, 64, 128] {
        s.flush().unwrap();
        assert_eq!(s.depths().tx[0], left - AT_ONCE, "after {received} frames");
        left -= AT_ONCE;
        assert_eq!(s.rx(&mut burst), 64);
        burst.drain(..).for_each(|frame| s.free(frame));
    }
    // Eight are left.
    s.flush().unwrap();
    assert_eq!(s.depths().tx[0], 0);
    s.rx(&mut burst);
    burst.drain(..).for_each(|frame| s.free(frame));
    assert_nothing_leaked(&server.ports);
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
fn while_half_of_the_receive_ring_waits_a_flush_sends_one_batch_only() {
    const BATCH: u64 = 32;
    let rig = rig_or_skip!(RigConfig::default());
    let rings = RingConfig { rx_ring: 128, tx_ring: 256, frames: 512, ..RingConfig::default() };
    let mut server = open_or_panic(&rig, &OpenConfig { rings, ..config(&rig) });
    let mut client = open_client(&rig);
    let mut template = bare_tcp(&rig, 2000);
    template[..6].copy_from_slice(&server.report.mac.0);
    let (c, s) = (&mut client.ports[0], &mut server.ports[0]);
    let put = |port: &mut XskPort, n: usize| {
        for _ in 0..n {
            let mut frame = port.alloc().unwrap();
            port.buffer(&mut frame)[..54].copy_from_slice(&template);
            port.set_len(&mut frame, 54);
            assert!(port.send(frame));
        }
        port.flush().unwrap();
    };
    put(c, 100);
    let end = Instant::now() + Duration::from_secs(5);
    while s.depths().rx[0] < 100 {
        assert!(Instant::now() < end, "{:?}", s.depths());
        c.flush().unwrap();
    }
    put(s, 200);
    assert_eq!(s.depths().tx[0], 200 - BATCH);
    // What has been taken off the ring can be received into again, before anything more is sent.
    let mut burst = Vec::with_capacity(64);
    s.rx(&mut burst);
    let taken = burst.len();
    burst.drain(..).for_each(|f| s.free(f));
    assert!(s.depths().rx[0] < 64 && taken == 64);
    s.flush().unwrap();
    assert_eq!((s.depths().tx[0], s.depths().fill[0]), (0, 128 - 36), "all that waited");
    assert_nothing_leaked(&server.ports);
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
fn an_interface_that_disappears_is_a_fatal_error() {
    let rig = rig_or_skip!(RigConfig::default());
    let mut opened = open_or_panic(&rig, &config(&rig));
    let gone = rig.client_command("ip").args(["link", "del", CLIENT_INTERFACE]).status();
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
