//! The `finwheel` command: see [`finwheel::cli`].

use clap::Parser;
use finwheel::cli::Cli;
use std::process::ExitCode;

fn main() -> ExitCode {
    Cli::parse().execute()
}
