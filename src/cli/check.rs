//! `finwheel check`: is this file right, and what does it amount to?

use super::{ConfigArgs, EXIT_FAILURE, EXIT_USAGE};
use crate::config::schema::CHUNK_BYTES;
use crate::config::units::{format_duration, format_size};
use crate::config::{self, Config, Cores, Mode, Queues, ZeroCopy};
use crate::shard::{CONNECTION_BYTES, FLIGHT_BYTES, HALF_OPEN_BYTES, TIME_WAIT_BYTES};
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

/// Checks the file, shows a summary on standard output or all errors on standard error.
#[must_use]
pub fn execute(args: &ConfigArgs) -> ExitCode {
    match config::load(&args.config) {
        Ok(loaded) => {
            for w in &loaded.warnings {
                eprintln!("{w}");
            }
            let text = format!("OK {}\n{}", args.config.display(), summary(&loaded.config));
            match std::io::stdout().write_all(text.as_bytes()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(e) => {
                    eprintln!("cannot write to standard output: {e}");
                    ExitCode::from(EXIT_FAILURE)
                }
            }
        }
        Err(e) => {
            eprintln!("{e}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// Bytes of a frame: half a page holds an MTU of 1500, a page is what larger ones take.
const FRAME_BYTES: (u64, u64) = (2048, 4096);

/// Smallest and largest estimate of a worker's memory in bytes, all tables full: with small frames and connections at
/// rest, and with large frames and all of them at work.
fn worker_bytes(c: &Config) -> (u64, u64) {
    let w = &c.worker;
    let records = [
        (w.connections, CONNECTION_BYTES[1]),
        (w.time_wait, TIME_WAIT_BYTES[1]),
        (w.half_open, HALF_OPEN_BYTES[1]),
    ];
    let records: u64 = records.iter().map(|(n, bytes)| u64::from(*n) * *bytes as u64).sum();
    let fixed = records + u64::from(w.chunks) * CHUNK_BYTES;
    let flights = u64::from(w.connections) * FLIGHT_BYTES as u64;
    let frames = u64::from(c.interface.frames);
    (fixed + frames * FRAME_BYTES.0, fixed + flights + frames * FRAME_BYTES.1)
}

/// What a configuration amounts to, in a few lines.
#[must_use]
pub fn summary(c: &Config) -> String {
    let list = |numbers: &[u32]| numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    let queues = match &c.interface.queues {
        Queues::All => "all queues".to_owned(),
        Queues::List(q) => format!("queues {}", list(q)),
    };
    let cores = match &c.worker.cores {
        Cores::Auto => "chosen at start".to_owned(),
        Cores::List(n) => list(n),
    };
    let mode = match c.interface.mode {
        Mode::Auto => "native if possible",
        Mode::Native => "native",
        Mode::Generic => "generic",
    };
    let copy = match c.interface.zero_copy {
        ZeroCopy::Auto => "zero-copy if possible",
        ZeroCopy::Require => "zero-copy",
        ZeroCopy::Off => "copy",
    };
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let (low, high) = worker_bytes(c);
    // TIME_WAIT lasts a millisecond at least, so this divides by no zero.
    let rate = f64::from(c.worker.time_wait) / c.tcp.time_wait.as_secs_f64();
    let mut lines = vec![
        format!("interface  {}, {queues}, {mode}, {copy}", c.interface.name),
        format!(
            "worker     cores {cores}; {} to {} MiB each; {} connections, {} of buffers",
            mib(low),
            mib(high),
            c.worker.connections,
            format_size(u64::from(c.worker.chunks) * CHUNK_BYTES),
        ),
        format!(
            "TIME_WAIT  {} records for {}: {rate:.0} closes a second and worker before the oldest are evicted",
            c.worker.time_wait,
            format_duration(c.tcp.time_wait),
        ),
    ];
    for l in &c.listeners {
        let mut line = format!("listener   {}: {} on", l.name, l.service.as_str());
        for a in &l.addresses {
            // Writing to a String cannot fail.
            let _ = write!(line, " {a}");
        }
        lines.push(line);
    }
    lines.push(match c.metrics.listen {
        Some(a) => format!("metrics    http://{a}/metrics"),
        None => "metrics    off".into(),
    });
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_summary_names_listeners_memory_and_the_rate_that_time_wait_bears() {
        let text = "[interface]\nname = \"eth0\"\nqueues = [0, 3]\n[worker]\ncores = [1, 2]\ntime_wait = 6000\n\
            [[listener]]\nname = \"a\"\naddresses = [\"0.0.0.0:7\", \"[::]:7\"]\nservice = \"echo\"\n";
        let loaded = config::from_text(text, Path::new("t.toml")).unwrap();
        let s = summary(&loaded.config);
        for part in [
            "eth0, queues 0, 3, native if possible, zero-copy if possible",
            "cores 1, 2; ",
            "6000 records for 60s: 100 closes a second",
            "a: echo on 0.0.0.0:7 [::]:7",
            "http://127.0.0.1:9464/metrics",
        ] {
            assert!(s.contains(part), "{part}: {s}");
        }
    }

    #[test]
    fn the_estimate_of_memory_adds_up() {
        let text = "[interface]\nname = \"e\"\n[[listener]]\nname = \"a\"\naddress = \"0.0.0.0:7\"\nservice = \"echo\"\n";
        let c = config::from_text(text, Path::new("t.toml")).unwrap().config;
        // The figures of the manual.
        let fixed = 32_768 * 2048 + 131_072 * 280 + 1_048_576 * 64 + 16_384 * 96;
        let flights = 131_072 * 232;
        assert_eq!(worker_bytes(&c), (fixed + 8192 * 2048, fixed + flights + 8192 * 4096));
    }
}
