//! What the figures were measured on.

use crate::servers::nginx;
use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use std::fs;
use std::process::Command;
use std::time::SystemTime;

/// Describes it. `mode` is how frames get to finwheel, `quick` says that the run was a short one.
pub fn describe(mode: &str, quick: bool) -> Result<Value> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").context("/proc/cpuinfo")?;
    let field = |name: &str| {
        let line = cpuinfo.lines().find(|l| l.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let meminfo = fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
    let kib = meminfo
        .lines()
        .find_map(|l| l.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<u64>().ok());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").context("/proc/sys/kernel/osrelease")?;
    let load = fs::read_to_string("/proc/loadavg").context("/proc/loadavg")?;
    let mitigation =
        fs::read_to_string("/sys/devices/system/cpu/vulnerabilities/spectre_v2").unwrap_or_default();
    Ok(json!({
        "cpu": field("model name").unwrap_or_else(|| "unknown".into()),
        "mhz": field("cpu MHz").and_then(|m| m.parse::<f64>().ok()),
        "cores": cpuinfo.lines().filter(|l| l.starts_with("processor")).count(),
        "virtual": field("flags").is_some_and(|f| f.split(' ').any(|w| w == "hypervisor")),
        "memory_bytes": kib.context("/proc/meminfo has no MemTotal")? << 10,
        "kernel": kernel.trim(),
        "spectre_v2": mitigation.trim(),
        "xdp_mode": mode,
        "load_before": load.split(' ').next().and_then(|l| l.parse::<f64>().ok()),
        "nginx": nginx().and_then(|n| version(&n, "-v")),
        "rustc": version("rustc", "--version"),
        "finwheel": env!("CARGO_PKG_VERSION"),
        "date": humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        "quick": quick,
    }))
}

/// What a program says of its version, on whichever stream.
fn version(program: &str, option: &str) -> Option<String> {
    let out = Command::new(program).arg(option).output().ok()?;
    let text = if out.stdout.is_empty() { out.stderr } else { out.stdout };
    let text = String::from_utf8_lossy(&text);
    Some(text.trim().trim_start_matches("nginx version: ").to_owned())
}
