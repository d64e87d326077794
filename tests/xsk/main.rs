//! The real port on real interfaces: `AF_XDP` sockets on a veth between two throwaway namespaces, kernel sockets as
//! the peers. Needs root; says so and skips without.

/// A rig, or the end of the test with the reason on stdout.
macro_rules! rig_or_skip {
    ($config:expr) => {
        match Rig::new($config) {
            Ok(rig) => rig,
            Err(e) if e.is_privilege() => {
                println!("skipped: {e}");
                return;
            }
            Err(e) => panic!("{e}"),
        }
    };
}

mod frames;
mod rig;
mod setup;
mod steering;
mod support;
