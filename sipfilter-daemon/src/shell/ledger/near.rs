//! Where pinholes are and were a moment ago, and which of them came nearest to a packet.
//!
//! It mirrors what the map writer was told and asks nobody. Bounded by the number of pinholes and by [`MAX_CLOSED`].

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use sipfilter_common::reason::Reason;

use super::Port;
use crate::{
    engine::{
        CallNumber, Instant,
        pinhole::{PinholeAction, Source},
    },
    shell::sample::Ends,
    view,
};

/// Closed pinholes that are remembered.
const MAX_CLOSED: usize = 8_192;
/// For how long they are.
const CLOSED_LATELY: Duration = Duration::from_secs(60);

/// The pinholes.
#[derive(Debug)]
pub(super) struct Pinholes {
    pub protected: Vec<IpAddr>,
    open: BTreeMap<SocketAddr, Open>,
    /// Where a single address may send to now.
    by_source: BTreeMap<IpAddr, BTreeSet<SocketAddr>>,
    closed: BTreeMap<SocketAddr, (CallNumber, Instant)>,
    /// In the order of their ends; a place may stand here more often than above.
    order: VecDeque<(SocketAddr, Instant)>,
}

#[derive(Debug)]
struct Open {
    call: CallNumber,
    hosts: Vec<IpAddr>,
}

impl Pinholes {
    pub fn new(protected: Vec<IpAddr>) -> Self {
        Self {
            protected,
            open: BTreeMap::new(),
            by_source: BTreeMap::new(),
            closed: BTreeMap::new(),
            order: VecDeque::new(),
        }
    }

    pub fn handle(&mut self, action: &PinholeAction, now: Instant) {
        match action {
            PinholeAction::Open(pinhole) | PinholeAction::Update(pinhole) => {
                self.forget(pinhole.local);
                let hosts: Vec<_> = pinhole.sources.iter().filter_map(host).collect();
                for host in &hosts {
                    let places = self.by_source.entry(*host).or_default();
                    places.insert(pinhole.local);
                }
                let call = pinhole.call;
                self.open.insert(pinhole.local, Open { call, hosts });
            }
            PinholeAction::Close { local, .. } => {
                if let Some(open) = self.forget(*local) {
                    self.closed.insert(*local, (open.call, now));
                    self.order.push_back((*local, now));
                    self.expire(now);
                }
            }
        }
    }

    /// The nearest pinhole to a packet of media; `None` for what is no media, and where nothing comes near.
    pub fn nearest(&self, reason: Reason, ends: &Ends, now: Instant) -> Option<view::Near> {
        let near = |call: CallNumber, pinhole: SocketAddr, how: &str| view::Near {
            call: call.0,
            pinhole,
            how: how.to_owned(),
        };
        let local = ends.destination;
        let open = |local: SocketAddr| self.open.get(&local).map(|open| (open.call, local));
        if Port::of(reason)? == Port::Open {
            return open(local).map(|(call, local)| near(call, local, "same_port"));
        }
        if let Some((call, at)) = self.closed.get(&local)
            && *at + CLOSED_LATELY >= now
        {
            return Some(near(*call, local, "closed"));
        }
        let neighbours = [local.port().checked_sub(1), local.port().checked_add(1)];
        let beside = neighbours.into_iter().flatten().find_map(|port| {
            let (call, place) = open(SocketAddr::new(local.ip(), port))?;
            Some(near(call, place, "next_port"))
        });
        let elsewhere = || {
            self.protected.iter().find_map(|address| {
                let (call, place) = open(SocketAddr::new(*address, local.port()))?;
                Some(near(call, place, "other_address"))
            })
        };
        let by_source = || {
            let place = self.by_source.get(&ends.source.ip())?.first()?;
            let (call, place) = open(*place)?;
            Some(near(call, place, "other_port"))
        };
        beside.or_else(elsewhere).or_else(by_source)
    }

    fn forget(&mut self, local: SocketAddr) -> Option<Open> {
        let open = self.open.remove(&local)?;
        for host in &open.hosts {
            if let Some(places) = self.by_source.get_mut(host) {
                places.remove(&local);
                if places.is_empty() {
                    self.by_source.remove(host);
                }
            }
        }
        Some(open)
    }

    fn expire(&mut self, now: Instant) {
        while let Some((local, at)) = self.order.front().copied() {
            if self.order.len() <= MAX_CLOSED && at + CLOSED_LATELY >= now {
                break;
            }
            self.order.pop_front();
            // It may have been closed again since.
            if self.closed.get(&local).is_some_and(|(_, then)| *then == at) {
                self.closed.remove(&local);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn sizes(&self) -> [usize; 4] {
        [
            self.open.len(),
            self.by_source.len(),
            self.closed.len(),
            self.order.len(),
        ]
    }
}

/// The address of a source that is a single one.
fn host(source: &Source) -> Option<IpAddr> {
    (source.net.prefix_len() == source.net.max_prefix_len()).then(|| source.net.addr())
}
