//! The command line of `finwheel blast`, and how its words are read.

use crate::service::blast::CloseShape;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

/// Examples and the rules of the road, below the options.
const AFTER: &str = "\
Source addresses: answers must find their way back to this interface. Either the peer (or a router before it) has a \
route to the source network by way of an address of this interface; or the source network lies within the \
interface's own, and this host answers ARP for it:

  peer$  ip route add 10.78.0.0/16 via 10.77.0.2          # outside of the interface's network
  here$  ip route add local 10.77.4.0/22 dev lo           # within it: the kernel answers ARP for all of it (IPv4)

IPv6 has no such local answer: give the peer a route, or this interface the addresses. TCP to the source addresses and \
the local ports is taken from this host's kernel for as long as the run lasts; anything else is left to it.

Examples:

  finwheel blast --target 10.77.0.1:80 --interface eth1 --source-net 10.78.0.0/24 --request http \\
      --connections 100000 --concurrency 256
  finwheel blast --target 10.77.0.1:7 --interface eth1 --source-net 10.78.0.0/24 --request 1000 --rate 20000 \\
      --duration 30s --close half --json
  finwheel blast --target 10.77.0.1:80 --interface eth1 --source-net 10.78.0.0/22 --request 0 --rate 50000 \\
      --connections 1000000 --hold 60s

Exit codes: 0 done; 1 more errors than --max-errors, or a failure; 2 a wrong command line, or a target that cannot be \
reached. SIGINT or SIGTERM ends what is open, and the report is printed.";

/// Load a TCP server with connections from many addresses, over `AF_XDP`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = AFTER)]
pub struct BlastArgs {
    /// The server: address and port. There is no default.
    #[arg(long, value_name = "ADDR:PORT")]
    pub target: SocketAddr,
    /// The interface to send from.
    #[arg(long, value_name = "IF")]
    pub interface: String,
    /// Where connections come from: a network, of which the first 1024 addresses are used at most.
    #[arg(long, value_name = "CIDR", value_parser = parse_net)]
    pub source_net: Net,
    /// Local ports of each source address.
    #[arg(long, value_name = "LO-HI", default_value = "16384-32767", value_parser = parse_ports)]
    pub ports: RangeInclusive<u16>,
    /// Connections in all. Without it, as many as the duration allows.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub connections: Option<u64>,
    /// How long connections are opened; 10s when --connections is not given either.
    #[arg(long, value_name = "D", value_parser = humantime::parse_duration)]
    pub duration: Option<Duration>,
    /// Open loop: connections a second, by the clock, whatever becomes of the earlier ones. Latencies count from the time
    /// at which a connection was to be opened.
    #[arg(long, value_name = "R", value_parser = parse_rate)]
    pub rate: Option<Rate>,
    /// Connections open at a time. Without --rate the load is a closed loop: one that ends makes room for the next.
    /// [default: 64, or with --rate what may be open when nothing answers]
    #[arg(long, value_name = "C", value_parser = clap::value_parser!(u32).range(1..=MAX_OPEN as i64))]
    pub concurrency: Option<u32>,
    /// Who closes: the client, once it is answered; the server, and the client follows; both at once, as far as can be
    /// had (our FIN goes with the answer's first byte); half: the client half-closes with the request and reads on;
    /// reset: the client, by RST.
    #[arg(long, value_enum, default_value_t = Close::Client)]
    pub close: Close,
    /// What is sent: so many bytes, which are to come back (0: nothing is sent), or an HTTP request.
    #[arg(long, value_name = "BYTES|http", default_value = "http", value_parser = parse_request)]
    pub request: RequestArg,
    /// What comes back after BYTES.
    #[arg(long, value_enum, default_value_t = AnswerArg::Echo)]
    pub answer: AnswerArg,
    /// What the HTTP request asks for.
    #[arg(long, value_name = "PATH", default_value = "/", value_parser = parse_path)]
    pub path: String,
    /// Keeps every connection open this long once it is answered.
    #[arg(long, value_name = "D", default_value = "0s", value_parser = humantime::parse_duration)]
    pub hold: Duration,
    /// Time limit from the begin to the complete answer, and again for the close.
    #[arg(long, value_name = "D", default_value = "10s", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
    /// How long a pair stays in `TIME_WAIT` here. It is taken again earlier with a newer timestamp (RFC 6191).
    #[arg(long, value_name = "D", default_value = "60s", value_parser = humantime::parse_duration)]
    pub time_wait: Duration,
    /// Workers: the first N receive queues of the interface. [default: one for each queue]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub workers: Option<u32>,
    /// The CPUs of the workers, in their order. [default: the first ones]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub cores: Option<Vec<usize>>,
    /// Errors that are no failure of the run: a number, or a share of the connections as `1%`.
    #[arg(long, value_name = "N|PCT", default_value = "0", value_parser = parse_max_errors)]
    pub max_errors: MaxErrors,
    /// Print the report as one JSON object.
    #[arg(long)]
    pub json: bool,
    /// No line a second.
    #[arg(long, short)]
    pub quiet: bool,
}

/// Connections that may be open at a time at most: what a worker's index takes.
pub const MAX_OPEN: u32 = 4_000_000;

/// A network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Net {
    /// An address of it.
    pub ip: IpAddr,
    /// Bits that all its addresses share.
    pub prefix_len: u8,
}

impl std::fmt::Display for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix_len)
    }
}

/// Connections in 1000 seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(pub u64);

/// `--request`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestArg {
    /// So many bytes.
    Bytes(u64),
    /// An HTTP request.
    Http,
}

/// `--answer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum AnswerArg {
    /// The same bytes.
    Echo,
    /// None.
    None,
}

/// `--close`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Close {
    /// The client, once it is answered.
    Client,
    /// The server.
    Server,
    /// Both at once.
    Both,
    /// The client half-closes with the request.
    Half,
    /// The client, by RST.
    Reset,
}

impl Close {
    /// As the generator knows it.
    #[must_use]
    pub const fn shape(self) -> CloseShape {
        match self {
            Self::Client => CloseShape::Client,
            Self::Server => CloseShape::Server,
            Self::Both => CloseShape::Both,
            Self::Half => CloseShape::Half,
            Self::Reset => CloseShape::Reset,
        }
    }

    /// The word on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Both => "both",
            Self::Half => "half",
            Self::Reset => "reset",
        }
    }
}

/// `--max-errors`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MaxErrors {
    /// So many.
    Count(u64),
    /// This share of the connections that were begun, in percent.
    Percent(f64),
}

impl MaxErrors {
    /// Whether so many errors of so many connections are too many.
    #[must_use]
    pub fn exceeded(self, errors: u64, connections: u64) -> bool {
        match self {
            Self::Count(n) => errors > n,
            Self::Percent(p) => errors as f64 * 100.0 > p * connections as f64,
        }
    }
}

fn parse_net(text: &str) -> Result<Net, String> {
    let (ip, len) = text.split_once('/').ok_or("expected a network as 10.78.0.0/24")?;
    let ip: IpAddr = ip.parse().map_err(|_| format!("`{ip}` is no IP address"))?;
    let bits = if ip.is_ipv4() { 32 } else { 128 };
    let prefix_len = len.parse().ok().filter(|&l| l <= bits);
    let prefix_len = prefix_len.ok_or_else(|| format!("`{len}` is no prefix length from 0 to {bits}"))?;
    if ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() {
        return Err(format!("{ip} cannot be a source of connections"));
    }
    Ok(Net { ip, prefix_len })
}

fn parse_ports(text: &str) -> Result<RangeInclusive<u16>, String> {
    let (lo, hi) = text.split_once('-').unwrap_or((text, text));
    let port = |t: &str| t.trim().parse::<u16>().ok().filter(|&p| p > 0);
    match (port(lo), port(hi)) {
        (Some(lo), Some(hi)) if lo <= hi => Ok(lo..=hi),
        _ => Err("expected ports as 16384-32767".into()),
    }
}

fn parse_rate(text: &str) -> Result<Rate, String> {
    let rate: f64 = text.parse().map_err(|_| "expected connections a second, as 20000 or 0.5")?;
    // In thousandths: 1e8 a second is beyond any link.
    if !(0.001..=1e8).contains(&rate) {
        return Err("a rate lies between 0.001 and 100000000 a second".into());
    }
    // Positive and below 1e11.
    #[allow(clippy::cast_sign_loss)]
    Ok(Rate((rate * 1000.0).round() as u64))
}

fn parse_request(text: &str) -> Result<RequestArg, String> {
    if text == "http" {
        return Ok(RequestArg::Http);
    }
    let n: u64 = text.parse().map_err(|_| "expected a number of bytes, or `http`")?;
    // A gigabyte a connection is a transfer, not a load of connections.
    if n > 1 << 30 { Err("at most 1073741824 bytes".into()) } else { Ok(RequestArg::Bytes(n)) }
}

fn parse_path(text: &str) -> Result<String, String> {
    let good = text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic());
    if good { Ok(text.to_owned()) } else { Err("a path starts with `/` and has no spaces".into()) }
}

fn parse_max_errors(text: &str) -> Result<MaxErrors, String> {
    let wrong = || "expected a number, or a share from 0% to 100%".to_owned();
    match text.strip_suffix('%') {
        Some(p) => {
            p.parse().ok().filter(|p| (0.0..=100.0).contains(p)).map(MaxErrors::Percent).ok_or_else(wrong)
        }
        None => text.parse().map(MaxErrors::Count).map_err(|_| wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn parse(extra: &str) -> Result<BlastArgs, String> {
        let base = "finwheel blast --target 10.0.0.1:80 --interface eth1 --source-net 10.78.0.0/24";
        let cli = Cli::try_parse_from(base.split(' ').chain(extra.split_whitespace()))
            .map_err(|e| e.to_string())?;
        let Command::Blast(args) = cli.command else { panic!("{cli:?}") };
        Ok(*args)
    }

    #[test]
    fn nothing_is_sent_without_a_target_an_interface_and_a_source() {
        for missing in ["--target", "--interface", "--source-net"] {
            let all = [("--target", "10.0.0.1:80"), ("--interface", "eth1"), ("--source-net", "10.0.0.0/8")];
            let words =
                all.iter().filter(|(name, _)| *name != missing).flat_map(|(name, value)| [*name, *value]);
            let e = Cli::try_parse_from(["finwheel", "blast"].into_iter().chain(words)).unwrap_err();
            assert_eq!(e.exit_code(), 2);
            assert!(e.to_string().contains(missing), "{missing}: {e}");
        }
    }

    #[test]
    fn every_option_has_its_value() {
        let a = parse(
            "--ports 1000-1999 --connections 5 --duration 3s --rate 0.5 --concurrency 7 --close half --request 100 \
             --answer none --hold 4s --timeout 2s --time-wait 1s --workers 2 --cores 0,1 --max-errors 1.5% --json -q",
        )
        .unwrap();
        let secs = Duration::from_secs;
        assert_eq!((a.ports, a.connections, a.duration), (1000..=1999, Some(5), Some(secs(3))));
        assert_eq!((a.rate, a.concurrency, a.close), (Some(Rate(500)), Some(7), Close::Half));
        assert_eq!((a.request, a.answer), (RequestArg::Bytes(100), AnswerArg::None));
        assert_eq!((a.hold, a.timeout, a.time_wait), (secs(4), secs(2), secs(1)));
        assert_eq!((a.workers, a.cores), (Some(2), Some(vec![0, 1])));
        assert_eq!((a.max_errors, a.json, a.quiet), (MaxErrors::Percent(1.5), true, true));
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_can() {
        let rows = [
            ("--source-net 10.0.0.0", "10.78.0.0/24"),
            ("--source-net 10.0.0.0/33", "0 to 32"),
            ("--source-net x/3", "no IP address"),
            ("--source-net 127.0.0.0/8", "cannot be a source"),
            ("--ports 0-5", "16384-32767"),
            ("--ports 9-5", "16384-32767"),
            ("--rate 0", "between 0.001"),
            ("--rate nan", "between 0.001"),
            ("--rate fast", "a second"),
            ("--request many", "`http`"),
            ("--request 9999999999", "at most"),
            ("--path index.html", "starts with"),
            ("--max-errors 101%", "0% to 100%"),
            ("--max-errors -1", "-1"),
            ("--connections 0", "0"),
            ("--concurrency 0", "0"),
            ("--close fast", "half"),
            ("--timeout 5", "5"),
        ];
        for (extra, says) in rows {
            // A later option replaces none: clap refuses the same one twice, so each is tried on its own.
            let e = match extra.strip_prefix("--source-net ") {
                Some(net) => parse_net(net).unwrap_err(),
                None => parse(extra).unwrap_err(),
            };
            assert!(e.contains(says), "{extra}: {e}");
        }
    }

    #[test]
    fn errors_are_too_many_beyond_the_number_or_the_share() {
        assert!(!MaxErrors::Count(0).exceeded(0, 10) && MaxErrors::Count(0).exceeded(1, 10));
        let share = MaxErrors::Percent(1.0);
        assert!(!share.exceeded(1, 100) && share.exceeded(2, 100) && !share.exceeded(0, 0));
    }
}
