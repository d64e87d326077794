//! A signal ends every connection gracefully and in time, and never touches the kernel's own traffic.

use crate::common::{
    ECHO, PATIENCE, Process, ask, beside_kernel_traffic, both, config, connect, connect_many, metrics,
    program_attached, rig_or_skip, settings, start, until,
};
use finwheel::rig::{Rig, RigConfig};
use nix::sys::signal::Signal;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(10);

/// Writes and reads until the peer closes. Returns how many rounds went well, or the error.
fn talk(mut c: TcpStream, rounds: &AtomicUsize) -> std::io::Result<()> {
    let bytes = [0x5a; 700];
    loop {
        match c.write_all(&bytes) {
            Ok(()) => {}
            Err(e) => return Err(e),
        }
        let mut got = 0;
        while got < bytes.len() {
            match c.read(&mut [0; 1024])? {
                0 => return Ok(()),
                n => got += n,
            }
        }
        rounds.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn sigterm_under_load_gives_every_connection_its_fin_and_no_reset() {
    const CLIENTS: usize = 60;
    let rig = rig_or_skip!(RigConfig::with_queues(2));
    let p = Process::ready(&rig, &config(&rig, "[drain]\ndeadline = \"10s\""));
    assert_eq!(ask(&rig, metrics(), "/readyz"), (200, "ready\n".to_owned()));
    let (exit, kernel_rounds) = beside_kernel_traffic(&rig, || {
        let to: Vec<_> = both(&rig, ECHO).into_iter().cycle().take(CLIENTS).collect();
        let clients = connect_many(&rig, &to);
        // One that reads the FIN and takes its time keeps the drain going long enough to look at it.
        let mut slow = connect(&rig, both(&rig, ECHO)[0]);
        let rounds = AtomicUsize::new(0);
        std::thread::scope(|s| {
            let talks: Vec<_> = clients.into_iter().map(|c| s.spawn(|| talk(c, &rounds))).collect();
            until("some load", PATIENCE, || rounds.load(Ordering::Relaxed) > 5 * CLIENTS);
            let began = Instant::now();
            p.signal(Signal::SIGTERM);
            assert_eq!(slow.read(&mut [0; 16]).unwrap(), 0, "FIN");
            assert_eq!(ask(&rig, metrics(), "/readyz"), (503, "draining\n".to_owned()));
            for (i, talk) in talks.into_iter().enumerate() {
                talk.join().unwrap().unwrap_or_else(|e| panic!("client {i}: {e}"));
            }
            // Each worker has told its clients by now. Before, one that had not had its core yet would take it.
            let refused = new_connection(&rig);
            assert_eq!(refused.kind(), ErrorKind::TimedOut, "{refused}");
            drop(slow);
            let end = p.end(DEADLINE);
            assert!(began.elapsed() < DEADLINE);
            end
        })
    });
    let (status, log) = exit;
    assert!(kernel_rounds > 0);
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("opened=61 closed=61 cut_off=0"), "{log}");
    assert!(!log.contains("ERROR") && !log.contains("WARN"), "{log}");
    assert!(!program_attached(&rig));
}

/// What becomes of a new connection during the drain.
fn new_connection(rig: &Rig) -> std::io::Error {
    let to = both(rig, ECHO)[0];
    rig.client_ns()
        .run_in(|| TcpStream::connect_timeout(&to, Duration::from_millis(300)))
        .unwrap()
        .unwrap_err()
}

#[test]
fn what_is_left_at_the_deadline_is_reset_and_the_exit_code_is_0() {
    let rig = rig_or_skip!(RigConfig::default());
    let p = Process::ready(&rig, &config(&rig, "[drain]\ndeadline = \"2s\""));
    let mut stubborn = connect(&rig, both(&rig, ECHO)[1]);
    let began = Instant::now();
    p.signal(Signal::SIGINT);
    assert_eq!(stubborn.read(&mut [0; 16]).unwrap(), 0, "FIN");
    let (status, log) = p.end(Duration::from_secs(4));
    let took = began.elapsed();
    assert!((Duration::from_millis(1400)..Duration::from_millis(2200)).contains(&took), "{took:?}");
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("what is left is reset connections=1"), "{log}");
    assert!(log.contains("opened=1 closed=1 cut_off=1"), "{log}");
    // The peer knows: its next write meets the RST that has come.
    let e = stubborn.write(b"x").and_then(|_| stubborn.write(b"y")).unwrap_err();
    assert!(matches!(e.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{e}");
    assert!(!program_attached(&rig));
}

#[test]
fn a_second_signal_ends_it_at_once_and_leaves_no_program_behind() {
    let rig = rig_or_skip!(RigConfig::default());
    let p = Process::ready(&rig, &config(&rig, "[drain]\ndeadline = \"1h\""));
    assert!(program_attached(&rig));
    let mut stubborn = connect(&rig, both(&rig, ECHO)[0]);
    p.signal(Signal::SIGTERM);
    assert_eq!(stubborn.read(&mut [0; 16]).unwrap(), 0, "FIN");
    let began = Instant::now();
    p.signal(Signal::SIGTERM);
    let (status, log) = p.end(PATIENCE);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(status.code(), Some(128 + Signal::SIGTERM as i32), "{log}");
    assert!(!program_attached(&rig));
    // The kernel has the port again, and nobody listens there.
    until("the kernel answers", PATIENCE, || new_connection(&rig).kind() == ErrorKind::ConnectionRefused);
}

#[test]
fn an_idle_process_drains_in_no_time() {
    let rig = rig_or_skip!(RigConfig::default());
    let p = Process::ready(&rig, &config(&rig, ""));
    let began = Instant::now();
    p.signal(Signal::SIGTERM);
    let (status, log) = p.end(PATIENCE);
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[test]
fn a_terminator_that_is_dropped_resets_what_it_has_and_gives_the_interface_back() {
    let rig = rig_or_skip!(RigConfig::default());
    let t = start(&rig, &settings(&rig));
    let mut c = connect(&rig, both(&rig, ECHO)[0]);
    c.write_all(b"x").unwrap();
    assert_eq!(c.read(&mut [0; 4]).unwrap(), 1);
    drop(t);
    assert_eq!(c.read(&mut [0; 4]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(!program_attached(&rig));
    // The interface can be had again at once.
    let t = start(&rig, &settings(&rig));
    drop(connect(&rig, both(&rig, ECHO)[1]));
    assert!(t.stop().is_ok());
}
