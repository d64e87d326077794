//! What is to be known about a network interface before its queues are bound.
//!
//! Index, MAC address and MTU come by rtnetlink; driver name and channel counts by the ethtool ioctl. Both look
//! into the network namespace of the calling thread, which /sys does not (it shows the namespace it was mounted
//! in). No privilege is needed.

use super::ethtool::Ethtool;
use super::netlink::Netlink;
use crate::wire::MacAddr;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use std::io;

/// Facts about an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkFacts {
    /// Name.
    pub name: String,
    /// Index in this network namespace.
    pub index: u32,
    /// Hardware address; zeros when it has none of 6 bytes.
    pub mac: MacAddr,
    /// MTU in bytes: the largest IP packet.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub up: bool,
    /// Driver name as ethtool tells it; empty when the driver does not say.
    pub driver: String,
    /// Receive queues in use.
    pub rx_queues: u32,
    /// Transmit queues in use.
    pub tx_queues: u32,
}

impl LinkFacts {
    /// Reads the facts about the interface `name`.
    ///
    /// # Errors
    /// `ENODEV` when there is no such interface in the network namespace of the calling thread.
    pub fn read(name: &str) -> io::Result<Self> {
        Self::of(&Netlink::open()?.link_by_name(name)?, name)
    }

    /// The facts about a link that was asked for.
    pub(crate) fn of(link: &LinkMessage, name: &str) -> io::Result<Self> {
        let mut facts = Self {
            name: name.to_owned(),
            index: link.header.index,
            mac: MacAddr::default(),
            mtu: 0,
            up: link.header.flags.contains(LinkFlags::Up),
            driver: String::new(),
            rx_queues: 1,
            tx_queues: 1,
        };
        for attribute in &link.attributes {
            match attribute {
                LinkAttribute::Address(mac) => {
                    facts.mac = MacAddr(mac.as_slice().try_into().unwrap_or_default());
                }
                LinkAttribute::Mtu(mtu) => facts.mtu = *mtu,
                LinkAttribute::NumRxQueues(n) => facts.rx_queues = *n,
                LinkAttribute::NumTxQueues(n) => facts.tx_queues = *n,
                _ => {}
            }
        }
        let ethtool = Ethtool::open(name)?;
        // Both are optional for a driver: loopback, for one, knows neither.
        if let Ok(driver) = ethtool.driver() {
            facts.driver = driver;
        }
        if let Ok(channels) = ethtool.channels() {
            (facts.rx_queues, facts.tx_queues) = (channels.rx, channels.tx);
        }
        Ok(facts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_known_without_privileges() {
        let lo = LinkFacts::read("lo").unwrap();
        assert_eq!(lo.name, "lo");
        assert!(lo.index > 0 && lo.mtu >= 1500 && lo.rx_queues >= 1, "{lo:?}");
    }

    #[test]
    fn an_unknown_name_is_enodev() {
        for name in ["fw-none", "a-name-longer-than-an-interface-can-have"] {
            let e = LinkFacts::read(name).unwrap_err();
            assert!(
                matches!(e.raw_os_error(), Some(libc::ENODEV | libc::ERANGE | libc::EINVAL)),
                "{name}: {e:?}"
            );
        }
    }
}
