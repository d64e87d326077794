//! Opening an interface: what is refused, how it is told, and what is waited for.

use crate::support::{PORT, assert_nothing_leaked, config, open_or_panic, try_open};
use finwheel::port::Port;
use finwheel::port::xsk::{Claim, OpenConfig, Queues, SetupError, ZeroCopy, open};
use finwheel::rig::{Rig, RigConfig, SERVER_INTERFACE};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use xsk_rs::config::{LibxdpFlags, SocketConfig, UmemConfig};
use xsk_rs::{CompQueue, FillQueue, RxQueue, Socket, TxQueue, Umem};

#[test]
fn rebinding_right_after_a_close_works() {
    let rig = rig_or_skip!(RigConfig::with_queues(2));
    for round in 0..5 {
        let mut opened = open_or_panic(&rig, &config(&rig));
        assert_eq!(opened.ports.len(), 2, "round {round}");
        for port in &mut opened.ports {
            port.flush().unwrap();
        }
        assert_nothing_leaked(&opened.ports);
    }
}

#[test]
fn an_interface_that_is_in_use_is_refused_by_name() {
    let rig = rig_or_skip!(RigConfig::default());
    let _first = open_or_panic(&rig, &config(&rig));
    let e = try_open(&rig, &config(&rig)).unwrap_err();
    assert!(matches!(e, SetupError::Held { .. }), "{e}");
    assert!(e.to_string().contains(SERVER_INTERFACE), "{e}");
}

#[test]
fn what_the_interface_cannot_do_is_refused_with_the_way_out() {
    let rig = rig_or_skip!(RigConfig { mtu: 3000, ..RigConfig::default() });
    let e = try_open(&rig, &config(&rig)).unwrap_err().to_string();
    for part in [SERVER_INTERFACE, "3000", "1770", "ip link set dev"] {
        assert!(e.contains(part), "{part} in: {e}");
    }
    let e = try_open(&rig, &OpenConfig::new("fw-none")).unwrap_err();
    assert!(matches!(e, SetupError::NoInterface { .. }), "{e}");

    let rig = rig_or_skip!(RigConfig::default());
    let zero_copy = OpenConfig { zero_copy: ZeroCopy::Require, ..config(&rig) };
    let e = try_open(&rig, &zero_copy).unwrap_err();
    assert!(matches!(e, SetupError::NoZeroCopy { queue: 0, .. }), "{e}");
    let list = OpenConfig { queues: Queues::List(vec![1]), ..config(&rig) };
    let e = try_open(&rig, &list).unwrap_err();
    assert!(matches!(e, SetupError::NoQueue { queue: 1, queues: 1, .. }), "{e}");
    // After all these refusals the interface is as it was.
    assert!(open_or_panic(&rig, &config(&rig)).steering.mode().is_some());
}

#[test]
fn somebody_elses_program_is_named_and_left_alone() {
    let rig = rig_or_skip!(RigConfig::default());
    let folder = tempfile::tempdir().unwrap();
    let (source, object) = (folder.path().join("other.c"), folder.path().join("other.o"));
    std::fs::write(
        &source,
        "__attribute__((section(\"xdp\"), used)) int others_program(void *ctx) { return ctx ? 2 : 1; }",
    )
    .unwrap();
    let clang = std::process::Command::new("clang")
        .args(["-O2", "-g", "-target", "bpf", "-c"])
        .arg(&source)
        .arg("-o")
        .arg(&object)
        .status();
    assert!(clang.unwrap().success());
    let ip = |args: &[&str]| {
        let mut ip = rig.server_ns().command("ip");
        ip.args(["link", "set", "dev", SERVER_INTERFACE]).args(args);
        assert!(ip.status().unwrap().success(), "{args:?}");
    };
    for (keyword, mode) in [("xdpdrv", "native"), ("xdpgeneric", "generic")] {
        ip(&[keyword, "obj", object.to_str().unwrap(), "sec", "xdp"]);
        let e = try_open(&rig, &config(&rig)).unwrap_err();
        assert!(matches!(e, SetupError::ProgramAttached { .. }), "{e}");
        let off = format!("ip link set dev {SERVER_INTERFACE} {keyword} off");
        for part in ["others_program", mode, &off] {
            assert!(e.to_string().contains(part), "{part} in: {e}");
        }
        // Still there: taking it away succeeds, and then the interface opens.
        ip(&[keyword, "off"]);
        assert!(open_or_panic(&rig, &config(&rig)).steering.mode().is_some());
    }
}

/// Environment of the processes that two tests start of this very program.
pub const CHILD: &str = "FINWHEEL_TEST_CHILD";

/// Not a test of its own: what the process that is killed does, and what the one without privileges does.
#[test]
#[ignore = "runs as a child of other tests"]
fn child() {
    let Ok(role) = std::env::var(CHILD) else { return };
    if role == "rig" {
        let rig = Rig::new(RigConfig::default()).unwrap();
        println!("made {}", rig.server_ns().name());
        std::thread::sleep(Duration::from_secs(30));
        return;
    }
    let config = OpenConfig {
        claims: vec![Claim::listen(SocketAddr::from(([10, 77, 0, 1], PORT)))],
        lease: Duration::from_secs(60),
        ..OpenConfig::new(SERVER_INTERFACE)
    };
    match (role.as_str(), open(&config)) {
        ("killed", Ok(_opened)) => {
            println!("opened");
            std::thread::sleep(Duration::from_secs(30));
        }
        ("unprivileged", Err(e)) => println!("refused: {} {e}", e.is_privilege()),
        (role, result) => panic!("{role}: {result:?}"),
    }
}

pub const CHILD_ARGS: [&str; 4] = ["--exact", "setup::child", "--ignored", "--nocapture"];

#[test]
fn without_privileges_the_capabilities_and_the_way_to_them_are_named() {
    let rig = rig_or_skip!(RigConfig::default());
    let output = rig
        .server_ns()
        .command("setpriv")
        .args(["--bounding-set=-all", "--inh-caps=-all"])
        .arg(std::env::current_exe().unwrap())
        .args(CHILD_ARGS)
        .env(CHILD, "unprivileged")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    for part in
        ["refused: true", SERVER_INTERFACE, "CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF, CAP_PERFMON", "setcap"]
    {
        assert!(said.contains(part), "{part} in: {said}");
    }
}

/// Binds queue 0 of the server's interface as a stranger would, without finwheel.
#[allow(unsafe_code)]
fn stranger(rig: &Rig) -> (Umem, TxQueue, RxQueue, Option<(FillQueue, CompQueue)>) {
    rig.server_ns()
        .run_in(|| {
            let (umem, _) = Umem::new(UmemConfig::default(), 64.try_into().unwrap(), false).unwrap();
            let config =
                SocketConfig::builder().libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD).build();
            let interface = SERVER_INTERFACE.parse().unwrap();
            // SAFETY: the UMEM is used for this socket alone.
            let (tx, rx, rings) = unsafe { Socket::new(config, &umem, &interface, 0) }.unwrap();
            (umem, tx, rx, rings)
        })
        .unwrap()
}

#[test]
fn a_busy_queue_is_waited_for_and_then_named() {
    let rig = rig_or_skip!(RigConfig::default());
    let held = stranger(&rig);
    let started = Instant::now();
    let e = try_open(&rig, &config(&rig)).unwrap_err();
    assert!(matches!(e, SetupError::QueueBusy { queue: 0, .. }), "{e}");
    assert!(e.to_string().contains(SERVER_INTERFACE), "{e}");
    assert!(started.elapsed() < Duration::from_secs(10), "bounded");
    // The same, but let go of while it is waited for.
    std::thread::scope(|s| {
        s.spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            drop(held);
        });
        assert_eq!(open_or_panic(&rig, &config(&rig)).ports.len(), 1);
    });
}
