//! What a process gives up once it serves, and that it serves all the same.

use crate::common::{
    ECHO, PATIENCE, Process, ask, both, config, connect, metrics, program_attached, rig_or_skip, until,
};
use finwheel::port::privileges::Capability;
use finwheel::rig::RigConfig;
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::process::{Command, Output};

fn sandbox(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_finwheel")).arg("sandbox").args(args).output().unwrap()
}

/// What became of each attempt, by thread and name.
fn attempts(o: &Output) -> BTreeMap<String, String> {
    let text = String::from_utf8(o.stdout.clone()).unwrap();
    text.lines().map(|l| l.rsplit_once(' ').unwrap()).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

#[test]
fn what_must_fail_fails_in_threads_from_before_and_in_the_one_that_enters() {
    let within = sandbox(&[]);
    assert!(within.status.success(), "{}", String::from_utf8_lossy(&within.stderr));
    let within = attempts(&within);
    assert_eq!(within.len(), 30, "{within:?}");
    for (name, outcome) in &within {
        assert_eq!(outcome, "EPERM", "{name}");
    }
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: without root, EPERM shows nothing of the sandbox");
        return;
    }
    // The attempts can succeed: outside, nothing is refused for want of permission. The last one ends the process.
    let outside = sandbox(&["--without"]);
    assert!(outside.status.success());
    let outside = attempts(&outside);
    assert_eq!(outside.len(), 14, "{outside:?}");
    for (name, outcome) in &outside {
        assert_ne!(outcome, "EPERM", "{name}");
    }
}

#[test]
fn a_thread_that_keeps_its_capabilities_is_named() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: without root there are no capabilities to keep");
        return;
    }
    let careless = sandbox(&["--careless"]);
    assert_eq!(careless.status.code(), Some(1));
    let said = String::from_utf8(careless.stderr).unwrap();
    assert!(said.contains("thread careless holds 0x") && said.contains("sandbox::begin"), "{said}");
}

/// Fields of /proc/PID/task/TID/status by thread name.
fn threads(pid: u32) -> BTreeMap<String, BTreeMap<String, String>> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let each = tasks.map(|task| {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let fields = status.lines().filter_map(|l| l.split_once(':'));
        let fields: BTreeMap<_, _> = fields.map(|(k, v)| (k.to_owned(), v.trim().to_owned())).collect();
        (fields["Name"].clone(), fields)
    });
    each.collect()
}

fn set(field: &str) -> u64 {
    u64::from_str_radix(field, 16).unwrap()
}

#[test]
fn a_process_serves_reports_and_drains_without_the_privileges_it_started_with() {
    let rig = rig_or_skip!(RigConfig::with_queues(2));
    let p = Process::ready(&rig, &config(&rig, ""));
    let threads = threads(p.pid());
    let names: Vec<_> = threads.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "finwheel",
            "fw-admin",
            "fw-closes",
            "fw-control",
            "fw-http",
            "fw-signals",
            "fw-worker-0",
            "fw-worker-1"
        ]
    );
    for (name, status) in &threads {
        // The kernel asks of whoever takes the program off, and before 5.19 of whoever writes its maps.
        let allowed =
            if name == "fw-control" { Capability::NetAdmin.bit() | Capability::Bpf.bit() } else { 0 };
        for field in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
            assert_eq!(set(&status[field]) & !allowed, 0, "{name} {field}");
        }
        assert_eq!((status["Seccomp"].as_str(), status["NoNewPrivs"].as_str()), ("2", "1"), "{name}");
    }
    assert_ne!(set(&threads["fw-control"]["CapEff"]) & Capability::NetAdmin.bit(), 0);
    for to in both(&rig, ECHO) {
        let mut c = connect(&rig, to);
        c.write_all(b"hello").unwrap();
        c.shutdown(std::net::Shutdown::Write).unwrap();
        let mut back = Vec::new();
        c.read_to_end(&mut back).unwrap();
        assert_eq!(back, b"hello");
    }
    // The supervisor has gone round: it reads the program's counters and moves its lease on.
    let steered = "finwheel_steering_packets_total{verdict=\"redirected\"}";
    until("counters of the steering program", PATIENCE, || {
        let (_, text) = ask(&rig, metrics(), "/metrics");
        text.lines().any(|l| l.strip_prefix(steered).is_some_and(|n| n.trim() != "0"))
    });
    p.signal(Signal::SIGTERM);
    let (status, log) = p.end(PATIENCE);
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!log.contains("ERROR") && !log.contains("WARN"), "{log}");
    assert!(!program_attached(&rig));
}

#[test]
fn it_can_be_turned_off() {
    let rig = rig_or_skip!(RigConfig::default());
    let p = Process::ready(&rig, &config(&rig, "[process]\nsandbox = false"));
    for (name, status) in threads(p.pid()) {
        assert_eq!(status["Seccomp"], "0", "{name}");
        assert_ne!(set(&status["CapEff"]), 0, "{name}");
    }
}
