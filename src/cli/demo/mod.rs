//! `finwheel demo`: real clients, every closing order, and what was seen.
//!
//! ```text
//!   with root and AF_XDP                               otherwise (or --in-memory)
//!   namespace "client"      namespace "server"         simulated link under a simulated clock
//!   kernel sockets ── veth ── AF_XDP ── workers         simulated clients ── link ── one worker
//! ```
//!
//! Both play the same plans ([`sim::client`](crate::sim::client)), which check every byte, and end in the same
//! report: for one connection of each closing order the observed exchange, then the totals.

mod clients;
mod exchange;
mod kernel;
mod live;
mod memory;
mod summary;

use crate::cli::EXIT_FAILURE;
use crate::shard::trace::Entry;
use crate::sim::client::{Order, Plan, Target};
use crate::wire::Endpoint;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;
use summary::{ClientTally, Summary};

/// Close tens of thousands of connections in every order, and show what happened.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArgs {
    /// Connections to open, 64 at least.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(64..=10_000_000))]
    pub connections: u64,
    /// Workers, one for each queue of the interface.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub workers: u32,
    /// Connections open at the same time.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=8192))]
    pub concurrency: u32,
    /// Use the simulated link even where `AF_XDP` can be had.
    #[arg(long)]
    pub in_memory: bool,
    /// Print the totals as one JSON object, as the last line of standard output; everything else goes to standard
    /// error.
    #[arg(long)]
    pub json: bool,
}

/// How long the demo's `TIME_WAIT` is: short, so that its expiry is seen. A service would leave it at 60 s.
const TIME_WAIT: Duration = Duration::from_secs(2);

/// The four closing orders, with a title for each one's exchange.
const SAMPLES: [(Order, &str); 4] = [
    (Order::ClientFirst, "client first"),
    (Order::ServerFirst, "server first"),
    (Order::HalfClose, "half-close, data flows after the FIN"),
    (Order::Both, "both at once"),
];

/// The plan of the traced connection of an order: echo, and small but for the crossing one, which needs two segments
/// so that its FIN is on its way when the server's leaves.
fn sample_plan(order: Order) -> Plan {
    let payload = if order == Order::Both { 4096 } else { 64 };
    Plan { target: Target::Echo, order, scripted: true, payload, tail: 512, requests: 1, seed: 0xf1 }
}

/// What a backend brings home.
struct Outcome {
    summary: Summary,
    clients: ClientTally,
    /// The sampled connections: title and trace.
    samples: Vec<(&'static str, Vec<Entry>)>,
}

/// Where the text for people goes: standard output, or standard error when the former is for JSON.
struct Out {
    json: bool,
}

impl Out {
    fn text(&self, text: &str) {
        // A closed pipe is no reason to leave connections behind.
        if self.json {
            let _ = std::io::stderr().write_all(text.as_bytes());
        } else {
            let _ = std::io::stdout().write_all(text.as_bytes());
        }
    }
}

/// Runs the demo.
#[must_use]
pub fn execute(args: &DemoArgs) -> ExitCode {
    let out = Out { json: args.json };
    let outcome = if args.in_memory {
        out.text("simulated link: asked for\n");
        memory::run(args, &out)
    } else {
        match kernel::run(args, &out) {
            Err(kernel::Failure::Unavailable(why)) => {
                out.text(&format!("simulated link, because AF_XDP cannot be had here: {why}\n"));
                memory::run(args, &out)
            }
            Err(kernel::Failure::Failed(e)) => Err(e),
            Ok(outcome) => Ok(outcome),
        }
    };
    match outcome {
        Ok(o) => report(args, &out, &o),
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::from(EXIT_FAILURE)
        }
    }
}

fn report(args: &DemoArgs, out: &Out, o: &Outcome) -> ExitCode {
    for (title, entries) in &o.samples {
        out.text(&format!("\n{}", exchange::render(title, &exchange::rows(entries))));
    }
    out.text(&format!("\n{}", o.summary.render()));
    for c in &o.clients.complaints {
        out.text(&format!("  ! {c}\n"));
    }
    if args.json {
        match serde_json::to_string(&o.summary) {
            Ok(line) => println!("{line}"),
            Err(e) => {
                eprintln!("error: {e}");
                return ExitCode::from(EXIT_FAILURE);
            }
        }
    }
    if o.summary.good() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILURE) }
}

/// Picks the entries of one connection out of a trace.
fn entries_of(trace: &[Entry], remote: Endpoint) -> Vec<Entry> {
    trace.iter().filter(|e| e.tuple.remote == remote).copied().collect()
}
