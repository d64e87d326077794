//! Relations between keys that are each right by themselves.

use super::reader::{Fault, Place, Reader};
use super::schema::{CHUNK_BYTES, Config, Cores, ListenerConfig, Mode, Queues, ZeroCopy, bounds};
use std::collections::HashMap;
use std::net::SocketAddr;

const INTERFACE: Place = Place::of("interface");
const WORKER: Place = Place::of("worker");
const TCP: Place = Place::of("tcp");
const METRICS: Place = Place::of("metrics");

/// Frames beyond both rings: two bursts, those that are worked on and those that answers are written into.
const SPARE_FRAMES: u32 = 2 * crate::port::BURST as u32;

/// Checks every relation and records what does not hold.
pub fn relations(c: &Config, r: &mut Reader<'_>) {
    interface(c, r);
    worker(c, r);
    tcp(c, r);
    addresses(&c.listeners, r);
    metrics(c, r);
}

fn interface(c: &Config, r: &mut Reader<'_>) {
    let i = &c.interface;
    if !i.ring_size.is_power_of_two() {
        let near = i.ring_size.next_power_of_two();
        r.fault(
            INTERFACE,
            "ring_size",
            Fault::new(
                format!("{} is no power of two", i.ring_size),
                format!("the kernel's rings are masks: write {} or {near}", (near / 2).max(64)),
            ),
        );
    }
    let needed = 2 * i.ring_size + SPARE_FRAMES;
    if i.frames < needed {
        r.relation(
            &[(INTERFACE, "frames"), (INTERFACE, "ring_size")],
            Fault::new(
                format!("{} frames cannot fill both directions of rings of {}", i.frames, i.ring_size),
                format!("write frames = {needed} or more, or a smaller ring_size"),
            ),
        );
    }
    if i.mode == Mode::Generic && i.zero_copy == ZeroCopy::Require {
        r.relation(
            &[(INTERFACE, "zero_copy"), (INTERFACE, "mode")],
            Fault::new(
                "generic mode always copies",
                "write mode = \"native\" with zero_copy = \"require\", or zero_copy = \"auto\"",
            ),
        );
    }
}

fn worker(c: &Config, r: &mut Reader<'_>) {
    let w = &c.worker;
    if let (Cores::List(cores), Queues::List(queues)) = (&w.cores, &c.interface.queues)
        && cores.len() != queues.len()
    {
        r.relation(
            &[(WORKER, "cores"), (INTERFACE, "queues")],
            Fault::new(
                format!("{} cores for {} queues", cores.len(), queues.len()),
                "name one core for each queue, in the same order",
            ),
        );
    }
    if w.half_open > w.connections {
        r.relation(
            &[(WORKER, "half_open"), (WORKER, "connections")],
            Fault::new(
                format!(
                    "{} half-open connections would complete into a table of {}",
                    w.half_open, w.connections
                ),
                format!("write half_open = {} or less, or more connections", w.connections),
            ),
        );
    }
    let first = u64::from(c.tcp.receive_window.min(c.tcp.receive_buffer));
    let in_tcp = (
        u64::from(c.tcp.send_buffer) + first,
        [(WORKER, "chunks"), (TCP, "send_buffer"), (TCP, "receive_window")],
    );
    let in_listeners = c.listeners.iter().enumerate().map(|(index, l)| {
        let place = Place { table: "listener", index };
        let first = u64::from(c.tcp.receive_window.min(l.receive_buffer));
        (
            u64::from(l.send_buffer) + first,
            [(WORKER, "chunks"), (place, "send_buffer"), (place, "receive_buffer")],
        )
    });
    let pool = u64::from(w.chunks) * CHUNK_BYTES;
    // One fault is enough: what is wrong in [tcp] is wrong in every listener that follows it.
    if let Some((both, places)) = std::iter::once(in_tcp).chain(in_listeners).find(|(both, _)| *both > pool) {
        let need = both.div_ceil(CHUNK_BYTES);
        r.relation(
            &places,
            Fault::new(
                format!("{} chunks of 2 KiB cannot hold the buffers of a single connection", w.chunks),
                format!("write chunks = {need} or more, or smaller buffers"),
            ),
        );
    }
}

fn tcp(c: &Config, r: &mut Reader<'_>) {
    let t = &c.tcp;
    let windows = [("receive_buffer", t.receive_buffer), ("receive_window", t.receive_window)];
    if let Some(mss) = t.mss
        && let Some((key, window)) = windows.into_iter().find(|(_, w)| *w < 2 * u32::from(mss))
    {
        r.relation(
            &[(TCP, key), (TCP, "mss")],
            Fault::new(
                format!("a window of {window} bytes does not hold two segments of {mss}"),
                format!("peers would wait for the delayed acknowledgment of every segment: raise {key} or lower mss"),
            ),
        );
    }
    if t.time_wait.as_secs() < 1 {
        r.warn(
            TCP,
            "time_wait",
            Fault::new(
                "segments of a closed connection can outlive its TIME_WAIT",
                "below 1s is for tests and closed networks; 60s is the default",
            ),
        );
    }
}

fn addresses(listeners: &[ListenerConfig], r: &mut Reader<'_>) {
    let mut names = HashMap::new();
    let mut claims: HashMap<SocketAddr, &str> = HashMap::new();
    for (index, l) in listeners.iter().enumerate() {
        let place = Place { table: "listener", index };
        if !l.name.is_empty() && names.insert(&l.name, index).is_some() {
            r.relation(
                &[(place, "name")],
                Fault::new(
                    format!("another listener is named \"{}\" too", l.name),
                    "give each listener a name of its own",
                ),
            );
        }
        let keys = [(place, "address"), (place, "addresses")];
        for a in &l.addresses {
            if let Some(other) = claims.insert(*a, &l.name) {
                r.relation(
                    &keys,
                    Fault::new(
                        format!("{a} is claimed by listener \"{other}\" already"),
                        "an address and port can have one listener: change one of them",
                    ),
                );
            }
            if a.port() == 22 {
                r.warn(
                    place,
                    "address",
                    Fault::new(
                        format!("{a} takes the port of ssh"),
                        "logins through this interface will end here and not at the host's sshd",
                    ),
                );
            }
        }
    }
    if claims.len() > bounds::ADDRESSES {
        r.relation(
            &[(Place::of(""), "listener")],
            Fault::new(
                format!("the listeners claim {} addresses", claims.len()),
                format!(
                    "the steering program holds {}: use \"0.0.0.0\" or \"[::]\" where that serves",
                    bounds::ADDRESSES
                ),
            ),
        );
    }
}

fn metrics(c: &Config, r: &mut Reader<'_>) {
    let Some(listen) = c.metrics.listen else { return };
    // Loopback traffic does not pass the interface's rings, so there nothing is taken from the kernel.
    if listen.ip().is_loopback() && c.interface.name != "lo" {
        return;
    }
    for (index, l) in c.listeners.iter().enumerate() {
        let place = Place { table: "listener", index };
        for a in l.addresses.iter().filter(|a| claims(a, &listen)) {
            r.relation(
                &[(METRICS, "listen"), (place, "address"), (place, "addresses")],
                Fault::new(
                    format!(
                        "{listen} would never be reached: listener \"{}\" takes {a} from the kernel",
                        l.name
                    ),
                    "choose another port, or an address such as 127.0.0.1",
                ),
            );
        }
    }
}

/// Whether traffic to a kernel socket bound to `socket` can match the claim on `claimed`.
fn claims(claimed: &SocketAddr, socket: &SocketAddr) -> bool {
    let dual_stack = socket.is_ipv6() && socket.ip().is_unspecified();
    claimed.port() == socket.port()
        && (claimed.is_ipv4() == socket.is_ipv4() || dual_stack)
        && (claimed.ip() == socket.ip() || claimed.ip().is_unspecified() || socket.ip().is_unspecified())
}
