//! What a [`Terminator`](super::Terminator) is started with, from a configuration file or by hand.

use super::admin::AdminSettings;
use super::close_log::CloseLogSettings;
use super::reload::Source;
use crate::config::{self, Config, ServiceConfig};
use crate::port::xsk::{Claim, Mode, OpenConfig, Queues, RingConfig, ZeroCopy};
use crate::service::Service;
use crate::service::discard::Discard;
use crate::service::echo::Echo;
use crate::service::http::{Http, HttpConfig};
use crate::shard::Capacity;
use crate::shard::drain::{DrainOrder, NewConnections};
use crate::shard::worker::Idle;
use crate::tcp::TcpConfig;
use crate::tcp::config::{KeepAlive, Limits};
use crate::tcp::congestion::Algorithm;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

pub use crate::service::ServiceFactory;

/// Where workers run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cores {
    /// The first CPUs that the process is allowed on, one for each queue, and from the beginning again when there are
    /// more queues.
    #[default]
    Auto,
    /// These CPUs, in the order of the queues.
    List(Vec<usize>),
    /// Wherever the kernel puts them: for tests that share a machine.
    Unpinned,
}

/// A listener.
#[derive(Clone)]
pub struct ListenerSettings {
    /// Its name in logs.
    pub name: String,
    /// Where it listens; the unspecified address stands for all of its family.
    pub addresses: Vec<SocketAddr>,
    /// What answers, in one word for logs.
    pub kind: &'static str,
    /// What answers.
    pub service: ServiceFactory,
    /// Limits of its connections.
    pub limits: Limits,
}

impl fmt::Debug for ListenerSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenerSettings")
            .field("name", &self.name)
            .field("addresses", &self.addresses)
            .field("kind", &self.kind)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// Connections that are opened from here: [`Terminator::connect`](super::Terminator::connect).
#[derive(Clone)]
pub struct ClientSettings {
    /// Where they come from: of each IP version the first. The interface must have the address.
    pub addresses: Vec<IpAddr>,
    /// Their local ports, split between the workers. What comes to them is taken from the kernel, so they must lie outside
    /// of what it gives to its own sockets (`net.ipv4.ip_local_port_range`).
    pub ports: RangeInclusive<u16>,
    /// What serves them.
    pub service: ServiceFactory,
    /// Their limits.
    pub limits: Limits,
}

impl ClientSettings {
    /// The ports below those that Linux gives out unless told otherwise (32768 to 60999).
    pub const PORTS: RangeInclusive<u16> = 16_384..=32_767;

    /// From these addresses and [`ClientSettings::PORTS`], with default limits.
    #[must_use]
    pub fn new<S: Service + 'static>(
        addresses: &[IpAddr],
        service: impl Fn() -> S + Send + Sync + 'static,
    ) -> Self {
        Self {
            addresses: addresses.to_vec(),
            ports: Self::PORTS,
            service: Arc::new(move || Box::new(service())),
            limits: Limits::DEFAULT,
        }
    }

    /// What is to be taken from the kernel for them.
    pub(super) fn claims(&self) -> impl Iterator<Item = Claim> {
        let claim = |&ip: &IpAddr| Claim::LocalPorts {
            addr: ip.into(),
            lo: *self.ports.start(),
            hi: *self.ports.end(),
        };
        self.addresses.iter().map(claim)
    }
}

impl fmt::Debug for ClientSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientSettings")
            .field("addresses", &self.addresses)
            .field("ports", &self.ports)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// How to start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The interface, its queues and rings. `claims` are added to those of the listeners.
    pub open: OpenConfig,
    /// Settings of TCP. `mtu` and `limits` are filled in at start, from the interface and the listeners.
    pub tcp: TcpConfig,
    /// Sizes of each worker's tables.
    pub capacity: Capacity,
    /// Listeners; the position is the listener's number.
    pub listeners: Vec<ListenerSettings>,
    /// Connections that are opened from here, if any are.
    pub client: Option<ClientSettings>,
    /// Sequence numbers and timestamps go on from those of earlier processes on this machine, so that a peer which holds a
    /// pair of theirs in `TIME_WAIT` takes a new connection for the newer one that it is (RFC 6191). For clients that use
    /// the same local ends run after run; a server's secret is better its own.
    pub lasting: bool,
    /// Where workers run.
    pub cores: Cores,
    /// What they do without work.
    pub idle: Idle,
    /// Where `/metrics`, `/healthz` and `/readyz` are served, if at all; port 0 takes a free one.
    pub metrics: Option<SocketAddr>,
    /// Where operators reach the process, if at all.
    pub admin: Option<AdminSettings>,
    /// Which close records are kept and written.
    pub close_log: CloseLogSettings,
    /// How connections are ended when the process is.
    pub drain: DrainOrder,
    /// What these settings were read from, if it can be read again.
    pub source: Option<Source>,
}

impl Settings {
    /// All queues of `interface`, everything else by default, no listener, no metrics server.
    #[must_use]
    pub fn new(interface: impl Into<String>) -> Self {
        Self {
            open: OpenConfig::new(interface),
            tcp: TcpConfig::default(),
            capacity: Capacity::default(),
            listeners: Vec::new(),
            client: None,
            lasting: false,
            cores: Cores::Auto,
            idle: Idle::Adaptive,
            metrics: None,
            admin: None,
            close_log: CloseLogSettings::default(),
            drain: DrainOrder::default(),
            source: None,
        }
    }

    /// With another listener, whose limits are the default ones.
    #[must_use]
    pub fn listen<S: Service + 'static>(
        mut self,
        kind: &'static str,
        addresses: &[SocketAddr],
        service: impl Fn() -> S + Send + Sync + 'static,
    ) -> Self {
        self.listeners.push(ListenerSettings {
            name: format!("{kind}{}", self.listeners.len()),
            addresses: addresses.to_vec(),
            kind,
            service: Arc::new(move || Box::new(service())),
            limits: Limits::DEFAULT,
        });
        self
    }

    /// What a configuration file says.
    #[must_use]
    pub fn from_config(c: &Config) -> Self {
        let w = &c.worker;
        let capacity = Capacity {
            connections: w.connections as usize,
            half_open: w.half_open as usize,
            time_wait: w.time_wait as usize,
            chunks: w.chunks as usize,
        };
        Self {
            open: open(&c.interface),
            tcp: TcpConfig { syn_cookies: w.half_open_cookies, ..tcp(&c.tcp) },
            listeners: c.listeners.iter().map(|l| listener(l, capacity.connections)).collect(),
            client: None,
            lasting: false,
            capacity,
            cores: match &w.cores {
                config::Cores::Auto => Cores::Auto,
                config::Cores::List(list) => Cores::List(list.iter().map(|&n| n as usize).collect()),
            },
            idle: match w.idle {
                config::Idle::Adaptive => Idle::Adaptive,
                config::Idle::Busy => Idle::Busy,
            },
            metrics: c.metrics.listen,
            admin: c
                .admin
                .socket
                .as_ref()
                .map(|socket| AdminSettings { socket: socket.clone(), group: c.admin.group.clone() }),
            close_log: CloseLogSettings {
                keep: c.close_log.keep as usize,
                file: c.close_log.file.clone(),
                sample: c.close_log.sample,
            },
            drain: DrainOrder {
                over: c.drain.over,
                new: match c.drain.new {
                    config::NewDuringDrain::Drop => NewConnections::Drop,
                    config::NewDuringDrain::Reset => NewConnections::Reset,
                    config::NewDuringDrain::Close => NewConnections::Close,
                },
            },
            source: None,
        }
    }
}

fn open(i: &config::InterfaceConfig) -> OpenConfig {
    OpenConfig {
        queues: match &i.queues {
            config::Queues::All => Queues::All,
            config::Queues::List(list) => Queues::List(list.clone()),
        },
        rings: RingConfig {
            frames: i.frames,
            rx_ring: i.ring_size,
            tx_ring: i.ring_size,
            ..RingConfig::default()
        },
        mode: match i.mode {
            config::Mode::Auto => Mode::Auto,
            config::Mode::Native => Mode::Native,
            config::Mode::Generic => Mode::Generic,
        },
        zero_copy: match i.zero_copy {
            config::ZeroCopy::Auto => ZeroCopy::Auto,
            config::ZeroCopy::Require => ZeroCopy::Require,
            config::ZeroCopy::Off => ZeroCopy::Off,
        },
        ..OpenConfig::new(&i.name)
    }
}

fn tcp(t: &config::TcpConfig) -> TcpConfig {
    TcpConfig {
        time_wait: t.time_wait,
        fin_wait_2: t.fin_wait_2,
        close_wait: t.close_wait,
        give_up: t.give_up,
        syn_retries: t.syn_retries,
        send_buffer: t.send_buffer,
        receive_buffer: t.receive_buffer,
        receive_window: t.receive_window,
        mss: t.mss,
        ttl: t.ttl,
        delayed_ack: t.delayed_ack,
        challenge_acks: t.challenge_ack_per_conn,
        stray_replies: t.rst_budget,
        ecn_outgoing: t.ecn_outgoing,
        ..TcpConfig::default()
    }
}

fn listener(l: &config::ListenerConfig, connections: usize) -> ListenerSettings {
    ListenerSettings {
        name: l.name.clone(),
        addresses: l.addresses.clone(),
        kind: l.service.as_str(),
        service: service(&l.service, connections),
        limits: Limits {
            idle: l.idle.unwrap_or(Duration::ZERO),
            // The schema's bound is 1 GiB.
            linger_bytes: u32::try_from(l.linger_bytes).unwrap_or(u32::MAX),
            linger_time: l.linger_time,
            congestion: match l.congestion {
                config::Congestion::Cubic => Algorithm::Cubic,
                config::Congestion::NewReno => Algorithm::NewReno,
            },
            give_up: Some(l.give_up),
            keep_alive: l.keepalive_idle.map(|idle| KeepAlive {
                idle,
                interval: l.keepalive_interval,
                probes: l.keepalive_probes,
            }),
            ecn: l.ecn,
            send_buffer: Some(l.send_buffer),
            receive_buffer: Some(l.receive_buffer),
            zero_window: l.zero_window.unwrap_or(Duration::ZERO),
        },
    }
}

fn service(s: &ServiceConfig, connections: usize) -> ServiceFactory {
    match s {
        ServiceConfig::Echo => Arc::new(|| Box::new(Echo)),
        ServiceConfig::Discard => Arc::new(|| Box::new(Discard)),
        ServiceConfig::Http(h) => {
            let config = HttpConfig {
                body: h.body.clone(),
                content_type: h.content_type.clone(),
                connections,
                keep_alive: h.keep_alive,
                ..HttpConfig::default()
            };
            Arc::new(move || Box::new(Http::new(config.clone())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn every_key_reaches_its_place() {
        let text = "[interface]\nname = \"eth7\"\nqueues = [1]\nmode = \"native\"\nzero_copy = \"off\"\nring_size = 256\n\
            frames = 1024\n[worker]\ncores = [3]\nidle = \"busy\"\nconnections = 1001\nhalf_open = 102\n\
            half_open_cookies = 33\n\
            time_wait = 1103\nchunks = 104\n[tcp]\ntime_wait = \"1s\"\nfin_wait_2 = \"2s\"\nclose_wait = \"3s\"\n\
            give_up = \"4s\"\nsyn_retries = 6\nidle = \"7s\"\ncongestion = \"newreno\"\necn_outgoing = true\nsend_buffer = \"8KiB\"\nreceive_buffer = \"9KiB\"\nreceive_window = \"5KiB\"\n\
            mss = 1111\nttl = 12\nrst_budget = 13\nchallenge_ack_per_conn = 14\ndelayed_ack = \"15ms\"\n\
            [[listener]]\nname = \"a\"\naddress = \"0.0.0.0:7\"\nservice = \"echo\"\n\
            [[listener]]\nname = \"b\"\naddress = \"[::]:8\"\nservice = \"http\"\nidle = \"16s\"\n\
            linger_bytes = \"17B\"\nlinger_time = \"18s\"\ngive_up = \"20s\"\ncongestion = \"cubic\"\n\
            keepalive_idle = \"21s\"\nkeepalive_interval = \"22s\"\nkeepalive_probes = 23\necn = false\n\
            send_buffer = \"24KiB\"\nreceive_buffer = \"25KiB\"\nzero_window = \"26s\"\n[metrics]\nlisten = \"127.0.0.1:19\"\n\
            [drain]\nover = \"27s\"\nnew = \"close\"\n[admin]\nsocket = \"/x/s\"\ngroup = \"g\"\n\
            [close_log]\nkeep = 28\nfile = \"/x/f\"\nsample = 29\n";
        let config = crate::config::from_text(text, Path::new("t.toml")).unwrap().config;
        let s = Settings::from_config(&config);
        let secs = Duration::from_secs;
        assert_eq!((s.open.interface.as_str(), &s.open.queues), ("eth7", &Queues::List(vec![1])));
        assert_eq!((s.open.mode, s.open.zero_copy), (Mode::Native, ZeroCopy::Off));
        let rings = RingConfig { rx_ring: 256, tx_ring: 256, frames: 1024, ..RingConfig::default() };
        assert_eq!(s.open.rings, rings);
        assert_eq!((s.cores, s.idle), (Cores::List(vec![3]), Idle::Busy));
        let capacity = Capacity { connections: 1001, half_open: 102, time_wait: 1103, chunks: 104 };
        assert_eq!(s.capacity, capacity);
        let tcp = TcpConfig {
            time_wait: secs(1),
            fin_wait_2: secs(2),
            close_wait: secs(3),
            give_up: secs(4),
            syn_retries: 6,
            syn_cookies: Some(33),
            send_buffer: 8 << 10,
            receive_buffer: 9 << 10,
            receive_window: 5 << 10,
            mss: Some(1111),
            ttl: 12,
            stray_replies: 13,
            challenge_acks: 14,
            ecn_outgoing: true,
            delayed_ack: Duration::from_millis(15),
            ..TcpConfig::default()
        };
        assert_eq!(s.tcp, tcp);
        let [a, b] = &s.listeners[..] else { panic!("{:?}", s.listeners) };
        let followed = Limits {
            idle: secs(7),
            linger_bytes: 64 << 10,
            linger_time: secs(2),
            congestion: Algorithm::NewReno,
            give_up: Some(secs(4)),
            keep_alive: None,
            ecn: true,
            send_buffer: Some(8 << 10),
            receive_buffer: Some(9 << 10),
            zero_window: secs(600),
        };
        assert_eq!(a.limits, followed);
        let own = Limits {
            idle: secs(16),
            linger_bytes: 17,
            linger_time: secs(18),
            congestion: Algorithm::Cubic,
            give_up: Some(secs(20)),
            keep_alive: Some(KeepAlive { idle: secs(21), interval: secs(22), probes: 23 }),
            ecn: false,
            send_buffer: Some(24 << 10),
            receive_buffer: Some(25 << 10),
            zero_window: secs(26),
        };
        assert_eq!(b.limits, own);
        assert_eq!((a.kind, b.kind), ("echo", "http"));
        assert_eq!(b.addresses, ["[::]:8".parse().unwrap()]);
        assert_eq!(s.metrics, Some("127.0.0.1:19".parse().unwrap()));
        assert_eq!(s.drain, DrainOrder { over: secs(27), new: NewConnections::Close });
        assert_eq!(s.admin, Some(AdminSettings { socket: "/x/s".into(), group: Some("g".to_owned()) }));
        assert_eq!(s.close_log, CloseLogSettings { keep: 28, file: Some("/x/f".into()), sample: 29 });
    }

    /// What configurations promise at their bounds, the opening of the interface must take.
    #[test]
    fn rings_that_the_schema_takes_hold() {
        let text = "[interface]\nname = \"e\"\nring_size = 64\nframes = 256\n[[listener]]\nname = \"a\"\n\
            address = \"0.0.0.0:7\"\nservice = \"echo\"\n";
        let config = crate::config::from_text(text, Path::new("t.toml")).unwrap().config;
        assert_eq!(Settings::from_config(&config).open.rings.check(), Ok(()));
    }
}
