//! What is counted, by whom, and how it is shown.
//!
//! ```text
//! worker ──Block (mailbox)──▶ control plane ──update──▶ Exposition ──render──▶ /metrics
//!                                                           └──merged──▶ whoever wants totals
//! ```
//!
//! [`block`] is what a worker counts, [`catalog`] the one table of what operators see, [`exposition`] the way from
//! one to the other.

pub mod block;
pub mod catalog;
pub mod exposition;
