//! The protocol, sans-IO.

pub mod record;
pub mod state;
