//! Who hit the ports of which call: samples, by call, reason and source.
//!
//! Bounded by [`MAX_CALLS`] and [`MAX_SOURCES`]; what is beyond is counted. It does not ask whether the call was still there: what comes
//! after its end is nobody's loss, so that the ledger keeps that apart.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::SystemTime,
};

use sipfilter_common::reason::Reason;

use super::Seen;
use crate::{shell::sample::Ends, view};

/// Calls that are remembered.
pub(super) const MAX_CALLS: usize = 2_048;
/// Sources of one call, by reason.
const MAX_SOURCES: usize = 8;

/// Which calls are remembered where they are too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// Those that were hit first.
    First,
    /// Those that began last.
    Last,
}

/// All calls that were hit.
#[derive(Debug)]
pub(super) struct Hits {
    keep: Keep,
    calls: BTreeMap<u64, Sources>,
    /// Samples of calls that are not remembered.
    left_out: u64,
}

#[derive(Debug, Default)]
struct Sources {
    hits: BTreeMap<(Reason, IpAddr), Hit>,
    /// Samples of others.
    left_out: u64,
}

#[derive(Debug)]
struct Hit {
    seen: Seen,
    port: u16,
    destination: SocketAddr,
    near: view::Near,
}

impl Hits {
    pub fn new(keep: Keep) -> Self {
        Self {
            keep,
            calls: BTreeMap::new(),
            left_out: 0,
        }
    }

    /// Takes a packet that nearly belonged to a call.
    pub fn handle(
        &mut self,
        reason: Reason,
        ends: &Ends,
        near: &view::Near,
        packets: f64,
        wall: SystemTime,
    ) {
        if self.calls.len() >= MAX_CALLS && !self.calls.contains_key(&near.call) {
            if self.keep == Keep::First {
                self.left_out += 1;
                return;
            }
            if let Some((_, oldest)) = self.calls.pop_first() {
                self.left_out += oldest.samples();
            }
        }
        let sources = self.calls.entry(near.call).or_default();
        let key = (reason, ends.source.ip());
        if sources.hits.len() >= MAX_SOURCES && !sources.hits.contains_key(&key) {
            sources.left_out += 1;
            return;
        }
        let hit = sources.hits.entry(key).or_insert_with(|| Hit {
            seen: Seen::at(wall),
            port: 0,
            destination: ends.destination,
            near: near.clone(),
        });
        hit.seen.add(wall, packets);
        hit.port = ends.source.port();
        hit.destination = ends.destination;
        hit.near.clone_from(near);
    }

    /// Whether this one was hit.
    pub fn is_hit(&self, call: u64) -> bool {
        self.calls.contains_key(&call)
    }

    /// The calls that were hit.
    pub fn calls(&self) -> impl Iterator<Item = u64> {
        self.calls.keys().copied()
    }

    /// Who hit one, most packets first. `is_own`: what this source sends is the call's.
    pub fn of(&self, call: u64, is_own: impl Fn(IpAddr) -> bool) -> Vec<view::ReportedSource> {
        let mut found: Vec<_> = self
            .sources(call)
            .map(|((reason, source), hit)| view::ReportedSource {
                source: *source,
                port: hit.port,
                reason: reason.name().to_owned(),
                destination: hit.destination,
                how: hit.near.how.clone(),
                is_own: hit.near.how == "other_port" || is_own(*source),
                packets: hit.seen.packets(),
                samples: hit.seen.samples,
                first_seen: view::time(hit.seen.first),
                last_seen: view::time(hit.seen.last),
            })
            .collect();
        found.sort_by_key(|source| std::cmp::Reverse(source.packets));
        found
    }

    /// The same as rows of what was dropped.
    pub fn dropped(&self, call: u64) -> impl Iterator<Item = view::DroppedSource> {
        self.sources(call)
            .map(|((reason, source), hit)| view::DroppedSource {
                source: (*source).into(),
                reason: reason.name().to_owned(),
                packets: hit.seen.packets(),
                samples: hit.seen.samples,
                first_seen: view::time(hit.seen.first),
                last_seen: view::time(hit.seen.last),
                destination: Some(hit.destination),
                near: Some(hit.near.clone()),
            })
    }

    /// Samples that hit a call, or may have, and are in none of its rows.
    pub fn left_out(&self, call: u64) -> u64 {
        self.calls
            .get(&call)
            .map_or(self.left_out, |sources| sources.left_out)
    }

    fn sources(&self, call: u64) -> impl Iterator<Item = (&(Reason, IpAddr), &Hit)> {
        self.calls
            .get(&call)
            .into_iter()
            .flat_map(|sources| &sources.hits)
    }
}

impl Sources {
    fn samples(&self) -> u64 {
        let hits = self.hits.values().map(|hit| hit.seen.samples);
        hits.sum::<u64>() + self.left_out
    }
}
