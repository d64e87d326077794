use super::*;
use crate::service::discard::Discard;
use crate::service::echo::Echo;
use crate::service::http::{Http, HttpConfig};
use crate::service::pattern;
use crate::service::scripted::Scripted;
use crate::service::testing::{Ended, FakeConn, tuple};
use proptest::prelude::*;

const BODY: usize = 5000;

fn body() -> Arc<[u8]> {
    let mut body = vec![0; BODY];
    pattern::fill(99, 0, &mut body);
    body.into()
}

fn server(target: Target) -> Box<dyn Service> {
    match target {
        Target::Echo => Box::new(Scripted::new(Echo, 1)),
        Target::Discard => Box::new(Scripted::new(Discard, 1)),
        Target::Http => Box::new(Http::new(HttpConfig { body: body().to_vec(), ..HttpConfig::default() })),
    }
}

/// How a conversation went.
#[derive(Debug)]
struct Talk {
    outcome: Cell,
    driver: Driver,
    /// Which side's FIN was the first on the wire; `None` when it was aborted.
    client_first: Option<bool>,
    /// The client's FIN was on its way before any of the server's had arrived, and the other way round.
    crossed: bool,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.tally)
    }
}

/// Plays a plan against its server over pieces of `piece` bytes and send buffers of `space`; `spoil` may change what
/// comes back.
fn talk(plan: Plan, space: usize, piece: usize, mut spoil: impl FnMut(&mut Vec<u8>)) -> Talk {
    let mut driver = Driver::new(1, body());
    let word = driver.plan(plan).unwrap();
    let mut service = server(plan.target);
    let service = service.as_mut();
    let mut there = FakeConn::open(service, space);
    let mut here = FakeConn::open_with(&mut driver, space, word);
    let (mut fin_here, mut fin_there) = (false, false);
    let mut client_first = None;
    let mut crossed = false;
    for _ in 0..1_000_000 {
        // Both sides' pieces are on their way before either arrives.
        let out = here.take(&mut driver, piece);
        let mut back = there.take(service, piece);
        spoil(&mut back);
        let (send_fin_here, send_fin_there) = (here.sent_fin() && !fin_here, there.sent_fin() && !fin_there);
        fin_here |= send_fin_here;
        fin_there |= send_fin_there;
        crossed |= send_fin_here && send_fin_there;
        if client_first.is_none() && (fin_here || fin_there) {
            client_first = Some(fin_here);
        }
        there.deliver(service, &out);
        if send_fin_here {
            there.deliver_fin(service);
        }
        if !back.is_empty() {
            here.deliver(&mut driver, &back);
        }
        if send_fin_there {
            here.deliver_fin(&mut driver);
        }
        if here.cx.ended == Ended::Abort || (fin_here && fin_there) {
            break;
        }
    }
    let aborted = here.cx.ended == Ended::Abort;
    if aborted {
        client_first = None;
        here.over(&mut driver, ClosePath::Reset, Cause::Abort);
        there.over(service, ClosePath::Reset, Cause::PeerReset);
    } else {
        assert!(fin_here && fin_there, "it hangs: {plan:?}");
        let resets = [here.unread_at_close, here.after_close, there.unread_at_close, there.after_close];
        assert_eq!(resets, [0; 4], "a close would have reset the connection: {plan:?}");
        here.over(&mut driver, ClosePath::Active, Cause::Service);
        there.over(service, ClosePath::Passive, Cause::Peer);
    }
    let outcome = *driver.tally().cell(plan.target, plan.order);
    Talk { outcome, driver, client_first, crossed }
}

fn plan(target: Target, order: Order) -> Plan {
    Plan { target, order, scripted: true, payload: 3000, tail: 2000, requests: 3, seed: 5 }
}

#[test]
fn every_target_ends_in_every_order() {
    for target in Target::ALL {
        for order in Order::ALL {
            let t = talk(plan(target, order), 4096, 700, |_| {});
            assert_eq!(
                (t.outcome.good, t.outcome.ended()),
                (1, 1),
                "{target:?} {order:?}\n{}",
                t.driver.tally()
            );
            assert_eq!(t.driver.outstanding(), 0);
            let want = match order {
                Order::ClientFirst | Order::HalfClose => Some(true),
                Order::ServerFirst => Some(false),
                Order::Abort => None,
                // Which of the two crossing ones is first depends on sizes.
                Order::Both => t.client_first,
            };
            assert_eq!(t.client_first, want, "{target:?} {order:?}");
        }
    }
}

#[test]
fn both_crosses_when_the_payload_is_on_the_wire_at_once() {
    // Two pieces: the server's FIN answers the first while the second and the client's FIN are on their way.
    for target in [Target::Echo, Target::Discard] {
        let p = Plan { payload: 1000, ..plan(target, Order::Both) };
        let t = talk(p, 4096, 600, |_| {});
        assert!(t.crossed && t.outcome.good == 1, "{t:?}");
    }
}

#[test]
fn a_changed_added_or_missing_byte_is_found() {
    for target in [Target::Echo, Target::Http] {
        let mut at = 0;
        let t = talk(plan(target, Order::HalfClose), 4096, 700, |back| {
            if (at..at + back.len()).contains(&2500) {
                back[2500 - at] ^= 4;
            }
            at += back.len();
        });
        assert_eq!(t.outcome.fault, 1, "{target:?}");
        let Outcome::Fault(fault) = t.driver.tally().failures()[0].outcome else { panic!("{:?}", t.driver) };
        assert_eq!(fault, Fault::Mismatch(2500));
        let t = talk(plan(target, Order::ServerFirst), 4096, 700, |back| {
            if back.len() > 10 {
                back.pop();
            }
        });
        assert_eq!(t.outcome.fault, 1, "{target:?}");
    }
    let mut once = true;
    let t = talk(plan(Target::Discard, Order::ServerFirst), 4096, 700, |back| {
        if std::mem::take(&mut once) {
            back.push(1);
        }
    });
    assert_eq!(t.driver.tally().failures()[0].outcome, Outcome::Fault(Fault::Unexpected(0)));
}

#[test]
fn a_wrong_response_is_found() {
    for (response, fault) in [
        (&b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n"[..], Fault::Response(45)),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", Fault::Response(38)),
        (b"garbage\r\n\r\n", Fault::Response(11)),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi+", Fault::Unexpected(40)),
    ] {
        let p = Plan { requests: 1, ..plan(Target::Http, Order::ServerFirst) };
        let mut c = Checker::new(&p, Arc::from(&b"hi"[..]));
        assert_eq!(c.feed(response), Err(fault));
    }
}

/// Opens a connection of `plan`, lets `end` decide on its record.
fn ended_by(order: Order, path: ClosePath, cause: Cause) -> Tally {
    let mut driver = Driver::new(1, body());
    let word = driver.plan(plan(Target::Echo, order)).unwrap();
    let conn = FakeConn::open_with(&mut driver, 100, word);
    conn.over(&mut driver, path, cause);
    assert_eq!(driver.outstanding(), 0);
    driver.tally().clone()
}

#[test]
fn resets_timeouts_and_ends_before_the_plan_is_done_are_told_apart() {
    let o = Order::ServerFirst;
    assert_eq!(ended_by(o, ClosePath::Reset, Cause::PeerReset).cell(Target::Echo, o).reset, 1);
    assert_eq!(ended_by(o, ClosePath::Reset, Cause::Refused).cell(Target::Echo, o).refused, 1);
    assert_eq!(ended_by(o, ClosePath::Timeout, Cause::GiveUp).cell(Target::Echo, o).timeout, 1);
    assert_eq!(ended_by(o, ClosePath::Passive, Cause::Peer).cell(Target::Echo, o).short, 1);
    let a = Order::Abort;
    assert_eq!(ended_by(a, ClosePath::Reset, Cause::PeerReset).cell(Target::Echo, a).reset, 1);
    assert_eq!(ended_by(a, ClosePath::Active, Cause::Service).cell(Target::Echo, a).short, 1);
}

#[test]
fn plans_are_bounded_and_refusals_counted() {
    let mut driver = Driver::new(1, body());
    let unscripted = Plan { scripted: false, ..plan(Target::Echo, Order::ServerFirst) };
    assert_eq!(driver.plan(unscripted), Err(PlanError::NeedsScript));
    let word = driver.plan(plan(Target::Echo, Order::Both)).unwrap();
    assert_eq!(driver.plan(plan(Target::Echo, Order::Both)), Err(PlanError::Full));
    driver.refused(&tuple(), word);
    driver.refused(&tuple(), word);
    assert_eq!((driver.tally().planned(), driver.tally().ended(), driver.tally().good()), (1, 1, 0));
    let stranger = FakeConn::open_with(&mut driver, 100, 0);
    assert_eq!(stranger.cx.ended, Ended::Abort);
}

#[test]
fn the_servers_fin_out_of_turn_is_a_fault() {
    let mut driver = Driver::new(1, body());
    let word = driver.plan(plan(Target::Echo, Order::ClientFirst)).unwrap();
    let mut conn = FakeConn::open_with(&mut driver, 100, word);
    conn.deliver_fin(&mut driver);
    assert_eq!(conn.cx.ended, Ended::Abort);
    conn.over(&mut driver, ClosePath::Reset, Cause::Abort);
    assert_eq!(driver.tally().failures()[0].outcome, Outcome::Fault(Fault::EarlyEnd(0)));
}

#[test]
fn numbered_plans_cover_every_target_and_graceful_order_evenly() {
    let mut tally = Tally::default();
    for n in 0..1200 {
        let p = Plan::numbered(3, n);
        assert!(p.possible() && p.requests >= 1);
        assert!(p.order != Order::Both || (4000..8000).contains(&p.payload));
        tally.plan(&p);
    }
    for target in Target::ALL {
        for order in &Order::ALL[..4] {
            assert_eq!(tally.cell(target, *order).planned, 100);
        }
    }
    let mut sum = Tally::default();
    sum.merge(&tally);
    sum.merge(&tally);
    assert_eq!((sum.planned(), sum.all_good()), (2400, false));
}

proptest! {
    #[test]
    fn any_plan_over_any_pieces_ends_well(
        target in prop::sample::select(&Target::ALL[..]),
        order in prop::sample::select(&Order::ALL[..]),
        payload in 0u32..6000,
        tail in 0u32..3000,
        requests in 1u16..5,
        seed in any::<u64>(),
        space in 1usize..3000,
        piece in 1usize..2000,
    ) {
        let p = Plan { target, order, scripted: true, payload, tail, requests, seed };
        let t = talk(p, space, piece, |_| {});
        prop_assert_eq!(t.outcome.good, 1, "{:?} {}", p, t.driver.tally());
    }

    #[test]
    fn an_upload_is_the_same_in_any_pieces(n in 0u64..12, pieces in prop::collection::vec(1usize..300, 1..10)) {
        let plan = Plan::numbered(1, n);
        let mut whole = vec![0u8; 20_000];
        let mut upload = Upload::new(&plan);
        let len = upload.peek(&mut whole);
        prop_assert_eq!(len as u64, upload.total());
        let mut got = Vec::new();
        for piece in pieces.into_iter().cycle() {
            if upload.done() { break; }
            let mut part = vec![0u8; piece];
            let n = upload.peek(&mut part);
            got.extend_from_slice(&part[..n]);
            upload.advance(n);
        }
        prop_assert_eq!(&got[..], &whole[..len]);
    }
}
