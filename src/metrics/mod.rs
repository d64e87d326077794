//! What is counted, by whom, and how it is shown.

pub mod block;
