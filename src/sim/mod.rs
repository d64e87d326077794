//! Seeded simulation of whole shards over the simulated link: what is tested is what ships.
//!
//! [`world`] is two ends and a link under one clock; [`client`] the plans a client plays and checks; [`fleet`] many
//! such clients against a server with all services, the scenario of the in-memory demo and of the simulation tests.

pub mod client;
pub mod fleet;
pub mod world;
