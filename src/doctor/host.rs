//! Facts about the machine and this process. Read from /proc and /sys, and by a BPF map that is made and thrown away; no
//! privilege is needed, and nothing is changed.

use crate::port::bpf;
use crate::port::privileges::version_of;
use core_affinity::get_core_ids;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

/// A socket in the state LISTEN in /proc/net/tcp.
const LISTEN: &str = "0A";

/// What the kernel says about this thread's privileges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Privileges {
    pub effective: u64,
    pub bounding: u64,
    pub no_new_privs: bool,
}

/// The machine.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct Host {
    pub release: String,
    pub privileges: Privileges,
    pub user_namespace: bool,
    /// Whether the kernel refuses to make a BPF map, as it does also without the capabilities.
    pub bpf_refused: bool,
    pub bpffs: bool,
    /// `net.core.bpf_jit_enable`; `None` where it cannot be read (only root may).
    pub jit: Option<u8>,
    /// Bytes that may be locked; `None` for no limit.
    pub memlock: Option<u64>,
    /// CPUs that this process may use.
    pub cpus: Vec<u32>,
    pub isolated: Vec<u32>,
    /// CPUs of each NUMA node.
    pub nodes: Vec<(u32, Vec<u32>)>,
    pub huge_pages: bool,
    /// `net.ipv4.ip_local_port_range`.
    pub local_ports: Option<(u16, u16)>,
    /// `net.ipv4.ip_local_reserved_ports`.
    pub reserved_ports: Vec<u32>,
    /// Where the kernel's sockets listen.
    pub listening: Vec<SocketAddr>,
}

impl Host {
    /// Reads everything. What is optional in a kernel may be missing; /proc may not.
    pub fn read() -> io::Result<Self> {
        let text = |path: &str| fs::read_to_string(path).map(|t| t.trim().to_owned()).ok();
        let numbers = |path: &str| text(path).map(|t| list(&t)).unwrap_or_default();
        let status = fs::read_to_string("/proc/thread-self/status")?;
        let mounts = fs::read_to_string("/proc/thread-self/mounts")?;
        let (soft, _) = getrlimit(Resource::RLIMIT_MEMLOCK)?;
        let mut listening = sockets(&fs::read_to_string("/proc/thread-self/net/tcp")?);
        // Without IPv6 there is no such file.
        listening.extend(text("/proc/thread-self/net/tcp6").map(|t| sockets(&t)).unwrap_or_default());
        let reserved = text("/proc/meminfo").is_some_and(|t| {
            t.lines().any(|l| l.strip_prefix("HugePages_Total:").is_some_and(|n| n.trim() != "0"))
        });
        let transparent = text("/sys/kernel/mm/transparent_hugepage/enabled");
        Ok(Self {
            release: text("/proc/sys/kernel/osrelease").unwrap_or_default(),
            privileges: privileges(&status),
            user_namespace: text("/proc/self/uid_map").is_some_and(|map| nested(&map)),
            bpf_refused: bpf::is_refused(),
            bpffs: mounts.lines().any(|l| l.split(' ').nth(2) == Some("bpf")),
            jit: text("/proc/sys/net/core/bpf_jit_enable").and_then(|t| t.parse().ok()),
            memlock: (soft != RLIM_INFINITY).then_some(soft),
            // CPU numbers are far below 2^32.
            cpus: get_core_ids().unwrap_or_default().iter().map(|c| c.id as u32).collect(),
            isolated: numbers("/sys/devices/system/cpu/isolated"),
            nodes: nodes(Path::new("/sys/devices/system/node")),
            huge_pages: reserved || transparent.is_some_and(|t| !t.contains("[never]")),
            local_ports: text("/proc/sys/net/ipv4/ip_local_port_range").and_then(|t| pair(&t)),
            reserved_ports: numbers("/proc/sys/net/ipv4/ip_local_reserved_ports"),
            listening,
        })
    }

    /// The kernel's major and minor number.
    pub fn version(&self) -> Option<(u32, u32)> {
        version_of(&self.release)
    }

    /// For people.
    pub fn describe(&self) -> Vec<(&'static str, String)> {
        let memlock = self.memlock.map_or_else(|| "unlimited".into(), |b| format!("{} KiB", b >> 10));
        let ports = self.local_ports.map_or_else(|| "?".into(), |(lo, hi)| format!("{lo} to {hi}"));
        vec![
            ("kernel", self.release.clone()),
            ("locked memory", memlock),
            ("cpus", format!("{:?}, of which isolated {:?}", self.cpus, self.isolated)),
            ("huge pages", if self.huge_pages { "yes" } else { "no" }.into()),
            ("local ports", ports),
        ]
    }
}

/// Of a /proc status file.
fn privileges(status: &str) -> Privileges {
    let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).map(str::trim);
    let set = |name| field(name).and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or_default();
    Privileges {
        effective: set("CapEff:"),
        bounding: set("CapBnd:"),
        no_new_privs: field("NoNewPrivs:") == Some("1"),
    }
}

/// Whether a `uid_map` is that of another than the machine's own user namespace, which maps everything to itself.
fn nested(map: &str) -> bool {
    let numbers: Vec<_> = map.split_whitespace().collect();
    numbers != ["0", "0", "4294967295"]
}

/// A list of numbers as the kernel writes it: `0-3,8`.
fn list(text: &str) -> Vec<u32> {
    let ranges = text.split(',').filter_map(|part| {
        let (lo, hi) = part.split_once('-').unwrap_or((part, part));
        Some(lo.trim().parse::<u32>().ok()?..=hi.trim().parse::<u32>().ok()?)
    });
    // Port numbers are the longest of these lists.
    ranges.flatten().take(1 << 16).collect()
}

fn pair(text: &str) -> Option<(u16, u16)> {
    let mut numbers = text.split_whitespace().map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn nodes(folder: &Path) -> Vec<(u32, Vec<u32>)> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let node = |entry: io::Result<fs::DirEntry>| {
        let entry = entry.ok()?;
        let number = entry.file_name().to_str()?.strip_prefix("node")?.parse().ok()?;
        Some((number, list(&fs::read_to_string(entry.path().join("cpulist")).ok()?)))
    };
    let mut nodes: Vec<_> = entries.filter_map(node).collect();
    nodes.sort();
    nodes
}

/// The listening sockets of a /proc/net/tcp or tcp6: the second column is address and port in hexadecimal, the
/// fourth the state.
fn sockets(text: &str) -> Vec<SocketAddr> {
    let socket = |line: &str| {
        let mut columns = line.split_whitespace().skip(1);
        let (ip, port) = columns.next()?.split_once(':')?;
        let state = columns.nth(1)?;
        let port = u16::from_str_radix(port, 16).ok()?;
        (state == LISTEN).then_some(SocketAddr::new(address(ip)?, port))
    };
    text.lines().skip(1).filter_map(socket).collect()
}

/// An address as the kernel prints its words: each as a number of the machine's byte order.
fn address(hex: &str) -> Option<IpAddr> {
    let word = |i: usize| Some(u32::from_str_radix(hex.get(8 * i..8 * i + 8)?, 16).ok()?.to_ne_bytes());
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let bytes = [word(0)?, word(1)?, word(2)?, word(3)?];
            let bytes: [u8; 16] = bytes.as_flattened().try_into().ok()?;
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_can_be_read() {
        let host = Host::read().unwrap();
        assert!(host.version().is_some_and(|v| v > (4, 0)), "{}", host.release);
        assert!(!host.cpus.is_empty() && host.privileges.bounding != 0, "{host:?}");
        assert!(host.local_ports.is_some_and(|(lo, hi)| lo < hi), "{host:?}");
    }

    #[test]
    fn a_socket_that_listens_is_seen_and_one_that_is_connected_is_not() {
        for at in ["127.0.0.1:0", "[::1]:0"] {
            let listener = std::net::TcpListener::bind(at).unwrap();
            let at = listener.local_addr().unwrap();
            let client = std::net::TcpStream::connect(at).unwrap();
            let host = Host::read().unwrap();
            assert!(host.listening.contains(&at), "{at}: {:?}", host.listening);
            assert!(!host.listening.contains(&client.local_addr().unwrap()));
        }
    }

    #[test]
    fn lists_pairs_and_maps_are_read_as_the_kernel_writes_them() {
        assert_eq!(list("0-2,5\n"), [0, 1, 2, 5]);
        assert_eq!(list(""), [0u32; 0]);
        assert_eq!(pair("32768\t60999\n"), Some((32768, 60999)));
        assert!(!nested("         0          0 4294967295\n") && nested("         0     100000      65536"));
        let status = "CapEff:\t0000000000002000\nCapBnd:\t00000000a80425fb\nNoNewPrivs:\t1\n";
        let p = privileges(status);
        assert_eq!((p.effective, p.bounding, p.no_new_privs), (0x2000, 0xa804_25fb, true));
    }
}
