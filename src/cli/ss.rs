//! `finwheel ss`: the connections that there are.

use super::admin::{FilterArgs, Lines, SocketArgs, finish, follow, output, short_time, stdout};
use crate::control::admin::model::{ConnectionLine, ListQuery, MoreLine};
use std::io::{self, Write};
use std::process::ExitCode;

/// What is listed.
#[derive(Clone, Debug, clap::Args)]
pub struct SsArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// One JSON object a line, with every field.
    #[arg(long)]
    json: bool,
    /// Columns, with commas between, in this order.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_enum, default_values_t = Column::DEFAULT)]
    columns: Vec<Column>,
    /// No line of column names.
    #[arg(long)]
    no_header: bool,
    /// Stop after so many, and say where to go on.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Go on where a listing with --limit has stopped.
    #[arg(long, value_name = "PLACE")]
    after: Option<String>,
    #[command(flatten)]
    at: SocketArgs,
}

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Column {
    State,
    RecvQ,
    SendQ,
    Local,
    Peer,
    Listener,
    Age,
    InState,
    Left,
    Rtt,
    Cwnd,
    In,
    Out,
    Worker,
}

impl Column {
    const DEFAULT: [Self; 7] =
        [Self::State, Self::RecvQ, Self::SendQ, Self::Local, Self::Peer, Self::Listener, Self::Age];

    /// Its name, and its width: that of what it mostly holds.
    const fn head(self) -> (&'static str, usize) {
        match self {
            Self::State => ("State", 12),
            Self::RecvQ => ("Recv-Q", 8),
            Self::SendQ => ("Send-Q", 8),
            Self::Local => ("Local", 26),
            Self::Peer => ("Peer", 26),
            Self::Listener => ("Listener", 12),
            Self::Age => ("Age", 7),
            Self::InState => ("In state", 8),
            Self::Left => ("Left", 7),
            Self::Rtt => ("RTT", 7),
            Self::Cwnd => ("Cwnd", 9),
            Self::In => ("In", 12),
            Self::Out => ("Out", 12),
            Self::Worker => ("Worker", 6),
        }
    }

    fn of(self, c: &ConnectionLine) -> String {
        match self {
            Self::State => c.state.clone(),
            Self::RecvQ => c.recv_q.to_string(),
            Self::SendQ => c.send_q.to_string(),
            Self::Local => c.local.to_string(),
            Self::Peer => c.peer.to_string(),
            Self::Listener => c.listener.clone().unwrap_or_else(|| "-".to_owned()),
            Self::Age => short_time(c.age_s),
            Self::InState => short_time(c.state_s),
            Self::Left => c.left_s.map_or_else(|| "-".to_owned(), short_time),
            Self::Rtt if c.srtt_us == 0 => "-".to_owned(),
            Self::Rtt => short_time(c.srtt_us as f64 / 1e6),
            Self::Cwnd => c.cwnd.to_string(),
            Self::In => c.bytes_in.to_string(),
            Self::Out => c.bytes_out.to_string(),
            Self::Worker => c.worker.to_string(),
        }
    }
}

/// Lists.
#[must_use]
pub fn execute(args: &SsArgs) -> ExitCode {
    let query = ListQuery {
        state: args.filter.state.clone(),
        listener: args.filter.listener.clone(),
        peer: args.filter.peer.clone(),
        older_than: args.filter.older_than.clone(),
        limit: args.limit,
        after: args.after.clone(),
    };
    let mut out = stdout();
    let mut more = None;
    let mut lines = Lines::default();
    let mut header = !args.no_header && !args.json;
    let done = follow(&args.at.socket, "/v1/connections", &query, &mut |piece| {
        if args.json {
            return out.write_all(piece);
        }
        if std::mem::take(&mut header) {
            row(&mut out, &args.columns, |c| c.head().0.to_owned())?;
        }
        lines.take(piece, &mut |line| {
            if let Ok(MoreLine { next }) = serde_json::from_slice(line) {
                more = Some(next);
                return Ok(());
            }
            let c: ConnectionLine = serde_json::from_slice(line)?;
            row(&mut out, &args.columns, |column| column.of(&c))
        })
    });
    let done = done.and_then(|()| {
        if std::mem::take(&mut header) {
            row(&mut out, &args.columns, |c| c.head().0.to_owned()).map_err(output)?;
        }
        out.flush().map_err(output)
    });
    if let Some(next) = more {
        eprintln!("there is more: --after {next}");
    }
    finish(done)
}

fn row(out: &mut impl Write, columns: &[Column], text: impl Fn(Column) -> String) -> io::Result<()> {
    let mut line = String::new();
    for &c in columns {
        use std::fmt::Write as _;
        let width = c.head().1;
        // Writing to a String cannot fail.
        let _ = write!(line, "{:<width$} ", text(c));
    }
    writeln!(out, "{}", line.trim_end())
}
