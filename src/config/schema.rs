//! The values of a configuration and their defaults. `config/finwheel.toml` describes each key for its reader; here
//! stand the types, the units and the bounds.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

/// A whole configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `[interface]`.
    pub interface: InterfaceConfig,
    /// `[worker]`.
    pub worker: WorkerConfig,
    /// `[tcp]`.
    pub tcp: TcpConfig,
    /// `[[listener]]`, in the order of the file: the index is `CloseRecord::listener`.
    pub listeners: Vec<ListenerConfig>,
    /// `[drain]`.
    pub drain: DrainConfig,
    /// `[process]`.
    pub process: ProcessConfig,
    /// `[admin]`.
    pub admin: AdminConfig,
    /// `[close_log]`.
    pub close_log: CloseLogConfig,
    /// `[metrics]`.
    pub metrics: MetricsConfig,
    /// `[log]`.
    pub log: LogConfig,
}

/// Which queues of the interface are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Queues {
    /// All that the interface has.
    All,
    /// These, one worker each.
    List(Vec<u32>),
}

/// Where the XDP program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver where it can, else generic.
    Auto,
    /// In the driver, or not at all.
    Native,
    /// In the kernel's generic hook, after the socket buffer was made.
    Generic,
}

/// Whether frames may and must be shared with the device without a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZeroCopy {
    /// Where the driver can.
    Auto,
    /// Or fail to start.
    Require,
    /// Always copy.
    Off,
}

/// `[interface]`: the rings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceConfig {
    /// Name of the network interface, 1 to 15 bytes.
    pub name: String,
    /// Queues served.
    pub queues: Queues,
    /// Where the XDP program runs.
    pub mode: Mode,
    /// Zero-copy.
    pub zero_copy: ZeroCopy,
    /// Descriptors of each ring of a queue; a power of two.
    pub ring_size: u32,
    /// Frames (buffers) of each queue.
    pub frames: u32,
}

impl Default for InterfaceConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            queues: Queues::All,
            mode: Mode::Auto,
            zero_copy: ZeroCopy::Auto,
            ring_size: 2048,
            frames: 8192,
        }
    }
}

/// Where workers run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cores {
    /// The first of the allowed CPUs, one for each queue.
    Auto,
    /// These CPU numbers, in the order of the queues.
    List(Vec<u32>),
}

/// How fast connections send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Congestion {
    /// RFC 9438.
    #[default]
    Cubic,
    /// RFC 5681.
    NewReno,
}

/// What a worker without work does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// Spins a little, then sleeps until a frame or the next timer.
    Adaptive,
    /// Never sleeps.
    Busy,
}

/// `[worker]`: sizes of one worker's tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerConfig {
    /// Where workers run.
    pub cores: Cores,
    /// What they do without work.
    pub idle: Idle,
    /// Synchronized connections a worker holds.
    pub connections: u32,
    /// Half-open connections a worker holds.
    pub half_open: u32,
    /// Percent of `half_open` from which SYNs are answered by cookies; `None` drops what does not fit.
    pub half_open_cookies: Option<u8>,
    /// `TIME_WAIT` records a worker holds.
    pub time_wait: u32,
    /// Buffer chunks of 2 KiB of a worker.
    pub chunks: u32,
}

/// Size of a buffer chunk in bytes: the unit of [`WorkerConfig::chunks`].
pub const CHUNK_BYTES: u64 = 2048;

impl Default for WorkerConfig {
    fn default() -> Self {
        Self {
            cores: Cores::Auto,
            idle: Idle::Adaptive,
            connections: 131_072,
            half_open: 16_384,
            half_open_cookies: Some(75),
            time_wait: 1_048_576,
            chunks: 32_768,
        }
    }
}

/// `[tcp]`: the protocol's limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpConfig {
    /// How long `TIME_WAIT` is held (2MSL; RFC 9293 §3.4.2 says 240 s).
    pub time_wait: Duration,
    /// Longest stay in `FIN_WAIT_2` when nobody reads.
    pub fin_wait_2: Duration,
    /// Longest a service may keep a connection in `CLOSE_WAIT`.
    pub close_wait: Duration,
    /// Retransmissions without an answer for this long end a connection (R2 of RFC 9293 §3.8.3).
    pub give_up: Duration,
    /// Retransmissions of SYN and SYN-ACK.
    pub syn_retries: u8,
    /// Connections without data for this long are closed; `None` for never. Listeners may differ.
    pub idle: Option<Duration>,
    /// How connections send, where a listener does not say.
    pub congestion: Congestion,
    /// Whether connections opened from here ask for ECN.
    pub ecn_outgoing: bool,
    /// Most bytes a connection queues for sending.
    pub send_buffer: u32,
    /// Most bytes a connection holds unread; also its largest receive window.
    pub receive_buffer: u32,
    /// The receive window a connection begins with, unless `receive_buffer` is smaller.
    pub receive_window: u32,
    /// Largest segment in both directions, in bytes of payload; `None` derives it from the interface's MTU.
    pub mss: Option<u16>,
    /// TTL or hop limit of what is sent.
    pub ttl: u8,
    /// RSTs, and ACKs from `TIME_WAIT`, that a worker sends in a second.
    pub rst_budget: u32,
    /// Challenge ACKs a connection sends in a second.
    pub challenge_ack_per_conn: u8,
    /// Longest an acknowledgment is held back (RFC 9293 §3.8.6.3: below 500 ms).
    pub delayed_ack: Duration,
}

impl Default for TcpConfig {
    fn default() -> Self {
        Self {
            time_wait: Duration::from_secs(60),
            fin_wait_2: Duration::from_secs(60),
            close_wait: Duration::from_secs(300),
            give_up: Duration::from_secs(100),
            syn_retries: 5,
            idle: None,
            congestion: Congestion::Cubic,
            ecn_outgoing: false,
            send_buffer: 64 << 10,
            receive_buffer: 1 << 20,
            receive_window: 64 << 10,
            mss: None,
            ttl: 64,
            rst_budget: 1000,
            challenge_ack_per_conn: 2,
            delayed_ack: Duration::from_millis(40),
        }
    }
}

/// `[[listener]]`: an address (or several) and what answers there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerConfig {
    /// Its name in logs; unique.
    pub name: String,
    /// Where it listens. The unspecified address stands for every address of its family.
    pub addresses: Vec<SocketAddr>,
    /// What answers.
    pub service: ServiceConfig,
    /// Connections without data for this long are closed; `None` for never.
    pub idle: Option<Duration>,
    /// Most bytes read and discarded by a lingering close.
    pub linger_bytes: u64,
    /// Longest time of a lingering close.
    pub linger_time: Duration,
    /// How fast its connections send.
    pub congestion: Congestion,
    /// Retransmissions without an answer for this long end a connection.
    pub give_up: Duration,
    /// A peer that was quiet for this long is asked whether it is there; `None` for never.
    pub keepalive_idle: Option<Duration>,
    /// And again after this long without an answer.
    pub keepalive_interval: Duration,
    /// So many unanswered questions end the connection.
    pub keepalive_probes: u8,
    /// Whether peers that ask for ECN (RFC 3168) get it.
    pub ecn: bool,
    /// Most bytes a connection queues for sending.
    pub send_buffer: u32,
    /// Most bytes a connection holds unread; also its largest receive window.
    pub receive_buffer: u32,
    /// A peer that answers but takes nothing of what waits for it is reset after this long; `None` for never.
    pub zero_window: Option<Duration>,
}

impl Default for ListenerConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            addresses: Vec::new(),
            service: ServiceConfig::Discard,
            idle: None,
            linger_bytes: 64 << 10,
            linger_time: Duration::from_secs(2),
            congestion: Congestion::Cubic,
            give_up: TcpConfig::default().give_up,
            keepalive_idle: None,
            keepalive_interval: Duration::from_secs(75),
            keepalive_probes: 9,
            ecn: true,
            send_buffer: TcpConfig::default().send_buffer,
            receive_buffer: TcpConfig::default().receive_buffer,
            zero_window: Some(Duration::from_secs(600)),
        }
    }
}

/// What answers on a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceConfig {
    /// Sends back what it receives.
    Echo,
    /// Reads and forgets.
    Discard,
    /// Answers requests with one body.
    Http(HttpConfig),
}

impl ServiceConfig {
    /// The value of the `service` key.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Discard => "discard",
            Self::Http(_) => "http",
        }
    }
}

/// Where a response body came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodySource {
    /// The `body` key.
    Inline,
    /// The file of the `file` key, resolved.
    File(PathBuf),
}

/// `[listener.http]`: the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    /// The body of every response.
    pub body: Vec<u8>,
    /// Where it came from.
    pub source: BodySource,
    /// The `Content-Type` field.
    pub content_type: String,
    /// Whether a connection may carry more than one request.
    pub keep_alive: bool,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            body: b"finwheel\n".to_vec(),
            source: BodySource::Inline,
            content_type: "text/plain; charset=utf-8".into(),
            keep_alive: true,
        }
    }
}

/// What a SYN gets during a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewDuringDrain {
    /// Nothing.
    Drop,
    /// A RST.
    Reset,
    /// It is accepted and closed.
    Close,
}

impl NewDuringDrain {
    /// The value of the `new` key.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Reset => "reset",
            Self::Close => "close",
        }
    }
}

/// `[drain]`: the end of connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainConfig {
    /// The process has ended this long after the drain began; what is left shortly before is reset.
    pub deadline: Duration,
    /// The time over which connections are closed, evenly.
    pub over: Duration,
    /// What new connections get meanwhile.
    pub new: NewDuringDrain,
}

impl Default for DrainConfig {
    fn default() -> Self {
        Self { deadline: Duration::from_secs(30), over: Duration::ZERO, new: NewDuringDrain::Drop }
    }
}

/// Where the admin socket is unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/finwheel/admin.sock";

/// `[admin]`: the socket that operators reach the process by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    /// Its path, resolved; `None` for no socket.
    pub socket: Option<PathBuf>,
    /// The group that may use it beside the owner.
    pub group: Option<String>,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { socket: Some(PathBuf::from(DEFAULT_SOCKET)), group: None }
    }
}

/// `[close_log]`: records of connections that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseLogConfig {
    /// Records that each worker keeps.
    pub keep: u32,
    /// The file that they are written to, resolved; `None` for none.
    pub file: Option<PathBuf>,
    /// One of so many is written.
    pub sample: u32,
}

impl Default for CloseLogConfig {
    fn default() -> Self {
        Self { keep: 1024, file: None, sample: 1 }
    }
}

/// `[process]`: what the process may do once it has started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessConfig {
    /// Whether it gives up capabilities and system calls that it needs no more.
    pub sandbox: bool,
}

impl Default for ProcessConfig {
    fn default() -> Self {
        Self { sandbox: true }
    }
}

/// `[metrics]`: the HTTP end for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsConfig {
    /// Where the kernel's TCP listens for scrapes; `None` for nowhere.
    pub listen: Option<SocketAddr>,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self { listen: Some(SocketAddr::from(([127, 0, 0, 1], 9464))) }
    }
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// What ends or endangers the process.
    Error,
    /// And what deserves a look.
    Warn,
    /// And the steps of the process's life.
    Info,
    /// And what led to them.
    Debug,
    /// And everything else.
    Trace,
}

impl LogLevel {
    /// The value of the `level` key.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// The shape of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `[log]`: lines on standard error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// How much.
    pub level: LogLevel,
    /// In which shape.
    pub format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: LogLevel::Info, format: LogFormat::Text }
    }
}

/// Bounds of single keys. Each says what happens at its ends; the relations between keys are in `validate`.
pub(super) mod bounds {
    use super::{Duration, RangeInclusive};

    /// Longest interface name in bytes: `IFNAMSIZ` (16) without the final zero.
    pub const INTERFACE_NAME_BYTES: usize = 15;
    /// Queue and CPU numbers; the kernel's largest `NR_CPUS` is 8192, and drivers have no more queues than that.
    pub const INDEX: RangeInclusive<u64> = 0..=8191;
    /// Descriptors: fewer than one burst (64) starve the loop; beyond 32768 a ring only adds latency and cache
    /// misses, and drivers refuse it for zero-copy.
    pub const RING_SIZE: RangeInclusive<u64> = 64..=32_768;
    /// Frames of a queue; 2^20 frames of 4 KiB are 4 GiB of locked memory.
    pub const FRAMES: RangeInclusive<u64> = 128..=1 << 20;
    /// Connections of a worker; 2^24 records take about 4 GiB.
    pub const CONNECTIONS: RangeInclusive<u64> = 1..=1 << 24;
    /// Half-open connections; without any no handshake could begin.
    pub const HALF_OPEN: RangeInclusive<u64> = 1..=1 << 22;
    /// Percent of the half-open table before cookies; 0 keeps no half-open connection, 100 leaves no room for pairs that
    /// are re-opened from `TIME_WAIT`.
    pub const HALF_OPEN_COOKIES: RangeInclusive<u64> = 0..=100;
    /// `TIME_WAIT` records; 2^27 take about 5 GiB. Fewer than 1024 are evicted before they protect anything.
    pub const TIME_WAIT_RECORDS: RangeInclusive<u64> = 1024..=1 << 27;
    /// Chunks of 2 KiB; 2^23 are 16 GiB.
    pub const CHUNKS: RangeInclusive<u64> = 64..=1 << 23;
    /// 2MSL: a millisecond for closed networks and tests, 240 s as RFC 9293 §3.4.2 has it.
    pub const TIME_WAIT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(240);
    /// Limits of half-closed states: below 100 ms a normal round trip would be cut off.
    pub const HALF_CLOSED: RangeInclusive<Duration> =
        Duration::from_millis(100)..=Duration::from_secs(86_400);
    /// Give-up time: below one second a single lost segment (initial RTO 1 s, RFC 6298 §2.1) ends a connection.
    pub const GIVE_UP: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
    /// SYN retransmissions; with back-off 10 of them take 17 minutes.
    pub const SYN_RETRIES: RangeInclusive<u64> = 0..=10;
    /// Idle limit when it is on; 0 is "off".
    pub const IDLE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(7 * 86_400);
    /// Buffers: one chunk at least; the window field with the largest scale (RFC 7323 §2.3) is far beyond 16 MiB,
    /// which is what one peer may take from the pool.
    pub const BUFFER: RangeInclusive<u64> = 2048..=16 << 20;
    /// MSS when it is set: 88 is what IPv4's smallest MTU era allows and Linux's floor; 9160 fits jumbo frames.
    pub const MSS: RangeInclusive<u64> = 88..=9160;
    /// TTL; 0 would not leave the host.
    pub const TTL: RangeInclusive<u64> = 1..=255;
    /// Replies per second; 0 sends none.
    pub const RST_BUDGET: RangeInclusive<u64> = 0..=10_000_000;
    /// Challenge ACKs; 0 would leave a peer that restarted hanging, so at least one. The
    /// count is a byte in every connection.
    pub const CHALLENGE_ACKS: RangeInclusive<u64> = 1..=255;
    /// Delayed ACK: below 500 ms by RFC 9293 §3.8.6.3 (MUST-58); 0 acknowledges at once.
    pub const DELAYED_ACK: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_millis(499);
    /// Lingering close: 0 discards nothing.
    pub const LINGER_BYTES: RangeInclusive<u64> = 0..=1 << 30;
    /// Lingering close: 0 does not wait.
    pub const LINGER_TIME: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(300);
    /// Keep-alive: below a second it would be a second retransmission timer.
    pub const KEEPALIVE_INTERVAL: RangeInclusive<Duration> =
        Duration::from_secs(1)..=Duration::from_secs(7200);
    /// Keep-alive: a single lost segment must not look like a dead peer, so two at least.
    pub const KEEPALIVE_PROBES: RangeInclusive<u64> = 2..=255;
    /// Drain: 0 resets at once; service managers give up long before an hour.
    pub const DRAIN: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3600);
    /// Close records kept by a worker, some 200 bytes each; 0 keeps none.
    pub const KEEP: RangeInclusive<u64> = 0..=65_536;
    /// One record of so many is written.
    pub const SAMPLE: RangeInclusive<u64> = 1..=1_000_000;
    /// Bytes of a socket's path: `sun_path` (108) without the final zero.
    pub const SOCKET_BYTES: usize = 107;
    /// Addresses of all listeners together: the size of the XDP program's table of claims.
    pub const ADDRESSES: usize = 1024;
    /// Bytes of a listener's name.
    pub const NAME_BYTES: usize = 64;
    /// Bytes of a response body; it stands in memory once a worker.
    pub const BODY_BYTES: u64 = 16 << 20;
}
