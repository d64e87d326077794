//! The document of the benches: what makes it, and that what lies in `docs/` was made by it. No bench is run here.

// The benches use more of it.
#[allow(dead_code)]
#[path = "../benches/peers/document.rs"]
mod document;
#[path = "../benches/peers/paper.rs"]
mod paper;
#[allow(dead_code)]
#[path = "../benches/peers/summary.rs"]
mod summary;

use serde_json::{Map, Value, json};
use std::fs;
use std::path::Path;

/// A summary with every figure, each of them another one.
fn sample() -> Value {
    let mut all = Map::new();
    for (i, key) in summary::KEYS.iter().enumerate() {
        let nested = key.place.rsplit('.').fold(json!(i + 2), |value, name| json!({ name: value }));
        let Value::Object(nested) = nested else { unreachable!() };
        summary::merge(&mut all, nested).unwrap();
    }
    Value::Object(all)
}

#[test]
fn every_figure_stands_in_document_and_table_under_its_key() {
    let all = sample();
    assert!(summary::missing(&all).is_empty());
    let (text, table) = (document::markdown(&all), document::table(&all));
    for key in summary::KEYS {
        let row = text.lines().find(|l| l.starts_with(&format!("| `{}` | ", key.place)));
        let value = document::number(summary::figure(&all, key.place).unwrap());
        assert!(row.is_some_and(|r| r.contains(&value)), "{}: {row:?}", key.place);
        let line = table.lines().find(|l| l.split_whitespace().next() == Some(key.place));
        assert!(line.is_some_and(|l| l.contains(&value)), "{}: {line:?}", key.place);
    }
}

#[test]
fn what_was_not_measured_is_named_and_never_a_number() {
    let mut all = sample();
    all["veth"]["nginx"].as_object_mut().unwrap().remove("conn_per_s");
    all["engine"]["expiry_ns"] = Value::Null;
    assert_eq!(summary::missing(&all), ["engine.expiry_ns", "veth.nginx.conn_per_s"]);
    let text = document::markdown(&all);
    assert!(text.contains("| `engine.expiry_ns` | not measured |"), "{text}");
    assert!(document::table(&json!({})).lines().all(|l| l.contains("not measured")));
    assert!(document::markdown(&json!({})).contains("was not measured"));
}

#[test]
fn parts_become_one_summary_and_two_of_one_figure_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let parts = dir.path().join("parts");
    summary::write_part(&parts, "veth", &json!({ "nginx": { "conn_per_s": 3 } })).unwrap();
    fs::write(
        parts.join("other.json"),
        r#"{"veth": {"epoll": {"conn_per_s": 4}}, "engine": {"expiry_ns": 5}}"#,
    )
    .unwrap();
    fs::write(parts.join("notes.txt"), "not a part").unwrap();
    let all = summary::read_parts(&parts).unwrap();
    let want = json!({
        "veth": { "nginx": { "conn_per_s": 3 }, "epoll": { "conn_per_s": 4 } }, "engine": { "expiry_ns": 5 }
    });
    assert_eq!(all, want);
    fs::write(parts.join("z.json"), r#"{"engine": {"expiry_ns": 6}}"#).unwrap();
    let e = summary::read_parts(&parts).unwrap_err().to_string();
    assert!(e.contains("z.json") && e.contains("engine.expiry_ns"), "{e}");
    fs::write(parts.join("z.json"), "[]").unwrap();
    assert!(summary::read_parts(&parts).unwrap_err().to_string().contains("no JSON object"));
}

#[test]
fn numbers_are_written_for_people() {
    for (n, text) in [
        (0.0, "0"),
        (2.0, "2"),
        (0.0123, "0.012"),
        (3.456, "3.46"),
        (34.56, "34.6"),
        (345.6, "346"),
        (1_234_567.0, "1,234,567"),
        (-123_456.0, "-123,456"),
        (999.6, "1,000"),
    ] {
        assert_eq!(document::number(n), text);
    }
}

#[test]
fn the_document_in_docs_was_made_from_the_figures_in_it() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/benchmarks.md");
    let text = fs::read_to_string(path).unwrap();
    let json =
        text.split_once("```json\n").and_then(|(_, rest)| rest.split_once("\n```")).expect("the JSON").0;
    let summary: Value = serde_json::from_str(json).unwrap();
    assert!(summary::missing(&summary).is_empty(), "a whole run, not a part of one");
    assert!(
        document::markdown(&summary) == text,
        "docs/benchmarks.md is not what benches/peers/document.rs makes of it"
    );
}
