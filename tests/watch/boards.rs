//! Every query of every panel, run by a real Prometheus on a finwheel that is at work.

use crate::common::{PATIENCE, metrics, until};
use crate::floods::{Aim, Pace, trafgen};
use crate::http::{encoded, exchange};
use crate::load::{reset_some, under_load};
use crate::{rig_with, serve};
use finwheel::rig::Rig;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Where Prometheus listens: the namespace is the test's own.
const PROMETHEUS: u16 = 9090;
/// Of the configuration here; a rate needs two samples.
const SCRAPE: &str = "500ms";
const RATE_INTERVAL: &str = "4s";
/// Longest time until a query has data.
const DATA: Duration = Duration::from_secs(15);

/// Queries that find nothing as long as all is well, by a part of them, and what fills them: the test does it.
const EMPTY_WHEN_WELL: [(&str, &str); 1] = [("path=~\"reset|timeout\"", "a peer resets a connection")];

/// Prometheus with its data in a directory of its own.
struct Prometheus(Child, #[allow(dead_code)] tempfile::TempDir);

impl Prometheus {
    fn start(rig: &Rig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("prometheus.yml");
        let target = metrics();
        std::fs::write(
            &config,
            format!(
                "global: {{scrape_interval: {SCRAPE}}}\nscrape_configs:\n  - job_name: finwheel\n    static_configs:\n\
                 \x20     - targets: ['{target}']\n"
            ),
        )
        .unwrap();
        let mut command = rig.server_ns().command("prometheus");
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{PROMETHEUS}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(dir.path().join("log")).unwrap());
        let started = Self(command.spawn().unwrap(), dir);
        let log = started.1.path().join("log");
        until("Prometheus", PATIENCE * 2, || {
            std::fs::read_to_string(&log).unwrap().contains("Server is ready to receive web requests")
        });
        started
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Every query of every dashboard, with the panel that it belongs to.
fn queries() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards");
    let mut all = Vec::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let board: Value =
            serde_json::from_str(&std::fs::read_to_string(file.unwrap().path()).unwrap()).unwrap();
        for panel in board["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let expr = target["expr"].as_str().unwrap();
                let expr = expr.replace("$__rate_interval", RATE_INTERVAL).replace("$instance", ".*");
                all.push((format!("{}: {}", board["title"], panel["title"]), expr));
            }
        }
    }
    all
}

/// Values that are numbers, of a query's answer.
fn values(rig: &Rig, query: &str) -> Vec<f64> {
    let at = SocketAddr::from(([127, 0, 0, 1], PROMETHEUS));
    let (code, text) = exchange(rig, at, "GET", &format!("/api/v1/query?query={}", encoded(query)), "");
    assert_eq!(code, 200, "{query}: {text}");
    let answer: Value = serde_json::from_str(&text).unwrap();
    let result = answer["data"]["result"].as_array().unwrap_or_else(|| panic!("{query}: {text}"));
    let number = |series: &Value| series["value"][1].as_str().and_then(|v| v.parse::<f64>().ok());
    result.iter().filter_map(number).filter(|v| !v.is_nan()).collect()
}

/// Makes something happen and asks, until every query has data; those that have none in time are returned.
fn without_data<'a>(rig: &Rig, all: &[&'a (String, String)], happen: impl Fn()) -> Vec<&'a (String, String)> {
    let until = Instant::now() + DATA;
    let mut left = all.to_vec();
    loop {
        happen();
        left.retain(|(_, query)| values(rig, query).is_empty());
        if left.is_empty() || Instant::now() > until {
            return left;
        }
        std::thread::sleep(Duration::from_millis(300));
    }
}

#[test]
fn every_query_of_every_panel_has_data_from_a_finwheel_at_work() {
    let rig = rig_with!("prometheus", "trafgen");
    let p = serve(&rig, "[tcp]\ntime_wait = \"2s\"\n");
    let prometheus = Prometheus::start(&rig);
    let all = queries();
    let when_well = |q: &&(String, String)| {
        EMPTY_WHEN_WELL.iter().any(|(part, _)| q.1.contains(part) && !q.1.contains("path!~"))
    };
    let (special, usual): (Vec<_>, Vec<_>) = all.iter().partition(when_well);
    assert!(all.len() > 60 && special.len() == EMPTY_WHEN_WELL.len(), "{} {special:?}", all.len());
    let ((), seen) = under_load(&rig, || {
        // Drops of two kinds, again and again: on a busy machine trafgen may not have begun when its time is over.
        let drops = || {
            for profile in ["rst", "garbage"] {
                trafgen(&rig, profile, Aim::Server, Pace::Bursts, Duration::from_millis(300), 400);
            }
        };
        let missing = without_data(&rig, &usual, drops);
        assert!(missing.is_empty(), "no data: {missing:#?}");
        // All is well: nothing was reset.
        for q in &special {
            assert!(values(&rig, &q.1).is_empty(), "{q:?}");
        }
        let missing = without_data(&rig, &special, || reset_some(&rig, 30));
        assert!(missing.is_empty(), "no data though {EMPTY_WHEN_WELL:?}: {missing:#?}");
        // Zeroes are data too; what happens for certain must be seen to happen.
        for query in [
            "rate(finwheel_listener_payload_bytes_total{listener=\"web\",direction=\"out\"}[4s])",
            "rate(finwheel_listener_connections_opened_total{listener=\"echo\"}[4s])",
            "rate(finwheel_closes_total{path=\"active\",first=\"us\"}[4s])",
            "rate(finwheel_transitions_total{from=\"LAST_ACK\",event=\"ACK of FIN\"}[4s])",
            "rate(finwheel_time_wait_expiry_batch_count[4s])",
            "finwheel_ring_depth{ring=\"fill\"}",
            "finwheel_resident_memory_bytes",
            "sum(finwheel_drops_total)",
        ] {
            until(query, DATA, || values(&rig, query).iter().any(|v| *v > 0.0));
        }
    });
    assert!(seen.errors.is_empty() && seen.took.len() > 100, "{:?}", seen.errors);
    drop(prometheus);
    p.signal(Signal::SIGTERM);
    let (status, log) = p.end(Duration::from_secs(40));
    assert_eq!(status.code(), Some(0), "{log}");
}
