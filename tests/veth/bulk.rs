//! 100 MB through the echo service: the same bytes come back, in order, and then the FIN.

use crate::common::{ECHO, ask, both, connect, metrics};
use crate::tools::{rig_with, serve};
use finwheel::rig::{Rig, RigConfig};
use finwheel::service::pattern;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant};

const MB: u64 = 1_000_000;
/// Bytes written or read at a time.
const PART: usize = 64 * 1024;
/// Seed of the stream, which does not repeat: a block in the wrong place is seen.
const SEED: u64 = 0x0b01;

/// Sends `total` bytes, half-closes, and compares what comes back with what was sent. Returns the time it took.
fn echo(rig: &Rig, to: SocketAddr, total: u64) -> Duration {
    let mut rx = connect(rig, to);
    // A retransmission timeout backs off; with loss several in a row are to be had.
    rx.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut tx = rx.try_clone().unwrap();
    tx.set_write_timeout(Some(Duration::from_secs(30))).unwrap();
    let began = Instant::now();
    std::thread::scope(|s| {
        s.spawn(move || {
            let (mut at, mut part) = (0, vec![0; PART]);
            while at < total {
                let n = (total - at).min(PART as u64) as usize;
                pattern::fill(SEED, at, &mut part[..n]);
                tx.write_all(&part[..n]).unwrap_or_else(|e| panic!("{to}: write at {at}: {e}"));
                at += n as u64;
            }
            tx.shutdown(Shutdown::Write).unwrap();
        });
        let (mut at, mut part, mut right) = (0u64, vec![0; PART], vec![0; PART]);
        loop {
            let n = rx.read(&mut part).unwrap_or_else(|e| panic!("{to}: read at {at} of {total}: {e}"));
            if n == 0 {
                break;
            }
            pattern::fill(SEED, at, &mut right[..n]);
            assert!(part[..n] == right[..n], "{to}: other bytes between {at} and {}", at + n as u64);
            at += n as u64;
        }
        assert_eq!(at, total, "{to}: bytes that came back");
    });
    began.elapsed()
}

/// Runs [`echo`] and says how fast it was, and what was sent again on the way.
fn report(rig: &Rig, to: SocketAddr, total: u64, what: &str) {
    let took = echo(rig, to, total);
    let rate = total as f64 / took.as_secs_f64() / 1e6;
    println!("{what}: {} MB to {to} and back in {took:?}, {rate:.1} MB/s each way", total / MB);
    let (_, text) = ask(rig, metrics(), "/metrics");
    for line in text.lines().filter(|l| {
        (l.starts_with("finwheel_retransmissions_total") || l.starts_with("finwheel_drops_total"))
            && !l.ends_with(" 0")
    }) {
        println!("  {line}");
    }
}

#[test]
fn a_hundred_megabytes_come_back_over_ipv4_and_ipv6() {
    let rig = rig_with!(RigConfig::default(),);
    let _p = serve(&rig);
    for to in both(&rig, ECHO) {
        report(&rig, to, 100 * MB, "no loss");
    }
}

#[test]
fn megabytes_come_back_with_one_percent_of_loss() {
    let rig = rig_with!(RigConfig::default(), "nft");
    let _p = serve(&rig);
    rig.loss(1.0).unwrap();
    report(&rig, both(&rig, ECHO)[0], 10 * MB, "1 % loss");
}

#[test]
fn megabytes_come_back_with_five_percent_of_loss() {
    let rig = rig_with!(RigConfig::default(), "nft");
    let _p = serve(&rig);
    rig.loss(5.0).unwrap();
    report(&rig, both(&rig, ECHO)[1], MB, "5 % loss");
}
