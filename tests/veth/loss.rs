//! The same clients when 5 % of all packets are lost, each way: slower, and without an error.

use crate::common::{ECHO, both};
use crate::tools::{
    BODY, LIMIT, Running, ab, client, exchange, host_port, pattern, rig_with, run, serve, urls,
};
use finwheel::rig::{Rig, RigConfig};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Share of the packets that is lost in each direction, percent.
const LOSS: f64 = 5.0;
/// The same for nft.
const LOSS_RULE: &str = "numgen random mod 100 < 5 drop";

#[test]
fn curl_ab_and_nc_finish_without_an_error() {
    let rig = rig_with!(RigConfig::default(), "curl", "ab", "nc", "nft");
    let _p = serve(&rig);
    rig.loss(LOSS).unwrap();
    for url in urls(&rig) {
        let began = Instant::now();
        for _ in 0..10 {
            let ran = client(&rig, "curl", &["--noproxy", "*", "-sS", "--max-time", "50", &url]).good("curl");
            assert_eq!((ran.text(), ran.stderr), (BODY.to_owned(), String::new()));
        }
        let curl = began.elapsed();
        let apart = ab(&rig, &url, 500, 50, false);
        let kept = ab(&rig, &url, 1000, 50, true);
        println!("{url}: 10 times curl {curl:?}, ab {apart:.0}/s, ab -k {kept:.0}/s");
    }
    half_close(&rig);
}

/// nc on both IP versions: all of the bytes, and the end.
fn half_close(rig: &Rig) {
    for at in both(rig, ECHO) {
        let [host, port] = &host_port(at);
        let bytes = pattern(100_000);
        let began = Instant::now();
        exchange(rig, "nc", &["-N", "-w", "50", host, port], &bytes, &bytes);
        println!("nc to {at}: {:?}", began.elapsed());
    }
}

#[test]
fn two_workers_finish_what_ab_asks_though_segments_sent_again_land_elsewhere() {
    let rig = rig_with!(RigConfig::with_queues(2), "ab", "nft");
    let _p = serve(&rig);
    rig.loss(LOSS).unwrap();
    for url in urls(&rig) {
        println!(
            "{url}: ab {:.0}/s, ab -k {:.0}/s",
            ab(&rig, &url, 500, 50, false),
            ab(&rig, &url, 1000, 50, true)
        );
    }
}

/// Connections of the demo: each plan many times.
const CONNECTIONS: u64 = 960;

/// The demo makes its own namespaces; their names carry its process number, so that loss can be put between them.
#[test]
fn every_closing_order_of_the_demo_ends_right() {
    let rig = rig_with!(RigConfig::default(), "nft", "ip");
    drop(rig);
    let dir = tempfile::tempdir().unwrap();
    let create = |name: &str| std::fs::File::create(dir.path().join(name)).unwrap();
    let mut demo = Command::new(env!("CARGO_BIN_EXE_finwheel"));
    demo.args(["demo", "--connections", &CONNECTIONS.to_string(), "--concurrency", "96", "--json"])
        .stdin(Stdio::null());
    demo.stdout(create("out")).stderr(create("err"));
    let mut demo = Running(demo.spawn().unwrap());
    let namespace = format!("fw{}-0-client", demo.0.id());
    let chain = |hook| {
        format!(
            "chain {hook} {{ type filter hook {hook} device \"fw-client\" priority 0\n {LOSS_RULE}\n }}\n"
        )
    };
    let rules = format!("table netdev lossy {{\n{}{}}}\n", chain("ingress"), chain("egress"));
    let end = Instant::now() + LIMIT;
    loop {
        let mut nft = Command::new("ip");
        nft.args(["netns", "exec", &namespace, "nft", "-f", "-"]);
        if run(nft, rules.as_bytes(), LIMIT).status.success() {
            break;
        }
        assert!(
            demo.wait(Duration::from_millis(2)).is_none() && Instant::now() < end,
            "no interface in {namespace}"
        );
    }
    let status = demo.wait(2 * LIMIT).expect("the demo ends");
    let [out, err] = ["out", "err"].map(|name| std::fs::read_to_string(dir.path().join(name)).unwrap());
    let last: serde_json::Value = serde_json::from_str(out.lines().last().unwrap_or_default())
        .unwrap_or_else(|e| panic!("{e}: {status}: {out}{err}"));
    println!("{status}: {last}");
    assert_eq!(last["backend"], "af_xdp", "{last}");
    for (key, n) in [("opened", CONNECTIONS), ("graceful", CONNECTIONS), ("failed", 0)] {
        assert_eq!(last[key], n, "{key}: {out}{err}");
    }
    // A segment that is sent again though the client has it is answered by an ACK. When another ACK has ended the
    // connection meanwhile, that one is answered by RST (RFC 9293 §3.10.7.1). No connection is hurt, as none failed, and
    // it is rare; the demo counts it, and does not fail for it.
    let resets = last["resets"].as_u64().expect("a number");
    assert!(resets <= CONNECTIONS / 100, "{resets} resets: {err}");
    assert_eq!(last["resets"], last["to_late_acks"], "{last}");
    assert!(status.success(), "{status}: {out}{err}");
    // A FIN that was lost costs a retransmission timeout: the loss was there.
    assert!(last["close_ms"]["p999"].as_f64().expect("a number") > 150.0, "{last}");
}
