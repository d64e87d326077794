//! The answers. Each asks the supervisor and waits; none holds anything of a worker's.

use super::model::{
    CaptureQuery, ClosesQuery, ConnectionLine, DrainQuery, EndOrder, Ended, ListQuery, MoreLine, Problem,
};
use super::spec::{self, CloseFilter};
use super::stream::{Broken, Pieces, Streamed, streamed};
use super::{BODY_TIME, MAX_BODY_BYTES, MAX_STREAMS};
use crate::control::capture::{self, Bounds, Capture};
use crate::control::close_log::{self, Desk, FOLLOWED, Follower, WallClock};
use crate::control::names::Names;
use crate::control::reload::{ReloadError, Source};
use crate::control::supervisor::Request;
use crate::control::terminator::Control;
use crate::shard::closes::ClosePage;
use crate::shard::drain::DrainOrder;
use crate::shard::filter::Filter;
use crate::shard::sweep::{Cursor, Deed, Sweep, Table};
use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use crossbeam::channel::Sender;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, timeout};

/// Rows of a page: some 600 kB.
const PAGE_ROWS: usize = 4096;
/// Slots of a page: a client that goes away is noticed after so many at the latest.
const PAGE_SLOTS: u32 = 1 << 20;
/// Slots of a page that ends connections.
const END_SLOTS: u32 = 1 << 16;
/// Close records of a page.
const PAGE_CLOSES: usize = 256;
/// Bytes of a piece of a stream.
const PIECE: usize = 64 << 10;
/// How long an answer of the supervisor is waited for: a worker that hangs is found out by others.
const ANSWER: Duration = Duration::from_secs(10);
/// Between looks at captured frames.
const CAPTURE_LOOK: Duration = Duration::from_millis(5);

/// What the answers are made of.
#[derive(Clone)]
pub struct Shared {
    /// The supervisor.
    pub requests: Sender<Request>,
    /// For reloads.
    pub control: Control,
    /// Listeners' names.
    pub names: Names,
    /// The workers' names: interface and queue.
    pub queues: Arc<[String]>,
    /// Their clock.
    pub clock: WallClock,
    /// The thread of the close log.
    pub closes: Desk,
    /// Streams that may still begin.
    pub streams: Arc<Semaphore>,
    /// The one capture that may be under way.
    pub capture: Arc<Semaphore>,
}

impl Shared {
    /// With all their bounds.
    pub fn new(
        requests: Sender<Request>,
        control: Control,
        names: Names,
        queues: Vec<String>,
        clock: WallClock,
        closes: Desk,
    ) -> Self {
        Self {
            requests,
            control,
            names,
            queues: queues.into(),
            clock,
            closes,
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
            capture: Arc::new(Semaphore::new(1)),
        }
    }

    /// Asks the supervisor.
    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, Refusal> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(request(answer)).map_err(|_| Refusal::ended())?;
        match timeout(ANSWER, answered).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(Refusal::ended()),
            Err(_) => Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "a worker does not answer")),
        }
    }

    fn stream(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        Arc::clone(&self.streams).try_acquire_owned().map_err(|_| {
            let what = format!("{MAX_STREAMS} listings and captures are under way: end one of them");
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, what)
        })
    }
}

/// An answer that is none.
struct Refusal(StatusCode, Problem);

impl Refusal {
    fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self(status, Problem { error: error.into(), refused: Vec::new() })
    }
    fn wrong(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }
    fn ended() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "the process ends, or a worker has failed")
    }
}

impl From<QueryRejection> for Refusal {
    fn from(e: QueryRejection) -> Self {
        Self::wrong(e.body_text())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, json(&self.1)).into_response()
    }
}

type Answer = Result<Response, Refusal>;

fn json(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(mut bytes) => {
            bytes.push(b'\n');
            ([(header::CONTENT_TYPE, "application/json")], bytes).into_response()
        }
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()).into_response(),
    }
}

fn lines(body: Streamed) -> Response {
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::new(body)).into_response()
}

/// A request's body, within its bounds; an empty one stands for the default.
async fn body<T: DeserializeOwned + Default>(body: Body) -> Result<T, Refusal> {
    let too_large = || {
        let what = format!("the body cannot be read, or is larger than {MAX_BODY_BYTES} bytes");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, what)
    };
    // What is announced is not waited for.
    if body.size_hint().lower() > MAX_BODY_BYTES as u64 {
        return Err(too_large());
    }
    let bytes = match timeout(BODY_TIME, axum::body::to_bytes(body, MAX_BODY_BYTES)).await {
        Err(_) => return Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")),
        Ok(Err(_)) => return Err(too_large()),
        Ok(Ok(bytes)) => bytes,
    };
    if bytes.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(&bytes).map_err(|e| Refusal::wrong(format!("the body: {e}")))
}

/// The routes.
pub(super) fn router(shared: Shared) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/connections", get(connections))
        .route("/v1/close", post(async |s: State<Shared>, b: Body| end(s, b, Deed::Close).await))
        .route("/v1/abort", post(async |s: State<Shared>, b: Body| end(s, b, Deed::Abort).await))
        .route("/v1/drain", post(drain))
        .route("/v1/undrain", post(undrain))
        .route("/v1/reload", post(reload))
        .route("/v1/closes", get(closes))
        .route("/v1/capture", get(capture))
        .fallback(async || Refusal::new(StatusCode::NOT_FOUND, "see `finwheel help` for what there is"))
        .with_state(shared)
}

async fn status(State(s): State<Shared>) -> Answer {
    Ok(json(&s.ask(Request::Status).await?))
}

async fn drain(State(s): State<Shared>, b: Body) -> Answer {
    let q: DrainQuery = body(b).await?;
    let over = q.over.as_deref().map(|t| spec::duration("over", t)).transpose().map_err(Refusal::wrong)?;
    let new = q.new.as_deref().map(spec::new_connections).transpose().map_err(Refusal::wrong)?;
    let order = move |configured: DrainOrder| DrainOrder {
        over: over.unwrap_or(configured.over),
        new: new.unwrap_or(configured.new),
    };
    match s.ask(|answer| Request::Pause(Box::new(order), answer)).await? {
        Ok(()) => status(State(s)).await,
        Err(why) => Err(Refusal::new(StatusCode::CONFLICT, why)),
    }
}

async fn undrain(State(s): State<Shared>) -> Answer {
    match s.ask(Request::Resume).await? {
        Ok(()) => status(State(s)).await,
        Err(why) => Err(Refusal::new(StatusCode::CONFLICT, why)),
    }
}

async fn reload(State(s): State<Shared>) -> Answer {
    // The file is read here: whoever looks after the workers does not wait for a disk.
    let source: Option<Source> = s.ask(Request::Source).await?;
    let done = match s.control.read_again(source) {
        Ok(config) => s.ask(|answer| Request::Reload(config, answer)).await?,
        Err(e) => Err(e),
    };
    match done {
        Ok(report) => Ok(json(&report)),
        Err(e) => {
            let error = e.to_string();
            let (status, refused) = match e {
                ReloadError::Config(_) => (StatusCode::UNPROCESSABLE_ENTITY, Vec::new()),
                ReloadError::Refused(keys) => (StatusCode::CONFLICT, keys),
                ReloadError::NotNow(_) => (StatusCode::CONFLICT, Vec::new()),
                ReloadError::Incomplete(_) => (StatusCode::INTERNAL_SERVER_ERROR, Vec::new()),
            };
            Err(Refusal(status, Problem { error, refused }))
        }
    }
}

async fn end(State(s): State<Shared>, b: Body, deed: Deed) -> Answer {
    let order: EndOrder = body(b).await?;
    let filter = spec::filter(&order.filter, &s.names).map_err(Refusal::wrong)?;
    if filter.is_empty() && !order.all {
        return Err(Refusal::wrong("the filter is empty, so every connection is meant: say so by `all`"));
    }
    let mut sum = Ended::default();
    for worker in 0..s.queues.len() {
        let mut sweep = Box::new(Sweep::new(deed, filter.clone(), 0, END_SLOTS));
        loop {
            sweep = s.ask(|answer| Request::Sweep(worker, sweep, answer)).await?;
            sum.matched += sweep.meant;
            sum.ended += sweep.ended;
            if sweep.done {
                break;
            }
            sweep.turn_over(END_SLOTS);
        }
    }
    Ok(json(&sum))
}

async fn connections(State(s): State<Shared>, query: Result<Query<ListQuery>, QueryRejection>) -> Answer {
    let Query(q) = query?;
    let filter = spec::filter(&q.filter(), &s.names).map_err(Refusal::wrong)?;
    let from = q.after.as_deref().map_or(Ok((0, Cursor::default())), |t| place(t, s.queues.len()))?;
    let permit = s.stream()?;
    let (pieces, body) = streamed();
    let limit = q.limit.unwrap_or(u64::MAX);
    tokio::spawn(async move {
        list(&s, &filter, limit, from, &pieces).await;
        drop(permit);
    });
    Ok(lines(body))
}

/// From `worker.table.slot`.
fn place(text: &str, workers: usize) -> Result<(usize, Cursor), Refusal> {
    let parts: Vec<Option<u32>> = text.split('.').map(|p| p.parse().ok()).collect();
    if let [Some(worker), Some(table), Some(slot)] = parts[..]
        && let Some(&table) = Table::ALL.get(table as usize)
        && (worker as usize) < workers
    {
        return Ok((worker as usize, Cursor { table, slot }));
    }
    Err(Refusal::wrong(format!("after: \"{text}\" is no place that a listing has named as `next`")))
}

async fn list(s: &Shared, filter: &Filter, limit: u64, from: (usize, Cursor), pieces: &Pieces) {
    let (first, at) = from;
    let mut left = limit;
    let mut text = Vec::with_capacity(PIECE + 1024);
    for worker in first..s.queues.len() {
        let rows = PAGE_ROWS.min(usize::try_from(left).unwrap_or(PAGE_ROWS));
        let mut sweep = Box::new(Sweep::new(Deed::List, filter.clone(), rows, PAGE_SLOTS));
        if worker == first {
            sweep.at = at;
        }
        loop {
            if left == 0 {
                let Cursor { table, slot } = sweep.at;
                let more = MoreLine { next: format!("{worker}.{}.{slot}", table as u32) };
                add_line(&mut text, &more);
                let _ = pieces.send(Ok(text.into())).await;
                return;
            }
            let Ok(filled) = s.ask(|answer| Request::Sweep(worker, sweep, answer)).await else {
                let _ = pieces.send(Err(Broken("a worker does not answer"))).await;
                return;
            };
            sweep = filled;
            for row in &sweep.rows {
                let name = row.listener.and_then(|n| s.names.name(n));
                add_line(&mut text, &ConnectionLine::new(worker, row, name));
                if text.len() >= PIECE && pieces.send(Ok(std::mem::take(&mut text).into())).await.is_err() {
                    return;
                }
            }
            left -= sweep.rows.len() as u64;
            // A client that went away must not have tables of millions looked through.
            if pieces.is_closed() {
                return;
            }
            if sweep.done {
                break;
            }
            sweep.turn_over(PAGE_SLOTS);
            if (sweep.rows.capacity() as u64) > left {
                sweep.rows = Vec::with_capacity(left as usize);
            }
        }
    }
    let _ = pieces.send(Ok(text.into())).await;
}

fn add_line(text: &mut Vec<u8>, line: &impl Serialize) {
    // Numbers, names and addresses: there is nothing in it that JSON cannot say.
    serde_json::to_writer(&mut *text, line).unwrap_or_else(|e| unreachable!("a line as JSON: {e}"));
    text.push(b'\n');
}

async fn closes(State(s): State<Shared>, query: Result<Query<ClosesQuery>, QueryRejection>) -> Answer {
    let Query(q) = query?;
    let filter = CloseFilter::new(&q, &s.names).map_err(Refusal::wrong)?;
    let permit = s.stream()?;
    let (pieces, body) = streamed();
    tokio::spawn(async move {
        follow(&s, &q, filter, &pieces).await;
        drop(permit);
    });
    Ok(lines(body))
}

async fn follow(s: &Shared, q: &ClosesQuery, filter: CloseFilter, pieces: &Pieces) {
    // First the follower, then what there is: a record may come twice, but none is missed.
    let (to, mut coming) = tokio::sync::mpsc::channel::<Bytes>(FOLLOWED);
    if q.follow {
        s.closes.follow(Follower { filter: filter.clone(), lines: to, lost: 0 });
    }
    let last = q.last.unwrap_or(if q.follow { 0 } else { usize::MAX });
    if last > 0 {
        let Ok(mut kept) = kept(s, &filter).await else {
            let _ = pieces.send(Err(Broken("a worker does not answer"))).await;
            return;
        };
        kept.sort_by_key(|(at, _)| *at);
        let skip = kept.len().saturating_sub(last);
        let mut text = Vec::new();
        for (_, line) in kept.drain(..).skip(skip) {
            text.extend_from_slice(&line);
        }
        if pieces.send(Ok(text.into())).await.is_err() {
            return;
        }
    }
    if !q.follow {
        return;
    }
    loop {
        let line = tokio::select! {
            line = coming.recv() => line,
            () = pieces.closed() => return,
        };
        let Some(line) = line else { return };
        if pieces.send(Ok(line)).await.is_err() {
            return;
        }
    }
}

/// The records that the workers keep, as lines, each with its time.
async fn kept(s: &Shared, filter: &CloseFilter) -> Result<Vec<(crate::time::Time, Bytes)>, Refusal> {
    let mut all = Vec::new();
    for worker in 0..s.queues.len() {
        let mut page = Box::new(ClosePage::new(PAGE_CLOSES));
        let mut until = None;
        loop {
            page = s.ask(|answer| Request::Closes(worker, page, answer)).await?;
            // What comes while it is read is left out: a busy worker would never be done.
            let until = *until.get_or_insert(page.end);
            for (_, r) in page.records.iter().filter(|(n, r)| *n < until && filter.takes(r)) {
                all.push((r.closed_at, close_log::line(worker, r, &s.clock, &s.names)));
            }
            if page.records.is_empty() || page.from >= until {
                break;
            }
        }
    }
    Ok(all)
}

async fn capture(State(s): State<Shared>, query: Result<Query<CaptureQuery>, QueryRejection>) -> Answer {
    let Query(q) = query?;
    let wanted = super::model::FilterSpec {
        peer: q.peer.clone(),
        listener: q.listener.clone(),
        ..super::model::FilterSpec::default()
    };
    let filter = spec::filter(&wanted, &s.names).map_err(Refusal::wrong)?;
    let count = q.count.unwrap_or(capture::COUNT);
    if !(1..=capture::MOST).contains(&count) {
        return Err(Refusal::wrong(format!("count: 1 to {} frames", capture::MOST)));
    }
    let snaplen = q.snaplen.unwrap_or(capture::SNAPLEN);
    if !(capture::LEAST_SNAPLEN..=capture::SNAPLEN).contains(&snaplen) {
        let (least, most) = (capture::LEAST_SNAPLEN, capture::SNAPLEN);
        return Err(Refusal::wrong(format!("snaplen: {least} to {most} bytes")));
    }
    let time = q.time.as_deref().map_or(Ok(capture::TIME), |t| spec::duration("for", t));
    let time = time.map_err(Refusal::wrong)?;
    if time > capture::LONGEST {
        return Err(Refusal::wrong("for: a day at most"));
    }
    let permit = s.stream()?;
    let only = Arc::clone(&s.capture).try_acquire_owned();
    let only =
        only.map_err(|_| Refusal::new(StatusCode::CONFLICT, "another capture is under way: one at a time"))?;
    let bounds = Bounds { filter, count, snaplen };
    let (session, taps) = Capture::new(&bounds, &s.queues, s.clock)
        .map_err(|e| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?;
    let before = s.ask(|answer| Request::Capture(taps, answer)).await?;
    let (pieces, body) = streamed();
    tokio::spawn(async move {
        run_capture(&s, session, time, &before, &pieces).await;
        drop((permit, only));
    });
    Ok(([(header::CONTENT_TYPE, "application/x-pcapng")], Body::new(body)).into_response())
}

async fn run_capture(s: &Shared, mut session: Capture, time: Duration, before: &[u64], pieces: &Pieces) {
    let until = Instant::now() + time;
    let mut ended = false;
    while !ended {
        ended = session.is_full() || Instant::now() >= until || pieces.is_closed();
        match session.take() {
            Ok(bytes) if bytes.is_empty() => tokio::time::sleep(CAPTURE_LOOK).await,
            // It fails when the client has gone, which the next look sees.
            Ok(bytes) => drop(pieces.send(Ok(bytes.into())).await),
            Err(e) => {
                tracing::error!(error = %e, "a capture cannot be written");
                break;
            }
        }
    }
    let none = s.queues.iter().map(|_| None).collect();
    // What the workers lost meanwhile is what they count more than before.
    let after = s.ask(|answer| Request::Capture(none, answer)).await.unwrap_or_default();
    let lost: Vec<u64> = after.iter().zip(before).map(|(a, b)| a.saturating_sub(*b)).collect();
    if let Ok(bytes) = session.finish(&lost) {
        let _ = pieces.send(Ok(bytes.into())).await;
    }
}
