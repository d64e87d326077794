//! Seeded simulation of whole shards over the simulated link: what is tested is what ships.
//!
//! [`world`] is two ends and a link under one clock; [`client`] the plans a client plays and checks; [`fleet`] many
//! such clients against a server with all services, the scenario of the in-memory demo.
//!
//! `finwheel sim` and the simulation tests run the same with everything going wrong that can:
//!
//! ```text
//!  seed ─▶ faults: a swarm ─▶ scenario: sizes, settings, agenda ─▶ run ─▶ report: violations, replay command
//!                                                                  ├─ conduct: whose turn it is; a look after each
//!                                                                  ├─ oracle: bytes, calls, ends; a witness a service
//!                                                                  ├─ journal: the packet log
//!                                                                  └─ books: what must add up at the end
//! ```
//!
//! [`sabotage`] makes the harness wrong on purpose, so that a test can see it fail.

mod books;
pub mod client;
mod conduct;
pub mod faults;
pub mod fleet;
mod journal;
mod oracle;
pub mod report;
mod run;
pub mod sabotage;
pub mod scenario;
pub mod world;

pub use run::run;
