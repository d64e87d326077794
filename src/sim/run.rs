//! One run: the world of a [`Scenario`], the connections begun one after the other, the agenda carried out, everything
//! looked at on the way and at the end.

use super::books::Books;
use super::client::{Driver, Failure, Fault as Wrong, Order, Outcome, Plan};
use super::conduct::Conductor;
use super::faults::Fault;
use super::fleet::{listeners_of, port_of};
use super::journal::{ENTRIES, Journal};
use super::oracle::{Oracle, Set, Shared, Witness, reversed};
use super::report::{Report, Rule, Violation};
use super::sabotage::{Sabotage, Sabotaged};
use super::scenario::{Act, Options, Scenario, part, stream};
use super::world::{START, World, WorldConfig, tuple};
use crate::port::mem::{Direction, Verdict, flow_of};
use crate::service::Service;
use crate::shard::mailbox::Command;
use crate::tcp::state::State;
use crate::time::Time;
use crate::wire::Tuple;
use rand::Rng;
use rand::rngs::SmallRng;
use std::cell::RefCell;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Share of connections that transfer much.
const BULK: f64 = 0.04;
/// Most bytes of such a transfer.
const BULK_BYTES: u32 = 120_000;
/// After all connections have ended, the longest that a record may be left, beyond `TIME_WAIT`: a server's guard against
/// peers that are gone (200 s), giving up (100 s), and a half-open record whose peer never answers (127 s).
const LEFTOVERS: Duration = Duration::from_secs(450);

/// Pairs whose frames are no longer carried.
type Vanished = Rc<RefCell<Set<Tuple>>>;

/// Runs what is asked for; the packet log goes to `log`. A panic is a violation like any other.
pub fn run(options: &Options, log: Option<&mut dyn Write>) -> Report {
    let scenario = Scenario::draw(options);
    let mut report = Report::new(&scenario);
    let caught = catch_unwind(AssertUnwindSafe(|| {
        let mut run = Run::new(scenario, log);
        run.go();
        run.close_books(&mut report);
    }));
    if let Err(payload) = caught {
        let text = payload
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| payload.downcast_ref::<&str>().copied())
            .unwrap_or("without a message");
        report.violations.push(Violation { rule: Rule::Panic, at: Time::ZERO, what: text.to_owned() });
    }
    report
}

struct Run<'a> {
    s: Scenario,
    world: World,
    driver: Rc<RefCell<Driver>>,
    oracle: Shared,
    conductor: Conductor<'a>,
    vanished: Vanished,
    /// Pairs that vanish later.
    vanishing: Vec<(Time, Tuple)>,
    agenda: std::vec::IntoIter<(Time, Act)>,
    next_act: Option<(Time, Act)>,
    begun: u64,
    last_begun: Time,
    plans: SmallRng,
    pairs: SmallRng,
}

impl<'a> Run<'a> {
    fn new(mut s: Scenario, log: Option<&'a mut dyn Write>) -> Self {
        let journal = Journal::new(log);
        s.link.log = if journal.kept() { ENTRIES } else { 0 };
        let sabotage = s.options.sabotage;
        let oracle = Oracle::new(s.tcp.syn_cookies.is_some(), sabotage == Some(Sabotage::OffByOne));
        let mut driver = Driver::new(s.concurrency, Arc::from(s.body.as_slice()));
        driver.keep_failures(usize::try_from(s.options.connections).unwrap_or(usize::MAX));
        let driver = Rc::new(RefCell::new(driver));
        let cfg = WorldConfig {
            link: s.link.clone(),
            workers: s.workers,
            server: s.tcp.clone(),
            client: s.tcp.clone(),
            capacity: s.capacity.clone(),
            key: s.options.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        };
        let mut shard = 0;
        let listeners = || {
            let worker = shard;
            shard += 1;
            listeners_of(s.capacity.connections, &s.body, |service| {
                let service: Box<dyn Service> = match sabotage {
                    Some(how) => Box::new(Sabotaged { inner: service, how, deliveries: 0 }),
                    None => service,
                };
                Box::new(Witness::new(service, Rc::clone(&oracle), worker, true))
            })
        };
        let client = Witness::new(Box::new(Rc::clone(&driver)), Rc::clone(&oracle), s.workers, false);
        let world = World::with_client(cfg, listeners, Box::new(client), &s.client_capacity);
        let vanished = Vanished::default();
        if s.vanish > 0.0 {
            for direction in [Direction::AToB, Direction::BToA] {
                let vanished = Rc::clone(&vanished);
                let gone = move |_, frame: &[u8]| match flow_of(frame) {
                    Some(t) if vanished.borrow().contains(&t) => Verdict::Drop,
                    Some(_) | None => Verdict::Pass,
                };
                world.link.set_filter(direction, Some(Box::new(gone)));
            }
        }
        let mut agenda = std::mem::take(&mut s.agenda).into_iter();
        let seed = s.options.seed;
        Self {
            conductor: Conductor::new(&s, Rc::clone(&oracle), journal),
            world,
            driver,
            oracle,
            vanished,
            vanishing: Vec::new(),
            next_act: agenda.next(),
            agenda,
            begun: 0,
            last_begun: START,
            plans: stream(seed, part::PLANS),
            pairs: stream(seed, part::PAIRS),
            s,
        }
    }

    fn violated(&self, rule: Rule, what: String) {
        self.oracle.borrow_mut().violated(rule, what);
    }

    fn is_good(&self) -> bool {
        self.oracle.borrow().violations.is_empty()
    }

    /// From the first connection to the last record.
    fn go(&mut self) {
        let total = self.s.options.connections;
        let mut left_since = None;
        let mut audits = 0;
        while self.is_good() {
            let now = self.world.now();
            self.oracle.borrow_mut().now = now;
            self.act();
            self.begin_due();
            // When a quarter of the connections was begun, and the next.
            if self.begun * 4 > audits * total {
                audits += 1;
                self.audit();
            }
            let all_ended = self.begun == total && self.driver.borrow().outstanding() == 0;
            if all_ended && self.next_act.is_none() {
                let since = *left_since.get_or_insert(now);
                if self.world.leftovers() == (0, 0, 0) && self.world.link_idle() {
                    self.flush();
                    return;
                }
                if now > since + LEFTOVERS + self.s.tcp.time_wait {
                    self.stuck("records, timers, chunks or flights");
                    return;
                }
            }
            let deadline = self.s.heal.max(self.last_begun) + self.s.patience();
            if !all_ended && self.begun == total && now > deadline {
                self.stuck("connections of the client");
                return;
            }
            let until = self.next_event(now);
            if let Err(e) = self.world.step_by(until, &mut self.conductor) {
                self.violated(Rule::Rest, e.to_string());
            }
        }
    }

    /// What every shard keeps in two places agrees, also in the midst of things.
    fn audit(&mut self) {
        let faults: Vec<String> = self
            .world
            .shards_mut()
            .enumerate()
            .flat_map(|(number, s)| s.audit().into_iter().map(move |what| format!("shard {number}: {what}")))
            .collect();
        for what in faults {
            self.violated(Rule::Books, what);
        }
    }

    /// The next thing that is due from outside the world.
    fn next_event(&self, now: Time) -> Time {
        let room = self.driver.borrow().outstanding() < self.s.concurrency;
        let begin = if self.begun < self.s.options.connections && room {
            self.begin_at()
        } else {
            now + Duration::from_secs(60)
        };
        let act = self.next_act.as_ref().map_or(Time::NEVER, |(at, _)| *at);
        let vanish = self.vanishing.iter().map(|(at, _)| *at).min().unwrap_or(Time::NEVER);
        begin.min(act).min(vanish)
    }

    fn begin_at(&self) -> Time {
        START + self.s.pace * u32::try_from(self.begun).unwrap_or(u32::MAX)
    }

    /// Begins the connections whose time has come, as far as there is room.
    fn begin_due(&mut self) {
        let now = self.world.now();
        while self.begun < self.s.options.connections
            && self.begin_at().due(now)
            && self.driver.borrow().outstanding() < self.s.concurrency
        {
            let mut plan = Plan::numbered(self.s.options.seed, self.begun);
            if self.plans.random_bool(BULK) && !matches!(plan.order, Order::Both) && plan.requests > 0 {
                plan.payload = self.plans.random_range(0..BULK_BYTES);
            }
            if self.plans.random::<f64>() < self.s.abort {
                plan.order = Order::Abort;
            }
            let vanishes = self.plans.random::<f64>() < self.s.vanish;
            let after = Duration::from_micros(self.plans.random_range(0..2_000_000));
            let pair = self.choose_pair(&plan);
            if vanishes {
                self.vanishing.push((now + after, pair));
            }
            self.begin(pair, plan);
            self.begun += 1;
            self.last_begun = now;
            if self.s.options.sabotage == Some(Sabotage::LostBuffer) && self.begun == 10 {
                self.world.link.lose_buffer();
            }
        }
    }

    /// The pair of endpoints for the next connection.
    fn choose_pair(&mut self, plan: &Plan) -> Tuple {
        let n = self.begun as u32;
        let port = port_of(plan.target);
        if let Some(pairs) = self.s.pairs {
            for _ in 0..4 {
                let n = self.pairs.random_range(0..pairs);
                let t = tuple(n, port, n % 2 == 1);
                let free = self.world.client.state_of(&t) == State::Closed;
                if free && !self.vanished.borrow().contains(&t) {
                    return t;
                }
            }
            return tuple(n + pairs, port, n / 12 % 2 == 1);
        }
        tuple(n, port, n / 12 % 2 == 1)
    }

    fn begin(&mut self, pair: Tuple, plan: Plan) {
        self.oracle.borrow_mut().plan(&pair, plan);
        let word = self.driver.borrow_mut().plan(plan);
        match word {
            Ok(word) if self.world.connect(pair, word) => {
                if self.conductor.journal.kept() {
                    let what = format!("begins {} > {}: {plan:?}", pair.local, pair.remote);
                    self.conductor.journal.note(self.world.now(), &what);
                }
            }
            Ok(word) => {
                self.driver.borrow_mut().refused(&pair, word);
                self.violated(Rule::Outcome, format!("{}: the client's tables have no room", pair.local));
            }
            Err(e) => self.violated(Rule::Outcome, format!("{}: {e}", pair.local)),
        }
    }

    /// Carries out what is due on the agenda.
    fn act(&mut self) {
        let now = self.world.now();
        let gone = self.vanishing.extract_if(.., |(at, _)| at.due(now));
        for (_, pair) in gone {
            self.conductor.journal.note(now, &format!("{} vanishes", pair.local));
            let mut vanished = self.vanished.borrow_mut();
            vanished.insert(pair);
            vanished.insert(reversed(&pair));
        }
        while let Some((_, act)) = self.next_act.take_if(|(at, _)| at.due(self.world.now())) {
            self.conductor.journal.note(self.world.now(), &format!("{act:?}"));
            self.carry_out(act);
            self.next_act = self.agenda.next();
        }
    }

    fn carry_out(&mut self, act: Act) {
        match act {
            Act::Impair(direction, line) => self.world.link.impair(direction, line),
            Act::Steer(table) => self.world.link.steer(Direction::AToB, table),
            Act::Stall(shard) => self.conductor.stalled[shard] = true,
            Act::Resume(shard) => self.conductor.stalled[shard] = false,
            Act::Hold(shard) => self.hold(shard, true),
            Act::Release(shard) => self.hold(shard, false),
            Act::Leap(by) => {
                self.world.leap(by);
                self.oracle.borrow_mut().now = self.world.now();
            }
            Act::Drain => self.command(|| Command::Drain),
            Act::CutOff => self.command(|| Command::CutOff),
            Act::Heal => {
                for direction in [Direction::AToB, Direction::BToA] {
                    self.world.link.impair(direction, self.s.healed.clone());
                }
                self.world.link.scatter(0.0);
                self.conductor.stalled.fill(false);
                (0..=self.s.workers).for_each(|shard| self.hold(shard, false));
            }
        }
    }

    fn hold(&self, shard: usize, held: bool) {
        if shard < self.s.workers {
            self.world.link.hold(Direction::BToA, shard, held);
        } else {
            self.world.link.hold(Direction::AToB, 0, held);
        }
    }

    fn command(&self, command: impl Fn() -> Command) {
        for handle in &self.world.handles {
            if handle.send(command()).is_err() {
                self.violated(Rule::Rest, "a mailbox is full of commands".to_owned());
            }
        }
    }

    /// What was sent last is taken back from the rings.
    fn flush(&mut self) {
        for shard in self.world.shards_mut() {
            if let Err(e) = shard.flush() {
                self.oracle.borrow_mut().violated(Rule::Rest, e.to_string());
            }
        }
        for (number, a) in self.world.accounting().into_iter().enumerate() {
            if !a.balanced() || a.lent != 0 || a.in_tx != 0 {
                self.violated(Rule::Leak, format!("buffers of shard {number} at the end: {a:?}"));
            }
        }
    }

    fn stuck(&self, what: &str) {
        let population: Vec<String> = self
            .world
            .shards()
            .enumerate()
            .map(|(number, shard)| {
                let states: Vec<_> = State::ALL
                    .into_iter()
                    .filter(|&s| s != State::Listen && shard.population()[s as usize] > 0)
                    .map(|s| format!("{} {}", shard.population()[s as usize], s.as_str()))
                    .collect();
                format!("shard {number} [{}]", states.join(", "))
            })
            .collect();
        let text = format!(
            "{what} are left: {:?}, {} on the way; {}",
            self.world.leftovers(),
            if self.world.link_idle() { "nothing" } else { "frames" },
            population.join(", ")
        );
        self.violated(Rule::Stuck, text);
    }

    /// Whether a fault of this run can be the cause of such an end.
    fn excused(&self, f: &Failure) -> bool {
        let has = |faults: &[Fault]| self.s.faults.any(faults);
        let vanished = self.vanished.borrow().contains(&f.tuple);
        match f.outcome {
            Outcome::Good => true,
            Outcome::Fault(Wrong::EarlyEnd(_)) | Outcome::Short(_) => has(&[Fault::Drain]),
            Outcome::Reset(_) => {
                vanished || has(&[Fault::Drain, Fault::Tables, Fault::ShortWait, Fault::Chunks])
            }
            Outcome::Timeout(_) => vanished || has(&[Fault::Drain, Fault::Tables, Fault::Chunks]),
            Outcome::Fault(_) | Outcome::Refused => false,
        }
    }

    /// The last look at everything.
    fn close_books(&mut self, report: &mut Report) {
        let tally = self.driver.borrow().tally().clone();
        for f in tally.failures() {
            if self.excused(f) {
                report.deeds.count("given_up", 1);
            } else {
                let what = format!("{} > {} {:?}: {:?}", f.tuple.local, f.tuple.remote, f.plan, f.outcome);
                let wrong_bytes = matches!(f.outcome, Outcome::Fault(w) if !matches!(w, Wrong::EarlyEnd(_)));
                self.violated(if wrong_bytes { Rule::Stream } else { Rule::Outcome }, what);
            }
        }
        report.deeds.count("good", tally.good());
        report.deeds.count("ghosts", self.oracle.borrow().ghosts);
        let books = Books::of(&mut self.world);
        books.deeds(&self.world, &mut report.deeds);
        if self.is_good() {
            let oracle = &self.oracle;
            let ghosts = oracle.borrow().ghosts;
            books.check(&self.s, &self.world, self.begun, ghosts, |rule, what| {
                oracle.borrow_mut().violated(rule, what);
            });
        }
        report.digest = self.world.link.digest();
        report.took = self.world.now().since(START);
        report.violations.append(&mut self.oracle.borrow_mut().violations);
        for v in &report.violations {
            self.conductor.journal.note(v.at, &format!("VIOLATED {:?}: {}", v.rule, v.what));
        }
        if let Some(e) = self.conductor.journal.failed.take() {
            eprintln!("the packet log is incomplete: {e}");
        }
    }
}
