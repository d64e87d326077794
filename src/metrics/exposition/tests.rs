//! Expected numbers are small whole numbers or exact quarters, which floating point holds exactly.
#![allow(clippy::float_cmp)]

use super::shown::buckets;
use super::*;
use crate::drop::DropReason;
use crate::metrics::catalog as c;
use crate::metrics::gauges::{BudgetKind, Fill};
use crate::port::RingDepths;
use crate::tcp::record::{Cause, ClosePath, First};
use crate::tcp::state::State;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Command, Stdio};

/// Samples of a rendering by series.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let mut all = BTreeMap::new();
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').expect("a sample");
        let twice = all.insert(series.to_owned(), value.parse().expect("a number"));
        assert!(twice.is_none(), "{series} twice");
    }
    all
}

fn rendered(e: &Exposition) -> BTreeMap<String, f64> {
    samples(&e.render().expect("rendered"))
}

fn exposition(workers: usize) -> Exposition {
    let e = Exposition::new(workers).expect("the catalogue is right");
    e.set_listeners(vec!["web".into(), OUTBOUND.into()]);
    e
}

/// A block with something in every field.
fn full() -> Block {
    let mut b = Block::default();
    let n = &mut b.counters;
    n.states.fill(3);
    n.drops.fill(4);
    n.closes = [[[1; Cause::ALL.len()]; First::ALL.len()]; ClosePath::ALL.len()];
    n.retransmissions.fill(5);
    n.resets_sent.fill(6);
    n.resets_received.fill(7);
    (n.busy_us, n.idle_us) = (250, 750);
    for path in ClosePath::ALL {
        b.histograms.record_close(path, Duration::from_millis(3));
    }
    b.histograms.record_handshake(Duration::from_micros(70));
    b.counters.budget_refusals.fill(8);
    b.counters.transitions.as_flattened_mut().fill(9);
    b.worker.rings = RingDepths { rx: [1, 4], fill: [2, 4], tx: [3, 8], completion: [4, 8] };
    b.worker.mailbox = [1, 2, 3];
    b.worker.tables = [Fill { used: 5, capacity: 10 }; 3];
    b.worker.wheel_lag_ms = [0, 1, 250];
    b.worker.expiry_batch.record(&crate::metrics::gauges::BATCH_BOUNDS, 1024);
    let mut l =
        ListenerCounters { opened: 6, active: 2, bytes_in: 7, bytes_out: 8, ..ListenerCounters::default() };
    l.closes.as_flattened_mut().fill(1);
    l.close_time.record_time(Duration::from_millis(3));
    b.listeners = vec![l, l];
    b
}

#[test]
fn every_metric_of_the_catalogue_is_shown_and_no_other() {
    let e = exposition(2);
    e.update(0, &full()).unwrap();
    e.set_steering(vec![("redirect", 8), ("pass", 9)]);
    let text = e.render().unwrap();
    let shown: BTreeSet<_> =
        text.lines().filter_map(|l| l.strip_prefix("# TYPE ")).filter_map(|l| l.split(' ').next()).collect();
    let known: BTreeSet<_> = c::CATALOG.iter().map(|m| m.name).collect();
    assert_eq!(shown, known);
    for m in c::CATALOG {
        assert!(text.contains(&format!("# HELP {} ", m.name)), "{}", m.name);
    }
}

#[test]
fn counters_of_workers_add_up_and_a_new_report_replaces_the_last() {
    let e = exposition(2);
    for (worker, frames) in [(0, 10), (1, 5), (0, 12)] {
        let mut b = Block::default();
        b.counters.port.rx_frames = frames;
        b.counters.closes[ClosePath::Active as usize][First::Us as usize][Cause::Service as usize] = frames;
        b.counters.states[State::Established as usize] = frames;
        b.counters.time_wait_peak = frames;
        e.update(worker, &b).unwrap();
    }
    let s = rendered(&e);
    for (series, v) in [
        ("finwheel_frames_total{direction=\"rx\"}", 17.0),
        ("finwheel_closes_total{path=\"active\",first=\"us\",cause=\"service\"}", 17.0),
        ("finwheel_connections{state=\"ESTABLISHED\"}", 17.0),
        ("finwheel_time_wait_peak{worker=\"0\"}", 12.0),
        ("finwheel_time_wait_peak{worker=\"1\"}", 5.0),
    ] {
        assert_eq!(s.get(series), Some(&v), "{series}: {s:#?}");
    }
    assert_eq!(e.merged().counters.port.rx_frames, 17);
}

#[test]
fn listeners_are_shown_by_name_over_all_workers_and_workers_by_number() {
    let e = exposition(2);
    e.update(0, &full()).unwrap();
    e.update(1, &full()).unwrap();
    // A listener that nobody has named yet.
    let mut b = full();
    b.listeners.push(ListenerCounters::default());
    e.update(1, &b).unwrap();
    let s = rendered(&e);
    for (series, v) in [
        ("finwheel_listener_connections_opened_total{listener=\"web\"}", 12.0),
        ("finwheel_listener_connections_active{listener=\"(outbound)\"}", 4.0),
        ("finwheel_listener_payload_bytes_total{listener=\"web\",direction=\"out\"}", 16.0),
        ("finwheel_listener_closes_total{listener=\"web\",path=\"reset\",cause=\"idle\"}", 2.0),
        ("finwheel_listener_close_duration_seconds_bucket{listener=\"web\",le=\"0.005\"}", 2.0),
        ("finwheel_ring_depth{worker=\"1\",ring=\"tx\"}", 3.0),
        ("finwheel_ring_slots{worker=\"1\",ring=\"completion\"}", 8.0),
        ("finwheel_mailbox_depth{worker=\"0\",queue=\"frames\"}", 3.0),
        ("finwheel_table_records{worker=\"0\",table=\"half_open\"}", 5.0),
        ("finwheel_wheel_lag_seconds{worker=\"0\",wheel=\"time_wait\"}", 0.25),
        ("finwheel_time_wait_expiry_batch_bucket{le=\"1024\"}", 2.0),
        ("finwheel_budget_refusals_total{budget=\"forward\"}", 16.0),
        ("finwheel_transitions_total{from=\"FIN_WAIT_2\",event=\"FIN\",to=\"TIME_WAIT\"}", 18.0),
    ] {
        assert_eq!(s.get(series), Some(&v), "{series}: {s:#?}");
    }
    assert_eq!(s.keys().filter(|k| k.starts_with("finwheel_listener_connections_opened")).count(), 2);
    let live = e.snapshot("ready");
    assert_eq!((live.phase.as_str(), live.workers.len()), ("ready", 2));
    assert_eq!((live.listeners[0].name.as_str(), live.listeners[0].closed), ("web", 180));
    assert_eq!(live.workers[1].lag_ms, 250);
}

#[test]
fn every_budget_is_there_from_the_start() {
    let s = rendered(&exposition(1));
    for b in BudgetKind::ALL {
        let series = format!("finwheel_budget_refusals_total{{budget=\"{}\"}}", b.as_str());
        assert_eq!(s.get(&series), Some(&0.0), "{series}");
    }
}

#[test]
fn every_drop_reason_is_there_from_the_start_and_no_close_that_did_not_occur() {
    let s = rendered(&exposition(1));
    for r in DropReason::ALL {
        let series = format!("finwheel_drops_total{{reason=\"{}\"}}", r.as_str());
        assert_eq!(s.get(&series), Some(&0.0), "{series}");
    }
    assert!(!s.keys().any(|k| k.starts_with("finwheel_closes_total")));
    assert!(!s.contains_key("finwheel_connections{state=\"CLOSED\"}"));
}

#[test]
fn series_stay_bounded() {
    let e = exposition(4);
    let empty = rendered(&e).len();
    for w in 0..4 {
        e.update(w, &full()).unwrap();
    }
    let most = rendered(&e).len();
    let product = ClosePath::ALL.len() * First::ALL.len() * Cause::ALL.len();
    let by_listener = ClosePath::ALL.len() * Cause::ALL.len();
    assert_eq!(most, empty + product + 2 * by_listener);
    assert!(empty < 400 + (4 + 2) * 30, "{empty}");
}

#[test]
fn buckets_are_cumulative_exact_and_never_claim_a_longer_time() {
    let e = exposition(1);
    // Below 256 µs hdr cells are one microsecond wide, so the bounds themselves can be hit exactly.
    for (report, times) in [(0, vec![50, 51, 100, 101, 250]), (1, vec![700, 400_000_000])] {
        let mut b = Block::default();
        for us in times {
            b.histograms.record_close(ClosePath::Passive, Duration::from_micros(us));
        }
        e.update(0, &b).unwrap_or_else(|err| panic!("{report}: {err}"));
    }
    let s = rendered(&e);
    let bucket =
        |le: &str| s[&format!("finwheel_close_duration_seconds_bucket{{path=\"passive\",le=\"{le}\"}}")];
    assert_eq!(bucket("0.00005"), 1.0);
    assert_eq!(bucket("0.0001"), 3.0);
    assert_eq!(bucket("0.00025"), 5.0);
    assert_eq!(bucket("0.0005"), 5.0);
    assert_eq!(bucket("0.001"), 6.0);
    assert_eq!(bucket("300"), 6.0);
    assert_eq!(bucket("+Inf"), 7.0);
    assert_eq!(s["finwheel_close_duration_seconds_count{path=\"passive\"}"], 7.0);
    let sum = s["finwheel_close_duration_seconds_sum{path=\"passive\"}"];
    assert!((sum - 400.001_252).abs() / sum < 0.005, "{sum}");
    assert_eq!(s["finwheel_close_duration_seconds_count{path=\"active\"}"], 0.0);
}

#[test]
fn every_time_is_in_a_bucket_that_is_long_enough_and_less_than_one_percent_too_long() {
    let mut us = 1u64;
    while us < 300_000_000 {
        let mut h = Histograms::default();
        h.record_handshake(Duration::from_micros(us));
        let shown = buckets(&h.handshake);
        let first = shown.get_bucket().iter().find(|b| b.cumulative_count() == 1);
        let right = BUCKETS_US.iter().position(|b| *b >= us).unwrap();
        let right = BUCKETS_US[right] as f64 / 1e6;
        let straddles = us as f64 / 1e6 > right * 0.992;
        match first {
            Some(b) => assert!(b.upper_bound() >= right && (b.upper_bound() <= right || straddles), "{us}"),
            None => assert!(straddles, "{us}"),
        }
        us += us / 7 + 1;
    }
}

#[test]
fn busy_is_the_share_since_the_previous_report() {
    let e = exposition(1);
    let ratio = |busy, idle| {
        let mut b = Block::default();
        (b.counters.busy_us, b.counters.idle_us) = (busy, idle);
        e.update(0, &b).unwrap();
        rendered(&e)["finwheel_worker_busy_ratio{worker=\"0\"}"]
    };
    assert_eq!(ratio(100, 300), 0.25);
    assert_eq!(ratio(400, 400), 0.75);
    assert_eq!(ratio(400, 400), 0.75);
    assert_eq!(ratio(400, 500), 0.0);
}

#[test]
fn a_silent_worker_is_named_even_if_it_never_reported() {
    let e = exposition(2);
    assert_eq!(e.silent(Duration::from_secs(5)), None);
    let later = Instant::now() + Duration::from_secs(60);
    let limit = Duration::from_secs(5);
    e.update(1, &Block::default()).unwrap();
    let silent = e.lock().silent(limit, later).unwrap();
    assert_eq!(silent.worker, 0);
    assert!(silent.for_ >= Duration::from_secs(60));
    e.lock().workers[0].reported = later;
    assert_eq!(e.lock().silent(limit, later).unwrap().worker, 1);
}

#[test]
fn a_report_of_a_worker_that_does_not_exist_is_refused() {
    let e = exposition(1);
    let refused = e.update(1, &full()).unwrap_err();
    assert_eq!(refused.to_string(), "worker 1 reported, but there are 1 only");
    assert_eq!(e.merged().histograms.handshake.len(), 0);
}

#[test]
fn promtool_finds_nothing_to_mend() {
    let e = exposition(2);
    e.update(0, &full()).unwrap();
    e.set_steering(vec![("redirect", 8)]);
    let child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            println!("skipped: promtool is not installed (Debian package `prometheus`)");
            return;
        }
        Err(e) => panic!("promtool: {e}"),
    };
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(e.render().unwrap().as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}
