//! Another configuration while connections are open and busy.

use crate::common::{
    DISCARD, ECHO, HTTP, PATIENCE, Process, USER, ask, both, config, connect, connect_many, metrics,
    rig_or_skip, until,
};
use finwheel::rig::{Rig, RigConfig};
use nix::sys::signal::Signal;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// Clients that open, exchange and close without pause, for as long as `f` runs; each must succeed. Returns how many did.
fn under_load(rig: &Rig, f: impl FnOnce()) -> usize {
    let (over, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|s| {
        let load = || {
            while !over.load(Ordering::SeqCst) {
                for mut c in connect_many(rig, &both(rig, ECHO)) {
                    c.write_all(&[7; 3000]).unwrap();
                    c.shutdown(std::net::Shutdown::Write).unwrap();
                    let mut back = Vec::new();
                    c.read_to_end(&mut back).unwrap();
                    assert_eq!(back.len(), 3000);
                }
                rounds.fetch_add(1, Ordering::SeqCst);
            }
        };
        let clients: Vec<_> = (0..2).map(|_| s.spawn(load)).collect();
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
        over.store(true, Ordering::SeqCst);
        for c in clients {
            if let Err(panic) = c.join() {
                std::panic::resume_unwind(panic);
            }
        }
        if let Err(panic) = done {
            std::panic::resume_unwind(panic);
        }
    });
    rounds.into_inner()
}

fn attempt(rig: &Rig, to: SocketAddr) -> std::io::Result<TcpStream> {
    rig.client_ns().run_in(|| TcpStream::connect_timeout(&to, Duration::from_millis(300))).unwrap()
}

fn get(rig: &Rig) -> String {
    let mut c = connect(rig, both(rig, HTTP)[0]);
    write!(c, "GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    c.read_to_string(&mut text).unwrap();
    text
}

fn echoes(c: &mut TcpStream) {
    c.write_all(b"hello").unwrap();
    let mut back = [0; 5];
    c.read_exact(&mut back).unwrap();
}

#[test]
fn listeners_come_change_and_go_under_load_and_no_connection_is_lost() {
    let rig = rig_or_skip!(RigConfig::with_queues(2));
    let (http, discard) = (both(&rig, HTTP)[0], both(&rig, DISCARD)[0]);
    let listener = |name: &str, at: SocketAddr, service: &str| {
        format!("[[listener]]\nname = \"{name}\"\naddress = \"{at}\"\nservice = \"{service}\"\n")
    };
    let removed = listener("gone", discard, "echo");
    let p = Process::ready(&rig, &config(&rig, &removed));
    let mut old = connect(&rig, discard);
    echoes(&mut old);
    assert_eq!(attempt(&rig, http).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    let rounds = under_load(&rig, || {
        // A listener more.
        let body =
            |text: &str| listener("web", http, "http") + &format!("[listener.http]\nbody = \"{text}\"\n");
        p.rewrite(&config(&rig, &(removed.clone() + &body("one"))));
        assert_eq!(p.tell(&["reload"]), "added web\n");
        assert!(get(&rig).ends_with("\r\n\r\none"));
        // Another body for it, another limit for all, one listener less.
        let mut kept = connect(&rig, http);
        write!(kept, "GET / HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
        let _ = kept.read(&mut [0; 4096]).unwrap();
        p.rewrite(&(config(&rig, &body("two")) + "[tcp]\nfin_wait_2 = \"7s\"\nidle = \"60s\"\n"));
        assert_eq!(
            p.tell(&["reload"]),
            "removed gone; changed echo, web; set [tcp] fin_wait_2, [tcp] idle\n"
        );
        assert!(get(&rig).ends_with("\r\n\r\ntwo"));
        // What was open goes on as it was.
        write!(kept, "GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        kept.read_to_string(&mut text).unwrap();
        assert!(text.ends_with("\r\n\r\none"), "{text}");
        echoes(&mut old);
        assert_eq!(
            attempt(&rig, discard).unwrap_err().kind(),
            ErrorKind::TimedOut,
            "dropped: it is not the kernel's yet"
        );
        let status = &p.lines(&["status", "--json"])[0];
        assert_eq!(status["retiring"][0].as_str().unwrap(), discard.to_string());
        // A former listener is still known by its name.
        assert_eq!(p.lines(&["ss", "--json", "--listener", "gone"]).len(), 1);
    });
    println!("{rounds} rounds of load");
    assert!(rounds > 0);
    echoes(&mut old);
    old.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(old.read(&mut [0; 4]).unwrap(), 0, "FIN");
    until("the kernel has the port back", PATIENCE, || {
        attempt(&rig, discard).is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused)
    });
    assert!(p.log().contains("given back to the kernel"), "{}", p.log());
    assert!(!p.log().contains("ERROR"), "{}", p.log());
    let closes = p.lines(&["closes", "--json"]);
    assert!(closes.iter().all(|c| c["path"] != "reset" && c["path"] != "timeout"), "{closes:#?}");
}

#[test]
fn a_wrong_file_or_a_key_that_cannot_change_changes_nothing_and_is_named() {
    let rig = rig_or_skip!(RigConfig::default());
    let p = Process::ready(&rig, &config(&rig, ""));
    p.rewrite(&(config(&rig, "") + "[tcp]\ntime_wiat = \"1s\"\n"));
    let (code, _, complaint) = p.admin(&["reload"]);
    let line = config(&rig, "").lines().count() + 2;
    assert_eq!(code, Some(1), "{complaint}");
    assert!(
        complaint.contains("time_wiat") && complaint.contains(&format!("finwheel.toml:{line}")),
        "{complaint}"
    );

    let changed = config(&rig, "[tcp]\nttl = 9\nmss = 1000\n").replace("chunks = 4096", "chunks = 8192");
    p.rewrite(&changed);
    let (code, _, complaint) = p.admin(&["reload"]);
    assert_eq!(code, Some(1), "{complaint}");
    for part in ["refused: [worker] chunks\n", "refused: [tcp] mss\n", "nothing was changed"] {
        assert!(complaint.contains(part), "{part}: {complaint}");
    }
    assert!(!complaint.contains("ttl"), "{complaint}");
    assert_eq!(p.lines(&["status", "--json"])[0]["reloads"], 0);

    // The signal does the same, and says it in the log.
    p.signal(Signal::SIGHUP);
    until("the log says what is refused", PATIENCE, || p.log().contains("[worker] chunks, [tcp] mss"));
    p.rewrite(&config(&rig, "[tcp]\nttl = 9\n"));
    p.signal(Signal::SIGHUP);
    until("the log says what was set", PATIENCE, || {
        p.log().contains("configuration read again: set [tcp] ttl")
    });
    echoes(&mut connect(&rig, both(&rig, ECHO)[0]));
    p.tell(&["drain", "--no-wait"]);
    let (code, _, complaint) = p.admin(&["reload"]);
    assert!(code == Some(1) && complaint.contains("finwheel undrain"), "{complaint}");
}

#[test]
fn a_listener_that_comes_back_goes_on_counting_under_its_name() {
    let rig = rig_or_skip!(RigConfig::default());
    let http = both(&rig, HTTP)[0];
    let web = format!("[[listener]]\nname = \"web\"\naddress = \"{http}\"\nservice = \"http\"\n");
    let with = |listener: &str| config(&rig, &format!("{listener}[tcp]\ntime_wait = \"1s\"\n"));
    let p = Process::ready(&rig, &with(&web));
    // What is counted under the name, each of it in one series.
    let counted = |opened: usize| {
        let opened = opened.to_string();
        until(&format!("{opened} connections are counted"), PATIENCE, || {
            let (_, text) = ask(&rig, metrics(), "/metrics");
            let of = |name: &str| -> Vec<&str> {
                let series = format!("finwheel_listener_{name}{{listener=\"web\"");
                let lines = text.lines().filter(|l| l.starts_with(&series));
                lines.map(|l| l.rsplit_once(' ').unwrap().1).collect()
            };
            of("connections_opened_total") == [&opened] && of("closes_total") == [&opened]
        });
    };
    for _ in 0..3 {
        assert!(get(&rig).starts_with("HTTP/1.1 200"));
    }
    counted(3);
    p.rewrite(&with(""));
    assert_eq!(p.tell(&["reload"]), "removed web\n");
    // Its number is given up and its address goes back when nothing needs them any more; what was counted stays.
    until("the kernel has the port back", PATIENCE, || p.log().contains("given back to the kernel"));
    counted(3);
    p.rewrite(&with(&web));
    assert_eq!(p.tell(&["reload"]), "added web\n");
    for _ in 0..2 {
        assert!(get(&rig).starts_with("HTTP/1.1 200"));
    }
    counted(5);
}

#[test]
fn what_an_unprivileged_process_may_not_read_is_a_refused_reload_that_says_what_mends_it() {
    let rig = rig_or_skip!(RigConfig::default());
    let p = Process::unprivileged(&rig, &config(&rig, ""));
    let mut old = connect(&rig, both(&rig, ECHO)[0]);
    echoes(&mut old);
    let (file, log) = (p.file("finwheel.toml"), p.file("closes.jsonl"));
    let shut = |path: &std::path::Path, mode| {
        chown(path, Some(0), Some(0)).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let mut refused = |place: &std::path::Path| {
        let (code, _, complaint) = p.admin(&["reload"]);
        assert_eq!(code, Some(1), "{complaint}");
        for part in [place.to_str().unwrap(), "Permission denied", &format!("uid {USER}, gid {USER}")] {
            assert!(complaint.contains(part), "{part}: {complaint}");
        }
        // What serves goes on as it was.
        echoes(&mut old);
        echoes(&mut connect(&rig, both(&rig, ECHO)[0]));
        assert_eq!(p.lines(&["status", "--json"])[0]["reloads"], 0);
        // The command that is named mends it, by whoever may.
        let command = complaint.split('`').nth(1).unwrap_or_else(|| panic!("no command: {complaint}"));
        assert!(Command::new("sh").args(["-c", command]).status().unwrap().success(), "{command}");
    };
    p.rewrite(&config(&rig, "[tcp]\nttl = 9\n"));
    shut(&file, 0o600);
    p.signal(Signal::SIGHUP);
    until("the log says so", PATIENCE, || {
        p.log().contains("configuration not taken") && p.log().contains(&format!("uid {USER}"))
    });
    refused(&file);
    shut(file.parent().unwrap(), 0o700);
    refused(file.parent().unwrap());
    p.rewrite(&config(&rig, "[tcp]\nttl = 9\n[close_log]\nfile = \"closes.jsonl\"\n"));
    std::fs::write(&log, "").unwrap();
    shut(&log, 0o600);
    refused(&log);
    assert_eq!(p.tell(&["reload"]), "set [tcp] ttl, [close_log] file\n");
}
