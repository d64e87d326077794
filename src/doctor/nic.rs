//! Facts about an interface: netlink, ethtool, /sys. No privilege, nothing is changed, but that the names of XDP programs
//! need `CAP_SYS_ADMIN` to be read; without it a program is known by its number.

use crate::port::bpf::{self, AttachMode};
use crate::port::ethtool::{Ethtool, Rss};
use crate::port::link::LinkFacts;
use crate::port::netdev::{XdpFeatures, xdp_features};
use crate::port::netlink::Netlink;
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use std::collections::BTreeMap;
use std::io;

/// An XDP program on the interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Program {
    pub mode: AttachMode,
    pub id: u32,
    /// `None` when it may not be asked.
    pub name: Option<String>,
}

/// The other end of a veth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// In this network namespace.
    Here(LinkFacts),
    /// In another one.
    Elsewhere,
}

/// An interface, or that there is none.
#[derive(Clone, Debug)]
pub(super) enum Nic {
    Found(Box<Facts>),
    Missing(String),
}

/// Facts about an interface.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct Facts {
    pub link: LinkFacts,
    pub carrier: bool,
    pub programs: Vec<Program>,
    /// A finwheel holds it.
    pub served: bool,
    /// `None` when the kernel does not tell.
    pub xdp: Option<XdpFeatures>,
    /// Offloads by name.
    pub offloads: BTreeMap<String, bool>,
    /// `None` when the driver does not tell.
    pub rss: Option<Rss>,
    /// The NUMA node that it is on.
    pub node: Option<u32>,
    pub peer: Option<Peer>,
    /// Whether a veth's peer may send more than a segment at once: not when its offloads are seen to be off.
    pub peer_segments: bool,
    /// Whether VLANs are made of it.
    pub vlans: bool,
}

impl Nic {
    pub fn read(name: &str) -> io::Result<Self> {
        let mut netlink = Netlink::open()?;
        let link = match netlink.link_by_name(name) {
            Ok(link) => link,
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENODEV | libc::ERANGE | libc::EINVAL)) => {
                return Ok(Self::Missing(name.to_owned()));
            }
            Err(e) => return Err(e),
        };
        let facts = LinkFacts::of(&link, name)?;
        let ethtool = Ethtool::open(name)?;
        let links = netlink.links()?;
        let peer = if facts.driver == "veth" { Some(peer(&link, &links)?) } else { None };
        Ok(Self::Found(Box::new(Facts {
            peer_segments: peer.as_ref().is_some_and(segments),
            peer,
            carrier: link.attributes.iter().any(|a| matches!(a, LinkAttribute::Carrier(1))),
            programs: programs(&mut netlink, facts.index)?,
            served: bpf::is_held(name),
            // Not every kernel and driver answers; what is not known is said so.
            xdp: xdp_features(facts.index).unwrap_or_default(),
            offloads: ethtool.features().unwrap_or_default(),
            rss: ethtool.rss().ok(),
            node: node(name),
            vlans: links.iter().any(|l| is_vlan(l) && above(l) == Some(facts.index)),
            link: facts,
        })))
    }
}

fn programs(netlink: &mut Netlink, index: u32) -> io::Result<Vec<Program>> {
    let attached = bpf::attached(netlink, index)?;
    Ok(attached.into_iter().map(|(mode, id)| Program { mode, id, name: bpf::name_of(id) }).collect())
}

/// The interface that a link stands on, in this network namespace.
fn above(link: &LinkMessage) -> Option<u32> {
    link.attributes.iter().find_map(|a| match a {
        LinkAttribute::Link(index) => Some(*index),
        _ => None,
    })
}

fn is_vlan(link: &LinkMessage) -> bool {
    link.attributes.iter().any(|a| match a {
        LinkAttribute::LinkInfo(info) => info.iter().any(|i| matches!(i, LinkInfo::Kind(InfoKind::Vlan))),
        _ => false,
    })
}

/// The other end of a veth: its index is meant in the peer's network namespace, which is named when it is another one.
fn peer(link: &LinkMessage, links: &[LinkMessage]) -> io::Result<Peer> {
    let other = link.attributes.iter().any(|a| matches!(a, LinkAttribute::LinkNetNsId(_)));
    let Some(peer) =
        above(link).filter(|_| !other).and_then(|index| links.iter().find(|l| l.header.index == index))
    else {
        return Ok(Peer::Elsewhere);
    };
    let name = peer.attributes.iter().find_map(|a| match a {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    });
    Ok(Peer::Here(LinkFacts::of(peer, name.unwrap_or_default())?))
}

/// Whether it may leave the cutting into segments to a device that there is not.
fn segments(peer: &Peer) -> bool {
    let Peer::Here(link) = peer else { return true };
    let features = Ethtool::open(&link.name).and_then(|e| e.features()).unwrap_or_default();
    ["tx-tcp-segmentation", "tx-tcp6-segmentation", "tx-generic-segmentation"]
        .iter()
        .any(|f| features.get(*f) != Some(&false))
}

/// /sys shows the network namespace that it was mounted in: another interface of the same name would be a virtual one, and
/// those have no node.
fn node(name: &str) -> Option<u32> {
    let path = format!("/sys/class/net/{name}/device/numa_node");
    // -1 is for a machine without nodes.
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

impl Facts {
    /// Whether an offload is on.
    pub fn on(&self, offload: &str) -> bool {
        self.offloads.get(offload).copied().unwrap_or(false)
    }

    /// Whether programs can run in the driver and redirect; `None` when that is not known.
    pub fn native(&self) -> Option<bool> {
        self.xdp.map(|x| x.basic() && x.redirect())
    }

    /// For people.
    pub fn describe(&self) -> Vec<(&'static str, String)> {
        let l = &self.link;
        let known = |answer: Option<bool>| match answer {
            Some(true) => "yes",
            Some(false) => "no",
            None => "not told",
        };
        let driver = if l.driver.is_empty() { "none that says so" } else { &l.driver };
        let mut facts = vec![
            (
                "interface",
                format!("{}, {driver}, {}, MTU {}", l.name, if l.up { "up" } else { "down" }, l.mtu),
            ),
            ("queues", format!("{} that receive, {} that transmit", l.rx_queues, l.tx_queues)),
            ("native XDP", known(self.native()).into()),
            ("zero-copy", known(self.xdp.map(XdpFeatures::zero_copy)).into()),
        ];
        if let Some(rss) = &self.rss {
            let fact = format!("table of {}, key of {} bytes", rss.indirection.len(), rss.key.len());
            facts.push(("RSS", fact));
        }
        facts
    }
}
