//! `finwheel drain` and `finwheel undrain`: no new connections, the ones there are ended evenly; and back.

use super::admin::{Failed, SocketArgs, ask, finish, output};
use super::status::progress;
use crate::control::admin::model::{DrainQuery, Status};
use hyper::Method;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

/// Between looks at the progress.
const LOOK: Duration = Duration::from_millis(500);

/// How to drain.
#[derive(Clone, Debug, clap::Args)]
pub struct DrainArgs {
    /// The time over which connections are closed, evenly; without it `[drain] over`.
    #[arg(long, value_name = "TIME")]
    over: Option<String>,
    /// What new connections get: `drop` nothing, `reset` a RST, `close` accepted and closed; without it `[drain] new`.
    #[arg(long, value_name = "POLICY")]
    new: Option<String>,
    /// Return when it has begun, and do not wait until the last connection has ended.
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    at: SocketArgs,
}

/// Drains, and shows how far it is until every connection has ended.
#[must_use]
pub fn execute(args: &DrainArgs) -> ExitCode {
    finish(drain(args))
}

fn drain(args: &DrainArgs) -> Result<(), Failed> {
    let query = DrainQuery { over: args.over.clone(), new: args.new.clone() };
    let mut status: Status = ask(&args.at.socket, &Method::POST, "/v1/drain", &query)?;
    let mut out = std::io::stdout();
    let live = out.is_terminal();
    loop {
        let Some(d) = &status.drain else {
            return writeln!(out, "taken back: connections are taken again").map_err(output);
        };
        let line = progress(d);
        let over = d.left == 0 && d.half_open == 0;
        let shown = if live { write!(out, "\r\x1b[K{line}") } else { writeln!(out, "{line}") };
        shown.and_then(|()| out.flush()).map_err(output)?;
        if over || args.no_wait {
            return if live { writeln!(out).map_err(output) } else { Ok(()) };
        }
        std::thread::sleep(LOOK);
        status = ask(&args.at.socket, &Method::GET, "/v1/status", &())?;
    }
}

/// Whom to tell.
#[derive(Clone, Debug, clap::Args)]
pub struct UndrainArgs {
    #[command(flatten)]
    at: SocketArgs,
}

/// Takes a drain back.
#[must_use]
pub fn undo(args: &UndrainArgs) -> ExitCode {
    let done = ask::<Status>(&args.at.socket, &Method::POST, "/v1/undrain", &());
    finish(done.and_then(|s| {
        writeln!(std::io::stdout(), "{}: connections are taken again", s.phase).map_err(output)
    }))
}
