//! The summary: one JSON object of parts, each of which one bench writes, and the keys that must be in it.

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value};
use std::fs;
use std::path::Path;

/// What a figure is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things a second.
    PerSecond,
    /// Things.
    Count,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
    /// CPU-seconds for a million connections, which are CPU-microseconds for one.
    CpuPerMillion,
    /// Milliseconds.
    Ms,
    /// Microseconds.
    Us,
    /// Nanoseconds.
    Ns,
    /// How many times.
    Times,
}

impl Unit {
    /// As tables have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PerSecond => "/s",
            Self::Count => "",
            Self::Bytes => "B",
            Self::Seconds => "s",
            Self::CpuPerMillion => "CPU s",
            Self::Ms => "ms",
            Self::Us => "µs",
            Self::Ns => "ns",
            Self::Times => "x",
        }
    }
}

/// A figure that every summary has.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its place.
    pub place: &'static str,
    /// Its unit.
    pub unit: Unit,
    /// What it says.
    pub says: &'static str,
}

const fn key(place: &'static str, unit: Unit, says: &'static str) -> Key {
    Key { place, unit, says }
}

/// All of them, in the order of the document.
pub const KEYS: &[Key] = &[
    key(
        "engine.lifecycles_per_s.resident_0",
        Unit::PerSecond,
        "lives of connections on one core, engine alone",
    ),
    key("engine.lifecycles_per_s.resident_1m", Unit::PerSecond, "the same with 1 million in `TIME_WAIT`"),
    key("engine.lifecycles_per_s.resident_10m", Unit::PerSecond, "the same with 10 million in `TIME_WAIT`"),
    key("engine.vs_smoltcp", Unit::Times, "lives a second, as many times smoltcp's"),
    key("engine.expiry_ns", Unit::Ns, "to expire one `TIME_WAIT` record"),
    key(
        "engine.max_rx_gap_us",
        Unit::Us,
        "longest gap between receptions while a million records expire at once",
    ),
    key("memory.time_wait_v4_bytes", Unit::Bytes, "a `TIME_WAIT` record over IPv4, all in"),
    key("memory.time_wait_v6_bytes", Unit::Bytes, "a `TIME_WAIT` record over IPv6, all in"),
    key("memory.syn_rcvd_v4_bytes", Unit::Bytes, "a half-open connection over IPv4, all in"),
    key("memory.conn_idle_v4_bytes", Unit::Bytes, "an idle connection over IPv4, all in"),
    key("veth.finwheel.conn_per_s", Unit::PerSecond, "connections, finwheel's `http`"),
    key("veth.nginx.conn_per_s", Unit::PerSecond, "connections, nginx"),
    key("veth.epoll.conn_per_s", Unit::PerSecond, "connections, the least that epoll can do"),
    key(
        "veth.finwheel.cpu_s_per_million",
        Unit::CpuPerMillion,
        "of the server's core for a million, finwheel",
    ),
    key("veth.nginx.cpu_s_per_million", Unit::CpuPerMillion, "of the server's core for a million, nginx"),
    key("veth.epoll.cpu_s_per_million", Unit::CpuPerMillion, "of the server's core for a million, epoll"),
    key("veth.finwheel.close_ms_p99", Unit::Ms, "to close, 99 of 100, at the common rate, finwheel"),
    key("veth.nginx.close_ms_p99", Unit::Ms, "to close, 99 of 100, at the common rate, nginx"),
    key("veth.epoll.close_ms_p99", Unit::Ms, "to close, 99 of 100, at the common rate, epoll"),
    key("veth.vs_nginx_per_cpu_s", Unit::Times, "connections for a CPU-second, as many times nginx's"),
    key("hold.idle.count", Unit::Count, "idle connections held at once"),
    key("hold.idle.seconds", Unit::Seconds, "until all of them were open"),
    key("hold.idle.rss_bytes", Unit::Bytes, "resident memory of the server then"),
    key("hold.time_wait.count", Unit::Count, "`TIME_WAIT` records held at once"),
    key("hold.time_wait.seconds", Unit::Seconds, "until all of them were there"),
    key("hold.time_wait.rss_bytes", Unit::Bytes, "resident memory of the server then"),
    key("scaling.one_core_conn_per_s", Unit::PerSecond, "connections on one core, client included"),
    key("scaling.two_cores_conn_per_s", Unit::PerSecond, "connections on two cores, client included"),
    key("scaling.factor", Unit::Times, "the second as many times the first"),
];

/// The figure at a place, as `veth.nginx.conn_per_s`.
pub fn figure(summary: &Value, place: &str) -> Option<f64> {
    place.split('.').try_fold(summary, |v, key| v.get(key))?.as_f64().filter(|f| f.is_finite())
}

/// Places of the figures that are missing.
pub fn missing(summary: &Value) -> Vec<&'static str> {
    KEYS.iter().map(|k| k.place).filter(|place| figure(summary, place).is_none()).collect()
}

/// Adds one object to another, level by level. Two values at one place are a mistake: which of them would be true?
pub fn merge(into: &mut Map<String, Value>, from: Map<String, Value>) -> Result<(), String> {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (None, value) => {
                into.insert(key, value);
            }
            (Some(Value::Object(mine)), Value::Object(theirs)) => {
                merge(mine, theirs).map_err(|at| format!("{key}.{at}"))?;
            }
            (Some(_), _) => return Err(key),
        }
    }
    Ok(())
}

/// Writes a part: `{NAME: value}` in NAME.json.
pub fn write_part(parts: &Path, name: &str, value: &Value) -> Result<()> {
    fs::create_dir_all(parts).with_context(|| parts.display().to_string())?;
    write_json(&parts.join(format!("{name}.json")), &serde_json::json!({ name: value }))
}

/// Writes an object for people and programs.
pub fn write_json(path: &Path, value: &Value) -> Result<()> {
    let text = serde_json::to_string_pretty(value)? + "\n";
    fs::write(path, text).with_context(|| path.display().to_string())
}

/// All parts of a folder as one object.
pub fn read_parts(parts: &Path) -> Result<Value> {
    let mut all = Map::new();
    let entries = fs::read_dir(parts).with_context(|| parts.display().to_string())?;
    let mut files: Vec<_> = entries.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
    files.retain(|f| f.extension().is_some_and(|e| e == "json"));
    files.sort();
    for file in files {
        let name = file.display();
        let text = fs::read_to_string(&file).with_context(|| name.to_string())?;
        let value = serde_json::from_str(&text).with_context(|| format!("{name} is no JSON"))?;
        let Value::Object(part) = value else { bail!("{name} is no JSON object") };
        merge(&mut all, part).map_err(|at| anyhow::anyhow!("{name}: another part has {at} too"))?;
    }
    Ok(Value::Object(all))
}
