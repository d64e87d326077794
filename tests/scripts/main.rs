//! TCP scripts in a subset of packetdrill's language, run over a shard in virtual time, over IPv4 and IPv6.
//!
//! `README.md` beside this file describes the language. Each script's name begins with the id of the requirement that it
//! proves; the last test says which requirements have no script. `FINWHEEL_SCRIPT=<part of a name>` runs some only.

// Script numbers are small and may be negative; sequence space is modular.
#![allow(clippy::cast_possible_wrap, clippy::cast_sign_loss)]

mod frames;
mod run;
mod selftest;
mod service;
mod settings;
mod syntax;

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

/// Folders of scripts.
const GROUPS: [&str; 7] = ["opening", "data", "closing", "time_wait", "resets", "matrix", "ip"];

fn scripts(group: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts").join(group);
    let only = std::env::var("FINWHEEL_SCRIPT").unwrap_or_default();
    let mut all: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.expect("the folder can be read").path())
        .filter(|p| p.extension().is_some_and(|e| e == "pkt") && p.to_string_lossy().contains(&only))
        .collect();
    all.sort();
    all
}

/// Runs all scripts of a folder and names every one that fails, as `file:line: expected, got`.
fn run_group(group: &str, v6: bool) {
    let mut failures = Vec::new();
    for path in scripts(group) {
        let text = fs::read_to_string(&path).expect("the script can be read");
        // An assertion within the engine fails this script, not the rest of the folder.
        let outcome = catch_unwind(|| syntax::parse(&text).and_then(|script| run::run(&script, v6)))
            .unwrap_or_else(|_| Err("0: the engine panicked; its message is above".into()));
        if let Err(e) = outcome {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            failures.push(format!("tests/scripts/{group}/{name}:{e}"));
        }
    }
    assert!(failures.is_empty(), "{} of {group} fail:\n{}", failures.len(), failures.join("\n"));
}

macro_rules! groups {
    ($($group:ident),*) => {$(
        mod $group {
            #[test]
            fn over_ipv4() {
                super::run_group(stringify!($group), false);
            }
            #[test]
            fn over_ipv6() {
                super::run_group(stringify!($group), true);
            }
        }
    )*};
}
groups!(opening, data, closing, time_wait, resets, matrix, ip);

#[test]
fn every_requirement_has_a_script() {
    if std::env::var_os("FINWHEEL_SCRIPT").is_some() {
        return;
    }
    let names: Vec<String> = GROUPS
        .iter()
        .flat_map(|g| scripts(g))
        .map(|p| p.file_stem().unwrap_or_default().to_string_lossy().into_owned())
        .collect();
    let covered: BTreeSet<&str> = names.iter().filter_map(|n| n.split('_').next()).collect();
    let ids = |letter: char, numbers: &[u8]| -> Vec<String> {
        numbers.iter().map(|n| format!("{letter}{n:02}")).collect()
    };
    let range = |letter: char, last: u8| ids(letter, &(1..=last).collect::<Vec<_>>());
    let wanted = [
        range('o', 9),
        ids('o', &[11]),
        range('d', 9),
        ids('d', &[12, 13, 15]),
        range('c', 18),
        range('t', 6),
        range('r', 7),
    ]
    .concat();
    let missing: Vec<&String> = wanted.iter().filter(|id| !covered.contains(id.as_str())).collect();
    assert!(missing.is_empty(), "no script for {missing:?}; there are scripts for {covered:?}");
    let distinct: BTreeSet<&String> = names.iter().collect();
    assert_eq!(distinct.len(), names.len(), "two scripts of one name");
    assert!(names.len() >= 120, "{} scripts", names.len());
}
