//! The kinds of faults that a simulated run can meet, and sets of them.
//!
//! A run has a *swarm* of faults: its seed switches a random subset on, each at a random strength. Runs with few faults
//! reach where many would only end every connection early, and runs with many reach what no single one does.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::fmt;
use std::str::FromStr;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Fault {
    /// Frames are lost.
    Loss,
    /// Frames arrive twice.
    Duplication,
    /// Frames are held back, so that others overtake.
    Reordering,
    /// A bit of a frame is flipped.
    Corruption,
    /// The delay grows for a while.
    Spikes,
    /// The link is down for seconds.
    Down,
    /// The link has a speed limit and a short queue.
    Bottleneck,
    /// The rings have few slots.
    Rings,
    /// The ports have few buffers.
    Umem,
    /// The workers have few chunks.
    Chunks,
    /// The tables are small, on the servers.
    Tables,
    /// `TIME_WAIT` lasts for less time than a peer may need to send its FIN again.
    ShortWait,
    /// The clock jumps forward.
    Clock,
    /// A worker has no turns for a while, as others go on.
    Stall,
    /// What a worker sends stays in its transmit ring for a while.
    Hold,
    /// Frames land at other workers than their flow's, and flows move to other workers.
    Rss,
    /// The workers take turns in an order that changes.
    Order,
    /// Packets are as large as the largest buffers take.
    Jumbo,
    /// Peers vanish: from some moment on nothing of their connections is carried.
    Vanish,
    /// Peers abort.
    Abort,
    /// Peers use their ports again as soon as they can.
    Reuse,
    /// The servers are drained in the middle of the run, and cut off a little later.
    Drain,
}

impl Fault {
    /// All kinds.
    pub const ALL: [Self; 22] = [
        Self::Loss,
        Self::Duplication,
        Self::Reordering,
        Self::Corruption,
        Self::Spikes,
        Self::Down,
        Self::Bottleneck,
        Self::Rings,
        Self::Umem,
        Self::Chunks,
        Self::Tables,
        Self::ShortWait,
        Self::Clock,
        Self::Stall,
        Self::Hold,
        Self::Rss,
        Self::Order,
        Self::Jumbo,
        Self::Vanish,
        Self::Abort,
        Self::Reuse,
        Self::Drain,
    ];

    /// Its name on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Loss => "loss",
            Self::Duplication => "duplication",
            Self::Reordering => "reordering",
            Self::Corruption => "corruption",
            Self::Spikes => "spikes",
            Self::Down => "down",
            Self::Bottleneck => "bottleneck",
            Self::Rings => "rings",
            Self::Umem => "umem",
            Self::Chunks => "chunks",
            Self::Tables => "tables",
            Self::ShortWait => "short-wait",
            Self::Clock => "clock",
            Self::Stall => "stall",
            Self::Hold => "hold",
            Self::Rss => "rss",
            Self::Order => "order",
            Self::Jumbo => "jumbo",
            Self::Vanish => "vanish",
            Self::Abort => "abort",
            Self::Reuse => "reuse",
            Self::Drain => "drain",
        }
    }
}

impl FromStr for Fault {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|f| f.as_str() == s).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|f| f.as_str()).collect();
            format!("no fault is called \"{s}\"; there are {}", known.join(", "))
        })
    }
}

/// A set of kinds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultSet(u32);

impl FaultSet {
    /// None.
    pub const NONE: Self = Self(0);
    /// All.
    pub const ALL: Self = Self((1 << Fault::ALL.len()) - 1);

    /// Those given.
    #[must_use]
    pub fn of(faults: &[Fault]) -> Self {
        faults.iter().fold(Self::NONE, |set, &f| set.with(f))
    }
    /// And this one.
    #[must_use]
    pub const fn with(self, fault: Fault) -> Self {
        Self(self.0 | 1 << fault as u32)
    }
    /// But this one.
    #[must_use]
    pub const fn without(self, fault: Fault) -> Self {
        Self(self.0 & !(1 << fault as u32))
    }
    /// Whether it is in.
    #[must_use]
    pub const fn has(self, fault: Fault) -> bool {
        self.0 & 1 << fault as u32 != 0
    }
    /// Whether one of them is in.
    #[must_use]
    pub fn any(self, faults: &[Fault]) -> bool {
        self.0 & Self::of(faults).0 != 0
    }
    /// Those that are in.
    pub fn iter(self) -> impl Iterator<Item = Fault> {
        Fault::ALL.into_iter().filter(move |&f| self.has(f))
    }

    /// What a seed chooses: a random share of all kinds, most often a few; drains in few runs, for they end the rest.
    #[must_use]
    pub fn swarm(seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed ^ 0x5a_a4_a1);
        let share = rng.random_range(0.05..0.6);
        Fault::ALL.into_iter().fold(Self::NONE, |set, f| {
            let rare = matches!(f, Fault::Drain | Fault::Tables | Fault::ShortWait);
            let chosen = rng.random::<f64>() < if rare { share / 3.0 } else { share };
            if chosen { set.with(f) } else { set }
        })
    }
}

/// The names, with commas between; `none` for none.
impl fmt::Display for FaultSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NONE {
            return f.write_str("none");
        }
        let names: Vec<_> = self.iter().map(Fault::as_str).collect();
        f.write_str(&names.join(","))
    }
}

/// Which faults a run is to meet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// What the seed chooses.
    #[default]
    Swarm,
    /// These, all of them.
    These(FaultSet),
}

impl Choice {
    /// The faults of a seed.
    #[must_use]
    pub fn of_seed(self, seed: u64) -> FaultSet {
        match self {
            Self::Swarm => FaultSet::swarm(seed),
            Self::These(set) => set,
        }
    }
}

impl FromStr for Choice {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        Ok(match s {
            "swarm" => Self::Swarm,
            "all" => Self::These(FaultSet::ALL),
            "none" => Self::These(FaultSet::NONE),
            list => Self::These(
                list.split(',')
                    .try_fold(FaultSet::NONE, |set, name| name.trim().parse().map(|f| set.with(f)))?,
            ),
        })
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Swarm => f.write_str("swarm"),
            Self::These(set) => set.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_reads_back_as_it_was_written() {
        let some = FaultSet::of(&[Fault::Loss, Fault::ShortWait, Fault::Drain]);
        for choice in
            [Choice::Swarm, Choice::These(FaultSet::NONE), Choice::These(FaultSet::ALL), Choice::These(some)]
        {
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
        assert_eq!("all".parse(), Ok(Choice::These(FaultSet::ALL)));
        let e = "loss,nonsense".parse::<Choice>().expect_err("no such fault");
        assert!(e.contains("\"nonsense\"") && e.contains("duplication"), "{e}");
    }

    #[test]
    fn seeds_choose_every_fault_and_never_all_of_them_alike() {
        let mut seen = [0u32; Fault::ALL.len()];
        for seed in 0..1000 {
            for f in FaultSet::swarm(seed).iter() {
                seen[f as usize] += 1;
            }
        }
        for f in Fault::ALL {
            assert!((40..700).contains(&seen[f as usize]), "{f:?}: {} of 1000", seen[f as usize]);
        }
    }
}
