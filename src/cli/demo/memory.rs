//! The demo on the simulated link: same plans, same shard code, a clock that jumps.

use super::live::Live;
use super::summary::{ClientTally, Summary};
use super::{DemoArgs, Out, Outcome, SAMPLES, TIME_WAIT, entries_of, sample_plan};
use crate::metrics::block::{Block, Counters};
use crate::port::mem::{Impairment, LinkConfig};
use crate::shard::Capacity;
use crate::shard::trace::Trace;
use crate::sim::client::Outcome as ClientOutcome;
use crate::sim::fleet::{Fleet, port_of};
use crate::sim::world::{START, WorldConfig, tuple};
use crate::tcp::TcpConfig;
use anyhow::{Context, bail};
use std::time::Duration;

/// Delay of the simulated link each way: about what a veth pair takes.
const DELAY: Duration = Duration::from_micros(20);
/// Longest simulated run.
const LIMIT: Duration = Duration::from_secs(3600);
/// The plans' seed: the demo is the same each time.
const SEED: u64 = 0xf1;

/// Runs the demo.
///
/// # Errors
/// When connections never end: a fault of the engine.
pub fn run(args: &DemoArgs, out: &Out) -> anyhow::Result<Outcome> {
    let tcp = TcpConfig { time_wait: TIME_WAIT, ..TcpConfig::default() };
    let open = args.concurrency as usize;
    let workers = args.workers as usize;
    let cfg = WorldConfig {
        link: LinkConfig { seed: SEED, ..LinkConfig::default() }.both(Impairment::delayed(DELAY)),
        workers,
        server: tcp.clone(),
        client: tcp,
        capacity: Capacity {
            connections: (4 * open).max(1024),
            half_open: (4 * open).max(1024),
            time_wait: args.connections as usize + 1024,
            chunks: (64 * open).max(4096),
        },
        key: SEED,
    };
    let samples = SAMPLES.len() as u64;
    let mut fleet = Fleet::new(cfg, SEED, args.connections - samples, open);
    let traced: Vec<_> = SAMPLES
        .iter()
        .enumerate()
        .map(|(i, (order, title))| {
            let plan = sample_plan(*order);
            // Ports below those of the fleet's own connections.
            let mut t = tuple(0, port_of(plan.target), false);
            t.local.port = 1001 + i as u16;
            (*title, t, plan)
        })
        .collect();
    for server in &mut fleet.world.servers {
        server.set_trace(Trace::of(traced.iter().map(|(_, t, _)| t.local).collect()));
    }
    for (_, t, plan) in &traced {
        if !fleet.begin(*t, *plan) {
            bail!("the client's tables have no room for a sample");
        }
    }
    let mut live = Live::new(args.connections, out);
    let mut shown = START;
    let mut totals = Block::default();
    let done = fleet
        .run(LIMIT, |f| {
            if f.world.now().since(shown) >= Duration::from_millis(100) {
                shown = f.world.now();
                report(f, &mut totals);
                live.show(out, shown.since(START), &totals.counters);
            }
        })
        .context("simulated link")?;
    let settled = fleet.settle(LIMIT).context("simulated link")?;
    report(&mut fleet, &mut totals);
    live.show(out, fleet.world.now().since(START), &totals.counters);
    live.end(out);
    if !done || !settled {
        bail!("connections were left after {LIMIT:?} of simulated time: {:?}", fleet.world.leftovers());
    }
    let trace: Vec<_> = fleet.world.servers.iter_mut().flat_map(|s| s.take_trace().into_entries()).collect();
    let samples = traced.iter().map(|(title, t, _)| (*title, entries_of(&trace, t.local))).collect();
    let clients = tally(&fleet);
    let mode = format!("simulated link, {workers} worker{}", if workers == 1 { "" } else { "s" });
    let summary =
        Summary::new("memory", mode, args.connections, &totals.counters, &totals.histograms, &clients);
    Ok(Outcome { summary, clients, samples })
}

/// Brings the totals up to date: counters are since the start, histograms since the last report.
fn report(fleet: &mut Fleet, totals: &mut Block) {
    totals.counters = Counters::default();
    for server in &mut fleet.world.servers {
        let b = server.snapshot();
        totals.counters.merge(&b.counters);
        totals.histograms.merge(&b.histograms);
    }
}

fn tally(fleet: &Fleet) -> ClientTally {
    let t = fleet.tally();
    let mut c = ClientTally { ok: t.good(), failed: t.planned() - t.good(), ..ClientTally::default() };
    for f in t.failures() {
        if matches!(f.outcome, ClientOutcome::Reset(_)) {
            c.reset += 1;
        }
        c.complain(format!("{} {:?} {:?}: {:?}", f.tuple.local, f.plan.target, f.plan.order, f.outcome));
    }
    c
}
