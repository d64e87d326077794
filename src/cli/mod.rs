//! Command line: one file a subcommand.
//!
//! Exit codes: 0 done, 1 a failure at run time, 2 a wrong command line or configuration. Results go to standard
//! output, everything else to standard error.

pub mod admin;
pub mod blast;
pub mod capture;
pub mod check;
pub mod close;
pub mod closes;
pub mod demo;
pub mod docs;
pub mod doctor;
pub mod drain;
pub mod logging;
pub mod reload;
pub mod run;
pub mod sandbox;
pub mod sim;
pub mod ss;
pub mod status;
pub mod top;

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Exit code of a failure at run time.
pub const EXIT_FAILURE: u8 = 1;
/// Exit code of a wrong command line (clap's own) or configuration.
pub const EXIT_USAGE: u8 = 2;

/// Where the configuration is looked for when `--config` is not given.
pub const DEFAULT_CONFIG: &str = "/etc/finwheel/finwheel.toml";

/// A TCP connection terminator on `AF_XDP` that ends every connection right.
#[derive(Debug, Parser)]
#[command(version, about, arg_required_else_help = true, max_term_width = 110)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check a configuration file and say what it amounts to.
    ///
    /// Looks at the file only, not at this machine's interfaces and cores, so a file can be checked anywhere. All
    /// errors are shown with file, line and remedy; the exit code is then 2.
    Check(ConfigArgs),
    /// Terminate connections until SIGTERM or SIGINT.
    ///
    /// The first signal drains: no new connections, the ones there are end, the exit code is 0. A second one ends the
    /// process at once, with exit code 128 and the signal's number. A failure while running exits with 1.
    Run(ConfigArgs),
    /// Examine this machine: what is wrong, why it matters, and the command that mends it.
    ///
    /// Looks at kernel, privileges, limits, CPUs, and at an interface with its driver, queues and offloads, as finwheel
    /// needs them for a configuration. Changes nothing. Exits with 0 when nothing or only notes were found, with 1 for
    /// warnings, with 2 for errors, or when the configuration is wrong.
    Doctor(doctor::DoctorArgs),
    /// Watch real clients connect, be served, and close in every order.
    ///
    /// As root it makes a throwaway pair of network namespaces, serves kernel clients over AF_XDP, and removes them
    /// again; otherwise it plays the same scenario on a simulated link. Exits with 1 if one connection failed.
    Demo(demo::DemoArgs),
    /// Simulate: whole servers and clients with everything going wrong that can, from a seed.
    ///
    /// Each seed chooses which faults there are and how strong: of the link, the workers, the rings and tables, the
    /// peers. Every byte is checked, every connection must end right, and nothing may be left. The first run that fails
    /// is shown with the command that replays it, packet by packet, and the exit code is 1.
    Sim(sim::SimArgs),
    /// Load a TCP server with connections from many addresses, over `AF_XDP`.
    ///
    /// Opens connections at a rate (open loop) or so many at a time (closed loop), makes the same exchange on each, and
    /// ends them in the order that is asked for. Reports rates, errors by kind, and latencies of handshake, first byte
    /// and close. Needs root, or the capabilities of `finwheel run`.
    Blast(Box<blast::BlastArgs>),
    /// Watch a running finwheel in the terminal.
    ///
    /// Shows what its live page does: connections by state, what happens a second, workers with their rings and tables,
    /// times to close, dropped frames by reason. Asks the metrics address once a second; needs no privilege. Keys: q quits,
    /// p pauses, ? explains.
    Top(top::TopArgs),
    /// Write the manual pages: finwheel(1) and one for each subcommand.
    Man(docs::ManArgs),
    /// Print the completion script of a shell.
    ///
    /// For bash: `finwheel completions bash > /etc/bash_completion.d/finwheel`.
    Completions(docs::CompletionsArgs),
    /// Enter the sandbox and try what must fail there.
    #[command(hide = true)]
    Sandbox(sandbox::SandboxArgs),
    /// List the connections of a running process, in every state.
    ///
    /// Half-open ones, connections, and `TIME_WAIT`, of all workers, as they are found: tables of millions are looked
    /// through in slices, which the packets do not wait for. One that changes while it is looked for may be shown twice.
    Ss(ss::SsArgs),
    /// Close connections of a running process gracefully, by filter.
    ///
    /// Their services end them as in a drain: what was begun is finished, then a FIN is sent. Prints how many.
    Close(close::EndArgs),
    /// Reset connections of a running process, by filter.
    ///
    /// A RST is sent and the record dropped, half-open ones too. `TIME_WAIT` stays: it protects the peer. Prints how many.
    Abort(close::EndArgs),
    /// Show how a running process is: phase, workers, populations, rates, drain.
    Status(status::StatusArgs),
    /// Have a running process read its configuration again.
    ///
    /// Listeners come and go, limits and services change; connections go on as they were opened. What cannot change while
    /// the process runs is refused by name, and then, as with a wrong file, nothing is changed. SIGHUP does the same.
    Reload(reload::ReloadArgs),
    /// Have a running process take no new connections and close those there are, evenly.
    ///
    /// `/readyz` fails at once. Shows how far it is, and returns when every connection has ended; the process runs on.
    Drain(drain::DrainArgs),
    /// Have a running process take connections again.
    ///
    /// Those that the drain has closed stay closed; those that it had not come to stay open.
    Undrain(drain::UndrainArgs),
    /// Show how connections of a running process closed: who was first, how, why, how long it took.
    Closes(closes::ClosesArgs),
    /// Capture frames of a running process, both directions, into a pcapng file.
    Capture(capture::CaptureArgs),
}

/// Where the configuration is.
#[derive(Clone, Debug, clap::Args)]
pub struct ConfigArgs {
    /// The configuration file.
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,
}

impl Cli {
    /// Does what the command line says. Errors are shown before it returns.
    #[must_use]
    pub fn execute(self) -> ExitCode {
        match self.command {
            Command::Check(args) => check::execute(&args),
            Command::Run(args) => run::execute(&args),
            Command::Doctor(args) => doctor::execute(&args),
            Command::Demo(args) => demo::execute(&args),
            Command::Sim(args) => sim::execute(&args),
            Command::Blast(args) => blast::execute(&args),
            Command::Top(args) => top::execute(&args),
            Command::Man(args) => docs::man(&args),
            Command::Completions(args) => docs::completions(&args),
            Command::Sandbox(args) => sandbox::execute(&args),
            Command::Ss(args) => ss::execute(&args),
            Command::Close(args) => close::execute(&args, close::How::Close),
            Command::Abort(args) => close::execute(&args, close::How::Abort),
            Command::Status(args) => status::execute(&args),
            Command::Reload(args) => reload::execute(&args),
            Command::Drain(args) => drain::execute(&args),
            Command::Undrain(args) => drain::undo(&args),
            Command::Closes(args) => closes::execute(&args),
            Command::Capture(args) => capture::execute(&args),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_configuration_has_a_default_place() {
        let cli = Cli::try_parse_from(["finwheel", "check"]).unwrap();
        let Command::Check(args) = cli.command else { panic!("{cli:?}") };
        assert_eq!(args.config, std::path::Path::new(DEFAULT_CONFIG));
    }
}
