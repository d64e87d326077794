//! Services answer, and the counters say what happened.

use crate::common::{
    DISCARD, ECHO, HTTP, PATIENCE, ask, beside_kernel_traffic, both, connect, connect_many, rig_or_skip,
    settings, start, until,
};
use finwheel::control::Phase;
use finwheel::rig::RigConfig;
use finwheel::shard::trace::Happening;
use finwheel::tcp::record::ClosePath;
use finwheel::tcp::state::State;
use std::io::{Read, Write};
use std::net::Shutdown;

/// Bytes that differ by position.
fn pattern(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i * 7 + i / 251) as u8).collect()
}

#[test]
fn echo_discard_and_http_answer_kernel_clients_on_both_ip_versions() {
    let rig = rig_or_skip!(RigConfig::default());
    let mut s = settings(&rig);
    s.metrics = Some(([127, 0, 0, 1], 0).into());
    let t = start(&rig, &s);
    assert_eq!(t.phases().now(), Phase::Ready);
    let ((), rounds) = beside_kernel_traffic(&rig, || {
        for to in both(&rig, ECHO) {
            let mut c = connect(&rig, to);
            let sent = pattern(300_000);
            let mut back = Vec::new();
            std::thread::scope(|s| {
                let mut writer = c.try_clone().unwrap();
                let sent = &sent;
                s.spawn(move || {
                    writer.write_all(sent).unwrap();
                    writer.shutdown(Shutdown::Write).unwrap();
                });
                c.read_to_end(&mut back).unwrap();
            });
            assert!(back == sent, "{to}: {} of {} bytes came back", back.len(), sent.len());
        }
        for to in both(&rig, DISCARD) {
            let mut c = connect(&rig, to);
            c.write_all(&pattern(100_000)).unwrap();
            c.shutdown(Shutdown::Write).unwrap();
            assert_eq!(c.read(&mut [0; 16]).unwrap(), 0);
        }
        for to in both(&rig, HTTP) {
            let mut c = connect(&rig, to);
            let mut text = String::new();
            write!(c, "GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").unwrap();
            c.read_to_string(&mut text).unwrap();
            assert!(
                text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("\r\n\r\nfinwheel\n"),
                "{text}"
            );
        }
    });
    assert!(rounds > 0);

    until("six closes", PATIENCE, || {
        let n = t.report().counters;
        n.closes.as_flattened().as_flattened().iter().sum::<u64>() == 6
    });
    let n = t.report().counters;
    assert_eq!(n.opened_passive, 6);
    assert_eq!(n.resets(), 0);
    assert_eq!(n.illegal_transitions, 0);
    // The peer's FIN came first for echo and discard, ours for http.
    let half_closed = n.closes_by_path(ClosePath::HalfClose);
    assert_eq!(n.closes_by_path(ClosePath::Passive) + half_closed, 4, "{:?}", n.closes);
    assert_eq!(n.closes_by_path(ClosePath::Active), 2, "{:?}", n.closes);
    assert_eq!(n.states[State::TimeWait as usize], 2);
    assert_eq!(n.chunks_used, 0);
    let (code, text) = ask(&rig, t.metrics_addr().unwrap(), "/metrics");
    assert_eq!(code, 200);
    assert!(text.contains("\nfinwheel_connections_opened_total{role=\"passive\"} 6\n"), "{text}");
    assert!(text.contains("\nfinwheel_connections{state=\"TIME_WAIT\"} 2\n"), "{text}");
    let frames = format!("\nfinwheel_frames_total{{direction=\"rx\"}} {}\n", n.port.rx_frames);
    assert!(text.contains(&frames), "{frames}: {text}");
    let outcome = t.drain(PATIENCE);
    assert!(outcome.is_ok() && outcome.cut_off == 0, "{:?}", outcome.failures);
    assert_eq!(outcome.merged.counters.opened_passive, 6);
}

#[test]
fn hundreds_of_connections_on_two_workers_all_complete() {
    const CLIENTS: usize = 400;
    let rig = rig_or_skip!(RigConfig::with_queues(2));
    let t = start(&rig, &settings(&rig));
    assert_eq!(t.interface().queues.len(), 2);
    let to: Vec<_> = both(&rig, ECHO).into_iter().cycle().take(CLIENTS).collect();
    let mut clients = connect_many(&rig, &to);
    let bytes = pattern(5000);
    for c in &mut clients {
        c.write_all(&bytes).unwrap();
    }
    for (i, c) in clients.iter_mut().enumerate() {
        let mut back = vec![0; bytes.len()];
        c.read_exact(&mut back).unwrap_or_else(|e| panic!("client {i}: {e}"));
        assert!(back == bytes, "client {i}");
    }
    assert_eq!(t.report().counters.states[State::Established as usize], CLIENTS as u64);
    for c in &clients {
        c.shutdown(Shutdown::Write).unwrap();
    }
    for c in &mut clients {
        assert_eq!(c.read(&mut [0; 16]).unwrap(), 0);
    }
    until("every close", PATIENCE, || {
        t.report().counters.closes_by_path(ClosePath::Passive) == CLIENTS as u64
    });
    let n = t.report().counters;
    println!("misdirected: {} out, {} in", n.misdirected_out, n.misdirected_in);
    assert_eq!(n.opened_passive, CLIENTS as u64);
    assert_eq!((n.resets(), n.illegal_transitions, n.chunks_used), (0, 0, 0));
    assert_eq!(n.states.iter().sum::<u64>(), n.states[State::Listen as usize]);
    assert!(t.stop().is_ok());
}

#[test]
fn a_traced_connection_is_told_segment_by_segment() {
    use State::{CloseWait, Closed, Established, LastAck, SynReceived};
    let rig = rig_or_skip!(RigConfig::default());
    let t = start(&rig, &settings(&rig));
    let [to, _] = both(&rig, ECHO);
    let from = std::net::SocketAddr::from((rig.client_v4().unwrap(), 40_000));
    t.trace(vec![from.into()]);
    // A report is answered after the trace was taken.
    let _ = t.report();
    let mut c = rig
        .client_ns()
        .run_in(|| {
            let socket = nix::sys::socket::socket(
                nix::sys::socket::AddressFamily::Inet,
                nix::sys::socket::SockType::Stream,
                nix::sys::socket::SockFlag::SOCK_CLOEXEC,
                None,
            )
            .unwrap();
            let at = nix::sys::socket::SockaddrStorage::from(from);
            nix::sys::socket::bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &at).unwrap();
            let peer = nix::sys::socket::SockaddrStorage::from(to);
            nix::sys::socket::connect(std::os::fd::AsRawFd::as_raw_fd(&socket), &peer).unwrap();
            std::net::TcpStream::from(socket)
        })
        .unwrap();
    c.set_read_timeout(Some(PATIENCE)).unwrap();
    c.shutdown(Shutdown::Write).unwrap();
    assert_eq!(c.read(&mut [0; 4]).unwrap(), 0);
    until("the close", PATIENCE, || t.report().counters.closes_by_path(ClosePath::Passive) == 1);
    let entries = t.take_trace();
    let states: Vec<State> = entries
        .iter()
        .filter_map(|e| match e.what {
            Happening::Moved(m) => Some(m.to),
            Happening::Received { .. } | Happening::Sent { .. } => None,
        })
        .collect();
    assert_eq!(states, [SynReceived, Established, CloseWait, LastAck, Closed], "{entries:#?}");
    assert!(t.take_trace().is_empty());
}
