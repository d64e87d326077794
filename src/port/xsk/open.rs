//! Opening an interface: the one entry from outside.
//!
//! Order: facts about the interface, checks, the lock on the interface, program loaded, queues bound and put into
//! the program's map, claims, lease, and last the attaching. Claimed frames so reach either the kernel (before) or a
//! bound socket (after); and a program left by a crashed process goes on holding the peers until then.
//!
//! Everything looks into the network namespace of the calling thread. What it returns works from any.

use super::config::RingConfig;
use super::error::{NEEDED, SetupError};
use super::socket::{self, CopyMode, ZeroCopy};
use super::{Checksums, XskPort};
use crate::port::bpf::{AttachMode, Claim, DEFAULT_LEASE, Mode, Steering};
use crate::port::link::LinkFacts;
use crate::port::privileges;
use crate::wire::MacAddr;
use std::os::fd::AsRawFd;
use std::time::Duration;

/// Which queues to bind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Queues {
    /// All queues of the interface.
    #[default]
    All,
    /// These. Claimed frames that arrive on another are dropped (and counted), so the rest of the interface's queues
    /// should be kept free of them by the NIC (`ethtool -X`).
    List(Vec<u32>),
}

/// How to open an interface.
#[derive(Clone, Debug)]
pub struct OpenConfig {
    /// Interface name.
    pub interface: String,
    /// Queues to bind.
    pub queues: Queues,
    /// Rings and frames of each queue.
    pub rings: RingConfig,
    /// Native or generic XDP.
    pub mode: Mode,
    /// Zero-copy or copy.
    pub zero_copy: ZeroCopy,
    /// What to take from the kernel at first; [`Steering::claim`] adds more.
    pub claims: Vec<Claim>,
    /// How long claimed frames are held back from the kernel after the last heartbeat; at most
    /// [`MAX_LEASE`](super::MAX_LEASE).
    pub lease: Duration,
}

impl OpenConfig {
    /// All queues of `interface`, everything else by default, no claims.
    #[must_use]
    pub fn new(interface: impl Into<String>) -> Self {
        Self {
            interface: interface.into(),
            queues: Queues::All,
            rings: RingConfig::default(),
            mode: Mode::Auto,
            zero_copy: ZeroCopy::Auto,
            claims: Vec::new(),
            lease: DEFAULT_LEASE,
        }
    }
}

/// What is in effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Interface name.
    pub interface: String,
    /// Interface index.
    pub index: u32,
    /// Hardware address: the source of what is sent.
    pub mac: MacAddr,
    /// MTU, bytes.
    pub mtu: u32,
    /// Driver name; empty when it does not say.
    pub driver: String,
    /// Native or generic XDP.
    pub attach: AttachMode,
    /// Queue numbers with their mode, in the order of the ports.
    pub queues: Vec<(u32, CopyMode)>,
    /// Whether unfinished checksums are accepted.
    pub checksums: Checksums,
    /// Memory locked for frames, bytes, all queues.
    pub frame_bytes: u64,
}

/// An interface that was opened.
///
/// Drop the ports first: frames for them are then dropped until `steering` detaches, where the other way round the
/// kernel would answer them with RST.
#[derive(Debug)]
pub struct Opened {
    /// One port a queue, in the order of [`Report::queues`]; each goes to its worker.
    pub ports: Vec<XskPort>,
    /// The program that feeds them; for the control plane.
    pub steering: Steering,
    /// What is in effect.
    pub report: Report,
}

/// Binds the queues of an interface and steers the claimed traffic into them.
///
/// # Errors
/// See [`SetupError`]: each names the interface, the queue or limit, and the way out. Nothing stays behind.
pub fn open(config: &OpenConfig) -> Result<Opened, SetupError> {
    let interface = &config.interface;
    config.rings.check().map_err(|source| SetupError::Rings { interface: interface.clone(), source })?;
    let link = LinkFacts::read(interface).map_err(|source| match source.raw_os_error() {
        // ERANGE, EINVAL: longer than the name of an interface can be.
        Some(libc::ENODEV | libc::ERANGE | libc::EINVAL) => {
            SetupError::NoInterface { interface: interface.clone() }
        }
        _ => SetupError::System { interface: interface.clone(), what: "asking about the interface", source },
    })?;
    let queues = check(config, &link)?;
    let missing = privileges::missing(&NEEDED);
    if !missing.is_empty() {
        return Err(SetupError::Privilege { interface: interface.clone(), what: "AF_XDP", missing });
    }

    let mut steering = Steering::load(&link, config.lease)?;
    let zero_copy = match config.mode {
        Mode::Generic => ZeroCopy::Off,
        Mode::Auto | Mode::Native => config.zero_copy,
    };
    let mut ports = Vec::with_capacity(queues.len());
    for queue in queues {
        let socket = socket::bind(&link, queue, &config.rings, zero_copy)?;
        steering.set_socket(queue, &socket.rx.fd().as_raw_fd())?;
        let port = XskPort::new(socket, queue, config.rings);
        ports.push(port.map_err(|source| SetupError::Socket {
            interface: interface.clone(),
            queue,
            what: "making the waker",
            source,
        })?);
    }
    for &claim in &config.claims {
        steering.claim(claim)?;
    }
    steering.heartbeat()?;
    let attach = steering.attach(config.mode)?;

    let checksums = checksums(&link.driver, attach);
    for port in &mut ports {
        port.checksums = checksums;
    }
    let report = Report {
        interface: link.name,
        index: link.index,
        mac: link.mac,
        mtu: link.mtu,
        driver: link.driver,
        attach,
        queues: ports.iter().map(|p| (p.queue, p.mode)).collect(),
        checksums,
        frame_bytes: config.rings.bytes() * ports.len() as u64,
    };
    Ok(Opened { ports, steering, report })
}

/// Checks what can be checked before anything is touched; the queues to bind.
fn check(config: &OpenConfig, link: &LinkFacts) -> Result<Vec<u32>, SetupError> {
    let interface = || link.name.clone();
    if !link.up {
        return Err(SetupError::Down { interface: interface() });
    }
    let limit = config.rings.mtu_limit();
    if link.mtu > limit {
        return Err(SetupError::MtuTooLarge {
            interface: interface(),
            mtu: link.mtu,
            limit,
            frame_size: config.rings.frame_size,
        });
    }
    if config.mode == Mode::Generic && config.zero_copy == ZeroCopy::Require {
        return Err(SetupError::ZeroCopyNeedsNative { interface: interface() });
    }
    if link.rx_queues > link.tx_queues {
        return Err(SetupError::UnevenQueues {
            interface: interface(),
            rx: link.rx_queues,
            tx: link.tx_queues,
        });
    }
    let queues = match &config.queues {
        Queues::All => (0..link.rx_queues).collect(),
        Queues::List(list) => list.clone(),
    };
    if let Some(&queue) = queues.iter().find(|&&q| q >= link.rx_queues) {
        return Err(SetupError::NoQueue { interface: interface(), queue, queues: link.rx_queues });
    }
    let mut distinct = queues.clone();
    distinct.sort_unstable();
    distinct.dedup();
    if queues.is_empty() || distinct.len() != queues.len() {
        return Err(SetupError::QueueList { interface: interface() });
    }
    Ok(queues)
}

/// Where frames can come from a sender on this machine that left the checksum to a device that there is not: the
/// peer of a veth, loopback, and in generic mode the software devices that hand the sender's socket buffer on.
fn checksums(driver: &str, attach: AttachMode) -> Checksums {
    match (driver, attach) {
        ("veth" | "", _) | ("virtio_net" | "tun" | "bridge", AttachMode::Generic) => {
            Checksums::AcceptUnfinished
        }
        _ => Checksums::Verify,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link() -> LinkFacts {
        LinkFacts {
            name: "eth7".into(),
            index: 7,
            mac: MacAddr([2, 0, 0, 0, 0, 7]),
            mtu: 1500,
            up: true,
            driver: "mlx5_core".into(),
            rx_queues: 4,
            tx_queues: 4,
        }
    }

    fn config() -> OpenConfig {
        OpenConfig::new("eth7")
    }

    #[test]
    fn all_queues_means_all_of_them() {
        assert_eq!(check(&config(), &link()).unwrap(), [0, 1, 2, 3]);
        let list = OpenConfig { queues: Queues::List(vec![3, 1]), ..config() };
        assert_eq!(check(&list, &link()).unwrap(), [3, 1]);
    }

    #[test]
    fn a_large_mtu_is_refused_with_interface_mtu_and_limit() {
        let jumbo = LinkFacts { mtu: 9000, ..link() };
        let message = check(&config(), &jumbo).unwrap_err().to_string();
        for part in ["eth7", "9000", "1770", "ip link set"] {
            assert!(message.contains(part), "{part} in {message}");
        }
        let larger =
            OpenConfig { rings: RingConfig { frame_size: 4096, ..RingConfig::default() }, ..config() };
        assert!(check(&larger, &LinkFacts { mtu: 3818, ..link() }).is_ok());
    }

    #[test]
    fn what_cannot_work_is_refused_before_anything_is_touched() {
        let list = |q: &[u32]| OpenConfig { queues: Queues::List(q.to_vec()), ..config() };
        let e = check(&list(&[4]), &link()).unwrap_err();
        assert!(matches!(e, SetupError::NoQueue { queue: 4, queues: 4, .. }), "{e}");
        let e = check(&list(&[1, 1]), &link()).unwrap_err();
        assert!(matches!(e, SetupError::QueueList { .. }), "{e}");
        let e = check(&list(&[]), &link()).unwrap_err();
        assert!(matches!(e, SetupError::QueueList { .. }), "{e}");
        let e = check(&config(), &LinkFacts { up: false, ..link() }).unwrap_err();
        assert!(matches!(e, SetupError::Down { .. }), "{e}");
        let e = check(&config(), &LinkFacts { tx_queues: 2, ..link() }).unwrap_err();
        assert!(matches!(e, SetupError::UnevenQueues { rx: 4, tx: 2, .. }), "{e}");
        let generic = OpenConfig { mode: Mode::Generic, zero_copy: ZeroCopy::Require, ..config() };
        let e = check(&generic, &link()).unwrap_err();
        assert!(matches!(e, SetupError::ZeroCopyNeedsNative { .. }), "{e}");
    }

    #[test]
    fn unfinished_checksums_are_accepted_from_virtual_devices_alone() {
        use Checksums::{AcceptUnfinished, Verify};
        for (driver, attach, want) in [
            ("veth", AttachMode::Native, AcceptUnfinished),
            ("veth", AttachMode::Generic, AcceptUnfinished),
            ("", AttachMode::Generic, AcceptUnfinished),
            ("virtio_net", AttachMode::Generic, AcceptUnfinished),
            ("virtio_net", AttachMode::Native, Verify),
            ("mlx5_core", AttachMode::Native, Verify),
            ("mlx5_core", AttachMode::Generic, Verify),
        ] {
            assert_eq!(checksums(driver, attach), want, "{driver} {attach}");
        }
    }
}
