//! Every kind of finding, each by a situation that differs from a good machine in one thing.

use super::catalog::{ALL, page};
use super::host::{Host, Privileges};
use super::nic::{Facts, Nic, Peer, Program};
use super::wanted::Wanted;
use super::*;
use crate::config::{Mode, ZeroCopy};
use crate::port::bpf::AttachMode;
use crate::port::ethtool::Rss;
use crate::port::link::LinkFacts;
use crate::port::netdev::XdpFeatures;
use crate::wire::MacAddr;
use std::collections::BTreeSet;
use std::path::Path;

/// XDP in the driver, redirect, and zero-copy.
const FULL: XdpFeatures = XdpFeatures(0b1011);

struct World {
    host: Host,
    nic: Nic,
    wanted: Wanted,
}

fn link(name: &str, driver: &str) -> LinkFacts {
    LinkFacts {
        name: name.into(),
        index: 2,
        mac: MacAddr([2, 0, 0, 0, 0, 2]),
        mtu: 1500,
        up: true,
        driver: driver.into(),
        rx_queues: 2,
        tx_queues: 2,
    }
}

/// A machine with nothing wrong.
fn good() -> World {
    let config = "[interface]\nname = \"eth0\"\n[[listener]]\nname = \"web\"\naddress = \"0.0.0.0:80\"\nservice = \"http\"\n";
    let config = crate::config::from_text(config, Path::new("t.toml")).unwrap().config;
    World {
        host: Host {
            release: "6.12.1-amd64".into(),
            privileges: Privileges { effective: u64::MAX, bounding: u64::MAX, no_new_privs: false },
            user_namespace: false,
            bpf_refused: false,
            bpffs: true,
            jit: Some(1),
            memlock: None,
            cpus: vec![0, 1, 2, 3],
            isolated: vec![2, 3],
            nodes: vec![(0, vec![0, 1, 2, 3]), (1, vec![4])],
            huge_pages: true,
            local_ports: Some((32_768, 60_999)),
            reserved_ports: Vec::new(),
            listening: Vec::new(),
        },
        nic: Nic::Found(Box::new(Facts {
            link: link("eth0", "mlx5_core"),
            carrier: true,
            programs: Vec::new(),
            served: false,
            xdp: Some(FULL),
            offloads: [("rx-gro".to_owned(), true)].into(),
            rss: Some(Rss { indirection: vec![0, 1, 0, 1], key: vec![7; 40] }),
            node: Some(0),
            peer: None,
            peer_segments: false,
            vlans: false,
        })),
        wanted: Wanted::of(&Target { interface: None, config: Some(&config) }).unwrap(),
    }
}

impl World {
    fn nic(&mut self) -> &mut Facts {
        let Nic::Found(facts) = &mut self.nic else { panic!("there is one") };
        facts
    }

    fn found(&self) -> Vec<Finding> {
        checks::all(&self.host, Some(&self.nic), &self.wanted)
    }
}

/// Without so many capabilities that only these are left.
const NET_RAW: u64 = 1 << 13;

/// A situation: the kind that must be found, what its message or remedy says, and what is different.
type Situation = (&'static str, &'static str, fn(&mut World));

/// Makes the interface a veth.
fn veth(w: &mut World, peer: Peer) {
    let nic = w.nic();
    nic.link.driver = "veth".into();
    nic.peer = Some(peer);
    nic.rss = None;
}

static SITUATIONS: &[Situation] = &[
    ("kernel-too-old", "5.4.0-generic", |w| w.host.release = "5.4.0-generic".into()),
    ("capability-missing", "setcap cap_net_admin,cap_bpf,cap_perfmon=p", |w| {
        w.host.privileges.effective = NET_RAW;
    }),
    ("capability-out-of-bounds", "granted CAP_NET_ADMIN, CAP_BPF, CAP_PERFMON: ", |w| {
        w.host.privileges = Privileges { effective: NET_RAW, bounding: NET_RAW, no_new_privs: false };
    }),
    ("no-new-privileges", "no_new_privs is set", |w| {
        w.host.privileges.effective = 0;
        w.host.privileges.no_new_privs = true;
    }),
    ("user-namespace", "uid_map", |w| w.host.user_namespace = true),
    ("bpf-refused", "seccomp=unconfined", |w| w.host.bpf_refused = true),
    ("bpf-jit-off", "bpf_jit_enable", |w| w.host.jit = Some(0)),
    ("bpffs-not-mounted", "mount -t bpf", |w| w.host.bpffs = false),
    ("locked-memory", "take 32768 KiB, and 64 KiB may be locked", |w| {
        w.host.memlock = Some(64 << 10);
        w.host.privileges.effective = !(1 << 14);
    }),
    ("huge-pages", "madvise", |w| w.host.huge_pages = false),
    ("interface-missing", "no interface nope0", |w| w.nic = Nic::Missing("nope0".into())),
    ("interface-down", "ip link set dev eth0 up", |w| w.nic().link.up = false),
    ("no-carrier", "ethtool eth0", |w| w.nic().carrier = false),
    ("served-already", "a finwheel serves eth0", |w| w.nic().served = true),
    ("another-xdp-program", "ip link set dev eth0 xdpgeneric off", |w| {
        let name = Some("others".into());
        w.nic().programs.push(Program { mode: AttachMode::Generic, id: 7, name });
    }),
    ("mtu-too-large", "ip link set dev eth0 mtu 3818", |w| w.nic().link.mtu = 9000),
    ("uneven-queues", "ethtool -L eth0 combined 1", |w| w.nic().link.tx_queues = 1),
    ("queue-missing", "ethtool -L eth0 combined 6", |w| w.wanted.queues = Some(vec![0, 1, 5])),
    ("queues-not-served", "RSS sends flows to queues [1]", |w| w.wanted.queues = Some(vec![0])),
    ("queues-not-served", "does not tell", |w| {
        w.wanted.queues = Some(vec![0]);
        w.nic().rss = None;
    }),
    ("rss-one-queue", "ethtool -X eth0 equal 2", |w| w.nic().rss.as_mut().unwrap().indirection = vec![0; 4]),
    ("rss-key-zero", "ethtool -X eth0 hkey", |w| w.nic().rss.as_mut().unwrap().key = vec![0; 40]),
    ("more-workers-than-cpus", "ethtool -L eth0 combined 1,", |w| w.host.cpus = vec![0]),
    ("core-not-allowed", "[9]", |w| w.wanted.cores = Some(vec![0, 9])),
    ("numa-remote", "CPUs of node 1", |w| w.nic().node = Some(1)),
    ("cores-not-isolated", "isolcpus=0,1 ", |w| w.wanted.busy = true),
    ("no-native-xdp", "mlx5_core of eth0", |w| {
        w.nic().xdp = Some(XdpFeatures(0));
        w.wanted.mode = Mode::Native;
    }),
    ("generic-xdp", "mlx5_core of eth0", |w| w.nic().xdp = Some(XdpFeatures(0))),
    ("gro-in-generic-mode", "ethtool -K eth0 gro off", |w| w.wanted.mode = Mode::Generic),
    ("gro-in-generic-mode", "ethtool -K peer0 tso off gso off", |w| {
        veth(w, Peer::Here(link("peer0", "veth")));
        w.nic().peer_segments = true;
        w.nic().offloads.clear();
        w.wanted.mode = Mode::Generic;
    }),
    ("no-zero-copy", "mlx5_core of eth0", |w| {
        w.nic().xdp = Some(XdpFeatures(0b11));
        w.wanted.zero_copy = ZeroCopy::Require;
    }),
    ("copy-mode", "ethtool -i eth0", |w| w.nic().xdp = Some(XdpFeatures(0b11))),
    ("xdp-features-unknown", "does not tell", |w| w.nic().xdp = None),
    ("hardware-gro", "rx-gro-hw of eth0 is on", |w| {
        w.nic().offloads.insert("rx-gro-hw".into(), true);
    }),
    ("vlan-tags-stripped", "ethtool -K eth0 rxvlan off", |w| {
        w.nic().vlans = true;
        w.nic().offloads.insert("rx-vlan-hw-parse".into(), true);
    }),
    ("unfinished-checksums", "ethtool -K peer0 tx off", |w| veth(w, Peer::Here(link("peer0", "veth")))),
    ("veth-peer-queues", "ethtool -L eth0 rx 4, or ip link add ... numrxqueues 4 numtxqueues 4", |w| {
        veth(w, Peer::Here(LinkFacts { tx_queues: 4, ..link("peer0", "veth") }));
    }),
    ("veth-peer-elsewhere", "another network namespace", |w| veth(w, Peer::Elsewhere)),
    ("address-not-here", "ip address add 192.0.2.1 dev eth0", |w| {
        w.wanted.not_here = vec!["192.0.2.1".parse().unwrap()];
    }),
    ("port-in-use", "listener web claims 0.0.0.0:80", |w| {
        w.host.listening = vec!["10.0.0.1:80".parse().unwrap()];
    }),
    ("port-in-use", "listens on [::]:80", |w| w.host.listening = vec!["[::]:80".parse().unwrap()]),
    ("metrics-address-in-use", "'sport = :9464'", |w| {
        w.host.listening = vec!["0.0.0.0:9464".parse().unwrap()];
    }),
    ("port-among-local-ports", "ip_local_reserved_ports=80 ", |w| w.host.local_ports = Some((50, 60_999))),
    ("outbound-ports", "is 20000 to 60999", |w| w.host.local_ports = Some((20_000, 60_999))),
];

#[test]
fn a_good_machine_has_nothing_to_be_found() {
    let w = good();
    assert_eq!(w.found(), []);
}

#[test]
fn each_situation_is_found_by_its_kind_and_says_what_mends_it() {
    for (id, part, change) in SITUATIONS {
        let mut w = good();
        change(&mut w);
        let found = w.found();
        let of_kind = found.iter().find(|f| f.kind.id == *id).unwrap_or_else(|| panic!("{id}: {found:?}"));
        let said = format!("{}; {}", of_kind.what, of_kind.remedy);
        assert!(said.contains(part), "{id}: {part} in {said}");
        // No word of the table is left unfilled in what is specific.
        for word in ["IFACE", "LIMIT", "PORT", "ADDRESS", "NAMES", "CPUS"] {
            assert!(!of_kind.remedy.contains(word), "{id}: {}", of_kind.remedy);
        }
        // What goes with it is of the same cause, or a mere note.
        let others: Vec<_> =
            found.iter().filter(|f| f.kind.id != *id && f.kind.severity == Severity::Error).collect();
        assert!(others.len() <= 1, "{id}: {others:?}");
    }
}

#[test]
fn every_kind_has_a_situation_and_a_name_of_its_own() {
    let tried: BTreeSet<_> = SITUATIONS.iter().map(|(id, ..)| *id).collect();
    let kinds: BTreeSet<_> = ALL.iter().map(|k| k.id).collect();
    assert_eq!(kinds.len(), ALL.len());
    assert_eq!(tried, kinds);
    let page = page();
    for k in ALL {
        assert!(page.contains(&format!("\n### {}\n", k.id)), "{}", k.id);
    }
}

#[test]
fn what_is_no_conflict_is_not_called_one() {
    for (listening, served) in [("127.0.0.1:80", false), ("10.0.0.1:81", false), ("127.0.0.1:9464", true)] {
        let mut w = good();
        w.host.listening = vec![listening.parse().unwrap()];
        w.nic().served = served;
        let found: Vec<_> =
            w.found().iter().map(|f| f.kind.id).filter(|id| *id != "served-already").collect();
        assert!(found.is_empty(), "{listening}: {found:?}");
    }
    // A reserved port is not given out, and our own program is nobody else's.
    let mut w = good();
    w.host.local_ports = Some((50, 90));
    w.host.reserved_ports = vec![80];
    let name = Some("finwheel_steer".into());
    w.nic().programs.push(Program { mode: AttachMode::Native, id: 7, name });
    assert_eq!(w.found(), []);
}

#[test]
fn the_report_puts_the_worst_first_and_says_the_same_in_json() {
    let mut w = good();
    w.host.bpffs = false;
    w.nic().link.mtu = 9000;
    w.nic().carrier = false;
    let mut findings = w.found();
    findings.sort_by_key(|f| std::cmp::Reverse(f.kind.severity));
    let report = Report { interface: Some("eth0".into()), facts: w.host.describe(), findings };
    assert_eq!(report.worst(), Some(Severity::Error));
    let json = report.json();
    assert_eq!(json["worst"], "error");
    let ids: Vec<_> =
        json["findings"].as_array().unwrap().iter().map(|f| f["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["mtu-too-large", "no-carrier", "bpffs-not-mounted"]);
    assert!(json["facts"]["kernel"].as_str().is_some_and(|k| k.starts_with("6.12")));
    let text = report.text(Severity::Warning);
    assert!(text.starts_with("error[mtu-too-large]: ") && !text.contains("bpffs"), "{text}");
}

#[test]
fn this_machine_and_its_loopback_can_be_examined() {
    let report = examine(&Target { interface: Some("lo"), config: None }).unwrap();
    assert!(report.facts.iter().any(|(subject, fact)| *subject == "interface" && fact.starts_with("lo, ")));
    let nowhere = examine(&Target { interface: Some("fw-none"), config: None }).unwrap();
    assert!(nowhere.findings.iter().any(|f| f.kind.id == "interface-missing"), "{nowhere:?}");
}
