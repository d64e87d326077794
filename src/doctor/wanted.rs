//! What is to run: the part of a configuration that the machine has to bear.

use super::Target;
use crate::config::schema::{InterfaceConfig, MetricsConfig};
use crate::config::{Config, Cores, Idle, Mode, Queues, ZeroCopy};
use crate::port::netlink::Netlink;
use std::io;
use std::net::{IpAddr, SocketAddr};

/// What the machine has to bear.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub interface: Option<String>,
    pub queues: Option<Vec<u32>>,
    pub mode: Mode,
    pub zero_copy: ZeroCopy,
    /// Of each queue.
    pub frames: u32,
    pub cores: Option<Vec<u32>>,
    pub busy: bool,
    pub listeners: Vec<(String, SocketAddr)>,
    pub metrics: Option<SocketAddr>,
    /// Addresses of listeners that the kernel does not take for its own.
    pub not_here: Vec<IpAddr>,
}

impl Wanted {
    /// Looks into the configuration, and for its addresses into the kernel's routes.
    pub fn of(target: &Target<'_>) -> io::Result<Self> {
        let interface = match target.config {
            Some(c) => c.interface.clone(),
            None => InterfaceConfig::default(),
        };
        let listeners = target.config.map(listeners).unwrap_or_default();
        let name = target.interface.map(str::to_owned);
        let configured = target.config.map(|c| c.interface.name.clone());
        Ok(Self {
            not_here: not_here(&listeners)?,
            interface: name.or(configured),
            queues: match interface.queues {
                Queues::All => None,
                Queues::List(list) => Some(list),
            },
            mode: interface.mode,
            zero_copy: interface.zero_copy,
            frames: interface.frames,
            cores: target.config.and_then(|c| match &c.worker.cores {
                Cores::Auto => None,
                Cores::List(list) => Some(list.clone()),
            }),
            busy: target.config.is_some_and(|c| c.worker.idle == Idle::Busy),
            listeners,
            metrics: target.config.map_or(MetricsConfig { listen: None }, |c| c.metrics.clone()).listen,
        })
    }

    /// The queues that are served, of so many.
    pub fn served(&self, rx_queues: u32) -> Vec<u32> {
        self.queues.clone().unwrap_or_else(|| (0..rx_queues).collect())
    }
}

fn listeners(c: &Config) -> Vec<(String, SocketAddr)> {
    let each = |l: &crate::config::ListenerConfig| {
        let name = l.name.clone();
        l.addresses.iter().map(move |&a| (name.clone(), a)).collect::<Vec<_>>()
    };
    c.listeners.iter().flat_map(each).collect()
}

/// The addresses that the kernel would not deliver to this machine. One without a route is none of its own either.
fn not_here(listeners: &[(String, SocketAddr)]) -> io::Result<Vec<IpAddr>> {
    let mut netlink = Netlink::open()?;
    let mut ips: Vec<IpAddr> =
        listeners.iter().map(|(_, at)| at.ip()).filter(|ip| !ip.is_unspecified()).collect();
    ips.sort_unstable();
    ips.dedup();
    ips.retain(|&ip| !netlink.hop(ip).is_ok_and(|hop| hop.local));
    Ok(ips)
}
