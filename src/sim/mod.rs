//! Seeded simulation of whole shards over the simulated link.

pub mod client;
