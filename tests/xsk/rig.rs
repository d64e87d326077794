//! The rig itself: loss, and nothing left behind.

use crate::setup::{CHILD, CHILD_ARGS};
use crate::support::{ping, server};
use finwheel::rig::{Rig, RigConfig};
use std::io::{BufRead, BufReader, ErrorKind};
use std::net::{Ipv4Addr, UdpSocket};
use std::process::Stdio;
use std::time::Duration;

#[test]
fn loss_is_about_what_was_asked_for_and_can_be_ended() {
    let rig = rig_or_skip!(RigConfig::default());
    let at = server(&rig, 5000);
    let receiver = rig.server_ns().run_in(|| UdpSocket::bind(at)).unwrap().unwrap();
    receiver.set_nonblocking(true).unwrap();
    let sender = rig.client_ns().run_in(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))).unwrap().unwrap();
    // Resolves the neighbour before anything is lost.
    assert!(ping(&rig, "10.77.0.1"));
    let through = || {
        let mut n = 0;
        for _ in 0..10 {
            for _ in 0..100 {
                // EPERM is how a datagram dropped on the way out is told.
                if let Err(e) = sender.send_to(b"x", at) {
                    assert!(matches!(e.kind(), ErrorKind::PermissionDenied | ErrorKind::WouldBlock), "{e}");
                }
            }
            std::thread::sleep(Duration::from_millis(5));
            while receiver.recv(&mut [0; 8]).is_ok() {
                n += 1;
            }
        }
        n
    };
    assert_eq!(through(), 1000);
    rig.loss(20.0).unwrap();
    let n = through();
    // Binomial with a standard deviation of 12.6: eight of them either way.
    assert!((700..900).contains(&n), "{n} of 1000 with 20 % loss");
    rig.loss(0.0).unwrap();
    assert_eq!(through(), 1000);
}

#[test]
fn a_rig_leaves_nothing_behind() {
    let rig = rig_or_skip!(RigConfig::default());
    let names = [rig.server_ns().name().to_owned(), rig.client_ns().name().to_owned()];
    let path = |n: &String| std::path::Path::new("/run/netns").join(n);
    assert!(names.iter().all(|n| path(n).exists()));
    let cleaner = rig.cleaner();
    cleaner.clean();
    assert!(!names.iter().any(|n| path(n).exists()));
    cleaner.clean();
    drop(rig);
}

#[test]
fn the_rig_of_a_killed_process_is_removed_by_the_next_and_a_living_one_is_not() {
    let mine = rig_or_skip!(RigConfig::default());
    let mut process = std::process::Command::new(std::env::current_exe().unwrap())
        .args(CHILD_ARGS)
        .env(CHILD, "rig")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let name = BufReader::new(process.stdout.take().unwrap())
        .lines()
        .find_map(|line| Some(line.unwrap().split_once("made ")?.1.to_owned()))
        .expect("the child made no rig");
    let exists = |name: &str| std::path::Path::new("/run/netns").join(name).exists();
    assert!(exists(&name));
    process.kill().unwrap();
    process.wait().unwrap();
    assert!(exists(&name), "a killed process cleans nothing");
    drop(rig_or_skip!(RigConfig::default()));
    assert!(!exists(&name), "stale");
    assert!(exists(mine.server_ns().name()), "alive");
}
