//! Stock clients, without loss: none may report any error.

use crate::common::{DISCARD, ECHO, Process, both};
use crate::tools::{BODY, ab, client, client_with, exchange, host_port, pattern, rig_with, serve, urls, wrk};
use finwheel::rig::{Rig, RigConfig};
use nix::sys::signal::Signal;
use std::time::Duration;

/// Ends the process and checks that it saw nothing wrong either.
#[track_caller]
fn end(p: Process) {
    p.signal(Signal::SIGTERM);
    let (status, log) = p.end(Duration::from_secs(40));
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!log.contains("ERROR") && !log.contains("WARN") && log.contains("cut_off=0"), "{log}");
}

/// curl's own verdict after each transfer: status code and how many connections it had to make.
const FORMAT: &str = "[%{http_code} %{num_connects}]\n";

#[track_caller]
fn curl(rig: &Rig, args: &[&str]) -> String {
    let common = ["--noproxy", "*", "--http1.1", "-sS", "--max-time", "20", "-w", FORMAT];
    let ran = client(rig, "curl", &[&common[..], args].concat()).good(&format!("curl {args:?}"));
    assert_eq!(ran.stderr, "", "{args:?}");
    ran.text()
}

#[test]
fn curl_gets_every_kind_of_request_answered() {
    let rig = rig_with!(RigConfig::default(), "curl");
    let p = serve(&rig);
    let dir = tempfile::tempdir().unwrap();
    let upload = dir.path().join("upload");
    std::fs::write(&upload, pattern(300_000)).unwrap();
    let upload = format!("@{}", upload.display());
    let chunked = "Transfer-Encoding: chunked";
    for url in urls(&rig) {
        let url = &url[..];
        let once = format!("{BODY}[200 1]\n");
        let again = format!("{BODY}[200 0]\n");
        assert_eq!(curl(&rig, &[url]), once);
        assert_eq!(curl(&rig, &[url, url, url, url, url]), once.clone() + &again.repeat(4), "one connection");
        let close = curl(&rig, &["-i", "-H", "Connection: close", url]);
        assert!(close.starts_with("HTTP/1.1 200 OK\r\n") && close.ends_with(&once), "{close}");
        assert!(close.to_ascii_lowercase().contains("\r\nconnection: close\r\n"), "{close}");
        let old = curl(&rig, &["--http1.0", "-i", url]);
        assert!(old.ends_with(&once), "{old}");
        let head = curl(&rig, &["-I", url, url]);
        assert_eq!(head.matches("HTTP/1.1 200 OK\r\n").count(), 2, "{head}");
        let length = format!("\r\ncontent-length: {}\r\n", BODY.len());
        assert!(head.to_ascii_lowercase().contains(&length) && !head.contains(BODY), "{head}");
        assert!(head.ends_with("\r\n\r\n[200 0]\n"), "{head}");
        assert_eq!(curl(&rig, &["-d", "a=b", url, url]), once.clone() + &again);
        assert_eq!(curl(&rig, &["--data-binary", &upload, url, url]), once.clone() + &again);
        assert_eq!(curl(&rig, &["--data-binary", &upload, "-H", chunked, url, url]), once.clone() + &again);
        let expect = curl(&rig, &["-i", "--data-binary", &upload, "-H", "Expect: 100-continue", url]);
        assert!(expect.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"), "{expect}");
        assert!(expect.ends_with(&once), "{expect}");
        // Refused, while the body is still on its way: the answer must arrive all the same.
        let refused = curl(&rig, &["-X", "PUT", "-o", "/dev/null", "--data-binary", &upload, url]);
        assert_eq!(refused, "[405 1]\n");
    }
    end(p);
}

#[test]
fn ab_and_wrk_report_no_error() {
    let rig = rig_with!(RigConfig::default(), "ab", "wrk");
    let p = serve(&rig);
    for (url, version) in urls(&rig).iter().zip(["IPv4", "IPv6"]) {
        let apart = ab(&rig, url, 10_000, 50, false);
        let kept = ab(&rig, url, 10_000, 50, true);
        let wrk = wrk(&rig, url, 50, 3);
        println!("{version}: ab {apart:.0}/s, ab -k {kept:.0}/s, wrk {wrk:.0}/s");
    }
    end(p);
}

#[test]
fn two_workers_serve_ab_and_wrk_without_an_error() {
    let rig = rig_with!(RigConfig::with_queues(2), "ab", "wrk");
    let p = serve(&rig);
    for url in urls(&rig) {
        let apart = ab(&rig, &url, 10_000, 50, false);
        let kept = ab(&rig, &url, 10_000, 50, true);
        let wrk = wrk(&rig, &url, 50, 1);
        println!("{url}: ab {apart:.0}/s, ab -k {kept:.0}/s, wrk {wrk:.0}/s");
    }
    end(p);
}

#[test]
fn a_client_that_runs_out_of_ports_meets_its_old_connections_in_time_wait() {
    // The client has this many ports for one server address, and TIME_WAIT outlasts the test: each is used some ten
    // times, the later ones with SYNs that a TIME_WAIT record must take (RFC 6191).
    const PORTS: u32 = 500;
    let rig = rig_with!(RigConfig::default(), "ab");
    rig.client_ns().sysctl("net/ipv4/ip_local_port_range", &format!("20000 {}", 19_999 + PORTS)).unwrap();
    let p = serve(&rig);
    for url in urls(&rig) {
        println!("{url}: ab {:.0}/s", ab(&rig, &url, 10 * PORTS, 20, false));
    }
    end(p);
}

#[test]
fn nc_and_socat_get_their_bytes_back_after_their_half_close() {
    let rig = rig_with!(RigConfig::default(), "nc", "socat");
    let p = serve(&rig);
    for bytes in [pattern(0), pattern(1), pattern(100_000), pattern(2_000_000)] {
        for at in both(&rig, ECHO) {
            let [host, port] = &host_port(at);
            exchange(&rig, "nc", &["-N", "-w", "20", host, port], &bytes, &bytes);
            let address = if at.is_ipv4() { format!("TCP4:{at}") } else { format!("TCP6:{at}") };
            exchange(&rig, "socat", &["-t", "20", "STDIO", &address], &bytes, &bytes);
        }
        for at in both(&rig, DISCARD) {
            let [host, port] = &host_port(at);
            exchange(&rig, "nc", &["-N", "-w", "20", host, port], &bytes, b"");
        }
    }
    // HTTP by hand: the half-close comes with the request, the answer after it.
    for at in both(&rig, crate::common::HTTP) {
        let [host, port] = &host_port(at);
        let ran =
            client_with(&rig, "nc", &["-N", "-w", "20", host, port], b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        let text = ran.good("nc").text();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with(BODY), "{text}");
    }
    end(p);
}
