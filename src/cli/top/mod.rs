//! `finwheel top`: a running finwheel in the terminal.
//!
//! ```text
//! Source ──Snapshot, once a second──▶ View ──draw──▶ terminal
//! keys ──────────────────────────────▶┘
//! ```
//!
//! Everything is in one thread: an address that does not answer holds the keys up for two seconds at most. The terminal is
//! put back as it was when the command ends, also by a panic.

mod draw;
mod source;
#[cfg(test)]
mod tests;

pub use source::{Source, SourceError};

use super::{DEFAULT_CONFIG, EXIT_FAILURE, EXIT_USAGE};
use crate::config;
use crate::metrics::live::Snapshot;
use draw::View;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Size of the screen that `--once` prints: a usual terminal's width, and as many lines as the view has use for.
const ONCE: (u16, u16) = (120, 48);

/// What to watch, and how often.
#[derive(Clone, Debug, clap::Args)]
pub struct TopArgs {
    /// The metrics address of the finwheel to watch, such as <http://127.0.0.1:9464>.
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    pub url: Option<Source>,
    /// The configuration of the finwheel to watch: its `[metrics] listen` is asked.
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,
    /// Time between two looks, such as 1s or 500ms; the numbers change once a second.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    pub interval: Duration,
    /// Print one screen and end.
    #[arg(long)]
    pub once: bool,
}

/// Shows the view until a key ends it.
#[must_use]
pub fn execute(args: &TopArgs) -> ExitCode {
    let source = match source(args) {
        Ok(source) => source,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let done = if args.once {
        once(&source)
    } else if io::stdout().is_terminal() {
        watch(&source, args.interval.max(Duration::from_millis(100)))
    } else {
        Err(anyhow::anyhow!("top needs a terminal; `--once` prints one screen anywhere"))
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("finwheel: {e:#}");
            ExitCode::from(EXIT_FAILURE)
        }
    }
}

fn source(args: &TopArgs) -> Result<Source, String> {
    if let Some(url) = &args.url {
        return Ok(url.clone());
    }
    let loaded = config::load(&args.config)
        .map_err(|e| format!("{e}\n`--url` watches a finwheel without its configuration"))?;
    let listen = loaded.config.metrics.listen;
    listen
        .map(Source::of_listen)
        .ok_or_else(|| format!("{}: nothing to ask: [metrics] listen is \"off\"", args.config.display()))
}

/// Two looks, a second apart, so that there are rates: the second is printed.
fn once(source: &Source) -> anyhow::Result<()> {
    let mut view = View::new(source.to_string());
    view.take(source.fetch());
    if let Some(e) = view.error() {
        anyhow::bail!("{e}");
    }
    let mut terminal = Terminal::new(TestBackend::new(ONCE.0, ONCE.1))?;
    terminal.draw(|frame| draw::draw(frame, &view))?;
    for line in text(terminal.backend()) {
        println!("{line}");
    }
    Ok(())
}

/// A drawn screen, line by line, without trailing blanks and blank lines at the end.
fn text(backend: &TestBackend) -> Vec<String> {
    let buffer = backend.buffer();
    let width = usize::from(buffer.area.width.max(1));
    let line = |cells: &[ratatui::buffer::Cell]| {
        cells.iter().map(ratatui::buffer::Cell::symbol).collect::<String>().trim_end().to_owned()
    };
    let mut lines: Vec<String> = buffer.content.chunks(width).map(line).collect();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

fn watch(source: &Source, interval: Duration) -> anyhow::Result<()> {
    let mut terminal = ratatui::try_init()?;
    let ended = (|| -> io::Result<()> {
        let mut view = View::new(source.to_string());
        let mut next = Instant::now();
        loop {
            if Instant::now() >= next {
                if !view.paused {
                    view.take(source.fetch());
                }
                next = Instant::now() + interval;
            }
            terminal.draw(|frame| draw::draw(frame, &view))?;
            if event::poll(next.saturating_duration_since(Instant::now()))?
                && let Event::Key(key) = event::read()?
                && pressed(&mut view, key)
            {
                return Ok(());
            }
        }
    })();
    ratatui::try_restore()?;
    Ok(ended?)
}

/// Does what a key says. Returns whether it ends the view.
#[must_use]
fn pressed(view: &mut View, key: KeyEvent) -> bool {
    if key.kind == KeyEventKind::Release {
        return false;
    }
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => true,
        KeyCode::Char('c') => key.modifiers.contains(KeyModifiers::CONTROL),
        KeyCode::Char('p') => {
            view.paused = !view.paused;
            false
        }
        KeyCode::Char('?') => {
            view.help = !view.help;
            false
        }
        _ => false,
    }
}

impl View {
    /// Takes what the source said: numbers replace the last ones, an error stands beside them.
    pub(super) fn take(&mut self, said: Result<Snapshot, SourceError>) {
        match said {
            Ok(snapshot) => self.show(snapshot),
            Err(e) => self.fail(e.to_string()),
        }
    }
}
