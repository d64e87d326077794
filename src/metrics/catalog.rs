//! The one table of metrics: every name, kind, unit, help text and set of labels that operators see.
//!
//! [`super::exposition`] takes them from here, and nothing else declares one. Names follow the conventions of
//! Prometheus: base units, counters end in `_total`.

/// What kind of series a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows while the process lives.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Cumulative buckets, a sum and a count.
    Histogram,
}

/// What one step of a metric's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things that are counted.
    Count,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
    /// A fraction, 0 to 1.
    Ratio,
}

/// One metric.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// Its unit.
    pub unit: Unit,
    /// What it says, in one sentence.
    pub help: &'static str,
    /// Names of its labels, in the order in which values are given.
    pub labels: &'static [&'static str],
}

macro_rules! catalog {
    ($($id:ident: $kind:ident, $unit:ident, $name:literal, [$($label:literal),*], $help:literal;)*) => {
        $(
            #[doc = concat!("`", $name, "`: ", $help)]
            pub static $id: Metric = Metric {
                name: $name,
                kind: Kind::$kind,
                unit: Unit::$unit,
                help: $help,
                labels: &[$($label),*],
            };
        )*
        /// Every metric.
        pub static CATALOG: &[&Metric] = &[$(&$id),*];
    };
}

catalog! {
    BUILD_INFO: Gauge, Count, "finwheel_build_info", ["version", "profile", "arch"],
        "Always 1; the labels tell the version that runs, how it was compiled, and for which processor.";
    UPTIME: Gauge, Seconds, "finwheel_uptime_seconds", [],
        "Time since the process started.";
    CPU: Counter, Seconds, "finwheel_cpu_seconds_total", ["mode"],
        "Processor time that the process took, in its own code and in the kernel on its behalf.";
    RESIDENT_MEMORY: Gauge, Bytes, "finwheel_resident_memory_bytes", [],
        "Memory of the process that is resident; tables are reserved at start and become so as they are first used.";
    CONNECTIONS: Gauge, Count, "finwheel_connections", ["state"],
        "Connections in each state of RFC 9293; LISTEN counts listeners.";
    OPENED: Counter, Count, "finwheel_connections_opened_total", ["role"],
        "Connections opened: passive by peers, active from here.";
    TRANSITIONS: Counter, Count, "finwheel_transitions_total", ["from", "event", "to"],
        "Events that reached a connection, by the row of the transition table that they followed.";
    LISTENER_OPENED: Counter, Count, "finwheel_listener_connections_opened_total", ["listener"],
        "Connections opened, by listener; (outbound) are those opened from here.";
    LISTENER_ACTIVE: Gauge, Count, "finwheel_listener_connections_active", ["listener"],
        "Connections open now, by listener; TIME_WAIT is not among them.";
    LISTENER_BYTES: Counter, Bytes, "finwheel_listener_payload_bytes_total", ["listener", "direction"],
        "Payload by listener: received in order, and sent and acknowledged.";
    LISTENER_CLOSES: Counter, Count, "finwheel_listener_closes_total", ["listener", "path", "cause"],
        "Connections ended, by listener, how they closed, and why; combinations that occurred.";
    LISTENER_CLOSE_DURATION: Histogram, Seconds, "finwheel_listener_close_duration_seconds", ["listener"],
        "Time from the first FIN to the end of the connection, by listener (TIME_WAIT not included).";
    HALF_OPEN_GIVEN_UP: Counter, Count, "finwheel_half_open_given_up_total", [],
        "Half-open connections given up because the handshake was never completed.";
    SYN_COOKIES: Counter, Count, "finwheel_syn_cookies_total", ["event"],
        "SYNs answered by a cookie, connections opened by one, and segments refused that brought none.";
    HANDSHAKE_DURATION: Histogram, Seconds, "finwheel_handshake_duration_seconds", [],
        "Time from a SYN to the acknowledgment of its SYN-ACK (unknown, so not counted, after a cookie).";
    CLOSES: Counter, Count, "finwheel_closes_total", ["path", "first", "cause"],
        "Connections ended, by how they closed, who was first, and why; combinations that occurred.";
    CLOSE_DURATION: Histogram, Seconds, "finwheel_close_duration_seconds", ["path"],
        "Time from the first FIN to the end of the connection (TIME_WAIT not included).";
    TIME_WAIT_PEAK: Gauge, Count, "finwheel_time_wait_peak", ["worker"],
        "Highest population of TIME_WAIT since the start.";
    EXPIRY_BATCH: Histogram, Count, "finwheel_time_wait_expiry_batch", [],
        "TIME_WAIT records that left in one turn of a worker, of turns in which any did.";
    TIME_WAIT_EXPIRED: Counter, Count, "finwheel_time_wait_expired_total", [],
        "TIME_WAIT records that lasted their time.";
    TIME_WAIT_EVICTED: Counter, Count, "finwheel_time_wait_evicted_total", [],
        "TIME_WAIT records evicted early because the table was full.";
    TIME_WAIT_REOPENED: Counter, Count, "finwheel_time_wait_reopened_total", [],
        "TIME_WAIT records that a newer SYN turned into a connection.";
    RETRANSMISSIONS: Counter, Count, "finwheel_retransmissions_total", ["kind"],
        "Segments sent again.";
    RESETS: Counter, Count, "finwheel_resets_total", ["direction", "cause"],
        "RSTs sent, and RSTs received and accepted.";
    CHALLENGE_ACKS: Counter, Count, "finwheel_challenge_acks_total", [],
        "Challenge ACKs sent (RFC 5961).";
    BUDGET_REFUSALS: Counter, Count, "finwheel_budget_refusals_total", ["budget"],
        "Answers not given and frames not passed on because their budget for the second was used up.";
    OUT_OF_ORDER_GIVEN_UP: Counter, Count, "finwheel_out_of_order_given_up_bytes_total", [],
        "Bytes received beyond a gap and given up for bytes in order, the connection's share of the pool being used up.";
    ICMP_ERRORS: Counter, Count, "finwheel_icmp_errors_total", ["kind"],
        "ICMP errors that quote a segment in flight.";
    PATH_MTU: Counter, Count, "finwheel_path_mtu_changes_total", ["cause"],
        "Connections whose segment size changed: lowered by a router's word or after timeouts of full segments, or raised.";
    ECN: Counter, Count, "finwheel_ecn_segments_total", ["event"],
        "Segments received with a congestion mark, and segments whose sender echoes one on what was sent from here.";
    FRAMES: Counter, Count, "finwheel_frames_total", ["direction"],
        "Frames received from and handed to the rings.";
    BYTES: Counter, Bytes, "finwheel_bytes_total", ["direction"],
        "Bytes of these frames, from the Ethernet header on.";
    DROPS: Counter, Count, "finwheel_drops_total", ["reason"],
        "Frames that ended without having had their effect.";
    MISDIRECTED: Counter, Count, "finwheel_misdirected_frames_total", ["direction"],
        "Frames passed on to the next worker, and received from another.";
    WAKEUPS: Counter, Count, "finwheel_wakeups_total", ["direction"],
        "System calls that woke the kernel for reception or transmission.";
    XSK_EVENTS: Counter, Count, "finwheel_xsk_events_total", ["event"],
        "The kernel's statistics of the AF_XDP sockets, and frames that found the transmit ring full.";
    STEERING: Counter, Count, "finwheel_steering_packets_total", ["verdict"],
        "Packets seen by the XDP program, by what it did with them.";
    CHUNKS_USED: Gauge, Count, "finwheel_chunks_used", ["worker"],
        "Buffer chunks of 2 KiB in use.";
    CHUNKS_CAPACITY: Gauge, Count, "finwheel_chunks_capacity", ["worker"],
        "Buffer chunks of 2 KiB there are.";
    CLOSE_LOG_LOST: Counter, Count, "finwheel_close_log_lost_total", [],
        "Close records that were to be followed or written and found the queue full.";
    CAPTURE: Counter, Count, "finwheel_capture_frames_total", ["event"],
        "Frames that a capture took, and frames that it lost because no buffer was spare.";
    ILLEGAL_TRANSITIONS: Counter, Count, "finwheel_illegal_transitions_total", [],
        "Events that the transition table calls impossible; anything but 0 is a fault of the engine.";
    WORKER_BUSY: Gauge, Ratio, "finwheel_worker_busy_ratio", ["worker"],
        "Share of a worker's time in turns that found work, between its last two reports.";
    WORKER_TURNS: Counter, Count, "finwheel_worker_turns_total", ["worker"],
        "Turns of a worker's loop.";
    RING_DEPTH: Gauge, Count, "finwheel_ring_depth", ["worker", "ring"],
        "Entries in the rings of a worker's socket at its last report: frames to be taken (rx), buffers for reception (fill), frames the kernel has still to send (tx), buffers to be taken back (completion).";
    RING_SLOTS: Gauge, Count, "finwheel_ring_slots", ["worker", "ring"],
        "Slots of these rings.";
    MAILBOX_DEPTH: Gauge, Count, "finwheel_mailbox_depth", ["worker", "queue"],
        "Entries in the queues of a worker's mailbox at its last report.";
    TABLE_RECORDS: Gauge, Count, "finwheel_table_records", ["worker", "table"],
        "Records in a worker's tables.";
    TABLE_CAPACITY: Gauge, Count, "finwheel_table_capacity", ["worker", "table"],
        "Records that a worker's tables have room for.";
    WHEEL_LAG: Gauge, Seconds, "finwheel_wheel_lag_seconds", ["worker", "wheel"],
        "By how much a worker came late to a table's timers, at worst between its last two reports.";
    WORKER_REPORT_AGE: Gauge, Seconds, "finwheel_worker_report_age_seconds", ["worker"],
        "Time since a worker last reported its counters.";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::fmt::Write;

    #[test]
    fn names_follow_the_conventions() {
        let mut names = HashSet::new();
        for m in CATALOG {
            assert!(names.insert(m.name), "{} twice", m.name);
            let rest = m.name.strip_prefix("finwheel_").expect("the prefix");
            assert!(rest.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{}", m.name);
            assert_eq!(m.kind == Kind::Counter, rest.ends_with("_total"), "{}", m.name);
            let base = rest.trim_end_matches("_total");
            match m.unit {
                Unit::Seconds => assert!(base.ends_with("_seconds"), "{}", m.name),
                Unit::Bytes => assert!(base.ends_with("bytes"), "{}", m.name),
                Unit::Ratio => assert!(base.ends_with("_ratio"), "{}", m.name),
                Unit::Count => {}
            }
            assert!(m.help.ends_with('.') && m.help.len() > 10, "{}", m.name);
            assert!(!m.labels.contains(&"le"), "{}", m.name);
        }
    }

    /// `docs/metrics.md` is this. Writing to a String cannot fail.
    fn page() -> String {
        let mut out = String::from(
            "# Metrics\n\nGenerated from `src/metrics/catalog.rs` by `UPDATE_DRAWINGS=1 cargo test --lib metrics::catalog`. \
             Served at `/metrics` of `[metrics] listen`; everything is since the start of the process, a second old at \
             most.\n\n| metric | kind | unit | labels | what it says |\n|---|---|---|---|---|\n",
        );
        for m in CATALOG {
            let labels: Vec<_> = m.labels.iter().map(|l| format!("`{l}`")).collect();
            let (kind, unit) =
                (format!("{:?}", m.kind).to_lowercase(), format!("{:?}", m.unit).to_lowercase());
            let _ = writeln!(out, "| `{}` | {kind} | {unit} | {} | {} |", m.name, labels.join(" "), m.help);
        }
        out += "\n## Values of labels\n\nEvery set is fixed by the code or by the configuration; nothing that a peer sends \
                makes a series.\n\n| label | values |\n|---|---|\n";
        for (label, values) in values() {
            let values: Vec<_> = values.iter().map(|v| format!("`{v}`")).collect();
            let _ = writeln!(out, "| {label} | {} |", values.join(" "));
        }
        out
    }

    fn values() -> Vec<(&'static str, Vec<&'static str>)> {
        use crate::drop::DropReason;
        use crate::metrics::block::{ResetCause, Retransmission};
        use crate::metrics::gauges::{BudgetKind, Queue, Table};
        use crate::tcp::record::{Cause, ClosePath, First};
        use crate::tcp::state::{Event, State};
        vec![
            ("`state`, `from`, `to`", State::ALL.map(State::as_str).to_vec()),
            ("`event` of transitions", Event::ALL.map(Event::as_str).to_vec()),
            ("`path`", ClosePath::ALL.map(ClosePath::as_str).to_vec()),
            ("`first`", First::ALL.map(First::as_str).to_vec()),
            ("`cause` of closes", Cause::ALL.map(Cause::as_str).to_vec()),
            ("`cause` of resets", ResetCause::ALL.map(ResetCause::as_str).to_vec()),
            ("`kind` of retransmissions", Retransmission::ALL.map(Retransmission::as_str).to_vec()),
            ("`reason`", DropReason::ALL.map(DropReason::as_str).to_vec()),
            ("`budget`", BudgetKind::ALL.map(BudgetKind::as_str).to_vec()),
            ("`table`, `wheel`", Table::ALL.map(Table::as_str).to_vec()),
            ("`queue`", Queue::ALL.map(Queue::as_str).to_vec()),
            ("`ring`", crate::port::RingDepths::default().named().map(|(name, _)| name).to_vec()),
        ]
    }

    #[test]
    fn the_page_of_metrics_is_made_from_the_catalogue() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
        if std::env::var_os("UPDATE_DRAWINGS").is_some() {
            std::fs::write(path, page()).expect("written");
        }
        let written = std::fs::read_to_string(path).expect("docs/metrics.md is in the repository");
        assert!(written == page(), "run UPDATE_DRAWINGS=1 cargo test --lib metrics::catalog");
    }
}
