//! `finwheel sim`: seeded simulation of the whole dataplane, seed after seed, until one fails.

use super::EXIT_FAILURE;
use crate::sim::faults::Choice;
use crate::sim::report::{Deeds, Report};
use crate::sim::run;
use crate::sim::sabotage::Sabotage;
use crate::sim::scenario::{Options, Strengths};
use anyhow::Context;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Simulate one seed or many.
#[derive(Clone, Debug, clap::Args)]
pub struct SimArgs {
    /// The first seed; a random one when not given. It is shown first.
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,
    /// How many seeds to run, one after the other.
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub seeds: u64,
    /// Stop after this time, whatever is left of the seeds, as "8h" or "90s".
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub duration: Option<Duration>,
    /// Seeds to run at the same time.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=256))]
    pub jobs: u64,
    /// Connections of each run.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub connections: u64,
    /// Server workers; each seed chooses from 1 to 4 when not given.
    #[arg(long, value_name = "W", value_parser = clap::value_parser!(u64).range(1..=16))]
    pub workers: Option<u64>,
    /// "swarm" for what each seed chooses, "none", "all", or a list with commas: loss, duplication, reordering,
    /// corruption, spikes, down, bottleneck, rings, umem, chunks, tables, short-wait, clock, stall, hold, rss, order,
    /// jumbo, vanish, abort, reuse, drain.
    #[arg(long, value_name = "LIST", default_value = "swarm")]
    pub faults: Choice,
    /// Loss both ways, in percent; the seed chooses when not given. Switches the fault on.
    #[arg(long, value_name = "PCT", value_parser = percent)]
    pub loss: Option<f64>,
    /// Duplication, likewise.
    #[arg(long, value_name = "PCT", value_parser = percent)]
    pub duplication: Option<f64>,
    /// Reordering, likewise.
    #[arg(long, value_name = "PCT", value_parser = percent)]
    pub reordering: Option<f64>,
    /// Corruption, likewise.
    #[arg(long, value_name = "PCT", value_parser = percent)]
    pub corruption: Option<f64>,
    /// Write a packet log of the run to a file, or with "-" to standard output: time, worker, direction, state, segment.
    /// For one seed.
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Print the result as one JSON object, as the last line of standard output; everything else goes to standard error.
    #[arg(long)]
    pub json: bool,
    /// Make the simulation itself wrong, to see that it notices.
    #[arg(long, hide = true, value_parser = sabotage)]
    pub sabotage: Option<Sabotage>,
}

fn percent(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|e| format!("{e}"))?;
    if (0.0..=100.0).contains(&value) {
        Ok(value / 100.0)
    } else {
        Err("a percentage is from 0 to 100".into())
    }
}

fn sabotage(text: &str) -> Result<Sabotage, String> {
    let names = || Sabotage::ALL.map(|s| format!("{s:?}"));
    Sabotage::ALL.into_iter().find(|s| format!("{s:?}") == text).ok_or_else(|| names().join(", "))
}

impl SimArgs {
    fn options(&self, seed: u64) -> Options {
        Options {
            seed,
            connections: self.connections,
            workers: self.workers.map(|w| w as usize),
            faults: self.faults,
            strengths: Strengths {
                loss: self.loss,
                duplication: self.duplication,
                reordering: self.reordering,
                corruption: self.corruption,
            },
            sabotage: self.sabotage,
        }
    }
}

/// What all seeds came to.
#[derive(Debug, Default, Serialize)]
struct Sum {
    first_seed: u64,
    seeds: u64,
    /// Simulated seconds.
    simulated: f64,
    deeds: Deeds,
    /// The hash of what happened on the link; of one seed.
    digest: Option<String>,
    failed: Option<Failed>,
}

impl Sum {
    fn add(&mut self, r: &Report) {
        self.seeds += 1;
        self.simulated += r.took.as_secs_f64();
        self.deeds.add(&r.deeds);
        self.digest = (self.seeds == 1).then(|| format!("{:016x}", r.digest));
        if !r.good() && self.failed.is_none() {
            let violations = r.violations.iter().map(ToString::to_string).collect();
            self.failed = Some(Failed { seed: r.options.seed, violations, replay: r.replay() });
        }
    }
}

#[derive(Debug, Serialize)]
struct Failed {
    seed: u64,
    violations: Vec<String>,
    replay: String,
}

/// Runs the seeds.
#[must_use]
pub fn execute(args: &SimArgs) -> ExitCode {
    match simulate(args) {
        Ok(sum) if sum.failed.is_none() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(EXIT_FAILURE),
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::from(EXIT_FAILURE)
        }
    }
}

fn simulate(args: &SimArgs) -> anyhow::Result<Sum> {
    let first = args.seed.unwrap_or_else(|| SmallRng::from_os_rng().random());
    let log_on_stdout = args.log.as_ref().is_some_and(|f| f.as_os_str() == "-");
    let aside = args.json || log_on_stdout;
    let say = |text: &str| if aside { eprintln!("{text}") } else { println!("{text}") };
    say(&format!("first seed {first}"));
    let began = Instant::now();
    let sum = if let Some(path) = &args.log {
        let mut out: Box<dyn Write> = if log_on_stdout {
            Box::new(BufWriter::new(std::io::stdout()))
        } else {
            let file = File::create(path).with_context(|| format!("packet log {}", path.display()))?;
            Box::new(BufWriter::new(file))
        };
        let report = run(&args.options(first), Some(&mut out));
        out.flush().context("packet log")?;
        let mut sum = Sum { first_seed: first, ..Sum::default() };
        sum.add(&report);
        say(&report.to_string());
        sum
    } else {
        run_all(args, first, began, &say)
    };
    let figures: Vec<_> = sum.deeds.iter().map(|(what, n)| format!("{what} {n}")).collect();
    say(&format!(
        "{} seeds, {:.0} s simulated in {:.1} s: {}",
        sum.seeds,
        sum.simulated,
        began.elapsed().as_secs_f64(),
        figures.join(", ")
    ));
    if args.json {
        println!("{}", serde_json::to_string(&sum)?);
    }
    Ok(sum)
}

/// Time between two lines about how far it is.
const NEWS: Duration = Duration::from_secs(10);

/// Runs seed after seed, several at a time, until one fails, the time is over, or all are done.
fn run_all(args: &SimArgs, first: u64, began: Instant, say: &(impl Fn(&str) + Sync)) -> Sum {
    let next = AtomicU64::new(0);
    let shared = Mutex::new((Sum { first_seed: first, ..Sum::default() }, Instant::now()));
    let worker = || loop {
        let over = args.duration.is_some_and(|d| began.elapsed() >= d);
        let n = next.fetch_add(1, Ordering::Relaxed);
        if n >= args.seeds || over {
            return;
        }
        let report = run(&args.options(first.wrapping_add(n)), None);
        if !report.good() {
            next.store(args.seeds, Ordering::Relaxed);
        }
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.0.add(&report);
        if !report.good() || args.seeds == 1 {
            say(&report.to_string());
        } else if shared.1.elapsed() >= NEWS {
            shared.1 = Instant::now();
            say(&format!("{} seeds in {:.0} s", shared.0.seeds, began.elapsed().as_secs_f64()));
        }
    };
    thread::scope(|scope| {
        for _ in 0..args.jobs {
            scope.spawn(worker);
        }
    });
    shared.into_inner().unwrap_or_else(PoisonError::into_inner).0
}
