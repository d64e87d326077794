//! The demo on the real thing: a throwaway pair of namespaces, the terminator on `AF_XDP` in one, kernel sockets in the
//! other.
//!
//! Needs root (namespaces, veth, XDP). Everything made here goes with the namespaces, which are removed on every way
//! out: at the end, on an error, and on SIGINT or SIGTERM.

use super::clients::{self, Job, Progress};
use super::live::Live;
use super::summary::{ClientTally, Summary};
use super::{DemoArgs, Out, Outcome, SAMPLES, TIME_WAIT, entries_of, sample_plan};
use crate::control::{Settings, StartError, Terminator};
use crate::port::xsk::CopyMode;
use crate::rig::{CLIENT_INTERFACE, Cleaner, Rig, RigConfig, SERVER_INTERFACE};
use crate::service::discard::Discard;
use crate::service::echo::Echo;
use crate::service::http::{Http, HttpConfig};
use crate::service::scripted::Scripted;
use crate::shard::Capacity;
use crate::shard::trace::Entry;
use crate::sim::client::{Order, Plan};
use crate::sim::fleet::{BODY, DISCARD_PORT, ECHO_PORT, HTTP_PORT};
use crate::tcp::state::State;
use crate::wire::Endpoint;
use anyhow::{Context, anyhow};
use nix::sys::signal::{SigSet, Signal};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Why there is no outcome.
pub enum Failure {
    /// `AF_XDP` on veth cannot be had here; the simulated link can stand in.
    Unavailable(String),
    /// It began and failed.
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(e: anyhow::Error) -> Self {
        Self::Failed(e)
    }
}

/// First source port of the sampled connections: below the clients' ephemeral range.
const SAMPLE_PORT: u16 = 901;
/// Tries for a sample whose FINs cross: whether they do is decided by microseconds.
const CROSSING_TRIES: u16 = 40;
/// How often the live table is drawn.
const REFRESH: Duration = Duration::from_millis(200);
/// How long after the last connection the last `TIME_WAIT` may take to expire.
const SETTLE: Duration = Duration::from_secs(10);
/// Deadline of the drain at the end; nothing is left to drain by then.
const DRAIN: Duration = Duration::from_secs(5);
/// The plans' seed: the demo is the same each time.
const SEED: u64 = 0xf1;

/// Runs the demo.
///
/// # Errors
/// See [`Failure`].
pub fn run(args: &DemoArgs, out: &Out) -> Result<Outcome, Failure> {
    crate::rig::remove_stale();
    let rig = Rig::new(RigConfig::with_queues(args.workers)).map_err(|e| {
        if e.is_privilege() { Failure::Unavailable(e.to_string()) } else { Failure::Failed(e.into()) }
    })?;
    clean_on_signal(rig.cleaner())?;
    widen_client_ports(&rig)?;
    crate::control::rlimit::raise_locked_memory();
    let settings = settings(args);
    let terminator = match rig.server_ns().run_in(|| Terminator::start(&settings)) {
        Ok(Ok(t)) => t,
        Ok(Err(e @ StartError::Port(_))) => return Err(Failure::Unavailable(e.to_string())),
        Ok(Err(e)) => return Err(Failure::Failed(e.into())),
        Err(e) => return Err(Failure::Failed(e.into())),
    };
    let mode = mode(&terminator);
    out.text(&format!(
        "AF_XDP on veth {SERVER_INTERFACE} ({mode}), kernel clients behind {CLIENT_INTERFACE}, {} worker{}\n",
        args.workers,
        if args.workers == 1 { "" } else { "s" }
    ));
    let result = drive(args, out, &rig, &terminator, mode);
    let ended = terminator.drain(DRAIN);
    let outcome = result?;
    if !ended.is_ok() {
        return Err(Failure::Failed(anyhow!("the terminator did not end in order: {ended:?}")));
    }
    Ok(outcome)
}

fn settings(args: &DemoArgs) -> Settings {
    let open = args.concurrency as usize;
    let at = |port| [SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)), (Ipv6Addr::UNSPECIFIED, port).into()];
    let connections = (4 * open).max(1024);
    let mut s = Settings::new(SERVER_INTERFACE)
        .listen("echo", &at(ECHO_PORT), move || Scripted::new(Echo, connections))
        .listen("discard", &at(DISCARD_PORT), move || Scripted::new(Discard, connections))
        .listen("http", &at(HTTP_PORT), move || {
            Http::new(HttpConfig { body: BODY.to_vec(), connections, ..HttpConfig::default() })
        });
    s.tcp.time_wait = TIME_WAIT;
    s.capacity = Capacity {
        connections,
        half_open: connections,
        time_wait: args.connections as usize + 1024,
        chunks: (64 * open).max(4096),
    };
    s
}

/// In effect, in words: `native, copy`.
fn mode(t: &Terminator) -> String {
    let i = t.interface();
    let copy = match i.queues.first() {
        Some((_, CopyMode::ZeroCopy)) => ", zero-copy",
        Some((_, CopyMode::Copy)) => ", copy",
        None => "",
    };
    format!("{}{copy}", i.attach)
}

/// Removes the namespaces when the demo is interrupted.
fn clean_on_signal(cleaner: Cleaner) -> anyhow::Result<()> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGINT);
    set.add(Signal::SIGTERM);
    set.thread_block().context("block signals")?;
    std::thread::Builder::new()
        .name("fw-signals".into())
        .spawn(move || {
            if let Ok(signal) = set.wait() {
                cleaner.clean();
                std::process::exit(128 + signal as i32);
            }
        })
        .context("signal thread")?;
    Ok(())
}

/// Every port but the reserved ones, and those in `TIME_WAIT` again after a second: as on any load generator.
fn widen_client_ports(rig: &Rig) -> anyhow::Result<()> {
    rig.client_ns().sysctl("net/ipv4/ip_local_port_range", "1024 65000")?;
    rig.client_ns().sysctl("net/ipv4/tcp_tw_reuse", "1")?;
    Ok(())
}

fn drive(
    args: &DemoArgs,
    out: &Out,
    rig: &Rig,
    terminator: &Terminator,
    mode: String,
) -> Result<Outcome, Failure> {
    let servers = [
        IpAddr::from(rig.server_v4().context("the rig has an IPv4 address")?),
        rig.server_v6().context("the rig has an IPv6 address")?.into(),
    ];
    let client = IpAddr::from(rig.client_v4().context("the rig has an IPv4 address")?);
    let samples = sample_jobs(servers[0], client);
    let remotes = samples.iter().filter_map(|(_, j)| j.bind).map(Endpoint::from).collect();
    terminator.trace(remotes);
    let first: Vec<Job> = samples.iter().map(|(_, j)| *j).collect();
    let rest = args.connections.saturating_sub(first.len() as u64);
    let others = (0..rest).map(move |n| Job {
        plan: Plan::numbered(SEED, n),
        server: servers[(n / 12 % 2) as usize],
        bind: None,
    });
    let jobs = first.into_iter().take(args.connections as usize).chain(others);
    let clients = watch(args, out, rig, terminator, jobs)?;
    let merged = terminator.report();
    let trace = terminator.take_trace();
    let summary =
        Summary::new("af_xdp", mode, args.connections, &merged.counters, &merged.histograms, &clients);
    Ok(Outcome { summary, clients, samples: pick(&samples, &trace) })
}

/// One connection of each order from a known port; several for the crossing one.
fn sample_jobs(server: IpAddr, client: IpAddr) -> Vec<(&'static str, Job)> {
    let mut port = SAMPLE_PORT;
    let mut jobs = Vec::new();
    for (order, title) in SAMPLES {
        let tries = if order == Order::Both { CROSSING_TRIES } else { 1 };
        for _ in 0..tries {
            let bind = Some(SocketAddr::new(client, port));
            jobs.push((title, Job { plan: sample_plan(order), server, bind }));
            port += 1;
        }
    }
    jobs
}

/// The trace of one connection of each order: of the crossing ones, the first that really crossed.
fn pick(samples: &[(&'static str, Job)], trace: &[Entry]) -> Vec<(&'static str, Vec<Entry>)> {
    let mut picked: Vec<(&'static str, Vec<Entry>)> = Vec::new();
    for (title, job) in samples {
        let Some(remote) = job.bind.map(Endpoint::from) else { continue };
        let entries = entries_of(trace, remote);
        let crossed = entries.iter().any(|e| e.state == State::Closing);
        match picked.iter_mut().find(|(t, _)| t == title) {
            None => picked.push((title, entries)),
            Some((_, kept)) => {
                if crossed && !kept.iter().any(|e| e.state == State::Closing) {
                    *kept = entries;
                }
            }
        }
    }
    picked
}

/// Runs the clients and draws the live table until they are done and the last `TIME_WAIT` has expired.
fn watch(
    args: &DemoArgs,
    out: &Out,
    rig: &Rig,
    terminator: &Terminator,
    jobs: impl Iterator<Item = Job> + Send,
) -> Result<ClientTally, Failure> {
    let progress = Arc::new(Progress::default());
    let concurrency = args.concurrency as usize;
    let begin = Instant::now();
    let mut live = Live::new(args.connections, out);
    let clients = std::thread::scope(|scope| {
        let work = scope.spawn(|| rig.client_ns().run_in(|| clients::run(jobs, concurrency, &progress)));
        while !work.is_finished() {
            std::thread::sleep(REFRESH);
            live.show(out, begin.elapsed(), &terminator.report().counters);
        }
        work.join()
    });
    let clients = match clients {
        Ok(result) => result.context("client namespace")?.context("clients")?,
        Err(panic) => std::panic::resume_unwind(panic),
    };
    let until = Instant::now() + SETTLE;
    loop {
        let counters = terminator.report().counters;
        live.show(out, begin.elapsed(), &counters);
        let left: u64 =
            State::ALL.into_iter().filter(|s| *s != State::Listen).map(|s| counters.states[s as usize]).sum();
        if left == 0 || Instant::now() >= until {
            break;
        }
        std::thread::sleep(REFRESH);
    }
    live.end(out);
    Ok(clients)
}
