//! The life of the process: start, readiness, drain, HTTP. Reaches shards by mailbox only.
