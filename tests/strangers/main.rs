//! TCPs by others against finwheel over the simulated link, in virtual time, both as client and as server: every byte
//! both ways, every closing order, both IP versions, without faults and with loss, duplication, reordering and
//! corruption. The same seed gives the same packets.
//!
//! ```text
//!  the stranger ── end A ══ link: loss, duplication, reordering, corruption, delay ══ end B ── a shard of finwheel
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `talk` | what both ends of a connection say and how they close, and finwheel's end of it |
//! | `smoltcp_stack` | smoltcp over the link, and its end of the talks |
//! | `world` | both stacks under one clock, and what must hold when all is over |
//! | `smoltcp` | the runs |

mod smoltcp;
mod smoltcp_stack;
mod talk;
mod world;
