//! `finwheel blast`, the one client of every server, and what it reports.

use crate::bed::{Bed, Cores, Process};
use crate::servers::{FINWHEEL, Kind, Server, address};
use anyhow::{Context as _, Result, bail};
use finwheel::rig::CLIENT_INTERFACE;
use serde_json::Value;
use std::time::Duration;

/// Errors that are none of the server's doing on a machine that others use too: fewer than one in a thousand.
const MAX_ERRORS: &str = "0.1%";
/// What a run may take longer than it was asked to.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is asked of it.
#[derive(Clone, Debug)]
pub struct Load {
    /// Its cores, a worker on each.
    pub cores: Vec<usize>,
    /// Everything else, as options.
    pub options: String,
    /// How long the options make it run.
    pub takes: Duration,
}

/// A running client.
pub struct Client {
    process: Process,
    load: Load,
}

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Report(pub Value);

impl Client {
    /// Starts it against the bed's server.
    pub fn start(bed: &Bed, load: &Load) -> Result<Self> {
        let (at, net) = (address(bed)?, bed.fresh_net());
        let cores: Vec<String> = load.cores.iter().map(ToString::to_string).collect();
        let line = format!(
            "blast --target {at} --interface {CLIENT_INTERFACE} --source-net {net} --cores {} --max-errors {MAX_ERRORS} \
             --json --quiet {}",
            cores.join(","),
            load.options
        );
        let process = Process::start(bed.rig().client_ns(), &load.cores, FINWHEEL, |_, command| {
            command.args(line.split_whitespace());
            Ok(())
        })?;
        Ok(Self { process, load: load.clone() })
    }

    /// Its process.
    pub const fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Waits for its end; too many errors are one.
    pub fn report(mut self) -> Result<Report> {
        let status = self.process.wait(self.load.takes + PATIENCE)?;
        let out = self.process.out();
        let (options, log) = (&self.load.options, self.process.log());
        let value: Value = serde_json::from_str(out.trim())
            .with_context(|| format!("blast {options}: no report, {status}: {}", log.trim()))?;
        if !status.success() {
            bail!("blast {options}: {} errors: {} {}", value["errors_total"], value["errors"], log.trim());
        }
        Ok(Report(value))
    }
}

/// Runs it to its end.
pub fn run(bed: &Bed, load: &Load) -> Result<Report> {
    Client::start(bed, load)?.report()
}

/// How frames get to finwheel, at either end of the cable; and whether anything works at all.
pub fn mode(bed: &Bed, cores: Cores) -> Result<String> {
    let load = Load {
        cores: vec![cores.client],
        options: "--request http --close server --connections 100".into(),
        takes: Duration::from_secs(1),
    };
    let server = Server::start(bed, Kind::Finwheel, &[cores.server])?;
    let report = run(bed, &load)?;
    server.stop()?;
    Ok(report.0["mode"].as_str().unwrap_or_default().to_owned())
}

impl Report {
    /// A figure of it, by its place.
    pub fn figure(&self, place: &str) -> Result<f64> {
        let value = self.0.pointer(place).and_then(Value::as_f64);
        value.with_context(|| format!("blast reports no {place}: {}", self.0))
    }

    /// A latency, milliseconds: `close` and `p99`, say.
    pub fn ms(&self, lap: &str, quantile: &str) -> Result<f64> {
        Ok(self.figure(&format!("/latency_us/{lap}/{quantile}"))? / 1e3)
    }
}
