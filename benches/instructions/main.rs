//! Instructions by life and by segment, counted by callgrind: the same on every run of the same program, whatever else the
//! machine does. What memory costs is not in them; that is `benches/report`.
//!
//! ```text
//! cargo bench --bench instructions    needs valgrind (scripts/setup.sh bench)
//! ```
//!
//! Each count is of a program that plays so many steps of 4096 lives and of one that plays one step less. Written to
//! `target/bench/parts/instructions.json`.

#[path = "../engine/lives.rs"]
mod lives;

use lives::{CONCURRENT, Life, Lives, Room};
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::process::Command;

/// Says to a process that it is the one that is counted, and what it is to play.
const PLAY: &str = "FINWHEEL_PLAY";

/// What is counted of a life, and of the records that lives leave.
const PLAYED: &str = "*Lives*play*";
const EXPIRY: &str = "expiry";

const LIVES: [(&str, Life); 4] = [
    ("we_close_first", Life::WeClose),
    ("we_close_first_fin_apart", Life::WeCloseApart),
    ("peer_closes_first", Life::PeerCloses),
    ("peer_sends_and_closes", Life::PeerSendsAndCloses),
];

fn main() {
    if let Ok(play) = std::env::var(PLAY) {
        let (name, steps) = play.split_once(' ').expect("a life and its steps");
        let steps = steps.parse().expect("a number of steps");
        let mut shard = Lives::new(Room::with(0));
        match (LIVES.iter().find(|(n, _)| *n == name), name) {
            (Some(&(_, life)), _) => shard.begin(life, steps),
            (None, EXPIRY) => {
                shard.begin(Life::WeClose, steps);
                let _ = shard.expire();
            }
            (None, _) => drop(shard.strays()),
        }
        return;
    }
    let mut all = Map::new();
    for (name, life) in LIVES {
        let mut before = 0;
        let mut of_steps = Map::new();
        for (i, step) in life.steps().iter().enumerate() {
            let so_far = count(&format!("{name} {}", i + 1), PLAYED);
            of_steps.insert(step.as_str().to_owned(), per_life(so_far - before));
            before = so_far;
        }
        all.insert(name.to_owned(), json!({ "life": per_life(before), "segment": of_steps }));
    }
    all.insert("stray".to_owned(), per_life(count("stray 0", PLAYED)));
    all.insert(EXPIRY.to_owned(), per_life(count(&format!("{EXPIRY} 3"), "*Lives::expire*")));
    let again = count("we_close_first 3", PLAYED);
    assert_eq!(Some(&per_life(again)), all["we_close_first"].get("life"), "a count repeats");

    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let parts = target.join("bench/parts");
    std::fs::create_dir_all(&parts).unwrap_or_else(|e| panic!("{}: {e}", parts.display()));
    let path = parts.join("instructions.json");
    let text = serde_json::to_string_pretty(&json!({ "instructions": all })).expect("numbers are JSON");
    println!("{text}");
    std::fs::write(&path, text + "\n").unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    eprintln!("written: {}", path.display());
}

fn per_life(instructions: u64) -> Value {
    json!((instructions as f64 / f64::from(CONCURRENT)).round())
}

/// Instructions that the shard takes for what is played, within the functions `of`.
fn count(play: &str, of: &str) -> u64 {
    let this = std::env::current_exe().expect("a program knows where it lies");
    let out = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(format!("--toggle-collect={of}"))
        .arg(this)
        .env(PLAY, play)
        .output()
        .unwrap_or_else(|e| panic!("valgrind: {e}; scripts/setup.sh bench installs it"));
    let told = String::from_utf8_lossy(&out.stderr);
    let collected =
        told.lines().find_map(|l| l.split_once("Collected : ")).and_then(|(_, n)| n.trim().parse().ok());
    match collected {
        Some(n) if out.status.success() => n,
        _ => panic!("valgrind ended with {}: {told}", out.status),
    }
}
