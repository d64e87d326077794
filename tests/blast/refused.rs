//! What is refused, with what is missing, before anything is sent.

use crate::command;
use crate::tools::{LIMIT, rig_with, run};
use finwheel::rig::{CLIENT_INTERFACE, Rig, RigConfig};

#[track_caller]
fn refused(rig: &Rig, args: &str, says: &[&str]) {
    let ran = run(command(rig.client_ns(), args), b"", LIMIT);
    assert_eq!(ran.status.code(), Some(2), "{args}: {}", ran.all());
    for part in says {
        assert!(ran.stderr.contains(part), "{part}: {}", ran.stderr);
    }
    assert_eq!(ran.text(), "", "nothing is reported");
}

#[test]
fn what_is_missing_on_the_way_is_named() {
    let rig = rig_with!(RigConfig::default(),);
    let to = |target: &str, interface: &str| {
        format!("--target {target} --interface {interface} --source-net 10.78.0.0/24")
    };
    refused(&rig, "", &["--target", "--interface", "--source-net"]);
    refused(&rig, &to("10.77.0.1:80", "nowhere0"), &["no interface nowhere0"]);
    refused(&rig, &to("10.99.0.1:80", CLIENT_INTERFACE), &["no route to 10.99.0.1", "ip route add"]);
    refused(&rig, &to("10.77.0.2:80", CLIENT_INTERFACE), &["10.77.0.2 is an address of this host"]);
    refused(&rig, &to("10.77.0.1:80", "lo"), &["does not lead over lo"]);
    refused(&rig, &to("10.77.0.99:80", CLIENT_INTERFACE), &["10.77.0.99, does not answer ARP on fw-client"]);
    let workers = format!("{} --workers 9", to("10.77.0.1:80", CLIENT_INTERFACE));
    refused(&rig, &workers, &["9 workers for the 1 receive queues"]);
}
