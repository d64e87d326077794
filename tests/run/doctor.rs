//! The doctor finds what is wrong in a namespace, and the commands that it names mend it.

use crate::common::{ECHO, Process, both, config, metrics, rig_or_skip};
use finwheel::rig::{Rig, RigConfig, SERVER_INTERFACE};
use serde_json::Value;
use std::net::TcpListener;
use std::process::Command;

/// What the doctor says of a rig: exit code, and findings by id.
struct Said {
    code: i32,
    report: Value,
}

impl Said {
    fn finding(&self, id: &str) -> Option<&Value> {
        self.report["findings"].as_array().unwrap().iter().find(|f| f["id"] == id)
    }

    /// The text of a finding that there must be, and its remedy.
    #[track_caller]
    fn expect(&self, id: &str) -> (String, String) {
        let f = self.finding(id).unwrap_or_else(|| panic!("no {id} in {:#}", self.report));
        let of = |key: &str| f[key].as_str().unwrap().to_owned();
        (of("what"), of("remedy"))
    }
}

/// Examines, in the server's namespace; `wrap` is put before the command.
fn doctor(rig: &Rig, wrap: &[&str], args: &[&str]) -> Said {
    let words: Vec<&str> =
        wrap.iter().copied().chain([env!("CARGO_BIN_EXE_finwheel"), "doctor", "--json"]).collect();
    let out = rig.server_ns().command(words[0]).args(&words[1..]).args(args).output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let report = serde_json::from_str(&text).unwrap_or_else(|e| {
        panic!("{e}: {text}{}", String::from_utf8_lossy(&out.stderr));
    });
    Said { code: out.status.code().unwrap(), report }
}

fn of_interface(rig: &Rig) -> Said {
    doctor(rig, &[], &["--interface", SERVER_INTERFACE])
}

/// For a configuration.
fn of_config(rig: &Rig, wrap: &[&str], text: &str) -> Said {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("finwheel.toml");
    std::fs::write(&file, text).unwrap();
    doctor(rig, wrap, &["--config", file.to_str().unwrap()])
}

/// Runs a command line in the server's namespace.
#[track_caller]
fn shell(rig: &Rig, line: &str) {
    let out = rig.server_ns().command("sh").args(["-c", line]).output().unwrap();
    assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn what_is_wrong_with_an_interface_is_found_and_its_remedy_mends_it() {
    let rig = rig_or_skip!(RigConfig::default());
    let calm = of_interface(&rig);
    assert!(calm.code < 2, "{:#}", calm.report);
    assert_eq!(calm.report["facts"]["queues"], "1 that receive, 1 that transmit");
    calm.expect("unfinished-checksums");
    let dir = tempfile::tempdir().unwrap();
    let [source, object] = ["o.c", "o.o"].map(|n| dir.path().join(n).to_str().unwrap().to_owned());
    std::fs::write(
        &source,
        "__attribute__((section(\"xdp\"), used)) int others(void *c) { return c ? 2 : 1; }",
    )
    .unwrap();
    let clang =
        Command::new("clang").args(["-O2", "-g", "-target", "bpf", "-c", &source, "-o", &object]).status();
    assert!(clang.unwrap().success());
    let attach = format!("ip link set dev {SERVER_INTERFACE} xdpgeneric obj {object} sec xdp");
    for (id, part, harm) in [
        ("mtu-too-large", "9000", format!("ip link set dev {SERVER_INTERFACE} mtu 9000")),
        ("interface-down", "is down", format!("ip link set dev {SERVER_INTERFACE} down")),
        ("another-xdp-program", "\"others\"", attach),
    ] {
        shell(&rig, &harm);
        let said = of_interface(&rig);
        assert_eq!(said.code, 2, "{:#}", said.report);
        let (what, remedy) = said.expect(id);
        assert!(what.contains(part), "{what}");
        // "stop what attached it, or: COMMAND"
        shell(&rig, remedy.rsplit(": ").next().unwrap());
        let mended = of_interface(&rig);
        assert!(mended.code < 2 && mended.finding(id).is_none(), "{id}: {:#}", mended.report);
    }
    let missing = doctor(&rig, &[], &["--interface", "nope0"]);
    assert_eq!(missing.code, 2);
    missing.expect("interface-missing");
}

#[test]
fn a_veth_whose_peer_has_more_queues_is_found_before_the_driver_refuses() {
    let rig = rig_or_skip!(RigConfig::default());
    shell(
        &rig,
        "ip link add va numrxqueues 1 numtxqueues 1 type veth peer name vb numrxqueues 4 numtxqueues 4 && \
         ip link set va up && ip link set vb up",
    );
    let said = doctor(&rig, &[], &["--interface", "va"]);
    let (what, _) = said.expect("veth-peer-queues");
    assert_eq!(what, "vb has 4 transmit queues, and va has 1 receive queues");
    assert_eq!(said.code, 1, "{:#}", said.report);
    // The finding is no guess.
    let text =
        config(&rig, "").replace(SERVER_INTERFACE, "va").replace("[worker]", "mode = \"native\"\n[worker]");
    let (status, log) = Process::spawn(&rig, &text, &[]).end(crate::common::PATIENCE);
    assert_eq!(status.code(), Some(1));
    let (refused, found) = log.split_once("finwheel doctor finds:\n").unwrap_or_else(|| panic!("{log}"));
    assert!(refused.contains("No space left"), "{log}");
    assert!(
        found.contains("error[no-native-xdp]: ") && found.contains("warning[veth-peer-queues]: "),
        "{log}"
    );
}

#[test]
fn what_a_configuration_asks_too_much_of_the_machine_is_found() {
    let rig = rig_or_skip!(RigConfig::default());
    let [at, _] = both(&rig, ECHO);
    let hold = |at| rig.server_ns().run_in(|| TcpListener::bind(at)).unwrap().unwrap();
    let (_echo, _metrics) = (hold(at), hold(metrics()));
    rig.server_ns().sysctl("net/ipv4/ip_unprivileged_port_start", "0").unwrap();
    rig.server_ns().sysctl("net/ipv4/ip_local_port_range", "7 60999").unwrap();
    let text = config(&rig, "[[listener]]\nname = \"far\"\naddress = \"192.0.2.1:80\"\nservice = \"echo\"")
        .replace("[worker]", "queues = [0, 3]\nmode = \"generic\"\n[worker]\ncores = [0, 8191]");
    let said = of_config(&rig, &[], &text);
    assert_eq!(said.code, 2);
    for (id, part) in [
        ("port-in-use", format!("listener echo claims {at}, where a socket of the kernel listens on {at}")),
        ("metrics-address-in-use", metrics().to_string()),
        ("port-among-local-ports", "listener echo: port 7".into()),
        ("outbound-ports", "7 to 60999".into()),
        ("address-not-here", "192.0.2.1".into()),
        ("queue-missing", "queue 3".into()),
        ("core-not-allowed", "8191".into()),
        ("gro-in-generic-mode", "several segments".into()),
    ] {
        let (what, _) = said.expect(id);
        assert!(what.contains(&part), "{part}: {what}");
    }
    // `run` says the same when it cannot start, after what stopped it.
    let text = config(&rig, "");
    let (status, log) = Process::spawn(&rig, &text, &[]).end(crate::common::PATIENCE);
    assert_eq!(status.code(), Some(1), "{log}");
    let (refused, found) = log.split_once("finwheel doctor finds:\n").unwrap_or_else(|| panic!("{log}"));
    assert!(refused.contains("cannot listen on 127.0.0.1:9464"), "{log}");
    assert!(
        found.starts_with("error[metrics-address-in-use]: ") && found.contains("warning[port-in-use]: "),
        "{log}"
    );
    assert!(!found.contains("note["), "{log}");
}

#[test]
fn missing_privileges_are_told_apart_by_who_can_grant_them() {
    let rig = rig_or_skip!(RigConfig::default());
    let args = ["--interface", SERVER_INTERFACE];
    let bounded = doctor(&rig, &["setpriv", "--bounding-set", "-net_admin,-net_raw,-bpf,-sys_admin"], &args);
    let (what, _) = bounded.expect("capability-out-of-bounds");
    assert_eq!(what, "CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF cannot be had: outside of the bounding set");
    assert_eq!(bounded.code, 2);
    assert!(bounded.finding("no-new-privileges").is_none());

    // Root that is no root: nothing is effective, and everything could be.
    let plain = ["setpriv", "--no-new-privs", "--securebits", "+noroot", "--inh-caps", "-all"];
    let plain = doctor(&rig, &plain, &args);
    let (_, remedy) = plain.expect("capability-missing");
    assert!(remedy.contains("setcap cap_net_admin,cap_net_raw,cap_bpf,cap_perfmon=p"), "{remedy}");
    assert!(plain.finding("capability-out-of-bounds").is_none());
    plain.expect("no-new-privileges");

    let tight = ["prlimit", "--memlock=65536:65536", "setpriv", "--bounding-set", "-ipc_lock,-sys_resource"];
    let tight = of_config(&rig, &tight, &config(&rig, ""));
    let (what, _) = tight.expect("locked-memory");
    assert_eq!(what, "the frames take 16384 KiB, and 64 KiB may be locked");
}

#[test]
fn beside_a_finwheel_that_serves_nothing_is_wrong() {
    let rig = rig_or_skip!(RigConfig::default());
    let text = config(&rig, "");
    let _serving = Process::ready(&rig, &text);
    let said = of_config(&rig, &[], &text);
    said.expect("served-already");
    assert!(said.code < 2, "{:#}", said.report);
    for id in ["another-xdp-program", "metrics-address-in-use", "port-in-use"] {
        assert!(said.finding(id).is_none(), "{:#}", said.report);
    }
}
