//! Goodput beside Linux: one upload at a time through the same relay, from the kernel's TCP with CUBIC and from finwheel,
//! both to the kernel's TCP.
//!
//! ```text
//!  server's namespace: the kernel's TCP, or finwheel ── relay: delay, loss, speed, queue ── client's namespace: the kernel
//! ```
//!
//! Without an environment variable a few cells run, and finwheel may not fall far behind. With `FINWHEEL_GOODPUT` the
//! whole table runs and is written to the file that it names (`make goodput` does that).

use crate::tools::{LIMIT, rig_with};
use finwheel::control::{ClientSettings, Cores, Settings, Terminator};
use finwheel::port::mem::{Impairment, Rate};
use finwheel::rig::{RelayConfig, Rig, RigConfig, SERVER_INTERFACE};
use finwheel::service::{Context, Service};
use finwheel::tcp::TcpConfig;
use finwheel::tcp::record::CloseRecord;
use finwheel::wire::Tuple;
use nix::sys::socket::{setsockopt, sockopt};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Speed of the line, bits per second: what a relay in user space carries on one of two cores with ease.
const SPEED: u64 = 100_000_000;
/// Shortest queue before the line; otherwise it holds what a round trip can.
const QUEUE: Duration = Duration::from_millis(5);
/// What a sender may hold to send: `net.ipv4.tcp_wmem` goes up to this. The default of finwheel, 256 KiB, is one window of
/// 100 ms at 20 Mbit/s.
const SEND_BUFFER: u32 = 4 << 20;
/// The receiver's port.
const PORT: u16 = 9200;

/// What runs.
struct Cell {
    /// Round trip, milliseconds.
    rtt: u64,
    /// Loss of data and of ACKs, per mille.
    loss: u32,
}

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sender {
    Linux,
    Finwheel,
}

/// Sends for as long as it is let.
struct Flood;

impl Flood {
    fn push(cx: &mut dyn Context) {
        while cx.send(&[0x5a; 8192]) == 8192 {}
    }
}

impl Service for Flood {
    fn opened(&mut self, cx: &mut dyn Context) {
        Self::push(cx);
    }
    fn data(&mut self, _: &mut dyn Context, bytes: &[u8]) -> usize {
        bytes.len()
    }
    fn writable(&mut self, cx: &mut dyn Context) {
        Self::push(cx);
    }
    fn peer_closed(&mut self, cx: &mut dyn Context) {
        cx.abort();
    }
    fn closed(&mut self, _: &Tuple, _: u32, _: &CloseRecord) {}
}

/// Bytes a second of one upload.
fn upload(rig: &Rig, sender: Sender, cell: &Cell, seed: u64, lasts: Duration) -> f64 {
    let rtt = Duration::from_millis(cell.rtt);
    let line = Impairment {
        loss: f64::from(cell.loss) / 1000.0,
        rate: Some(Rate { bits_per_second: SPEED, queue: rtt.max(QUEUE) }),
        ..Impairment::delayed(rtt / 2)
    };
    let relay = rig.relay(RelayConfig { seed, to_client: line.clone(), to_server: line }).unwrap();
    let to = SocketAddr::from((rig.client_v4().unwrap(), PORT));
    let listener = rig.client_ns().run_in(|| TcpListener::bind(to)).unwrap().unwrap();
    let terminator = (sender == Sender::Finwheel).then(|| finwheel_sends(rig, to));
    let rate = std::thread::scope(|s| {
        if sender == Sender::Linux {
            s.spawn(|| {
                let stream = rig.server_ns().run_in(|| TcpStream::connect_timeout(&to, LIMIT));
                let mut stream = stream.unwrap().unwrap();
                stream.set_write_timeout(Some(LIMIT)).unwrap();
                // As finwheel does by default.
                setsockopt(&stream, sockopt::TcpCongestion, &OsString::from("cubic")).unwrap();
                // Until the receiver goes.
                let part = vec![0x5a; 65_536];
                while stream.write_all(&part).is_ok() {}
            });
        }
        receive(&listener, lasts)
    });
    drop(listener);
    if let Some(terminator) = terminator {
        let outcome = terminator.stop();
        assert!(outcome.failures.is_empty() && outcome.missing_frames == 0, "{:?}", outcome.failures);
    }
    let counters = relay.stop().unwrap();
    assert_eq!(counters.refused, 0, "the rig is too slow: {counters:?}");
    rate
}

fn finwheel_sends(rig: &Rig, to: SocketAddr) -> Terminator {
    let settings = Settings {
        cores: Cores::Unpinned,
        tcp: TcpConfig { send_buffer: SEND_BUFFER, ..TcpConfig::default() },
        client: Some(ClientSettings::new(&[rig.server_v4().unwrap().into()], || Flood)),
        ..Settings::new(SERVER_INTERFACE)
    };
    let started = rig.server_ns().run_in(|| Terminator::start(&settings)).unwrap();
    let terminator = started.unwrap_or_else(|e| panic!("{e}"));
    terminator.connect(to, 0).unwrap();
    terminator
}

/// Bytes a second from the accept on; what is under way then is reset.
fn receive(listener: &TcpListener, lasts: Duration) -> f64 {
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let (began, mut bytes, mut part) = (Instant::now(), 0u64, vec![0; 256 * 1024]);
    while began.elapsed() < lasts {
        let n = stream.read(&mut part).unwrap();
        assert!(n > 0, "the sender ended");
        bytes += n as u64;
    }
    bytes as f64 / began.elapsed().as_secs_f64()
}

/// A line of the table.
struct Measured {
    cell: Cell,
    linux: f64,
    finwheel: f64,
}

impl Measured {
    /// From bytes a second.
    fn new(cell: Cell, rates: [f64; 2]) -> Self {
        let [linux, finwheel] = rates.map(|r| r / 1e6);
        let m = Self { cell, linux, finwheel };
        println!(
            "{:>3} ms, {:>2} per mille: Linux {linux:.2} MB/s, finwheel {finwheel:.2} MB/s, {:.2}",
            m.cell.rtt,
            m.cell.loss,
            m.ratio()
        );
        m
    }

    fn ratio(&self) -> f64 {
        self.finwheel / self.linux
    }
}

/// Both senders through the same lines, one after the other: means of `runs` uploads of `lasts` each.
fn measure(rig: &Rig, cells: Vec<Cell>, runs: u64, lasts: Duration) -> Vec<Measured> {
    let of = |cell: Cell| {
        let each = (0..runs).map(|seed| rates(rig, &cell, seed, lasts));
        let [linux, finwheel] = each.fold([0.0; 2], |sum, [a, b]| [sum[0] + a, sum[1] + b]);
        Measured::new(cell, [linux, finwheel].map(|s| s / runs as f64))
    };
    cells.into_iter().map(of).collect()
}

fn measure_once(rig: &Rig, cell: Cell, seed: u64, lasts: Duration) -> Measured {
    let rates = rates(rig, &cell, seed, lasts);
    Measured::new(cell, rates)
}

/// Bytes a second of an upload by Linux and of one by finwheel.
fn rates(rig: &Rig, cell: &Cell, seed: u64, lasts: Duration) -> [f64; 2] {
    // No connection may learn from the one before.
    rig.server_ns().sysctl("net/ipv4/tcp_no_metrics_save", "1").unwrap();
    [Sender::Linux, Sender::Finwheel].map(|sender| upload(rig, sender, cell, seed, lasts))
}

/// The share of Linux's goodput below which something is wrong. What it really is stands in `docs/goodput.md`; this is a
/// floor for a few seconds on a machine that does other things at the same time.
const FLOOR: f64 = 0.5;

#[test]
fn uploads_are_not_far_behind_linux_on_the_same_line() {
    let rig = rig_with!(RigConfig { relayed: true, ..RigConfig::default() }, "ethtool");
    if let Some(file) = std::env::var_os("FINWHEEL_GOODPUT") {
        let cell = |rtt| [0, 1, 10, 50].map(|loss| Cell { rtt, loss });
        let cells = [1, 20, 100].into_iter().flat_map(cell).collect();
        let (runs, lasts) = (2, Duration::from_secs(6));
        std::fs::write(file, page(&measure(&rig, cells, runs, lasts), runs, lasts)).unwrap();
        return;
    }
    for (rtt, loss) in [(1, 0), (20, 0), (20, 10)] {
        let attempt = |seed| measure_once(&rig, Cell { rtt, loss }, seed, Duration::from_secs(4)).ratio();
        let ratios = until_good(attempt);
        assert!(is_good(&ratios), "{rtt} ms, {loss} per mille: {ratios:.2?}, none of them at least {FLOOR}");
    }
}

/// Attempts of a cell. Whoever has the cores for a moment can spoil one or two; a sender that falls behind by itself does so
/// in all of them. More: a failure takes longer; fewer: it says less.
const ATTEMPTS: u64 = 3;

/// The ratios of attempts up to the first good one.
fn until_good(mut attempt: impl FnMut(u64) -> f64) -> Vec<f64> {
    let mut ratios = Vec::new();
    for seed in 0..ATTEMPTS {
        ratios.push(attempt(seed));
        if is_good(&ratios) {
            break;
        }
    }
    ratios
}

fn is_good(ratios: &[f64]) -> bool {
    ratios.last().is_some_and(|&r| r >= FLOOR)
}

#[test]
fn a_cell_is_measured_until_it_is_good_and_fails_when_it_never_is() {
    let run = |of: &[f64]| {
        let mut of = of.iter();
        until_good(|_| *of.next().unwrap())
    };
    let below = FLOOR - 0.01;
    for (of, taken, good) in [
        (&[FLOOR, below, below][..], 1, true),
        (&[below, below, FLOOR], 3, true),
        (&[below, below, below, FLOOR], 3, false),
        (&[f64::NAN, f64::NAN, f64::NAN], 3, false),
    ] {
        let ratios = run(of);
        assert_eq!((ratios.len(), is_good(&ratios)), (taken, good), "{of:?}");
    }
}

/// `docs/goodput.md`.
fn page(table: &[Measured], runs: u64, lasts: Duration) -> String {
    let first_of = |path: &str, key: &str| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|l| l.starts_with(key)).unwrap_or_default().to_owned();
        line.split_once(':').map_or(line.clone(), |(_, value)| value.trim().to_owned())
    };
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut page = format!(
        "# Goodput beside Linux\n\n\
        One upload at a time to a Linux receiver, from Linux with CUBIC and from finwheel with CUBIC, through the same\n\
        relay: {} Mbit/s, a queue of one round trip (5 ms at least), and the loss of the table on data and on ACKs, with the\n\
        same seeds for both. Means of {runs} uploads of {} s each, slow start included. finwheel's send buffer is 4 MiB, to\n\
        which Linux's grows by itself; with its default of 256 KiB it sends no more than that in a round trip.\n\n\
        `make goodput` measures and writes this page.\n\n\
        | round trip | loss | Linux, MB/s | finwheel, MB/s | ratio |\n|---|---|---|---|---|\n",
        SPEED / 1_000_000,
        lasts.as_secs(),
    );
    for m in table {
        writeln!(
            page,
            "| {} ms | {:.1} % | {:.2} | {:.2} | {:.2} |",
            m.cell.rtt,
            f64::from(m.cell.loss) / 10.0,
            m.linux,
            m.finwheel,
            m.ratio()
        )
        .unwrap();
    }
    writeln!(
        page,
        "\nMeasured on {cores} cores ({}), which relay and both ends share, Linux {}, built with the development profile.",
        first_of("/proc/cpuinfo", "model name"),
        kernel.trim(),
    )
    .unwrap();
    page
}
