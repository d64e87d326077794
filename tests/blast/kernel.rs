//! Servers on the kernel's TCP in the client's namespace, where the capture is taken; the generator is in the server's.

use crate::capture::{Capture, dissect, judge_all};
use crate::server::{Kind, Server};
use crate::tools::{client, rig_with};
use crate::{blast, good, number};
use finwheel::rig::{Rig, RigConfig, SERVER_INTERFACE};
use std::net::SocketAddr;

/// A server's address, IPv4 or IPv6.
fn at(rig: &Rig, v4: bool) -> SocketAddr {
    if v4 { (rig.client_v4().unwrap(), 8080).into() } else { (rig.client_v6().unwrap(), 8080).into() }
}

/// Options that all runs have: from the interface's own address, which has a way back by itself.
fn to(rig: &Rig, v4: bool) -> String {
    let net = if v4 { "10.77.0.1/32" } else { "fd77::1/128" };
    format!("--target {} --interface {SERVER_INTERFACE} --source-net {net}", at(rig, v4))
}

#[test]
fn graceful_shapes_leave_no_blemish_and_no_reset_on_the_wire() {
    const N: u64 = 1000;
    let rig = rig_with!(RigConfig::default(), "tcpdump", "tshark");
    // The kernel probes for a lost tail after a few milliseconds without an ACK, which a busy machine may well take.
    rig.client_ns().sysctl("net/ipv4/tcp_early_retrans", "0").unwrap();
    let rows = [
        (Kind::Http, "--request http --close client"),
        (Kind::Http, "--request http --close server"),
        (Kind::Http, "--request http --close both"),
        (Kind::Http, "--request http --close half"),
        (Kind::Echo, "--request 500 --close client"),
        (Kind::Echo, "--request 500 --close half"),
        (Kind::Echo, "--request 500 --close both"),
    ];
    for (i, (kind, what)) in rows.into_iter().enumerate() {
        let v4 = i % 2 == 0;
        let server = Server::start(rig.client_ns(), at(&rig, v4), kind);
        let capture = Capture::start(&rig, "tcp port 8080");
        let args = format!("{} --connections {N} --concurrency 20 {what}", to(&rig, v4));
        let report = good(rig.server_ns(), N, &args);
        let (pcap, _dir) = capture.stop();
        let frames = dissect(&pcap, &rig);
        println!("{what}: {} segments, {}", frames.len(), report["closes"]);
        judge_all(&frames, &pcap, N as usize, number(&report, "/tail_probes"));
        assert_eq!((server.accepted(), server.reset()), (N, 0), "{what}");
    }
}

#[test]
fn a_reset_is_what_the_server_meets_when_it_was_asked_for() {
    let rig = rig_with!(RigConfig::default(),);
    let server = Server::start(rig.client_ns(), at(&rig, true), Kind::Echo);
    let args = format!("{} --connections 300 --concurrency 10 --request 100 --close reset", to(&rig, true));
    let report = good(rig.server_ns(), 300, &args);
    assert_eq!(number(&report, "/resets_sent"), 300);
    assert_eq!((server.accepted(), server.reset()), (300, 300));
}

#[test]
fn loss_costs_time_and_no_connection() {
    let rig = rig_with!(RigConfig::default(), "nft");
    rig.loss(2.0).unwrap();
    let _server = Server::start(rig.client_ns(), at(&rig, true), Kind::Http);
    let args = format!("{} --connections 500 --concurrency 100 --timeout 50s --close server", to(&rig, true));
    let report = good(rig.server_ns(), 500, &args);
    assert!(number(&report, "/retransmissions") > 0, "{report:#}");
}

/// Runs `ip` in the generator's namespace.
fn ip(rig: &Rig, args: &str) {
    let out = rig.server_ns().command("ip").args(args.split(' ')).output().unwrap();
    assert!(out.status.success(), "ip {args}: {}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn sources_of_another_network_work_when_the_peer_has_a_route() {
    let rig = rig_with!(RigConfig::default(), "ip");
    for (v4, net, via) in [(true, "10.78.0.0/24", "10.77.0.1"), (false, "fd78::/120", "fd77::1")] {
        let server = Server::start(rig.client_ns(), at(&rig, v4), Kind::Http);
        let base = format!("--target {} --interface {SERVER_INTERFACE} --source-net {net}", at(&rig, v4));
        let silent = format!("{base} --connections 5 --timeout 1s");
        let (report, ran) = blast(rig.server_ns(), &silent);
        assert_eq!(ran.status.code(), Some(1), "{}", ran.all());
        assert_eq!(number(&report, "/errors/timeout"), 5, "{report:#}");
        assert!(ran.stderr.contains(&format!("ip route add {net} via")), "{}", ran.stderr);
        let family = if v4 { "-4" } else { "-6" };
        client(&rig, "ip", &[family, "route", "add", net, "via", via]).good("ip");
        good(rig.server_ns(), 500, &format!("{base} --connections 500"));
        assert_eq!(server.accepted(), 500);
    }
}

#[test]
fn sources_on_the_link_work_when_the_kernel_answers_arp_for_them() {
    let rig = rig_with!(RigConfig::default(), "ip");
    let server = Server::start(rig.client_ns(), at(&rig, true), Kind::Http);
    let net = "10.77.0.128/25";
    let args = format!(
        "--target {} --interface {SERVER_INTERFACE} --source-net {net} --connections 500",
        at(&rig, true)
    );
    let refused = crate::tools::run(crate::command(rig.server_ns(), &args), b"", crate::tools::LIMIT);
    assert_eq!(refused.status.code(), Some(2), "{}", refused.all());
    assert!(refused.stderr.contains(&format!("`ip route add local {net} dev lo`")), "{}", refused.stderr);
    assert_eq!(server.accepted(), 0);
    ip(&rig, &format!("route add local {net} dev lo"));
    good(rig.server_ns(), 500, &args);
    assert_eq!(server.accepted(), 500);
}
