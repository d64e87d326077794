//! Megabytes both ways at once, byte for byte, and then the FINs: finwheel as server (echo) and as client, on both IP
//! versions, without loss and with up to 10 % of all packets lost each way.
//!
//! Loss makes it slow, so each rate has a size of its own here; with `FINWHEEL_STRANGERS=full` (`make strangers`) it is 100
//! MB throughout. Nothing is said about how long it takes: a transfer that stands still for [`STALL`] has failed.

use crate::common::{ECHO, ask, both, connect, metrics};
use crate::dial::Client;
use crate::talk::{Plan, Shape};
use crate::tools::{rig_with, serve};
use finwheel::rig::{Rig, RigConfig};
use finwheel::service::pattern;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant};

const MB: u64 = 1_000_000;
/// The full size.
const FULL: u64 = 100 * MB;
/// Bytes written or read at a time.
const PART: usize = 64 * 1024;
/// Seed of the stream, which does not repeat: a block in the wrong place is seen.
const SEED: u64 = 0x0b01;
/// Longest time without a byte: a retransmission timeout backs off, and with loss several in a row are to be had.
const STALL: Duration = Duration::from_secs(60);

/// The size of a transfer, unless all are to be full, and whether they are.
fn size(otherwise: u64) -> (u64, bool) {
    match std::env::var("FINWHEEL_STRANGERS").as_deref() {
        Ok("full") => (FULL, true),
        Ok(other) => panic!("FINWHEEL_STRANGERS is {other:?}; the one value there is is \"full\""),
        Err(_) => (otherwise, false),
    }
}

/// Sends `total` bytes, half-closes, and compares what comes back with what was sent. Returns the time it took.
fn echo(rig: &Rig, to: SocketAddr, total: u64) -> Duration {
    let mut rx = connect(rig, to);
    rx.set_read_timeout(Some(STALL)).unwrap();
    let mut tx = rx.try_clone().unwrap();
    tx.set_write_timeout(Some(STALL)).unwrap();
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

fn say(what: &str, loss: f64, v6: bool, total: u64, took: Duration) {
    let (ip, rate) = (if v6 { "IPv6" } else { "IPv4" }, total as f64 / took.as_secs_f64() / 1e6);
    println!("{what}, {ip}, {loss} % loss: {} MB each way in {took:.1?}, {rate:.2} MB/s", total / MB);
}

/// As server: what the kernel's client sends comes back.
fn as_server(loss: f64, otherwise: u64, versions: &[bool]) {
    let rig = rig_with!(RigConfig::default(), "nft");
    let (total, full) = size(otherwise);
    let _p = serve(&rig);
    rig.loss(loss).unwrap();
    for &v6 in if full { &[false, true][..] } else { versions } {
        let took = echo(&rig, both(&rig, ECHO)[usize::from(v6)], total);
        say("server", loss, v6, total, took);
        let (_, text) = ask(&rig, metrics(), "/metrics");
        for line in text.lines().filter(|l| {
            (l.starts_with("finwheel_retransmissions_total") || l.starts_with("finwheel_drops_total"))
                && !l.ends_with(" 0")
        }) {
            println!("  {line}");
        }
    }
}

/// As client: both ends send at once, and check what they get.
fn as_client(loss: f64, otherwise: u64, versions: &[bool]) {
    let rig = rig_with!(RigConfig::default(), "nft");
    let (total, full) = size(otherwise);
    let client = Client::start(&rig);
    rig.loss(loss).unwrap();
    let bytes = u32::try_from(total).unwrap();
    let plan = Plan { shape: Shape::StrangerFirst, we_send: bytes, stranger_sends: bytes, seed: SEED };
    for &v6 in if full { &[false, true][..] } else { versions } {
        // The whole of it may take long, as long as it moves.
        let took = client.play_slowly(&rig, &[plan], |_| v6, STALL);
        say("client", loss, v6, total, took);
    }
    let c = client.report();
    println!("  retransmissions {:?}, drops {}", c.retransmissions, c.drops.iter().sum::<u64>());
    let outcome = client.stop();
    assert!(outcome.failures.is_empty() && outcome.missing_frames == 0, "{:?}", outcome.failures);
}

#[test]
fn a_hundred_megabytes_come_back_from_the_server() {
    as_server(0.0, FULL, &[false, true]);
}

#[test]
fn a_hundred_megabytes_go_both_ways_from_the_client() {
    as_client(0.0, FULL, &[false, true]);
}

#[test]
fn one_percent_of_loss_changes_no_byte_for_the_server() {
    as_server(1.0, FULL, &[false]);
}

#[test]
fn one_percent_of_loss_changes_no_byte_for_the_client() {
    as_client(1.0, FULL, &[true]);
}

#[test]
fn five_percent_of_loss_change_no_byte_for_the_server() {
    as_server(5.0, 10 * MB, &[true]);
}

#[test]
fn five_percent_of_loss_change_no_byte_for_the_client() {
    as_client(5.0, 10 * MB, &[false]);
}

#[test]
fn ten_percent_of_loss_change_no_byte_for_the_server() {
    as_server(10.0, 2 * MB, &[false]);
}

#[test]
fn ten_percent_of_loss_change_no_byte_for_the_client() {
    as_client(10.0, 2 * MB, &[true]);
}
