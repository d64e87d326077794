//! `finwheel closes`: who closed, how, why, and how long it took.

use super::admin::{Lines, SocketArgs, finish, follow, output, stdout};
use crate::control::admin::model::{CloseLine, ClosesQuery};
use std::io::{self, Write};
use std::process::ExitCode;

/// What is shown.
#[derive(Clone, Debug, clap::Args)]
pub struct ClosesArgs {
    /// Go on with what comes, until interrupted.
    #[arg(short, long)]
    follow: bool,
    /// Only the last N of those there are; without it all, with --follow none.
    #[arg(short = 'n', long, value_name = "N")]
    last: Option<usize>,
    /// Why they closed, with commas between: `peer`, `service`, `idle`, `drain`, `operator`, …
    #[arg(long, value_name = "CAUSES")]
    cause: Option<String>,
    /// How they closed, with commas between: `passive`, `active`, `half_close`, `simultaneous`, `reset`, `timeout`.
    #[arg(long, value_name = "PATHS")]
    path: Option<String>,
    /// Who was first: `us`, `peer`, `both`, `nobody`.
    #[arg(long, value_name = "WHO")]
    first: Option<String>,
    /// Of these listeners, by name, with commas between.
    #[arg(long, value_name = "NAMES")]
    listener: Option<String>,
    /// With a peer of this address or network.
    #[arg(long, value_name = "CIDR")]
    peer: Option<String>,
    /// One JSON object a line, with every field.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: SocketArgs,
}

/// Shows them.
#[must_use]
pub fn execute(args: &ClosesArgs) -> ExitCode {
    let query = ClosesQuery {
        follow: args.follow,
        last: args.last,
        cause: args.cause.clone(),
        path: args.path.clone(),
        first: args.first.clone(),
        listener: args.listener.clone(),
        peer: args.peer.clone(),
    };
    let mut out = stdout();
    let mut lines = Lines::default();
    let done = follow(&args.at.socket, "/v1/closes", &query, &mut |piece| {
        lines.take(piece, &mut |line| {
            if args.json {
                out.write_all(line)?;
                return out.write_all(b"\n");
            }
            show(&mut out, line)
        })?;
        // Who follows wants to see it now.
        if args.follow { out.flush() } else { Ok(()) }
    });
    finish(done.and_then(|()| out.flush().map_err(output)))
}

fn show(out: &mut impl Write, line: &[u8]) -> io::Result<()> {
    let Ok(c) = serde_json::from_slice::<CloseLine>(line) else {
        return writeln!(out, "{}", String::from_utf8_lossy(line));
    };
    let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs_f64(c.at.max(0.0));
    let states = [
        ("FIN_WAIT_1", c.closing_ms.fin_wait_1),
        ("FIN_WAIT_2", c.closing_ms.fin_wait_2),
        ("CLOSE_WAIT", c.closing_ms.close_wait),
        ("CLOSING", c.closing_ms.closing),
        ("LAST_ACK", c.closing_ms.last_ack),
    ];
    let spent = states.iter().filter(|(_, ms)| *ms > 0.0).map(|(s, ms)| format!("{s} {ms:.1}ms"));
    writeln!(
        out,
        "{} {} -> {} ({}) {}, first {}, cause {}; {} in, {} out; {}",
        humantime::format_rfc3339_millis(at),
        c.peer,
        c.local,
        c.listener.as_deref().unwrap_or("-"),
        c.path,
        c.first,
        c.cause,
        c.bytes_in,
        c.bytes_out,
        spent.collect::<Vec<_>>().join(", "),
    )
}
