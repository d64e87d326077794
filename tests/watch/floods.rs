//! trafgen's profiles (`benches/trafgen`) against a finwheel that serves live clients.
//!
//! `cargo test` runs three of them for a second and a half each. `make floods` sets `FINWHEEL_FLOODS=full`: a release, all of them,
//! longer and faster, and the clients' times are compared; that takes a machine with nothing else to do.
//!
//! What they are compared with decides what is measured. Clients, worker, trafgen and the kernel between them share few cores,
//! so a flood makes clients slower by being sent. Its calm is therefore the same frames at the same rate over the same cable,
//! sent past the server: to an Ethernet and an IP address that nobody has. The steering program looks at them as at the others
//! and leaves them to the kernel, which throws them away. What differs is what finwheel does about a flood. Idle, with nothing
//! sent, is measured too, and shown.

use crate::common::{HTTP, Process, both, metrics};
use crate::load::{Seen, under_load};
use crate::{rig_with, serve_on};
use finwheel::rig::{CLIENT_INTERFACE, Rig, SERVER_INTERFACE};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

/// RSTs and ACKs to strangers, a second and kind: `[tcp] rst_budget` of the configuration here.
const BUDGET: u32 = 300;
/// Local ports of the kernel's clients, so that `time_wait.cfg` can name them: more than a minute of them, for the clients
/// that close first have them in `TIME_WAIT` themselves for as long.
const PORTS: (u16, u16) = (28_000, 39_999);
/// Memory that may become resident by a flood: the half-open table of [`serve`] once over, and what the allocator rounds.
const MEMORY: f64 = 16.0 * 1024.0 * 1024.0;

/// Frames a second when all are run: exactly so in bursts, at most when sent evenly.
const RATE: u32 = 20_000;
/// Most that the clients' 99th percentile may be of that in the calm.
const SLOWEST: f64 = 3.0;

/// A profile and what must be seen of it.
struct Flood {
    profile: &'static str,
    /// Reasons of which most of its frames are dropped; none for frames that have another effect.
    dropped: &'static [&'static str],
    /// Least share of the frames for each of the reasons.
    each: f64,
    /// Most answers for each frame beside the budget: a SYN-ACK to a SYN, and some again for the records that there are.
    answers: f64,
}

const FLOODS: [Flood; 6] = [
    Flood { profile: "syn", dropped: &[], each: 0.0, answers: 1.5 },
    Flood { profile: "fin", dropped: &["no_connection"], each: 0.4, answers: 0.0 },
    Flood { profile: "ack", dropped: &["no_connection"], each: 0.4, answers: 0.0 },
    Flood { profile: "rst", dropped: &["stray_reset"], each: 0.4, answers: 0.0 },
    // Four kinds by turns.
    Flood {
        profile: "garbage",
        dropped: &["bad_tcp_checksum", "bad_flags", "bad_data_offset", "fragment"],
        each: 0.1,
        answers: 0.0,
    },
    // Of what hits a pair that is held, or a live one, some is answered within the pair's own budget, and the kernel
    // answers in turn.
    Flood {
        profile: "time_wait",
        dropped: &[
            "no_connection",
            "stray_reset",
            "out_of_window",
            "reset_in_time_wait",
            "bad_reset",
            "bad_ack",
        ],
        each: 0.0,
        answers: 1.0,
    },
];

/// Numbers of the metrics, by series.
type Numbers = BTreeMap<String, f64>;

fn numbers(rig: &Rig) -> Numbers {
    // Reports come in once a second: those that include everything so far.
    std::thread::sleep(Duration::from_millis(1100));
    let (code, text) = crate::common::ask(rig, metrics(), "/metrics");
    assert_eq!(code, 200);
    let sample = |line: &str| {
        let (series, value) = line.rsplit_once(' ')?;
        Some((series.to_owned(), value.parse().ok()?))
    };
    text.lines().filter(|l| !l.starts_with('#')).filter_map(sample).collect()
}

/// By how much a series has grown.
fn grown(before: &Numbers, after: &Numbers, series: &str) -> f64 {
    let of = |n: &Numbers| *n.get(series).unwrap_or_else(|| panic!("no {series}"));
    of(after) - of(before)
}

fn mac(rig: &Rig, server: bool) -> String {
    let (ns, interface) =
        if server { (rig.server_ns(), SERVER_INTERFACE) } else { (rig.client_ns(), CLIENT_INTERFACE) };
    let out = ns.command("ip").args(["-o", "link", "show", "dev", interface]).output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    text.split_once("link/ether ").and_then(|(_, t)| t.get(..17)).expect("an Ethernet address").to_owned()
}

/// Where a flood is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Aim {
    Server,
    /// Past it, over the same cable.
    Nobody,
}

/// How a flood's frames are spread over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// One after the other, with a gap between them.
    Even,
    /// What a second is to have at its beginning, as fast as trafgen can: what its `--rate` does.
    Bursts,
}

/// Shortest gap that trafgen can be told. Sleeping and sending take ten to fifty times as long: it makes 10,000 to 20,000 frames
/// a second.
const GAP: &str = "1us";

/// Runs a profile from the client's end for so long, so many frames a second.
pub fn trafgen(rig: &Rig, profile: &str, aim: Aim, pace: Pace, time: Duration, frames_per_second: u32) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("benches/trafgen/{profile}.cfg"));
    let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let SocketAddr::V4(to) = both(rig, HTTP)[0] else { unreachable!("the first is IPv4") };
    let from = IpAddr::from(rig.client_v4().unwrap());
    let (to_mac, to_ip) = match aim {
        Aim::Server => (mac(rig, true), to.ip().to_string()),
        Aim::Nobody => ("02:00:00:00:00:fe".to_owned(), "10.77.0.254".to_owned()),
    };
    let text = [
        ("SERVER_MAC", to_mac),
        ("CLIENT_MAC", mac(rig, false)),
        ("SERVER_IP", to_ip),
        ("CLIENT_IP", from.to_string()),
        ("FIRST_PORT", PORTS.0.to_string()),
        ("LAST_PORT", PORTS.1.to_string()),
        ("PORT", to.port().to_string()),
    ]
    .iter()
    .fold(text, |text, (name, value)| text.replace(name, value));
    let dir = tempfile::tempdir().unwrap();
    let filled = dir.path().join("profile.cfg");
    std::fs::write(&filled, text).unwrap();
    let (spread, each) = match pace {
        Pace::Even => ("-t", GAP.to_owned()),
        Pace::Bursts => ("-b", format!("{frames_per_second}pps")),
    };
    let mut command = rig.client_command("timeout");
    command
        .args(["-k", "1", "-s", "INT", &time.as_secs_f64().to_string(), "trafgen", "--dev", CLIENT_INTERFACE])
        .args(["-P", "1", spread, &each, "--conf"])
        .arg(&filled)
        .stdin(Stdio::null());
    // It does not know the interface as one of the kernel's own namespace and warns; what it sent, finwheel's counters say.
    let out = command.stdout(Stdio::null()).stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    let failed = ["Syntax error", "Failed to", "failed to"].iter().any(|f| said.contains(f));
    assert!(!failed, "{profile}: {said}");
}

/// Serves, with budgets that a flood is to meet.
fn start(rig: &Rig) -> Process {
    let ports = format!("{} {}", PORTS.0, PORTS.1);
    rig.client_ns().sysctl("net/ipv4/ip_local_port_range", &ports).unwrap();
    // trafgen binds itself to the first core. A flood comes from elsewhere and takes nothing of the worker's.
    let cores = std::thread::available_parallelism().unwrap().get();
    let core = if cores > 1 { "[1]" } else { "\"auto\"" };
    serve_on(rig, core, &format!("[tcp]\ntime_wait = \"2s\"\nrst_budget = {BUDGET}\n"))
}

/// What is sent, and how.
#[derive(Clone, Copy)]
struct Attack<'a> {
    flood: &'a Flood,
    pace: Pace,
    time: Duration,
    rate: u32,
}

impl Attack<'_> {
    fn name(&self) -> String {
        format!("{} {}", self.flood.profile, if self.pace == Pace::Even { "evenly" } else { "in bursts" })
    }

    /// Sends it while clients work. Returns what they saw and by how much the metrics grew.
    fn run(&self, rig: &Rig, aim: Aim) -> (Seen, impl Fn(&str) -> f64) {
        let before = numbers(rig);
        let send = || trafgen(rig, self.flood.profile, aim, self.pace, self.time, self.rate);
        let ((), seen) = under_load(rig, send);
        let after = numbers(rig);
        let name = self.name();
        assert!(seen.errors.is_empty() && seen.took.len() > 20, "{name}: {:?}", seen.errors);
        let d = move |series: &str| grown(&before, &after, series);
        let verdict = if aim == Aim::Server { "redirected" } else { "passed" };
        let (came, sent) =
            (d(&format!("finwheel_steering_packets_total{{verdict=\"{verdict}\"}}")), self.frames());
        assert!(came > sent * 0.25, "{name}: the flood did not arrive: {came} of {sent}");
        (seen, d)
    }

    fn frames(&self) -> f64 {
        f64::from(self.rate) * self.time.as_secs_f64()
    }

    /// Past the server.
    fn calm(&self, rig: &Rig) -> Seen {
        self.run(rig, Aim::Nobody).0
    }

    /// Over live clients, judged by the metrics. Returns what the clients saw.
    fn flood(&self, rig: &Rig) -> Seen {
        let (seen, d) = self.run(rig, Aim::Server);
        let (f, name) = (self.flood, self.name());
        let sent = d("finwheel_steering_packets_total{verdict=\"redirected\"}");
        let rx = d("finwheel_frames_total{direction=\"rx\"}");
        let tx = d("finwheel_frames_total{direction=\"tx\"}");
        let by_reason: Vec<(&str, f64)> =
            f.dropped.iter().map(|r| (*r, d(&format!("finwheel_drops_total{{reason=\"{r}\"}}")))).collect();
        let dropped: f64 = by_reason.iter().map(|(_, n)| n).sum();
        let shed = d("finwheel_drops_total{reason=\"tx_ring_full\"}");
        let overflow = d("finwheel_xsk_events_total{event=\"rx_dropped\"}")
            + d("finwheel_xsk_events_total{event=\"rx_ring_full\"}");
        let cookies = d("finwheel_syn_cookies_total{event=\"sent\"}");
        let refused = d("finwheel_budget_refusals_total{budget=\"reset\"}");
        let memory = d("finwheel_resident_memory_bytes");
        let clients = seen.took.len() as f64;
        println!(
            "{name}: {sent:.0} frames, rx {rx:.0} tx {tx:.0}, ring overflow {overflow:.0}, SYNs shed {shed:.0}, dropped {by_reason:?}, \
             cookies {cookies:.0}, RSTs refused {refused:.0}, memory {:+.1} MiB, exchanges {clients:.0}, longest {:?}",
            memory / 1024.0 / 1024.0,
            seen.longest(),
        );
        if f.dropped.is_empty() {
            assert!(cookies > sent * 0.2, "{cookies} cookies for {sent} SYNs");
        } else {
            let under_each = by_reason.iter().all(|&(_, n)| n >= sent * f.each);
            assert!(dropped > sent * 0.4 && under_each, "{name}: {by_reason:?} of {sent}");
        }
        // A client's exchange is five or six frames out. The rest is what the flood got: no more than its budgets, each of
        // which may be spent once more than there are seconds, and of which there are two (RSTs, ACKs).
        let seconds = self.time.as_secs_f64() + 4.0;
        let allowed = clients * 12.0 + f.answers * sent + f64::from(BUDGET) * 2.0 * seconds;
        assert!(tx < allowed, "{name}: {tx} frames out, {allowed} are allowed");
        assert!(memory < MEMORY, "{name}: {memory} bytes more");
        assert!(d("finwheel_illegal_transitions_total") == 0.0);
        seen
    }
}

/// Nothing but the clients.
fn idle(rig: &Rig, time: Duration) -> Seen {
    let ((), seen) = under_load(rig, || std::thread::sleep(time));
    assert!(seen.errors.is_empty(), "{:?}", seen.errors);
    seen
}

fn end(p: Process) {
    p.signal(Signal::SIGTERM);
    let (status, log) = p.end(Duration::from_secs(40));
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn floods_harm_no_live_client_and_are_neither_kept_nor_reflected() {
    let rig = rig_with!("trafgen", "timeout");
    let p = start(&rig);
    let Ok(which) = std::env::var("FINWHEEL_FLOODS") else {
        let time = Duration::from_millis(1500);
        for flood in FLOODS.iter().filter(|f| ["syn", "garbage", "time_wait"].contains(&f.profile)) {
            let _ = Attack { flood, pace: Pace::Bursts, time, rate: 3000 }.flood(&rig);
        }
        end(p);
        return;
    };
    let release = cfg!(not(debug_assertions));
    assert!(release, "times of a development build say nothing: make floods");
    let time = Duration::from_secs(3);
    // Warm on both sides, before anything is measured.
    let _ = idle(&rig, time / 2);
    let idle = idle(&rig, time).p99();
    let (mut table, mut slow) = (format!("idle: p99 {idle:?}\n"), Vec::new());
    for pace in [Pace::Even, Pace::Bursts] {
        for flood in FLOODS.iter().filter(|f| which == "full" || which.split(',').any(|w| w == f.profile)) {
            let attack = Attack { flood, pace, time, rate: RATE };
            let calm = attack.calm(&rig).p99();
            let seen = attack.flood(&rig);
            let times = |by: Duration| seen.p99().as_secs_f64() / by.as_secs_f64();
            let (name, of_calm, of_idle) = (attack.name(), times(calm), times(idle));
            let (p99, longest) = (seen.p99(), seen.longest());
            writeln!(
                table,
                "{name:>20}: p99 {p99:?}, calm {calm:?}: {of_calm:.1}x, {of_idle:.1}x of idle; longest {longest:?}"
            )
            .unwrap();
            if pace == Pace::Even && of_calm > SLOWEST {
                slow.push(name);
            }
        }
    }
    print!("{table}");
    end(p);
    assert!(slow.is_empty(), "clients took over {SLOWEST} times as long as in the calm: {slow:?}");
}
