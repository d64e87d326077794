//! What a driver tells of itself by the ethtool ioctl: its name, queues, offloads, and how it spreads flows over queues.
//!
//! Every answer is optional for a driver; `EOPNOTSUPP` is what one says that has none. System calls: socket, ioctl.
//! Nothing is changed and no privilege is needed. The socket looks into the network namespace of the calling thread.

#![allow(unsafe_code)]

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// `SIOCETHTOOL` of linux/sockios.h.
const SIOCETHTOOL: libc::c_ulong = 0x8946;
// Of linux/ethtool.h.
const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GFEATURES: u32 = 0x3a;
const ETHTOOL_GCHANNELS: u32 = 0x3c;
const ETHTOOL_GRSSH: u32 = 0x46;
/// The string set of the offloads' names.
const ETH_SS_FEATURES: u32 = 4;
/// Bytes of a name in a string set.
const ETH_GSTRING_LEN: usize = 32;
/// Bounds of what a driver may claim to have; the kernel has some 70 features, and tables of 2048 entries at most.
const MAX_FEATURES: u32 = 1024;
const MAX_INDIRECTION: u32 = 1 << 16;
const MAX_KEY_BYTES: u32 = 1024;

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
struct ChannelInfo {
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

// The kernel writes this many bytes: linux/ethtool.h.
const _: () = assert!(size_of::<DriverInfo>() == 196);
const _: () = assert!(size_of::<ChannelInfo>() == 36);

/// Queues in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Channels {
    /// That receive.
    pub rx: u32,
    /// That transmit.
    pub tx: u32,
}

/// How a NIC spreads flows over its queues.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rss {
    /// The queue of each hash value; empty when the driver does not tell.
    pub indirection: Vec<u32>,
    /// The hash's key; empty when the driver does not tell.
    pub key: Vec<u8>,
}

/// The ethtool ioctl on one interface.
pub(crate) struct Ethtool {
    socket: OwnedFd,
    name: [libc::c_char; libc::IFNAMSIZ],
}

impl Ethtool {
    /// For an interface in the network namespace of the calling thread.
    pub(crate) fn open(interface: &str) -> io::Result<Self> {
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

    /// Runs the ethtool command whose number is the first field of what `data` points at.
    ///
    /// # Safety
    /// `data` must point at the structure that linux/ethtool.h lays down for its `cmd`, with as much room behind it as
    /// its own lengths say.
    unsafe fn run(&self, data: *mut libc::c_void) -> io::Result<()> {
        let mut request = libc::ifreq {
            ifr_name: self.name,
            ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: data.cast() },
        };
        // SAFETY: `request` lives through the call, and by this function's contract so does what it points at, with
        // room for all that the kernel writes.
        let ret = unsafe { libc::ioctl(self.socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
        if ret < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// The driver's name.
    pub(crate) fn driver(&self) -> io::Result<String> {
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
        unsafe { self.run((&raw mut info).cast()) }?;
        Ok(text(&info.driver))
    }

    /// The queues in use.
    pub(crate) fn channels(&self) -> io::Result<Channels> {
        let mut info = ChannelInfo { cmd: ETHTOOL_GCHANNELS, ..ChannelInfo::default() };
        // SAFETY: `ChannelInfo` is the structure of ETHTOOL_GCHANNELS.
        unsafe { self.run((&raw mut info).cast()) }?;
        Ok(Channels {
            rx: info.rx_count.saturating_add(info.combined_count),
            tx: info.tx_count.saturating_add(info.combined_count),
        })
    }

    /// The offloads by the names that `ethtool -k` shows, and whether each is on.
    pub(crate) fn features(&self) -> io::Result<BTreeMap<String, bool>> {
        // struct ethtool_sset_info: cmd, reserved, a mask of 64 bits, and one count for its one bit.
        let mut set = [ETHTOOL_GSSET_INFO, 0, 1 << ETH_SS_FEATURES, 0, 0];
        // SAFETY: the mask asks for one set, and there is room for one count.
        unsafe { self.run(set.as_mut_ptr().cast()) }?;
        // A set that the kernel does not know is taken out of the mask.
        let count = if set[2] == 0 { 0 } else { set[4] };
        if count == 0 || count > MAX_FEATURES {
            return Err(io::ErrorKind::Unsupported.into());
        }
        // struct ethtool_gstrings: cmd, set, count, and the names.
        let words = count as usize * ETH_GSTRING_LEN / 4;
        let mut names = vec![0u32; 3 + words];
        names[..3].copy_from_slice(&[ETHTOOL_GSTRINGS, ETH_SS_FEATURES, count]);
        // SAFETY: there is room for `count` names of 32 bytes behind the three words.
        unsafe { self.run(names.as_mut_ptr().cast()) }?;
        // struct ethtool_gfeatures: cmd, blocks, and of each block what is available, requested, active, fixed.
        let blocks = count.div_ceil(32);
        let mut states = vec![0u32; 2 + 4 * blocks as usize];
        states[..2].copy_from_slice(&[ETHTOOL_GFEATURES, blocks]);
        // SAFETY: there is room for `blocks` blocks of four words behind the two words.
        unsafe { self.run(states.as_mut_ptr().cast()) }?;
        let bytes: Vec<u8> = names[3..].iter().flat_map(|w| w.to_ne_bytes()).collect();
        let features = bytes.chunks_exact(ETH_GSTRING_LEN).enumerate().map(|(i, name)| {
            let active = states[2 + 4 * (i / 32) + 2];
            (text(name), active >> (i % 32) & 1 == 1)
        });
        Ok(features.filter(|(name, _)| !name.is_empty()).collect())
    }

    /// How flows are spread over queues.
    pub(crate) fn rss(&self) -> io::Result<Rss> {
        // struct ethtool_rxfh: cmd, context, sizes of table and key, hash function, reserved; then table and key.
        const HEAD: usize = 6;
        let mut head = [ETHTOOL_GRSSH, 0, 0, 0, 0, 0];
        // SAFETY: both sizes are zero, so the kernel writes the sizes alone.
        unsafe { self.run(head.as_mut_ptr().cast()) }?;
        let (entries, key_bytes) = (head[2], head[3]);
        if entries > MAX_INDIRECTION || key_bytes > MAX_KEY_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let table = entries as usize;
        let mut all = vec![0u32; HEAD + table + (key_bytes as usize).div_ceil(4)];
        all[..4].copy_from_slice(&[ETHTOOL_GRSSH, 0, entries, key_bytes]);
        // SAFETY: there is room for the table and the key, of the sizes that the structure names.
        unsafe { self.run(all.as_mut_ptr().cast()) }?;
        let key = all[HEAD + table..].iter().flat_map(|w| w.to_ne_bytes()).take(key_bytes as usize);
        Ok(Rss { indirection: all[HEAD..HEAD + table].to_vec(), key: key.collect() })
    }
}

/// Bytes up to the first zero.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_offloads_and_neither_queues_nor_a_hash() {
        let lo = Ethtool::open("lo").unwrap();
        let features = lo.features().unwrap();
        assert!(features.len() > 30, "{features:?}");
        // Loopback's checksums are never made, and that is fixed in the kernel.
        assert_eq!(features.get("tx-checksum-ip-generic"), Some(&true), "{features:?}");
        assert!(features.contains_key("rx-gro") && features.contains_key("rx-lro"), "{features:?}");
        assert!(lo.channels().is_err() && lo.rss().is_err());
    }

    #[test]
    fn an_interface_that_is_not_there_is_enodev() {
        let e = Ethtool::open("fw-none").unwrap().features().unwrap_err();
        assert_eq!(e.raw_os_error(), Some(libc::ENODEV), "{e}");
        assert!(Ethtool::open("a-name-longer-than-an-interface-can-have").is_err());
    }
}
