//! A raw socket on an interface: whole frames in, whole frames out.

#![allow(unsafe_code)]

use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, SockaddrLike, bind, recv, send, socket,
};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Bytes of the kernel's receive buffer: a queue of a few milliseconds at the speeds that a relay is for. Too little, and
/// a relay that has lost its core for a moment loses frames that no impairment asked for.
const RECEIVE_BUFFER: libc::c_int = 32 << 20;
/// `PACKET_IGNORE_OUTGOING` of `linux/if_packet.h`, which libc does not have.
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;

/// A packet socket that sees every frame that an interface receives, and none that it sends.
pub(super) struct PacketSocket(OwnedFd);

impl PacketSocket {
    /// On the interface of that index in the network namespace of the calling thread. Needs `CAP_NET_RAW`.
    pub(super) fn open(index: u32) -> io::Result<Self> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        // Of no protocol until it is bound: nothing from another interface may come in before.
        let fd = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
        set(&fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECEIVE_BUFFER)?;
        set(&fd, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)?;
        // SAFETY: all zeroes is a value of this plain C struct.
        let mut at: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        at.sll_family = libc::AF_PACKET as u16;
        // In network byte order.
        at.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        at.sll_ifindex = index.cast_signed();
        let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the pointer is to a `sockaddr_ll` of that length, which is copied.
        let at = unsafe { LinkAddr::from_raw((&raw const at).cast(), Some(len)) };
        bind(fd.as_raw_fd(), &at.ok_or(io::ErrorKind::InvalidInput)?)?;
        Ok(Self(fd))
    }

    /// The next frame that was received, if there is one. A frame that is longer than the buffer is cut.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match recv(self.0.as_raw_fd(), buffer, MsgFlags::empty()) {
            Ok(n) => Ok(Some(n)),
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Sends a frame. Returns whether the interface took it.
    pub(super) fn send(&self, frame: &[u8]) -> io::Result<bool> {
        match send(self.0.as_raw_fd(), frame, MsgFlags::empty()) {
            Ok(_) => Ok(true),
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::ENOBUFS | nix::errno::Errno::EINTR) => {
                Ok(false)
            }
            Err(e) => Err(e.into()),
        }
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn set(fd: &OwnedFd, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the pointer is to an int of that length, which is copied.
    let done = unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const value).cast(), len) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
