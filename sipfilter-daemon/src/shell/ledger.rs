//! Who was dropped, why, and which call it nearly belonged to: a ledger of samples, by source and reason.
//!
//! It is pure: samples, counts and pinholes come in, views go out. It decides nothing. `near` knows where pinholes are and were,
//! `strangers` who knocks, `strays` who sent media to a port that was not for it, `hits` who hit which call. Invariant: everything is
//! capped, whatever comes: a full table forgets those with fewest packets, and counts them. A sample stands for what was not sampled at
//! the time, so that a source's packets are an estimate; a reason's are counted.

mod hits;
mod near;
mod strangers;
mod strays;
#[cfg(test)]
mod tests;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use ipnet::{IpNet, Ipv6Net};
use sipfilter_common::reason::Reason;

pub use self::strays::Stray;
use self::{
    hits::{Hits, Keep},
    near::Pinholes,
    strangers::Knocking,
    strays::Strays,
};
use super::sample::Sample;
use crate::{
    engine::{
        Instant,
        pinhole::{PinholeAction, PinholeResult},
        settings::Settings,
    },
    view,
};

/// Sources, by reason, that are remembered.
pub const MAX_SOURCES: usize = 4_096;

/// A ledger that several tasks have.
#[derive(Debug, Clone)]
pub struct Ledger(Arc<Mutex<DropLedger>>);

impl Ledger {
    /// See [`DropLedger::new`].
    pub fn new(settings: &Settings, since: SystemTime) -> Self {
        let mut ledger = DropLedger::new(Vec::new(), Vec::new(), since);
        ledger.reconfigure(settings);
        Self(Arc::new(Mutex::new(ledger)))
    }

    /// The ledger for a report, with at most so many sources.
    pub fn drops(&self, limit: usize) -> view::Drops {
        // Where it is put into words, nobody waits for it.
        let excerpt = self.lock().excerpt(limit);
        excerpt.view()
    }

    /// The ledger itself, for a moment: the task that opens pinholes may be waiting for it.
    pub fn lock(&self) -> MutexGuard<'_, DropLedger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The ledger.
#[derive(Debug)]
pub struct DropLedger {
    since: SystemTime,
    reasons: BTreeMap<Reason, Counted>,
    sources: HashMap<(Reason, IpNet), Entry>,
    forgotten: u64,
    pinholes: Pinholes,
    knocking: Knocking,
    /// What hit calls while they lasted, and what came to their ports afterwards.
    hits: Hits,
    late: Hits,
    strays: Strays,
}

/// One reason's packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counted {
    /// All, since the daemon's start.
    pub packets: u64,
    /// Those that were sampled.
    pub samples: u64,
    /// They pass, because nothing is enforced.
    pub passes: bool,
}

/// What a packet of media found where it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Port {
    /// A pinhole, which did not let it in.
    Open,
    /// None.
    Closed,
}

impl Port {
    /// By the reason why it was dropped; `None` for what is no media.
    fn of(reason: Reason) -> Option<Self> {
        match reason {
            reason if reason.met_pinhole() => Some(Self::Open),
            Reason::NoPinhole => Some(Self::Closed),
            _ => None,
        }
    }
}

/// A part of the ledger, to be read while others go on writing there.
struct Excerpt {
    head: view::Drops,
    /// Most packets first.
    rows: Vec<((Reason, IpNet), Entry)>,
    hidden: u64,
    forgotten: u64,
}

impl Excerpt {
    fn view(self) -> view::Drops {
        let rows = self.rows.iter();
        view::Drops {
            sources: rows
                .map(|((reason, source), entry)| entry.view(*reason, *source))
                .collect(),
            more_sources: self.hidden + self.forgotten,
            forgotten_sources: self.forgotten,
            ..self.head
        }
    }
}

#[derive(Debug, Clone)]
struct Entry {
    seen: Seen,
    destination: Option<SocketAddr>,
    near: Option<view::Near>,
}

/// When and how much.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub first: SystemTime,
    pub last: SystemTime,
    pub samples: u64,
    /// An estimate, in parts of a packet.
    pub packets: f64,
}

impl Seen {
    pub fn at(now: SystemTime) -> Self {
        Self {
            first: now,
            last: now,
            samples: 0,
            packets: 0.0,
        }
    }

    pub fn add(&mut self, now: SystemTime, packets: f64) {
        self.last = now;
        self.samples += 1;
        self.packets += packets;
    }

    pub fn packets(&self) -> u64 {
        (self.packets.round() as u64).max(self.samples)
    }
}

impl DropLedger {
    /// An empty one. `protected` are the addresses that pinholes can be on, `providers` the trunks' providers by name.
    pub fn new(protected: Vec<IpAddr>, providers: Vec<String>, since: SystemTime) -> Self {
        Self {
            since,
            reasons: BTreeMap::new(),
            sources: HashMap::new(),
            forgotten: 0,
            pinholes: Pinholes::new(protected),
            knocking: Knocking::new(providers),
            // The report tells of the whole run; what comes late is asked for soon, or not at all.
            hits: Hits::new(Keep::First),
            late: Hits::new(Keep::Last),
            strays: Strays::default(),
        }
    }

    /// Takes other addresses and providers.
    pub fn reconfigure(&mut self, settings: &Settings) {
        let providers = settings.providers.iter();
        self.pinholes.protected = settings.pbx.addresses.clone();
        self.knocking.trunks = providers.map(|provider| provider.name.clone()).collect();
    }

    /// Takes what was done to a pinhole.
    pub fn handle_pinhole(&mut self, action: &PinholeAction, result: PinholeResult, now: Instant) {
        if result == PinholeResult::Done {
            self.pinholes.handle(action, now);
            if let PinholeAction::Close { local, .. } = action {
                self.strays.handle_close(*local);
            }
        }
    }

    /// Takes the kernel's count of one reason: so many packets more. `passes` where nothing is enforced.
    pub fn handle_count(&mut self, reason: Reason, packets: u64, passes: bool) {
        let counted = self.reasons.entry(reason).or_default();
        counted.packets += packets;
        counted.passes = passes;
    }

    /// Takes a sample that stands for so many packets, and tells which call it nearly belonged to.
    pub fn handle_sample(
        &mut self,
        sample: &Sample,
        packets: f64,
        wall: SystemTime,
    ) -> Option<view::Near> {
        self.reasons.entry(sample.reason).or_default().samples += 1;
        let ends = sample.ends?;
        let near = self.pinholes.nearest(sample.reason, &ends, sample.at);
        self.strays.handle(sample.reason, &ends, sample.at, packets);
        if let Some(near) = &near {
            let hits = match near.how.as_str() {
                "closed" => &mut self.late,
                _ => &mut self.hits,
            };
            hits.handle(sample.reason, &ends, near, packets, wall);
        }
        if sample.reason == Reason::UnknownSource {
            let source = ends.source.ip();
            self.knocking
                .handle(source, sample.payload(), packets, wall);
        }
        let key = (sample.reason, sender(ends.source.ip()));
        if self.sources.len() >= MAX_SOURCES && !self.sources.contains_key(&key) {
            self.forgotten += forget_least(&mut self.sources, |entry| entry.seen.packets);
        }
        let entry = self.sources.entry(key).or_insert_with(|| Entry {
            seen: Seen::at(wall),
            destination: None,
            near: None,
        });
        entry.seen.add(wall, packets);
        entry.destination = Some(ends.destination);
        if near.is_some() {
            entry.near.clone_from(&near);
        }
        near
    }

    /// What was counted and sampled of each reason that had any.
    pub fn reasons(&self) -> impl Iterator<Item = (Reason, Counted)> {
        self.reasons
            .iter()
            .filter(|(_, counted)| counted.packets > 0)
            .map(|(reason, counted)| (*reason, *counted))
    }

    /// What a report tells of at most so many sources.
    fn excerpt(&self, limit: usize) -> Excerpt {
        let mut rows: Vec<_> = self.sources.iter().collect();
        let rank = |((reason, source), entry): &(&(Reason, IpNet), &Entry)| {
            (Reverse(entry.seen.packets()), *source, reason.name())
        };
        rows.sort_by_cached_key(rank);
        let hidden = rows.len().saturating_sub(limit) as u64;
        rows.truncate(limit);
        let rows = rows.into_iter();
        Excerpt {
            head: self.told(Vec::new(), 0),
            rows: rows.map(|(key, entry)| (*key, entry.clone())).collect(),
            hidden,
            forgotten: self.forgotten,
        }
    }

    /// The same of what nearly belonged to these calls, during them or afterwards: only its packets, also of a source that sent others.
    pub fn drops_near(&self, calls: &BTreeSet<u64>, limit: usize) -> view::Drops {
        let both = [&self.hits, &self.late];
        let sources = calls
            .iter()
            .flat_map(|&call| both.into_iter().flat_map(move |hits| hits.dropped(call)))
            .collect();
        let mut drops = self.told(sources, limit);
        let left_out = calls
            .iter()
            .flat_map(|&call| both.map(|hits| hits.left_out(call)));
        drops.left_out_samples = left_out.sum();
        drops.chosen = Some(view::Chosen {
            calls: calls.iter().copied().collect(),
            ..view::Chosen::default()
        });
        drops
    }

    fn told(&self, mut sources: Vec<view::DroppedSource>, limit: usize) -> view::Drops {
        let mut reasons: Vec<_> = self
            .reasons()
            .map(|(reason, counted)| view::DroppedReason {
                reason: reason.name().to_owned(),
                verdict: verdict_name(!counted.passes).to_owned(),
                packets: counted.packets,
                samples: counted.samples,
            })
            .collect();
        reasons.sort_by(|a, b| (b.packets, &a.reason).cmp(&(a.packets, &b.reason)));
        sources.sort_by(|a, b| {
            (b.packets, a.source, &a.reason).cmp(&(a.packets, b.source, &b.reason))
        });
        let hidden = sources.len().saturating_sub(limit) as u64;
        sources.truncate(limit);
        view::Drops {
            since: view::time(self.since),
            chosen: None,
            reasons,
            sources,
            more_sources: hidden,
            forgotten_sources: 0,
            left_out_samples: 0,
        }
    }

    /// Who knocks, with at most so many networks.
    pub fn strangers(&self, limit: usize) -> view::Strangers {
        let counted = self.reasons.get(&Reason::UnknownSource);
        let counted = counted.copied().unwrap_or_default();
        let (strangers, more_strangers) = self.knocking.view(limit);
        view::Strangers {
            since: view::time(self.since),
            packets: counted.packets,
            samples: counted.samples,
            strangers,
            more_strangers,
        }
    }

    /// Whether the ports of this call were hit, or nearly.
    pub fn is_hit(&self, call: u64) -> bool {
        self.hits.is_hit(call)
    }

    /// The calls whose ports were hit, or nearly.
    pub fn hit_calls(&self) -> impl Iterator<Item = u64> {
        self.hits.calls()
    }

    /// Who hit one of them, most packets first. `is_own`: what this address sends is the call's.
    pub fn hits(&self, call: u64, is_own: impl Fn(IpAddr) -> bool) -> Vec<view::ReportedSource> {
        self.hits.of(call, is_own)
    }

    /// Who sent media to a port within a time and was dropped.
    pub fn strays(&self, local: SocketAddr, time: &RangeInclusive<Instant>) -> Vec<Stray> {
        self.strays.of(local, time)
    }
}

impl Entry {
    fn view(&self, reason: Reason, source: IpNet) -> view::DroppedSource {
        view::DroppedSource {
            source,
            reason: reason.name().to_owned(),
            packets: self.seen.packets(),
            samples: self.seen.samples,
            first_seen: view::time(self.seen.first),
            last_seen: view::time(self.seen.last),
            destination: self.destination,
            near: self.near.clone(),
        }
    }
}

/// The verdict's name in every view.
pub fn verdict_name(dropped: bool) -> &'static str {
    if dropped { "drop" } else { "would drop" }
}

/// Forgets a quarter of a full table, those with fewest packets, so that a newcomer seldom waits for this. Tells how many.
pub(super) fn forget_least<K: std::hash::Hash + Eq, V>(
    table: &mut HashMap<K, V>,
    packets: impl Fn(&V) -> f64,
) -> u64 {
    let before = table.len();
    let mut all: Vec<f64> = table.values().map(&packets).collect();
    let quarter = before / 4;
    let (_, limit, _) = all.select_nth_unstable_by(quarter, f64::total_cmp);
    let limit = *limit;
    table.retain(|_, entry| packets(entry) > limit);
    if table.is_empty() {
        // All alike: none of them tells more than the newcomer.
        return before as u64;
    }
    (before - table.len()) as u64
}

/// What counts as one sender: an IPv4 address, an IPv6 /64.
fn sender(address: IpAddr) -> IpNet {
    match address {
        IpAddr::V4(_) => address.into(),
        IpAddr::V6(six) => {
            Ipv6Net::new(six, 64).map_or_else(|_| address.into(), |net| net.trunc().into())
        }
    }
}
