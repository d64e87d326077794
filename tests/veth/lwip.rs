//! lwIP, the TCP of small devices, as client of the echo service and as server of finwheel's client.
//!
//! It runs as a process in the client's namespace (`lwip_peer.c`, built here), with addresses of its own on the same
//! interface: the kernel's TCP has no part in it.

use crate::common::{ECHO, HTTP, PATIENCE, both, until};
use crate::dial::Client;
use crate::talk::{Plan, Shape};
use crate::tools::{BODY, LIMIT, Ran, Running, pattern, rig_with, run, serve};
use finwheel::rig::{CLIENT_INTERFACE, Rig, RigConfig};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where lwIP's headers are.
const HEADERS: &str = "/usr/include/lwip";
/// lwIP's port as a server.
const PORT: u16 = 7007;

/// Builds the peer; `None`, with the reason on stdout, when lwIP is not installed.
fn build(dir: &Path) -> Option<PathBuf> {
    if !Path::new(HEADERS).join("lwip/tcpip.h").exists() {
        println!("skipped: liblwip-dev is not installed");
        return None;
    }
    let (source, program) =
        (Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/veth/lwip_peer.c"), dir.join("lwip_peer"));
    let mut cc = Command::new("cc");
    cc.args(["-Wall", "-Werror", "-O1", "-I", HEADERS, "-o"])
        .arg(&program)
        .arg(source)
        .args(["-llwip", "-lpthread"]);
    run(cc, b"", LIMIT).good("cc");
    Some(program)
}

/// lwIP's own addresses.
fn own(v6: bool) -> IpAddr {
    if v6 { "fd77::3".parse().unwrap() } else { "10.77.0.3".parse().unwrap() }
}

fn client(rig: &Rig, program: &Path, to: SocketAddr, shape: &str, bytes: &[u8]) -> Ran {
    let mut peer = rig.client_command(program);
    peer.args([CLIENT_INTERFACE, &own(to.is_ipv6()).to_string(), "client"]);
    peer.args([&to.ip().to_string(), &to.port().to_string(), shape]);
    run(peer, bytes, LIMIT).good("lwip_peer")
}

#[test]
fn lwip_gets_its_bytes_back_and_closes_in_every_way() {
    let dir = tempfile::tempdir().unwrap();
    let Some(program) = build(dir.path()) else { return };
    let rig = rig_with!(RigConfig::default(),);
    let _p = serve(&rig);
    for to in both(&rig, ECHO) {
        for (shape, size) in [("half", 0), ("half", 1), ("full", 1000), ("half", 200_000), ("full", 200_000)]
        {
            let bytes = pattern(size);
            let ran = client(&rig, &program, to, shape, &bytes);
            assert!(
                ran.stdout == bytes,
                "{to} {shape}: {} of {size} bytes: {}",
                ran.stdout.len(),
                ran.stderr
            );
        }
    }
    for to in both(&rig, HTTP) {
        let request = b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";
        let ran = client(&rig, &program, to, "peer", request);
        assert!(ran.text().starts_with("HTTP/1.1 200 ") && ran.text().ends_with(BODY), "{}", ran.all());
    }
}

#[test]
fn lwip_serves_the_client_and_hears_of_every_end() {
    let dir = tempfile::tempdir().unwrap();
    let Some(program) = build(dir.path()) else { return };
    let rig = rig_with!(RigConfig::default(),);
    let finwheel = Client::start(&rig);
    let plan = |shape, bytes| Plan { echo: true, ..Plan::both(shape, bytes, 7) };
    let plans = [
        plan(Shape::WeHalf, 1),
        plan(Shape::WeFirst, 1000),
        plan(Shape::WeHalf, 200_000),
        plan(Shape::WeReset, 200_000),
        plan(Shape::WeFirst, 200_000),
    ];
    for v6 in [false, true] {
        let (said, told) = (dir.path().join("said"), dir.path().join("told"));
        let mut peer = rig.client_command(&program);
        peer.args([
            CLIENT_INTERFACE,
            &own(v6).to_string(),
            "server",
            &PORT.to_string(),
            &plans.len().to_string(),
        ]);
        peer.stdin(Stdio::null()).stdout(std::fs::File::create(&said).unwrap());
        peer.stderr(std::fs::File::create(&told).unwrap());
        let mut peer = Running(peer.spawn().unwrap());
        until("lwIP listens", PATIENCE, || std::fs::read_to_string(&said).unwrap() == "ready\n");
        for plan in plans {
            finwheel.talk(SocketAddr::new(own(v6), PORT), plan, LIMIT);
        }
        let ended = peer.wait(LIMIT).expect("lwIP ends");
        let told = std::fs::read_to_string(&told).unwrap();
        assert!(ended.success(), "{ended}: {told}");
        let ends: Vec<&str> = told.lines().filter_map(|l| l.rsplit(' ').next()).collect();
        assert_eq!(ends, ["FIN", "FIN", "FIN", "RST", "FIN"], "{told}");
    }
    let outcome = finwheel.stop();
    assert!(outcome.failures.is_empty() && outcome.missing_frames == 0, "{:?}", outcome.failures);
}
