//! What is counted, by whom, and how it is shown.
//!
//! ```text
//! worker ──Block (mailbox)──▶ control plane ──update──▶ Exposition ──render──▶ /metrics
//!                                                           └──merged──▶ whoever wants totals
//! ```
//!
//! [`block`] is what a worker counts and [`gauges`] what it tells beside that, [`catalog`] the one table of what operators
//! see, [`exposition`] the way from one to the other. [`live`] keeps the last minutes for those who watch without a
//! Prometheus: the page at the metrics address and `finwheel top`.

pub mod block;
pub mod buckets;
pub mod catalog;
pub mod exposition;
pub mod gauges;
pub mod live;
pub mod process;
