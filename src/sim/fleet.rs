//! A fleet of simulated clients against echo, discard and http, in all closing orders.
//!
//! The scenario of `finwheel demo --in-memory` and of the simulation tests: the same plans that the demo plays with
//! kernel clients over `AF_XDP`.

use super::client::{Driver, Plan, Tally, Target};
use super::world::{World, WorldConfig, tuple};
use crate::service::Service;
use crate::service::discard::Discard;
use crate::service::echo::Echo;
use crate::service::http::{Http, HttpConfig};
use crate::service::scripted::Scripted;
use crate::shard::Listener;
use crate::wire::Tuple;
use std::cell::RefCell;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// The services' ports.
pub const ECHO_PORT: u16 = 7;
/// Port of discard.
pub const DISCARD_PORT: u16 = 9;
/// Port of http.
pub const HTTP_PORT: u16 = 80;
/// What the HTTP server answers with.
pub const BODY: &[u8] = b"closed right\n";

/// Requests of which only a part may have come at a time, at one worker: the fleet's fit one segment.
const PARTIAL_HEADS: usize = 256;

/// The port of a target.
#[must_use]
pub const fn port_of(target: Target) -> u16 {
    match target {
        Target::Echo => ECHO_PORT,
        Target::Discard => DISCARD_PORT,
        Target::Http => HTTP_PORT,
    }
}

/// The three services on all addresses of both families; echo and discard scripted, for every closing order.
#[must_use]
pub fn listeners(connections: usize) -> Vec<Listener> {
    listeners_of(connections, BODY, |service| service)
}

/// The same with an HTTP body of one's own, and with something between each service and its shard.
#[must_use]
pub fn listeners_of(
    connections: usize,
    body: &[u8],
    mut wrap: impl FnMut(Box<dyn Service>) -> Box<dyn Service>,
) -> Vec<Listener> {
    let http = HttpConfig {
        body: body.to_vec(),
        connections,
        partial_heads: PARTIAL_HEADS,
        ..HttpConfig::default()
    };
    let services: [(u16, Box<dyn Service>); 3] = [
        (ECHO_PORT, Box::new(Scripted::new(Echo, connections))),
        (DISCARD_PORT, Box::new(Scripted::new(Discard, connections))),
        (HTTP_PORT, Box::new(Http::new(http))),
    ];
    services
        .into_iter()
        .map(|(port, service)| Listener {
            endpoints: vec![
                SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into(),
                SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into(),
            ],
            service: wrap(service),
        })
        .collect()
}

/// Clients at work.
pub struct Fleet {
    /// The world they are in.
    pub world: World,
    driver: Rc<RefCell<Driver>>,
    seed: u64,
    total: u64,
    begun: u64,
    concurrency: usize,
}

impl Fleet {
    /// `total` connections, at most `concurrency` at a time, with plans from `seed`.
    #[must_use]
    pub fn new(cfg: WorldConfig, seed: u64, total: u64, concurrency: usize) -> Self {
        let connections = cfg.capacity.connections;
        let driver = Driver::new(concurrency, Arc::from(BODY));
        let driver = Rc::new(RefCell::new(driver));
        let world = World::new(cfg, || listeners(connections), Box::new(Rc::clone(&driver)));
        Self { world, driver, seed, total, begun: 0, concurrency }
    }

    /// The tuple and plan of the `n`th connection; odd rounds run over IPv6.
    #[must_use]
    pub fn connection(&self, n: u64) -> (Tuple, Plan) {
        let plan = Plan::numbered(self.seed, n);
        let v6 = n / 12 % 2 == 1;
        (tuple(n as u32, port_of(plan.target), v6), plan)
    }

    /// Opens connections while there is room for more.
    fn open_more(&mut self) {
        while self.begun < self.total && self.driver.borrow().outstanding() < self.concurrency {
            let (tuple, plan) = self.connection(self.begun);
            let _ = self.begin(tuple, plan);
            self.begun += 1;
        }
    }

    /// Opens one connection beside the fleet's own. Returns whether it could be begun; if not, the tally says so.
    pub fn begin(&mut self, tuple: Tuple, plan: Plan) -> bool {
        let Ok(word) = self.driver.borrow_mut().plan(plan) else { return false };
        let begun = self.world.connect(tuple, word);
        if !begun {
            self.driver.borrow_mut().refused(&tuple, word);
        }
        begun
    }

    /// Runs until all connections ended, or `limit` of simulated time has passed; `watch` is called now and then.
    /// Returns whether all ended.
    ///
    /// # Errors
    /// As [`World::step`].
    pub fn run(&mut self, limit: Duration, mut watch: impl FnMut(&mut Self)) -> io::Result<bool> {
        let until = self.world.now() + limit;
        while self.world.now() < until {
            self.open_more();
            if self.begun == self.total && self.driver.borrow().outstanding() == 0 {
                return Ok(true);
            }
            self.world.step(until)?;
            watch(self);
        }
        Ok(false)
    }

    /// Runs on until no record is left on either side, `TIME_WAIT` included. Returns whether that was reached.
    ///
    /// # Errors
    /// As [`World::step`].
    pub fn settle(&mut self, limit: Duration) -> io::Result<bool> {
        self.world.run(limit, |w| w.leftovers() == (0, 0, 0) && w.link_idle())
    }

    /// How the connections ended so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.driver.borrow().tally().clone()
    }

    /// Connections begun.
    #[must_use]
    pub const fn begun(&self) -> u64 {
        self.begun
    }
}
