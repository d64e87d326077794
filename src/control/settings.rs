//! What a [`Terminator`](super::Terminator) is started with, from a configuration file or by hand.

use crate::config::{self, Config, ServiceConfig};
use crate::port::xsk::{Mode, OpenConfig, Queues, RingConfig, ZeroCopy};
use crate::service::Service;
use crate::service::discard::Discard;
use crate::service::echo::Echo;
use crate::service::http::{Http, HttpConfig};
use crate::shard::Capacity;
use crate::shard::worker::Idle;
use crate::tcp::TcpConfig;
use crate::tcp::config::Limits;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Makes a listener's service, once for each worker, in the worker's thread.
pub type ServiceFactory = Arc<dyn Fn() -> Box<dyn Service> + Send + Sync>;

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
    /// Where workers run.
    pub cores: Cores,
    /// What they do without work.
    pub idle: Idle,
    /// Where `/metrics`, `/healthz` and `/readyz` are served, if at all; port 0 takes a free one.
    pub metrics: Option<SocketAddr>,
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
            cores: Cores::Auto,
            idle: Idle::Adaptive,
            metrics: None,
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
            tcp: tcp(&c.tcp),
            listeners: c.listeners.iter().map(|l| listener(l, capacity.connections)).collect(),
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
        ttl: t.ttl,
        delayed_ack: t.delayed_ack,
        challenge_acks: u8::try_from(t.challenge_ack_per_conn).unwrap_or(u8::MAX),
        stray_replies: t.rst_budget,
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
                ..HttpConfig::default()
            };
            Arc::new(move || Box::new(Http::new(config.clone())))
        }
    }
}
