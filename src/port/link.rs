//! What is to be known about a network interface before its queues are bound.
//!
//! Index, MAC address and MTU come by rtnetlink; driver name and channel counts by the ethtool ioctl. Both look
//! into the network namespace of the calling thread, which /sys does not (it shows the namespace it was mounted
//! in). No privilege is needed.

#![allow(unsafe_code)]

use super::netlink::Netlink;
use crate::wire::MacAddr;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

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
        let link = Netlink::open()?.link_by_name(name)?;
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
            facts.rx_queues = channels.rx_count + channels.combined_count;
            facts.tx_queues = channels.tx_count + channels.combined_count;
        }
        Ok(facts)
    }
}

/// `SIOCETHTOOL` of linux/sockios.h.
const SIOCETHTOOL: libc::c_ulong = 0x8946;
/// `ETHTOOL_GDRVINFO` of linux/ethtool.h.
const ETHTOOL_GDRVINFO: u32 = 0x03;
/// `ETHTOOL_GCHANNELS` of linux/ethtool.h.
const ETHTOOL_GCHANNELS: u32 = 0x3c;

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct DriverInfo {
    cmd: u32,
    driver: [u8; 32],
    version: [u8; 32],
    firmware: [u8; 32],
    bus: [u8; 32],
    erom: [u8; 32],
    reserved: [u8; 12],
    counts: [u32; 5],
}

/// `struct ethtool_channels`.
#[repr(C)]
#[derive(Default)]
struct Channels {
    cmd: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx_count: u32,
    tx_count: u32,
    other_count: u32,
    combined_count: u32,
}

struct Ethtool {
    socket: OwnedFd,
    name: [libc::c_char; libc::IFNAMSIZ],
}

impl Ethtool {
    fn open(interface: &str) -> io::Result<Self> {
        let mut name = [0; libc::IFNAMSIZ];
        if interface.len() >= name.len() {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        for (to, from) in name.iter_mut().zip(interface.bytes()) {
            *to = from.cast_signed();
        }
        let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        Ok(Self { socket, name })
    }

    /// Runs the ethtool command whose number is the first field of `data`.
    ///
    /// # Safety
    /// `data` must be the structure that linux/ethtool.h lays down for its `cmd`.
    unsafe fn run<T>(&self, data: &mut T) -> io::Result<()> {
        let mut request = libc::ifreq {
            ifr_name: self.name,
            ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: std::ptr::from_mut(data).cast() },
        };
        // SAFETY: `request` and what it points at live through the call, and by this function's contract the
        // kernel writes no more than `T` holds.
        let ret = unsafe { libc::ioctl(self.socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
        if ret < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    fn driver(&self) -> io::Result<String> {
        let mut info = DriverInfo {
            cmd: ETHTOOL_GDRVINFO,
            driver: [0; 32],
            version: [0; 32],
            firmware: [0; 32],
            bus: [0; 32],
            erom: [0; 32],
            reserved: [0; 12],
            counts: [0; 5],
        };
        // SAFETY: `DriverInfo` is the structure of ETHTOOL_GDRVINFO.
        unsafe { self.run(&mut info) }?;
        let end = info.driver.iter().position(|&b| b == 0).unwrap_or(info.driver.len());
        Ok(String::from_utf8_lossy(&info.driver[..end]).into_owned())
    }

    fn channels(&self) -> io::Result<Channels> {
        let mut channels = Channels { cmd: ETHTOOL_GCHANNELS, ..Channels::default() };
        // SAFETY: `Channels` is the structure of ETHTOOL_GCHANNELS.
        unsafe { self.run(&mut channels) }?;
        Ok(channels)
    }
}

// The kernel writes this many bytes: linux/ethtool.h.
const _: () = assert!(size_of::<DriverInfo>() == 196);
const _: () = assert!(size_of::<Channels>() == 36);

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
