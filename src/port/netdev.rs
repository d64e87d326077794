//! What a driver's XDP can do, as Linux 6.3 and later tell by generic netlink's family `netdev`.
//!
//! Two requests, each of one attribute: the family's number by its name, then the device's features by its index. System
//! calls: socket, bind, send, recv. No privilege. In the network namespace of the calling thread.

use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};
use std::io;

/// The controller's own family number, and its request and attribute: linux/genetlink.h.
const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
/// linux/netdev.h.
const FAMILY: &[u8] = b"netdev\0";
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;

/// linux/netlink.h.
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_HEADER: usize = 16;
const GENL_HEADER: usize = 4;
/// The two upper bits of an attribute's type are flags.
const NLA_TYPE_MASK: u16 = 0x3fff;

/// What a driver's XDP can do: `enum netdev_xdp_act` of linux/netdev.h.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct XdpFeatures(pub u64);

impl XdpFeatures {
    /// Programs run in the driver, and can pass, drop and send back.
    pub(crate) const fn basic(self) -> bool {
        self.0 & 1 != 0
    }
    /// Programs in the driver can redirect: into an `AF_XDP` socket too.
    pub(crate) const fn redirect(self) -> bool {
        self.0 & 1 << 1 != 0
    }
    /// Frames of `AF_XDP` sockets are shared with the device.
    pub(crate) const fn zero_copy(self) -> bool {
        self.0 & 1 << 3 != 0
    }
}

/// What the driver of the interface of this index can do; `None` when this kernel does not tell (before 6.3).
pub(crate) fn xdp_features(index: u32) -> io::Result<Option<XdpFeatures>> {
    let mut socket = Socket::new(NETLINK_GENERIC)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let asked = request(&socket, GENL_ID_CTRL, CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_NAME, FAMILY);
    let family = match asked {
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
        answer => attribute(&answer?, CTRL_ATTR_FAMILY_ID).and_then(number),
    };
    let Some(family) = family else { return Ok(None) };
    // A family's number is a u16 in the protocol.
    let answer =
        request(&socket, family as u16, NETDEV_CMD_DEV_GET, NETDEV_A_DEV_IFINDEX, &index.to_ne_bytes())?;
    Ok(attribute(&answer, NETDEV_A_DEV_XDP_FEATURES).and_then(number).map(XdpFeatures))
}

/// Sends a request with one attribute. Returns the attributes of the answer.
fn request(socket: &Socket, family: u16, command: u8, kind: u16, value: &[u8]) -> io::Result<Vec<u8>> {
    let attribute_len = 4 + value.len();
    let len = NLMSG_HEADER + GENL_HEADER + attribute_len.next_multiple_of(4);
    let mut bytes = Vec::with_capacity(len);
    bytes.extend((len as u32).to_ne_bytes());
    bytes.extend(family.to_ne_bytes());
    bytes.extend(NLM_F_REQUEST.to_ne_bytes());
    // Sequence number and port: one request at a time on a socket of its own needs neither.
    bytes.extend([0; 8]);
    bytes.extend([command, 1, 0, 0]);
    bytes.extend((attribute_len as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(len, 0);
    socket.send(&bytes, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let short = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let kind = answer.get(4..6).and_then(|b| b.try_into().ok()).map(u16::from_ne_bytes).ok_or_else(short)?;
    if kind == NLMSG_ERROR {
        let code = answer.get(NLMSG_HEADER..NLMSG_HEADER + 4).and_then(|b| b.try_into().ok());
        return Err(io::Error::from_raw_os_error(-code.map(i32::from_ne_bytes).ok_or_else(short)?));
    }
    answer.get(NLMSG_HEADER + GENL_HEADER..).map(<[u8]>::to_vec).ok_or_else(short)
}

/// The value of the first attribute of a kind.
fn attribute(mut bytes: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let len = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let found = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & NLA_TYPE_MASK;
        // A length within its own header would never end.
        let value = bytes.get(4..len)?;
        if found == kind {
            return Some(value);
        }
        bytes = bytes.get(len.next_multiple_of(4)..)?;
    }
}

/// An unsigned number of 2, 4 or 8 bytes.
fn number(value: &[u8]) -> Option<u64> {
    match value.len() {
        2 => Some(u16::from_ne_bytes(value.try_into().ok()?).into()),
        4 => Some(u32::from_ne_bytes(value.try_into().ok()?).into()),
        8 => Some(u64::from_ne_bytes(value.try_into().ok()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_and_nonsense_ends() {
        let two = [8, 0, 1, 0, 7, 0, 0, 0, 6, 0, 2, 0x40, 9, 0, 0, 0];
        assert_eq!(attribute(&two, 1).and_then(number), Some(7));
        assert_eq!(attribute(&two, 2).and_then(number), Some(9));
        assert_eq!(attribute(&two, 3), None);
        // Lengths of zero, and beyond the end.
        assert_eq!(attribute(&[0, 0, 1, 0], 2), None);
        assert_eq!(attribute(&[200, 0, 1, 0, 1], 1), None);
        assert_eq!(number(&[1, 2, 3]), None);
    }

    #[test]
    fn loopback_has_no_xdp_of_its_own() {
        let index = crate::port::link::LinkFacts::read("lo").unwrap().index;
        // A kernel before 6.3 does not tell.
        if let Some(features) = xdp_features(index).unwrap() {
            assert!(!features.basic() && !features.zero_copy(), "{features:?}");
        }
    }

    #[test]
    fn a_device_that_is_not_there_is_an_error() {
        match xdp_features(u32::MAX >> 1) {
            Ok(None) => {}
            Ok(Some(features)) => panic!("{features:?}"),
            Err(e) => assert_eq!(e.raw_os_error(), Some(libc::ENODEV), "{e}"),
        }
    }
}
