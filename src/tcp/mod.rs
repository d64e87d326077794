//! The protocol, sans-IO: no clock, no socket, no allocation, and no randomness but what is passed in.
//!
//! ```text
//!   Segment ─▶ input ─▶ (event table: state) ─▶ Delivery to the service ─▶ output ─▶ Segment
//!                          ▲                                                ▲
//!                        close (service)                              timers (deadline)
//! ```
//!
//! Three records, by life: [`syn_rcvd::SynRcvd`] (half open), [`conn::Conn`] (synchronized, and what was opened from
//! here; with a [`flight::Flight`] and its name, while it is at work, a [`conn::Live`]), [`time_wait::TimeWait`]. [`state`] holds the one transition table. Section numbers without a name are
//! RFC 9293's.

mod audit;
pub mod chunk;
pub mod close;
pub mod config;
pub mod congestion;
pub mod conn;
mod conn_flags;
pub mod ecn;
pub mod flight;
pub mod input;
pub mod insight;
pub mod isn;
mod live;
pub mod output;
mod packed;
pub mod path;
pub mod record;
pub(crate) mod recovery;
pub mod recvbuf;
pub mod resent;
pub mod rtt;
pub mod sack;
pub mod sendbuf;
pub mod state;
pub mod state_log;
pub mod syn_rcvd;
pub mod syncookie;
pub mod time_wait;
pub mod timers;
pub mod unread;
pub(crate) mod window;

pub use config::TcpConfig;
pub use conn::Conn;
