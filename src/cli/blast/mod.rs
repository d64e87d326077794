//! `finwheel blast`: the client role as a load generator.
//!
//! ```text
//!  args ─▶ Plan: the exchange, the schedule, the tables ─▶ reach: route, neighbour, sources ─▶ Terminator
//!                                                                                              │ a generator a worker
//!  live line, report ◀── Sums ◀── Desk ◀─────────────────────────────────────────────────── Generator
//! ```
//!
//! The generator itself is [`service::blast`](crate::service::blast); here is what surrounds it: the command line, the
//! interface, and what is shown.

pub mod args;
mod live;
mod plan;
mod reach;
mod report;
mod sums;

pub use args::BlastArgs;

use super::{EXIT_FAILURE, EXIT_USAGE};
use crate::control::signals::{Signals, Watch};
use crate::control::{ClientSettings, Cores, Phase, Settings, Terminator, rlimit};
use crate::port::xsk::Queues;
use crate::service::Service;
use crate::service::blast::desk::Desk;
use crate::service::blast::{Config, Generator};
use crate::tcp::TcpConfig;
use crate::tcp::config::Limits;
use crossbeam::queue::ArrayQueue;
use plan::Plan;
use reach::Reach;
use report::{Facts, Report};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use sums::Sums;

/// How long an interrupted run may take to close what is open, before it is reset.
const INTERRUPTED: Duration = Duration::from_secs(5);
/// Between looks whether it is over.
const POLL: Duration = Duration::from_millis(20);
/// Between lines.
const LINE: Duration = Duration::from_secs(1);
/// What is done about answers to connections that have ended: the peer's segments that cross with our last ones are
/// its affair, and a worker under load sees many of them.
const STRAY_REPLIES: u32 = 100_000;

/// Runs it.
#[must_use]
pub fn execute(args: &BlastArgs) -> ExitCode {
    let refused = |why: String| {
        eprintln!("error: {why}");
        ExitCode::from(EXIT_USAGE)
    };
    let plan = match Plan::new(args) {
        Ok(plan) => plan,
        Err(why) => return refused(why),
    };
    // Before any thread: all inherit the mask, and the signals wait for the one that asks for them.
    let watch = Signals::block().and_then(|s| Watch::start(&s, INTERRUPTED));
    let watch = match watch {
        Ok(watch) => watch,
        Err(e) => return failed(&anyhow::Error::from(e)),
    };
    let reach = match reach::find(args, &plan) {
        Ok(reach) => reach,
        Err(why) => return refused(why),
    };
    let workers = match workers(args, &reach) {
        Ok(n) => n,
        Err(why) => return refused(why),
    };
    match plan.configs(reach.l2, workers) {
        Ok(configs) => run(args, &plan, &reach, configs, &watch).unwrap_or_else(|e| failed(&e)),
        Err(why) => refused(why),
    }
}

fn failed(e: &anyhow::Error) -> ExitCode {
    eprintln!("error: {e:#}");
    ExitCode::from(EXIT_FAILURE)
}

/// How many workers there are to be: one for each queue, unless told otherwise.
fn workers(args: &BlastArgs, reach: &Reach) -> Result<usize, String> {
    let queues = reach.link.rx_queues.max(1);
    let n = args.workers.unwrap_or(queues);
    let interface = &reach.link.name;
    if n > queues {
        return Err(format!(
            "{n} workers for the {queues} receive queues of {interface}: one a queue at most"
        ));
    }
    if n < queues {
        eprintln!(
            "warning: answers that arrive on the last {} of {queues} queues are lost, unless none do (`ethtool -X \
             {interface} equal {n}`, `ethtool -L {interface} combined {n}`)",
            queues - n
        );
    }
    Ok(n as usize)
}

/// What the terminator is started with. Every worker takes one of the configurations, whichever.
fn settings(args: &BlastArgs, plan: &Plan, configs: Vec<Config>) -> Settings {
    let workers = configs.len();
    let waiting = ArrayQueue::new(workers.max(1));
    for c in configs {
        // The queue is as long as the list.
        let _ = waiting.push(c);
    }
    let service = Arc::new(move || -> Box<dyn Service> {
        // A service is made once in each worker, and there is a configuration for each.
        let config = waiting.pop().unwrap_or_else(|| unreachable!("more services than workers"));
        Box::new(Generator::new(config))
    });
    let mut s = Settings::new(&args.interface);
    s.open.queues = Queues::List((0..workers as u32).collect());
    s.capacity = plan.capacity(workers);
    if let Some(list) = &args.cores {
        s.cores = Cores::List(list.clone());
    }
    s.tcp = TcpConfig {
        time_wait: args.time_wait,
        // The generator's own limit comes first; these bound what it can no longer see.
        fin_wait_2: args.timeout,
        close_wait: args.timeout,
        stray_replies: STRAY_REPLIES,
        ..TcpConfig::default()
    };
    s.lasting = true;
    s.client = Some(ClientSettings {
        addresses: plan.addresses.iter().map(|a| a.to_ip()).collect(),
        ports: args.ports.clone(),
        service,
        limits: Limits::DEFAULT,
    });
    s
}

fn run(
    args: &BlastArgs,
    plan: &Plan,
    reach: &Reach,
    configs: Vec<Config>,
    watch: &Watch,
) -> anyhow::Result<ExitCode> {
    let desks: Vec<Arc<Desk>> = configs.iter().map(|c| Arc::clone(&c.desk)).collect();
    let workers = desks.len();
    rlimit::raise_locked_memory();
    let terminator = Terminator::start(&settings(args, plan, configs))?;
    let mode = mode(&terminator);
    let phases = terminator.phases().clone();
    watch.started(terminator.control(), INTERRUPTED);
    let mut sums = Sums::new(desks);
    let began = Instant::now();
    sums.go();
    let mut shown = began;
    let watched = live::wanted(args.quiet);
    while !sums.done() && phases.now() < Phase::Draining {
        std::thread::sleep(POLL);
        if shown.elapsed() >= LINE {
            let took = shown.elapsed();
            shown = Instant::now();
            if let Some(interval) = sums.collect()
                && watched
            {
                eprintln!("{}", live::line(began.elapsed(), took, &interval, &sums.sum.counts));
            }
        }
    }
    let interrupted = !sums.done();
    let elapsed = began.elapsed();
    let outcome = if interrupted { terminator.wait() } else { terminator.stop() };
    sums.last();
    let facts = Facts {
        args,
        mode,
        workers,
        concurrency: plan.concurrency,
        elapsed,
        engine: &outcome.merged.counters,
        interrupted,
    };
    let report = Report::new(&facts, &sums.sum);
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{}", report.render());
    }
    if report.silence() {
        eprintln!("nothing was answered: {}", reach.hint);
    }
    for f in &outcome.failures {
        eprintln!("error: {f}");
    }
    let good = report.ok() && outcome.is_ok();
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILURE) })
}

/// Attach and copy mode, as they are in effect.
fn mode(t: &Terminator) -> String {
    let i = t.interface();
    let copy = i.queues.first().map_or("", |(_, copy)| copy.as_str());
    format!("{}, {copy}", i.attach)
}
