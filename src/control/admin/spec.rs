//! From words to filters, with errors that name the field.

use super::model::{ClosesQuery, FilterSpec};
use crate::config::units::parse_duration;
use crate::control::names::Names;
use crate::shard::drain::NewConnections;
use crate::shard::filter::{Filter, States};
use crate::tcp::record::{Cause, ClosePath, CloseRecord, First};
use crate::tcp::state::State;
use crate::wire::cidr::Cidr;
use std::time::Duration;

/// What is wrong with a field, as one sentence.
pub type Wrong = String;

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|w| !w.is_empty())
}

/// The values that a list of words names; `what` is the field.
fn choose<T: Copy>(what: &str, text: &str, all: &[(&'static str, T)]) -> Result<Vec<T>, Wrong> {
    let plain = |word: &str| word.to_ascii_lowercase().replace('-', "_");
    let names = || all.iter().map(|(n, _)| n.to_ascii_lowercase()).collect::<Vec<_>>().join(", ");
    let found: Result<Vec<T>, Wrong> = words(text)
        .map(|word| {
            let value = all.iter().find(|(name, _)| plain(name) == plain(word)).map(|(_, v)| *v);
            value.ok_or_else(|| format!("{what}: \"{word}\" is none of {}", names()))
        })
        .collect();
    match found {
        Ok(values) if values.is_empty() => Err(format!("{what}: is empty; it is one or more of {}", names())),
        other => other,
    }
}

fn listeners(text: &str, names: &Names) -> Result<Vec<u16>, Wrong> {
    let mut numbers = Vec::new();
    for word in words(text) {
        let of = names.numbers(word);
        if of.is_empty() {
            let known = names.all();
            let known = if known.is_empty() {
                "there are none".to_owned()
            } else {
                format!("there are {}", known.join(", "))
            };
            return Err(format!("listener: none is named \"{word}\"; {known}"));
        }
        numbers.extend(of);
    }
    if numbers.is_empty() { Err("listener: is empty; name one or more".to_owned()) } else { Ok(numbers) }
}

fn peer(text: &str) -> Result<Cidr, Wrong> {
    text.parse().map_err(|e| format!("peer: {e}"))
}

/// A duration of a field.
pub fn duration(what: &str, text: &str) -> Result<Duration, Wrong> {
    parse_duration(text).map_err(|e| format!("{what}: {e}"))
}

/// What new connections get during a drain.
pub fn new_connections(text: &str) -> Result<NewConnections, Wrong> {
    let all =
        [("drop", NewConnections::Drop), ("reset", NewConnections::Reset), ("close", NewConnections::Close)];
    match choose("new", text, &all)?[..] {
        [one] => Ok(one),
        _ => Err("new: is one of drop, reset, close".to_owned()),
    }
}

/// The filter that is meant.
pub fn filter(spec: &FilterSpec, names: &Names) -> Result<Filter, Wrong> {
    let states = State::ALL
        .iter()
        .filter(|s| !matches!(s, State::Closed | State::Listen))
        .map(|s| (s.as_str(), *s))
        .collect::<Vec<_>>();
    let mut filter = Filter::default();
    if let Some(text) = &spec.state {
        filter.states = choose("state", text, &states)?.into_iter().fold(States::NONE, States::with);
    }
    filter.listeners = spec.listener.as_deref().map(|text| listeners(text, names)).transpose()?;
    filter.peer = spec.peer.as_deref().map(peer).transpose()?;
    if let Some(text) = &spec.older_than {
        filter.older_than = duration("older_than", text)?;
    }
    Ok(filter)
}

/// Which close records are meant.
#[derive(Clone, Debug, Default)]
pub struct CloseFilter {
    causes: Option<Vec<Cause>>,
    paths: Option<Vec<ClosePath>>,
    firsts: Option<Vec<First>>,
    listeners: Option<Vec<u16>>,
    peer: Option<Cidr>,
}

impl CloseFilter {
    /// From words.
    pub fn new(q: &ClosesQuery, names: &Names) -> Result<Self, Wrong> {
        let causes = Cause::ALL.map(|c| (c.as_str(), c));
        let paths = ClosePath::ALL.map(|p| (p.as_str(), p));
        let firsts = First::ALL.map(|f| (f.as_str(), f));
        Ok(Self {
            causes: q.cause.as_deref().map(|t| choose("cause", t, &causes)).transpose()?,
            paths: q.path.as_deref().map(|t| choose("path", t, &paths)).transpose()?,
            firsts: q.first.as_deref().map(|t| choose("first", t, &firsts)).transpose()?,
            listeners: q.listener.as_deref().map(|t| listeners(t, names)).transpose()?,
            peer: q.peer.as_deref().map(peer).transpose()?,
        })
    }

    /// Whether a record is meant.
    #[must_use]
    pub fn takes(&self, r: &CloseRecord) -> bool {
        self.causes.as_ref().is_none_or(|c| c.contains(&r.cause))
            && self.paths.as_ref().is_none_or(|p| p.contains(&r.path))
            && self.firsts.as_ref().is_none_or(|f| f.contains(&r.first))
            && self.listeners.as_ref().is_none_or(|l| r.listener.is_some_and(|n| l.contains(&n)))
            && self.peer.as_ref().is_none_or(|net| net.contains(&r.tuple.remote.addr))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(
        state: Option<&str>,
        listener: Option<&str>,
        peer: Option<&str>,
        older: Option<&str>,
    ) -> FilterSpec {
        let own = |t: Option<&str>| t.map(str::to_owned);
        FilterSpec { state: own(state), listener: own(listener), peer: own(peer), older_than: own(older) }
    }

    #[test]
    fn words_become_a_filter() {
        let names = Names::default();
        for name in ["web", "dns", "web"] {
            names.push(Some(name.to_owned()));
        }
        let f =
            filter(&spec(Some("time-wait, CLOSING"), Some("web"), Some("10.0.0.0/8"), Some("90s")), &names)
                .unwrap();
        assert_eq!(f.states, States::NONE.with(State::TimeWait).with(State::Closing));
        // The former listener of the name too.
        assert_eq!(f.listeners, Some(vec![0, 2]));
        assert_eq!(f.older_than, Duration::from_secs(90));
        assert!(filter(&FilterSpec::default(), &names).unwrap().is_empty());
    }

    #[test]
    fn what_is_wrong_is_named_with_what_would_be_right() {
        let names = Names::default();
        names.push(Some("web".to_owned()));
        for (s, says) in [
            (
                spec(Some("open"), None, None, None),
                "state: \"open\" is none of syn_sent, syn_received, established",
            ),
            (spec(Some(","), None, None, None), "state: is empty"),
            (spec(None, Some("wbe"), None, None), "listener: none is named \"wbe\"; there are web"),
            (spec(None, None, Some("10.0.0.0/40"), None), "peer: \"10.0.0.0/40\" is no network"),
            (spec(None, None, None, Some("5")), "older_than: a duration needs its unit"),
        ] {
            let wrong = filter(&s, &names).unwrap_err();
            assert!(wrong.contains(says), "{wrong}");
        }
        assert!(new_connections("later").unwrap_err().contains("drop, reset, close"));
    }
}
