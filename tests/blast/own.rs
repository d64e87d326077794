//! `AF_XDP` at both ends of the cable: the generator in the client's namespace, `finwheel run` in the server's.

use crate::common::{DISCARD, ECHO, HTTP, Process, both};
use crate::tools::{LIMIT, Running, config, rig_with};
use crate::{blast, command, good, number};
use finwheel::rig::{CLIENT_INTERFACE, Rig, RigConfig};
use nix::sys::signal::Signal;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

/// Ends the server, which must have opened so many connections and have nothing to complain of.
#[track_caller]
fn end(p: Process, opened: u64) {
    p.signal(Signal::SIGTERM);
    let (status, log) = p.end(Duration::from_secs(40));
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains(&format!("opened={opened} ")) && log.contains("cut_off=0"), "{opened}: {log}");
    assert!(!log.contains("ERROR") && !log.contains("WARN"), "{log}");
}

fn serve(rig: &Rig) -> Process {
    Process::ready(rig, &config(rig, ""))
}

/// Options that all runs have. The source lies outside of the cable's network: finwheel answers to where a frame came from,
/// so that the server needs no route.
fn to(at: SocketAddr) -> String {
    let net = if at.is_ipv4() { "10.78.0.0/24" } else { "fd78::/120" };
    format!("--target {at} --interface {CLIENT_INTERFACE} --source-net {net}")
}

#[test]
fn every_close_shape_against_finwheel_is_exact_at_both_ends() {
    const N: u64 = 2000;
    let rig = rig_with!(RigConfig::default(),);
    let rows = [
        (HTTP, "--request http --close client", "active", N),
        (HTTP, "--request http --close server", "passive", N),
        (HTTP, "--request http --close both", "simultaneous", N),
        (HTTP, "--request http --close half", "half_close", 0),
        (ECHO, "--request 5000 --close client", "active", N),
        (ECHO, "--request 100000 --connections 200 --close half", "half_close", 0),
        (DISCARD, "--request 3000 --answer none --close client", "active", N),
        (ECHO, "--request 0 --close client", "active", N),
        (ECHO, "--request 100 --close reset", "reset", N),
    ];
    for (i, (port, what, path, by_path)) in rows.into_iter().enumerate() {
        let at = both(&rig, port)[i % 2];
        let n = if what.contains("--connections") { 200 } else { N };
        let connections = if n == N { format!("--connections {N}") } else { String::new() };
        let p = serve(&rig);
        let report = good(rig.client_ns(), n, &format!("{} {connections} --concurrency 50 {what}", to(at)));
        println!("{at} {what}: {:.0}/s", report["completed_per_s"].as_f64().unwrap());
        let closes = &report["closes"];
        assert!(number(closes, &format!("/{path}")) >= by_path, "{what}: {closes}");
        let sent = number(&report, "/resets_sent");
        assert_eq!(sent, if path == "reset" { n } else { 0 }, "{what}");
        assert_eq!(number(&report, "/resets_received"), 0, "{what}");
        assert!(number(&report, "/peak_open") <= 50, "{what}");
        end(p, n);
    }
}

#[test]
fn two_workers_at_each_end_share_the_schedule() {
    let rig = rig_with!(RigConfig::with_queues(2),);
    let p = serve(&rig);
    let at = both(&rig, HTTP)[0];
    let report = good(rig.client_ns(), 3001, &format!("{} --connections 3001 --concurrency 64", to(at)));
    assert_eq!(number(&report, "/workers"), 2);
    end(p, 3001);
}

#[test]
fn an_open_loop_makes_exactly_its_rate() {
    let rig = rig_with!(RigConfig::default(),);
    let p = serve(&rig);
    let at = both(&rig, ECHO)[0];
    let args = format!("{} --rate 1500 --duration 2s --request 64", to(at));
    let report = good(rig.client_ns(), 3000, &args);
    assert!(report["elapsed_s"].as_f64().unwrap() >= 1.9, "{report:#}");
    assert_eq!(report["loop"], "open");
    end(p, 3000);
}

#[test]
fn thousands_are_held_at_once_from_many_addresses() {
    const N: u64 = 7000;
    let rig = rig_with!(RigConfig::default(),);
    let p = serve(&rig);
    let at = both(&rig, ECHO)[0];
    let args =
        format!("{} --connections {N} --concurrency {N} --request 10 --hold 3s --ports 20000-20099", to(at));
    let report = good(rig.client_ns(), N, &args);
    assert_eq!(number(&report, "/peak_open"), N, "{report:#}");
    assert!(number(&report, "/latency_us/total/min") >= 2_990_000, "{report:#}");
    end(p, N);
}

#[test]
fn pairs_are_taken_out_of_time_wait_when_ports_are_few() {
    let rig = rig_with!(RigConfig::default(),);
    let p = serve(&rig);
    let at = both(&rig, HTTP)[0];
    let net = "10.78.0.1/32";
    let args = format!(
        "--target {at} --interface {CLIENT_INTERFACE} --source-net {net} --ports 20000-20499 --connections 5000 \
         --concurrency 20"
    );
    let report = good(rig.client_ns(), 5000, &args);
    assert_eq!(number(&report, "/time_wait_reused"), 4500, "{report:#}");
    assert_eq!(number(&report, "/resets_sent") + number(&report, "/resets_received"), 0);
    end(p, 5000);
}

#[test]
fn an_interrupted_run_ends_what_is_open_and_reports() {
    let rig = rig_with!(RigConfig::default(),);
    let p = serve(&rig);
    let at = both(&rig, ECHO)[0];
    let args = format!("{} --rate 200 --duration 1h --request 10 --hold 1h --concurrency 500 --json", to(at));
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let mut c = command(rig.client_ns(), &args);
    c.stdin(Stdio::null()).stdout(std::fs::File::create(&out).unwrap());
    let mut child = Running(c.spawn().unwrap());
    // Once the server has some of them, it is under way.
    assert!(child.wait(Duration::from_secs(3)).is_none(), "it ended by itself");
    child.signal(Signal::SIGINT);
    let status = child.wait(LIMIT).expect("it ends");
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&out).unwrap()).unwrap();
    assert_eq!(status.code(), Some(0), "{report:#}");
    assert_eq!(report["interrupted"], true);
    let (begun, ended) =
        (number(&report, "/connections"), number(&report, "/completed") + number(&report, "/cut_short"));
    assert!(begun > 0 && ended == begun && number(&report, "/errors_total") == 0, "{report:#}");
    assert_eq!(number(&report, "/resets_sent"), 0, "{report:#}");
    drop(p);
}

#[test]
fn errors_are_counted_by_kind_and_decide_the_exit_code() {
    let rig = rig_with!(RigConfig::default(),);
    let _p = serve(&rig);
    let at = both(&rig, ECHO)[0];
    // The echo of a request is no response.
    let args = format!("{} --connections 50 --request http", to(at));
    let (report, ran) = blast(rig.client_ns(), &args);
    assert_eq!(ran.status.code(), Some(1), "{}", ran.all());
    assert_eq!(
        (number(&report, "/errors/bad_response"), number(&report, "/errors_total")),
        (50, 50),
        "{report:#}"
    );
    for (most, code) in [("50", 0), ("49", 1), ("100%", 0)] {
        let (_, ran) = blast(rig.client_ns(), &format!("{args} --max-errors {most}"));
        assert_eq!(ran.status.code(), Some(code), "{most}: {}", ran.all());
    }
}
