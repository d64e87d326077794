//! The checklist (`docs/rfc-checklist.md`) against the tests: every requirement has one, and none names a requirement that
//! is not there. `UPDATE_DRAWINGS=1 cargo test --test checklist` writes the table of both, `docs/checklist.md`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Where tests are written.
const PLACES: [&str; 2] = ["src", "tests"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// `c07` of `c07_a_fin_is_lost`: a letter of the checklist and two digits, with nothing or an underscore behind.
fn id(name: &str) -> Option<&str> {
    let b = name.as_bytes();
    let shaped = b.len() >= 3 && b"odctri".contains(&b[0]) && b[1].is_ascii_digit() && b[2].is_ascii_digit();
    (shaped && !b.get(3).is_some_and(u8::is_ascii_alphanumeric)).then(|| &name[..3])
}

/// The rows of the checklist in its order: id, and what must hold.
fn rows() -> Vec<(String, String)> {
    read(&root().join("docs/rfc-checklist.md"))
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| ")?.split(" | ");
            let (name, _, what) = (cells.next()?, cells.next()?, cells.next()?);
            id(name).map(|i| (i.to_owned(), what.trim_end_matches(" |").to_owned()))
        })
        .collect()
}

fn files(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
        let path = entry.expect("a readable directory").path();
        if path.is_dir() {
            files(&path, into);
        } else {
            into.push(path);
        }
    }
}

/// Names of the tests of a source, with the id that each carries: a function under `#[test]` (or in `proptest!`, where the
/// attribute is the same), or one with `// id: …` between the attribute and its name.
fn tests_of(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    // Ids of the comments since the last attribute; `None` outside of a test's head.
    let mut head: Option<Vec<String>> = None;
    for line in text.lines().map(str::trim) {
        if line == "#[test]" {
            head = Some(Vec::new());
        } else if let (Some(ids), Some(list)) = (&mut head, line.strip_prefix("// id: ")) {
            ids.extend(list.split([',', ' ']).filter(|i| !i.is_empty()).map(str::to_owned));
        } else if let Some(name) = line.strip_prefix("fn ") {
            let name: String = name.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if let Some(ids) = head.take() {
                found.extend(id(&name).map(|i| (i.to_owned(), name.clone())));
                found.extend(ids.into_iter().map(|i| (i, name.clone())));
            }
        }
    }
    found
}

/// Tests by the id that they carry: where they are, and their name.
fn tests() -> BTreeMap<String, Vec<String>> {
    let mut paths = Vec::new();
    for place in PLACES {
        files(&root().join(place), &mut paths);
    }
    paths.sort();
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for path in paths {
        let shown = path.strip_prefix(root()).expect("below the root").display().to_string();
        match path.extension().and_then(|e| e.to_str()) {
            Some("rs") => {
                for (id, name) in tests_of(&read(&path)) {
                    all.entry(id).or_default().push(format!("{shown}: `{name}`"));
                }
            }
            Some("pkt") => {
                let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
                if let Some(id) = id(stem) {
                    all.entry(id.to_owned()).or_default().push(shown);
                }
            }
            _ => {}
        }
    }
    all
}

#[test]
fn every_requirement_has_a_test_and_every_test_s_id_a_requirement() {
    let (rows, tests) = (rows(), tests());
    assert!(rows.len() > 60, "only {} rows were read", rows.len());
    let missing: Vec<_> = rows.iter().filter(|(id, _)| !tests.contains_key(id)).collect();
    assert!(missing.is_empty(), "without a test: {missing:#?}");
    let unknown: Vec<_> = tests.iter().filter(|(id, _)| !rows.iter().any(|(row, _)| row == *id)).collect();
    assert!(unknown.is_empty(), "not in docs/rfc-checklist.md: {unknown:#?}");
    let mut ids: Vec<_> = rows.iter().map(|(id, _)| id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), rows.len(), "an id stands twice");
}

#[test]
fn the_table_is_up_to_date() {
    let tests = tests();
    let mut table = String::from(
        "# The checklist and its tests\n\n\
        Made by `UPDATE_DRAWINGS=1 cargo test --test checklist` from `docs/rfc-checklist.md` and the names of the tests; \
        a script\nruns over IPv4 and IPv6.\n\n\
        | id | what must hold | proved in |\n|---|---|---|\n",
    );
    for (id, what) in rows() {
        let carried = tests.get(&id).map_or(&[][..], Vec::as_slice);
        // The files, and the folders of scripts: this changes less often than the number of tests.
        let mut places: Vec<&str> = carried
            .iter()
            // A function stands behind the name of its file, a script in its folder.
            .map(|t| t.split_once(':').or_else(|| t.rsplit_once('/')).expect("a path").0)
            .collect();
        places.dedup();
        let _ = writeln!(table, "| {id} | {what} | {} |", places.join(", "));
    }
    let path = root().join("docs/checklist.md");
    if std::env::var_os("UPDATE_DRAWINGS").is_some() {
        std::fs::write(&path, &table).expect("the table can be written");
    }
    let kept = read(&path);
    assert!(kept == table, "docs/checklist.md is old: run UPDATE_DRAWINGS=1 cargo test --test checklist");
}

#[test]
fn ids_are_read_from_names_and_comments_of_tests_only() {
    let text = "fn c01_helper() {}\n#[test]\nfn c02_closes() {}\n    #[test]\n    // id: d10, d11\n    fn recovers() {}\n\
        // id: t01\nfn t02_no_test() {}\n#[test]\n#[ignore]\nfn r05x_is_no_id() {}\n";
    let pairs = [("c02", "c02_closes"), ("d10", "recovers"), ("d11", "recovers")];
    assert_eq!(tests_of(text), pairs.map(|(i, n)| (i.to_owned(), n.to_owned())));
    assert_eq!(
        [id("c07"), id("c7_x"), id("x07_y"), id("c071"), id("c07-x")],
        [Some("c07"), None, None, None, Some("c07")]
    );
}
