//! Who gets which frame: the sockets, the kernel, nobody; and what a crash leaves.

use crate::setup::{CHILD, CHILD_ARGS};
use crate::support::{
    PORT, assert_nothing_leaked, config, connect, kernel_serves, open_or_panic, ping, pump, server,
    server_v6, tcp_ports_v4, tcp_ports_v6,
};
use finwheel::port::xsk::{AttachMode, Claim, CopyMode, Counter, Mode, OpenConfig};
use finwheel::port::{Checksums, Port};
use finwheel::rig::{Rig, RigConfig};
use std::io::{BufRead, BufReader, ErrorKind};
use std::net::TcpListener;
use std::process::Stdio;
use std::time::Duration;

#[test]
fn claimed_syns_arrive_and_everything_else_stays_with_the_kernel() {
    let rig = rig_or_skip!(RigConfig::default());
    let mut opened = open_or_panic(&rig, &config(&rig));
    assert_eq!(opened.report.attach, AttachMode::Native);
    assert_eq!(opened.report.queues, [(0, CopyMode::Copy)]);
    assert_eq!(opened.report.driver, "veth");
    assert_eq!(opened.report.checksums, Checksums::AcceptUnfinished);
    assert_eq!(opened.report.mtu, 1500);

    std::thread::scope(|s| {
        // Nobody answers, so the connects time out; the SYNs are what is wanted.
        for at in [server(&rig, PORT), server_v6(&rig, PORT)] {
            let rig = &rig;
            s.spawn(move || connect(rig, at, Duration::from_millis(1500)).unwrap_err());
        }
        let (mut v4, mut v6) = (false, false);
        let both = pump(&mut opened.ports, Duration::from_secs(3), |port, frame| {
            let bytes = port.bytes(&frame);
            v4 |= tcp_ports_v4(bytes).is_some_and(|(_, dst)| dst == PORT);
            v6 |= tcp_ports_v6(bytes).is_some_and(|(_, dst)| dst == PORT);
            assert!(
                tcp_ports_v4(bytes).or(tcp_ports_v6(bytes)).is_some_and(|(_, dst)| dst == PORT),
                "not claimed: {bytes:x?}"
            );
            port.free(frame);
            v4 && v6
        });
        assert!(both, "IPv4 {v4}, IPv6 {v6}");
    });

    kernel_serves(&rig, PORT + 1);
    assert!(ping(&rig, "10.77.0.1") && ping(&rig, "fd77::1"));
    // None of that came here.
    let mut stray = 0;
    pump(&mut opened.ports, Duration::from_millis(50), |port, frame| {
        let ours = tcp_ports_v4(port.bytes(&frame)).or(tcp_ports_v6(port.bytes(&frame)));
        stray += u32::from(ours.is_none_or(|(_, dst)| dst != PORT));
        port.free(frame);
        false
    });
    assert_eq!(stray, 0);
    let counters = opened.steering.counters().unwrap();
    assert!(counters.get(Counter::Redirected) >= 2 && counters.get(Counter::Passed) > 8, "{counters:?}");
    assert_nothing_leaked(&opened.ports);
}

#[test]
fn detaching_gives_the_traffic_back_to_the_kernel() {
    let rig = rig_or_skip!(RigConfig::default());
    let opened = open_or_panic(&rig, &config(&rig));
    // Claimed: the kernel's listener hears nothing.
    let at = server(&rig, PORT);
    let listener = rig.server_ns().run_in(|| TcpListener::bind(at)).unwrap().unwrap();
    let e = connect(&rig, at, Duration::from_millis(300)).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::TimedOut);
    drop(listener);
    drop(opened);
    kernel_serves(&rig, PORT);
}

#[test]
fn unclaiming_gives_one_port_back() {
    let rig = rig_or_skip!(RigConfig::default());
    let mut opened = open_or_panic(&rig, &config(&rig));
    opened.steering.unclaim(Claim::listen(server(&rig, PORT))).unwrap();
    kernel_serves(&rig, PORT);
    opened.steering.claim(Claim::listen(server(&rig, PORT))).unwrap();
    let e = connect(&rig, server(&rig, PORT), Duration::from_millis(300)).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::TimedOut);
}

#[test]
fn without_sockets_peers_wait_for_the_lease_and_are_reset_only_after_it() {
    let rig = rig_or_skip!(RigConfig::default());
    let mut opened = open_or_panic(&rig, &OpenConfig { lease: Duration::from_secs(2), ..config(&rig) });
    // What a crash leaves: the program attached, the sockets gone.
    opened.ports.clear();
    opened.steering.heartbeat().unwrap();
    let e = connect(&rig, server(&rig, PORT), Duration::from_millis(700)).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::TimedOut, "dropped within the lease");
    assert!(opened.steering.counters().unwrap().get(Counter::DroppedNoSocket) > 0);
    std::thread::sleep(Duration::from_millis(1500));
    let e = connect(&rig, server(&rig, PORT), Duration::from_millis(700)).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::ConnectionRefused, "the kernel answers after it");
    assert!(opened.steering.counters().unwrap().get(Counter::LeaseOver) > 0);
}

#[test]
fn a_program_left_behind_is_replaced_whatever_its_mode() {
    let rig = rig_or_skip!(RigConfig::default());
    for (left, next) in
        [(Mode::Native, Mode::Native), (Mode::Generic, Mode::Auto), (Mode::Native, Mode::Generic)]
    {
        let with = |mode| OpenConfig { mode, ..config(&rig) };
        let opened = open_or_panic(&rig, &with(left));
        opened.steering.leave_attached();
        drop(opened.ports);
        let e = connect(&rig, server(&rig, PORT), Duration::from_millis(200)).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::TimedOut, "still held by the program left behind");
        let mut opened = open_or_panic(&rig, &with(next));
        let want = match next {
            Mode::Auto | Mode::Native => AttachMode::Native,
            Mode::Generic => AttachMode::Generic,
        };
        assert_eq!(opened.report.attach, want, "{left:?} then {next:?}");
        opened.steering.detach().unwrap();
        opened.steering.detach().unwrap();
    }
    kernel_serves(&rig, PORT);
}

#[test]
fn a_killed_process_leaves_its_peers_waiting_and_the_next_one_takes_over() {
    let rig = rig_or_skip!(RigConfig::default());
    let mut process = rig
        .server_ns()
        .command(std::env::current_exe().unwrap())
        .args(CHILD_ARGS)
        .env(CHILD, "killed")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("opened")), "the child did not open");
    process.kill().unwrap();
    process.wait().unwrap();
    let e = connect(&rig, server(&rig, PORT), Duration::from_millis(700)).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::TimedOut, "no RST from the kernel");
    let mut opened = open_or_panic(&rig, &config(&rig));
    std::thread::scope(|s| {
        s.spawn(|| connect(&rig, server(&rig, PORT), Duration::from_millis(300)).unwrap_err());
        assert!(pump(&mut opened.ports, Duration::from_secs(2), |port, frame| {
            port.free(frame);
            true
        }));
    });
    drop(opened);
    kernel_serves(&rig, PORT);
}
