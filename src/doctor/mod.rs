//! `finwheel doctor`: is this machine as finwheel needs it, and if not, what mends it?
//!
//! ```text
//!  /proc, /sys, netlink, ethtool ──▶ Host, Nic ─┐
//!  configuration ──────────────────▶ Wanted ────┴──▶ checks ──▶ findings, each of a kind of the catalogue
//! ```
//!
//! * `catalog` is the table of all kinds: sign, reason, remedy. `docs/troubleshooting.md` is made of it.
//! * `host` and `nic` read facts and judge nothing; nothing is changed, and no privilege is needed.
//! * `checks` are functions of facts, so that each is tested with situations that this machine is not in.
//!
//! Everything looks into the network namespace of the calling thread.

pub mod catalog;
mod checks;
mod host;
mod nic;
#[cfg(test)]
mod tests;
mod wanted;

pub use catalog::{Finding, Kind, Severity};
use host::Host;
use nic::Nic;
use wanted::Wanted;

use crate::config::Config;
use std::fmt::Write as _;
use std::io;

/// What is to be examined.
#[derive(Clone, Copy, Debug, Default)]
pub struct Target<'a> {
    /// An interface; goes before the one of the configuration.
    pub interface: Option<&'a str>,
    /// What is to run here.
    pub config: Option<&'a Config>,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Report {
    /// The interface that was examined.
    pub interface: Option<String>,
    /// What is so, in pairs of subject and fact.
    pub facts: Vec<(&'static str, String)>,
    /// What deserves a look, the worst first.
    pub findings: Vec<Finding>,
}

/// Examines the machine, and the interface if one is named.
///
/// # Errors
/// When the kernel cannot be asked at all: no netlink, no /proc.
pub fn examine(target: &Target<'_>) -> io::Result<Report> {
    let host = Host::read()?;
    let wanted = Wanted::of(target)?;
    let nic = wanted.interface.as_deref().map(Nic::read).transpose()?;
    let mut findings = checks::all(&host, nic.as_ref(), &wanted);
    // Stable: within a severity they stand in the order of the checks, from the machine to the traffic.
    findings.sort_by_key(|f| std::cmp::Reverse(f.kind.severity));
    let mut facts = host.describe();
    if let Some(Nic::Found(nic)) = &nic {
        facts.extend(nic.describe());
    }
    Ok(Report { interface: wanted.interface, facts, findings })
}

impl Report {
    /// The worst finding's severity, if anything was found.
    #[must_use]
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|f| f.kind.severity).max()
    }

    /// The findings of at least this severity, for people.
    #[must_use]
    pub fn text(&self, at_least: Severity) -> String {
        let mut text = String::new();
        for f in self.findings.iter().filter(|f| f.kind.severity >= at_least) {
            // Writing to a String cannot fail.
            let _ = write!(
                text,
                "{}[{}]: {}\n    why: {}\n    mend: {}\n",
                f.kind.severity.as_str(),
                f.kind.id,
                f.what,
                f.kind.why,
                f.remedy
            );
        }
        text
    }

    /// Everything as one JSON object.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        let facts: serde_json::Map<_, _> =
            self.facts.iter().map(|(subject, fact)| ((*subject).to_owned(), fact.clone().into())).collect();
        let findings: Vec<_> = self
            .findings
            .iter()
            .map(|f| {
                serde_json::json!({
                    "id": f.kind.id,
                    "severity": f.kind.severity.as_str(),
                    "what": f.what,
                    "why": f.kind.why,
                    "remedy": f.remedy,
                })
            })
            .collect();
        serde_json::json!({
            "interface": self.interface,
            "worst": self.worst().map(Severity::as_str),
            "facts": facts,
            "findings": findings,
        })
    }
}
