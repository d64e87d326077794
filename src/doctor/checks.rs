//! From facts to findings: one function a subject, each pure.

use super::catalog::{self as kinds, Finding};
use super::host::Host;
use super::nic::{Facts, Nic, Peer};
use super::wanted::Wanted;
use crate::config::{Mode, ZeroCopy};
use crate::port::bpf;
use crate::port::privileges::{Capability, missing_from, names};
use crate::port::xsk::{NEEDED, RingConfig};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

/// The oldest kernel that has all that is used.
const OLDEST: (u32, u32) = (5, 8);
/// Frames that take a page, the largest there are.
const LARGE: RingConfig = RingConfig { frame_size: 4096, frames: 0, rx_ring: 0, tx_ring: 0 };
const SMALL: RingConfig = RingConfig { frame_size: 2048, ..LARGE };
/// What the client role takes for its local ports unless told otherwise.
const CLIENT_PORTS: (u16, u16) =
    (*crate::control::ClientSettings::PORTS.start(), *crate::control::ClientSettings::PORTS.end());

/// Every check.
pub(super) fn all(host: &Host, nic: Option<&Nic>, wanted: &Wanted) -> Vec<Finding> {
    let mut found = Vec::new();
    machine(host, &mut found);
    privileges(host, &mut found);
    local_ports(host, wanted, &mut found);
    match nic {
        None => sockets(host, wanted, false, &mut found),
        Some(Nic::Missing(name)) => {
            found
                .push(kinds::NO_INTERFACE.found(format!("there is no interface {name}"), &[("IFACE", name)]));
        }
        Some(Nic::Found(nic)) => {
            sockets(host, wanted, nic.served, &mut found);
            link(nic, &mut found);
            program(nic, &mut found);
            queues(nic, wanted, &mut found);
            cpus(host, nic, wanted, &mut found);
            memory(host, nic, wanted, &mut found);
            driver(nic, wanted, &mut found);
            offloads(nic, wanted, &mut found);
            veth(nic, wanted, &mut found);
            addresses(nic, wanted, &mut found);
        }
    }
    found
}

fn machine(host: &Host, found: &mut Vec<Finding>) {
    if host.version().is_some_and(|v| v < OLDEST) {
        found.push(kinds::KERNEL_OLD.found(format!("this kernel is {}", host.release), &[]));
    }
    if host.jit == Some(0) {
        found.push(kinds::JIT_OFF.found("net.core.bpf_jit_enable is 0", &[]));
    }
    if !host.bpffs {
        found.push(kinds::BPFFS.found("no file system of type bpf is mounted", &[]));
    }
    if !host.huge_pages {
        found.push(kinds::HUGE_PAGES.found("transparent huge pages are off, and none are reserved", &[]));
    }
}

fn privileges(host: &Host, found: &mut Vec<Finding>) {
    let p = &host.privileges;
    let missing = missing_from(p.effective, &NEEDED);
    let bounded = missing_from(p.bounding, &missing);
    let reachable: Vec<Capability> = missing.iter().copied().filter(|c| !bounded.contains(c)).collect();
    let list = |caps: &[Capability]| names(caps).replace(", ", ",").to_lowercase();
    if !bounded.is_empty() {
        let what = format!("{} cannot be had: outside of the bounding set", names(&bounded));
        found.push(kinds::BOUNDED.found(what, &[("NAMES", &names(&bounded))]));
    }
    if !reachable.is_empty() {
        let what = format!("{} is not effective", names(&reachable));
        found.push(kinds::CAPABILITY.found(what, &[("NAMES", &list(&reachable))]));
    }
    if !missing.is_empty() && p.no_new_privs {
        found.push(kinds::NO_NEW_PRIVILEGES.found("no_new_privs is set for this process", &[]));
    }
    if missing.is_empty() && host.bpf_refused {
        found.push(kinds::BPF_REFUSED.found("the kernel refuses to make a BPF map", &[]));
    }
    if host.user_namespace {
        let what = "/proc/self/uid_map is not that of the machine's own user namespace";
        found.push(kinds::USER_NAMESPACE.found(what, &[]));
    }
}

fn local_ports(host: &Host, wanted: &Wanted, found: &mut Vec<Finding>) {
    let Some((lo, hi)) = host.local_ports else { return };
    let given = |port: u16| (lo..=hi).contains(&port) && !host.reserved_ports.contains(&port.into());
    let mut seen = BTreeSet::new();
    for (name, at) in wanted.listeners.iter().filter(|(_, at)| given(at.port())) {
        if seen.insert(at.port()) {
            let port = at.port().to_string();
            let what =
                format!("listener {name}: port {port} is among net.ipv4.ip_local_port_range ({lo} to {hi})");
            found.push(kinds::EPHEMERAL.found(what, &[("PORT", &port)]));
        }
    }
    let (first, last) = CLIENT_PORTS;
    if lo <= last && hi >= first {
        let what = format!("net.ipv4.ip_local_port_range is {lo} to {hi}");
        found.push(kinds::OUTBOUND.found(what, &[]));
    }
}

/// Whether a socket of the kernel that listens at `socket` gets what comes to `at`.
fn meets(socket: SocketAddr, at: SocketAddr) -> bool {
    let any = |ip: IpAddr| ip.is_unspecified();
    // A socket on [::] takes IPv4 too, unless it was told not to, which cannot be seen.
    let family = socket.is_ipv4() == at.is_ipv4() || socket.is_ipv6() && any(socket.ip());
    family && socket.port() == at.port() && (any(socket.ip()) || any(at.ip()) || socket.ip() == at.ip())
}

fn sockets(host: &Host, wanted: &Wanted, served: bool, found: &mut Vec<Finding>) {
    for (name, at) in &wanted.listeners {
        // What comes to the loopback does not come by the interface.
        let taken = |s: &&SocketAddr| meets(**s, *at) && (at.ip().is_loopback() || !s.ip().is_loopback());
        if let Some(socket) = host.listening.iter().find(taken) {
            let what =
                format!("listener {name} claims {at}, where a socket of the kernel listens on {socket}");
            found.push(kinds::PORT_TAKEN.found(what, &[("PORT", &at.port().to_string())]));
        }
    }
    // Of a finwheel that runs, it is that one's own.
    if let Some(at) = wanted.metrics.filter(|_| !served)
        && host.listening.iter().any(|&s| meets(s, at))
    {
        let what = format!("something listens on {at} already");
        found.push(kinds::METRICS_TAKEN.found(what, &[("PORT", &at.port().to_string())]));
    }
}

fn link(nic: &Facts, found: &mut Vec<Finding>) {
    let l = &nic.link;
    let name = ("IFACE", l.name.as_str());
    if !l.up {
        found.push(kinds::DOWN.found(format!("{} is down", l.name), &[name]));
    } else if !nic.carrier {
        found.push(kinds::NO_CARRIER.found(format!("{} has no carrier", l.name), &[name]));
    }
    let limit = LARGE.mtu_limit();
    if l.mtu > limit {
        let what = format!("the MTU of {} is {}, and {limit} is the most that fits", l.name, l.mtu);
        found.push(kinds::MTU.found(what, &[name, ("LIMIT", &limit.to_string())]));
    }
}

fn program(nic: &Facts, found: &mut Vec<Finding>) {
    let name = nic.link.name.as_str();
    if nic.served {
        found.push(kinds::SERVED.found(format!("a finwheel serves {name}"), &[]));
    }
    for p in &nic.programs {
        // One whose name may not be read may well be ours.
        let Some(other) = p.name.as_deref().filter(|n| !bpf::is_ours(n)) else { continue };
        let what = format!("program {other:?} (number {}) is attached to {name} in {} mode", p.id, p.mode);
        found.push(kinds::PROGRAM.found(what, &[("IFACE", name), ("MODE", p.mode.ip_keyword())]));
    }
}

fn queues(nic: &Facts, wanted: &Wanted, found: &mut Vec<Finding>) {
    let l = &nic.link;
    let name = ("IFACE", l.name.as_str());
    if l.rx_queues > l.tx_queues {
        let what =
            format!("{} has {} receive queues and {} transmit queues", l.name, l.rx_queues, l.tx_queues);
        found.push(kinds::UNEVEN_QUEUES.found(what, &[name, ("TX", &l.tx_queues.to_string())]));
    }
    let served = wanted.served(l.rx_queues);
    if let Some(&queue) = served.iter().find(|&&q| q >= l.rx_queues) {
        let what = format!("queue {queue} is to be served, and {} has {}", l.name, l.rx_queues);
        found.push(kinds::NO_QUEUE.found(what, &[name, ("combined N", &format!("combined {}", queue + 1))]));
    }
    let n = ("equal N", &*format!("equal {}", served.len()));
    let rss = nic.rss.clone().unwrap_or_default();
    let all: BTreeSet<u32> = (0..l.rx_queues).collect();
    let told = !rss.indirection.is_empty();
    let used = if told { rss.indirection.iter().copied().collect() } else { all };
    let stray: Vec<u32> = used.iter().copied().filter(|q| !served.contains(q)).collect();
    if !stray.is_empty() {
        let source = if told {
            "RSS sends flows to"
        } else {
            "the driver does not tell where flows go, and there are"
        };
        let what = format!("{source} queues {stray:?} of {}, which are not served", l.name);
        found.push(kinds::UNSERVED.found(what, &[name, n]));
    }
    let left_out: Vec<u32> =
        served.iter().copied().filter(|q| *q < l.rx_queues && !used.contains(q)).collect();
    if told && !left_out.is_empty() {
        let what = format!("RSS of {} sends nothing to queues {left_out:?}", l.name);
        found.push(kinds::ONE_QUEUE.found(what, &[name, n]));
    }
    if !rss.key.is_empty() && rss.key.iter().all(|&b| b == 0) && l.rx_queues > 1 {
        found.push(kinds::RSS_KEY.found(format!("the RSS key of {} is all zeros", l.name), &[name]));
    }
}

fn cpus(host: &Host, nic: &Facts, wanted: &Wanted, found: &mut Vec<Finding>) {
    let workers = wanted.served(nic.link.rx_queues).len();
    if workers > host.cpus.len() {
        let what = format!("{workers} queues, each with a worker, and {} CPUs", host.cpus.len());
        let words = [("IFACE", nic.link.name.as_str()), ("CPUS", &*host.cpus.len().to_string())];
        found.push(kinds::CPUS_SHARED.found(what, &words));
    }
    let named = wanted.cores.clone();
    let used: Vec<u32> = named.unwrap_or_else(|| host.cpus.iter().copied().take(workers).collect());
    let strange: Vec<u32> = used.iter().copied().filter(|c| !host.cpus.contains(c)).collect();
    if !strange.is_empty() {
        let what = format!("[worker] cores names {strange:?}, and this process may use {:?}", host.cpus);
        found.push(kinds::NO_CPU.found(what, &[("ALLOWED", &format!("{:?}", host.cpus))]));
    }
    if let Some(node) = nic.node
        && let Some((_, near)) = host.nodes.iter().find(|(n, _)| *n == node)
    {
        let far: Vec<u32> = used.iter().copied().filter(|c| !near.contains(c)).collect();
        if !far.is_empty() {
            let what = format!("{} is on node {node}, and CPUs {far:?} are not", nic.link.name);
            found.push(kinds::REMOTE_NODE.found(what, &[("NODE", &node.to_string())]));
        }
    }
    let shared: Vec<u32> = used.iter().copied().filter(|c| !host.isolated.contains(c)).collect();
    if wanted.busy && !shared.is_empty() {
        let list: Vec<String> = shared.iter().map(u32::to_string).collect();
        let what = format!("[worker] idle is \"busy\", and CPUs {shared:?} are not isolated");
        found.push(kinds::NOT_ISOLATED.found(what, &[("CPUS", &list.join(","))]));
    }
}

fn memory(host: &Host, nic: &Facts, wanted: &Wanted, found: &mut Vec<Finding>) {
    let Some(limit) = host.memlock else { return };
    if missing_from(host.privileges.effective, &[Capability::IpcLock]).is_empty() {
        return;
    }
    let frame = if nic.link.mtu > SMALL.mtu_limit() { LARGE } else { SMALL }.frame_size;
    let queues = wanted.served(nic.link.rx_queues).len() as u64;
    let needed = queues * u64::from(wanted.frames) * u64::from(frame);
    if needed > limit {
        let what = format!("the frames take {} KiB, and {} KiB may be locked", needed >> 10, limit >> 10);
        found.push(kinds::MEMLOCK.found(what, &[]));
    }
}

/// Whether the program will run in the generic hook.
fn generic(nic: &Facts, wanted: &Wanted) -> bool {
    wanted.mode == Mode::Generic || nic.native() == Some(false)
}

fn driver(nic: &Facts, wanted: &Wanted, found: &mut Vec<Finding>) {
    let name = nic.link.name.as_str();
    let said = if nic.link.driver.is_empty() { "the driver" } else { &nic.link.driver };
    if wanted.mode != Mode::Generic {
        match nic.native() {
            None => {
                let what = format!("the kernel does not tell what XDP of {name} ({said}) can do");
                found.push(kinds::UNKNOWN_XDP.found(what, &[]));
            }
            Some(false) => {
                let kind = if wanted.mode == Mode::Native { &kinds::NO_NATIVE } else { &kinds::GENERIC };
                let because = if nic.peer.is_some() {
                    ": that of a veth has none while the peer has more transmit queues than this end has receive queues"
                } else {
                    ""
                };
                found.push(kind.found(format!("{said} of {name} has no native XDP{because}"), &[]));
            }
            Some(true) => {}
        }
    }
    if nic.xdp.is_some_and(|x| x.basic() && !x.zero_copy()) {
        let what = format!("{said} of {name} has no zero-copy");
        match wanted.zero_copy {
            ZeroCopy::Require => found.push(kinds::NO_ZERO_COPY.found(what, &[])),
            ZeroCopy::Auto => found.push(kinds::COPIES.found(what, &[("IFACE", name)])),
            ZeroCopy::Off => {}
        }
    }
}

fn offloads(nic: &Facts, wanted: &Wanted, found: &mut Vec<Finding>) {
    let name = ("IFACE", nic.link.name.as_str());
    let on = |names: &[&'static str]| -> Vec<&'static str> {
        names.iter().copied().filter(|n| nic.on(n)).collect()
    };
    let merging = on(&["rx-gro", "rx-lro", "rx-gro-hw"]);
    let in_hardware = on(&["rx-lro", "rx-gro-hw"]);
    if generic(nic, wanted) {
        if !merging.is_empty() {
            let what = format!("generic mode on {}, and {} is on", name.1, merging.join(", "));
            let words = [name, ("PEER", peer_name(nic))];
            found.push(kinds::GENERIC_GRO.found(what, &words));
        } else if nic.peer_segments {
            let what =
                format!("generic mode on {}, whose peer may send several segments as one packet", name.1);
            let words = [name, ("PEER", peer_name(nic))];
            found.push(kinds::GENERIC_GRO.found(what, &words));
        }
        return;
    }
    if !in_hardware.is_empty() {
        let what = format!("{} of {} is on", in_hardware.join(", "), name.1);
        found.push(kinds::HARDWARE_GRO.found(what, &[name]));
    }
    // Virtual interfaces keep the tag beside the packet too, but a veth's program sees it put back.
    if nic.vlans && nic.on("rx-vlan-hw-parse") && nic.link.driver != "veth" {
        let what = format!("rx-vlan-hw-parse of {} is on, and VLANs are made of it", name.1);
        found.push(kinds::VLAN_STRIPPED.found(what, &[name]));
    }
}

fn peer_name(nic: &Facts) -> &str {
    match &nic.peer {
        Some(Peer::Here(peer)) => &peer.name,
        Some(Peer::Elsewhere) | None => "PEER",
    }
}

fn veth(nic: &Facts, wanted: &Wanted, found: &mut Vec<Finding>) {
    let (l, Some(peer)) = (&nic.link, &nic.peer) else { return };
    let words = [("IFACE", l.name.as_str()), ("PEER", peer_name(nic))];
    match peer {
        Peer::Here(peer) if peer.tx_queues > l.rx_queues && wanted.mode != Mode::Generic => {
            let what = format!(
                "{} has {} transmit queues, and {} has {} receive queues",
                peer.name, peer.tx_queues, l.name, l.rx_queues
            );
            let n = peer.tx_queues.to_string();
            let words = [words[0], ("rx N", &*format!("rx {n}")), ("queues N", &*format!("queues {n}"))];
            found.push(kinds::PEER_QUEUES.found(what, &words));
        }
        Peer::Here(_) => {}
        Peer::Elsewhere => {
            let what = format!("the other end of {} is in another network namespace", l.name);
            found.push(kinds::PEER_ELSEWHERE.found(what, &words));
        }
    }
    found.push(kinds::UNFINISHED.found(format!("{} is a veth", l.name), &words));
}

fn addresses(nic: &Facts, wanted: &Wanted, found: &mut Vec<Finding>) {
    // An interface that is down has no addresses to speak of.
    for ip in wanted.not_here.iter().filter(|_| nic.link.up) {
        let what = format!("{ip} is not an address of this machine");
        let words = [("IFACE", nic.link.name.as_str()), ("ADDRESS", &*ip.to_string())];
        found.push(kinds::NOT_OURS.found(what, &words));
    }
}
