//! tshark as the judge of what went over the wire.

use crate::capture::{Capture, FIN, Frame, RST, clean, complete, dissect, judge, judge_all};
use crate::common::{ask, metrics};
use crate::tools::{ab, rig_with, serve, urls};
use finwheel::rig::{Rig, RigConfig};
use std::path::Path;

/// Tail loss probes that the process has sent so far; nothing else may it have sent again.
#[track_caller]
fn probes(rig: &Rig) -> u64 {
    let (_, text) = ask(rig, metrics(), "/metrics");
    let mut probes = 0;
    for line in text.lines().filter(|l| l.starts_with("finwheel_retransmissions_total")) {
        let n: u64 = line.rsplit(' ').next().and_then(|n| n.parse().ok()).expect("a number");
        if line.contains("\"tail_probe\"") {
            probes += n;
        } else {
            assert_eq!(n, 0, "{line}");
        }
    }
    probes
}

/// Panics with the first few faults.
#[test]
fn ten_thousand_connections_of_ab_are_each_complete_and_without_a_blemish() {
    const REQUESTS: u32 = 5_000;
    let rig = rig_with!(RigConfig::default(), "ab", "tcpdump", "tshark");
    let _p = serve(&rig);
    for url in urls(&rig) {
        let capture = Capture::start(&rig, "tcp port 80");
        let rate = ab(&rig, &url, REQUESTS, 50, false);
        let (pcap, _dir) = capture.stop();
        let frames = dissect(&pcap, &rig);
        println!("{url}: ab {rate:.0}/s");
        judge_all(&frames, &pcap, REQUESTS as usize, probes(&rig));
    }
}

#[test]
fn two_workers_leave_no_blemish_either() {
    const REQUESTS: u32 = 5_000;
    let rig = rig_with!(RigConfig::with_queues(2), "ab", "tcpdump", "tshark");
    let _p = serve(&rig);
    let capture = Capture::start(&rig, "tcp port 80");
    let rate = ab(&rig, &urls(&rig)[1], REQUESTS, 50, false);
    let (pcap, _dir) = capture.stop();
    let frames = dissect(&pcap, &rig);
    println!("ab {rate:.0}/s");
    judge_all(&frames, &pcap, REQUESTS as usize, probes(&rig));
}

#[test]
fn kept_connections_of_ab_are_without_a_blemish_too() {
    const REQUESTS: u32 = 10_000;
    let rig = rig_with!(RigConfig::default(), "ab", "tcpdump", "tshark");
    let _p = serve(&rig);
    let capture = Capture::start(&rig, "tcp port 80");
    let _ = ab(&rig, &urls(&rig)[0], REQUESTS, 20, true);
    let (pcap, _dir) = capture.stop();
    let frames = dissect(&pcap, &rig);
    let n = complete(&frames);
    assert!(n >= 20, "{n}");
    judge_all(&frames, &pcap, n, probes(&rig));
}

/// A pcap file as tcpdump writes it: its header, and its records with theirs.
struct Pcap {
    header: Vec<u8>,
    records: Vec<Vec<u8>>,
}

/// Bytes before a frame in its record.
const RECORD_HEADER: usize = 16;
/// Where the flags are in a frame of IPv4 without options.
const FLAGS: usize = RECORD_HEADER + 14 + 20 + 13;

impl Pcap {
    fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let (header, mut rest) = bytes.split_at(24);
        assert_eq!(header[..4], 0xa1b2_c3d4_u32.to_le_bytes(), "byte order and kind");
        let mut records = Vec::new();
        while !rest.is_empty() {
            let len = u32::from_le_bytes(rest[8..12].try_into().unwrap()) as usize;
            let (record, more) = rest.split_at(RECORD_HEADER + len);
            records.push(record.to_vec());
            rest = more;
        }
        Self { header: header.to_vec(), records }
    }

    fn write(&self, path: &Path) {
        std::fs::write(path, [&self.header[..], &self.records.concat()].concat()).unwrap();
    }
}

#[test]
fn the_judge_sees_every_fault_that_is_put_into_a_good_capture() {
    let rig = rig_with!(RigConfig::default(), "ab", "tcpdump", "tshark");
    let _p = serve(&rig);
    let capture = Capture::start(&rig, "tcp port 80");
    let _ = ab(&rig, &urls(&rig)[0], 20, 2, false);
    let (pcap, dir) = capture.stop();
    let frames = dissect(&pcap, &rig);
    clean(&judge(&frames), &pcap);
    // A connection in the middle; frames are numbered from 1.
    let at = |what: &dyn Fn(&Frame) -> bool| {
        let f = frames.iter().find(|f| f.stream == 7 && what(f)).expect("there is one");
        f.number as usize - 1
    };
    let our_fin = at(&|f| f.ours && f.has(FIN));
    let our_data = at(&|f| f.ours && f.len > 0);
    let their_data = at(&|f| !f.ours && f.len > 0);
    let their_fin = at(&|f| !f.ours && f.has(FIN));
    let their_last =
        frames.iter().rfind(|f| f.stream == 7 && f.ours).expect("there is one").number as usize - 1;
    let broken = |name: &str, change: &dyn Fn(&mut Vec<Vec<u8>>), expected: &str| {
        let mut p = Pcap::read(&pcap);
        change(&mut p.records);
        let path = dir.path().join(name);
        p.write(&path);
        let faults = judge(&dissect(&path, &rig));
        let expected = format!("stream 7: {expected}");
        assert!(faults.iter().any(|f| f.starts_with(&expected)), "{name}: {expected} is not in {faults:#?}");
        assert!(faults.iter().all(|f| f.starts_with("stream 7: ")), "{name}: {faults:#?}");
    };
    let without = |i: usize| move |r: &mut Vec<Vec<u8>>| drop(r.remove(i));
    broken("our FIN is missing", &without(our_fin), "no FIN by finwheel");
    broken("their FIN is missing", &without(their_fin), "no FIN by the kernel");
    broken("our last ACK is missing", &without(their_last), "the FIN by the kernel is not acknowledged");
    broken("data is missing", &without(their_data), "ack_lost_segment by finwheel");
    broken("a RST", &|r| r[their_last][FLAGS] |= RST as u8, "RST by finwheel");
    broken("data twice", &|r| r.insert(our_data + 1, r[our_data].clone()), "retransmission by finwheel");
    let bit = |r: &mut Vec<Vec<u8>>| *r[our_data].last_mut().expect("bytes") ^= 1;
    broken("a bit that tipped over", &bit, "checksum of frame");
}
