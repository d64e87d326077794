//! Reads typed values out of a spanned TOML tree, gathers all faults, and remembers where each key was written.

use super::error::{Diagnostic, Severity};
use super::units::{format_duration, format_size, parse_duration, parse_size};
use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::ops::{Range, RangeInclusive};
use std::path::Path;
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

/// Bytes of the source.
pub type Span = Range<usize>;

/// A table of the schema; `index` tells the listeners apart and is 0 for the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// As the file's reader would write it: `tcp`, `listener`, `listener.http`.
    pub table: &'static str,
    /// Which of the tables of this name.
    pub index: usize,
}

impl Place {
    /// A table that exists once.
    pub const fn of(table: &'static str) -> Self {
        Self { table, index: 0 }
    }
    fn header(self) -> String {
        match self.table {
            "" => "the file".into(),
            "listener" => "[[listener]]".into(),
            t => format!("[{t}]"),
        }
    }
}

/// A fault of one value: what is wrong, what would be right.
pub struct Fault {
    /// What is wrong, without the key's name.
    pub message: String,
    /// What would be right.
    pub help: String,
}

impl Fault {
    /// From the two phrases.
    pub fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }
}

struct Finding {
    severity: Severity,
    span: Span,
    message: String,
    help: Option<String>,
}

/// Everything known about the text while it is read.
pub struct Reader<'t> {
    text: &'t str,
    findings: Vec<Finding>,
    /// Keys that the schema asked for, in its order.
    known: Vec<(&'static str, &'static str)>,
    unknown: Vec<(&'static str, String, Span)>,
    written: HashMap<(Place, &'static str), Span>,
    faulty: HashSet<(Place, &'static str)>,
    headers: HashMap<Place, Span>,
}

impl<'t> Reader<'t> {
    /// A reader of this text.
    pub fn new(text: &'t str) -> Self {
        Self {
            text,
            findings: Vec::new(),
            known: Vec::new(),
            unknown: Vec::new(),
            written: HashMap::new(),
            faulty: HashSet::new(),
            headers: HashMap::new(),
        }
    }

    /// The root table; `None` after faults of syntax, which make everything else guesswork.
    pub fn tree(&mut self) -> Option<DeTable<'t>> {
        let (root, errors) = DeTable::parse_recoverable(self.text);
        for e in &errors {
            self.error(e.span().unwrap_or(0..0), e.message().to_owned(), None);
        }
        errors.is_empty().then(|| root.into_inner())
    }

    /// Opens a table of the schema. `table` is `None` when the file has none: the keys are learned all the same.
    pub fn section<'r, 'v>(
        &'r mut self,
        place: Place,
        table: Option<&'v DeTable<'t>>,
        header: Span,
    ) -> Section<'r, 'v, 't> {
        self.headers.insert(place, header);
        Section { reader: self, place, table, asked: Vec::new() }
    }

    /// Records an error.
    pub fn error(&mut self, span: Span, message: String, help: Option<String>) {
        self.findings.push(Finding { severity: Severity::Error, span, message, help });
    }

    /// Records a fault of one key, or of its table where it was not written.
    pub fn fault(&mut self, place: Place, key: &'static str, fault: Fault) {
        self.faulty.insert((place, key));
        let span = self.span_of(place, key);
        let message = format!("`{key}` in {}: {}", place.header(), fault.message);
        self.error(span, message, Some(fault.help));
    }

    /// Records a warning about one key.
    pub fn warn(&mut self, place: Place, key: &'static str, fault: Fault) {
        let span = self.span_of(place, key);
        self.findings.push(Finding {
            severity: Severity::Warning,
            span,
            message: format!("`{key}` in {}: {}", place.header(), fault.message),
            help: Some(fault.help),
        });
    }

    /// Records that a relation between keys does not hold, at the first of them that was written; not when one of
    /// them is faulty itself, because its value is then not what was meant.
    pub fn relation(&mut self, keys: &[(Place, &'static str)], fault: Fault) {
        if keys.iter().any(|k| self.faulty.contains(k)) {
            return;
        }
        if let Some(at) = keys.iter().find(|k| self.written.contains_key(k)).or(keys.first()) {
            let (place, key) = *at;
            let span = self.span_of(place, key);
            let message = format!("`{key}` in {}: {}", place.header(), fault.message);
            self.error(span, message, Some(fault.help));
        }
    }

    fn span_of(&self, place: Place, key: &'static str) -> Span {
        self.written.get(&(place, key)).or_else(|| self.headers.get(&place)).cloned().unwrap_or(0..0)
    }

    /// Keys that the schema asked for, by table.
    #[cfg(test)]
    pub fn known(&self) -> &[(&'static str, &'static str)] {
        &self.known
    }

    /// All findings in the order of the file.
    pub fn into_diagnostics(mut self, file: &Path) -> Vec<Diagnostic> {
        for (table, key, span) in std::mem::take(&mut self.unknown) {
            let help = self.suggest(table, &key);
            let message = if table.is_empty() {
                format!("unknown table or key `{key}`")
            } else {
                format!("unknown key `{key}` in {}", Place::of(table).header())
            };
            self.error(span, message, help);
        }
        self.findings.sort_by_key(|f| (f.span.start, f.severity, f.message.clone()));
        self.findings
            .into_iter()
            .map(|f| Diagnostic::new(f.severity, file, self.text, f.span, f.message, f.help))
            .collect()
    }

    /// What an unknown key was probably meant to be: a similar one of its table, the same one of another, or the
    /// list of what there is.
    fn suggest(&self, table: &'static str, key: &str) -> Option<String> {
        let here = || self.known.iter().filter(|(t, _)| *t == table).map(|(_, k)| *k);
        if let Some(near) = nearest(key, here()) {
            return Some(format!("did you mean `{near}`?"));
        }
        if let Some((t, _)) = self.known.iter().find(|(_, k)| *k == key) {
            return Some(format!("`{key}` belongs in {}", Place::of(t).header()));
        }
        if let Some((t, near)) = self.known.iter().find(|(_, k)| nearest(key, [*k].into_iter()).is_some()) {
            return Some(format!("did you mean `{near}`, which belongs in {}?", Place::of(t).header()));
        }
        let list: Vec<_> = here().map(|k| format!("`{k}`")).collect();
        (!list.is_empty()).then(|| format!("the keys here are {}", list.join(", ")))
    }
}

/// The candidate nearest to a misspelt word, if one is near: at most a third of its letters differ.
pub fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |s: &str| s.to_ascii_lowercase().replace('-', "_");
    candidates
        .map(|c| (strsim::damerau_levenshtein(&plain(word), &plain(c)), c))
        .filter(|(distance, c)| *distance <= c.chars().count().max(3) / 3)
        .min()
        .map(|(_, c)| c)
}

/// Unit of a whole number in messages, or "" for none.
pub type Unit = &'static str;

/// One table of the file while its keys are taken out of it.
pub struct Section<'r, 'v, 't> {
    reader: &'r mut Reader<'t>,
    place: Place,
    table: Option<&'v DeTable<'t>>,
    asked: Vec<&'static str>,
}

impl<'v, 't> Section<'_, 'v, 't> {
    /// The value of a key, whatever its type, and where the key stands.
    pub fn raw(&mut self, key: &'static str) -> Option<&'v Spanned<DeValue<'t>>> {
        self.asked.push(key);
        let id = (self.place.table, key);
        if !self.reader.known.contains(&id) {
            self.reader.known.push(id);
        }
        let (name, value) = self.table?.get_key_value(key)?;
        let span = name.span().start..value.span().end.max(name.span().end);
        self.reader.written.insert((self.place, key), span);
        Some(value)
    }

    /// Takes a key through `read`; a fault is recorded and leaves the default.
    pub fn take<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&'v DeValue<'t>) -> Result<T, Fault>,
    ) -> Option<T> {
        match read(self.raw(key)?.get_ref()) {
            Ok(v) => Some(v),
            Err(fault) => {
                self.reader.fault(self.place, key, fault);
                None
            }
        }
    }

    /// Records a fault of a key of this table.
    pub fn fault(&mut self, key: &'static str, fault: Fault) {
        self.reader.fault(self.place, key, fault);
    }

    /// Records that a key which has no default is not in the file; not when it is there and faulty.
    pub fn missing(&mut self, key: &'static str, help: &str) {
        if !self.reader.faulty.contains(&(self.place, key)) {
            self.reader.fault(self.place, key, Fault::new("is missing", help));
        }
    }

    /// A whole number in a range.
    pub fn integer<T: TryFrom<u64>>(
        &mut self,
        key: &'static str,
        into: &mut T,
        range: &RangeInclusive<u64>,
        unit: Unit,
    ) {
        if let Some(v) = self.take(key, |v| integer(v, range, unit)) {
            // Every range fits its field; a range that does not leaves the default and fails the bounds test.
            if let Ok(v) = T::try_from(v) {
                *into = v;
            }
        }
    }

    /// A duration in a range.
    pub fn duration(&mut self, key: &'static str, into: &mut Duration, range: &RangeInclusive<Duration>) {
        let read = |v: &DeValue<'_>| {
            let text = text(v, "a duration with its unit, such as \"60s\" or \"250ms\"", Some("s"))?;
            let d = parse_duration(text).map_err(|e| Fault::new(format!("\"{text}\" is no duration"), e))?;
            in_range(d, range, format_duration)
        };
        if let Some(d) = self.take(key, read) {
            *into = d;
        }
    }

    /// A duration whose zero stands for "off".
    pub fn duration_or_off(
        &mut self,
        key: &'static str,
        into: &mut Option<Duration>,
        range: &RangeInclusive<Duration>,
    ) {
        let mut d = into.unwrap_or(Duration::ZERO);
        self.duration(key, &mut d, range);
        *into = (!d.is_zero()).then_some(d);
    }

    /// A size in bytes in a range.
    pub fn size<T: TryFrom<u64>>(&mut self, key: &'static str, into: &mut T, range: &RangeInclusive<u64>) {
        let read = |v: &DeValue<'_>| {
            let text = text(v, "a size with its unit, such as \"256KiB\"", Some("KiB"))?;
            let n = parse_size(text).map_err(|e| Fault::new(format!("\"{text}\" is no size"), e))?;
            in_range(n, range, format_size)
        };
        if let Some(n) = self.take(key, read)
            && let Ok(n) = T::try_from(n)
        {
            *into = n;
        }
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&mut self, key: &'static str, into: &mut T, words: &[(&'static str, T)]) {
        let list = || {
            let quoted: Vec<_> = words.iter().map(|(w, _)| format!("\"{w}\"")).collect();
            format!("one of {}", quoted.join(", "))
        };
        let read = |v: &DeValue<'_>| {
            let given = text(v, &list(), None)?;
            words.iter().find(|(w, _)| *w == given).map(|(_, t)| *t).ok_or_else(|| {
                let help = match nearest(given, words.iter().map(|(w, _)| *w)) {
                    Some(near) => format!("did you mean \"{near}\"? It is {}", list()),
                    None => format!("it is {}", list()),
                };
                Fault::new(format!("\"{given}\" is not known"), help)
            })
        };
        if let Some(t) = self.take(key, read) {
            *into = t;
        }
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, key: &'static str, into: &mut bool) {
        let read =
            |v: &DeValue<'_>| v.as_bool().ok_or_else(|| wrong_type(v, "true or false, without quotes"));
        if let Some(b) = self.take(key, read) {
            *into = b;
        }
    }

    /// Reports what the schema did not ask for.
    pub fn finish(self) {
        let Some(table) = self.table else { return };
        for name in table.keys() {
            if !self.asked.contains(&name.get_ref().as_ref()) {
                self.reader.unknown.push((self.place.table, name.get_ref().to_string(), name.span()));
            }
        }
    }
}

/// A value of another type than expected.
pub fn wrong_type(v: &DeValue<'_>, expected: &str) -> Fault {
    let found = match v {
        DeValue::Integer(i) => format!("the whole number {i}"),
        DeValue::Boolean(b) => format!("the boolean {b}"),
        DeValue::String(s) => format!("the string \"{}\"", s.chars().take(40).collect::<String>()),
        DeValue::Float(f) => format!("the number {f}"),
        DeValue::Datetime(_) => "a date".into(),
        DeValue::Array(_) => "a list".into(),
        DeValue::Table(_) => "a table".into(),
    };
    Fault::new(format!("found {found}"), format!("this key expects {expected}"))
}

/// The text of a string value. `unit` is proposed to someone who wrote a bare number.
pub fn text<'v>(v: &'v DeValue<'_>, expected: &str, unit: Option<&str>) -> Result<&'v str, Fault> {
    v.as_str().ok_or_else(|| {
        let mut fault = wrong_type(v, expected);
        if let (DeValue::Integer(i), Some(unit)) = (v, unit) {
            fault.help = format!("{}: write \"{i}{unit}\" if that is what is meant", fault.help);
        }
        fault
    })
}

/// A whole number in a range.
pub fn integer(v: &DeValue<'_>, range: &RangeInclusive<u64>, unit: Unit) -> Result<u64, Fault> {
    let show = |n| {
        if unit.is_empty() { format!("{n}") } else { format!("{n} {unit}") }
    };
    let expected = format!("a whole number from {} to {}, without quotes", range.start(), show(*range.end()));
    let DeValue::Integer(i) = v else {
        return Err(wrong_type(v, &expected));
    };
    match i128::from_str_radix(i.as_str(), i.radix()) {
        Ok(n) => match u64::try_from(n) {
            Ok(n) => in_range(n, range, show),
            Err(_) => Err(Fault::new(format!("{i} is out of range"), format!("it is {expected}"))),
        },
        Err(_) => Err(Fault::new(format!("{i} is out of range"), format!("it is {expected}"))),
    }
}

/// The elements of a list, each through `read`; the first fault counts.
pub fn list<'v, 't, T>(
    items: &'v DeArray<'t>,
    mut read: impl FnMut(&'v DeValue<'t>) -> Result<T, Fault>,
) -> Result<Vec<T>, Fault> {
    items.iter().map(|v| read(v.get_ref())).collect()
}

fn in_range<T: PartialOrd + Copy, D: Display>(
    v: T,
    range: &RangeInclusive<T>,
    show: impl Fn(T) -> D,
) -> Result<T, Fault> {
    if range.contains(&v) {
        return Ok(v);
    }
    let (low, high) = (show(*range.start()), show(*range.end()));
    let side = if v < *range.start() { "low" } else { "high" };
    Err(Fault::new(format!("{} is too {side}", show(v)), format!("it ranges from {low} to {high}")))
}
