//! Kernel clients behind VLAN interfaces: tags as they are on the wire, one and two, on both IP versions.
//!
//! The kernels keep their own VLAN interfaces, which answer ARP and neighbour discovery; the frames on the veth carry the
//! tags, because both ends' offloads for them are off: with these, the tag travels beside the frame, and XDP sees none.

use crate::common::{ECHO, HTTP, Process};
use crate::tools::{BODY, client, exchange, pattern, rig_with};
use finwheel::rig::{CLIENT_INTERFACE, Rig, RigConfig, SERVER_INTERFACE};
use nix::sys::signal::Signal;
use std::process::Command;
use std::time::Duration;

/// One VLAN: the interface below it, its own name, protocol and number, and the subnet's third byte, `None` where it only
/// carries another.
struct Layer {
    below: &'static str,
    name: &'static str,
    protocol: &'static str,
    id: &'static str,
    net: Option<u8>,
}

#[track_caller]
fn ran(mut command: Command, args: &[&str]) {
    let out = command.args(args).output().unwrap_or_else(|e| panic!("{args:?}: {e}"));
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// Whether VLAN devices can be made: they are a module of their own, which small kernels lack.
fn kernel_has_vlans(rig: &Rig) -> bool {
    let args = ["link", "add", "link", CLIENT_INTERFACE, "name", "probe", "type", "vlan", "id", "1"];
    let made = rig.client_ns().command("ip").args(args).output().expect("ip can be run");
    let missing = String::from_utf8_lossy(&made.stderr).contains("Unknown device type");
    if made.status.success() {
        ran(rig.client_ns().command("ip"), &["link", "del", "probe"]);
    }
    !missing
}

/// Makes the same VLANs in both namespaces, on frames that carry their tags.
fn lay(rig: &Rig, layers: &[Layer]) {
    for (ns, interface, host) in
        [(rig.server_ns(), SERVER_INTERFACE, "1"), (rig.client_ns(), CLIENT_INTERFACE, "2")]
    {
        for offload in ["txvlan", "rxvlan", "tx-vlan-stag-hw-insert", "rx-vlan-stag-hw-parse"] {
            ran(ns.command("ethtool"), &["-K", interface, offload, "off"]);
        }
        for l in layers {
            let below = if l.below.is_empty() { interface } else { l.below };
            // The outer tag takes room of the frame that the veth lets through.
            let vlan = ["type", "vlan", "proto", l.protocol, "id", l.id];
            ran(
                ns.command("ip"),
                &[&["link", "add", "link", below, "name", l.name, "mtu", "1496"][..], &vlan].concat(),
            );
            if let Some(net) = l.net {
                let (v4, v6) = (format!("10.78.{net}.{host}/24"), format!("fd78:{net}::{host}/64"));
                ran(ns.command("ip"), &["addr", "add", &v4, "dev", l.name]);
                ran(ns.command("ip"), &["addr", "add", &v6, "dev", l.name, "nodad"]);
            }
            ran(ns.command("ip"), &["link", "set", l.name, "up"]);
        }
    }
}

/// The server's addresses in the subnets, with a port.
fn at(nets: &[u8], port: u16) -> Vec<String> {
    nets.iter().flat_map(|n| [format!("10.78.{n}.1:{port}"), format!("[fd78:{n}::1]:{port}")]).collect()
}

#[test]
fn i03_kernel_clients_behind_one_and_two_vlan_tags_are_served() {
    let rig = rig_with!(RigConfig::default(), "curl", "socat", "ethtool");
    if !kernel_has_vlans(&rig) {
        println!("skipped: the kernel has no VLAN devices (module 8021q)");
        return;
    }
    let layer = |below, name, protocol, id, net| Layer { below, name, protocol, id, net };
    lay(
        &rig,
        &[
            layer("", "one", "802.1Q", "5", Some(5)),
            layer("", "outer", "802.1ad", "9", None),
            layer("outer", "inner", "802.1Q", "6", Some(6)),
        ],
    );
    let nets = [5, 6];
    let listener = |name: &str, port| {
        format!("[[listener]]\nname = {name:?}\naddresses = {:?}\nservice = {name:?}\n", at(&nets, port))
    };
    let config = format!(
        "[interface]\nname = \"{SERVER_INTERFACE}\"\n[worker]\nconnections = 1024\nhalf_open = 256\n\
        time_wait = 4096\nchunks = 4096\n{}{}[listener.http]\nbody = {BODY:?}\n",
        listener("echo", ECHO),
        listener("http", HTTP),
    );
    let p = Process::ready(&rig, &config);
    for to in at(&nets, HTTP) {
        let url = format!("http://{to}/");
        let got = client(&rig, "curl", &["--noproxy", "*", "-sS", "--max-time", "20", "-g", &url]).good(&url);
        assert_eq!(got.text(), BODY);
    }
    let bytes = pattern(300_000);
    for to in at(&nets, ECHO) {
        exchange(&rig, "socat", &["-t20", "-", &format!("TCP:{to}")], &bytes, &bytes);
    }
    p.signal(Signal::SIGTERM);
    let (status, log) = p.end(Duration::from_secs(40));
    assert_eq!(status.code(), Some(0), "{log}");
}
