//! The life of the process: start, readiness, drain, HTTP. Reaches shards by mailbox only.
//!
//! ```text
//! SIGTERM ──▶ lifecycle ──advance──▶ Phases ──▶ whoever watches
//! workers ──Block──▶ Exposition ──┐     │
//!                     operator ◀──┴─ http: /metrics /healthz /readyz
//! ```
//!
//! [`http`] runs in a thread of its own with a current-thread runtime, so a slow scrape delays nothing else.

pub mod drain;
pub mod http;
mod outcome;
pub mod phase;
pub mod rlimit;
mod settings;
pub mod signals;
mod supervisor;
mod terminator;
mod workers;

pub use outcome::{Outcome, WorkerFailure};
pub use settings::{Cores, ListenerSettings, ServiceFactory, Settings};
pub use terminator::{Control, StartError, Terminator};
