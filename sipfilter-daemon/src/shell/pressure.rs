//! Signalling under pressure: which copies were lost on the way to the engine, which sources sent more than they may, and whether frames from
//! outside claim to be the PBX's.
//!
//! It reads what the kernel counts and says it in the log, seldom enough that a flood of packets is no flood of lines. It limits nothing
//! (`sipfilter_common::classify` does).

use std::{net::IpAddr, time::Duration};

use aya::maps::{HashMap, MapData};
use ipnet::{IpNet, Ipv6Net};
use sipfilter_common::{
    abi::map,
    budget::SourceSpending,
    key::SourceKey,
    reason::{Counter, Note, Reason},
};

use super::{
    counters::Counters,
    datapath::{Datapath, DatapathError},
    outer::Outer,
};
use crate::engine::{Instant, settings::ProviderId};

/// At least so long between two lines of one kind.
const QUIET: Duration = Duration::from_secs(10);

/// A source that sent more signalling than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitedSource {
    /// Its address, or its IPv6 network.
    pub source: IpNet,
    /// Its provider.
    pub provider: ProviderId,
    /// Packets refused, by class.
    pub spending: SourceSpending,
}

/// What was read last, and when something was said last.
pub struct Pressure {
    sources: HashMap<MapData, SourceKey, SourceSpending>,
    lost: Watched,
    shed: Watched,
    limited: Watched,
    forged: Watched,
    outer: Outer,
}

/// A counter of which only the growth matters, and the line about it.
#[derive(Debug, Default)]
struct Watched {
    counters: &'static [Counter],
    seen: u64,
    unsaid: u64,
    quiet_until: Instant,
}

const LOST: &[Counter] = &[
    Counter::Note(Note::CopyLost),
    Counter::Note(Note::EgressCopyLost),
];
const SHED: &[Counter] = &[Counter::Note(Note::CopyShed)];
const LIMITED: &[Counter] = &[Counter::Reason(Reason::SignallingLimited)];
const FORGED: &[Counter] = &[Counter::Reason(Reason::EgressForged)];

impl Pressure {
    /// Begins to watch. A counter array that was taken over goes on counting: only what comes from now on counts here.
    ///
    /// # Errors
    /// [`DatapathError`] where the map is missing.
    pub fn new(
        datapath: &mut Datapath,
        counters: &Counters,
        outer: Outer,
    ) -> Result<Self, DatapathError> {
        let watched = |names| Watched::new(names, counters);
        Ok(Self {
            sources: datapath.take(map::SOURCES)?,
            lost: watched(LOST),
            shed: watched(SHED),
            limited: watched(LIMITED),
            forged: watched(FORGED),
            outer,
        })
    }

    /// From now on the routes count as these were.
    pub fn set_outer(&mut self, outer: Outer) {
        self.outer = outer;
    }

    /// Looks at the counters, and gives how many copies were lost since the last time that the engine must know of: an answer or the end of
    /// a call may have been among them. Requests that begin something are left out: nothing of a known call was among those.
    pub fn check(
        &mut self,
        now: Instant,
        counters: &Counters,
        name: impl Fn(ProviderId) -> String,
    ) -> u64 {
        let lost = self.lost.grow(counters);
        if let Some(packets) = self.lost.line(now) {
            tracing::warn!(
                packets,
                "signalling arrived faster than it was read; copies are lost"
            );
        }
        self.shed.grow(counters);
        if let Some(packets) = self.shed.line(now) {
            tracing::warn!(
                packets,
                "requests arrived faster than they were read; copies of some were left out in favour of calls in progress"
            );
        }
        self.limited.grow(counters);
        if let Some(packets) = self.limited.line(now) {
            let sources = self.limited_sources();
            let first = sources.first();
            tracing::warn!(
                packets,
                sources = sources.len(),
                source = first.map(|first| first.source.to_string()),
                provider = first.map(|first| name(first.provider)),
                "dropped signalling of sources that send more than they may; `sipfilterctl status` lists them"
            );
        }
        self.forged.grow(counters);
        if let Some(packets) = self.forged.line(now) {
            if self.outer.is_outdated() {
                tracing::warn!(
                    packets,
                    "what claims to be the PBX's comes in on an outer interface, and the routes to the PBX are not those of the start: `sipfilterctl reload`, or its calls get no pinholes"
                );
            } else {
                tracing::warn!(
                    packets,
                    "forged packets that claim to be the PBX's come in on an outer interface; they open nothing"
                );
            }
        }
        lost
    }

    /// Packets from outside that claimed to be the PBX's, since the counters began.
    pub fn forged(&self) -> u64 {
        self.forged.seen
    }

    /// Whether those may be the PBX's own, because the routes to it have changed since the start.
    pub fn is_route_outdated(&self) -> bool {
        self.outer.is_outdated()
    }

    /// The sources that were refused something, those with most first.
    pub fn limited_sources(&self) -> Vec<LimitedSource> {
        let mut sources: Vec<_> = self
            .sources
            .iter()
            .filter_map(Result::ok)
            .filter(|(_, spending)| spending.refused() > 0)
            .filter_map(|(key, spending)| {
                Some(LimitedSource {
                    source: sender(&key)?,
                    provider: ProviderId(u16::try_from(key.provider).ok()?),
                    spending,
                })
            })
            .collect();
        sources.sort_by_key(|limited| {
            (
                std::cmp::Reverse(limited.spending.refused()),
                limited.source,
            )
        });
        sources
    }
}

impl Watched {
    fn new(names: &'static [Counter], counters: &Counters) -> Self {
        let mut watched = Self {
            counters: names,
            ..Self::default()
        };
        watched.grow(counters);
        watched.unsaid = 0;
        watched
    }

    fn grow(&mut self, counters: &Counters) -> u64 {
        let read = self
            .counters
            .iter()
            .map(|&counter| counters.read(counter).map(|count| count.packets))
            .sum::<Result<u64, _>>();
        let Ok(now) = read else { return 0 };
        let more = now.wrapping_sub(self.seen);
        self.seen = now;
        self.unsaid += more;
        more
    }

    /// How many there were since the last line, if it is time for one.
    fn line(&mut self, now: Instant) -> Option<u64> {
        if self.unsaid == 0 || now < self.quiet_until {
            return None;
        }
        self.quiet_until = now + QUIET;
        Some(std::mem::take(&mut self.unsaid))
    }
}

/// The address of a key: IPv4 whole, IPv6 as the network that counts as one sender.
fn sender(key: &SourceKey) -> Option<IpNet> {
    let IpAddr::V6(mapped) = key.sender.into() else {
        return None;
    };
    match mapped.to_ipv4_mapped() {
        Some(address) => Some(IpNet::from(IpAddr::V4(address))),
        None => Ipv6Net::new(mapped, 64).ok().map(IpNet::V6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_packets_is_no_flood_of_lines() {
        let second = |seconds| Instant(Duration::from_secs(seconds));
        let mut watched = Watched::default();
        let mut lines = Vec::new();
        for now in 0..31 {
            watched.unsaid += 5;
            lines.extend(watched.line(second(now)).map(|packets| (now, packets)));
        }
        assert_eq!(lines, [(0, 5), (10, 50), (20, 50), (30, 50)]);
        assert_eq!(watched.line(second(90)), None, "nothing new");
    }
}
