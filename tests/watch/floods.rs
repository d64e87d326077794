//! trafgen's profiles (`benches/trafgen`) against a finwheel that serves live clients.
//!
//! `cargo test` runs three of them for a second and a half each. `make floods` sets `FINWHEEL_FLOODS=full`: a release, all of them,
//! longer and faster, and the clients' times are compared; that takes a machine with nothing else to do.
//!
//! What they are compared with decides what is measured. trafgen and clients share a core, so a flood makes clients slower by
//! being sent. Its calm is therefore the same frames at the same rate over the same cable, sent past the server: to an Ethernet
//! and an IP address that nobody has. The steering program looks at them as at the others and leaves them to the kernel, which
//! throws them away. What differs is what finwheel does about a flood. Idle, with nothing sent, is measured too, and shown.
//!
//! Two machines are played by two cores. One sends: trafgen, the clients, the kernel's reception for them, and what the kernel
//! does for a frame up to the worker's ring, as a NIC's interrupt would on a core of its own. The other has the worker and
//! nothing else. Without that, clients wait for the core that the worker is busy on, and the kernel receives for the ring
//! wherever a client happened to send from.

use crate::common::{HTTP, Process, both, metrics};
use crate::load::{Seen, under_load_on};
use crate::{rig_with, serve_with};
use finwheel::rig::{CLIENT_INTERFACE, Rig, SERVER_INTERFACE};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// RSTs and ACKs to strangers, a second and kind: `[tcp] rst_budget` of the configuration here.
const BUDGET: u32 = 300;
/// Local ports of the kernel's clients, so that `time_wait.cfg` can name them: more than a minute of them, for the clients
/// that close first have them in `TIME_WAIT` themselves for as long.
const PORTS: (u16, u16) = (28_000, 39_999);
/// Where a flood comes from, by its profiles; nobody is there.
const STRANGERS: &str = "10.77.128.0/17";
/// Descriptors of each ring: 32 ms of a burst, by the rule in `config/finwheel.toml`.
const RING: u32 = 16_384;
/// Memory that may become resident by a flood: the half-open table of [`serve`] once over, and what the allocator rounds.
const MEMORY: f64 = 16.0 * 1024.0 * 1024.0;

/// Frames a second when all are run: exactly so in bursts, at most when sent evenly.
const RATE: u32 = 20_000;
/// Most that the clients' 99th percentile may be of that in the calm.
const SLOWEST: f64 = 3.0;
/// Turns of calm and flood. The medians of their percentiles are compared: the machine has bad moments of its own.
const TURNS: usize = 3;
/// An exchange that takes this long has had something sent again: the shortest retransmission timeout of Linux's TCP.
const SENT_AGAIN: Duration = Duration::from_millis(200);
/// Frames a second without which bursts were none.
const BURST: f64 = 200_000.0;

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

/// The core of everything but the worker. None on a machine with one core, or all share it.
fn senders() -> Option<usize> {
    let cores = std::thread::available_parallelism().unwrap().get();
    // trafgen binds itself to the first.
    (cores > 1).then_some(0)
}

/// Serves, with budgets that a flood is to meet.
fn start(rig: &Rig) -> Process {
    let ports = format!("{} {}", PORTS.0, PORTS.1);
    rig.client_ns().sysctl("net/ipv4/ip_local_port_range", &ports).unwrap();
    if let Some(core) = senders() {
        rig.client_receives_on(core).unwrap();
    }
    // Answers to strangers do not come back to who sends in their name: it would send more slowly for having to receive them.
    let rules = format!(
        "table netdev strangers {{ chain ingress {{ type filter hook ingress device \"{CLIENT_INTERFACE}\" priority 0; \
         ip daddr {STRANGERS} drop; }}; }}"
    );
    let out = rig.client_command("nft").arg(rules).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let interface = format!("ring_size = {RING}\nframes = {}\n", 2 * RING + 256);
    let worker = if senders().is_some() { "cores = [1]\n" } else { "" };
    serve_with(rig, &interface, worker, &format!("[tcp]\ntime_wait = \"2s\"\nrst_budget = {BUDGET}\n"))
}

/// Frames a second that left the client's end in the fastest 20 ms until it is over.
fn fastest(rig: &Rig, over: &AtomicBool) -> f64 {
    const WINDOW: Duration = Duration::from_millis(20);
    let sent = || {
        // `/proc/net` is that of the process, which is in another namespace than this thread.
        let text = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
        let line = text.lines().find_map(|l| l.trim().strip_prefix(CLIENT_INTERFACE)?.strip_prefix(':'));
        let column = line.and_then(|l| l.split_whitespace().nth(9));
        column.and_then(|n| n.parse::<f64>().ok()).unwrap_or_else(|| panic!("no count of frames: {text}"))
    };
    let look = || {
        let mut seen = Vec::new();
        while !over.load(Ordering::SeqCst) {
            seen.push((Instant::now(), sent()));
            std::thread::sleep(Duration::from_millis(2));
        }
        seen
    };
    let seen = rig.client_ns().run_in(look).unwrap();
    let rate = |i: usize| {
        let (t, n) = seen[i];
        let (t2, n2) = seen[i..].iter().find(|(t2, _)| *t2 - t >= WINDOW)?;
        Some((n2 - n) / (*t2 - t).as_secs_f64())
    };
    (0..seen.len()).filter_map(rate).fold(0.0, f64::max)
}

/// What was seen while something was sent.
struct Turn {
    seen: Seen,
    /// Frames a second in the fastest 20 ms.
    fastest: f64,
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

    /// Sends it while clients work. Returns what was seen and by how much the metrics grew.
    fn run(&self, rig: &Rig, aim: Aim) -> (Turn, impl Fn(&str) -> f64) {
        let before = numbers(rig);
        let over = AtomicBool::new(false);
        let send = || {
            std::thread::scope(|s| {
                let looking = s.spawn(|| fastest(rig, &over));
                let sending = || trafgen(rig, self.flood.profile, aim, self.pace, self.time, self.rate);
                let sent = std::panic::catch_unwind(std::panic::AssertUnwindSafe(sending));
                over.store(true, Ordering::SeqCst);
                sent.map_or_else(|panic| std::panic::resume_unwind(panic), |()| looking.join().unwrap())
            })
        };
        let (fastest, seen) = under_load_on(rig, senders(), send);
        let after = numbers(rig);
        let name = self.name();
        assert!(seen.errors.is_empty() && seen.took.len() > 20, "{name}: {:?}", seen.errors);
        let d = move |series: &str| grown(&before, &after, series);
        let verdict = if aim == Aim::Server { "redirected" } else { "passed" };
        let (came, sent) =
            (d(&format!("finwheel_steering_packets_total{{verdict=\"{verdict}\"}}")), self.frames());
        assert!(came > sent * 0.25, "{name}: the flood did not arrive: {came} of {sent}");
        (Turn { seen, fastest }, d)
    }

    fn frames(&self) -> f64 {
        f64::from(self.rate) * self.time.as_secs_f64()
    }

    /// Past the server.
    fn calm(&self, rig: &Rig) -> Turn {
        self.run(rig, Aim::Nobody).0
    }

    /// Over live clients, judged by the metrics.
    fn flood(&self, rig: &Rig) -> Turn {
        let (turn, d) = self.run(rig, Aim::Server);
        let (f, name) = (self.flood, self.name());
        let sent = d("finwheel_steering_packets_total{verdict=\"redirected\"}");
        let rx = d("finwheel_frames_total{direction=\"rx\"}");
        let tx = d("finwheel_frames_total{direction=\"tx\"}");
        let by_reason: Vec<(&str, f64)> =
            f.dropped.iter().map(|r| (*r, d(&format!("finwheel_drops_total{{reason=\"{r}\"}}")))).collect();
        let dropped: f64 = by_reason.iter().map(|(_, n)| n).sum();
        let shed = d("finwheel_drops_total{reason=\"tx_ring_full\"}");
        let events = ["rx_dropped", "rx_ring_full", "fill_ring_empty"]
            .map(|event| d(&format!("finwheel_xsk_events_total{{event=\"{event}\"}}")));
        let overflow: f64 = events.iter().sum();
        let cookies = d("finwheel_syn_cookies_total{event=\"sent\"}");
        let refused = d("finwheel_budget_refusals_total{budget=\"reset\"}");
        let memory = d("finwheel_resident_memory_bytes");
        let clients = turn.seen.took.len() as f64;
        println!(
            "{name}: {sent:.0} frames, rx {rx:.0} tx {tx:.0}, ring overflow {overflow:.0}, SYNs shed {shed:.0}, dropped {by_reason:?}, \
             cookies {cookies:.0}, RSTs refused {refused:.0}, memory {:+.1} MiB, exchanges {clients:.0}, longest {:?}",
            memory / 1024.0 / 1024.0,
            turn.seen.longest(),
        );
        // Whom it hits is chance, and a client whose SYN it is waits a second.
        assert!(overflow + shed == 0.0, "{name}: lost at the rings: {overflow} received, {shed} answers");
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
        turn
    }
}

/// Nothing but the clients.
fn idle(rig: &Rig, time: Duration) -> Seen {
    let ((), seen) = under_load_on(rig, senders(), || std::thread::sleep(time));
    assert!(seen.errors.is_empty(), "{:?}", seen.errors);
    seen
}

fn end(p: Process) {
    p.signal(Signal::SIGTERM);
    let (status, log) = p.end(Duration::from_secs(40));
    assert_eq!(status.code(), Some(0), "{log}");
}

/// What to run, as `FINWHEEL_FLOODS` says: names of profiles and of paces, or `full`. All of either if none is named.
struct Wanted(String);

impl Wanted {
    fn has(&self, word: &str, of: &[&str]) -> bool {
        let named = |w: &str| self.0.split(',').any(|n| n == w);
        named(word) || !of.iter().any(|w| named(w))
    }

    fn is_known(&self, words: &[&str]) -> bool {
        self.0.split(',').all(|n| n == "full" || words.contains(&n))
    }
}

fn median(turns: &[Turn], of: impl Fn(&Turn) -> Duration) -> Duration {
    let mut all: Vec<Duration> = turns.iter().map(of).collect();
    all.sort();
    all[all.len() / 2]
}

/// The clients' times in some turns beside those of the calm: a line of the table, and what is wrong with them.
fn compare(attack: &Attack, calm: &[Turn], flood: &[Turn], idle: Duration) -> (String, Option<String>) {
    let p99 = |turns: &[Turn]| median(turns, |t| t.seen.p99());
    let times = |of: Duration| p99(flood).as_secs_f64() / of.as_secs_f64();
    let longest = |turns: &[Turn]| turns.iter().map(|t| t.seen.longest()).max().unwrap_or_default();
    let least = |turns: &[Turn]| turns.iter().map(|t| t.fastest).fold(f64::INFINITY, f64::min);
    let (of_calm, worst) = (times(p99(calm)), longest(flood));
    let each: Vec<Duration> = flood.iter().map(|t| t.seen.p99()).collect();
    let line = format!(
        "{:>20}: p99 {:?} of {each:?}, calm {:?}: {of_calm:.1}x, {:.1}x of idle; longest {worst:?}, calm {:?}; at least {:.0} k \
         frames/s at its fastest, calm {:.0} k\n",
        attack.name(),
        p99(flood),
        p99(calm),
        times(idle),
        longest(calm),
        least(flood) / 1000.0,
        least(calm) / 1000.0,
    );
    let slow = of_calm > SLOWEST || worst >= SENT_AGAIN;
    let weak = attack.pace == Pace::Bursts && least(flood).min(least(calm)) < BURST;
    (line.clone(), (slow || weak).then_some(line))
}

#[test]
fn floods_harm_no_live_client_and_are_neither_kept_nor_reflected() {
    let rig = rig_with!("trafgen", "timeout", "nft");
    let p = start(&rig);
    let Ok(wanted) = std::env::var("FINWHEEL_FLOODS").map(Wanted) else {
        let time = Duration::from_millis(1500);
        for flood in FLOODS.iter().filter(|f| ["syn", "garbage", "time_wait"].contains(&f.profile)) {
            let _ = Attack { flood, pace: Pace::Bursts, time, rate: 3000 }.flood(&rig);
        }
        end(p);
        return;
    };
    let release = cfg!(not(debug_assertions));
    assert!(release, "times of a development build say nothing: make floods");
    let (profiles, paces) = (FLOODS.map(|f| f.profile), ["evenly", "bursts"]);
    assert!(wanted.is_known(&[&profiles[..], &paces].concat()), "{:?}: {profiles:?}, {paces:?}", wanted.0);
    let time = Duration::from_secs(2);
    // Warm on both sides, before anything is measured.
    let _ = idle(&rig, time / 2);
    let idle = idle(&rig, time).p99();
    let (mut table, mut wrong) = (format!("idle: p99 {idle:?}\n"), String::new());
    for (pace, word) in [Pace::Even, Pace::Bursts].into_iter().zip(paces) {
        for flood in FLOODS.iter().filter(|f| wanted.has(word, &paces) && wanted.has(f.profile, &profiles)) {
            let attack = Attack { flood, pace, time, rate: RATE };
            let (calm, flood): (Vec<_>, Vec<_>) =
                (0..TURNS).map(|_| (attack.calm(&rig), attack.flood(&rig))).unzip();
            let (line, bad) = compare(&attack, &calm, &flood, idle);
            table.push_str(&line);
            wrong.extend(bad);
        }
    }
    print!("{table}");
    end(p);
    assert!(
        wrong.is_empty(),
        "p99 over {SLOWEST} times that of the calm, an exchange of {SENT_AGAIN:?}, or bursts under {BURST} frames/s:\n{wrong}"
    );
}
