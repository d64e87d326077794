//! The protocol, sans-IO.

pub mod chunk;
pub mod record;
pub mod recvbuf;
pub mod sendbuf;
pub mod state;
