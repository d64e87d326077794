//! All reachable worlds and the steps between them, kept, to ask what can still be reached from where: "from every
//! world an end in order can be reached" is a question about branching futures, which stateright's properties (on one
//! world, or along one path) cannot ask.
//!
//! The worlds are kept as themselves and compared as themselves, not by a hash; that stateright, which compares
//! 64-bit hashes, finds as many is a test of both.

use super::machine::World;
use super::model::{Action, Tcp};
use finwheel::tcp::state::{Event, State};
use stateright::{Expectation, Model, Property};
use std::collections::HashMap;
use std::fmt::Write;

/// An edge: the step's target, and two bits that say whether the step is the network's or a timer's, or an abort.
#[derive(Clone, Copy)]
struct Edge(u32);

const PROTOCOL: u32 = 1 << 31;
const ABORT: u32 = 1 << 30;

impl Edge {
    fn new(to: u32, action: Action) -> Self {
        assert!(to < ABORT, "more worlds than an edge can name");
        let protocol = if action.is_protocol() { PROTOCOL } else { 0 };
        let abort = if matches!(action, Action::Abort(_)) { ABORT } else { 0 };
        Self(to | protocol | abort)
    }

    const fn to(self) -> usize {
        (self.0 & (ABORT - 1)) as usize
    }
}

/// Which steps a future may be made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steps {
    /// The network's and the timers': the applications do nothing more.
    Protocol,
    /// The applications' too, but no abort.
    Willing,
}

impl Steps {
    const fn allow(self, edge: Edge) -> bool {
        match self {
            Self::Protocol => edge.0 & PROTOCOL != 0,
            Self::Willing => edge.0 & ABORT == 0,
        }
    }
}

/// The graph.
pub struct Graph {
    model: Tcp,
    worlds: Vec<World>,
    /// The world from which each was first reached.
    parents: Vec<u32>,
    /// The edges of world `i` are `edges[first[i]..first[i + 1]]`.
    first: Vec<usize>,
    edges: Vec<Edge>,
    met: [[bool; Event::COUNT]; State::COUNT],
}

impl Graph {
    /// Explores everything that is reachable.
    pub fn explore(model: Tcp) -> Self {
        let start = World::new();
        let mut g = Self {
            model,
            worlds: vec![start],
            parents: vec![0],
            first: vec![0],
            edges: Vec::new(),
            met: [[false; Event::COUNT]; State::COUNT],
        };
        let mut index = HashMap::from([(start, 0_u32)]);
        let mut actions = Vec::new();
        let mut at = 0;
        while at < g.worlds.len() {
            let from = g.worlds[at];
            model.actions(&from, &mut actions);
            for action in actions.drain(..) {
                let (to, met) = model.step(&from, action);
                for (state, event) in met.into_iter().flatten() {
                    g.met[state as usize][event as usize] = true;
                }
                let next = g.worlds.len() as u32;
                let to_index = *index.entry(to).or_insert(next);
                if to_index == next {
                    g.worlds.push(to);
                    g.parents.push(at as u32);
                }
                g.edges.push(Edge::new(to_index, action));
            }
            g.first.push(g.edges.len());
            at += 1;
        }
        g
    }

    /// How many worlds there are.
    pub fn len(&self) -> usize {
        self.worlds.len()
    }

    /// How many steps there are between them.
    pub fn steps(&self) -> usize {
        self.edges.len()
    }

    /// Whether some step met this pair.
    pub const fn met(&self, state: State, event: Event) -> bool {
        self.met[state as usize][event as usize]
    }

    /// The names of the model's own properties that fail: that do not hold in some world, or, of scenes, in none.
    pub fn failed(&self) -> Vec<&'static str> {
        let fails = |p: &Property<Tcp>| {
            let holds = |w: &World| (p.condition)(&self.model, w);
            match p.expectation {
                Expectation::Always => !self.worlds.iter().all(holds),
                Expectation::Sometimes => !self.worlds.iter().any(holds),
                Expectation::Eventually => unreachable!("the model states none"),
            }
        };
        self.model.properties().iter().filter(|p| fails(p)).map(|p| p.name).collect()
    }

    /// From every world that is a `from`, a world that is a `goal` can be reached by such steps. Otherwise: the
    /// shortest way from the beginning to a world from which none can, and how many there are.
    pub fn always_can_reach(
        &self,
        from: fn(&World) -> bool,
        goal: fn(&World) -> bool,
        steps: Steps,
    ) -> Result<usize, String> {
        let can = self.reaches(goal, steps);
        let asked = || self.worlds.iter().enumerate().filter(|(_, w)| from(w));
        let mut stuck = asked().filter(|(i, _)| !can[*i]).map(|(i, _)| i);
        match stuck.next() {
            None => Ok(asked().count()),
            Some(first) => {
                Err(format!("{} worlds are stuck; the nearest:\n{}", stuck.count() + 1, self.way(first)))
            }
        }
    }

    /// For each world, whether a goal can be reached from it: a search backwards from all goals at once.
    fn reaches(&self, goal: fn(&World) -> bool, steps: Steps) -> Vec<bool> {
        let n = self.worlds.len();
        let allowed = || {
            (0..n).flat_map(move |from| {
                let out = &self.edges[self.first[from]..self.first[from + 1]];
                out.iter().filter(move |e| steps.allow(**e)).map(move |e| (from, e.to()))
            })
        };
        // The edges turned round, sorted by their target.
        let mut first = vec![0_usize; n + 1];
        for (_, to) in allowed() {
            first[to + 1] += 1;
        }
        for i in 0..n {
            first[i + 1] += first[i];
        }
        let mut free = first.clone();
        let mut sources = vec![0_u32; first[n]];
        for (from, to) in allowed() {
            sources[free[to]] = from as u32;
            free[to] += 1;
        }
        let mut can: Vec<bool> = self.worlds.iter().map(goal).collect();
        let mut open: Vec<usize> = (0..n).filter(|i| can[*i]).collect();
        while let Some(to) = open.pop() {
            for from in sources[first[to]..first[to + 1]].iter().map(|f| *f as usize) {
                if !can[from] {
                    can[from] = true;
                    open.push(from);
                }
            }
        }
        can
    }

    /// The steps from the beginning to a world.
    fn way(&self, to: usize) -> String {
        let mut line = vec![to];
        let mut at = to;
        while at != 0 {
            at = self.parents[at] as usize;
            line.push(at);
        }
        line.reverse();
        let mut text = String::new();
        for pair in line.windows(2) {
            let (from, to) = (&self.worlds[pair[0]], &self.worlds[pair[1]]);
            let mut actions = Vec::new();
            self.model.actions(from, &mut actions);
            let action = actions.into_iter().find(|a| self.model.step(from, *a).0 == *to);
            let states = to.ends.map(|e| e.state.as_str());
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  {action:?} -> {states:?} {:?}", to.net);
        }
        text
    }
}
