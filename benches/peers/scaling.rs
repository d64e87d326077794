//! One core and two: a core that does everything (server, client, and the kernel's reception for both) against two of them
//! that each do the same for a queue of their own.
//!
//! On a machine with two cores the client is part of the load, so this is the fair question: does a second worker, which
//! shares nothing with the first, bring as much as the first did?

use crate::bed::{Bed, Cores};
use crate::client::{self, Load};
use crate::servers::{Kind, Server};
use crate::spread::Spread;
use anyhow::Result;
use serde_json::{Value, json};
use std::time::Duration;

/// Connections at a time, of each pair of workers.
const CONCURRENCY: usize = 128;

fn turn(bed: &Bed, cores: &[usize], takes: Duration) -> Result<f64> {
    let server = Server::start(bed, Kind::Finwheel, cores)?;
    let load = Load {
        cores: cores.to_vec(),
        options: format!(
            "--request http --close server --timeout 5s --concurrency {} --duration {}ms",
            CONCURRENCY * cores.len(),
            takes.as_millis()
        ),
        takes,
    };
    let rate = client::run(bed, &load)?.figure("/completed_per_s")?;
    server.stop()?;
    Ok(rate)
}

/// Runs it. Returns the part `scaling` of the summary.
pub fn run(cores: Cores, rounds: u32, takes: Duration, say: &mut dyn FnMut(&str)) -> Result<Value> {
    let both = [cores.client, cores.server];
    let one = Bed::new(1, &both[1..], &both[1..])?;
    let two = Bed::new(2, &both, &both)?;
    let (mut on_one, mut on_two) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        on_one.push(turn(&one, &both[1..], takes)?);
        on_two.push(turn(&two, &both, takes)?);
        say(&format!(
            "round {round}: {:.0} connections/s on one core, {:.0} on two",
            on_one[on_one.len() - 1],
            on_two[on_two.len() - 1]
        ));
    }
    let (one, two) = (Spread::of(on_one.into_iter()), Spread::of(on_two.into_iter()));
    Ok(json!({
        "one_core_conn_per_s": one.median,
        "one_core_conn_per_s_min": one.min,
        "one_core_conn_per_s_max": one.max,
        "two_cores_conn_per_s": two.median,
        "two_cores_conn_per_s_min": two.min,
        "two_cores_conn_per_s_max": two.max,
        "factor": two.median / one.median,
        "rounds": rounds,
    }))
}
