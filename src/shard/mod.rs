//! One worker: tables, wheels and the loop.

pub mod bulk_wheel;
pub mod index;
pub mod slab;
pub mod wheel;
