//! Listeners' names by number, as long as the process lives: records of connections outlive their listener.

use crate::metrics::exposition::OUTBOUND;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

/// The names there have been. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Names(Arc<RwLock<Vec<Option<String>>>>);

impl Names {
    fn read(&self) -> RwLockReadGuard<'_, Vec<Option<String>>> {
        // Whoever panicked with it left whole strings behind.
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a name the next number; `None` takes a number that no listener has.
    pub fn push(&self, name: Option<String>) -> u16 {
        let mut names = self.0.write().unwrap_or_else(PoisonError::into_inner);
        names.push(name);
        (names.len() - 1) as u16
    }

    /// The name of a number.
    #[must_use]
    pub fn name(&self, number: u16) -> Option<String> {
        self.read().get(usize::from(number)).cloned().flatten()
    }

    /// All numbers that a name has or had; empty for a name that no listener ever had.
    #[must_use]
    pub fn numbers(&self, name: &str) -> Vec<u16> {
        (0..).zip(self.read().iter()).filter(|(_, n)| n.as_deref() == Some(name)).map(|(i, _)| i).collect()
    }

    /// Every name there has been, once.
    #[must_use]
    pub fn all(&self) -> Vec<String> {
        let mut all: Vec<String> = self.read().iter().flatten().cloned().collect();
        all.sort();
        all.dedup();
        all
    }

    /// Every number's name as metrics show it: what no listener has is what opens connections from here.
    #[must_use]
    pub fn shown(&self) -> Vec<String> {
        self.read().iter().map(|n| n.clone().unwrap_or_else(|| OUTBOUND.to_owned())).collect()
    }

    /// Numbers given out so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.read().len()
    }
}
