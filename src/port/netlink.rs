//! A synchronous rtnetlink socket for set-up and the control plane: links, addresses, attached XDP programs, and where the
//! kernel would send a packet.
//!
//! Requests are few and none is made by a worker, so they block; nothing here needs a runtime. The
//! socket belongs to the network namespace of the thread that opened it, for good: an owner that detaches a
//! program at its end reaches the right interface from whatever thread and namespace it is dropped in.
//!
//! Syscalls: socket, bind, send, recv. Changing anything needs `CAP_NET_ADMIN`.

use crate::wire::MacAddr;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope};
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How long the kernel may take to resolve a neighbour: it asks three times, a second apart.
const RESOLVED: Duration = Duration::from_secs(3);
/// Between looks whether it has.
const POLL: Duration = Duration::from_millis(2);

/// Where the kernel would send a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hop {
    /// Index of the interface.
    pub(crate) index: u32,
    /// The neighbour on it: a gateway, or the destination itself.
    pub(crate) neighbour: IpAddr,
    /// The destination is an address of this machine's own.
    pub(crate) local: bool,
}

/// An rtnetlink socket of one network namespace.
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Opens a socket in the network namespace of the calling thread.
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// One request and its answer: the messages before the acknowledgment.
    fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.sequence_number = self.sequence;
        header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;

        let mut answers = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            let mut rest = &datagram[..];
            while !rest.is_empty() {
                let answer =
                    NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(io::Error::other)?;
                // A length that does not move on would turn this into an endless loop; netlink aligns to 4.
                let taken = (answer.header.length as usize).max(16).next_multiple_of(4);
                rest = rest.get(taken..).unwrap_or_default();
                if answer.header.sequence_number != self.sequence {
                    continue;
                }
                match answer.payload {
                    NetlinkPayload::Error(e) if e.code.is_none() => return Ok(answers),
                    NetlinkPayload::Error(e) => return Err(e.to_io()),
                    NetlinkPayload::InnerMessage(m) => answers.push(m),
                    // The end of a list.
                    NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::Overrun(_) => return Err(io::Error::other("netlink overrun")),
                    _ => {}
                }
            }
        }
    }

    /// The link of that name. `ENODEV` when there is none.
    pub(crate) fn link_by_name(&mut self, name: &str) -> io::Result<LinkMessage> {
        let mut ask = LinkMessage::default();
        ask.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.link(ask)
    }

    /// The link of that index. `ENODEV` when there is none.
    pub(crate) fn link_by_index(&mut self, index: u32) -> io::Result<LinkMessage> {
        let mut ask = LinkMessage::default();
        ask.header.index = index;
        self.link(ask)
    }

    fn link(&mut self, ask: LinkMessage) -> io::Result<LinkMessage> {
        let answers = self.request(RouteNetlinkMessage::GetLink(ask), 0)?;
        answers
            .into_iter()
            .find_map(|m| match m {
                RouteNetlinkMessage::NewLink(link) => Some(link),
                _ => None,
            })
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
    }

    /// All links of this network namespace.
    pub(crate) fn links(&mut self) -> io::Result<Vec<LinkMessage>> {
        let ask = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let answers = self.request(ask, NLM_F_DUMP)?;
        Ok(answers
            .into_iter()
            .filter_map(|m| match m {
                RouteNetlinkMessage::NewLink(link) => Some(link),
                _ => None,
            })
            .collect())
    }

    /// Changes a link: state, attributes, attached program.
    pub(crate) fn set_link(&mut self, link: LinkMessage) -> io::Result<()> {
        self.request(RouteNetlinkMessage::SetLink(link), 0).map(drop)
    }

    /// Creates a link.
    pub(crate) fn add_link(&mut self, link: LinkMessage) -> io::Result<()> {
        self.request(RouteNetlinkMessage::NewLink(link), NLM_F_CREATE | NLM_F_EXCL).map(drop)
    }

    /// Adds an address to a link, usable at once (no duplicate address detection).
    pub(crate) fn add_address(&mut self, index: u32, ip: IpAddr, prefix_len: u8) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.index = index;
        message.header.prefix_len = prefix_len;
        message.header.scope = AddressScope::Universe;
        message.header.family = family(ip);
        if ip.is_ipv6() {
            message.header.flags |= AddressHeaderFlags::Nodad;
        }
        message.attributes.push(AddressAttribute::Local(ip));
        message.attributes.push(AddressAttribute::Address(ip));
        self.request(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL).map(drop)
    }

    /// Where the kernel would send a packet to `to`. `ENETUNREACH` when nowhere.
    pub(crate) fn hop(&mut self, to: IpAddr) -> io::Result<Hop> {
        let mut ask = RouteMessage::default();
        ask.header.address_family = family(to);
        ask.header.destination_prefix_length = if to.is_ipv4() { 32 } else { 128 };
        ask.attributes.push(RouteAttribute::Destination(to.into()));
        let answers = self.request(RouteNetlinkMessage::GetRoute(ask), 0)?;
        let route = answers.into_iter().find_map(|m| match m {
            RouteNetlinkMessage::NewRoute(route) => Some(route),
            _ => None,
        });
        let unreachable = || io::Error::from_raw_os_error(libc::ENETUNREACH);
        let route = route.ok_or_else(unreachable)?;
        let mut hop = Hop { index: 0, neighbour: to, local: route.header.kind == RouteType::Local };
        for attribute in route.attributes {
            match attribute {
                RouteAttribute::Oif(index) => hop.index = index,
                RouteAttribute::Gateway(RouteAddress::Inet(ip)) => hop.neighbour = ip.into(),
                RouteAttribute::Gateway(RouteAddress::Inet6(ip)) => hop.neighbour = ip.into(),
                _ => {}
            }
        }
        if hop.index == 0 { Err(unreachable()) } else { Ok(hop) }
    }

    /// The hardware address of a neighbour: what the kernel knows, or finds out when it is asked to.
    pub(crate) fn resolve(&mut self, hop: Hop) -> io::Result<Option<MacAddr>> {
        let until = Instant::now() + RESOLVED;
        let known = self.neighbour(hop)?;
        // Also of one that is known: no packet of the kernel's own keeps the entry fresh.
        self.solicit(hop)?;
        if known.is_some() {
            return Ok(known);
        }
        loop {
            match self.neighbour(hop)? {
                None if Instant::now() < until => std::thread::sleep(POLL),
                answer => return Ok(answer),
            }
        }
    }

    /// The hardware address of a neighbour, if the kernel knows it.
    pub(crate) fn neighbour(&mut self, hop: Hop) -> io::Result<Option<MacAddr>> {
        let answers = match self.request(RouteNetlinkMessage::GetNeighbour(neighbour(hop)), 0) {
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
            answers => answers?,
        };
        let valid = |m: &NeighbourMessage| {
            !matches!(
                m.header.state,
                NeighbourState::Failed | NeighbourState::Incomplete | NeighbourState::None
            )
        };
        Ok(answers.into_iter().find_map(|m| match m {
            RouteNetlinkMessage::NewNeighbour(m) if valid(&m) => {
                m.attributes.into_iter().find_map(|a| match a {
                    NeighbourAttribute::LinkLayerAddress(bytes) => bytes.try_into().ok().map(MacAddr),
                    _ => None,
                })
            }
            _ => None,
        }))
    }

    /// Has the kernel ask a neighbour for its hardware address, or whether it still is there, without sending it anything
    /// else.
    pub(crate) fn solicit(&mut self, hop: Hop) -> io::Result<()> {
        let mut message = neighbour(hop);
        message.header.flags = NeighbourFlags::Use;
        self.request(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE).map(drop)
    }
}

fn family(ip: IpAddr) -> AddressFamily {
    match ip {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

/// What names a neighbour.
fn neighbour(hop: Hop) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(hop.neighbour);
    message.header.ifindex = hop.index;
    message.attributes.push(NeighbourAttribute::Destination(match hop.neighbour {
        IpAddr::V4(ip) => NeighbourAddress::Inet(ip),
        IpAddr::V6(ip) => NeighbourAddress::Inet6(ip),
    }));
    message
}
