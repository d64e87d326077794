//! `finwheel blast` on `AF_XDP`, on a veth: against finwheel at the other end and against the kernel's TCP, with tshark as
//! the judge. Needs root, and for the judge tcpdump and tshark; says so and skips without.
//!
//! | file | what it proves |
//! |---|---|
//! | `own` | `AF_XDP` at both ends: counts are exact at either end, one worker and two; rate, hold, interruption |
//! | `kernel` | servers on the kernel's TCP: every close shape, without a blemish on the wire; sources and their routes |
//! | `nginx` | nginx, in every order of closing |
//! | `refused` | what is missing is named, and nothing is sent |

// The process in the rig, the capture and the judge are those of other tests, which use more of them.
#[allow(dead_code)]
#[path = "../veth/capture.rs"]
mod capture;
#[allow(dead_code, unused_imports, unused_macros)]
#[path = "../run/common.rs"]
mod common;
mod kernel;
mod nginx;
mod own;
mod refused;
mod server;
#[allow(dead_code, unused_imports, unused_macros)]
#[path = "../veth/tools.rs"]
mod tools;

use finwheel::rig::Namespace;
use serde_json::Value;
use std::process::Command;
use tools::{LIMIT, Ran, run};

/// `finwheel blast` in a namespace.
fn command(ns: &Namespace, args: &str) -> Command {
    let mut c = ns.command(env!("CARGO_BIN_EXE_finwheel"));
    c.arg("blast").args(args.split_whitespace());
    c
}

/// The same with `--json`, run to its end. Returns the report, and how it ended.
#[track_caller]
fn blast(ns: &Namespace, args: &str) -> (Value, Ran) {
    let mut c = command(ns, args);
    c.arg("--json");
    let ran = run(c, b"", LIMIT);
    let report = serde_json::from_str(&ran.text());
    (report.unwrap_or_else(|e| panic!("{args}: {e}: {}", ran.all())), ran)
}

/// A number of a report.
#[track_caller]
fn number(report: &Value, path: &str) -> u64 {
    report.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("{path}: {report:#}"))
}

/// Runs it and requires that every one of `n` connections was a success.
#[track_caller]
fn good(ns: &Namespace, n: u64, args: &str) -> Value {
    let (report, ran) = blast(ns, args);
    assert_eq!(ran.status.code(), Some(0), "{args}: {}", ran.all());
    for key in ["/connections", "/opened", "/answered", "/completed"] {
        assert_eq!(number(&report, key), n, "{args}: {key}: {report:#}");
    }
    for key in ["/errors_total", "/cut_short"] {
        assert_eq!(number(&report, key), 0, "{args}: {key}: {report:#}");
    }
    assert_eq!(report["ok"], true);
    assert_eq!(number(&report, "/latency_us/total/count"), n, "{args}");
    report
}
