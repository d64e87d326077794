//! Configuration files: the manual with a few changes, and arbitrary text.

use crate::engine::Reader;
use finwheel::config::{ConfigError, from_text};
use std::fmt::Write as _;
use std::path::Path;

const MANUAL: &str = include_str!("../../config/finwheel.toml");

/// Values that are at home nowhere or at the edge of somewhere.
const VALUES: &[&str] = &[
    "0",
    "-1",
    "1",
    "18446744073709551616",
    "9223372036854775807",
    "1e400",
    "nan",
    "true",
    "\"\"",
    "\"0s\"",
    "\"1ms\"",
    "\"99999999999999999999s\"",
    "\"1KiB\"",
    "\"16777216GiB\"",
    "[]",
    "[1,1]",
    "{}",
    "\"[::]:0\"",
    "\"0.0.0.0:80\"",
    "\"off\"",
    "\"auto\"",
    "\"\\u0000\"",
    "1979-05-27",
    "\"/dev/null\"",
    "\"é\"",
];

/// Changes the manual line by line, or takes the text as it is.
pub fn text(bytes: &[u8]) {
    let mut r = Reader(bytes);
    let text = match r.below(4) {
        0 => String::from_utf8_lossy(r.0).into_owned(),
        1 => format!("{MANUAL}\n{}", String::from_utf8_lossy(r.0)),
        _ => mutated(&mut r),
    };
    check(&text);
}

fn mutated(r: &mut Reader<'_>) -> String {
    let mut lines: Vec<String> =
        MANUAL.lines().filter(|l| !l.starts_with("# ") && !l.is_empty()).map(str::to_owned).collect();
    while !r.0.is_empty() && !lines.is_empty() {
        let at = usize::from(r.u8()) % lines.len();
        match r.below(7) {
            0 => drop(lines.remove(at)),
            1 => lines.insert(at, lines[at].clone()),
            2 => {
                let key = lines[at].split('=').next().unwrap_or("").to_owned();
                let value = VALUES[usize::from(r.u8()) % VALUES.len()];
                lines[at] = format!("{key}= {value}");
            }
            3 => {
                let bare = lines[at].trim_start_matches("# ").to_owned();
                lines[at] = bare;
            }
            4 => {
                let to = usize::from(r.u8()) % lines.len();
                lines.swap(at, to);
            }
            5 => {
                let mut line: Vec<char> = lines[at].chars().collect();
                if !line.is_empty() {
                    let i = usize::from(r.u8()) % line.len();
                    line[i] = char::from(r.u8());
                }
                lines[at] = line.into_iter().collect();
            }
            _ => {
                let _ = write!(lines[at], "{}", VALUES[usize::from(r.u8()) % VALUES.len()]);
            }
        }
    }
    lines.join("\n")
}

/// Valid, or every fault has a place in the text and says something.
fn check(text: &str) {
    // No body is read from outside: the directory does not exist.
    match from_text(text, Path::new("/nonexistent/finwheel.toml")) {
        Ok(loaded) => {
            assert!(!loaded.config.listeners.is_empty(), "valid, and without a listener");
        }
        Err(ConfigError::Invalid { diagnostics, .. }) => {
            assert!(!diagnostics.is_empty(), "refused, and without a word why");
            let lines = text.split('\n').count();
            for d in diagnostics {
                assert!(
                    (1..=lines).contains(&d.line) && d.column >= 1,
                    "{}:{} of {lines} lines",
                    d.line,
                    d.column
                );
                assert!(!d.message.is_empty());
                // Showing it must not panic either, whatever the line's characters are.
                assert!(d.to_string().contains(&format!("finwheel.toml:{}:", d.line)), "{d}");
            }
        }
        Err(e @ ConfigError::Read { .. }) => panic!("text was given, and not read: {e}"),
    }
}
