//! Log lines on standard error, as `[log]` says. Standard output is for results.

use crate::config::{LogConfig, LogFormat, LogLevel};
use std::io::IsTerminal;
use tracing::Subscriber;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

impl From<LogLevel> for LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}

/// Installs the process's subscriber.
///
/// # Errors
/// When one is installed already.
pub fn install(config: &LogConfig) -> anyhow::Result<()> {
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    tracing::subscriber::set_global_default(subscriber(config, std::io::stderr, colour))
        .map_err(|e| anyhow::anyhow!("cannot set up logging: {e}"))
}

fn subscriber<W>(config: &LogConfig, writer: W, colour: bool) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder =
        tracing_subscriber::fmt().with_max_level(LevelFilter::from(config.level)).with_writer(writer);
    match config.format {
        LogFormat::Text => Box::new(builder.with_ansi(colour).with_target(false).finish()),
        LogFormat::Json => Box::new(builder.json().flatten_event(true).finish()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(level: LogLevel, format: LogFormat) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = subscriber(&LogConfig { level, format }, move || writer.clone(), false);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(queue = 3, "ready");
            tracing::debug!("detail");
        });
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn the_level_decides_what_is_logged() {
        assert_eq!(logged(LogLevel::Warn, LogFormat::Text), "");
        let info = logged(LogLevel::Info, LogFormat::Text);
        assert!(info.contains("ready queue=3") && !info.contains("detail"), "{info}");
        assert!(logged(LogLevel::Debug, LogFormat::Text).contains("detail"));
    }

    #[test]
    fn json_is_one_object_a_line_with_fields() {
        let text = logged(LogLevel::Trace, LogFormat::Json);
        let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(
            (lines[0]["message"].as_str(), lines[0]["queue"].as_u64(), lines[0]["level"].as_str()),
            (Some("ready"), Some(3), Some("INFO"))
        );
    }
}
