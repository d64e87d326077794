//! The pages that are made from the code are what the code says: one for each subcommand, and the doctor's.
//!
//! `UPDATE_DRAWINGS=1 cargo test --test docs` writes them anew.

use clap::{Arg, Command, CommandFactory};
use finwheel::cli::Cli;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command as Process;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The command line with all names filled in, without what is hidden.
fn subcommands() -> Vec<Command> {
    let mut root = Cli::command();
    root.build();
    root.get_subcommands().filter(|s| !s.is_hide_set() && s.get_name() != "help").cloned().collect()
}

/// A paragraph of help as Markdown: `<` would begin a tag.
fn prose(text: &str) -> String {
    text.trim().replace('<', "&lt;")
}

/// With its full stop, which help texts go without.
fn sentence(text: &str) -> String {
    let text = prose(text);
    if text.ends_with(['.', ']', ':']) { text } else { text + "." }
}

/// How an argument is written.
fn spelling(arg: &Arg) -> String {
    let values: Vec<String> = match arg.get_value_names() {
        Some(names) if arg.get_action().takes_values() => names.iter().map(|n| format!("<{n}>")).collect(),
        _ => Vec::new(),
    };
    let values = values.join(" ");
    let mut names: Vec<String> = Vec::new();
    names.extend(arg.get_short().map(|s| format!("-{s}")));
    names.extend(arg.get_long().map(|l| format!("--{l}")));
    let names = names.join(", ");
    [names, values].join(" ").trim().to_owned()
}

fn argument(arg: &Arg) -> String {
    let mut text = format!("* `{}`", spelling(arg));
    if let Some(help) = arg.get_long_help().or(arg.get_help()) {
        let _ = write!(text, ": {}", sentence(&help.to_string()).replace("\n\n", "\n").replace('\n', "\n  "));
    }
    let defaults: Vec<_> = arg.get_default_values().iter().map(|v| v.to_string_lossy()).collect();
    if arg.get_action().takes_values() && !defaults.is_empty() {
        let _ = write!(text, " Default: `{}`.", defaults.join(" "));
    }
    let words = arg.get_possible_values();
    if arg.get_action().takes_values() && !words.is_empty() {
        text.push_str(" One of:\n");
        for w in words.iter().filter(|w| !w.is_hide_set()) {
            let _ = write!(text, "  * `{}`", w.get_name());
            if let Some(help) = w.get_help() {
                let _ = write!(text, ": {}", prose(&help.to_string()));
            }
            text.push('\n');
        }
        text.pop();
    }
    text
}

/// A command's page; its subcommands, if it has some, follow as sections.
fn page(command: &Command, level: usize) -> String {
    let name = command.get_bin_name().unwrap_or(command.get_name()).to_owned();
    let about = command.get_long_about().or(command.get_about()).map(ToString::to_string).unwrap_or_default();
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ");
    let mut text = format!("{} {name}\n\n{}\n\n```text\n{usage}\n```\n", "#".repeat(level), prose(&about));
    let shown: Vec<&Arg> = command
        .get_arguments()
        .filter(|a| !a.is_hide_set() && !["help", "version"].contains(&a.get_id().as_str()))
        .collect();
    let (positional, options): (Vec<&Arg>, Vec<&Arg>) = shown.into_iter().partition(|a| a.is_positional());
    for (title, args) in [("Arguments", positional), ("Options", options)] {
        if !args.is_empty() {
            let list: Vec<_> = args.into_iter().map(argument).collect();
            let _ = write!(text, "\n{} {title}\n\n{}\n", "#".repeat(level + 1), list.join("\n"));
        }
    }
    if let Some(after) = command.get_after_long_help().or(command.get_after_help()) {
        // Laid out for a terminal, commands and all.
        let _ = write!(text, "\n```text\n{}\n```\n", after.to_string().trim());
    }
    for sub in command.get_subcommands().filter(|s| !s.is_hide_set() && s.get_name() != "help") {
        text.push('\n');
        text.push_str(&page(sub, level + 1));
    }
    text
}

/// Compares a made page with the file, or writes it.
#[track_caller]
fn hold(path: &Path, made: &str) {
    if std::env::var_os("UPDATE_DRAWINGS").is_some() {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, made).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
    let there = std::fs::read_to_string(path).unwrap_or_default();
    assert!(there == made, "{} is stale: UPDATE_DRAWINGS=1 cargo test --test docs writes it", path.display());
}

fn pages() -> PathBuf {
    root().join("docs/cli")
}

#[test]
fn every_subcommand_has_its_page_and_there_is_no_other() {
    let mut expected = BTreeSet::new();
    for sub in subcommands() {
        let name = format!("{}.md", sub.get_name());
        hold(&pages().join(&name), &page(&sub, 1));
        expected.insert(name);
    }
    let mut index = String::from("# The command line\n\n| subcommand | does |\n|---|---|\n");
    for sub in subcommands() {
        let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(index, "| [finwheel {0}]({0}.md) | {1} |", sub.get_name(), prose(&about));
    }
    index.push_str("\nThese pages are made from the code by `UPDATE_DRAWINGS=1 cargo test --test docs`.\n");
    hold(&pages().join("README.md"), &index);
    expected.insert("README.md".into());
    let there = std::fs::read_dir(pages()).expect("a folder");
    let there: BTreeSet<_> =
        there.map(|e| e.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
    assert_eq!(there, expected);
}

#[test]
fn the_troubleshooting_page_is_the_doctors_table() {
    hold(&root().join("docs/troubleshooting.md"), &finwheel::doctor::catalog::page());
}

#[test]
fn every_link_between_the_pages_leads_somewhere() {
    let mut folders = vec![root().join("docs"), root().join("deploy")];
    let mut files =
        vec![root().join("README.md"), root().join("ARCHITECTURE.md"), root().join("CONTRIBUTING.md")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder").map(|e| e.expect("an entry").path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|e| e == "md") {
                files.push(entry);
            }
        }
    }
    let mut links = 0;
    for file in &files {
        let text = std::fs::read_to_string(file).expect("read");
        for target in text.split("](").skip(1).filter_map(|t| t.split(')').next()) {
            let path = target.split('#').next().unwrap_or_default();
            if path.is_empty() || path.contains("://") {
                continue;
            }
            links += 1;
            let at = file.parent().expect("a folder").join(path);
            assert!(at.exists(), "{}: {target} leads nowhere", file.display());
        }
    }
    assert!(links > 20, "{links}");
    // Whoever begins at the index finds every page.
    let index = std::fs::read_to_string(root().join("docs/README.md")).expect("read");
    for entry in std::fs::read_dir(root().join("docs")).expect("a folder") {
        let name = entry.expect("an entry").file_name().into_string().expect("UTF-8");
        if Path::new(&name).extension().is_some_and(|e| e == "md") && name != "README.md" {
            assert!(index.contains(&format!("]({name})")), "docs/README.md does not lead to {name}");
        }
    }
}

fn finwheel(args: &[&str]) -> std::process::Output {
    Process::new(env!("CARGO_BIN_EXE_finwheel")).args(args).output().expect("the binary runs")
}

#[test]
fn manual_pages_are_written_for_every_subcommand_and_man_reads_them_without_complaint() {
    let dir = tempfile::tempdir().expect("a directory");
    let out = dir.path().join("man1");
    let o = finwheel(&["man", "--out", out.to_str().expect("UTF-8")]);
    assert!(o.status.success(), "{}", String::from_utf8_lossy(&o.stderr));
    let mut names: Vec<String> =
        subcommands().iter().map(|s| format!("finwheel-{}.1", s.get_name())).collect();
    names.push("finwheel.1".into());
    for name in &names {
        let page = std::fs::read_to_string(out.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let title = format!(".TH {} 1", name.trim_end_matches(".1"));
        assert!(page.contains(&title) && page.contains(".SH SYNOPSIS"), "{name}: {page}");
    }
    assert_eq!(std::fs::read_dir(&out).expect("a folder").count(), names.len());
    let read = Process::new("man")
        .args(["--warnings", "-E", "UTF-8", "-l", "-Tutf8"])
        .arg(out.join("finwheel-run.1"))
        .output();
    match read {
        Ok(o) => {
            assert!(o.status.success() && o.stderr.is_empty(), "{}", String::from_utf8_lossy(&o.stderr));
            assert!(String::from_utf8_lossy(&o.stdout).contains("SIGTERM"));
        }
        Err(_) => println!("skipped: man is not installed"),
    }
}

#[test]
fn completions_name_every_subcommand_and_bash_takes_them() {
    for shell in ["bash", "zsh", "fish"] {
        let o = finwheel(&["completions", shell]);
        assert!(o.status.success(), "{shell}");
        let script = String::from_utf8(o.stdout).expect("UTF-8");
        for sub in subcommands() {
            assert!(script.contains(sub.get_name()), "{shell}: {}", sub.get_name());
        }
    }
    let script = "source <(\"$0\" completions bash); COMP_WORDS=(finwheel do); COMP_CWORD=1; \
                  _finwheel finwheel do finwheel; echo \"${COMPREPLY[@]}\"";
    let o = Process::new("bash").args(["-c", script, env!("CARGO_BIN_EXE_finwheel")]).output().expect("bash");
    assert_eq!(String::from_utf8_lossy(&o.stdout).trim(), "doctor", "{}", String::from_utf8_lossy(&o.stderr));
}
