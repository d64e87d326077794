//! The loop that both servers of the control plane accept their clients in: so many at a time, the others wait in the
//! kernel's queue; at the end answers that are under way may still go out, within a time.

use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

/// Pause after the kernel could not give a connection (file descriptors or memory used up): without it the loop
/// would spin, and longer would make probes fail after the shortage is over.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What there is to know of a server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// What logs call it.
    pub name: &'static str,
    /// Clients at a time.
    pub most: u32,
    /// How long answers may take once it is to end.
    pub shutdown: Duration,
}

/// Accepts and answers until `stopped`: a message and the dropped sender both mean the end.
pub async fn serve<S, F>(
    limits: Limits,
    accept: impl AsyncFn() -> io::Result<S>,
    answer: impl Fn(S) -> F,
    mut stopped: oneshot::Receiver<()>,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(limits.most as usize));
    loop {
        let accepted = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (slot, accept().await)
        };
        let (slot, accepted) = tokio::select! {
            _ = &mut stopped => break,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok(stream) => {
                let answered = answer(stream);
                tokio::spawn(async move {
                    answered.await;
                    drop(slot);
                });
            }
            Err(e) => {
                tracing::warn!(error = %e, "{} cannot accept a connection", limits.name);
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // The listener goes with what accepts from it.
    drop(accept);
    // Every slot is free again when every answer is out; who is slower than this loses it.
    if timeout(limits.shutdown, slots.acquire_many(limits.most)).await.is_err() {
        tracing::debug!("answers of {} were cut off at the end", limits.name);
    }
}
