//! Seeded simulation of whole shards over the simulated link: what is tested is what ships.

pub mod client;
pub mod world;
