//! Attaching an XDP program to an interface by rtnetlink, and finding out what is attached.
//!
//! Not by a BPF link: a link's program is detached when its process dies, and the kernel would answer the peers
//! of a crashed process with RST before a lease could do anything about it. A program attached by netlink stays,
//! needs no pinning file system, is shown by `ip link`, and can be taken away by `ip link set dev X xdp off`.

use crate::port::netlink::Netlink;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage, LinkXdp};
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Where in the receive path the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachMode {
    /// In the driver, before a socket buffer is made.
    Native,
    /// In the network stack, on a socket buffer: works with every driver, at a cost.
    Generic,
}

impl AttachMode {
    /// The name as reports and labels have it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }

    /// The keyword of ip-link(8).
    #[must_use]
    pub const fn ip_keyword(self) -> &'static str {
        match self {
            Self::Native => "xdpdrv",
            Self::Generic => "xdpgeneric",
        }
    }

    /// The flag `XDP_FLAGS_DRV_MODE` or `XDP_FLAGS_SKB_MODE` of `linux/if_link.h`.
    const fn flag(self) -> u32 {
        match self {
            Self::Native => 1 << 2,
            Self::Generic => 1 << 1,
        }
    }
}

impl fmt::Display for AttachMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `XDP_FLAGS_UPDATE_IF_NOEXIST`: fail when a program is attached.
const UPDATE_IF_NOEXIST: u32 = 1 << 0;
/// `XDP_FLAGS_REPLACE`: fail unless the program attached is the expected one.
const REPLACE: u32 = 1 << 4;

/// The programs attached to an interface: kernel-wide program id and mode. An offloaded one is not listed; it
/// runs beside.
pub(crate) fn attached(netlink: &mut Netlink, index: u32) -> io::Result<Vec<(AttachMode, u32)>> {
    let link = netlink.link_by_index(index)?;
    let mut found = Vec::new();
    for xdp in link.attributes.iter().filter_map(|a| match a {
        LinkAttribute::Xdp(xdp) => Some(xdp),
        _ => None,
    }) {
        for nla in xdp {
            match nla {
                LinkXdp::DrvProgId(id) => found.push((AttachMode::Native, *id)),
                LinkXdp::SkbProgId(id) => found.push((AttachMode::Generic, *id)),
                _ => {}
            }
        }
    }
    Ok(found)
}

/// Attaches `program`, in the place of `old` when there is one, in one step.
pub(super) fn attach(
    netlink: &mut Netlink,
    index: u32,
    mode: AttachMode,
    program: BorrowedFd<'_>,
    old: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    set(netlink, index, mode, program.as_raw_fd(), old)
}

/// Detaches `program`, and only that: when somebody else replaced it, theirs stays and `EEXIST` is returned.
pub(super) fn detach(
    netlink: &mut Netlink,
    index: u32,
    mode: AttachMode,
    program: BorrowedFd<'_>,
) -> io::Result<()> {
    set(netlink, index, mode, -1, Some(program))
}

fn set(
    netlink: &mut Netlink,
    index: u32,
    mode: AttachMode,
    fd: i32,
    expected: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut xdp = vec![LinkXdp::Fd(fd)];
    match expected {
        Some(old) => {
            xdp.push(LinkXdp::Flags(mode.flag() | REPLACE));
            // A descriptor of an open program is not negative.
            xdp.push(LinkXdp::ExpectedFd(old.as_raw_fd().cast_unsigned()));
        }
        None => xdp.push(LinkXdp::Flags(mode.flag() | UPDATE_IF_NOEXIST)),
    }
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.attributes.push(LinkAttribute::Xdp(xdp));
    netlink.set_link(link)
}
