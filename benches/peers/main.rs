//! finwheel beside its peers: what `make bench` runs after the benches of the engine.
//!
//! ```text
//!  Bed: a veth, each end received on its own core
//!   ├─ race     finwheel, nginx and epoll in turns, one client ─▶ parts/veth.json
//!   ├─ hold     idle connections, TIME_WAIT ───────────────────▶ parts/hold.json
//!   └─ scaling  one core, two cores ───────────────────────────▶ parts/scaling.json
//!                         parts of the engine's benches ───────▶ parts/*.json ─▶ summary.json ─▶ benchmarks.md
//! ```
//!
//! Needs root and two cores. What it makes (namespaces, processes) goes with it, also when it is interrupted.

mod bed;
mod client;
mod cores;
mod document;
mod epoll;
mod hold;
mod machine;
mod paper;
mod race;
mod scaling;
mod servers;
mod spread;
mod summary;

use anyhow::{Context as _, Result, bail};
use bed::{Bed, Cores};
use clap::Parser;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{SigSet, Signal};
use race::Effort;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Exit code of a process that a signal ended, less the signal's number: what shells show.
const SIGNALLED: i32 = 128;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Section {
    /// The servers side by side.
    Veth,
    /// Idle connections and `TIME_WAIT`.
    Hold,
    /// One core and two.
    Scaling,
}

/// Measure finwheel beside nginx and epoll, and write summary and document.
#[derive(Debug, Parser)]
#[command(name = "peers")]
// A command line has as many switches as it has.
#[allow(clippy::struct_excessive_bools)]
struct Args {
    /// Shorter turns and smaller populations, the same keys.
    #[arg(long)]
    quick: bool,
    /// Measure this only; what was measured before stays. Given several times, these.
    #[arg(long, value_enum)]
    only: Vec<Section>,
    /// Measure nothing: make summary and document of the parts that are there.
    #[arg(long, conflicts_with = "only")]
    summary_only: bool,
    /// Idle connections to hold.
    #[arg(long, value_name = "N")]
    idle: Option<u64>,
    /// `TIME_WAIT` records to hold.
    #[arg(long, value_name = "N")]
    time_wait: Option<u64>,
    /// Where parts, summary and document go.
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    out: PathBuf,
    /// Where the document goes too.
    #[arg(long, value_name = "FILE")]
    document: Option<PathBuf>,
    /// Missing figures are named and no failure.
    #[arg(long)]
    incomplete: bool,
    /// The server on epoll, as a process of its own.
    #[arg(long, value_name = "ADDR:PORT", hide = true)]
    serve_epoll: Option<SocketAddr>,
    /// What cargo adds.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match args.serve_epoll {
        Some(at) => epoll::serve(at),
        None => run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    // Two at a time would measure each other.
    let lock = File::create(args.out.join("lock")).context("the lock of the bench")?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock)
        .map_err(|(_, e)| anyhow::anyhow!("another bench runs in {}: {e}", args.out.display()))?;
    let parts = args.out.join("parts");
    if !args.summary_only {
        end_with_signals()?;
        measure(args, &parts)?;
    }
    publish(args, &parts)
}

/// A signal takes away what was made, and ends the process.
fn end_with_signals() -> Result<()> {
    let set: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    set.thread_block()?;
    let wait = move || {
        // An error would mean that the set is not a set of signals.
        let signal = set.wait().unwrap_or(Signal::SIGTERM);
        bed::kill_children();
        bed::clean_rigs();
        std::process::exit(SIGNALLED + signal as i32);
    };
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(wait)
        .context("the thread that waits for signals")?;
    Ok(())
}

fn measure(args: &Args, parts: &Path) -> Result<()> {
    let cores = Cores::choose()?;
    let began = Instant::now();
    let mut say = |line: &str| eprintln!("{:6.1} s  {line}", began.elapsed().as_secs_f64());
    let wanted = |s| args.only.is_empty() || args.only.contains(&s);
    let ms = Duration::from_millis;
    let effort = if args.quick {
        Effort { rounds: 3, turn: ms(1500), probe: ms(500) }
    } else {
        Effort { rounds: 5, turn: ms(4000), probe: ms(1000) }
    };
    let bed = Bed::new(1, &[cores.server], &[cores.client])?;
    say(&format!("server on core {}, client on core {}", cores.server, cores.client));
    summary::write_part(parts, "machine", &machine::describe(&client::mode(&bed, cores)?, args.quick)?)?;
    if wanted(Section::Veth) {
        summary::write_part(parts, "veth", &race::run(&bed, cores, effort, &mut say)?)?;
    }
    if wanted(Section::Hold) {
        let rate = hold::rate(&bed, cores)?;
        let (idle, time_wait) = if args.quick { (100_000, 500_000) } else { (1_000_000, 5_000_000) };
        let (idle, time_wait) = (args.idle.unwrap_or(idle), args.time_wait.unwrap_or(time_wait));
        say(&format!("{idle} idle connections, at {:.0} a second", rate.opening));
        let idle = hold::idle(&bed, cores, idle, rate)?;
        say(&format!("held: {idle}"));
        say(&format!("{time_wait} TIME_WAIT records"));
        let time_wait = hold::time_wait(&bed, cores, time_wait, rate)?;
        say(&format!("held: {time_wait}"));
        summary::write_part(parts, "hold", &json!({ "idle": idle, "time_wait": time_wait }))?;
    }
    drop(bed);
    if wanted(Section::Scaling) {
        let value = scaling::run(cores, effort.rounds, effort.turn, &mut say)?;
        summary::write_part(parts, "scaling", &value)?;
    }
    Ok(())
}

fn publish(args: &Args, parts: &Path) -> Result<()> {
    let summary: Value = summary::read_parts(parts)?;
    summary::write_json(&args.out.join("summary.json"), &summary)?;
    print!("{}", document::table(&summary));
    let missing = summary::missing(&summary);
    if !missing.is_empty() {
        let text = format!("not measured: {}", missing.join(", "));
        if !args.incomplete {
            bail!(
                "{text}; the benches that measure them write {}/*.json (--incomplete goes on without)",
                parts.display()
            );
        }
        eprintln!("warning: {text}");
    }
    let text = document::markdown(&summary);
    let own = args.out.join("benchmarks.md");
    for file in [Some(&own), args.document.as_ref()].into_iter().flatten() {
        fs::write(file, &text).with_context(|| file.display().to_string())?;
        eprintln!("written: {}", file.display());
    }
    Ok(())
}
