//! `finwheel reload`: the configuration file read again by a running process.

use super::admin::{AdminError, SocketArgs, ask, finish, output};
use crate::control::Reloaded;
use hyper::Method;
use std::io::Write;
use std::process::ExitCode;

/// Whom to tell.
#[derive(Clone, Debug, clap::Args)]
pub struct ReloadArgs {
    #[command(flatten)]
    at: SocketArgs,
}

/// Tells it, and says what has changed.
#[must_use]
pub fn execute(args: &ReloadArgs) -> ExitCode {
    let done = ask::<Reloaded>(&args.at.socket, &Method::POST, "/v1/reload", &());
    if let Err((AdminError::Refused(p), _)) = &done {
        for key in &p.refused {
            eprintln!("refused: {key}");
        }
    }
    finish(done.and_then(|r| writeln!(std::io::stdout(), "{}", r.summary()).map_err(output)))
}
