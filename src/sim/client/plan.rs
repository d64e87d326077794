//! What a client connection is to do, and the bytes it says.

use crate::service::pattern;
use crate::service::scripted::Command;
use std::fmt::Write;

/// What is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Target {
    /// Echo (RFC 862).
    Echo,
    /// Discard (RFC 863).
    Discard,
    /// The fixed-response HTTP server.
    Http,
}

impl Target {
    /// All targets, in the order of the tally's rows.
    pub const ALL: [Self; 3] = [Self::Echo, Self::Discard, Self::Http];
}

/// Who closes first, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Order {
    /// The client closes once everything came back.
    ClientFirst,
    /// The server closes; the client waits for its FIN, then closes.
    ServerFirst,
    /// The client shuts its sending side down as soon as everything is sent, and goes on receiving.
    HalfClose,
    /// As `HalfClose`, while the server closes at the first byte: both FINs cross. That takes a payload of two
    /// segments or more, all of it within the first window.
    Both,
    /// The client resets the connection in the middle of it.
    Abort,
}

impl Order {
    /// All orders, in the order of the tally's columns.
    pub const ALL: [Self; 5] =
        [Self::ClientFirst, Self::ServerFirst, Self::HalfClose, Self::Both, Self::Abort];
}

/// Bytes after which a scripted server closes in [`Order::Both`].
const BOTH_AFTER: u32 = 1;

/// Sizes that [`Plan::numbered`] draws from, in bytes: most small, some of several segments. For [`Order::Both`] the
/// payload must need more than one segment (1460 bytes) and fit the first window of ten (RFC 6928).
const NUMBERED_PAYLOAD: u64 = 6000;
const NUMBERED_BOTH: (u64, u64) = (4000, 8000);

/// The plan of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What is at the other end.
    pub target: Target,
    /// Who closes first.
    pub order: Order,
    /// Echo and discard: the server is a [`Scripted`](crate::service::scripted::Scripted) one, and the stream begins
    /// with a command. Without it `ServerFirst` is impossible and `Both` is no different from `HalfClose`.
    pub scripted: bool,
    /// Bytes of pattern to send. For http: the body of the last request, which then is a POST; in `Both` bytes after
    /// the last request, which the server must ignore.
    pub payload: u32,
    /// Bytes of pattern a scripted server sends after our FIN in `HalfClose`.
    pub tail: u32,
    /// Requests to pipeline (http; at least one is sent).
    pub requests: u16,
    /// Stream of the payload; see [`pattern`].
    pub seed: u64,
}

impl Plan {
    /// The `n`-th plan of a run that goes round all targets and the four graceful orders, with sizes drawn from
    /// `seed`.
    #[must_use]
    pub fn numbered(seed: u64, n: u64) -> Self {
        let mut random = [0u8; 16];
        pattern::fill(seed, n.wrapping_mul(16), &mut random);
        let [a, b] = [0, 8].map(|i| {
            let part: [u8; 8] = std::array::from_fn(|k| random[i + k]);
            u64::from_le_bytes(part)
        });
        let target = Target::ALL[(n % 3) as usize];
        let order = Order::ALL[(n / 3 % 4) as usize];
        let (low, high) = NUMBERED_BOTH;
        let payload = match order {
            Order::Both => low + a % (high - low),
            Order::ClientFirst | Order::ServerFirst | Order::HalfClose | Order::Abort => a % NUMBERED_PAYLOAD,
        };
        Self {
            target,
            order,
            scripted: true,
            payload: payload as u32,
            tail: (b % NUMBERED_PAYLOAD) as u32,
            requests: 1 + (b >> 32) as u16 % 4,
            seed: seed ^ n,
        }
    }

    /// The command at the head of the stream, if the server is scripted.
    #[must_use]
    pub fn command(&self) -> Option<Command> {
        if !self.scripted || self.target == Target::Http {
            return None;
        }
        Some(match self.order {
            Order::ClientFirst | Order::Abort => Command::Follow,
            Order::ServerFirst => Command::CloseAfter(self.payload),
            Order::HalfClose => Command::HalfClose(self.tail),
            Order::Both => Command::Both(BOTH_AFTER),
        })
    }

    /// Whether the server can play its part.
    #[must_use]
    pub fn possible(&self) -> bool {
        self.target == Target::Http || self.scripted || self.order != Order::ServerFirst
    }

    /// Bytes of the payload that an echo sends back.
    pub(super) fn echoed(&self) -> u32 {
        match (self.target, self.order) {
            (Target::Echo, Order::Both) if self.scripted => self.payload.min(BOTH_AFTER),
            (Target::Echo, _) => self.payload,
            (Target::Discard | Target::Http, _) => 0,
        }
    }

    /// Bytes of the server's own pattern.
    pub(super) fn tail_expected(&self) -> u32 {
        if matches!(self.command(), Some(Command::HalfClose(_))) { self.tail } else { 0 }
    }

    /// Requests that will be answered.
    pub(super) fn requests_expected(&self) -> u16 {
        if self.target == Target::Http { self.requests.max(1) } else { 0 }
    }

    fn prefix(&self) -> Vec<u8> {
        if self.target != Target::Http {
            return self.command().map_or_else(Vec::new, |c| c.to_bytes().to_vec());
        }
        let mut text = String::new();
        for _ in 1..self.requests_expected() {
            text.push_str("GET / HTTP/1.1\r\nHost: finwheel\r\n\r\n");
        }
        let close = matches!(self.order, Order::ServerFirst | Order::Both);
        let post = self.payload > 0 && self.order != Order::Both;
        text.push_str(if post { "POST" } else { "GET" });
        text.push_str(" / HTTP/1.1\r\nHost: finwheel\r\n");
        if post {
            // Writing to a String cannot fail.
            let _ = write!(text, "Content-Length: {}\r\n", self.payload);
        }
        text.push_str(if close { "Connection: close\r\n\r\n" } else { "\r\n" });
        text.into_bytes()
    }
}

/// The bytes a plan says, in order, made as they are needed.
#[derive(Clone, Debug)]
pub struct Upload {
    prefix: Vec<u8>,
    seed: u64,
    total: u64,
    at: u64,
}

impl Upload {
    /// At the start of the plan's stream.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let prefix = plan.prefix();
        let total = prefix.len() as u64 + u64::from(plan.payload);
        Self { prefix, seed: plan.seed, total, at: 0 }
    }

    /// Writes the next bytes into `out` without moving on; returns how many.
    pub fn peek(&self, out: &mut [u8]) -> usize {
        let n = out.len().min(usize::try_from(self.total - self.at).unwrap_or(usize::MAX));
        let prefix = self.prefix.len();
        let from_prefix = n.min(prefix.saturating_sub(usize::try_from(self.at).unwrap_or(usize::MAX)));
        if from_prefix > 0 {
            let at = self.at as usize;
            out[..from_prefix].copy_from_slice(&self.prefix[at..at + from_prefix]);
        }
        let offset = (self.at + from_prefix as u64).saturating_sub(prefix as u64);
        pattern::fill(self.seed, offset, &mut out[from_prefix..n]);
        n
    }

    /// Moves on by `n` bytes that were sent.
    pub fn advance(&mut self, n: usize) {
        self.at = (self.at + n as u64).min(self.total);
    }

    /// Bytes sent.
    #[must_use]
    pub const fn sent(&self) -> u64 {
        self.at
    }

    /// Bytes of the whole stream.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// Whether everything is sent.
    #[must_use]
    pub const fn done(&self) -> bool {
        self.at == self.total
    }
}
