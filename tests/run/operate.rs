//! What operators do to a running process over the admin socket, against real kernel clients.

use crate::common::{
    DISCARD, ECHO, PATIENCE, Process, ask, both, config, connect, connect_many, metrics, rig_or_skip, until,
};
use finwheel::rig::RigConfig;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn ended_by_fin(c: &mut TcpStream) {
    assert_eq!(c.read(&mut [0; 16]).unwrap(), 0, "FIN");
}

fn echoes(c: &mut TcpStream) {
    c.write_all(b"still there?").unwrap();
    let mut back = [0; 12];
    c.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"still there?");
}

#[test]
fn connections_are_listed_closed_and_reset_by_filter() {
    let rig = rig_or_skip!(RigConfig::with_queues(2));
    let p = Process::ready(&rig, &config(&rig, ""));
    let [v4, v6] = both(&rig, ECHO);
    let mut clients = connect_many(&rig, &[v4, v4, v6, v6]);
    clients.iter_mut().for_each(echoes);

    let rows = p.lines(&["ss", "--json"]);
    let mut seen: Vec<_> =
        rows.iter().map(|r| (r["state"].as_str().unwrap(), r["peer"].as_str().unwrap())).collect();
    let mut expected: Vec<_> = clients.iter().map(|c| c.local_addr().unwrap().to_string()).collect();
    seen.sort_unstable();
    expected.sort_unstable();
    let expected: Vec<_> = expected.iter().map(|peer| ("ESTABLISHED", peer.as_str())).collect();
    assert_eq!(seen, expected);
    assert!(
        rows.iter().all(|r| r["listener"] == "echo" && r["bytes_in"] == 12 && r["bytes_out"] == 12),
        "{rows:#?}"
    );
    // Page by page it is the same.
    let first = p.tell(&["ss", "--json", "--limit", "3"]);
    let next: serde_json::Value = serde_json::from_str(first.lines().last().unwrap()).unwrap();
    let rest = p.lines(&["ss", "--json", "--after", next["next"].as_str().unwrap()]);
    assert_eq!((first.lines().count(), rest.len()), (4, 1));
    let text = p.tell(&["ss", "--peer", &rig.client_v6().unwrap().to_string(), "--columns", "state,peer"]);
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.starts_with("State        Peer\nESTABLISHED"), "{text}");
    assert_eq!(p.lines(&["ss", "--json", "--state", "close-wait"]).len(), 0);
    assert_eq!(p.lines(&["ss", "--json", "--older-than", "1h"]).len(), 0);

    let (code, _, complaint) = p.admin(&["close"]);
    assert!(code == Some(2) && complaint.contains("--all"), "{complaint}");
    let (code, _, complaint) = p.admin(&["abort", "--listener", "ehco"]);
    assert!(code == Some(2) && complaint.contains("none is named \"ehco\"; there are echo"), "{complaint}");

    let net = format!("{}/32", rig.client_v4().unwrap());
    assert_eq!(p.tell(&["close", "--peer", &net]), "2 closing\n");
    let mut v6 = clients.split_off(2);
    for mut c in clients {
        ended_by_fin(&mut c);
    }
    until("both in TIME_WAIT", PATIENCE, || p.lines(&["ss", "--json", "--state", "time_wait"]).len() == 2);
    v6.iter_mut().for_each(echoes);
    assert_eq!(p.tell(&["abort", "--listener", "echo"]), "2 reset\n");
    for c in &mut v6 {
        assert_eq!(c.read(&mut [0; 16]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }

    let closes = p.lines(&["closes", "--json"]);
    let mut how: Vec<_> = closes
        .iter()
        .map(|c| ["path", "first", "cause", "listener"].map(|k| c[k].as_str().unwrap()))
        .collect();
    how.sort_unstable();
    let (active, reset) = (["active", "us", "operator", "echo"], ["reset", "us", "operator", "echo"]);
    assert_eq!(how, [active, active, reset, reset]);
    assert_eq!(p.lines(&["closes", "--json", "--path", "reset", "-n", "1"]).len(), 1);
    let text = p.tell(&["status"]);
    assert!(
        text.contains(": ready, up ") && text.contains("4 opened, 4 closed (2 not gracefully)"),
        "{text}"
    );
    let status = &p.lines(&["status", "--json"])[0];
    assert_eq!(
        (status["population"]["TIME_WAIT"].as_u64(), status["workers"].as_array().unwrap().len()),
        (Some(2), 2)
    );
    assert!(!p.log().contains("ERROR"), "{}", p.log());
}

#[test]
fn a_drain_closes_evenly_and_an_undrain_keeps_the_rest() {
    const CLIENTS: usize = 40;
    let rig = rig_or_skip!(RigConfig::with_queues(2));
    let p = Process::ready(&rig, &config(&rig, ""));
    let to: Vec<_> = both(&rig, ECHO).into_iter().cycle().take(CLIENTS).collect();
    let clients = connect_many(&rig, &to);
    assert!(p.tell(&["drain", "--over", "2s", "--no-wait"]).contains(" of 40 connections told"));
    assert_eq!(ask(&rig, metrics(), "/readyz"), (503, "draining\n".to_owned()));
    let attempt = || TcpStream::connect_timeout(&to[0], Duration::from_millis(100));
    assert_eq!(rig.client_ns().run_in(attempt).unwrap().unwrap_err().kind(), ErrorKind::TimedOut);
    let began = Instant::now();
    let mut fins: Vec<Duration> = std::thread::scope(|s| {
        let waits: Vec<_> = clients
            .into_iter()
            .map(|mut c| {
                s.spawn(move || {
                    ended_by_fin(&mut c);
                    began.elapsed()
                })
            })
            .collect();
        waits.into_iter().map(|w| w.join().unwrap()).collect()
    });
    fins.sort_unstable();
    let (first, last) = (fins[0], fins[CLIENTS - 1]);
    // In each quarter of the time about a quarter of them: never a burst of half.
    let quarter = last.saturating_sub(first) / 4;
    let busiest = fins.iter().map(|&t| fins.iter().filter(|&&u| u >= t && u <= t + quarter).count()).max();
    assert!(busiest.unwrap() <= CLIENTS / 2, "{fins:?}");

    p.tell(&["undrain"]);
    assert_eq!(ask(&rig, metrics(), "/readyz"), (200, "ready\n".to_owned()));
    let mut clients = connect_many(&rig, &to);
    p.tell(&["drain", "--over", "1h", "--no-wait"]);
    // One of each worker at once, the others in an hour.
    until("the first ones are told", PATIENCE, || {
        p.lines(&["status", "--json"])[0]["drain"]["told"].as_u64().unwrap() >= 1
    });
    p.tell(&["undrain"]);
    let mut kept = 0;
    for c in &mut clients {
        c.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        if c.write_all(b"x").is_ok() && c.read(&mut [0; 1]).is_ok_and(|n| n == 1) {
            kept += 1;
        }
    }
    assert!((CLIENTS - 2..CLIENTS).contains(&kept), "{kept}");
    echoes(&mut connect(&rig, to[0]));
    let (code, _, complaint) = p.admin(&["undrain"]);
    assert!(code == Some(1) && complaint.contains("nothing is drained"), "{complaint}");
}

#[test]
fn while_drained_new_connections_get_what_was_asked_for() {
    let rig = rig_or_skip!(RigConfig::default());
    let p = Process::ready(&rig, &config(&rig, ""));
    let at = both(&rig, ECHO)[0];
    let attempt =
        || rig.client_ns().run_in(|| TcpStream::connect_timeout(&at, Duration::from_millis(300))).unwrap();
    p.tell(&["drain", "--new", "reset"]);
    assert_eq!(attempt().unwrap_err().kind(), ErrorKind::ConnectionRefused);
    p.tell(&["drain", "--new", "close"]);
    let mut c = attempt().unwrap();
    ended_by_fin(&mut c);
    drop(c);
    p.tell(&["drain", "--new", "drop"]);
    assert_eq!(attempt().unwrap_err().kind(), ErrorKind::TimedOut);
    let (code, _, complaint) = p.admin(&["drain", "--new", "later"]);
    assert!(code == Some(2) && complaint.contains("drop, reset, close"), "{complaint}");
}

/// Whether a program of the tests' is installed.
fn installed(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

#[test]
fn a_capture_has_both_directions_and_opens_in_tshark() {
    if !installed("tshark") {
        println!("skipped: tshark is not installed (scripts/setup.sh)");
        return;
    }
    let rig = rig_or_skip!(RigConfig::with_queues(2));
    let p = Process::ready(&rig, &config(&rig, ""));
    let file = p.file("out.pcapng");
    let peer = rig.client_v6().unwrap().to_string();
    let to = file.to_str().unwrap();
    let args = ["capture", "--peer", &peer, "--listener", "echo", "--count", "12", "--for", "20s", "-w", to];
    let mut child = p.admin_command(&args).stdout(Stdio::piped()).spawn().unwrap();
    // The file begins when the capture does.
    until("the capture has begun", PATIENCE, || file.exists());
    let (code, _, complaint) = p.admin(&["capture", "-w", "/dev/null"]);
    assert!(code == Some(1) && complaint.contains("another capture is under way"), "{complaint}");
    let [v4, v6] = both(&rig, ECHO);
    echoes(&mut connect(&rig, v4));
    // Two connections of eight to ten frames each: the first is in it as a whole.
    for _ in 0..2 {
        let mut c = connect(&rig, v6);
        echoes(&mut c);
        c.shutdown(std::net::Shutdown::Write).unwrap();
        ended_by_fin(&mut c);
    }
    until("the capture has ended", PATIENCE, || child.try_wait().unwrap().is_some());
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success() && said.starts_with("12 frames in "), "{said}");
    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(&file).args(["-T", "fields"]);
    for field in [
        "ipv6.addr",
        "tcp.flags",
        "frame.packet_flags_direction",
        "frame.interface_name",
        "tcp.completeness",
        "tcp.stream",
    ] {
        tshark.args(["-e", field]);
    }
    let out = tshark.stderr(Stdio::null()).output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let rows: Vec<Vec<&str>> = text.lines().map(|l| l.split('\t').collect()).collect();
    assert_eq!(rows.len(), 12, "{text}");
    assert!(rows.iter().all(|r| r[0].contains(&peer)), "only the peer: {text}");
    let number = |t: &str| u32::from_str_radix(t.trim_start_matches("0x"), 16).unwrap();
    let flags: Vec<u32> = rows.iter().map(|r| number(r[1])).collect();
    assert_eq!(flags[..3], [0x02, 0x12, 0x10], "the handshake: {text}");
    let directions: Vec<u32> = rows.iter().map(|r| number(r[2])).collect();
    assert_eq!(directions[..3], [1, 2, 1], "in, out, in: {text}");
    assert!(rows[0][3].contains(" queue "), "{text}");
    // SYN, SYN-ACK, ACK, data, FIN, and no RST.
    let whole = rows.iter().rev().find(|r| r[5] == "0").unwrap();
    assert_eq!(whole[4].parse::<u8>().unwrap() & 0x3f, 31, "{text}");
}

#[test]
fn closes_are_followed_by_cause_and_written_to_a_file_that_is_opened_again() {
    let rig = rig_or_skip!(RigConfig::default());
    let discard = both(&rig, DISCARD)[0];
    let extra = format!(
        "[[listener]]\nname = \"short\"\naddress = \"{discard}\"\nservice = \"discard\"\nidle = \"200ms\"\n\
         [close_log]\nfile = \"closes.jsonl\"\n"
    );
    let p = Process::ready(&rig, &config(&rig, &extra));
    let mut follower = p
        .admin_command(&["closes", "--follow", "--json", "--cause", "idle"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (to, lines) = std::sync::mpsc::channel();
    let from = BufReader::new(follower.stdout.take().unwrap());
    std::thread::spawn(move || from.lines().map_while(Result::ok).try_for_each(|l| to.send(l)));
    // One that the peer closes, which is not shown, and one that idles, which is: until the follower is there.
    let end = Instant::now() + PATIENCE;
    let line = loop {
        let mut c = connect(&rig, both(&rig, ECHO)[0]);
        c.shutdown(std::net::Shutdown::Write).unwrap();
        ended_by_fin(&mut c);
        let mut idle = connect(&rig, discard);
        ended_by_fin(&mut idle);
        drop(idle);
        match lines.recv_timeout(Duration::from_millis(300)) {
            Ok(line) => break line,
            Err(e) => assert!(Instant::now() < end, "{e}; {}", p.log()),
        }
    };
    let _ = follower.kill();
    follower.wait().unwrap();
    let c: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        (c["cause"].as_str(), c["listener"].as_str(), c["first"].as_str()),
        (Some("idle"), Some("short"), Some("us"))
    );
    assert!(
        c["lifetime_s"].as_f64().unwrap() >= 0.2 && c["closing_ms"]["total"].as_f64().unwrap() > 0.0,
        "{line}"
    );

    let log = p.file("closes.jsonl");
    let causes = |file: &std::path::Path| -> Vec<String> {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let cause = |l: &str| {
            serde_json::from_str::<serde_json::Value>(l).unwrap()["cause"].as_str().unwrap().to_owned()
        };
        text.lines().map(cause).collect()
    };
    until("both causes in the file", PATIENCE, || {
        let seen = causes(&log);
        seen.iter().any(|c| c == "peer") && seen.iter().any(|c| c == "idle")
    });
    let moved = p.file("closes.1");
    std::fs::rename(&log, &moved).unwrap();
    p.signal(nix::sys::signal::Signal::SIGHUP);
    until("the file is there again", PATIENCE, || log.exists());
    // It is there before the writer has it: what closes in between is still in the old one.
    until("what came later is in it", PATIENCE, || {
        drop(connect(&rig, both(&rig, ECHO)[0]));
        !causes(&log).is_empty()
    });
    assert!(causes(&log).iter().all(|c| c == "peer"));
}

/// Sends raw bytes to the admin socket; gives what comes back until the end, or until nobody wants to read it.
fn raw(p: &Process, bytes: &[u8]) -> String {
    let mut s = UnixStream::connect(p.file("admin.sock")).unwrap();
    s.set_read_timeout(Some(PATIENCE)).unwrap();
    // It may be refused before it is read.
    let _ = s.write_all(bytes);
    let mut answer = Vec::new();
    let _ = s.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn clients_of_the_admin_socket_that_misbehave_are_bounded_and_disturb_nobody() {
    let rig = rig_or_skip!(RigConfig::default());
    let p = Process::ready(&rig, &config(&rig, ""));
    let mut c = connect(&rig, both(&rig, ECHO)[0]);
    for (bytes, code) in [
        (&b"\x16\x03\x01 no HTTP at all\r\n\r\n"[..], "400"),
        (b"GET /v1/nothing HTTP/1.1\r\nhost: x\r\n\r\n", "404"),
        (b"DELETE /v1/status HTTP/1.1\r\nhost: x\r\n\r\n", "405"),
        (b"GET /v1/connections?colour=red HTTP/1.1\r\nhost: x\r\n\r\n", "400"),
        (b"GET /v1/connections?after=9.9.9 HTTP/1.1\r\nhost: x\r\n\r\n", "400"),
        (b"GET /v1/capture?count=0 HTTP/1.1\r\nhost: x\r\n\r\n", "400"),
        (b"POST /v1/close HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n{{{{{", "400"),
        (b"POST /v1/close HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}", "400"),
        (b"POST /v1/close HTTP/1.1\r\nhost: x\r\ncontent-length: 9000000\r\n\r\n{", "413"),
        // A body that does not come.
        (b"POST /v1/drain HTTP/1.1\r\nhost: x\r\ncontent-length: 50\r\n\r\n{", "408"),
    ] {
        let answer = raw(&p, bytes);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {code}")),
            "{}: {answer}",
            String::from_utf8_lossy(bytes)
        );
    }
    let mut endless = b"GET /v1/status HTTP/1.1\r\nx: ".to_vec();
    endless.resize(64 << 10, b'a');
    let answer = raw(&p, &endless);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    // One that goes away in the middle of a stream, as often as there are streams, and more clients that say nothing than
    // there are places: the next question is answered as soon as they have had their time.
    for _ in 0..20 {
        let mut s = UnixStream::connect(p.file("admin.sock")).unwrap();
        s.write_all(b"GET /v1/closes?follow=true HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let mut head = [0; 12];
        s.read_exact(&mut head).unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
    }
    let silent: Vec<_> = (0..50).map(|_| UnixStream::connect(p.file("admin.sock")).unwrap()).collect();
    echoes(&mut c);
    assert!(p.tell(&["status"]).contains(": ready"));
    drop(silent);
    echoes(&mut c);
    assert!(!p.log().contains("ERROR") && !p.log().contains("panicked"), "{}", p.log());
}

#[test]
fn a_second_process_at_the_same_socket_is_told_who_holds_it() {
    let rig = rig_or_skip!(RigConfig::default());
    let p = Process::ready(&rig, &config(&rig, ""));
    let socket = p.file("admin.sock");
    let text = config(&rig, "").replace("[worker]", "[metrics]\nlisten = \"off\"\n[worker]");
    let text = format!("{text}\n[admin]\nsocket = \"{}\"\n", socket.display());
    let file = p.file("other.toml");
    std::fs::write(&file, text).unwrap();
    let mut other = rig.server_ns().command(env!("CARGO_BIN_EXE_finwheel"));
    let out = other.args(["run", "--config"]).arg(&file).output().unwrap();
    let said = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.contains("is answered by process ") && said.contains("finwheel"), "{said}");
    assert!(p.tell(&["status"]).contains(": ready"));
    p.signal(nix::sys::signal::Signal::SIGTERM);
    let _ = p.end(PATIENCE);
    let (code, _, complaint) = nobody(&socket);
    assert!(code == Some(1) && complaint.contains("cannot reach a running finwheel at "), "{complaint}");
}

fn nobody(socket: &std::path::Path) -> (Option<i32>, String, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_finwheel"))
        .args(["status", "--socket"])
        .arg(socket)
        .output()
        .unwrap();
    let text = |b| String::from_utf8(b).unwrap();
    (out.status.code(), text(out.stdout), text(out.stderr))
}
