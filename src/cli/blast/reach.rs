//! Whether the target can be reached from here, found out before anything is claimed: and if not, what is missing.

use super::args::BlastArgs;
use super::plan::Plan;
use crate::port::link::LinkFacts;
use crate::port::netlink::{Hop, Netlink};
use crate::wire::L2;
use std::io;
use std::net::IpAddr;

/// The way to the target.
#[derive(Clone, Debug)]
pub struct Reach {
    /// The interface.
    pub link: LinkFacts,
    /// Link layer of what is sent.
    pub l2: L2,
    /// What is to be looked at when nothing is answered.
    pub hint: String,
}

/// Looks for the way, in the network namespace of the calling thread.
///
/// # Errors
/// What is missing, and how to get it.
pub fn find(args: &BlastArgs, plan: &Plan) -> Result<Reach, String> {
    let interface = &args.interface;
    let link = LinkFacts::read(interface).map_err(|e| match e.raw_os_error() {
        Some(libc::ENODEV) => format!("there is no interface {interface}: see `ip link`"),
        _ => format!("{interface} cannot be asked: {e}"),
    })?;
    if !link.up {
        return Err(format!("{interface} is down: `ip link set {interface} up`"));
    }
    let mut netlink = Netlink::open().map_err(|e| format!("a netlink socket cannot be had: {e}"))?;
    let to = plan.target.ip();
    let hop = route(&mut netlink, to, &link)?;
    let asked = netlink.resolve(hop).map_err(|e| format!("{}: {e}", hop.neighbour))?;
    let dst = asked.ok_or_else(|| {
        let what = if to == hop.neighbour { "the target" } else { "the gateway to the target" };
        format!("{what}, {}, does not answer {} on {interface}", hop.neighbour, asks(to))
    })?;
    let hint = sources(&mut netlink, args, plan, &link)?;
    Ok(Reach { l2: L2 { src: link.mac, dst, vlan: None }, link, hint })
}

const fn asks(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "ARP" } else { "neighbour discovery" }
}

/// The kernel's way to the target, which must be this interface's.
fn route(netlink: &mut Netlink, to: IpAddr, link: &LinkFacts) -> Result<Hop, String> {
    let interface = &link.name;
    let hop = netlink.hop(to).map_err(|e| match e.raw_os_error() {
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH) => {
            format!("there is no route to {to}: `ip route add {to} dev {interface}`, or by way of a gateway")
        }
        _ => format!("the route to {to} cannot be asked for: {e}"),
    })?;
    if hop.local {
        return Err(format!("{to} is an address of this host: its traffic does not leave by {interface}"));
    }
    if hop.index != link.index {
        return Err(format!("the route to {to} does not lead over {interface}: see `ip route get {to}`"));
    }
    Ok(hop)
}

/// Whether answers to the sources can come back. What another host's routes say cannot be known from here: that is the
/// hint.
fn sources(netlink: &mut Netlink, args: &BlastArgs, plan: &Plan, link: &LinkFacts) -> Result<String, String> {
    let (net, interface) = (args.source_net, &link.name);
    let ends = [plan.addresses.first(), plan.addresses.last()];
    for ip in ends.into_iter().flatten().map(|a| a.to_ip()) {
        let on_link = match netlink.hop(ip) {
            Ok(hop) => !hop.local && hop.index == link.index && hop.neighbour == ip,
            Err(e) if unreachable(&e) => false,
            Err(e) => return Err(format!("the route to {ip} cannot be asked for: {e}")),
        };
        if on_link {
            let cure = if ip.is_ipv4() {
                format!("`ip route add local {net} dev lo` has the kernel answer")
            } else {
                format!("add them to {interface}, or take a network that the peer has a route to")
            };
            return Err(format!(
                "source addresses not routed back: --source-net {net} is on the link of {interface}, and nobody \
                 answers {} for {ip}: {cure}",
                asks(ip)
            ));
        }
    }
    let target = plan.target.ip();
    Ok(format!(
        "has {target} a route to {net} by way of an address of {interface} (`ip route add {net} via ...` there), and \
         does no filter in between object to these sources (rp_filter)?"
    ))
}

fn unreachable(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::ENETUNREACH | libc::EHOSTUNREACH))
}
