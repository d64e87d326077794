//! Errands: connections that a service opens by itself, and pairs that it gets back from `TIME_WAIT`.

use crate::port::mem::{Impairment, LinkConfig};
use crate::service::discard::Discard;
use crate::service::{Context, Errand, NotOpened, Opening, Service};
use crate::shard::{Capacity, Listener};
use crate::sim::world::{CLIENT_MAC, SERVER_MAC, World, WorldConfig, tuple};
use crate::tcp::TcpConfig;
use crate::tcp::record::CloseRecord;
use crate::tcp::state::State;
use crate::time::Time;
use crate::wire::{L2, Tuple};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

/// What the service was told, with the word it was told for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Opened(u32),
    NotOpened(u32, NotOpened),
    Called(u32),
    Closed(u32),
}

#[derive(Default)]
struct Shared {
    errands: VecDeque<Errand>,
    told: Vec<Told>,
    asked: Vec<Time>,
    /// Closes as soon as it is open.
    close: bool,
    /// When it has nothing to do until.
    wait: Option<Time>,
}

struct Asker(Rc<RefCell<Shared>>);

impl Service for Asker {
    fn errand(&mut self, now: Time) -> Errand {
        let mut s = self.0.borrow_mut();
        s.asked.push(now);
        let wait = s.wait.unwrap_or(Time::NEVER);
        s.errands.pop_front().unwrap_or(Errand::Wait(wait))
    }
    fn not_opened(&mut self, user: u32, why: NotOpened) {
        self.0.borrow_mut().told.push(Told::NotOpened(user, why));
    }
    fn called(&mut self, cx: &mut dyn Context) {
        self.0.borrow_mut().told.push(Told::Called(cx.user()));
        cx.close();
    }
    fn opened(&mut self, cx: &mut dyn Context) {
        let mut s = self.0.borrow_mut();
        s.told.push(Told::Opened(cx.user()));
        if s.close {
            cx.close();
        }
    }
    fn data(&mut self, _: &mut dyn Context, bytes: &[u8]) -> usize {
        bytes.len()
    }
    fn peer_closed(&mut self, cx: &mut dyn Context) {
        cx.close();
    }
    fn closed(&mut self, _: &Tuple, user: u32, _: &CloseRecord) {
        self.0.borrow_mut().told.push(Told::Closed(user));
    }
}

/// A world whose client has room for two connections.
fn world(close: bool) -> (World, Rc<RefCell<Shared>>) {
    let shared = Rc::new(RefCell::new(Shared { close, ..Shared::default() }));
    let cfg = WorldConfig {
        link: LinkConfig::default().both(Impairment::delayed(MS)),
        workers: 1,
        server: TcpConfig::default(),
        client: TcpConfig::default(),
        capacity: Capacity { connections: 2, half_open: 8, time_wait: 8, chunks: 64 },
        key: 1,
    };
    let server = tuple(0, 9, false).remote;
    let listeners = || vec![Listener { endpoints: vec![server], service: Box::new(Discard) }];
    let world = World::new(cfg, listeners, Box::new(Asker(Rc::clone(&shared))));
    (world, shared)
}

fn open(n: u32, user: u32) -> Errand {
    Errand::Open(Opening {
        tuple: tuple(n, 9, false),
        l2: L2 { src: CLIENT_MAC, dst: SERVER_MAC, vlan: None },
        user,
    })
}

#[test]
fn a_service_opens_and_is_called_about_what_it_opened() {
    let (mut w, s) = world(false);
    s.borrow_mut().errands.extend([open(0, 7)]);
    assert!(w.run(Duration::from_secs(1), |_| s.borrow().told == [Told::Opened(7)]).unwrap());
    // About a connection that there is, and one that there is not.
    s.borrow_mut().errands.extend([Errand::Call(tuple(1, 9, false)), Errand::Call(tuple(0, 9, false))]);
    let all = [Told::Opened(7), Told::Called(7), Told::Closed(7)];
    assert!(w.run(Duration::from_secs(1), |_| s.borrow().told == all).unwrap(), "{:?}", s.borrow().told);
    assert_eq!(w.client.state_of(&tuple(0, 9, false)), State::TimeWait);
}

#[test]
fn it_is_told_what_cannot_be_opened_and_why() {
    let (mut w, s) = world(false);
    s.borrow_mut().errands.extend([open(0, 1), open(0, 2), open(1, 3), open(2, 4)]);
    let all = [
        Told::NotOpened(2, NotOpened::PairInUse),
        Told::NotOpened(4, NotOpened::TableFull),
        Told::Opened(1),
        Told::Opened(3),
    ];
    assert!(w.run(Duration::from_secs(1), |_| s.borrow().told == all).unwrap(), "{:?}", s.borrow().told);
}

#[test]
fn it_is_asked_again_no_later_than_it_wished() {
    let (mut w, s) = world(false);
    let at = w.now() + 250 * MS;
    s.borrow_mut().wait = Some(at);
    assert!(!w.run(251 * MS, |_| false).unwrap());
    assert!(s.borrow().asked.contains(&at), "{:?}", s.borrow().asked);
}

#[test]
fn t04_a_pair_in_time_wait_is_opened_again_once_its_timestamp_clock_has_moved_on() {
    let (mut w, s) = world(true);
    let pair = tuple(0, 9, false);
    s.borrow_mut().errands.push_back(open(0, 1));
    let held = |w: &mut World| w.client.state_of(&pair) == State::TimeWait;
    assert!(w.run(Duration::from_secs(1), held).unwrap());
    // Within the tick it cannot be told whether a timestamp is newer.
    s.borrow_mut().errands.push_back(open(0, 2));
    let refused = Told::NotOpened(2, NotOpened::PairNotYet);
    assert!(w.run(MS, |_| s.borrow().told.contains(&refused)).unwrap(), "{:?}", s.borrow().told);
    assert_eq!(w.client.state_of(&pair), State::TimeWait);
    assert!(!w.run(40 * MS, |_| false).unwrap());
    s.borrow_mut().errands.push_back(open(0, 3));
    assert!(w.run(Duration::from_secs(1), |_| s.borrow().told.contains(&Told::Closed(3))).unwrap());
    assert!(s.borrow().told.contains(&Told::Opened(3)));
    let n = w.client.snapshot().counters;
    assert_eq!((n.time_wait_reopened, n.states[State::TimeWait as usize]), (1, 1));
    assert_eq!(n.resets_sent.iter().chain(&n.resets_received).sum::<u64>(), 0);
}
