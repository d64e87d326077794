//! nginx on the kernel's TCP in the client's namespace: a server by others, in every order of closing.

use crate::tools::{Running, rig_with};
use crate::{good, number};
use finwheel::rig::{Rig, RigConfig, SERVER_INTERFACE};
use std::fmt::Write;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

/// One worker that logs every request, by its own account of how the connection stood.
fn config(dir: &Path, at: SocketAddr) -> String {
    let dir = dir.display();
    let mut text = format!(
        "daemon off;\nuser root;\nworker_processes 1;\npid {dir}/pid;\nerror_log {dir}/errors warn;\n\
         events {{ worker_connections 1024; }}\nhttp {{\n  log_format short '$status $request_completion';\n  \
         access_log {dir}/requests short;\n"
    );
    for what in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        writeln!(text, "  {what}_temp_path {dir}/{what};").unwrap();
    }
    text + &format!("  server {{ listen {at}; location / {{ return 200 \"nginx\\n\"; }} }}\n}}\n")
}

/// nginx, serving; killed when dropped.
fn serve(rig: &Rig, dir: &Path, at: SocketAddr) -> Running {
    let file = dir.join("nginx.conf");
    fs::write(&file, config(dir, at)).unwrap();
    let mut command = rig.client_command("nginx");
    command.args(["-e", "stderr", "-p"]).arg(dir).arg("-c").arg(file);
    let log = dir.join("log");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log).unwrap());
    let nginx = Running(command.spawn().unwrap());
    crate::common::until("nginx listens", Duration::from_secs(10), || {
        let connected = rig.client_ns().run_in(|| TcpStream::connect(at)).unwrap();
        assert!(
            !fs::read_to_string(&log).unwrap().contains("[emerg]"),
            "{}",
            fs::read_to_string(&log).unwrap()
        );
        connected.is_ok()
    });
    nginx
}

#[test]
fn nginx_is_loaded_in_every_order_of_closing_without_an_error() {
    const N: u64 = 1000;
    let rig = rig_with!(RigConfig::default(), "nginx");
    let at = SocketAddr::from((rig.client_v4().unwrap(), 8080));
    let dir = tempfile::tempdir().unwrap();
    let _nginx = serve(&rig, dir.path(), at);
    let base = format!(
        "--target {at} --interface {SERVER_INTERFACE} --source-net 10.77.0.1/32 --connections {N} --concurrency 32"
    );
    let rows = [
        // What is said, how it ends as we see it, and how many at least end so.
        ("client", "active", N),
        ("server", "passive", N),
        // nginx sends its FIN with the answer, so that ours crosses it or follows it.
        ("both", "simultaneous", 0),
        ("half", "active", 0),
        ("reset", "reset", N),
    ];
    for (close, path, by_path) in rows {
        let report = good(rig.server_ns(), N, &format!("{base} --close {close}"));
        let closes = &report["closes"];
        println!("{close}: {closes}");
        assert!(number(closes, &format!("/{path}")) >= by_path, "{close}: {closes}");
        let resets = if close == "reset" { N } else { 0 };
        assert_eq!(number(&report, "/resets_sent"), resets, "{close}: {report:#}");
        assert_eq!(number(&report, "/resets_received"), 0, "{close}: {report:#}");
    }
    let requests = fs::read_to_string(dir.path().join("requests")).unwrap();
    let ok = requests.lines().filter(|l| l.starts_with("200 ")).count() as u64;
    assert_eq!((ok, requests.lines().count() as u64), (N * rows.len() as u64, N * rows.len() as u64));
    let errors = fs::read_to_string(dir.path().join("errors")).unwrap();
    assert_eq!(errors, "", "nginx has nothing to complain of");
}
