//! finwheel: a TCP connection terminator on AF_XDP that ends every connection right.
//!
//! ```text
//!  NIC queue q ──XDP steer──▶ rx ring ─▶ parse ─▶ lookup ─▶ TCP state machine ─▶ service ─┐
//!      (else ▶ kernel)                   wire/    shard/    tcp/              service/    │
//!  NIC queue q ◀───────────── tx ring ◀─ emit ◀── output ◀── timers (wheel) ◀─────────────┘
//! ```
//!
//! | module | holds | knows |
//! |---|---|---|
//! | [`wire`] | frames to typed headers and back | nothing above it |
//! | [`tcp`] | the protocol, without clock, socket or randomness of its own | `wire` |
//! | [`port`] | AF_XDP and the simulated link | frames |
//! | [`service`] | what runs on a connection: echo, discard, http | its own context |
//! | [`shard`] | one worker's tables, wheels and loop | all of the above, by trait |
//! | [`metrics`] | what is counted and how it is shown | the catalogue |
//! | [`config`] | the file, its schema, its errors | values only |
//! | [`control`] | life of the process, HTTP, drain | shards by mailbox only |
//! | [`doctor`] | is this machine as finwheel needs it? | `port` and the configuration |
//! | [`rig`] | throwaway namespaces and kernel peers for demo and tests | the operating system |
//! | [`sim`] | seeded simulation of whole shards | shards and the simulated link |
//! | [`cli`] | one file a subcommand | everything |

pub mod cli;
pub mod config;
pub mod control;
pub mod doctor;
pub mod drop;
pub mod memory;
pub mod metrics;
pub mod port;
pub mod rig;
pub mod service;
pub mod shard;
pub mod sim;
pub mod tcp;
pub mod time;
pub mod wire;
