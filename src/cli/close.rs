//! `finwheel close` and `finwheel abort`: connections ended by filter.

use super::EXIT_USAGE;
use super::admin::{FilterArgs, SocketArgs, ask, finish, output};
use crate::control::admin::model::{EndOrder, Ended, FilterSpec};
use hyper::Method;
use std::io::Write;
use std::process::ExitCode;

/// What is ended.
#[derive(Clone, Debug, clap::Args)]
pub struct EndArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// Every connection; needed when no filter is given.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    at: SocketArgs,
}

/// How.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Their services are asked to close.
    Close,
    /// RST.
    Abort,
}

/// Ends connections and says how many.
#[must_use]
pub fn execute(args: &EndArgs, how: How) -> ExitCode {
    let (path, word) = match how {
        How::Close => ("/v1/close", "closing"),
        How::Abort => ("/v1/abort", "reset"),
    };
    let filter = args.filter.spec();
    if filter == FilterSpec::default() && !args.all {
        eprintln!("finwheel: no filter is given, so every connection is meant: say so by --all");
        return ExitCode::from(EXIT_USAGE);
    }
    let order = EndOrder { filter, all: args.all };
    let done = ask::<Ended>(&args.at.socket, &Method::POST, path, &order).and_then(|e| {
        let rest = e.matched - e.ended;
        let mut out = std::io::stdout();
        let said = match (how, rest) {
            (_, 0) => writeln!(out, "{} {word}", e.ended),
            (How::Close, _) => writeln!(out, "{} {word}; {rest} were ending already", e.ended),
            (How::Abort, _) => writeln!(out, "{} {word}; {rest} had ended already", e.ended),
        };
        said.map_err(output)
    });
    finish(done)
}
