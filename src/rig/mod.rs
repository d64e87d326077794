//! Throwaway namespaces, veth pairs and kernel peers for the demo and the tests.
//!
//! ```text
//!  namespace fw<pid>-<n>-server                    namespace fw<pid>-<n>-client
//!    fw-server  10.77.0.1/24, fd77::1/64 ── veth ──  fw-client  10.77.0.2/24, fd77::2/64
//!    finwheel binds its queues                       curl, nc, ab, nmap: the kernel's TCP
//! ```
//!
//! The server's kernel keeps the addresses and answers ARP and neighbour discovery; finwheel takes what it claims.
//! Both namespaces have a name, so that `ip netns exec` reaches them from another terminal. A [`Rig`] takes them
//! away when it is dropped; one that could not be (a killed process) is taken away by the next [`Rig::new`].
//!
//! Syscalls: unshare, setns, mount, umount2, netlink. Privilege: `CAP_SYS_ADMIN` and `CAP_NET_ADMIN`; without them
//! [`Rig::new`] returns [`RigError::NotPermitted`], which tests take as a reason to skip.

pub mod forbidden;
mod loss;
mod napi;
mod netns;
mod packet;
mod relay;

pub use netns::Namespace;
pub use relay::{Relay, RelayConfig, RelayCounters};

use crate::port::netlink::Netlink;
use crate::port::privileges::{self, Capability};
use nix::unistd::Pid;
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use std::ffi::OsStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// The interface in the server's namespace: the one to bind.
pub const SERVER_INTERFACE: &str = "fw-server";
/// The interface in the client's namespace.
pub const CLIENT_INTERFACE: &str = "fw-client";
/// The interfaces in the relay's namespace: that towards the server, that towards the client.
const RELAY_INTERFACES: [&str; 2] = ["fw-relay-s", "fw-relay-c"];

/// The most queues a rig is made with: the kernel's own bound for a veth is 4096, a test needs a handful.
pub const MAX_QUEUES: u32 = 64;

/// What a rig looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RigConfig {
    /// Receive and transmit queues of both ends, 1 to [`MAX_QUEUES`].
    pub queues: u32,
    /// MTU of both ends, bytes.
    pub mtu: u32,
    /// Addresses of the server's end with their prefix lengths.
    pub server: Vec<(IpAddr, u8)>,
    /// Addresses of the client's end with their prefix lengths.
    pub client: Vec<(IpAddr, u8)>,
    /// A third namespace between the two, where a [`Relay`] runs; without one at work nothing gets through. Needs ethtool.
    pub relayed: bool,
}

impl Default for RigConfig {
    fn default() -> Self {
        let v6 = |last| IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, last));
        Self {
            queues: 1,
            mtu: 1500,
            server: vec![(Ipv4Addr::new(10, 77, 0, 1).into(), 24), (v6(1), 64)],
            client: vec![(Ipv4Addr::new(10, 77, 0, 2).into(), 24), (v6(2), 64)],
            relayed: false,
        }
    }
}

impl RigConfig {
    /// The default with this many queues.
    #[must_use]
    pub fn with_queues(queues: u32) -> Self {
        Self { queues, ..Self::default() }
    }
}

/// A rig could not be made or used.
#[derive(Debug, thiserror::Error)]
pub enum RigError {
    /// This process may not make namespaces.
    #[error("a rig of network namespaces needs {}; run as root", privileges::names(missing))]
    NotPermitted {
        /// The capabilities to ask for.
        missing: Vec<Capability>,
    },
    /// The number of queues is out of bounds.
    #[error("a rig takes 1 to {MAX_QUEUES} queues, not {0}")]
    Queues(u32),
    /// There is no namespace for a relay.
    #[error("this rig has no room for a relay: it was not made with `relayed`")]
    NotRelayed,
    /// A percentage is not from 0 to 100.
    #[error("loss of {0} % is not a percentage")]
    Percentage(f64),
    /// A tool is missing or failed.
    #[error("{tool}: {why}")]
    Tool {
        /// The program.
        tool: &'static str,
        /// What it said, or the package to install.
        why: String,
    },
    /// The kernel refused a step.
    #[error("{what}: {source}")]
    System {
        /// The step.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl RigError {
    /// Whether privileges are what is missing: a test may then be skipped.
    #[must_use]
    pub const fn is_privilege(&self) -> bool {
        matches!(self, Self::NotPermitted { .. })
    }

    fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| match source.raw_os_error() {
            // Capabilities on paper that do not count here: a user namespace, a security module.
            Some(libc::EPERM | libc::EACCES) => Self::NotPermitted { missing: NEEDED.to_vec() },
            _ => Self::System { what, source },
        }
    }
}

/// The number of the next rig of this process.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// What making a rig needs to be allowed to do.
const NEEDED: [Capability; 2] = [Capability::SysAdmin, Capability::NetAdmin];

/// Two network namespaces with a veth between them, for as long as this lives.
#[derive(Debug)]
pub struct Rig {
    server: Namespace,
    client: Namespace,
    /// Its namespace and the indices of its interfaces.
    relay: Option<(Namespace, [u32; 2])>,
    config: RigConfig,
    cleaner: Cleaner,
}

/// Takes a rig's namespaces away: from a task that handles signals, before the process exits without unwinding.
#[derive(Clone, Debug)]
pub struct Cleaner {
    names: Arc<[String]>,
    done: Arc<AtomicBool>,
}

impl Cleaner {
    /// Takes the names away, once; a second call does nothing. The namespaces end with the last process in them.
    pub fn clean(&self) {
        if self.done.swap(true, Ordering::AcqRel) {
            return;
        }
        for name in self.names.iter() {
            if let Err(e) = netns::remove(name) {
                tracing::warn!(namespace = name, error = %e, "not removed; `ip netns del {name}` does it");
            }
        }
    }
}

impl Rig {
    /// Makes a rig: both ends up, with addresses that can be used at once. Rigs of processes that no longer exist are
    /// removed first.
    ///
    /// # Errors
    /// [`RigError::NotPermitted`] without the privileges; otherwise what failed. Nothing stays behind.
    pub fn new(config: RigConfig) -> Result<Self, RigError> {
        if !(1..=MAX_QUEUES).contains(&config.queues) {
            return Err(RigError::Queues(config.queues));
        }
        let missing = privileges::missing(&NEEDED);
        if !missing.is_empty() {
            return Err(RigError::NotPermitted { missing });
        }
        remove_stale();
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = |side| format!("fw{}-{n}-{side}", std::process::id());
        let (server, client, between) = (name("server"), name("client"), name("relay"));
        let mut names = vec![server.clone(), client.clone()];
        names.extend(config.relayed.then(|| between.clone()));
        let cleaner = Cleaner { names: names.into(), done: Arc::default() };
        let made = (|| {
            let server = Namespace::create(server)?;
            let client = Namespace::create(client)?;
            let relay = config.relayed.then(|| Namespace::create(between)).transpose()?;
            let relay = if let Some(relay) = relay {
                let interfaces = wire_relayed(&server, &relay, &client, &config)?;
                Some((relay, interfaces))
            } else {
                wire((&server, SERVER_INTERFACE), (&client, CLIENT_INTERFACE), &config)?;
                None
            };
            for (ns, interface, addresses) in
                [(&server, SERVER_INTERFACE, &config.server), (&client, CLIENT_INTERFACE, &config.client)]
            {
                ns.run_in(|| bring_up(interface, addresses))?
                    .map_err(RigError::system(format!("bringing up {interface}")))?;
            }
            Ok((server, client, relay))
        })();
        match made {
            Ok((server, client, relay)) => Ok(Self { server, client, relay, config, cleaner }),
            Err(e) => {
                cleaner.clean();
                Err(e)
            }
        }
    }

    /// The namespace whose interface finwheel binds.
    #[must_use]
    pub const fn server_ns(&self) -> &Namespace {
        &self.server
    }

    /// The namespace of the kernel peers.
    #[must_use]
    pub const fn client_ns(&self) -> &Namespace {
        &self.client
    }

    /// How it was made.
    #[must_use]
    pub const fn config(&self) -> &RigConfig {
        &self.config
    }

    /// The server's first IPv4 address.
    #[must_use]
    pub fn server_v4(&self) -> Option<Ipv4Addr> {
        first_v4(&self.config.server)
    }

    /// The server's first IPv6 address.
    #[must_use]
    pub fn server_v6(&self) -> Option<Ipv6Addr> {
        first_v6(&self.config.server)
    }

    /// The client's first IPv4 address.
    #[must_use]
    pub fn client_v4(&self) -> Option<Ipv4Addr> {
        first_v4(&self.config.client)
    }

    /// The client's first IPv6 address.
    #[must_use]
    pub fn client_v6(&self) -> Option<Ipv6Addr> {
        first_v6(&self.config.client)
    }

    /// A program to be run in the client's namespace.
    #[must_use]
    pub fn client_command(&self, program: impl AsRef<OsStr>) -> Command {
        self.client.command(program)
    }

    /// Drops this share of the packets in each direction, at random, on the client's side; 0 ends it. ARP and
    /// neighbour discovery are spared. Needs nft.
    ///
    /// # Errors
    /// [`RigError::Percentage`] outside of 0 to 100, [`RigError::Tool`] when nft is missing or refuses.
    pub fn loss(&self, percent: f64) -> Result<(), RigError> {
        loss::set(&self.client, CLIENT_INTERFACE, percent)
    }

    /// Has each end receive in kernel threads of its own (threaded NAPI, Linux 5.12), one a queue, and with GRO. Returns
    /// the threads of the server's end and those of the client's, for a measurement to pin and to count. Needs ethtool.
    ///
    /// # Errors
    /// [`RigError::Tool`] when ethtool is missing or refuses, [`RigError::System`] when the kernel does.
    pub fn threaded_napi(&self) -> Result<[Vec<Pid>; 2], RigError> {
        Ok([
            napi::set_threaded(&self.server, SERVER_INTERFACE)?,
            napi::set_threaded(&self.client, CLIENT_INTERFACE)?,
        ])
    }

    /// Has the kernel work off what the client's end receives on one core (receive packet steering), as on a machine of its
    /// own. Otherwise that is done on the core that sends, so that the server pays for how its answers are received.
    ///
    /// # Errors
    /// [`RigError::System`] when the kernel refuses: it has no such core, or no RPS.
    pub fn client_receives_on(&self, core: usize) -> Result<(), RigError> {
        napi::set_rps(&self.client, CLIENT_INTERFACE, self.config.queues, core)
    }

    /// Starts relaying, in a rig that was made for it ([`RigConfig::relayed`]); one relay at a time.
    ///
    /// # Errors
    /// [`RigError::NotRelayed`] in another rig, otherwise what failed.
    pub fn relay(&self, config: RelayConfig) -> Result<Relay, RigError> {
        let (namespace, interfaces) = self.relay.as_ref().ok_or(RigError::NotRelayed)?;
        Relay::start(namespace, *interfaces, config)
    }

    /// A handle that takes the rig away from elsewhere.
    #[must_use]
    pub fn cleaner(&self) -> Cleaner {
        self.cleaner.clone()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.cleaner.clean();
    }
}

fn first_v4(addresses: &[(IpAddr, u8)]) -> Option<Ipv4Addr> {
    addresses.iter().find_map(|(ip, _)| match ip {
        IpAddr::V4(v4) => Some(*v4),
        IpAddr::V6(_) => None,
    })
}

fn first_v6(addresses: &[(IpAddr, u8)]) -> Option<Ipv6Addr> {
    addresses.iter().find_map(|(ip, _)| match ip {
        IpAddr::V6(v6) => Some(*v6),
        IpAddr::V4(_) => None,
    })
}

/// Removes the rigs of processes that no longer exist. Only names of a rig's form are looked at.
pub fn remove_stale() {
    for name in netns::names() {
        let Some(pid) = owner(&name) else { continue };
        if std::path::Path::new("/proc").join(pid.to_string()).exists() {
            continue;
        }
        if let Err(e) = netns::remove(&name) {
            tracing::debug!(namespace = name, error = %e, "stale rig not removed");
        }
    }
}

/// The process that a name of the form `fw<pid>-<n>-<side>` belongs to.
fn owner(name: &str) -> Option<u32> {
    let (pid, rest) = name.strip_prefix("fw")?.split_once('-')?;
    let (n, side) = rest.split_once('-')?;
    n.parse::<u32>().ok()?;
    matches!(side, "server" | "client" | "relay").then(|| pid.parse().ok())?
}

/// Puts a veth between two namespaces.
fn wire(
    (server, server_interface): (&Namespace, &str),
    (client, client_interface): (&Namespace, &str),
    config: &RigConfig,
) -> Result<(), RigError> {
    let end = |name: &str| {
        vec![
            LinkAttribute::IfName(name.into()),
            LinkAttribute::Mtu(config.mtu),
            LinkAttribute::NumRxQueues(config.queues),
            LinkAttribute::NumTxQueues(config.queues),
        ]
    };
    let mut peer = LinkMessage::default();
    peer.attributes = end(client_interface);
    peer.attributes.push(LinkAttribute::NetNsFd(client.file().as_raw_fd()));
    let mut veth = LinkMessage::default();
    veth.attributes = end(server_interface);
    veth.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    server.run_in(|| Netlink::open()?.add_link(veth))?.map_err(RigError::system("making a veth pair"))
}

/// Puts the relay's namespace between the two, and sees to it that what comes to the relay are frames as a wire has them:
/// with whole checksums and no longer than the MTU. Returns the indices of the relay's interfaces.
fn wire_relayed(
    server: &Namespace,
    relay: &Namespace,
    client: &Namespace,
    config: &RigConfig,
) -> Result<[u32; 2], RigError> {
    let [to_server, to_client] = RELAY_INTERFACES;
    wire((server, SERVER_INTERFACE), (relay, to_server), config)?;
    wire((client, CLIENT_INTERFACE), (relay, to_client), config)?;
    // The relay's kernel has nothing to say on the line.
    relay.sysctl("net/ipv6/conf/all/disable_ipv6", "1")?;
    relay.sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
    for (ns, interface) in [(server, SERVER_INTERFACE), (client, CLIENT_INTERFACE)] {
        let out = ns
            .command("ethtool")
            .args(["-K", interface, "tx", "off", "tso", "off", "gso", "off", "gro", "off"])
            .output()
            .map_err(|e| RigError::Tool { tool: "ethtool", why: format!("{e}; apt-get install ethtool") })?;
        if !out.status.success() {
            let why = String::from_utf8_lossy(&out.stderr).into_owned();
            return Err(RigError::Tool { tool: "ethtool", why });
        }
    }
    let mut indices = [0; 2];
    for (index, interface) in indices.iter_mut().zip(RELAY_INTERFACES) {
        *index = relay
            .run_in(|| bring_up(interface, &[]))?
            .map_err(RigError::system(format!("bringing up {interface}")))?;
    }
    Ok(indices)
}

/// Returns the index of the interface.
fn bring_up(interface: &str, addresses: &[(IpAddr, u8)]) -> io::Result<u32> {
    let mut netlink = Netlink::open()?;
    let mut found = 0;
    for name in ["lo", interface] {
        let index = netlink.link_by_name(name)?.header.index;
        let mut up = LinkMessage::default();
        up.header.index = index;
        up.header.flags = LinkFlags::Up;
        up.header.change_mask = LinkFlags::Up;
        netlink.set_link(up)?;
        if name == interface {
            found = index;
            for &(ip, prefix_len) in addresses {
                netlink.add_address(index, ip, prefix_len)?;
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_a_rig_have_an_owner() {
        assert_eq!(owner("fw123-0-server"), Some(123));
        assert_eq!(owner("fw9-12-client"), Some(9));
        assert_eq!(owner("fw9-12-relay"), Some(9));
        for name in ["fw123-0", "fw-0-server", "fwx-0-server", "fw1-x-server", "fw1-0-other", "vpn", "fwd1"] {
            assert_eq!(owner(name), None, "{name}");
        }
    }

    #[test]
    fn queues_out_of_bounds_are_refused_before_anything_is_made() {
        for queues in [0, MAX_QUEUES + 1] {
            let e = Rig::new(RigConfig::with_queues(queues)).unwrap_err();
            assert!(matches!(e, RigError::Queues(_)), "{e}");
        }
    }
}
