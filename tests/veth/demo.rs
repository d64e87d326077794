//! `finwheel demo` as a stranger runs it: the totals in JSON, an interrupt, and without any privileges.

use crate::common::until;
use crate::tools::{LIMIT, Ran, Running, rig_with, run};
use finwheel::rig::RigConfig;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

const BINARY: &str = env!("CARGO_BIN_EXE_finwheel");

/// Names of the namespaces that a process has made.
fn namespaces_of(pid: u32) -> Vec<String> {
    let prefix = format!("fw{pid}-");
    let Ok(entries) = std::fs::read_dir("/run/netns") else { return Vec::new() };
    let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
    names.filter(|n| n.starts_with(&prefix)).collect()
}

/// The last line of standard output, which must say that all went well.
#[track_caller]
fn totals(ran: &Ran, backend: &str, connections: u64) -> Value {
    assert!(ran.status.success(), "{}", ran.all());
    let text = ran.text();
    let last: Value = serde_json::from_str(text.lines().last().expect("a line")).unwrap();
    assert_eq!(last["backend"], backend, "{last}");
    for key in ["asked", "opened", "graceful"] {
        assert_eq!(last[key], connections, "{key}: {last}");
    }
    for key in ["failed", "resets"] {
        assert_eq!(last[key], 0, "{key}: {last}");
    }
    for path in ["passive", "active", "half_close", "simultaneous"] {
        assert!(last["by_path"][path].as_u64().expect("a number") > 0, "{path}: {last}");
    }
    println!("{last}");
    last
}

#[test]
fn two_thousand_connections_all_end_right_on_af_xdp_and_nothing_stays_behind() {
    let rig = rig_with!(RigConfig::default(),);
    drop(rig);
    // By way of a shell, whose process it becomes, for its number.
    let mut demo = Command::new("sh");
    demo.args(["-c", "echo $$ >&2; exec \"$0\" demo --connections 2000 --json", BINARY]);
    let ran = run(demo, b"", LIMIT);
    let pid: u32 = ran.stderr.lines().next().expect("the number").parse().unwrap();
    totals(&ran, "af_xdp", 2000);
    for order in ["client first", "server first", "half-close", "both at once"] {
        assert!(ran.stderr.contains(&format!("\n{order}")), "{}", ran.all());
    }
    assert!(!ran.stderr.contains("(not observed)"), "{}", ran.all());
    assert_eq!(namespaces_of(pid), Vec::<String>::new());
}

#[test]
fn an_interrupt_ends_it_at_once_and_nothing_stays_behind() {
    let rig = rig_with!(RigConfig::default(),);
    drop(rig);
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let dir = tempfile::tempdir().unwrap();
        let said = dir.path().join("said");
        let mut demo = Command::new(BINARY);
        demo.args(["demo", "--connections", "10000000"]).stdin(Stdio::null()).stderr(Stdio::null());
        demo.stdout(std::fs::File::create(&said).unwrap());
        let mut demo = Running(demo.spawn().unwrap());
        let pid = demo.0.id();
        until("the demo is in the middle of it", LIMIT, || {
            assert!(demo.wait(Duration::ZERO).is_none(), "{}", std::fs::read_to_string(&said).unwrap());
            std::fs::metadata(&said).unwrap().len() > 300
        });
        assert_eq!(namespaces_of(pid).len(), 2);
        demo.signal(signal);
        let status = demo.wait(Duration::from_secs(10)).expect("it ends");
        assert!(!status.success(), "{signal}: {status}");
        assert_eq!(namespaces_of(pid), Vec::<String>::new(), "{signal}");
    }
}

#[test]
fn without_privileges_it_says_so_and_plays_the_same_in_memory() {
    let rig = rig_with!(RigConfig::default(), "setpriv");
    drop(rig);
    // A place that anybody may look into.
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let binary = dir.path().join("finwheel");
    std::fs::copy(BINARY, &binary).unwrap();
    for (args, why) in [
        (&["--in-memory"][..], "simulated link: asked for\n"),
        (&[], "simulated link, because AF_XDP cannot be had here: "),
    ] {
        let mut demo = Command::new("setpriv");
        demo.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&binary);
        demo.args(["demo", "--connections", "2000", "--json"]).args(args);
        let ran = run(demo, b"", LIMIT);
        assert!(ran.stderr.contains(why), "{}", ran.all());
        let last = totals(&ran, "memory", 2000);
        assert!(last["mode"].as_str().expect("text").starts_with("simulated link"), "{last}");
    }
}
