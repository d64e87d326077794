//! Headers to bytes: [`Emit`].
//!
//! The payload lies in the buffer first; the headers are built as values, summed, and written before it. Nothing is
//! read back from where the headers go, so the buffer may be the very frame that is being answered.

use super::checksum::{PROTO_TCP, pseudo, sum};
use super::ethernet::{EthernetHeader, HEADER_LEN as ETHERNET_LEN, TAG_LEN, VlanTag};
use super::ipv4::{DONT_FRAGMENT, Ipv4Header};
use super::ipv6::Ipv6Header;
use super::options::{self, options_len};
use super::parse::{TCP_HEADER_LEN, TcpHeader};
use super::{Header, L2, Tuple, ipv4, ipv6};
use zerocopy::IntoBytes;

/// A segment to be written. The family is that of the tuple's addresses.
#[derive(Clone, Copy, Debug)]
pub struct Emit<'a> {
    /// Link layer; `src` is this host. The tags of `vlan` are written as they were.
    pub l2: L2,
    /// `local` is the source, `remote` the destination.
    pub tuple: &'a Tuple,
    /// TCP header; SACK blocks beyond what fits are left out.
    pub header: &'a Header,
    /// IPv4 time to live or IPv6 hop limit.
    pub ttl: u8,
    /// ECN field of the IP header; the low 2 bits count. The DSCP is 0.
    pub ecn: u8,
    /// IPv4 identification (RFC 6864); IPv6 has none.
    pub ip_id: u16,
}

impl Emit<'_> {
    /// Bytes of all headers: Ethernet, tag, IP, TCP with padded options. The payload goes at this offset.
    #[must_use]
    pub fn headers_len(&self) -> usize {
        self.link_len() + self.ip_len() + TCP_HEADER_LEN + options_len(&self.header.options)
    }

    const fn link_len(&self) -> usize {
        match self.l2.vlan {
            Some(vlan) => ETHERNET_LEN + vlan.count() * TAG_LEN,
            None => ETHERNET_LEN,
        }
    }

    fn ip_len(&self) -> usize {
        if self.tuple.is_v4() { ipv4::HEADER_LEN } else { ipv6::HEADER_LEN }
    }

    /// Writes all headers before the `payload_len` bytes of payload that lie at [`Emit::headers_len`], with both
    /// checksums finished, and returns the frame's length. Short frames are not padded: that is the device's part.
    ///
    /// `None`, with nothing written, when the buffer is too small, the packet is beyond 65,535 bytes, or the tuple's
    /// ends are of different families.
    #[must_use]
    pub fn emit(&self, buf: &mut [u8], payload_len: usize) -> Option<usize> {
        if self.tuple.local.addr.is_v4() != self.tuple.remote.addr.is_v4() {
            return None;
        }
        let (option_bytes, options_len) = options::write(&self.header.options);
        let option_bytes = option_bytes.get(..options_len)?;
        let tcp_len = payload_len.checked_add(TCP_HEADER_LEN + options_len)?;
        let ip_len = u16::try_from(self.ip_len().checked_add(tcp_len)?).ok()?;
        let frame_len = self.link_len() + usize::from(ip_len);
        let frame = buf.get_mut(..frame_len)?;
        let (head, payload) = frame.split_at_mut_checked(frame_len - payload_len)?;
        let (link, head) = head.split_at_mut_checked(self.link_len())?;
        let (ip, tcp) = head.split_at_mut_checked(self.ip_len())?;

        let header = self.tcp_header(option_bytes, payload, tcp_len as u16);
        header.write_to_prefix(tcp).ok()?;
        option_bytes.write_to_suffix(tcp).ok()?;
        self.write_ip(ip, tcp_len as u16)?;
        self.write_link(link)?;
        Some(frame_len)
    }

    /// The fixed TCP header with its checksum over everything.
    fn tcp_header(&self, option_bytes: &[u8], payload: &[u8], tcp_len: u16) -> TcpHeader {
        let mut tcp = TcpHeader {
            src_port: self.tuple.local.port.into(),
            dst_port: self.tuple.remote.port.into(),
            seq: self.header.seq.raw().into(),
            ack: self.header.ack.raw().into(),
            offset: (((TCP_HEADER_LEN + option_bytes.len()) / 4) << 4) as u8,
            flags: self.header.flags.bits(),
            window: self.header.window.into(),
            checksum: 0.into(),
            urgent: 0.into(),
        };
        let (src, dst) = (&self.tuple.local.addr, &self.tuple.remote.addr);
        // Header and options are whole words, so every part begins at an even offset.
        let total = pseudo(src, dst, PROTO_TCP, u32::from(tcp_len))
            .add_bytes(tcp.as_bytes())
            .add_bytes(option_bytes)
            .add_bytes(payload);
        tcp.checksum = total.finish().into();
        tcp
    }

    fn write_ip(&self, to: &mut [u8], tcp_len: u16) -> Option<()> {
        let (src, dst) = (&self.tuple.local.addr, &self.tuple.remote.addr);
        if let (Some(src), Some(dst)) = (src.as_v4(), dst.as_v4()) {
            let mut ip = Ipv4Header {
                version_ihl: 0x45,
                tos: self.ecn & 0x03,
                total_len: tcp_len.checked_add(ipv4::HEADER_LEN as u16)?.into(),
                id: self.ip_id.into(),
                fragment: DONT_FRAGMENT.into(),
                ttl: self.ttl,
                protocol: PROTO_TCP,
                checksum: 0.into(),
                src,
                dst,
            };
            ip.checksum = sum(ip.as_bytes()).finish().into();
            ip.write_to(to).ok()
        } else {
            let class_flow = u32::from(self.ecn & 0x03) << 20;
            let ip = Ipv6Header {
                version_class_flow: (6 << 28 | class_flow).into(),
                payload_len: tcp_len.into(),
                next_header: PROTO_TCP,
                hop_limit: self.ttl,
                src: *src.octets(),
                dst: *dst.octets(),
            };
            ip.write_to(to).ok()
        }
    }

    fn write_link(&self, to: &mut [u8]) -> Option<()> {
        let ip = if self.tuple.is_v4() { ipv4::ETHERTYPE } else { ipv6::ETHERTYPE };
        // Each header announces what follows it.
        let follows = |i: usize| self.l2.vlan.and_then(|v| v.tags().nth(i)).map_or(ip, |tag| tag.ethertype);
        let header = EthernetHeader { dst: self.l2.dst.0, src: self.l2.src.0, ethertype: follows(0).into() };
        let mut rest = header.write_to_prefix(to).ok().and_then(|()| to.get_mut(ETHERNET_LEN..))?;
        for (i, tag) in self.l2.vlan.iter().flat_map(|v| v.tags()).enumerate() {
            let tag = VlanTag { tci: tag.tci.into(), ethertype: follows(i + 1).into() };
            tag.write_to_prefix(rest).ok()?;
            rest = rest.get_mut(TAG_LEN..)?;
        }
        Some(())
    }
}
