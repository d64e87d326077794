//! What lies beside the code stays true to it: dashboards and rules use only metrics and labels of the catalogue, and
//! every file that some other program reads can be read.

use finwheel::metrics::catalog::{CATALOG, Kind, Metric};
use saphyr::{LoadableYamlNode, Yaml};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below a folder of the repository whose names end in one of `ends`.
fn files(folder: &str, ends: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder").map(|e| e.expect("an entry").path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if ends.iter().any(|e| entry.to_str().is_some_and(|p| p.ends_with(e))) {
                found.push(entry);
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no {ends:?} in {folder}");
    found
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The metric that a name in a query means: its own, or that of a histogram's series.
fn metric(name: &str) -> Option<&'static Metric> {
    CATALOG.iter().copied().find(|m| {
        m.name == name
            || m.kind == Kind::Histogram
                && ["_bucket", "_sum", "_count"].iter().any(|s| name.strip_suffix(s) == Some(m.name))
    })
}

/// Every word of the form `finwheel_…` in a text, with the text that follows it.
fn names(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.match_indices("finwheel_").map(|(at, _)| {
        let tail = &text[at..];
        let end = tail.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(tail.len());
        tail.split_at(end)
    })
}

/// Names of the labels in the selector that follows a metric's name, if one does.
fn selected(after: &str) -> Vec<&str> {
    let Some((selector, _)) = after.strip_prefix('{').and_then(|s| s.split_once('}')) else {
        return Vec::new();
    };
    // No value in these files holds a comma.
    selector
        .split(',')
        .filter_map(|m| m.split(['=', '!']).next())
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect()
}

#[test]
fn dashboards_and_rules_use_only_metrics_and_labels_of_the_catalogue() {
    let mut used = BTreeSet::new();
    for folder in ["dashboards", "deploy"] {
        for path in files(folder, &[".json", ".yml", ".yaml", ".md", ".service"]) {
            let text = read(&path).replace("\\\"", "\"");
            for (name, after) in names(&text) {
                let m = metric(name).unwrap_or_else(|| panic!("{}: no metric {name}", path.display()));
                used.insert(m.name);
                for label in selected(after) {
                    // Prometheus adds these two.
                    let known = m.labels.contains(&label) || ["instance", "job", "le"].contains(&label);
                    assert!(known, "{}: {name} has no label {label}", path.display());
                }
            }
        }
    }
    assert!(used.len() > CATALOG.len() / 2, "only {used:?}");
}

#[test]
fn the_dashboards_show_every_metric() {
    let text: String = files("dashboards", &[".json"]).iter().map(|p| read(p)).collect();
    let shown: BTreeSet<_> = names(&text).filter_map(|(n, _)| metric(n)).map(|m| m.name).collect();
    let missing: Vec<_> = CATALOG.iter().map(|m| m.name).filter(|n| !shown.contains(n)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn dashboards_are_json_with_panels_that_do_not_overlap() {
    for path in files("dashboards", &[".json"]) {
        let board: serde_json::Value =
            serde_json::from_str(&read(&path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut taken = BTreeSet::new();
        let mut ids = BTreeSet::new();
        for panel in board["panels"].as_array().expect("panels") {
            let at = |key: &str| panel["gridPos"][key].as_u64().expect("a place");
            assert!(ids.insert(panel["id"].as_u64()), "an id twice: {panel}");
            assert!(at("x") + at("w") <= 24, "{panel}");
            for cell in
                (at("x")..at("x") + at("w")).flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y)))
            {
                assert!(taken.insert(cell), "overlap at {cell:?}: {}", panel["title"]);
            }
            if panel["type"] != "row" {
                let targets = panel["targets"].as_array().expect("targets");
                assert!(!targets.is_empty() && targets.iter().all(|t| t["expr"].is_string()), "{panel}");
            }
        }
    }
}

#[test]
fn dashboards_are_as_their_script_writes_them() {
    let script = root().join("scripts/make-dashboards.py");
    match Command::new("python3").arg(script).arg("--check").output() {
        Ok(o) => assert!(o.status.success(), "{}", String::from_utf8_lossy(&o.stderr)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => println!("skipped: python3 is not installed"),
        Err(e) => panic!("python3: {e}"),
    }
}

#[test]
fn every_yaml_file_is_yaml() {
    for path in files("deploy", &[".yml", ".yaml"]) {
        let documents =
            Yaml::load_from_str(&read(&path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(!documents.is_empty() && documents.iter().all(Yaml::is_mapping), "{}", path.display());
    }
}

#[test]
fn every_deployment_grants_the_same_capabilities_and_the_code_asks_for_no_other() {
    let needed: Vec<_> =
        finwheel::port::xsk::NEEDED.iter().map(|c| c.as_str()).chain(["CAP_IPC_LOCK"]).collect();
    for name in ["systemd/finwheel.service", "compose.yaml", "kubernetes/daemonset.yaml", "README.md"] {
        let text = read(&root().join("deploy").join(name)).to_uppercase();
        for c in &needed {
            let bare = c.trim_start_matches("CAP_");
            assert!(text.contains(bare), "deploy/{name} lacks {c}");
        }
    }
}

/// Runs promtool on a folder's files. Returns whether there is a promtool; says so when not.
#[must_use]
fn promtool(folder: &Path, args: &[&str]) -> bool {
    match Command::new("promtool").args(args).current_dir(folder).output() {
        Ok(o) => {
            let said = [o.stdout, o.stderr].concat();
            assert!(o.status.success(), "{args:?}: {}", String::from_utf8_lossy(&said));
            true
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            println!("skipped: promtool is not installed");
            false
        }
        Err(e) => panic!("promtool: {e}"),
    }
}

#[test]
fn promtool_accepts_the_rules_and_their_tests() {
    let folder = root().join("deploy/prometheus");
    for args in [
        ["check", "config", "prometheus.yml"],
        ["check", "rules", "rules.yml"],
        ["test", "rules", "rules.test.yml"],
    ] {
        if !promtool(&folder, &args) {
            return;
        }
    }
}

#[test]
fn promtool_accepts_every_query_of_the_dashboards() {
    let mut rules = Vec::new();
    for path in files("dashboards", &[".json"]) {
        let board: serde_json::Value = serde_json::from_str(&read(&path)).expect("JSON");
        for panel in board["panels"].as_array().expect("panels") {
            for target in panel["targets"].as_array().into_iter().flatten() {
                // Grafana fills in the interval.
                let expr = target["expr"].as_str().expect("a query").replace("$__rate_interval", "1m");
                rules.push(serde_json::json!({"record": format!("panel:{}", rules.len()), "expr": expr}));
            }
        }
    }
    assert!(rules.len() > 20, "{}", rules.len());
    let dir = tempfile::tempdir().expect("a directory");
    // JSON is YAML.
    let file = serde_json::json!({"groups": [{"name": "dashboards", "rules": rules}]});
    std::fs::write(dir.path().join("queries.yml"), file.to_string()).expect("written");
    let _ = promtool(dir.path(), &["check", "rules", "queries.yml"]);
}
