//! Kernel clients: Linux TCP sockets that play the plans and check every byte.
//!
//! All run on one thread of a tokio runtime, in whatever network namespace that thread is in. The order of the calls is
//! what makes the closing order: who calls `shutdown(2)` before the other side's FIN was read.

use super::summary::ClientTally;
use crate::sim::client::{Checker, Order, Plan, Upload};
use crate::sim::fleet::{BODY, port_of};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;

/// Longest time for one connection: far beyond any retransmission of a healthy run, so that a hang is told.
const CONNECTION_LIMIT: Duration = Duration::from_secs(60);
/// Bytes written or read at a time.
const PART: usize = 16 * 1024;

/// One connection to make.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    /// What it does.
    pub plan: Plan,
    /// Where the server is.
    pub server: IpAddr,
    /// Local address and port to bind, for one that is to be recognised.
    pub bind: Option<SocketAddr>,
}

/// What went wrong with a connection.
#[derive(Debug)]
enum Wrong {
    Io(&'static str, io::Error),
    Bytes(String),
    Short(u64),
    Timeout,
}

/// Clients at work, seen from the thread that watches.
#[derive(Default)]
pub struct Progress {
    /// Connections that ended, well or not.
    pub ended: AtomicU64,
}

/// Plays all jobs, `concurrency` at a time.
///
/// # Errors
/// When the runtime cannot be made.
pub fn run(
    jobs: impl Iterator<Item = Job>,
    concurrency: usize,
    progress: &Arc<Progress>,
) -> io::Result<ClientTally> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let tally = Arc::new(Mutex::new(ClientTally::default()));
        let slots = Arc::new(Semaphore::new(concurrency));
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                for job in jobs {
                    let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { break };
                    let (tally, progress) = (Arc::clone(&tally), Arc::clone(progress));
                    tokio::task::spawn_local(async move {
                        let result = tokio::time::timeout(CONNECTION_LIMIT, play(&job)).await;
                        note(&tally, &job, result.unwrap_or(Err(Wrong::Timeout)));
                        progress.ended.fetch_add(1, Ordering::Relaxed);
                        drop(slot);
                    });
                }
                // All slots are free when the last connection has ended. The semaphore is never closed.
                let _ = slots.acquire_many(concurrency as u32).await;
            })
            .await;
        let tally = tally.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(tally)
    })
}

fn note(tally: &Mutex<ClientTally>, job: &Job, result: Result<(), Wrong>) {
    let mut t = tally.lock().unwrap_or_else(PoisonError::into_inner);
    let Err(wrong) = result else {
        t.ok += 1;
        return;
    };
    let what = match &wrong {
        Wrong::Io(call, e) => format!("{call}: {e}"),
        Wrong::Bytes(e) => e.clone(),
        Wrong::Short(n) => format!("the stream ended after {n} bytes"),
        Wrong::Timeout => format!("not done after {CONNECTION_LIMIT:?}"),
    };
    if matches!(&wrong, Wrong::Io(_, e) if e.kind() == io::ErrorKind::ConnectionReset) {
        t.reset += 1;
    } else {
        t.failed += 1;
    }
    t.complain(format!("{:?} {:?} over {}: {what}", job.plan.target, job.plan.order, job.server));
}

async fn connect(job: &Job) -> io::Result<TcpStream> {
    let to = SocketAddr::new(job.server, port_of(job.plan.target));
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(at) = job.bind {
        socket.set_reuseaddr(true)?;
        socket.bind(at)?;
    }
    let stream = socket.connect(to).await?;
    // Small writes are to leave at once: the crossing FINs depend on it.
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn play(job: &Job) -> Result<(), Wrong> {
    let stream = connect(job).await.map_err(|e| Wrong::Io("connect", e))?;
    let (mut rx, mut tx) = stream.into_split();
    let mut checker = Checker::new(&job.plan, Arc::from(BODY));
    match job.plan.order {
        Order::ClientFirst => {
            let (sent, read) = tokio::join!(send(&mut tx, &job.plan), receive(&mut rx, &mut checker, true));
            sent?;
            read?;
            finish(&mut tx).await?;
            receive(&mut rx, &mut checker, false).await?;
        }
        Order::ServerFirst => {
            let (sent, read) = tokio::join!(send(&mut tx, &job.plan), receive(&mut rx, &mut checker, false));
            sent?;
            read?;
            finish(&mut tx).await?;
        }
        Order::HalfClose | Order::Both | Order::Abort => {
            let upload = async {
                send(&mut tx, &job.plan).await?;
                finish(&mut tx).await
            };
            let (sent, read) = tokio::join!(upload, receive(&mut rx, &mut checker, false));
            sent?;
            read?;
        }
    }
    if checker.complete() { Ok(()) } else { Err(Wrong::Short(checker.received())) }
}

/// Sends the plan's stream.
async fn send(tx: &mut OwnedWriteHalf, plan: &Plan) -> Result<(), Wrong> {
    let mut upload = Upload::new(plan);
    // On the heap: hundreds of these futures are alive at a time.
    let mut part = vec![0; PART];
    while !upload.done() {
        let n = upload.peek(&mut part);
        let sent = tx.write(&part[..n]).await.map_err(|e| Wrong::Io("write", e))?;
        upload.advance(sent);
    }
    Ok(())
}

/// Our FIN.
async fn finish(tx: &mut OwnedWriteHalf) -> Result<(), Wrong> {
    match tx.shutdown().await {
        // The other side's close can be complete by now; there is nothing left to shut down.
        Err(e) if e.kind() != io::ErrorKind::NotConnected => Err(Wrong::Io("shutdown", e)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Reads to the end of the stream, or only until everything due has come.
async fn receive(rx: &mut OwnedReadHalf, checker: &mut Checker, until_complete: bool) -> Result<(), Wrong> {
    // On the heap: hundreds of these futures are alive at a time.
    let mut part = vec![0; PART];
    while !(until_complete && checker.complete()) {
        let n = rx.read(&mut part).await.map_err(|e| Wrong::Io("read", e))?;
        if n == 0 {
            return Ok(());
        }
        checker.feed(&part[..n]).map_err(|f| Wrong::Bytes(f.to_string()))?;
    }
    Ok(())
}
