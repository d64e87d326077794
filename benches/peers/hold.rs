//! Holding: how long it takes until so many idle connections, or so many `TIME_WAIT` records, are there, and what memory
//! they take at either end.

use crate::bed::{Bed, Cores};
use crate::client::{self, Client, Load};
use crate::cores::{most_resident, resident};
use crate::servers::{Kind, METRICS, Server, Tables};
use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Between looks at the population. An answer copies the worker's counters, so it must not be had all the time.
const LOOK: Duration = Duration::from_millis(50);
/// How much older than now what the server's metrics say may be: workers report once a second.
const LAG: Duration = Duration::from_secs(3);
/// Longest wait for anything that the server's metrics are asked for.
const ANSWER: Duration = Duration::from_secs(10);
/// Share of the rate of whole lives at which connections that are to be kept are opened: they come by the clock, and a
/// moment's stall must not be made up for by a burst that the rings have no room for.
const OPENING: f64 = 0.5;
/// What must be there of what was asked for: errors of fewer than one in a thousand are let pass.
const ENOUGH: f64 = 0.999;

/// How fast connections come in.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Opened a second, when they are to be kept: what can be opened without a loss.
    pub opening: f64,
    /// Whole lives a second.
    pub lives: f64,
}

/// How many in a state there are, as the server says.
fn population(bed: &Bed, state: &str) -> Result<u64> {
    let at: SocketAddr = METRICS.parse()?;
    let ask = || -> std::io::Result<String> {
        let mut s = TcpStream::connect_timeout(&at, ANSWER)?;
        s.set_read_timeout(Some(ANSWER))?;
        write!(s, "GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        s.read_to_string(&mut text)?;
        Ok(text)
    };
    let text = bed.rig().server_ns().run_in(ask)?.context("asking for the server's metrics")?;
    let series = format!("finwheel_connections{{state=\"{state}\"}} ");
    let line = text.lines().find_map(|l| l.strip_prefix(&series));
    let value = line.and_then(|v| v.trim().parse::<f64>().ok());
    // Gauges are whole and not negative.
    #[allow(clippy::cast_sign_loss)]
    Ok(value.with_context(|| format!("no {series}in the server's metrics"))? as u64)
}

/// What a population came to.
struct Held {
    count: u64,
    seconds: f64,
    rss: u64,
    client_rss: u64,
}

/// Watches a population grow to `count`, from the first one on.
fn watch(
    bed: &Bed,
    server: &mut Server,
    client: &mut Client,
    state: &str,
    count: u64,
    limit: Duration,
) -> Result<Held> {
    let began = Instant::now();
    let (mut first, mut ended) = (None, None);
    let (mut most, mut client_rss) = (0, 0);
    loop {
        // Asked before the population: what it did last is then counted there.
        let running = client.process().ended()?.is_none();
        if running {
            client_rss = client_rss.max(most_resident(client.process().id()).unwrap_or(0));
        } else {
            ended.get_or_insert_with(Instant::now);
        }
        let told = ended.is_some_and(|e: Instant| e.elapsed() > LAG);
        let n = population(bed, state)?;
        if n > 0 {
            first.get_or_insert_with(Instant::now);
        }
        most = most.max(n);
        // A few may have failed: then it ends here, once the client has ended and the server has told of all.
        let all = n >= count || (told && n as f64 >= count as f64 * ENOUGH);
        if all {
            let seconds = first.map_or(0.0, |f| f.elapsed().as_secs_f64());
            return Ok(Held { count: n, seconds, rss: resident(server.process().id())?, client_rss });
        }
        if told || began.elapsed() > limit + LAG {
            bail!(
                "{most} of {count} were in {state} at a time: {} {}",
                client.process().out().trim(),
                client.process().log().trim()
            );
        }
        std::thread::sleep(LOOK);
    }
}

fn part(held: &Held, empty_rss: u64) -> Value {
    json!({
        "count": held.count,
        "seconds": held.seconds,
        "per_s": held.count as f64 / held.seconds,
        "rss_bytes": held.rss,
        "empty_rss_bytes": empty_rss,
        "bytes_each": held.rss.saturating_sub(empty_rss) as f64 / held.count as f64,
        "client_rss_bytes": held.client_rss,
    })
}

/// Tries how fast they can come in.
pub fn rate(bed: &Bed, cores: Cores) -> Result<Rate> {
    let server = Server::start(bed, Kind::Finwheel, &[cores.server])?;
    let takes = Duration::from_secs(1);
    let load = Load {
        cores: vec![cores.client],
        options: format!(
            "--request http --close server --concurrency 256 --duration {}ms",
            takes.as_millis()
        ),
        takes,
    };
    let lives = client::run(bed, &load)?.figure("/completed_per_s")?;
    server.stop()?;
    Ok(Rate { opening: lives * OPENING, lives })
}

/// Idle connections, opened at a rate and then kept.
pub fn idle(bed: &Bed, cores: Cores, count: u64, rate: Rate) -> Result<Value> {
    let rate = rate.opening;
    let tables = Tables { connections: count + (count >> 5), time_wait: 1 << 16, time_wait_s: 1 };
    let mut server = Server::finwheel(bed, &[cores.server], "echo", tables)?;
    let empty = resident(server.process().id())?;
    let opening = Duration::from_secs_f64(count as f64 / rate);
    // The first is held until well after the last is open.
    let hold = opening.mul_f64(1.5) + Duration::from_secs(4);
    let load = Load {
        cores: vec![cores.client],
        options: format!(
            "--request 16 --close client --rate {rate:.0} --connections {count} --concurrency {count} --hold {}ms \
             --timeout 30s",
            hold.as_millis()
        ),
        takes: opening + hold,
    };
    let mut client = Client::start(bed, &load)?;
    let held = watch(bed, &mut server, &mut client, "ESTABLISHED", count, load.takes)?;
    let report = client.report()?;
    server.stop()?;
    let mut value = part(&held, empty);
    value["peak_open"] = json!(report.figure("/peak_open")?);
    value["errors"] = json!(report.figure("/errors_total")?);
    Ok(value)
}

/// `TIME_WAIT` records, left behind by a server that closes first.
pub fn time_wait(bed: &Bed, cores: Cores, count: u64, rate: Rate) -> Result<Value> {
    let rate = rate.lives;
    let tables = Tables { connections: 1 << 14, time_wait: count + (count >> 5), time_wait_s: 240 };
    let mut server = Server::finwheel(bed, &[cores.server], "http", tables)?;
    let empty = resident(server.process().id())?;
    let load = Load {
        cores: vec![cores.client],
        options: format!(
            "--request http --close server --connections {count} --concurrency 256 --timeout 10s"
        ),
        takes: Duration::from_secs_f64(count as f64 / rate * 1.5) + Duration::from_secs(20),
    };
    if load.takes > Duration::from_secs(230) {
        bail!(
            "{count} records at {rate:.0} a second do not come together within the 240 s that the first lasts"
        );
    }
    let mut client = Client::start(bed, &load)?;
    let held = watch(bed, &mut server, &mut client, "TIME_WAIT", count, load.takes)?;
    let report = client.report()?;
    server.stop()?;
    // The client's own time, from the first connection to the last one's end: the server tells once a second only.
    let held = Held { seconds: report.figure("/elapsed_s")?, ..held };
    let mut value = part(&held, empty);
    value["errors"] = json!(report.figure("/errors_total")?);
    Ok(value)
}
