//! The kinds of findings: how each is recognised, why it matters, what mends it.
//!
//! One table, from which `finwheel doctor` speaks and `docs/troubleshooting.md` is made. Words in capitals in a remedy are
//! filled in when something is found.

use std::fmt::Write as _;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing; nothing is wrong.
    Note,
    /// It runs, but slower than it could, or not for everybody.
    Warning,
    /// It does not start, or does not work.
    Error,
}

impl Severity {
    /// The word of reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// A kind of finding.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// Its name: what to search the documentation for.
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, in general.
    pub sign: &'static str,
    /// Why it matters.
    pub why: &'static str,
    /// What mends it.
    pub remedy: &'static str,
}

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Of which kind.
    pub kind: &'static Kind,
    /// What is wrong here.
    pub what: String,
    /// What mends it here.
    pub remedy: String,
}

impl Kind {
    /// A finding of this kind; each word of `words` is put in the place of its name in the remedy.
    pub(super) fn found(&'static self, what: impl Into<String>, words: &[(&str, &str)]) -> Finding {
        let mut remedy = self.remedy.to_owned();
        for (name, word) in words {
            remedy = remedy.replace(name, word);
        }
        Finding { kind: self, what: what.into(), remedy }
    }
}

/// Declares the kinds, and the list of them.
macro_rules! kinds {
    ($($name:ident, $id:literal, $severity:ident, $sign:literal, $why:literal, $remedy:literal;)*) => {
        $(
            #[doc = concat!("Kind of finding `", $id, "`.")]
            pub static $name: Kind =
                Kind { id: $id, severity: Severity::$severity, sign: $sign, why: $why, remedy: $remedy };
        )*
        /// All kinds, in the order of the checks.
        pub static ALL: &[&Kind] = &[$(&$name),*];
    };
}

kinds! {
    KERNEL_OLD, "kernel-too-old", Error,
        "The kernel is older than Linux 5.8.",
        "CAP_BPF, the wake-up flags of the rings and the XDP features that finwheel uses came up to 5.8",
        "boot a newer kernel; on Debian: apt-get install linux-image-amd64";
    CAPABILITY, "capability-missing", Error,
        "A capability that start-up needs is not effective.",
        "without it the kernel refuses the XDP program, its maps or the sockets",
        "run as root, or: setcap NAMES=p /usr/local/bin/finwheel; in a unit AmbientCapabilities=, for a container --cap-add of each";
    BOUNDED, "capability-out-of-bounds", Error,
        "A capability that start-up needs is outside of the bounding set.",
        "neither root nor a file's capabilities can bring it back into this process: whoever started it has to grant it",
        "have it granted NAMES: a container by --cap-add, in Kubernetes by securityContext.capabilities.add, in a unit by CapabilityBoundingSet=";
    NO_NEW_PRIVILEGES, "no-new-privileges", Warning,
        "no_new_privs is set, and capabilities are missing.",
        "the capabilities of a file, and sudo, count for nothing in such a process",
        "grant them as ambient capabilities (systemd: AmbientCapabilities=), or start without no-new-privileges (Kubernetes: allowPrivilegeEscalation: true)";
    USER_NAMESPACE, "user-namespace", Error,
        "The process is in a user namespace.",
        "capabilities of a user namespace do not reach the kernel's BPF and the host's interfaces",
        "start it from the machine's own user namespace: rootful podman or docker, not rootless";
    BPF_REFUSED, "bpf-refused", Error,
        "bpf(2) is refused, although the capabilities are there.",
        "a container's profile of system calls, or a security module, goes before capabilities; without the call there is no program",
        "an engine whose profile grants bpf to CAP_BPF, or --security-opt seccomp=unconfined (Kubernetes: seccompProfile: {type: Unconfined}); finwheel brings a filter of its own";
    JIT_OFF, "bpf-jit-off", Warning,
        "The kernel interprets BPF programs instead of compiling them.",
        "the steering program runs for every frame of the interface, several times slower",
        "sysctl -w net.core.bpf_jit_enable=1";
    BPFFS, "bpffs-not-mounted", Note,
        "No BPF file system is mounted.",
        "finwheel pins nothing and does without; tools that look at its maps may want one",
        "mount -t bpf bpf /sys/fs/bpf";
    MEMLOCK, "locked-memory", Error,
        "The frames of the rings are more than this process may lock.",
        "the kernel refuses the memory of the sockets",
        "ulimit -l unlimited; systemd: LimitMEMLOCK=infinity; containers: --ulimit memlock=-1 or --cap-add IPC_LOCK; or fewer [interface] frames";
    HUGE_PAGES, "huge-pages", Note,
        "Neither transparent nor reserved huge pages can be had.",
        "tables of millions of records cost more TLB misses in pages of 4 KiB",
        "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled";
    NO_INTERFACE, "interface-missing", Error,
        "There is no such interface in this network namespace.",
        "there is nothing to serve",
        "ip link shows what there is; put the right name into [interface] name, and give a container the host's network";
    DOWN, "interface-down", Error,
        "The interface is administratively down.",
        "sockets cannot be bound to it",
        "ip link set dev IFACE up";
    NO_CARRIER, "no-carrier", Warning,
        "The interface is up but has no carrier.",
        "nothing arrives and nothing leaves",
        "see to cable, switch port or the other end: ethtool IFACE";
    SERVED, "served-already", Note,
        "A finwheel serves this interface now.",
        "an interface has one finwheel at a time; what else is said here holds for that one",
        "to start another one: stop it first, or name another interface";
    PROGRAM, "another-xdp-program", Error,
        "Another XDP program is attached to the interface.",
        "there is room for one, and finwheel takes away none that is not its own",
        "stop what attached it, or: ip link set dev IFACE MODE off";
    MTU, "mtu-too-large", Error,
        "The MTU is over what a frame of the rings can hold.",
        "a buffer is a page at most, 256 bytes of which are the kernel's",
        "ip link set dev IFACE mtu LIMIT";
    UNEVEN_QUEUES, "uneven-queues", Error,
        "The interface has more receive queues than transmit queues.",
        "a queue's answers leave by the transmit queue of the same number",
        "ethtool -L IFACE combined TX; of a veth: ip link add ... numrxqueues TX numtxqueues TX";
    NO_QUEUE, "queue-missing", Error,
        "A queue is to be served that the interface does not have.",
        "there is nothing to bind",
        "take it out of [interface] queues, or: ethtool -L IFACE combined N";
    UNSERVED, "queues-not-served", Warning,
        "Flows can arrive on queues that are not served.",
        "claimed frames on a queue without a socket are dropped: peers get no answer",
        "[interface] queues = \"all\", or keep RSS to those that are served: ethtool -X IFACE equal N";
    ONE_QUEUE, "rss-one-queue", Warning,
        "RSS uses fewer queues than are served.",
        "workers of the queues that are left out idle, while the others carry everything",
        "ethtool -X IFACE equal N";
    RSS_KEY, "rss-key-zero", Warning,
        "The key of the NIC's hash is all zeros.",
        "every flow has the same hash, so one queue gets them all",
        "ethtool -X IFACE hkey default, or a random key of the length that ethtool -x IFACE shows";
    CPUS_SHARED, "more-workers-than-cpus", Warning,
        "There are more workers than CPUs they may use.",
        "workers take turns on a CPU: latency is that of the scheduler, and a busy one starves the others",
        "ethtool -L IFACE combined CPUS, or [interface] queues with CPUS queues, or a larger cpuset";
    NO_CPU, "core-not-allowed", Error,
        "A worker is to run on a CPU that this process may not use.",
        "start-up is refused",
        "choose [worker] cores among ALLOWED, or widen the cpuset (systemd: AllowedCPUs=, containers: --cpuset-cpus)";
    REMOTE_NODE, "numa-remote", Warning,
        "A worker's CPU is on another NUMA node than the NIC.",
        "every frame crosses the link between the nodes: more latency, less throughput",
        "[worker] cores = CPUs of node NODE: cat /sys/devices/system/node/nodeNODE/cpulist";
    NOT_ISOLATED, "cores-not-isolated", Warning,
        "Busy workers run on CPUs that the scheduler gives to others too.",
        "each time the worker is put aside, its queue fills; a busy loop has no other pause to catch up in",
        "boot with isolcpus=CPUS nohz_full=CPUS, or a cpuset of their own; or [worker] idle = \"adaptive\"";
    NO_NATIVE, "no-native-xdp", Error,
        "[interface] mode is \"native\", and the driver has no native XDP with redirect.",
        "start-up is refused",
        "[interface] mode = \"auto\" (generic where it must be), or a NIC whose driver has XDP";
    GENERIC, "generic-xdp", Warning,
        "The driver has no native XDP: the generic hook is used.",
        "each frame becomes a socket buffer first, which is several times slower, and nothing is zero-copy",
        "a NIC whose driver has XDP; https://github.com/xdp-project/xdp-project lists them";
    GENERIC_GRO, "gro-in-generic-mode", Warning,
        "In generic mode, segments are merged before the program sees them: by receive offloads, or by a veth's peer that leaves segmentation to a device.",
        "what is made of several segments is longer than a frame and is dropped; uploads crawl",
        "ethtool -K IFACE gro off lro off; of a veth, on its peer too: ethtool -K PEER tso off gso off";
    NO_ZERO_COPY, "no-zero-copy", Error,
        "[interface] zero_copy is \"require\", and the driver has none.",
        "start-up is refused",
        "[interface] zero_copy = \"auto\"";
    COPIES, "copy-mode", Note,
        "The driver has no zero-copy: the kernel copies each frame.",
        "it works the same, at the cost of a copy",
        "nothing; ethtool -i IFACE names the driver";
    UNKNOWN_XDP, "xdp-features-unknown", Note,
        "This kernel does not tell what the driver's XDP can do.",
        "Linux 6.3 and later tell; whether it is native and zero-copy is seen at start, and logged",
        "to be sure before: [interface] mode = \"native\", zero_copy = \"require\"";
    HARDWARE_GRO, "hardware-gro", Warning,
        "LRO or hardware GRO is on.",
        "drivers refuse native XDP with it, and what it merges does not fit a frame",
        "ethtool -K IFACE lro off rx-gro-hw off";
    VLAN_STRIPPED, "vlan-tags-stripped", Warning,
        "The NIC takes VLAN tags off, and the interface carries VLANs.",
        "a native XDP program does not see the tag: tagged frames are taken for untagged ones and answered so",
        "ethtool -K IFACE rxvlan off";
    UNFINISHED, "unfinished-checksums", Note,
        "The sender behind a virtual interface leaves checksums to a device that there is not.",
        "finwheel takes such checksums there, and so cannot tell a damaged segment from an unfinished one",
        "for whole checksums, on the peer: ethtool -K PEER tx off";
    PEER_QUEUES, "veth-peer-queues", Warning,
        "The veth's peer has more transmit queues than this end has receive queues.",
        "the driver refuses native XDP then, and the generic hook is several times slower",
        "make both the same: ethtool -L IFACE rx N, or ip link add ... numrxqueues N numtxqueues N";
    PEER_ELSEWHERE, "veth-peer-elsewhere", Note,
        "The veth's peer is in another network namespace.",
        "its queues and offloads cannot be seen from here",
        "look there: ip netns exec NETNS ethtool -l PEER; ethtool -k PEER";
    NOT_OURS, "address-not-here", Warning,
        "A listener's address is not one of this machine.",
        "the kernel answers ARP and neighbour discovery for its own addresses alone, so nobody finds it",
        "ip address add ADDRESS dev IFACE, or route it here: ip route add local ADDRESS dev lo";
    PORT_TAKEN, "port-in-use", Warning,
        "A socket of the kernel listens on an address and port that a listener claims.",
        "finwheel takes all of its traffic on this interface: that server gets no connection any more",
        "ss -ltnp 'sport = :PORT' names it; move one of the two";
    METRICS_TAKEN, "metrics-address-in-use", Error,
        "Something listens where the metrics are to be served.",
        "start-up is refused",
        "ss -ltnp 'sport = :PORT' names it; change [metrics] listen";
    EPHEMERAL, "port-among-local-ports", Warning,
        "A listener's port is one that the kernel gives to outgoing connections.",
        "when this machine connects from that port, the answers are finwheel's, and the connection hangs",
        "sysctl -w net.ipv4.ip_local_reserved_ports=PORT (with what is in it already), or another port";
    OUTBOUND, "outbound-ports", Note,
        "The kernel gives out local ports that finwheel's client role takes unless told otherwise.",
        "`finwheel blast` from an address of this machine claims 16384 to 32767 on it: the kernel's own connections there hang",
        "sysctl -w net.ipv4.ip_local_port_range='32768 60999', or other ports for the client";
}

/// `docs/troubleshooting.md`.
#[must_use]
pub fn page() -> String {
    let mut page = String::from(
        "# Troubleshooting\n\n\
         What `finwheel doctor` can find, and what mends it. `finwheel doctor --config FILE` examines the machine for that\n\
         configuration, `finwheel doctor --interface NAME` for an interface alone; when `finwheel run` cannot start it says the\n\
         same by itself. Words in capitals stand for what the doctor fills in.\n\n\
         This page is made from `src/doctor/catalog.rs`; `UPDATE_DRAWINGS=1 cargo test --test docs` writes it anew.\n",
    );
    for (severity, title, what) in [
        (Severity::Error, "Errors", "It does not start, or does not work (exit code 2)."),
        (
            Severity::Warning,
            "Warnings",
            "It runs, but slower than it could or not for everybody (exit code 1).",
        ),
        (Severity::Note, "Notes", "Worth knowing (exit code 0)."),
    ] {
        let _ = write!(page, "\n## {title}\n\n{what}\n");
        for k in ALL.iter().filter(|k| k.severity == severity) {
            let _ = write!(
                page,
                "\n### {}\n\n{}\n\n* Why it matters: {}.\n* What mends it: {}.\n",
                k.id, k.sign, k.why, k.remedy
            );
        }
    }
    page
}
