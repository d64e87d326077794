//! From a snapshot to a screen. Pure: the same snapshot and size make the same screen.

use crate::metrics::live::{Level, Percentiles, Snapshot, WorkerLive};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Clear, Paragraph, Row, Sparkline, Table};

/// Width of the bar beside a state.
const BAR: usize = 18;

/// What is on the screen.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    source: String,
    snapshot: Option<Snapshot>,
    error: Option<String>,
    /// The numbers stand still.
    pub(super) paused: bool,
    /// The keys are explained.
    pub(super) help: bool,
}

impl View {
    pub(super) fn new(source: String) -> Self {
        Self { source, ..Self::default() }
    }

    pub(super) fn show(&mut self, snapshot: Snapshot) {
        self.snapshot = Some(snapshot);
        self.error = None;
    }

    pub(super) fn fail(&mut self, why: String) {
        self.error = Some(why);
    }

    pub(super) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }
}

/// Draws the view.
pub(super) fn draw(frame: &mut Frame, view: &View) {
    let [head, body] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(frame.area());
    frame.render_widget(headline(view), head);
    let Some(s) = &view.snapshot else {
        let text = view.error().map_or_else(|| format!("asking {} …", view.source), str::to_owned);
        frame.render_widget(Paragraph::new(text).wrap(ratatui::widgets::Wrap { trim: true }), body);
        return;
    };
    let states = s.states.len() as u16 + 2;
    let workers = s.workers.len() as u16 + 3;
    let [top, lines, middle, bottom] = Layout::vertical([
        Constraint::Length(states.max(12)),
        Constraint::Length(4),
        Constraint::Length(workers),
        Constraint::Min(3),
    ])
    .areas(body);
    let [left, right] = Layout::horizontal([Constraint::Length(44), Constraint::Min(30)]).areas(top);
    population(frame, left, s);
    let [rates, latency] = Layout::vertical([Constraint::Min(6), Constraint::Length(5)]).areas(right);
    what_happens(frame, rates, s);
    latencies(frame, latency, s);
    history(frame, lines, s);
    frame.render_widget(worker_table(&s.workers), middle);
    let [a, b, c] = Layout::horizontal([Constraint::Length(36), Constraint::Fill(1), Constraint::Length(32)])
        .areas(bottom);
    frame.render_widget(drops(s), a);
    frame.render_widget(busiest(s), b);
    frame.render_widget(ends(s), c);
    if view.help {
        help(frame);
    }
}

fn titled(title: &str) -> Block<'_> {
    Block::bordered().title(title).border_style(Style::new().fg(Color::DarkGray))
}

fn headline(view: &View) -> Line<'_> {
    let mut line = vec!["finwheel top ".bold()];
    if let Some(s) = &view.snapshot {
        let colour = match s.phase.as_str() {
            "ready" => Color::Green,
            "draining" => Color::Yellow,
            _ => Color::Red,
        };
        line.push(Span::styled(
            format!(" {} ", s.phase),
            Style::new().fg(colour).add_modifier(Modifier::BOLD),
        ));
        line.push(format!(" version {}, up {} ", s.version, duration(s.uptime_s)).into());
    }
    line.push(format!(" {} ", view.source).dim());
    if view.paused {
        line.push(" paused ".black().on_yellow());
    }
    if let Some(e) = &view.error {
        line.push(Span::styled(e.as_str(), Style::new().fg(Color::Red)));
    }
    Line::from(line)
}

fn tone(state: &str) -> Color {
    match state {
        "LISTEN" | "SYN_SENT" | "SYN_RECEIVED" => Color::Blue,
        "ESTABLISHED" => Color::Green,
        "TIME_WAIT" => Color::Magenta,
        "CLOSED" => Color::DarkGray,
        _ => Color::Yellow,
    }
}

/// Population of every state but `CLOSED`, with a bar by its logarithm: one connection in a state is to be seen beside a
/// million in another.
fn population(frame: &mut Frame, area: Rect, s: &Snapshot) {
    let most = s.states.iter().map(|x| x.count).max().unwrap_or(0);
    let rows = s.states.iter().filter(|x| x.state != "CLOSED").map(|x| {
        let full = ((1 + most) as f64).ln();
        let part = if full > 0.0 { ((1 + x.count) as f64).ln() / full } else { 0.0 };
        let bar = "█".repeat(whole(part * BAR as f64) as usize);
        let style = Style::new().fg(tone(&x.state));
        Row::new([
            Cell::new(x.state.as_str()).style(style),
            right(&number(x.count as f64)),
            Cell::new(bar).style(style),
        ])
    });
    let widths = [Constraint::Length(13), Constraint::Length(8), Constraint::Min(0)];
    frame.render_widget(Table::new(rows, widths).block(titled("states")), area);
}

fn what_happens(frame: &mut Frame, area: Rect, s: &Snapshot) {
    let r = &s.rates;
    let pairs = [
        ("opened", r.opens, "closed", r.closes),
        ("frames in", r.rx_frames, "frames out", r.tx_frames),
        ("bits in", r.rx_bits, "bits out", r.tx_bits),
        ("dropped", r.drops, "resets", r.resets),
        ("retransmitted", r.retransmissions, "", 0.0),
    ];
    let rows = pairs.map(|(a, x, b, y)| {
        let second = if b.is_empty() { String::new() } else { number(y) };
        Row::new([Cell::new(a), right(&number(x)), Cell::new(b), right(&second)])
    });
    let widths =
        [Constraint::Length(14), Constraint::Length(9), Constraint::Length(11), Constraint::Length(9)];
    frame.render_widget(Table::new(rows, widths).block(titled("a second")), area);
}

fn latencies(frame: &mut Frame, area: Rect, s: &Snapshot) {
    let row = |name: &'static str, p: Option<Percentiles>| {
        let mut cells = vec![Cell::new(name)];
        match p {
            Some(p) => cells.extend([p.p50, p.p90, p.p99, p.p999, p.max].map(|v| right(&format!("{v:.2}")))),
            None => cells.extend(["–"; 5].map(right)),
        }
        Row::new(cells)
    };
    let rows = [row("close", s.close_ms), row("handshake", s.handshake_ms)];
    let widths = [Constraint::Length(10)].into_iter().chain([Constraint::Length(9); 5]);
    let heads = Row::new(
        ["ms", "p50", "p90", "p99", "p99.9", "max"].map(|h| if h == "ms" { Cell::new(h) } else { right(h) }),
    );
    let table = Table::new(rows, widths).header(heads.dim()).block(titled("the last ten seconds"));
    frame.render_widget(table, area);
}

/// Connections closed a second and records in `TIME_WAIT`, newest at the right.
fn history(frame: &mut Frame, area: Rect, s: &Snapshot) {
    let halves: [Rect; 2] = Layout::horizontal([Constraint::Fill(1); 2]).areas(area);
    let closes: Vec<u64> = s.history.closes.iter().map(|v| whole(*v)).collect();
    for (area, title, values, colour) in [
        (halves[0], "closed a second, by time", &closes, Color::Yellow),
        (halves[1], "TIME_WAIT, by time", &s.history.time_wait, Color::Magenta),
    ] {
        let width = usize::from(area.width.saturating_sub(2));
        let shown = &values[values.len().saturating_sub(width)..];
        let line = Sparkline::default().data(shown).style(Style::new().fg(colour)).block(titled(title));
        frame.render_widget(line, area);
    }
}

fn worker_table(workers: &[WorkerLive]) -> Table<'_> {
    let heads = [
        "worker",
        "busy",
        "rx",
        "fill",
        "tx",
        "done",
        "conns",
        "half-open",
        "TIME_WAIT",
        "chunks",
        "lag",
        "age",
    ];
    let rows = workers.iter().enumerate().map(|(i, w)| {
        let ring =
            |name| find(&w.rings, name).map_or_else(String::new, |l| format!("{}/{}", l.used, l.capacity));
        let table = |name| {
            find(&w.tables, name)
                .map_or_else(String::new, |l| percent(l.used as f64 / l.capacity.max(1) as f64))
        };
        let busy = if w.busy > 0.9 { Style::new().fg(Color::Red) } else { Style::new().fg(Color::Green) };
        let mut cells = vec![Cell::new(i.to_string()), right(&percent(w.busy)).style(busy)];
        cells.extend(["rx", "fill", "tx", "completion"].map(|r| right(&ring(r))));
        cells.extend(["connections", "half_open", "time_wait", "chunks"].map(|t| right(&table(t))));
        cells.push(right(&format!("{} ms", w.lag_ms)));
        cells.push(right(&format!("{:.1} s", w.report_age_s)));
        Row::new(cells)
    });
    let widths = [6, 7, 9, 9, 9, 9, 7, 9, 9, 7, 7, 6].map(Constraint::Length);
    let heads =
        Row::new(heads.iter().enumerate().map(|(i, h)| if i == 0 { Cell::new(*h) } else { right(h) }));
    Table::new(rows, widths).header(heads.dim()).block(titled("workers"))
}

fn find<'a>(levels: &'a [Level], name: &str) -> Option<&'a Level> {
    levels.iter().find(|l| l.name == name)
}

/// Rows of a name, a rate and a sum, the fastest first.
fn counted(title: &str, mut rows: Vec<(String, f64, u64)>) -> Table<'_> {
    rows.sort_by(|a, b| b.1.total_cmp(&a.1).then(b.2.cmp(&a.2)));
    let rows = rows.into_iter().map(|(name, rate, count)| {
        let row = Row::new([Cell::new(name), right(&number(rate)), right(&number(count as f64))]);
        if rate > 0.0 { row } else { row.dim() }
    });
    let widths = [Constraint::Min(10), Constraint::Length(8), Constraint::Length(8)];
    let heads = Row::new([Cell::new(""), right("a second"), right("in all")]);
    Table::new(rows, widths).header(heads.dim()).block(titled(title))
}

fn drops(s: &Snapshot) -> Table<'_> {
    counted("dropped, by reason", s.drops.iter().map(|d| (d.name.clone(), d.rate, d.count)).collect())
}

/// The fastest first. Their sums would leave no room for their names.
fn busiest(s: &Snapshot) -> Table<'_> {
    let mut moved: Vec<_> = s.transitions.iter().filter(|t| t.count > 0).collect();
    moved.sort_by(|a, b| b.rate.total_cmp(&a.rate).then(b.count.cmp(&a.count)));
    let rows = moved.into_iter().map(|t| {
        let row = Row::new([Cell::new(format!("{} {} → {}", t.from, t.event, t.to)), right(&number(t.rate))]);
        if t.rate > 0.0 { row } else { row.dim() }
    });
    let heads = Row::new([Cell::new(""), right("a second")]);
    let widths = [Constraint::Min(10), Constraint::Length(8)];
    Table::new(rows, widths).header(heads.dim()).block(titled("transitions"))
}

fn ends(s: &Snapshot) -> Table<'_> {
    let paths = s.closes.iter().map(|c| (c.name.clone(), c.rate, c.count));
    counted("closed, by path", paths.collect())
}

fn help(frame: &mut Frame) {
    let area = frame.area().centered(Constraint::Length(64), Constraint::Length(8));
    let text = "q, Esc   quit\np        pause\n?        this\n\nrings: entries of slots; fill is what the kernel may still\n\
                fill. lag: how late timers were at worst.";
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(text).block(titled("keys")), area);
}

fn right(text: &str) -> Cell<'static> {
    Cell::new(Line::from(text.to_owned()).right_aligned())
}

fn percent(part: f64) -> String {
    format!("{:.1} %", part * 100.0)
}

/// At most four digits and a unit.
fn number(v: f64) -> String {
    match v {
        v if v >= 1e9 => format!("{:.2}G", v / 1e9),
        v if v >= 1e6 => format!("{:.2}M", v / 1e6),
        v if v >= 1e4 => format!("{:.1}k", v / 1e3),
        v if v >= 10.0 || v.fract() == 0.0 => format!("{v:.0}"),
        v => format!("{v:.1}"),
    }
}

/// To the next whole number; below zero, which nothing here is, to zero.
#[allow(clippy::cast_sign_loss)] // As the sentence above says.
fn whole(v: f64) -> u64 {
    v.round() as u64
}

fn duration(s: f64) -> String {
    humantime::format_duration(std::time::Duration::from_secs(whole(s))).to_string()
}
