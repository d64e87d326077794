//! The configuration file: schema, defaults, errors that name file, key and line.
//!
//! ```text
//! text ──toml──▶ spanned tree ──parse──▶ Config + where each key was written ──validate──▶ Loaded
//!                     └── syntax errors      └── unknown keys, types, ranges      └── relations between keys
//! ```
//!
//! The tree is read through `reader` and not through serde's derive, because serde stops at the first fault and
//! forgets where a value stood once it is a value: here all faults of a file are found in one pass, each with its
//! line and what would be right, and a rule between two keys can point at the key that was written.
//!
//! Nothing here asks the machine whether an interface or a core exists: the same file gives the same answer
//! everywhere, so it can be checked before it is rolled out. The one thing read from outside is a response body that
//! a listener takes from a file.
//!
//! `config/finwheel.toml` is the manual: every key with its default. Tests keep it and the schema in step.

pub mod access;
pub mod error;
mod parse;
mod reader;
pub mod schema;
pub mod units;
mod validate;

#[cfg(test)]
mod tests;

pub use error::{ConfigError, Diagnostic, Severity};
pub use schema::{
    AdminConfig, BodySource, CloseLogConfig, Config, Congestion, Cores, DrainConfig, HttpConfig, Idle,
    InterfaceConfig, ListenerConfig, LogConfig, LogFormat, LogLevel, MetricsConfig, Mode, NewDuringDrain,
    ProcessConfig, Queues, ServiceConfig, TcpConfig, WorkerConfig, ZeroCopy,
};

use std::path::Path;

/// Largest configuration file that is read, in bytes. A thousand listeners take about 100 kB; a file beyond this is
/// the wrong file (a body, a core dump), and is refused before it is read into memory.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

/// A configuration that can be used, and what deserves a second look in it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// Warnings in the order of the file.
    pub warnings: Vec<Diagnostic>,
}

/// Reads and checks a configuration file.
///
/// # Errors
/// [`ConfigError::Read`] when the file cannot be read, [`ConfigError::Invalid`] with every fault found in it.
pub fn load(path: &Path) -> Result<Loaded, ConfigError> {
    let read = |source| {
        let remedy = access::remedy(path, access::Access::Read, &source);
        ConfigError::Read { file: path.to_owned(), source, remedy }
    };
    let bytes = read_bounded(path, MAX_FILE_BYTES).map_err(read)?;
    let text = String::from_utf8(bytes)
        .map_err(|e| read(std::io::Error::new(std::io::ErrorKind::InvalidData, e.utf8_error())))?;
    from_text(&text, path)
}

/// Checks the text of a configuration file. `path` names the file in errors, and relative paths in the text start
/// from its directory.
///
/// # Errors
/// [`ConfigError::Invalid`] with every fault found.
pub fn from_text(text: &str, path: &Path) -> Result<Loaded, ConfigError> {
    let mut reader = reader::Reader::new(text);
    let config = parse::config(&mut reader, path.parent().unwrap_or(Path::new("")));
    validate::relations(&config, &mut reader);
    let (errors, warnings): (Vec<_>, Vec<_>) =
        reader.into_diagnostics(path).into_iter().partition(|d| d.severity == Severity::Error);
    if errors.is_empty() {
        Ok(Loaded { config, warnings })
    } else {
        Err(ConfigError::Invalid { file: path.to_owned(), diagnostics: errors })
    }
}

/// Reads a regular file of at most `max` bytes.
fn read_bounded(path: &Path, max: u64) -> std::io::Result<Vec<u8>> {
    use std::io::{Error, ErrorKind, Read};
    // The kind is asked before the open: opening a FIFO that nobody writes would wait for ever.
    if !std::fs::metadata(path)?.is_file() {
        return Err(Error::new(ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        let limit = units::format_size(max);
        return Err(Error::new(ErrorKind::FileTooLarge, format!("larger than {limit}")));
    }
    Ok(bytes)
}
