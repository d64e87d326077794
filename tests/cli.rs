//! The `finwheel` command as its user meets it: exit codes, what goes where, and errors that name file, line and
//! remedy.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn finwheel(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_finwheel")).args(args).output().expect("the binary runs")
}

fn code(o: &Output) -> i32 {
    o.status.code().expect("ended by itself")
}

fn stdout(o: &Output) -> String {
    String::from_utf8(o.stdout.clone()).expect("UTF-8")
}

fn stderr(o: &Output) -> String {
    String::from_utf8(o.stderr.clone()).expect("UTF-8")
}

const GOOD: &str = "[interface]\nname = \"eth0\"\n\n[[listener]]\nname = \"echo\"\naddress = \"0.0.0.0:7\"\nservice = \"echo\"\n";

/// Runs `check` on the good configuration followed by `extra`, which starts at line 8.
fn check(extra: &str) -> (Output, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("finwheel.toml");
    std::fs::write(&path, format!("{GOOD}{extra}")).expect("written");
    (finwheel(&["check", "--config", path.to_str().expect("UTF-8")]), path)
}

#[track_caller]
fn refused(extra: &str, place: &str, parts: &[&str]) {
    let (o, path) = check(extra);
    assert_eq!(code(&o), 2, "{}", stderr(&o));
    assert_eq!(stdout(&o), "");
    let text = stderr(&o);
    assert!(text.contains(&format!("{}:{place}: error: ", path.display())), "{text}");
    for part in parts {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(text.ends_with(&format!("{}: 1 error\n", path.display())), "{text}");
}

#[test]
fn a_good_file_is_summed_up_on_stdout() {
    let (o, path) = check("");
    assert_eq!((code(&o), stderr(&o)), (0, String::new()));
    let text = stdout(&o);
    assert!(text.starts_with(&format!("OK {}\n", path.display())), "{text}");
    assert!(text.contains("echo: echo on 0.0.0.0:7"), "{text}");
}

#[test]
fn the_manual_and_every_example_pass() {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let examples = std::fs::read_dir(config.join("examples")).expect("examples");
    let mut files: Vec<_> = examples.map(|e| e.expect("an entry").path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "toml"));
    files.push(config.join("finwheel.toml"));
    assert!(files.len() >= 4);
    for f in files {
        let o = finwheel(&["check", "-c", f.to_str().expect("UTF-8")]);
        assert_eq!((code(&o), stderr(&o)), (0, String::new()), "{}", f.display());
    }
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_one() {
    refused(
        "[tcp]\ntime_wiat = \"60s\"\n",
        "9:1",
        &[
            "unknown key `time_wiat` in [tcp]",
            "    9 | time_wiat = \"60s\"\n      | ^^^^^^^^^\n",
            "help: did you mean `time_wait`?",
        ],
    );
}

#[test]
fn a_wrong_type_is_refused_with_the_expected_one() {
    refused(
        "[worker]\nconnections = \"many\"\n",
        "9:1",
        &["found the string \"many\"", "a whole number from 1 to 16777216"],
    );
}

#[test]
fn a_wrong_unit_is_refused_with_the_right_one() {
    refused("[tcp]\nreceive_buffer = \"64KB\"\n", "9:1", &["unknown unit `KB`", "write \"64KiB\""]);
    refused("[drain]\ndeadline = 30\n", "9:1", &["found the whole number 30", "write \"30s\""]);
}

#[test]
fn a_value_out_of_range_is_refused_with_the_range_and_its_unit() {
    refused("[tcp]\ntime_wait = \"1h\"\n", "9:1", &["3600s is too high", "from 1ms to 240s"]);
}

#[test]
fn limits_that_contradict_each_other_are_refused() {
    refused(
        "[worker]\nconnections = 100\n",
        "9:1",
        &["16384 half-open connections", "half_open = 100 or less"],
    );
}

#[test]
fn all_errors_are_shown_at_once() {
    let (o, path) = check("[tcp]\nttl = 0\ntime_wait = 5\nx = 1\n");
    let text = stderr(&o);
    assert_eq!(code(&o), 2);
    for line in [9, 10, 11] {
        assert!(text.contains(&format!("{}:{line}:1: error: ", path.display())), "{text}");
    }
    assert!(text.ends_with(&format!("{}: 3 errors\n", path.display())), "{text}");
}

#[test]
fn a_warning_is_shown_and_does_not_fail() {
    let (o, path) = check("[tcp]\ntime_wait = \"5ms\"\n");
    assert_eq!(code(&o), 0);
    assert!(stderr(&o).starts_with(&format!("{}:9:1: warning: ", path.display())));
    assert!(stdout(&o).starts_with("OK "));
}

#[test]
fn a_missing_file_is_named() {
    let o = finwheel(&["check", "--config", "/no/such/file.toml"]);
    assert_eq!(code(&o), 2);
    assert!(stderr(&o).starts_with("cannot read the configuration /no/such/file.toml: "));
}

#[test]
fn a_wrong_command_line_exits_with_2_and_help_and_version_with_0() {
    let o = finwheel(&["chekc"]);
    assert_eq!(code(&o), 2);
    assert!(stderr(&o).contains("'check'"), "{}", stderr(&o));
    assert_eq!(code(&finwheel(&["check", "--frob"])), 2);
    assert_eq!(code(&finwheel(&[])), 2);
    assert_eq!(code(&finwheel(&["--help"])), 0);
    let version = finwheel(&["--version"]);
    assert_eq!((code(&version), stdout(&version)), (0, format!("finwheel {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn a_simulation_says_how_it_went_and_how_to_see_a_failure_again() {
    let o = finwheel(&["sim", "--seed", "7", "--connections", "20", "--seeds", "3", "--json"]);
    assert_eq!(code(&o), 0, "{}", stderr(&o));
    let sum: serde_json::Value = serde_json::from_str(&stdout(&o)).expect("one JSON object");
    assert_eq!((sum["first_seed"].as_u64(), sum["seeds"].as_u64()), (Some(7), Some(3)));
    assert!(sum["failed"].is_null() && sum["deeds"]["good"].as_u64() > Some(20), "{sum}");
    assert!(stderr(&o).starts_with("first seed 7\n"));

    let failing = "sim --seed 7 --connections 200 --workers 1 --faults none --sabotage FlippedByte";
    let o = finwheel(&failing.split(' ').collect::<Vec<_>>());
    assert_eq!(code(&o), 1, "{}", stdout(&o));
    let replay = format!("finwheel {failing} --log -");
    assert!(stdout(&o).contains(&format!("replay: {replay}\n")), "{}", stdout(&o));
    // The command does what it says.
    let again: Vec<_> = replay.split(' ').skip(1).collect();
    let o = finwheel(&again);
    assert_eq!(code(&o), 1);
    let log = stdout(&o);
    assert!(log.lines().any(|l| l.contains(" server/") && l.contains(" ESTABLISHED ")), "a packet log");
    assert!(log.lines().last().is_some_and(|l| l.contains("VIOLATED")), "{:?}", log.lines().last());
    assert!(stderr(&o).contains(&replay));
}

#[test]
fn a_simulation_refuses_faults_that_it_does_not_know() {
    let o = finwheel(&["sim", "--faults", "loss,gremlins"]);
    assert_eq!(code(&o), 2);
    assert!(stderr(&o).contains("no fault is called \"gremlins\"; there are loss, "), "{}", stderr(&o));
}

#[test]
fn blast_sends_nothing_without_a_target_and_says_what_contradicts() {
    let o = finwheel(&["blast", "--interface", "lo", "--source-net", "10.78.0.0/24"]);
    assert_eq!((code(&o), stdout(&o)), (2, String::new()));
    assert!(stderr(&o).contains("--target <ADDR:PORT>"), "{}", stderr(&o));
    let to = ["blast", "--target", "10.0.0.1:80", "--interface", "lo", "--source-net"];
    let o = finwheel(&[&to[..], &["fd78::/64"]].concat());
    assert_eq!(code(&o), 2);
    assert!(stderr(&o).starts_with("error: ") && stderr(&o).contains("IP version"), "{}", stderr(&o));
    let help = stdout(&finwheel(&["blast", "--help"]));
    for part in ["ip route add local", "Examples:", "--max-errors", "open loop", "Exit codes"] {
        assert!(help.to_lowercase().contains(&part.to_lowercase()), "{part}: {help}");
    }
}
