//! `finwheel run`: from the configuration file to the exit code.

use super::{ConfigArgs, EXIT_FAILURE, EXIT_USAGE, doctor, logging};
use crate::config::{self, Config};
use crate::control::signals::{self, Signals};
use crate::control::{Outcome, Settings, Source, Terminator, rlimit, sandbox};
use crate::port::privileges;
use std::process::ExitCode;

/// Runs until a signal drains it or it fails.
#[must_use]
pub fn execute(args: &ConfigArgs) -> ExitCode {
    let loaded = match config::load(&args.config) {
        Ok(loaded) => loaded,
        Err(e) => {
            eprintln!("{e}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    for w in &loaded.warnings {
        eprintln!("{w}");
    }
    let config = loaded.config;
    let source = Source { path: args.config.clone(), config };
    match logging::install(&source.config.log).and_then(|()| run(&source)) {
        Ok(outcome) if outcome.is_ok() => ExitCode::SUCCESS,
        // What failed was logged as it happened.
        Ok(_) => ExitCode::from(EXIT_FAILURE),
        Err(e) => {
            // Where there is no log yet, or its level hides errors, the reason must still be seen.
            eprintln!("finwheel: {e:#}");
            doctor::explain(&source.config);
            ExitCode::from(EXIT_FAILURE)
        }
    }
}

fn run(source: &Source) -> anyhow::Result<Outcome> {
    let config = &source.config;
    if config.process.sandbox {
        sandbox::ask();
    }
    // Before any thread: all inherit the mask, and the signals wait for the one that asks for them.
    let deadline = config.drain.deadline;
    let signals = signals::Watch::start(&Signals::block_with_reload()?, deadline)?;
    privileges::raise();
    rlimit::raise_locked_memory();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), interface = config.interface.name, "starting");
    let settings = Settings { source: Some(source.clone()), ..Settings::from_config(config) };
    let terminator = Terminator::start(&settings)?;
    if config.process.sandbox {
        sandbox::enter()?;
    }
    announce(config, &terminator);
    signals.started(terminator.control(), deadline);
    let outcome = terminator.wait();
    say_goodbye(&outcome);
    Ok(outcome)
}

/// Says what is in effect, once, when connections are taken.
fn announce(config: &Config, t: &Terminator) {
    let i = t.interface();
    tracing::info!(
        interface = i.interface,
        driver = i.driver,
        mac = %i.mac,
        mtu = i.mtu,
        mode = %i.attach,
        frame_memory = i.frame_bytes,
        "interface"
    );
    for (worker, ((queue, copy), core)) in i.queues.iter().zip(t.cores()).enumerate() {
        // Not pinned is what no configuration asks for, but an empty set of allowed CPUs may.
        let core = core.map_or_else(|| "any".to_owned(), |c| c.to_string());
        tracing::info!(worker, queue, copy = copy.as_str(), core, "worker");
    }
    for l in &config.listeners {
        let addresses: Vec<String> = l.addresses.iter().map(ToString::to_string).collect();
        tracing::info!(
            name = l.name,
            service = l.service.as_str(),
            addresses = addresses.join(" "),
            "listener"
        );
    }
    let metrics = t.metrics_addr().map_or_else(|| "off".to_owned(), |at| format!("http://{at}/metrics"));
    tracing::info!(at = metrics, "metrics");
    let admin = t.admin_socket().map_or_else(|| "off".to_owned(), |at| at.display().to_string());
    tracing::info!(at = admin, "admin socket");
    tracing::info!(sandbox = config.process.sandbox, "process");
    tracing::info!("ready");
}

fn say_goodbye(o: &Outcome) {
    let c = &o.merged.counters;
    let closed: u64 = c.closes.as_flattened().as_flattened().iter().sum();
    tracing::info!(
        took = ?o.took,
        opened = c.opened_passive + c.opened_active,
        closed,
        cut_off = o.cut_off,
        "stopped"
    );
}
