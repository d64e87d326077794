//! Fuzz targets: what a peer, an operator or a client may send must never panic, leak, hang, or be believed twice.
//!
//! ```text
//! tests/fuzz/__fuzz__/TARGET/corpus ─▶ bolero: every entry, each time        found faults stay as regression-* entries
//! a fixed seed ─▶ engine::seeded: mutants of the corpus and random bytes     the bounded run of `make test`
//! make fuzz TARGET=… TIME=… ─▶ the same from fresh seeds, for a time
//! ```
//!
//! Each target is a function of bytes, so that the three feed the same code. One test below for each.

mod config;
mod cookies;
mod engine;
mod http;
mod ingress;
mod script;
mod service;
mod wire;

use engine::Bounds;

/// A target: the corpus through bolero, or under `cargo bolero` whatever its engine makes; then the seeded inputs.
macro_rules! target {
    ($(#[$doc:meta])* $name:ident, $inputs:expr, $len:expr, $function:path) => {
        $(#[$doc])*
        #[test]
        fn $name() {
            // The whole corpus, however long it takes, and nothing of bolero's own that would not come again.
            bolero::check!().with_iterations(0).with_test_time(std::time::Duration::MAX).for_each($function);
            engine::seeded(stringify!($name), Bounds { inputs: $inputs, len: $len }, $function);
        }
    };
}

target!(
    /// Arbitrary frames: no panic, and what parses says the same when it is written and read again.
    wire_frame, 300_000, 200, wire::frame);
target!(
    /// Arbitrary option bytes: no panic, bounds, and a list that is written reads the same.
    tcp_options, 500_000, 40, wire::options);
target!(
    /// ICMP errors with arbitrary quotes: only a whole and plausible one is read, and it names what it quotes.
    icmp_quote, 200_000, 120, wire::icmp);
target!(
    /// A live shard under arbitrary sequences of segments, times, service actions, ICMP errors and connects.
    ingress, 4000, 480, ingress::run);
target!(
    /// Configuration files: valid, or refused with a line that exists and a message.
    config_text, 6000, 400, config::text);
target!(
    /// Requests in pieces are answered as in one.
    http_pieces, 60_000, 400, http::pieces);
target!(
    /// Cookies: those that were given out are good at their worker and in their time, forged ones are not.
    syn_cookies, 60_000, 64, cookies::cookies);
