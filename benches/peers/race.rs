//! The three servers side by side: each in its turn, on the same core behind the same cable, loaded by the same client on
//! the other core; and again, several times, so that what disturbs one turn disturbs no server more than another.

use crate::bed::{Bed, Cores};
use crate::client::{self, Load, Report};
use crate::servers::{Kind, Server};
use crate::spread::Spread;
use anyhow::Result;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// Connections at a time that are tried, of which the best counts. Beyond these the veth's ring of 256 frames is the limit.
const CONCURRENCIES: [u32; 3] = [64, 128, 256];
/// Share of the slowest server's rate at which latencies are compared: none of them is at its limit.
const COMMON: f64 = 0.5;

/// How long, and how often.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Turns of each server.
    pub rounds: u32,
    /// Of one turn.
    pub turn: Duration,
    /// Of a try to find the best concurrency.
    pub probe: Duration,
}

/// One turn.
#[derive(Clone, Copy, Debug)]
struct Turn {
    conn_per_s: f64,
    core_s_per_million: f64,
    threads_s_per_million: f64,
    core_busy: f64,
    errors: f64,
    close_ms: [f64; 2],
    first_byte_ms: [f64; 2],
}

/// A server's turns.
#[derive(Debug, Default)]
struct Lane {
    concurrency: u32,
    full: Vec<Turn>,
    common: Vec<Turn>,
    /// Turns at the common rate that were taken again.
    repeated: u32,
}

/// Connections a second and core time of one run.
fn turn(bed: &Bed, cores: Cores, server: &Server, options: &str, takes: Duration) -> Result<Turn> {
    let account = server.account(bed, cores.server)?;
    let load = Load {
        cores: vec![cores.client],
        options: format!("--request http --close server --timeout 5s {options}"),
        takes,
    };
    let before = account.read()?;
    let r: Report = client::run(bed, &load)?;
    let used = account.read()?.since(&before);
    let completed = r.figure("/completed")?;
    let seconds = r.figure("/elapsed_s")?;
    let pair = |lap| Ok::<_, anyhow::Error>([r.ms(lap, "p50")?, r.ms(lap, "p99")?]);
    Ok(Turn {
        conn_per_s: r.figure("/completed_per_s")?,
        core_s_per_million: used.core / completed * 1e6,
        threads_s_per_million: used.threads / completed * 1e6,
        core_busy: used.core / seconds,
        errors: r.figure("/errors_total")? / r.figure("/connections")?,
        close_ms: pair("close")?,
        first_byte_ms: pair("first_byte")?,
    })
}

/// A turn in a closed loop.
fn closed(bed: &Bed, cores: Cores, kind: Kind, concurrency: u32, takes: Duration) -> Result<Turn> {
    let server = Server::start(bed, kind, &[cores.server])?;
    let options = format!("--concurrency {concurrency} --duration {}ms", takes.as_millis());
    let t = turn(bed, cores, &server, &options, takes)?;
    server.stop()?;
    Ok(t)
}

/// A turn in an open loop.
fn open(bed: &Bed, cores: Cores, kind: Kind, rate: f64, takes: Duration) -> Result<Turn> {
    let server = Server::start(bed, kind, &[cores.server])?;
    let options = format!("--rate {rate:.0} --concurrency 4096 --duration {}ms", takes.as_millis());
    let t = turn(bed, cores, &server, &options, takes)?;
    server.stop()?;
    Ok(t)
}

/// Runs it. Returns the part `veth` of the summary.
pub fn run(bed: &Bed, cores: Cores, effort: Effort, say: &mut dyn FnMut(&str)) -> Result<Value> {
    let mut lanes: [Lane; 3] = Default::default();
    for (lane, kind) in lanes.iter_mut().zip(Kind::ALL) {
        let mut best = 0.0;
        for concurrency in CONCURRENCIES {
            let t = closed(bed, cores, kind, concurrency, effort.probe)?;
            if t.conn_per_s > best {
                (best, lane.concurrency) = (t.conn_per_s, concurrency);
            }
        }
        say(&format!("{}: about {best:.0} connections/s, {} at a time", kind.as_str(), lane.concurrency));
    }
    for round in 1..=effort.rounds {
        for (lane, kind) in lanes.iter_mut().zip(Kind::ALL) {
            let t = closed(bed, cores, kind, lane.concurrency, effort.turn)?;
            say(&format!(
                "round {round}, {}: {:.0} connections/s, {:.2} CPU s a million (core {:.0} % busy; by threads {:.2})",
                kind.as_str(),
                t.conn_per_s,
                t.core_s_per_million,
                t.core_busy * 100.0,
                t.threads_s_per_million
            ));
            lane.full.push(t);
        }
    }
    let median = |lane: &Lane, of: fn(&Turn) -> f64| Spread::of(lane.full.iter().map(of)).median;
    let rate = COMMON * lanes.iter().map(|l| median(l, |t| t.conn_per_s)).fold(f64::INFINITY, f64::min);
    for round in 1..=effort.rounds {
        for (lane, kind) in lanes.iter_mut().zip(Kind::ALL) {
            // At a rate that each server bears with ease, too many errors are a bad moment of the machine. Once more, and
            // counted: one that fails twice does not bear it.
            let t = open(bed, cores, kind, rate, effort.turn).or_else(|e| {
                say(&format!("round {round} at {rate:.0}/s, {}: again, after {e:#}", kind.as_str()));
                lane.repeated += 1;
                open(bed, cores, kind, rate, effort.turn)
            })?;
            say(&format!(
                "round {round} at {rate:.0}/s, {}: close p50 {:.3} ms, p99 {:.3} ms",
                kind.as_str(),
                t.close_ms[0],
                t.close_ms[1]
            ));
            lane.common.push(t);
        }
    }
    Ok(summary(&lanes, rate))
}

fn summary(lanes: &[Lane; 3], rate: f64) -> Value {
    let mut veth: Map<String, Value> =
        Kind::ALL.iter().zip(lanes).map(|(kind, lane)| (kind.as_str().to_owned(), figures(lane))).collect();
    let of = |key: &str, kind: Kind| veth[kind.as_str()][key].as_f64().unwrap_or(f64::NAN);
    let cost = |kind| of("cpu_s_per_million", kind);
    let by_threads = |kind| of("threads_s_per_million", kind);
    let ratios = json!({
        "vs_nginx_per_cpu_s": cost(Kind::Nginx) / cost(Kind::Finwheel),
        "vs_nginx_per_thread_s": by_threads(Kind::Nginx) / by_threads(Kind::Finwheel),
        "vs_epoll_per_cpu_s": cost(Kind::Epoll) / cost(Kind::Finwheel),
        "vs_nginx_conn_per_s": of("conn_per_s", Kind::Finwheel) / of("conn_per_s", Kind::Nginx),
        "common_rate": rate,
    });
    if let Value::Object(ratios) = ratios {
        veth.extend(ratios);
    }
    Value::Object(veth)
}

/// Medians, and how far apart the rounds were.
fn figures(lane: &Lane) -> Value {
    let full = |of: fn(&Turn) -> f64| Spread::of(lane.full.iter().map(of));
    let common = |of: fn(&Turn) -> f64| Spread::of(lane.common.iter().map(of)).median;
    let (rate, cost) = (full(|t| t.conn_per_s), full(|t| t.core_s_per_million));
    json!({
        "conn_per_s": rate.median,
        "conn_per_s_min": rate.min,
        "conn_per_s_max": rate.max,
        "cpu_s_per_million": cost.median,
        "cpu_s_per_million_min": cost.min,
        "cpu_s_per_million_max": cost.max,
        "threads_s_per_million": full(|t| t.threads_s_per_million).median,
        "core_busy": full(|t| t.core_busy).median,
        "errors_share": full(|t| t.errors).max,
        "concurrency": lane.concurrency,
        "rounds": lane.full.len(),
        "common_repeated": lane.repeated,
        "full_close_ms_p50": full(|t| t.close_ms[0]).median,
        "full_close_ms_p99": full(|t| t.close_ms[1]).median,
        "close_ms_p50": common(|t| t.close_ms[0]),
        "close_ms_p99": common(|t| t.close_ms[1]),
        "first_byte_ms_p50": common(|t| t.first_byte_ms[0]),
        "first_byte_ms_p99": common(|t| t.first_byte_ms[1]),
        "common_cpu_s_per_million": common(|t| t.core_s_per_million),
    })
}
