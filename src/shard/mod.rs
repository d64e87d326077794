//! One worker: tables, wheels and the loop.

pub mod wheel;
