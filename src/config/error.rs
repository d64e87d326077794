//! What is wrong with a configuration file, where, and what would be right.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// The file can be used, but probably does not say what was meant.
    Warning,
}

impl Severity {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One finding, with its place in the file.
///
/// Shown as compilers do, so that editors and CI systems can follow it:
///
/// ```text
/// finwheel.toml:12:1: error: unknown key `time_wiat` in [tcp]
///    12 | time_wiat = "60s"
///       | ^^^^^^^^^
///    help: did you mean `time_wait`?
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How much it weighs.
    pub severity: Severity,
    /// The file as it was named.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub help: Option<String>,
    /// The line's text.
    excerpt: String,
    /// Characters to underline.
    width: usize,
}

/// Longest line shown whole; beyond it the underline would wrap and mislead, so only the message is shown.
const MAX_EXCERPT_CHARS: usize = 160;

impl Diagnostic {
    /// A finding about the bytes `span` of `text`. A span that does not fall on characters of the text is moved to
    /// the nearest earlier one, so a position is always shown.
    #[must_use]
    pub fn new(
        severity: Severity,
        file: &Path,
        text: &str,
        span: Range<usize>,
        message: String,
        help: Option<String>,
    ) -> Self {
        let start = floor_char_boundary(text, span.start);
        let end = floor_char_boundary(text, span.end.max(start));
        let line_start = text[..start].rfind('\n').map_or(0, |i| i + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |i| start + i);
        let excerpt = text[line_start..line_end].trim_end_matches('\r').to_owned();
        Self {
            severity,
            file: file.to_owned(),
            line: text[..start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            message,
            help,
            width: text[start..end.min(line_end)].chars().count().max(1),
            excerpt,
        }
    }
}

fn floor_char_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}:{}: {}: {}",
            self.file.display(),
            self.line,
            self.column,
            self.severity.as_str(),
            self.message
        )?;
        if !self.excerpt.is_empty() && self.excerpt.chars().count() <= MAX_EXCERPT_CHARS {
            // Tabs stay tabs in the padding, so the underline falls under its text whatever their width.
            let pad: String =
                self.excerpt.chars().take(self.column - 1).map(|c| if c == '\t' { c } else { ' ' }).collect();
            write!(f, "\n{:>5} | {}", self.line, self.excerpt)?;
            write!(f, "\n      | {pad}{}", "^".repeat(self.width))?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n   help: {help}")?;
        }
        Ok(())
    }
}

/// Why a configuration cannot be used.
#[derive(Debug)]
pub enum ConfigError {
    /// The file cannot be read.
    Read {
        /// The file as it was named.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
        /// What mends it, where permissions are what is missing.
        remedy: Option<String>,
    },
    /// The file was read, and these things are wrong with it.
    Invalid {
        /// The file as it was named.
        file: PathBuf,
        /// Every error found, in the order of the file.
        diagnostics: Vec<Diagnostic>,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { file, source, remedy } => {
                write!(f, "cannot read the configuration {}: {source}", file.display())?;
                remedy.as_ref().map_or(Ok(()), |remedy| write!(f, "; {remedy}"))
            }
            Self::Invalid { file, diagnostics } => {
                for d in diagnostics {
                    writeln!(f, "{d}")?;
                }
                let n = diagnostics.len();
                let s = if n == 1 { "" } else { "s" };
                write!(f, "{}: {n} error{s}", file.display())
            }
        }
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read { source, .. } => Some(source),
            Self::Invalid { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, span: Range<usize>) -> String {
        let file = Path::new("f.toml");
        Diagnostic::new(Severity::Error, file, text, span, "bad".into(), Some("do so".into())).to_string()
    }

    #[test]
    fn a_finding_is_shown_with_line_column_and_underline() {
        assert_eq!(
            shown("a = 1\n\tb = \"é\" # x\n", 11..15),
            "f.toml:2:6: error: bad\n    2 | \tb = \"é\" # x\n      | \t    ^^^\n   help: do so"
        );
    }

    #[test]
    fn a_place_beyond_the_text_or_inside_a_character_is_moved_and_does_not_panic() {
        assert!(shown("", 5..9).starts_with("f.toml:1:1: error: bad\n   help"));
        assert!(shown("é\n", 1..1).starts_with("f.toml:1:1: error"));
        let reversed = Range { start: 99, end: 3 };
        assert!(shown("a\nb", reversed).starts_with("f.toml:2:2: error"));
    }

    #[test]
    fn an_underline_stays_on_its_line_and_a_very_long_line_is_not_shown() {
        assert!(shown("ab\ncd\n", 0..5).contains("| ^^\n"));
        assert!(!shown(&"x".repeat(500), 0..5).contains('|'));
    }
}
