//! From the command line to what each worker is made from: the exchange, the schedule, the tables.

use super::args::{AnswerArg, BlastArgs, Close, MAX_OPEN, RequestArg};
use crate::service::blast::desk::Desk;
use crate::service::blast::pace::Pace;
use crate::service::blast::pairs::{Pairs, addresses};
use crate::service::blast::{Config, Request};
use crate::shard::Capacity;
use crate::wire::{Addr, L2};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Source addresses at most: as many ranges of local ports as the steering program's map holds.
pub const MAX_ADDRESSES: usize = 1024;
/// Connections open at a time in a closed loop, unless told otherwise.
const CONCURRENCY: u64 = 64;
/// How long connections are opened when neither their number nor a time is given.
const DURATION: Duration = Duration::from_secs(10);
/// `TIME_WAIT` records of all workers at most, 40 bytes each; beyond them the oldest go, and their pairs are free.
const MAX_TIME_WAIT: u64 = 4_000_000;
/// Buffer chunks of a worker, at least and at most: 8 to 256 MiB.
const CHUNKS: std::ops::RangeInclusive<usize> = 4096..=131_072;
/// Bytes of a chunk.
const CHUNK: u64 = crate::tcp::chunk::CHUNK_BYTES as u64;

/// What is to be done, checked.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The server.
    pub target: SocketAddr,
    /// Addresses that connections come from.
    pub addresses: Arc<[Addr]>,
    /// What is sent.
    pub request: Request,
    /// How long connections are opened.
    pub duration: Option<Duration>,
    /// Connections open at a time, of all workers.
    pub concurrency: u64,
    args: BlastArgs,
}

impl Plan {
    /// Checks what one option cannot know of another.
    ///
    /// # Errors
    /// What is wrong, and what to change.
    pub fn new(args: &BlastArgs) -> Result<Self, String> {
        let target = args.target;
        if target.ip().is_ipv4() != args.source_net.ip.is_ipv4() {
            return Err(format!(
                "--source-net {} is not of the IP version of --target {target}",
                args.source_net
            ));
        }
        if target.port() == 0 || !Addr::from(target.ip()).is_unicast() {
            return Err(format!("--target {target} cannot be connected to"));
        }
        if !args.hold.is_zero() && !matches!(args.close, Close::Client | Close::Reset) {
            return Err(format!(
                "--hold needs --close client or reset: with {} the connection does not end by us alone",
                args.close.as_str()
            ));
        }
        if args.timeout.is_zero() || args.time_wait.is_zero() {
            return Err("--timeout and --time-wait are above zero".into());
        }
        if args.request == RequestArg::Http && args.answer == AnswerArg::None {
            return Err("--answer is for --request BYTES: an HTTP request is answered".into());
        }
        let duration = args.duration.or_else(|| args.connections.is_none().then_some(DURATION));
        if duration.is_some_and(|d| d.is_zero()) {
            return Err("--duration is above zero".into());
        }
        let plan = Self {
            target,
            addresses: addresses(args.source_net.ip, args.source_net.prefix_len, MAX_ADDRESSES),
            request: request(args),
            duration,
            concurrency: concurrency(args, duration),
            args: args.clone(),
        };
        if plan.addresses.contains(&target.ip().into()) {
            return Err(format!("--target {target} lies in --source-net {}", args.source_net));
        }
        if args.concurrency.is_some() && plan.pairs() < plan.concurrency {
            return Err(format!(
                "{} source addresses with {} ports each give {} local ends, for {} connections at a time: \
                 widen --source-net or --ports",
                plan.addresses.len(),
                args.ports.len(),
                plan.pairs(),
                plan.concurrency
            ));
        }
        Ok(plan)
    }

    /// Local ends there are.
    #[must_use]
    pub fn pairs(&self) -> u64 {
        self.addresses.len() as u64 * self.args.ports.len() as u64
    }

    /// The tables of each of `workers`.
    #[must_use]
    pub fn capacity(&self, workers: usize) -> Capacity {
        let connections = usize_of(self.share(workers));
        // Not bounded by the pairs: the slot of one that left TIME_WAIT early is free again only at its end.
        let most = self.args.connections.unwrap_or(u64::MAX).min(MAX_TIME_WAIT);
        let bytes = match &self.request {
            Request::Http(head) => head.len() as u64,
            Request::Bytes { count, .. } => (*count).min(256 << 10),
        };
        let chunks = usize_of(bytes.div_ceil(CHUNK)).saturating_add(1).saturating_mul(connections);
        Capacity {
            connections,
            half_open: 1,
            time_wait: usize_of(most.div_ceil(workers as u64)).max(64),
            chunks: chunks.clamp(*CHUNKS.start(), *CHUNKS.end()),
        }
    }

    /// Connections open at a time, of one worker.
    fn share(&self, workers: usize) -> u64 {
        self.concurrency.div_ceil(workers as u64)
    }

    /// What each worker's generator is made from, with the desks to reach them.
    ///
    /// # Errors
    /// When there is not a local port for each worker.
    pub fn configs(&self, l2: L2, workers: usize) -> Result<Vec<Config>, String> {
        let config = |worker| {
            let pairs = Pairs::new(&self.addresses, &self.args.ports, worker, workers).ok_or_else(|| {
                format!(
                    "{} ports do not give each of {workers} workers one: widen --ports",
                    self.args.ports.len()
                )
            })?;
            Ok(Config {
                target: self.target.into(),
                l2,
                request: self.request.clone(),
                close: self.args.close.shape(),
                hold: self.args.hold,
                timeout: self.args.timeout,
                concurrency: usize_of(self.share(workers)),
                pace: Pace {
                    rate_milli: self.args.rate.map(|r| r.0),
                    total: self.args.connections,
                    duration: self.duration,
                    worker: worker as u64,
                    workers: workers as u64,
                },
                pairs,
                desk: Arc::new(Desk::default()),
            })
        };
        (0..workers).map(config).collect()
    }
}

fn usize_of(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

fn request(args: &BlastArgs) -> Request {
    match args.request {
        RequestArg::Bytes(count) => Request::Bytes { count, echo: args.answer == AnswerArg::Echo },
        RequestArg::Http => {
            // Who is to close first is what the server is told.
            let connection = match args.close {
                Close::Client | Close::Reset => "keep-alive",
                Close::Server | Close::Both | Close::Half => "close",
            };
            let (path, host, version) = (&args.path, args.target, env!("CARGO_PKG_VERSION"));
            let head = format!(
                "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: finwheel-blast/{version}\r\nAccept: */*\r\n\
                 Connection: {connection}\r\n\r\n"
            );
            Request::Http(Arc::from(head.as_bytes()))
        }
    }
}

/// Connections open at a time: as told; 64 in a closed loop; in an open one as many as its rate begins while nothing is
/// answered.
fn concurrency(args: &BlastArgs, duration: Option<Duration>) -> u64 {
    let by_rate = |rate: u64, time: Duration| {
        u64::try_from(time.as_millis() * u128::from(rate) / 1_000_000).unwrap_or(u64::MAX).saturating_add(1)
    };
    let told = args.concurrency.map(u64::from);
    let n = told.unwrap_or_else(|| match args.rate {
        None => CONCURRENCY,
        // An exchange and a close may take the time limit each.
        Some(rate) => {
            let while_silent = by_rate(rate.0, args.timeout * 2 + args.hold);
            duration.map_or(while_silent, |d| while_silent.min(by_rate(rate.0, d))).max(CONCURRENCY)
        }
    });
    n.min(args.connections.unwrap_or(u64::MAX)).min(u64::from(MAX_OPEN))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn plan(extra: &str) -> Result<Plan, String> {
        let target = if extra.contains("--target") { "" } else { " --target 10.0.0.1:80" };
        let net = if extra.contains("--source-net") { "" } else { " --source-net 10.78.0.0/24" };
        let line = format!("finwheel blast --interface eth1{target}{net} {extra}");
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap_or_else(|e| panic!("{e}"));
        let Command::Blast(args) = cli.command else { panic!("{cli:?}") };
        Plan::new(&args)
    }

    #[test]
    fn options_that_contradict_each_other_are_refused_with_the_way_out() {
        let rows = [
            ("--target [fd00::1]:80", "IP version"),
            ("--target 10.0.0.1:0", "cannot be connected to"),
            ("--target 224.0.0.1:80", "cannot be connected to"),
            ("--source-net 10.0.0.0/24", "lies in"),
            ("--hold 1s --close half", "--close client or reset"),
            ("--hold 1s --close server", "--close client or reset"),
            ("--timeout 0s", "above zero"),
            ("--duration 0s", "above zero"),
            ("--answer none", "--request BYTES"),
            ("--concurrency 1000 --ports 1-3 --source-net 10.1.0.0/28", "widen --source-net or --ports"),
        ];
        for (extra, says) in rows {
            let e = plan(extra).err().unwrap_or_else(|| panic!("{extra} is taken"));
            assert!(e.contains(says), "{extra}: {e}");
        }
    }

    #[test]
    fn tables_follow_from_what_may_be_open_and_from_nothing_else() {
        let open = |extra: &str| plan(extra).unwrap().concurrency;
        assert_eq!(open(""), 64);
        assert_eq!(open("--connections 5"), 5);
        assert_eq!(open("--rate 1000 --timeout 1s --duration 60s"), 2001, "rate, twice the time limit");
        assert_eq!(open("--rate 1000 --timeout 1s --duration 500ms"), 501);
        assert_eq!(open("--rate 50000 --connections 1000000 --hold 60s"), 1_000_000);
        assert_eq!(open("--rate 1000000 --timeout 1h"), u64::from(MAX_OPEN));
        let million =
            plan("--source-net 10.78.0.0/22 --rate 50000 --connections 1000000 --hold 60s").unwrap();
        let c = million.capacity(2);
        assert_eq!((c.connections, c.time_wait, c.half_open), (500_000, 500_000, 1));
        assert!(CHUNKS.contains(&c.chunks));
        assert!(million.pairs() > 1_000_000);
    }

    #[test]
    fn without_a_bound_the_run_is_bounded_all_the_same() {
        assert_eq!(plan("").unwrap().duration, Some(DURATION));
        assert_eq!(plan("--connections 5").unwrap().duration, None);
        assert_eq!(plan("--connections 5 --duration 2s").unwrap().duration, Some(Duration::from_secs(2)));
    }

    #[test]
    fn the_request_asks_the_server_to_close_where_it_is_to() {
        let text = |extra: &str| match plan(extra).unwrap().request {
            Request::Http(head) => String::from_utf8(head.to_vec()).unwrap(),
            Request::Bytes { .. } => panic!("{extra}"),
        };
        let line = "GET /x HTTP/1.1\r\nHost: 10.0.0.1:80\r\n";
        assert!(
            text("--path /x").starts_with(line) && text("").contains("\r\nConnection: keep-alive\r\n\r\n")
        );
        for close in ["server", "both", "half"] {
            assert!(text(&format!("--close {close}")).contains("\r\nConnection: close\r\n\r\n"));
        }
        assert_eq!(
            plan("--request 9 --answer none").unwrap().request,
            Request::Bytes { count: 9, echo: false }
        );
    }

    #[test]
    fn every_worker_gets_a_share_or_the_plan_is_refused() {
        let l2 = L2::default();
        let p = plan("--ports 10-11 --connections 7").unwrap();
        let configs = p.configs(l2, 2).unwrap();
        assert_eq!(configs.iter().map(|c| c.pairs.count()).sum::<u64>(), p.pairs());
        assert!(p.configs(l2, 3).unwrap_err().contains("widen --ports"));
    }
}
