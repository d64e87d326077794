//! SIGTERM while everybody talks, with tshark watching.

use crate::capture::{ACK, Capture, FIN, Frame, RST, dissect, streams};
use crate::common::{
    ECHO, HTTP, KERNEL, PATIENCE, Process, beside_kernel_traffic, both, connect, connect_many, until,
};
use crate::tools::{BODY, LIMIT, Running, config, rig_with, run, urls};
use finwheel::rig::{Rig, RigConfig};
use nix::sys::signal::Signal;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Connections of each kind of client.
const TALKERS: usize = 40;
const IDLE: usize = 6;
const OF_AB: usize = 20;
const OF_WRK: usize = 20;

/// The kernel of the server may not send from the claimed ports: after the process has ended it would answer late
/// segments with RST, and the capture could not tell whose they are.
fn silence_the_kernel(rig: &Rig) {
    let rules = "table inet silent {\nchain out { type filter hook output priority 0\n tcp sport { 7, 9, 80 } drop\n }\n}\n";
    let mut nft = rig.server_ns().command("nft");
    nft.args(["-f", "-"]);
    run(nft, rules.as_bytes(), LIMIT).good("nft");
}

/// A session of the kernel's TCP on the same interface that is there before the signal and after the end of the process.
/// Returns what `f` returned and how many answers came.
fn beside_a_session<T>(rig: &Rig, f: impl FnOnce() -> T) -> (T, u32) {
    let at = (both(rig, 0)[1].ip(), KERNEL + 1).into();
    let listener = rig.server_ns().run_in(|| TcpListener::bind(at)).unwrap().unwrap();
    let mut client = connect(rig, at);
    let (mut server, _) = listener.accept().unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(move || {
            let mut key = [0];
            while server.read(&mut key).unwrap() == 1 {
                server.write_all(&key).unwrap();
            }
        });
        let session = s.spawn(|| {
            let mut rounds = 0u32;
            while !over.load(Ordering::SeqCst) || rounds == 0 {
                let key = [rounds as u8];
                client.write_all(&key).unwrap();
                let mut echo = [0];
                client.read_exact(&mut echo).unwrap();
                assert_eq!(echo, key);
                rounds += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
            drop(client);
            rounds
        });
        let result = f();
        over.store(true, Ordering::SeqCst);
        (result, session.join().unwrap())
    })
}

/// Ends the talkers when what follows fails: they would otherwise keep the test from telling.
struct Failing<'a>(&'a AtomicBool);

impl Drop for Failing<'_> {
    fn drop(&mut self) {
        self.0.store(std::thread::panicking(), Ordering::SeqCst);
    }
}

/// Echo until the peer closes, or the test fails.
fn talk(mut c: TcpStream, rounds: &AtomicUsize, failing: &AtomicBool) -> std::io::Result<()> {
    c.set_read_timeout(Some(PATIENCE))?;
    let (bytes, mut back) = ([0x5a; 700], [0; 1024]);
    loop {
        if failing.load(Ordering::SeqCst) {
            return Ok(());
        }
        c.write_all(&bytes)?;
        let mut got = 0;
        while got < bytes.len() {
            match c.read(&mut back)? {
                0 => return Ok(()),
                n => got += n,
            }
        }
        rounds.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// One request on a connection that is then kept, idle.
fn keep(mut c: TcpStream) -> TcpStream {
    write!(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let (mut text, mut part) = (Vec::new(), [0; 512]);
    while !text.ends_with(BODY.as_bytes()) {
        let n = c.read(&mut part).unwrap();
        assert!(n > 0, "closed: {}", String::from_utf8_lossy(&text));
        text.extend(&part[..n]);
    }
    c
}

/// All the load, then the signal. Returns when it was sent, and how the process ended.
fn drained_under_load(rig: &Rig, p: Process) -> (f64, ExitStatus, String) {
    let mut ab = rig.client_command("ab");
    ab.args(["-q", "-k", "-n", "100000000", "-c", &OF_AB.to_string(), &urls(rig)[0]]);
    let mut wrk = rig.client_command("wrk");
    wrk.args(["-t1", &format!("-c{OF_WRK}"), "-d60s", &urls(rig)[1]]);
    let to: Vec<_> = both(rig, HTTP).into_iter().cycle().take(IDLE).collect();
    let idle: Vec<_> = connect_many(rig, &to).into_iter().map(keep).collect();
    let to: Vec<_> = both(rig, ECHO).into_iter().cycle().take(TALKERS).collect();
    let talkers = connect_many(rig, &to);
    let (rounds, failing) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|s| {
        let talks: Vec<_> = talkers.into_iter().map(|c| s.spawn(|| talk(c, &rounds, &failing))).collect();
        let _failing = Failing(&failing);
        let mut load = [Running::quietly(ab), Running::quietly(wrk)];
        until("some load", PATIENCE, || rounds.load(Ordering::Relaxed) > 10 * TALKERS);
        for l in &mut load {
            assert!(l.wait(Duration::ZERO).is_none(), "it has ended already");
        }
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        p.signal(Signal::SIGTERM);
        for (i, talk) in talks.into_iter().enumerate() {
            talk.join().unwrap().unwrap_or_else(|e| panic!("talker {i}: {e}"));
        }
        for mut c in idle {
            assert_eq!(c.read(&mut [0; 16]).unwrap(), 0, "FIN");
        }
        let (status, log) = p.end(Duration::from_secs(15));
        (at, status, log)
    })
}

/// Whether the handshake was completed in these frames.
fn opened(frames: &[&Frame]) -> bool {
    frames.iter().any(|f| !f.ours && f.has(ACK) && !f.has(RST) && f.ack == 1 && f.seq == 1)
}

#[test]
fn every_connection_under_load_gets_a_fin_and_none_a_reset_and_the_kernels_go_on() {
    let rig = rig_with!(RigConfig::default(), "ab", "wrk", "tcpdump", "tshark", "nft", "ping");
    silence_the_kernel(&rig);
    let p = Process::ready(&rig, &config(&rig, "[drain]\ndeadline = \"10s\""));
    let capture = Capture::start(&rig, "tcp port 7 or tcp port 80");
    let (((at, status, log), rounds), answers) =
        beside_a_session(&rig, || beside_kernel_traffic(&rig, || drained_under_load(&rig, p)));
    let (pcap, _dir) = capture.stop();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("cut_off=0") && !log.contains("WARN") && !log.contains("ERROR"), "{log}");
    assert!(rounds > 0 && answers > 0);

    let frames = dissect(&pcap, &rig);
    let (mut established, mut later) = (0, 0);
    for (stream, frames) in streams(&frames) {
        if let Some(rst) = frames.iter().find(|f| f.ours && f.has(RST)) {
            panic!("stream {stream}: RST in frame {}: {frames:#?}", rst.number);
        }
        let before: Vec<&Frame> = frames.iter().copied().filter(|f| f.time < at).collect();
        let over = before.iter().any(|f| f.has(FIN) || f.has(RST));
        let reset = frames.iter().find(|f| f.has(RST)).map_or(u64::MAX, |f| f.number);
        let fin = frames.iter().find(|f| f.ours && f.has(FIN)).map_or(u64::MAX, |f| f.number);
        if opened(&frames) {
            assert!(
                fin != u64::MAX || reset != u64::MAX,
                "stream {stream}: neither FIN nor RST: {frames:#?}"
            );
            assert!(fin < reset, "stream {stream}: no FIN before the client's RST: {frames:#?}");
        }
        if opened(&before) && !over {
            established += 1;
        } else if !over {
            later += 1;
        }
    }
    println!(
        "{established} connections at the signal, {later} attempts later, {} segments, {rounds} rounds of kernel traffic, \
         {answers} answers in its session",
        frames.len()
    );
    assert!(established >= TALKERS + IDLE + OF_AB + OF_WRK, "{established} connections at the signal");
}
