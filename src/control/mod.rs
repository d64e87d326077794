//! The life of the process: start, readiness, drain, HTTP. Reaches shards by mailbox only.
//!
//! ```text
//!  Settings ──▶ Terminator::start: metrics server, interface, a worker for each queue, supervisor ──▶ Phase::Ready
//!
//!  SIGTERM ──▶ signals ──▶ Control ──Request──▶ Supervisor ──Command──▶ workers
//!                                                   │  ▲────Reply────────┘
//!                          Phases ◀──advance────────┤
//!                          Exposition ◀──update─────┘
//!                             └──▶ http: /metrics /healthz /readyz, live page ──▶ operator
//! ```
//!
//! | thread | does |
//! |---|---|
//! | `fw-worker-N` | turns one shard on one core; shares nothing with the others but the mailboxes |
//! | `fw-control` | the supervisor: reports, lease, failures, drain; owns the steering program |
//! | `fw-http` | a current-thread runtime for operators, so a slow scrape delays nothing else |
//! | `fw-signals` | waits for SIGTERM and SIGINT (`finwheel run` alone) |
//!
//! Order of the end: services close, workers stop, their ports are dropped, the steering program is detached. Claimed
//! frames so meet a worker, or nobody for an instant, but the kernel only when nothing of ours is left that it could
//! reset.
//!
//! Privileges: those of [`NEEDED`](crate::port::xsk::NEEDED) for the start, `CAP_NET_ADMIN` up to the detaching; what
//! `finwheel run` gives up in between: [`sandbox`].

pub mod drain;
pub mod http;
mod live;
mod outbound;
mod outcome;
pub mod phase;
pub mod rlimit;
pub mod sandbox;
mod settings;
pub mod signals;
mod supervisor;
mod terminator;
mod workers;

pub use outbound::ConnectError;
pub use outcome::{Outcome, WorkerFailure};
pub use phase::{Phase, Phases};
pub use settings::{ClientSettings, Cores, ListenerSettings, ServiceFactory, Settings};
pub use terminator::{Control, StartError, Terminator};
