//! The language of the scripts: lines to steps. `README.md` beside this file describes it.

use std::fmt;

/// When a step happens. Times are in microseconds of the script's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// So long after the step before (`+.1`), at the latest so long after it (`+.1~+.2`).
    After(u64, u64),
    /// At this time.
    At(u64),
    /// A directive's: so long after the step before, or now, without moving what later times count from.
    Aside(Option<u64>),
}

/// One option of a TCP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opt {
    /// Padding.
    Nop,
    /// Maximum segment size.
    Mss(u16),
    /// SACK permitted.
    SackOk,
    /// Timestamps.
    Ts(u32, u32),
    /// Window scale.
    WScale(u8),
    /// One block of a SACK option, by script numbers.
    Sack(i64, i64),
}

/// A segment as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seg {
    /// ECN field of the IP header.
    pub ecn: u8,
    /// Bits of the header.
    pub flags: u8,
    /// Sequence number.
    pub seq: i64,
    /// Bytes of payload.
    pub len: u16,
    /// Acknowledgment number.
    pub ack: Option<i64>,
    /// Window field.
    pub win: Option<u16>,
    /// Options; `None` for `<...>`: any.
    pub options: Option<Vec<Opt>>,
}

/// A system call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its name.
    pub name: String,
    /// Its arguments, as text.
    pub args: Vec<String>,
    /// What it returns.
    pub result: i64,
    /// The error when that is -1.
    pub errno: Option<String>,
}

/// What happens in a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// `<`: the peer sends.
    In(Seg),
    /// `>`: the shard must have sent.
    Out(Seg),
    /// A system call.
    Call(Call),
    /// `// assert`, by words.
    Assert(Vec<String>),
    /// `// do`.
    Do(String),
    /// `// inject`: the peer sends this segment with a fault, or in another wrapping.
    Inject(String, Seg),
}

/// A line of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its number, from 1.
    pub line: usize,
    /// When.
    pub when: When,
    /// What.
    pub what: What,
}

/// A script.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    /// `// set` lines: key, value, line.
    pub settings: Vec<(String, String, usize)>,
    /// Its steps.
    pub steps: Vec<Step>,
}

/// Letters of the flags with their bits, in the order in which packetdrill prints them.
const FLAGS: [(char, u8); 8] =
    [('S', 0x02), ('F', 0x01), ('R', 0x04), ('P', 0x08), ('.', 0x10), ('U', 0x20), ('E', 0x40), ('W', 0x80)];

impl fmt::Display for Seg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((word, _)) = MARKS.iter().find(|m| m.1 == self.ecn && m.1 != 0) {
            write!(f, "{word} ")?;
        }
        let mut none = true;
        for (c, bit) in FLAGS {
            if self.flags & bit != 0 {
                write!(f, "{c}")?;
                none = false;
            }
        }
        if none {
            write!(f, "-")?;
        }
        write!(f, " {}:{}({})", self.seq, self.seq + i64::from(self.len), self.len)?;
        if let Some(ack) = self.ack {
            write!(f, " ack {ack}")?;
        }
        if let Some(win) = self.win {
            write!(f, " win {win}")?;
        }
        match &self.options {
            None => write!(f, " <...>"),
            Some(list) if list.is_empty() => Ok(()),
            Some(list) => {
                let words: Vec<String> = list.iter().map(ToString::to_string).collect();
                write!(f, " <{}>", words.join(","))
            }
        }
    }
}

impl fmt::Display for Opt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nop => write!(f, "nop"),
            Self::Mss(n) => write!(f, "mss {n}"),
            Self::SackOk => write!(f, "sackOK"),
            Self::Ts(val, ecr) => write!(f, "TS val {val} ecr {ecr}"),
            Self::WScale(n) => write!(f, "wscale {n}"),
            Self::Sack(from, to) => write!(f, "sack {from}:{to}"),
        }
    }
}

/// Reads a script.
///
/// # Errors
/// The line that is not understood, with its number and why.
pub fn parse(text: &str) -> Result<Script, String> {
    let mut script = Script::default();
    let mut in_comment = false;
    for (i, line) in text.lines().enumerate() {
        let line = without_block_comments(line, &mut in_comment);
        let number = i + 1;
        parse_line(line.trim(), number, &mut script).map_err(|e| format!("{number}: {e}"))?;
    }
    Ok(script)
}

fn without_block_comments(line: &str, inside: &mut bool) -> String {
    let mut out = String::new();
    let mut rest = line;
    loop {
        let mark = if *inside { "*/" } else { "/*" };
        let Some((before, after)) = rest.split_once(mark) else {
            if !*inside {
                out.push_str(rest);
            }
            return out;
        };
        if !*inside {
            out.push_str(before);
        }
        *inside = !*inside;
        rest = after;
    }
}

fn parse_line(line: &str, number: usize, script: &mut Script) -> Result<(), String> {
    let (event, comment) = match line.split_once("//") {
        Some((event, comment)) => (event.trim(), comment.trim()),
        None => (line, ""),
    };
    if !event.is_empty() {
        let (when, rest) = time(event)?;
        let what = match rest.split_at_checked(1) {
            Some(("<", seg)) => What::In(inbound(seg)?),
            Some((">", seg)) => What::Out(segment(seg.trim())?),
            _ => What::Call(call(rest)?),
        };
        if !matches!(what, What::Out(_)) && matches!(when, When::After(a, b) if a != b) {
            return Err("only what is sent can have a range of times".into());
        }
        script.steps.push(Step { line: number, when, what });
        return Ok(());
    }
    directive(comment, number, script)
}

/// A comment that says something to this runner: `set`, `assert`, `do`, `inject`, the last three perhaps at a time.
fn directive(comment: &str, line: usize, script: &mut Script) -> Result<(), String> {
    let (aside, words) = match comment.strip_prefix('+') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_digit() || c == '.') => {
            let (t, words) = rest.split_once(' ').ok_or("a time and nothing to do")?;
            (Some(micros(t)?), words.trim())
        }
        _ => (None, comment),
    };
    let (word, rest) = words.split_once(' ').unwrap_or((words, ""));
    let what = match word {
        "set" if aside.is_none() => {
            let (key, value) = rest.split_once(' ').ok_or("set: a key and a value")?;
            script.settings.push((key.to_owned(), value.trim().to_owned(), line));
            return Ok(());
        }
        "assert" => What::Assert(rest.split_whitespace().map(ToOwned::to_owned).collect()),
        "do" => What::Do(rest.trim().to_owned()),
        "inject" => {
            let (how, seg) = rest.split_once('<').ok_or("inject: a fault, then `<` and a segment")?;
            What::Inject(how.trim().to_owned(), inbound(seg)?)
        }
        _ if aside.is_some() => return Err(format!("`{word}` is no directive")),
        _ => return Ok(()),
    };
    script.steps.push(Step { line, when: When::Aside(aside), what });
    Ok(())
}

fn time(event: &str) -> Result<(When, &str), String> {
    let (word, rest) = event.split_once(char::is_whitespace).ok_or("a time and nothing else")?;
    let when = if let Some(relative) = word.strip_prefix('+') {
        match relative.split_once("~+") {
            Some((from, to)) => When::After(micros(from)?, micros(to)?),
            None => When::After(micros(relative)?, micros(relative)?),
        }
    } else {
        When::At(micros(word)?)
    };
    Ok((when, rest.trim()))
}

/// Seconds with up to six digits behind the point, to microseconds: exact, without floating point.
pub fn micros(text: &str) -> Result<u64, String> {
    let bad = || format!("`{text}` is no time in seconds");
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if part.len() > 6 || (whole.is_empty() && part.is_empty()) {
        return Err(bad());
    }
    let seconds: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| bad())? };
    let us: u64 = format!("{part:0<6}").parse().map_err(|_| bad())?;
    Ok(seconds * 1_000_000 + us)
}

fn inbound(text: &str) -> Result<Seg, String> {
    let seg = segment(text.trim())?;
    if seg.win.is_none() {
        return Err("what the peer sends needs a window".into());
    }
    if seg.options.is_none() {
        return Err("what the peer sends cannot have just any options".into());
    }
    Ok(seg)
}

/// `FLAGS seq:end(len) [ack n] [win n] [<options>]`
fn segment(text: &str) -> Result<Seg, String> {
    let (head, options) = match text.split_once('<') {
        Some((head, list)) => {
            (head, Some(list.trim_end().strip_suffix('>').ok_or("no `>` after the options")?))
        }
        None => (text, None),
    };
    let mut words = head.split_whitespace();
    let mut first = words.next().ok_or("no flags")?;
    let mut ecn = 0;
    if first.starts_with('[') {
        ecn = MARKS.iter().find(|m| m.0 == first).ok_or_else(|| format!("`{first}` is no mark"))?.1;
        first = words.next().ok_or("no flags")?;
    }
    let flags = flags(first)?;
    let (seq, len) = range(words.next().ok_or("no sequence numbers")?)?;
    let mut seg = Seg { ecn, flags, seq, len, ack: None, win: None, options: Some(Vec::new()) };
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("{word}: no value"))?;
        match word {
            "ack" => seg.ack = Some(number(value)?),
            "win" => seg.win = Some(number(value)?),
            _ => return Err(format!("`{word}` is not understood")),
        }
    }
    if (seg.flags & 0x10 != 0) != seg.ack.is_some() {
        return Err("`.` and `ack` go together".into());
    }
    match options {
        None => {}
        Some("...") => seg.options = None,
        Some(list) => seg.options = Some(list.split(',').map(option).collect::<Result<_, _>>()?),
    }
    Ok(seg)
}

/// The words for the ECN field, as in packetdrill.
const MARKS: [(&str, u8); 4] = [("[noecn]", 0), ("[ect1]", 1), ("[ect0]", 2), ("[ce]", 3)];

fn flags(word: &str) -> Result<u8, String> {
    if word == "-" {
        return Ok(0);
    }
    word.chars().try_fold(0, |all, c| {
        FLAGS.iter().find(|f| f.0 == c).map(|f| all | f.1).ok_or_else(|| format!("`{c}` is no flag"))
    })
}

fn range(word: &str) -> Result<(i64, u16), String> {
    let bad = || format!("`{word}` is no seq:end(len)");
    let (seq, rest) = word.split_once(':').ok_or_else(bad)?;
    let (end, len) = rest.strip_suffix(')').and_then(|r| r.split_once('(')).ok_or_else(bad)?;
    let (seq, end, len): (i64, i64, u16) = (number(seq)?, number(end)?, number(len)?);
    if seq + i64::from(len) == end { Ok((seq, len)) } else { Err(bad()) }
}

fn option(text: &str) -> Result<Opt, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    match words[..] {
        ["nop"] => Ok(Opt::Nop),
        ["sackOK"] => Ok(Opt::SackOk),
        ["mss", n] => Ok(Opt::Mss(number(n)?)),
        ["wscale", n] => Ok(Opt::WScale(number(n)?)),
        ["TS", "val", val, "ecr", ecr] => Ok(Opt::Ts(number(val)?, number(ecr)?)),
        ["sack", block] => {
            let (from, to) = block.split_once(':').ok_or("sack: from:to")?;
            Ok(Opt::Sack(number(from)?, number(to)?))
        }
        _ => Err(format!("`{text}` is no option")),
    }
}

fn call(text: &str) -> Result<Call, String> {
    let (head, result) = text.rsplit_once('=').ok_or("neither a segment nor a call with its result")?;
    let (name, args) =
        head.trim().strip_suffix(')').and_then(|h| h.split_once('(')).ok_or("no argument list")?;
    let mut words = result.split_whitespace();
    let result = number(words.next().ok_or("no result")?)?;
    let errno = words.next().map(ToOwned::to_owned);
    let args = args.split(',').map(|a| a.trim().to_owned()).collect();
    Ok(Call { name: name.trim().to_owned(), args, result, errno })
}

/// A number of any width.
pub fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("`{text}` is no number that fits"))
}
