//! What cannot start says why; what fails while it runs names the worker and ends the process.

use crate::common::{
    ECHO, PATIENCE, Process, both, config, connect_many, program_attached, rig_or_skip, settings, start,
};
use finwheel::control::{Cores, Settings, Terminator};
use finwheel::rig::{Rig, RigConfig, SERVER_INTERFACE};
use finwheel::service::{Context, Service};
use finwheel::tcp::record::CloseRecord;
use finwheel::wire::Tuple;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

/// Starts a process that cannot: it must exit with 1, say each of `parts`, and leave nothing on the interface.
#[track_caller]
fn refused(rig: &Rig, config: &str, wrap: &[&str], parts: &[&str]) {
    let (status, log) = Process::spawn(rig, config, wrap).end(PATIENCE);
    assert_eq!(status.code(), Some(1), "{log}");
    for part in parts {
        assert!(log.contains(part), "{part}: {log}");
    }
    assert!(!log.contains("panicked"), "{log}");
    assert!(!program_attached(rig));
}

#[test]
fn an_interface_that_does_not_exist_is_named() {
    let rig = rig_or_skip!(RigConfig::default());
    let text = config(&rig, "").replace(SERVER_INTERFACE, "nope0");
    refused(&rig, &text, &[], &["finwheel: interface nope0: no such interface"]);
}

#[test]
fn missing_privileges_are_named() {
    let rig = rig_or_skip!(RigConfig::default());
    let without = ["setpriv", "--bounding-set", "-net_admin,-net_raw,-bpf,-sys_admin"];
    let parts = ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_BPF", SERVER_INTERFACE];
    refused(&rig, &config(&rig, ""), &without, &parts);
}

#[test]
fn a_metrics_address_in_use_is_named_before_the_interface_is_touched() {
    let rig = rig_or_skip!(RigConfig::default());
    let at = crate::common::metrics();
    let _held = rig.server_ns().run_in(|| TcpListener::bind(at)).unwrap().unwrap();
    refused(&rig, &config(&rig, ""), &[], &["cannot listen on 127.0.0.1:9464 ([metrics] listen): "]);
}

#[test]
fn a_second_process_on_the_interface_is_refused_and_the_first_goes_on() {
    let rig = rig_or_skip!(RigConfig::default());
    let t = start(&rig, &settings(&rig));
    let again = rig.server_ns().run_in(|| Terminator::start(&settings(&rig))).unwrap();
    let e = again.err().unwrap().to_string();
    assert!(e.contains(SERVER_INTERFACE), "{e}");
    drop(connect_many(&rig, &both(&rig, ECHO)));
    assert!(t.stop().is_ok());
}

#[test]
fn cores_that_cannot_be_are_refused_before_anything_is_touched() {
    let rig = rig_or_skip!(RigConfig::default());
    let attempt = |cores| {
        let s = Settings { cores, ..settings(&rig) };
        let started = rig.server_ns().run_in(|| Terminator::start(&s)).unwrap();
        started.err().unwrap().to_string()
    };
    let e = attempt(Cores::List(vec![8191]));
    assert!(e.contains("CPU 8191") && e.contains("allowed on [0"), "{e}");
    let e = attempt(Cores::List(vec![0, 0]));
    assert!(e.contains("2 CPUs for 1 queues"), "{e}");
}

#[test]
fn an_interface_that_goes_away_ends_the_process_with_the_worker_named() {
    let rig = rig_or_skip!(RigConfig::default());
    let p = Process::ready(&rig, &config(&rig, ""));
    let gone = rig.server_ns().command("ip").args(["link", "del", SERVER_INTERFACE]).status().unwrap();
    assert!(gone.success());
    let (status, log) = p.end(PATIENCE);
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("worker 0 of queue 0 failed: its port failed: "), "{log}");
}

/// Echoes, but panics on a certain byte.
struct Touchy;

impl Service for Touchy {
    fn opened(&mut self, _cx: &mut dyn Context) {}
    fn data(&mut self, cx: &mut dyn Context, bytes: &[u8]) -> usize {
        assert!(bytes[0] != b'!', "touched");
        cx.send(bytes)
    }
    fn peer_closed(&mut self, cx: &mut dyn Context) {
        cx.close();
    }
    fn closed(&mut self, _tuple: &Tuple, _user: u32, _record: &CloseRecord) {}
}

#[test]
fn a_worker_that_panics_is_named_and_the_others_end_their_connections() {
    let rig = rig_or_skip!(RigConfig::with_queues(2));
    let touchy = both(&rig, 77);
    let t = start(&rig, &settings(&rig).listen("touchy", &touchy, || Touchy));
    let to: Vec<_> = both(&rig, 77).into_iter().cycle().take(24).collect();
    let mut clients = connect_many(&rig, &to);
    clients[0].write_all(b"!").unwrap();
    let waited = std::thread::spawn(move || t.wait());
    // Those of the other worker get their FIN; those of the one that is gone get nothing until the kernel answers.
    let mut fins = 0;
    for c in &mut clients[1..] {
        c.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        fins += usize::from(matches!(c.read(&mut [0; 4]), Ok(0)));
    }
    println!("{fins} of 23 connections were on the other worker");
    drop(clients);
    let outcome = waited.join().unwrap();
    assert!(fins > 0);
    assert!(!outcome.is_ok());
    let [failure] = &outcome.failures[..] else { panic!("{:?}", outcome.failures) };
    assert!(failure.cause.contains("it panicked: touched"), "{failure}");
    assert_eq!(failure.worker as u32, failure.queue);
    assert!(!program_attached(&rig));
}
