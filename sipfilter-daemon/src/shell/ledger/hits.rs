//! Who hit the ports of which call: samples, by call, reason and source, for `sipfilterctl report`.
//!
//! Bounded by [`MAX_CALLS`] and [`MAX_SOURCES`]: what is beyond is not told. What comes after a call's end is nobody's loss and is not
//! kept.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::SystemTime,
};

use sipfilter_common::reason::Reason;

use super::Seen;
use crate::{shell::sample::Ends, view};

/// Calls that are remembered.
const MAX_CALLS: usize = 2_048;
/// Sources of one call, by reason.
const MAX_SOURCES: usize = 8;

/// All calls that were hit.
#[derive(Debug, Default)]
pub(super) struct Hits {
    calls: BTreeMap<u64, BTreeMap<(Reason, IpAddr), Hit>>,
}

#[derive(Debug)]
struct Hit {
    seen: Seen,
    port: u16,
    destination: SocketAddr,
    how: String,
}

impl Hits {
    /// Takes a packet that nearly belonged to a call.
    pub fn handle(
        &mut self,
        reason: Reason,
        ends: &Ends,
        near: &view::Near,
        packets: f64,
        wall: SystemTime,
    ) {
        if near.how == "closed" {
            return;
        }
        if self.calls.len() >= MAX_CALLS && !self.calls.contains_key(&near.call) {
            return;
        }
        let sources = self.calls.entry(near.call).or_default();
        let key = (reason, ends.source.ip());
        if sources.len() >= MAX_SOURCES && !sources.contains_key(&key) {
            return;
        }
        let hit = sources.entry(key).or_insert_with(|| Hit {
            seen: Seen::at(wall),
            port: 0,
            destination: ends.destination,
            how: String::new(),
        });
        hit.seen.add(wall, packets);
        hit.port = ends.source.port();
        hit.destination = ends.destination;
        hit.how.clone_from(&near.how);
    }

    /// The calls that were hit.
    pub fn calls(&self) -> impl Iterator<Item = u64> {
        self.calls.keys().copied()
    }

    /// Who hit one, most packets first. `is_own`: what this source sends is the call's.
    pub fn of(&self, call: u64, is_own: impl Fn(IpAddr) -> bool) -> Vec<view::ReportedSource> {
        let hits = self.calls.get(&call).into_iter().flatten();
        let mut found: Vec<_> = hits
            .map(|((reason, source), hit)| view::ReportedSource {
                source: *source,
                port: hit.port,
                reason: reason.name().to_owned(),
                destination: hit.destination,
                how: hit.how.clone(),
                is_own: hit.how == "other_port" || is_own(*source),
                packets: hit.seen.packets(),
                samples: hit.seen.samples,
                first_seen: view::time(hit.seen.first),
                last_seen: view::time(hit.seen.last),
            })
            .collect();
        found.sort_by_key(|source| std::cmp::Reverse(source.packets));
        found
    }
}
