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
//!
//!  finwheel ss, drain, … ──▶ admin ──Request──▶ Supervisor (operate) ──Command──▶ workers
//!  workers ──close records──▶ close_log ──▶ file, followers
//! ```
//!
//! | thread | does |
//! |---|---|
//! | `fw-worker-N` | turns one shard on one core; shares nothing with the others but the mailboxes |
//! | `fw-control` | the supervisor: reports, lease, failures, drain; owns the steering program |
//! | `fw-http` | a current-thread runtime for operators, so a slow scrape delays nothing else |
//! | `fw-admin` | another one, for the admin socket |
//! | `fw-closes` | writes close records and passes them to followers |
//! | `fw-signals` | waits for SIGTERM, SIGINT and SIGHUP (`finwheel run` alone) |
//!
//! Order of the end: services close, workers stop, their ports are dropped, the steering program is detached. Claimed
//! frames so meet a worker, or nobody for an instant, but the kernel only when nothing of ours is left that it could
//! reset.
//!
//! Privileges: those of [`NEEDED`](crate::port::xsk::NEEDED) for the start, `CAP_NET_ADMIN` up to the detaching; what
//! `finwheel run` gives up in between: [`sandbox`].

mod accept;
pub mod admin;
mod capture;
mod close_log;
pub mod drain;
pub mod http;
mod live;
mod names;
mod operate;
mod outbound;
mod outcome;
pub mod phase;
mod reload;
pub mod rlimit;
pub mod sandbox;
mod settings;
pub mod signals;
mod status;
mod supervisor;
mod terminator;
mod workers;

pub use admin::AdminSettings;
pub use close_log::CloseLogSettings;
pub use outbound::ConnectError;
pub use outcome::{Outcome, WorkerFailure};
pub use phase::{Phase, Phases};
pub use reload::{ReloadError, Reloaded, Source};
pub use settings::{ClientSettings, Cores, ListenerSettings, ServiceFactory, Settings};
pub use terminator::{Control, StartError, Terminator};
