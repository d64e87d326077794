//! `finwheel doctor`: what is wrong with this machine, why it matters, and the command that mends it.

use super::{DEFAULT_CONFIG, EXIT_FAILURE, EXIT_USAGE};
use crate::config::{self, Config};
use crate::control::rlimit;
use crate::doctor::{self, Report, Severity, Target};
use crate::port::privileges;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Exit code of an examination that found warnings.
const EXIT_WARNINGS: u8 = 1;
/// Exit code of one that found errors.
const EXIT_ERRORS: u8 = 2;

/// What is to be examined.
#[derive(Clone, Debug, clap::Args)]
pub struct DoctorArgs {
    /// The interface to examine; without it, that of the configuration.
    #[arg(short, long, value_name = "NAME")]
    pub interface: Option<String>,
    /// The configuration that is to run here. Without it, and without `--interface`, the one in its usual place if there is
    /// one.
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print everything as one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Examines, and prints what was found.
#[must_use]
pub fn execute(args: &DoctorArgs) -> ExitCode {
    let usual = Path::new(DEFAULT_CONFIG);
    let fallback = (args.interface.is_none() && usual.exists()).then_some(usual);
    let config = match args.config.as_deref().or(fallback).map(config::load).transpose() {
        Ok(loaded) => loaded.map(|l| l.config),
        Err(e) => {
            eprintln!("{e}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    // As `run` would before it asks for anything.
    privileges::raise();
    rlimit::raise_locked_memory();
    let target = Target { interface: args.interface.as_deref(), config: config.as_ref() };
    let report = match doctor::examine(&target) {
        Ok(report) => report,
        Err(e) => {
            eprintln!("finwheel: the machine cannot be examined: {e}");
            return ExitCode::from(EXIT_ERRORS);
        }
    };
    let text = if args.json { report.json().to_string() + "\n" } else { text(&report) };
    if let Err(e) = std::io::stdout().write_all(text.as_bytes()) {
        eprintln!("cannot write to standard output: {e}");
        return ExitCode::from(EXIT_FAILURE);
    }
    match report.worst() {
        None | Some(Severity::Note) => ExitCode::SUCCESS,
        Some(Severity::Warning) => ExitCode::from(EXIT_WARNINGS),
        Some(Severity::Error) => ExitCode::from(EXIT_ERRORS),
    }
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    for (subject, fact) in &report.facts {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{subject:14} {fact}");
    }
    text.push('\n');
    let findings = report.text(Severity::Note);
    text.push_str(if findings.is_empty() { "nothing found\n" } else { &findings });
    text
}

/// What the doctor says to a start that failed: on standard error, warnings and errors.
pub(super) fn explain(config: &Config) {
    let target = Target { interface: None, config: Some(config) };
    match doctor::examine(&target) {
        Ok(report) => {
            let text = report.text(Severity::Warning);
            if !text.is_empty() {
                eprint!("finwheel doctor finds:\n{text}");
            }
        }
        // The failure itself has been told.
        Err(e) => eprintln!("finwheel doctor cannot examine the machine: {e}"),
    }
}
