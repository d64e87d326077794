//! Where the limit lies on a real link, computed from what was measured: the part of the document that is on paper.

use crate::document::number;
use crate::summary::figure;
use serde_json::Value;
use std::fmt::Write;

/// Bytes that a frame takes on an Ethernet beside itself: preamble, check sequence, gap.
const BESIDE: f64 = 8.0 + 4.0 + 12.0;
/// Ethernet, IPv4 and TCP headers with timestamps, bytes. A SYN's options make it 8 bytes longer.
const HEADERS: f64 = 14.0 + 20.0 + 32.0;
/// Frames from the client in a whole exchange: SYN, ACK, request, FIN, and the ACK of the server's FIN.
const FRAMES_IN: f64 = 5.0;
/// Frames to it: SYN-ACK, response with FIN, the ACK of the client's FIN.
const FRAMES_OUT: f64 = 3.0;
/// Bytes of the bench's request.
const REQUEST: f64 = 110.0;
/// Links, Gbit/s.
const LINKS: [f64; 2] = [25.0, 100.0];
/// Nanoseconds for a frame in and out again over `AF_XDP` with zero-copy: 9.4 million a second and core, as published for
/// mlx5 and a core of 2.4 GHz (Linux, samples/bpf/xdpsock, l2fwd). Not measured here: a veth has no zero-copy.
const ZERO_COPY_NS: f64 = 1e9 / 9.4e6;

/// Exchanges a second that fill a link in the direction of the client's frames.
fn line(gbit: f64) -> f64 {
    let bytes = FRAMES_IN * (HEADERS + BESIDE) + 8.0 + REQUEST;
    gbit * 1e9 / 8.0 / bytes
}

/// Exchanges a second that one core makes, when the engine takes what it takes with ten million residents and the port
/// what it takes on a device with zero-copy.
fn core(lifecycles_per_s: f64) -> f64 {
    1e9 / (1e9 / lifecycles_per_s + FRAMES_IN.max(FRAMES_OUT) * ZERO_COPY_NS)
}

/// Writes the section.
pub fn write(out: &mut String, summary: &Value) {
    out.push_str("\n## On paper: 25 and 100 GbE\n\n");
    let at = |place: &str| figure(summary, place);
    let (Some(engine), Some(veth)) =
        (at("engine.lifecycles_per_s.resident_10m"), at("veth.finwheel.cpu_s_per_million"))
    else {
        out.push_str("Needs the engine's own rate with ten million residents, which was not measured.\n");
        return;
    };
    let (engine_us, veth_us) = (1e6 / engine, veth);
    let _ = write!(
        out,
        "Of the {} µs of its core that a connection costs over the veth, the engine alone takes {} µs (measured with ten \
         million in `TIME_WAIT`); the rest is the copying port: a system call for 32 frames sent, a socket buffer and a copy \
         for each frame in either direction, and the threads that receive. A device with zero-copy has none of that; \
         published for a core of 2.4 GHz are {} ns for a frame in and out again. On that ground, with {FRAMES_IN:.0} frames in \
         and {FRAMES_OUT:.0} out for an exchange such as the bench's:\n\n\
         | link | exchanges a second that fill it | cores with zero-copy | cores at the veth's cost | `TIME_WAIT` at 60 s |\n\
         |---|---|---|---|---|\n",
        number(veth_us),
        number(engine_us),
        number(ZERO_COPY_NS),
    );
    let record = at("memory.time_wait_v4_bytes");
    for gbit in LINKS {
        let rate = line(gbit);
        let records = rate * 60.0;
        let memory =
            record.map_or_else(|| "not measured".into(), |b| format!("{} GB", number(records * b / 1e9)));
        let _ = writeln!(
            out,
            "| {gbit:.0} GbE | {} million | {} | {} | {} million, {memory} |",
            number(rate / 1e6),
            number((rate / core(engine)).ceil()),
            number((rate * veth_us / 1e6).ceil()),
            number(records / 1e6),
        );
    }
    out.push_str(
        "\nSo with zero-copy cores run out before a 100 GbE link does, and memory is bounded by the time that `TIME_WAIT` is \
         held. Workers share nothing, so cores add up as long as RSS spreads the flows.\n",
    );
}
