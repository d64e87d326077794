//! Opening connections from the control plane: where the peer is on the link, and which worker opens.
//!
//! ```text
//!  Terminator::connect ─▶ Opener: route ─▶ neighbour (asked of the kernel, kept for a while) ─▶ Command::Connect ─▶ worker
//!                                                                   the worker: local port ─▶ SYN ─▶ Service
//! ```
//!
//! finwheel does not speak ARP or neighbour discovery: the kernel keeps the addresses and knows the neighbours.

use super::settings::ClientSettings;
use crate::port::netlink::Netlink;
use crate::port::xsk::Report;
use crate::shard::mailbox::{Command, Handle};
use crate::shard::outbound::Outbound;
use crate::wire::{L2, MacAddr};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// How long a neighbour is believed before the kernel is asked again. Longer, and connections go to a machine that has
/// been replaced; shorter costs system calls.
const BELIEVED: Duration = Duration::from_secs(5);
/// Destinations whose way is kept. When there are more, all are forgotten, and asked for again.
const KEPT: usize = 4096;

/// A connection could not be asked for.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The settings have no [`ClientSettings`].
    #[error("connections cannot be opened from here: the settings name no client")]
    NoClient,
    /// No local address of the peer's IP version.
    #[error("{remote}: the client has no address of this IP version")]
    NoAddress {
        /// The peer.
        remote: SocketAddr,
    },
    /// The kernel knows no way there, or cannot be asked.
    #[error("{remote}: no route: {source}")]
    NoRoute {
        /// The peer.
        remote: SocketAddr,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The way leads over another interface.
    #[error("{remote}: the route does not lead over {interface}; see `ip route get`")]
    OtherInterface {
        /// The peer.
        remote: SocketAddr,
        /// The interface that is terminated.
        interface: String,
    },
    /// The neighbour on the way does not answer.
    #[error("{remote}: the neighbour {neighbour} does not answer")]
    NoNeighbour {
        /// The peer.
        remote: SocketAddr,
        /// The gateway, or the peer itself.
        neighbour: IpAddr,
    },
    /// The worker has not taken what it was told before: try again in a moment.
    #[error("{remote}: the worker is busy")]
    Busy {
        /// The peer.
        remote: SocketAddr,
    },
}

impl ConnectError {
    /// Whether trying again in a moment can help.
    #[must_use]
    pub const fn is_busy(&self) -> bool {
        matches!(self, Self::Busy { .. })
    }
}

/// Asks workers in turn to open connections.
pub(super) struct Opener {
    netlink: Netlink,
    interface: String,
    index: u32,
    mac: MacAddr,
    addresses: Vec<IpAddr>,
    workers: Vec<Handle>,
    next: usize,
    /// The neighbour by destination, and when the kernel said so.
    neighbours: HashMap<IpAddr, (MacAddr, Instant)>,
}

impl Opener {
    /// For the interface that was opened; looks into the network namespace of the calling thread, for good.
    pub fn new(interface: &Report, client: &ClientSettings, workers: Vec<Handle>) -> io::Result<Self> {
        Ok(Self {
            netlink: Netlink::open()?,
            interface: interface.interface.clone(),
            index: interface.index,
            mac: interface.mac,
            addresses: client.addresses.clone(),
            workers,
            next: 0,
            neighbours: HashMap::new(),
        })
    }

    /// Has the next worker open a connection.
    pub fn open(&mut self, remote: SocketAddr, user: u32) -> Result<(), ConnectError> {
        if !self.addresses.iter().any(|a| a.is_ipv4() == remote.is_ipv4()) {
            return Err(ConnectError::NoAddress { remote });
        }
        let dst = self.neighbour(remote)?;
        let l2 = L2 { src: self.mac, dst, vlan: None };
        let worker = &self.workers[self.next];
        self.next = (self.next + 1) % self.workers.len();
        let sent = worker.send(Command::Connect(Outbound { remote: remote.into(), l2, user }));
        sent.map_err(|_| ConnectError::Busy { remote })
    }

    /// The hardware address that packets to `remote` go to.
    fn neighbour(&mut self, remote: SocketAddr) -> Result<MacAddr, ConnectError> {
        let now = Instant::now();
        if let Some(&(mac, at)) = self.neighbours.get(&remote.ip())
            && now.duration_since(at) < BELIEVED
        {
            return Ok(mac);
        }
        let failed = |source| ConnectError::NoRoute { remote, source };
        let hop = self.netlink.hop(remote.ip()).map_err(failed)?;
        if hop.index != self.index {
            return Err(ConnectError::OtherInterface { remote, interface: self.interface.clone() });
        }
        let mac = self
            .netlink
            .resolve(hop)
            .map_err(failed)?
            .ok_or(ConnectError::NoNeighbour { remote, neighbour: hop.neighbour })?;
        if self.neighbours.len() >= KEPT {
            self.neighbours.clear();
        }
        self.neighbours.insert(remote.ip(), (mac, now));
        Ok(mac)
    }
}
