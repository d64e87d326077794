//! `finwheel status`: how a running process is.

use super::admin::{SocketArgs, ask, finish, output, short_time};
use crate::control::admin::model::{DrainStatus, Rates, Status};
use hyper::Method;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

/// What is shown.
#[derive(Clone, Debug, clap::Args)]
pub struct StatusArgs {
    /// As one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: SocketArgs,
}

/// Shows it.
#[must_use]
pub fn execute(args: &StatusArgs) -> ExitCode {
    let done = ask::<Status>(&args.at.socket, &Method::GET, "/v1/status", &()).and_then(|s| {
        let text = if args.json {
            serde_json::to_string(&s).unwrap_or_else(|e| unreachable!("a status as JSON: {e}")) + "\n"
        } else {
            describe(&s)
        };
        std::io::stdout().write_all(text.as_bytes()).map_err(output)
    });
    finish(done)
}

/// In some lines.
fn describe(s: &Status) -> String {
    let mut t = String::new();
    // Writing to a String cannot fail.
    let _ =
        writeln!(t, "finwheel {}, process {}: {}, up {}", s.version, s.pid, s.phase, short_time(s.uptime_s));
    let _ = writeln!(t, "interface   {} ({})", s.interface, s.xdp);
    for w in &s.workers {
        let core = w.core.map_or_else(|| "any CPU".to_owned(), |c| format!("CPU {c}"));
        let _ = writeln!(
            t,
            "worker {:<4} queue {}, {core}, {}, {:.0} % busy; {} connections, {} half-open, {} TIME_WAIT",
            w.worker,
            w.queue,
            w.copy,
            w.busy * 100.0,
            w.connections,
            w.half_open,
            w.time_wait
        );
    }
    let held = s.population.iter().filter(|(_, n)| **n > 0).map(|(state, n)| format!("{state} {n}"));
    let _ = writeln!(t, "population  {}", held.collect::<Vec<_>>().join(", "));
    let rates = |t: &mut String, what: &str, r: &Rates| {
        let _ = writeln!(
            t,
            "{what:<11} {:.0} opened, {:.0} closed ({:.0} not gracefully), {:.0} frames in, {:.0} out, {:.0} dropped",
            r.opened, r.closed, r.not_graceful, r.rx_frames, r.tx_frames, r.dropped
        );
    };
    rates(&mut t, "a second", &s.rates);
    rates(&mut t, "altogether", &s.totals);
    if let Some(d) = &s.drain {
        let _ = writeln!(t, "drain       {}", progress(d));
    }
    if !s.retiring.is_empty() {
        let at: Vec<String> = s.retiring.iter().map(ToString::to_string).collect();
        let _ =
            writeln!(t, "retiring    {}: the kernel gets it back after the last connection", at.join(" "));
    }
    t
}

/// How far a drain is, in one line.
#[must_use]
pub fn progress(d: &DrainStatus) -> String {
    let ending = if d.ending { "; the process ends with it" } else { "" };
    format!(
        "{} of {} connections told, {} left, {} half-open, {} in TIME_WAIT; {} of {}, new ones: {}{ending}",
        d.told,
        d.total,
        d.left,
        d.half_open,
        d.time_wait,
        short_time(d.elapsed_s),
        short_time(d.over_s),
        d.new
    )
}
