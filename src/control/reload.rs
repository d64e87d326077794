//! What a configuration that is read again changes: compared key by key, without effects.
//!
//! ```text
//! Config in force ─┐
//!                  ├─ compare ─▶ Difference ──▶ supervisor: workers first, then claims
//! Config read anew ┘        └──▶ the keys that cannot change while the process runs, by name
//! ```

use crate::config::{Config, ConfigError, ListenerConfig};
use std::path::PathBuf;

/// Where the configuration in force came from.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its file.
    pub path: PathBuf,
    /// Its values.
    pub config: Config,
}

/// What a reload did.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Reloaded {
    /// Listeners that are new.
    pub added: Vec<String>,
    /// Listeners that take no more connections.
    pub removed: Vec<String>,
    /// Listeners whose new connections meet other addresses, limits or services.
    pub changed: Vec<String>,
    /// Other keys with a new value.
    pub keys: Vec<String>,
}

impl Reloaded {
    /// In one line.
    #[must_use]
    pub fn summary(&self) -> String {
        let parts = [
            ("added", &self.added),
            ("removed", &self.removed),
            ("changed", &self.changed),
            ("set", &self.keys),
        ];
        let text: Vec<String> = parts
            .iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(what, names)| format!("{what} {}", names.join(", ")))
            .collect();
        if text.is_empty() { "nothing has changed".to_owned() } else { text.join("; ") }
    }
}

/// Why nothing was changed, unless it says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The file is wrong.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// Keys that are settled at start.
    #[error("cannot change while the process runs: {}; restart it, or put the old value back (nothing was changed)", .0.join(", "))]
    Refused(Vec<String>),
    /// It cannot be done at this time.
    #[error("{0} (nothing was changed)")]
    NotNow(String),
    /// A part of it was done.
    #[error("{0}")]
    Incomplete(String),
}

/// What is otherwise.
#[derive(Debug, Default)]
pub(super) struct Difference {
    /// For who asked.
    pub report: Reloaded,
}

/// Compares what is in force with what was read.
///
/// # Errors
/// The keys that cannot change.
pub(super) fn compare(old: &Config, new: &Config) -> Result<Difference, Vec<String>> {
    let refused = refused(old, new);
    if !refused.is_empty() {
        return Err(refused);
    }
    let mut report = Reloaded { keys: keys(old, new), ..Reloaded::default() };
    let find = |c: &'_ [ListenerConfig], name: &str| c.iter().find(|l| l.name == name).cloned();
    for l in &new.listeners {
        match find(&old.listeners, &l.name) {
            None => report.added.push(l.name.clone()),
            Some(was) if was != *l => report.changed.push(l.name.clone()),
            Some(_) => {}
        }
    }
    let gone = old.listeners.iter().filter(|l| find(&new.listeners, &l.name).is_none());
    report.removed = gone.map(|l| l.name.clone()).collect();
    Ok(Difference { report })
}

/// Names of the pairs that differ.
macro_rules! differing {
    ($old:expr, $new:expr, $table:literal: $($key:ident),* $(,)?) => {
        [$((stringify!($key), $old.$key != $new.$key)),*]
            .into_iter()
            .filter(|(_, differs)| *differs)
            .map(|(key, _)| format!("[{}] {key}", $table))
    };
}

/// What is settled at start: rings, threads, tables, sockets, and what was promised in a SYN.
fn refused(old: &Config, new: &Config) -> Vec<String> {
    let (i, w) = ((&old.interface, &new.interface), (&old.worker, &new.worker));
    differing!(i.0, i.1, "interface": name, queues, mode, zero_copy, ring_size, frames)
        .chain(differing!(w.0, w.1, "worker": cores, idle, connections, half_open, time_wait, chunks))
        .chain(differing!(old.tcp, new.tcp, "tcp": mss, receive_window, ecn_outgoing))
        .chain(differing!(old.process, new.process, "process": sandbox))
        .chain(differing!(old.metrics, new.metrics, "metrics": listen))
        .chain(differing!(old.admin, new.admin, "admin": socket, group))
        .chain(differing!(old.close_log, new.close_log, "close_log": keep))
        .chain(differing!(old.log, new.log, "log": level, format))
        .collect()
}

/// What can change, apart from the listeners.
fn keys(old: &Config, new: &Config) -> Vec<String> {
    differing!(old.worker, new.worker, "worker": half_open_cookies)
        .chain(differing!(
            old.tcp, new.tcp, "tcp":
            time_wait, fin_wait_2, close_wait, give_up, syn_retries, idle, congestion, send_buffer, receive_buffer,
            ttl, rst_budget, challenge_ack_per_conn, delayed_ack,
        ))
        .chain(differing!(old.drain, new.drain, "drain": deadline, over, new))
        .chain(differing!(old.close_log, new.close_log, "close_log": file, sample))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const BASE: &str = "[interface]\nname = \"eth0\"\n[[listener]]\nname = \"a\"\naddress = \"0.0.0.0:7\"\nservice = \"echo\"\n\
        [[listener]]\nname = \"b\"\naddress = \"0.0.0.0:8\"\nservice = \"discard\"\n";

    fn read(text: &str) -> Config {
        crate::config::from_text(text, Path::new("t.toml")).unwrap_or_else(|e| panic!("{e}")).config
    }

    fn compared(text: &str) -> Result<Reloaded, Vec<String>> {
        compare(&read(BASE), &read(text)).map(|d| d.report)
    }

    #[test]
    fn listeners_are_told_apart_by_name() {
        let text =
            BASE.replace("name = \"b\"", "name = \"c\"").replace("\"echo\"\n", "\"echo\"\nidle = \"3s\"\n");
        let r = compared(&text).unwrap();
        let one = |name: &str| vec![name.to_owned()];
        assert_eq!((r.added.clone(), r.removed.clone(), r.changed.clone()), (one("c"), one("b"), one("a")));
        assert_eq!(r.summary(), "added c; removed b; changed a");
        assert_eq!(compared(BASE).unwrap().summary(), "nothing has changed");
    }

    #[test]
    fn every_key_that_cannot_change_is_named() {
        let text = BASE.replace("name = \"eth0\"", "name = \"eth1\"\nring_size = 64")
            + "[worker]\nchunks = 4096\ncores = [1]\n[tcp]\nmss = 1000\nidle = \"9s\"\n[log]\nlevel = \"debug\"\n";
        let refused = compared(&text).unwrap_err();
        let expected = [
            "[interface] name",
            "[interface] ring_size",
            "[worker] cores",
            "[worker] chunks",
            "[tcp] mss",
            "[log] level",
        ];
        assert_eq!(refused, expected);
    }

    #[test]
    fn every_key_is_either_refused_or_taken() {
        // A key of the manual that is in neither list would be ignored in silence.
        let manual = include_str!("../../config/finwheel.toml");
        let source = include_str!("reload.rs");
        let mut table = "";
        for line in manual.lines() {
            if let Some(name) = line.strip_prefix('[') {
                table = name.trim_matches(['[', ']']);
            }
            let key = line.strip_prefix("# ").unwrap_or(line).split_once(" = ").map(|(key, _)| key);
            let Some(key) =
                key.filter(|k| k.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit()))
            else {
                continue;
            };
            if !table.starts_with("listener") {
                let lists = source.split("#[cfg(test)]").next().unwrap();
                let named = lists.contains(&format!(" {key},")) || lists.contains(&format!(" {key})"));
                assert!(named, "[{table}] {key}");
            }
        }
    }
}
