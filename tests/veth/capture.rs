//! A capture by tcpdump in the client's namespace, and what tshark makes of it.
//!
//! ```text
//! tcpdump ─▶ pcap ─▶ tshark's dissection, a line a frame ─▶ Frame ─▶ judge ─▶ faults
//! ```
//!
//! The judge knows of finwheel no more than its addresses. The kernel's own frames are captured before their checksums
//! are finished, so only those of finwheel are held to them.

use crate::tools::{LIMIT, Running, run};
use finwheel::rig::{CLIENT_INTERFACE, Rig};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// tcpdump's buffer, KiB: some seconds of what a veth can carry.
const BUFFER_KIB: &str = "131072";

/// Bytes of a frame that are kept: all of it, as native XDP takes the peer's segmentation offload away. The buffer is
/// divided by it.
const SNAPLEN: &str = "2048";

/// tcpdump at work.
pub struct Capture {
    tcpdump: Running,
    dir: tempfile::TempDir,
}

impl Capture {
    /// Starts capturing the TCP segments at the client's end that match a filter.
    pub fn start(rig: &Rig, filter: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let said = dir.path().join("said");
        let mut tcpdump = rig.client_command("tcpdump");
        // Immediate, or what the kernel has not handed over when it ends is lost.
        tcpdump.args([
            "--immediate-mode",
            "-i",
            CLIENT_INTERFACE,
            "-Z",
            "root",
            "-B",
            BUFFER_KIB,
            "-s",
            SNAPLEN,
            "-w",
        ]);
        tcpdump.arg(dir.path().join("pcap")).arg(filter).stdin(Stdio::null()).stdout(Stdio::null());
        tcpdump.stderr(std::fs::File::create(&said).unwrap());
        let mut tcpdump = Running(tcpdump.spawn().unwrap());
        let end = Instant::now() + LIMIT;
        while !std::fs::read_to_string(&said).unwrap().contains("listening on") {
            assert!(
                tcpdump.wait(Duration::from_millis(5)).is_none() && Instant::now() < end,
                "tcpdump: {}",
                std::fs::read_to_string(&said).unwrap()
            );
        }
        Self { tcpdump, dir }
    }

    /// Ends it. Returns the file, which lives as long as the directory; nothing may be missing in it.
    pub fn stop(mut self) -> (PathBuf, tempfile::TempDir) {
        // The last frames, and the ACKs that they are due, are on their way.
        std::thread::sleep(Duration::from_millis(300));
        self.tcpdump.signal(Signal::SIGINT);
        assert!(self.tcpdump.wait(LIMIT).is_some(), "tcpdump goes on");
        let said = std::fs::read_to_string(self.dir.path().join("said")).unwrap();
        assert!(said.contains("\n0 packets dropped by kernel"), "the capture is not complete: {said}");
        (self.dir.path().join("pcap"), self.dir)
    }
}

/// Faults of a stream that tshark has a name for.
const ANALYSIS: [&str; 6] = [
    "retransmission",
    "fast_retransmission",
    "spurious_retransmission",
    "lost_segment",
    "out_of_order",
    "ack_lost_segment",
];
/// tshark's verdict on a stream with handshake, data and FIN, and without RST.
pub const COMPLETE: u8 = 31;
/// The same of a connection on which nobody said anything: ab opens some more than it uses, and closes them.
pub const IDLE: u8 = COMPLETE - 8;
/// The header's bit for a FIN.
pub const FIN: u16 = 0x01;
/// That for a RST.
pub const RST: u16 = 0x04;
/// That for an ACK.
pub const ACK: u16 = 0x10;

/// A segment as tshark sees it.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Its place in the file, from 1.
    pub number: u64,
    /// Seconds since 1970.
    pub time: f64,
    /// tshark's number of the connection.
    pub stream: u32,
    /// finwheel sent it.
    pub ours: bool,
    /// The flags.
    pub flags: u16,
    /// Relative to the first of its direction.
    pub seq: u32,
    /// Relative to the first of the other direction.
    pub ack: u32,
    /// Bytes of payload.
    pub len: u32,
    /// What the stream consists of up to here.
    pub completeness: u8,
    /// The checksums of IP and TCP are right.
    pub checksums: bool,
    /// Names of [`ANALYSIS`].
    pub analysis: Vec<&'static str>,
}

impl Frame {
    /// Whether all of these flags are set.
    pub const fn has(&self, flags: u16) -> bool {
        self.flags & flags == flags
    }
}

/// Has tshark dissect a capture.
pub fn dissect(pcap: &Path, rig: &Rig) -> Vec<Frame> {
    let servers: [IpAddr; 2] = [rig.server_v4().unwrap().into(), rig.server_v6().unwrap().into()];
    let mut fields: Vec<String> =
        "frame.number frame.time_epoch tcp.stream ip.src ipv6.src tcp.flags tcp.seq tcp.ack \
        tcp.len tcp.completeness tcp.checksum.status ip.checksum.status"
            .split_whitespace()
            .map(str::to_owned)
            .collect();
    let fixed = fields.len();
    fields.extend(ANALYSIS.iter().map(|a| format!("tcp.analysis.{a}")));
    let mut tshark = Command::new("tshark");
    tshark.args(["-n", "-r"]).arg(pcap).args([
        "-o",
        "tcp.check_checksum:TRUE",
        "-o",
        "ip.check_checksum:TRUE",
    ]);
    tshark.args([
        "-o",
        "tcp.relative_sequence_numbers:TRUE",
        "-Y",
        "tcp",
        "-T",
        "fields",
        "-E",
        "occurrence=f",
    ]);
    for f in &fields {
        tshark.args(["-e", f]);
    }
    let ran = run(tshark, b"", LIMIT).good("tshark");
    let text = ran.text();
    let frame = |line: &str| -> Option<Frame> {
        let v: Vec<&str> = line.split('\t').collect();
        let analysis = v.get(fixed..fixed + ANALYSIS.len())?;
        let source: IpAddr = if v[3].is_empty() { v[4] } else { v[3] }.parse().ok()?;
        Some(Frame {
            number: v[0].parse().ok()?,
            time: v[1].parse().ok()?,
            stream: v[2].parse().ok()?,
            ours: servers.contains(&source),
            flags: u16::from_str_radix(v[5].trim_start_matches("0x"), 16).ok()?,
            seq: v[6].parse().ok()?,
            ack: v[7].parse().ok()?,
            len: v[8].parse().ok()?,
            completeness: v[9].parse().ok()?,
            // IPv6 has none of its own.
            checksums: v[10] == "1" && matches!(v[11], "1" | ""),
            analysis: ANALYSIS
                .iter()
                .zip(analysis)
                .filter(|(_, v)| !v.is_empty())
                .map(|(name, _)| *name)
                .collect(),
        })
    };
    text.lines().map(|l| frame(l).unwrap_or_else(|| panic!("tshark: {l:?}"))).collect()
}

/// The frames of each stream.
pub fn streams(frames: &[Frame]) -> BTreeMap<u32, Vec<&Frame>> {
    let mut all: BTreeMap<u32, Vec<&Frame>> = BTreeMap::new();
    for f in frames {
        all.entry(f.stream).or_default().push(f);
    }
    all
}

/// How many streams went from handshake over data to FIN, without RST.
pub fn complete(frames: &[Frame]) -> usize {
    streams(frames).values().filter(|s| s.last().is_some_and(|f| f.completeness == COMPLETE)).count()
}

/// Everything that is wrong with a capture of connections that all were to end right without a loss.
pub fn judge(frames: &[Frame]) -> Vec<String> {
    let mut faults = Vec::new();
    for (stream, frames) in streams(frames) {
        let mut fault = |what: String| faults.push(format!("stream {stream}: {what}"));
        let last = frames[frames.len() - 1];
        let asked = frames.iter().any(|f| !f.ours && f.len > 0);
        if last.completeness != if asked { COMPLETE } else { IDLE } {
            fault(format!("completeness is {}", last.completeness));
        }
        for f in &frames {
            let who = if f.ours { "finwheel" } else { "the kernel" };
            for a in &f.analysis {
                fault(format!("{a} by {who} in frame {}", f.number));
            }
            if f.has(RST) {
                fault(format!("RST by {who} in frame {}", f.number));
            }
            if f.ours && !f.checksums {
                fault(format!("checksum of frame {}", f.number));
            }
        }
        for ours in [true, false] {
            let who = if ours { "finwheel" } else { "the kernel" };
            let Some(fin) = frames.iter().find(|f| f.ours == ours && f.has(FIN)) else {
                fault(format!("no FIN by {who}"));
                continue;
            };
            let end = fin.seq + fin.len + 1;
            if !frames.iter().any(|f| f.ours != ours && f.has(ACK) && f.ack == end) {
                fault(format!("the FIN by {who} is not acknowledged"));
            }
        }
    }
    faults
}

/// Judges a capture of `streams` connections, of which finwheel says that it has sent `probes` tail loss probes.
///
/// On a busy machine an ACK can take longer than a probe waits, and to tshark the probe is a retransmission. The engine's
/// own count must account for every segment that came twice; those connections are not looked at further, for a segment
/// that comes to one that has gone is answered by RST.
#[track_caller]
pub fn judge_all(frames: &[Frame], pcap: &Path, streams: usize, probes: u64) {
    let again = frames.iter().filter(|f| f.ours && f.analysis.contains(&"retransmission"));
    let probed: Vec<u32> = again.map(|f| f.stream).collect();
    assert!(probed.len() as u64 <= probes, "{} segments came twice, {probes} tail loss probes", probed.len());
    let (n, segments) = (complete(frames), frames.len());
    println!("{n} connections, {segments} segments, {} probed", probed.len());
    assert!(n <= streams && n + probed.len() >= streams, "{n} of {streams} are complete");
    let mut faults = judge(frames);
    faults.retain(|fault| !probed.iter().any(|n| fault.starts_with(&format!("stream {n}:"))));
    clean(&faults, pcap);
}

#[track_caller]
pub fn clean(faults: &[String], pcap: &Path) {
    assert!(
        faults.is_empty(),
        "{} faults in {}: {:#?}",
        faults.len(),
        pcap.display(),
        &faults[..faults.len().min(20)]
    );
}
