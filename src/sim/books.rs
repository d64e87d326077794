//! What must be true when all is over: nothing is left, and the counters add up.

use super::report::{Deeds, Rule};
use super::scenario::Scenario;
use super::world::World;
use crate::drop::DropReason;
use crate::metrics::block::{Counters, ResetCause};
use crate::port::mem::Direction;
use crate::tcp::record::ClosePath;
use crate::tcp::state::State;

/// The counters of all shards.
pub(super) struct Books {
    pub servers: Counters,
    pub client: Counters,
}

impl Books {
    pub fn of(world: &mut World) -> Self {
        let mut servers = Counters::default();
        for s in &mut world.servers {
            servers.merge(&s.snapshot().counters);
        }
        Self { servers, client: world.client.snapshot().counters }
    }

    /// What the run did.
    pub fn deeds(&self, world: &World, deeds: &mut Deeds) {
        for d in [Direction::AToB, Direction::BToA] {
            let c = world.link.counters(d);
            deeds.count("frames", c.sent);
            deeds.count("lost", c.lost + c.down + c.filtered + c.queue_full);
            deeds.count("not_received", c.no_frame + c.ring_full);
        }
        for c in [&self.servers, &self.client] {
            let drops = |r: DropReason| c.drops[r as usize];
            deeds.count("dropped", c.drops.iter().sum());
            deeds.count("corrupted", drops(DropReason::BadTcpChecksum) + drops(DropReason::BadIpChecksum));
            deeds.count("no_chunk", drops(DropReason::NoChunk));
            deeds.count("no_buffer", drops(DropReason::NoFrame));
            deeds.count("mailbox_full", drops(DropReason::MailboxFull));
            deeds.count("syn_table_full", drops(DropReason::SynTableFull));
            deeds.count("conn_table_full", drops(DropReason::ConnTableFull));
            deeds.count("retransmissions", c.retransmissions.iter().sum());
            deeds.count("misdirected", c.misdirected_out);
            deeds.count("cookies", c.cookies_accepted);
            deeds.count("reopened", c.time_wait_reopened);
            deeds.count("evicted", c.time_wait_evicted);
            deeds.count("half_open_given_up", c.half_open_given_up);
            deeds.count("challenge_acks", c.challenge_acks);
            for path in ClosePath::ALL {
                deeds.count(path.as_str(), c.closes_by_path(path));
            }
        }
    }

    /// Compares what must be equal. `begun` is how many connections the client began, `ghosts` how many
    /// the servers had beside them.
    pub fn check(
        &self,
        s: &Scenario,
        world: &World,
        begun: u64,
        ghosts: u64,
        mut wrong: impl FnMut(Rule, String),
    ) {
        let (sv, cl) = (&self.servers, &self.client);
        let closes = |c: &Counters| c.closes.iter().flatten().flatten().sum::<u64>();
        equal(&mut wrong, "connections opened by the servers, and closed", sv.opened_passive, closes(sv));
        equal(&mut wrong, "connections begun by the client, and closed", begun, closes(cl));
        equal(&mut wrong, "frames passed between workers, out and in", sv.misdirected_out, sv.misdirected_in);
        if s.only_patience_is_needed() {
            equal(
                &mut wrong,
                "connections begun, and opened by the servers",
                begun + ghosts,
                sv.opened_passive,
            );
            equal(&mut wrong, "connections begun, and opened by the client", begun, cl.opened_active);
        }
        for (d, receiver) in [(Direction::AToB, sv), (Direction::BToA, cl)] {
            let c = world.link.counters(d);
            equal(&mut wrong, "frames delivered, and taken", c.delivered, receiver.port.rx_frames);
            if !c.balanced(0) {
                wrong(Rule::Books, format!("the link's counters do not add up: {c:?}"));
            }
        }
        for (who, c) in [("the servers", sv), ("the client", cl)] {
            for state in State::ALL {
                let n = c.states[state as usize];
                if n != 0 && state != State::Listen && state != State::Closed {
                    wrong(Rule::Leak, format!("{who} count {n} in {state:?}, with no record left"));
                }
            }
            if c.chunks_used != 0 {
                wrong(Rule::Leak, format!("{} chunks of {who} are lent, with no record left", c.chunks_used));
            }
            if c.illegal_transitions != 0 {
                wrong(Rule::Transition, format!("{who} met {} impossible pairs", c.illegal_transitions));
            }
            resets(s, who, c, ghosts, &mut wrong);
        }
    }
}

fn equal(wrong: &mut impl FnMut(Rule, String), what: &str, a: u64, b: u64) {
    if a != b {
        wrong(Rule::Books, format!("{what}: {a} and {b}"));
    }
}

/// Resets that nothing can be the cause of.
fn resets(s: &Scenario, who: &str, c: &Counters, ghosts: u64, wrong: &mut impl FnMut(Rule, String)) {
    for cause in ResetCause::ALL {
        let due = match cause {
            // Every segment is for a port that somebody listens on.
            ResetCause::ClosedPort => false,
            // The answer to what is late, or was sent again.
            ResetCause::NoConnection | ResetCause::HalfOpen => !s.nothing_goes_wrong(),
            ResetCause::Service
            | ResetCause::DataAfterClose
            | ResetCause::Limit
            | ResetCause::Established => ghosts > 0 || !s.only_patience_is_needed(),
        };
        let n = c.resets_sent[cause as usize];
        if n > 0 && !due {
            wrong(Rule::Reset, format!("{who} sent {n} resets of cause {}", cause.as_str()));
        }
    }
}
