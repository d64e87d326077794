//! The life of the process: start, readiness, drain, HTTP. Reaches shards by mailbox only.
//!
//! ```text
//! SIGTERM ──▶ lifecycle ──advance──▶ Phases ──▶ whoever watches
//! workers ──Block──▶ Exposition ──┐     │
//!                     operator ◀──┴─ http: /metrics /healthz /readyz
//! ```
//!
//! [`http`] runs in a thread of its own with a current-thread runtime, so a slow scrape delays nothing else.

pub mod http;
pub mod phase;
