//! The only writer of the kernel's pinholes: carries the engine's actions out, hands out slots, and finds what went idle.
//!
//! It does not decide what is open. Invariant: every pinhole in the kernel's maps is in `open`, and has a slot that no other one has.

mod maps;
mod pinholes;
mod succession;
mod terms;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    net::{SocketAddr, SocketAddrV4},
};

use aya::maps::MapError;
use sipfilter_common::{abi::map, classify::is_expired, slot::SlotCounts, value::Latch};

pub use maps::{KernelMaps, Maps};
pub use pinholes::KernelPinholes;
pub use succession::Succession;

use super::{
    clock,
    datapath::{Datapath, DatapathError},
    policy::{KernelPinhole, Place, name_hash, next_generation},
};
use crate::engine::{
    Instant,
    pinhole::{Arming, Pinhole, PinholeAction, PinholeResult},
    settings::{Provider, ProviderId},
};

/// Pinholes and slots in the kernel.
pub struct MapWriter<M = KernelMaps> {
    maps: M,
    open: BTreeMap<SocketAddr, Open>,
    /// When each open pinhole must be looked at again: not before its idle limit can have passed.
    deadlines: BTreeSet<(u64, SocketAddr)>,
    /// Slots to hand out, the one that has rested longest first.
    free: VecDeque<u32>,
    /// What each provider is known by under every policy.
    providers: Vec<u32>,
}

/// What was found in the maps at start.
#[derive(Debug, Default)]
pub struct Inheritance {
    /// Pinholes of providers that there still are. The engine is to adopt them.
    pub pinholes: Vec<Pinhole>,
    /// Pinholes of providers that there are no more: to be closed.
    pub orphans: Vec<SocketAddr>,
}

/// What is known of one open pinhole.
#[derive(Debug, Clone, Copy)]
struct Open {
    slot: u32,
    /// Which latching it was written with, and for which arming.
    generation: u16,
    arming: Option<Arming>,
    /// The slot's counts when the pinhole was opened: its predecessor's.
    baseline: SlotCounts,
    opened: u64,
    idle: u64,
    deadline: u64,
    /// The kernel refused to remove it. No call wants it any more, so nobody would ask again: `take_idle` tries until it is gone,
    /// whether or not packets still use it.
    doomed: bool,
}

/// How long the kernel may rest before it is asked again to remove a pinhole, in nanoseconds.
const CLOSE_AGAIN: u64 = 1_000_000_000;

/// A pinhole's traffic since it was opened. Times are nanoseconds of the monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Packets in.
    pub ingress_packets: u64,
    /// Packets out.
    pub egress_packets: u64,
    /// Packets dropped.
    pub dropped_packets: u64,
    /// The last packet in, if there was one.
    pub ingress_last: Option<u64>,
    /// The last packet out, if there was one.
    pub egress_last: Option<u64>,
    /// What its latch holds, if it has one.
    pub latch: Option<LatchState>,
}

/// What a latch holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LatchState {
    /// Nobody yet.
    Waiting,
    /// This source.
    Source(SocketAddrV4),
    /// A source of which it knows a hash only.
    Hashed,
}

impl fmt::Display for LatchState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting => f.write_str("waiting"),
            Self::Source(source) => source.fmt(f),
            Self::Hashed => f.write_str("latched"),
        }
    }
}

impl LatchState {
    /// What a slot's word says to a pinhole of this generation.
    pub fn read(word: u64, generation: u16, is_v4: bool) -> Self {
        let latch = Latch(word);
        match latch.generation() == generation {
            false => Self::Waiting,
            true if is_v4 => Self::Source(latch.source4()),
            true => Self::Hashed,
        }
    }
}

impl MapWriter<KernelMaps> {
    /// Takes new maps over, of no provider in particular.
    ///
    /// # Errors
    /// [`DatapathError`] if a map is missing or unreadable.
    pub fn new(datapath: &mut Datapath, capacity: u32) -> Result<Self, DatapathError> {
        Self::inheriting(datapath, capacity, &[]).map(|(writer, _)| writer)
    }

    /// Takes the maps over, and what an earlier run has left in them.
    ///
    /// # Errors
    /// [`DatapathError`] if a map is missing or unreadable.
    pub fn inheriting(
        datapath: &mut Datapath,
        capacity: u32,
        providers: &[Provider],
    ) -> Result<(Self, Inheritance), DatapathError> {
        Self::with(KernelMaps::take(datapath)?, capacity, providers)
            .map_err(DatapathError::of_map(map::PINHOLES4))
    }
}

impl<M: Maps> MapWriter<M> {
    fn with(
        maps: M,
        capacity: u32,
        providers: &[Provider],
    ) -> Result<(Self, Inheritance), MapError> {
        let mut writer = Self {
            maps,
            open: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            free: VecDeque::new(),
            providers: Vec::new(),
        };
        writer.set_providers(providers);
        let inheritance = writer.adopt()?;
        let taken: BTreeSet<u32> = writer.open.values().map(|open| open.slot).collect();
        writer.free = (0..capacity).filter(|slot| !taken.contains(slot)).collect();
        Ok((writer, inheritance))
    }

    /// The providers, by number.
    pub fn set_providers(&mut self, providers: &[Provider]) {
        self.providers = providers
            .iter()
            .map(|provider| name_hash(&provider.name))
            .collect();
    }

    /// Closes a pinhole that was found and that nobody is to have.
    pub fn disinherit(&mut self, local: SocketAddr, now: Instant) {
        if let Err(error) = self.close(local, clock::to_kernel(now.0)) {
            tracing::error!(%error, %local, "a pinhole that no call wants could not be closed; trying again");
        }
    }

    /// Carries one action out.
    pub fn apply(&mut self, action: &PinholeAction, now: Instant) -> PinholeResult {
        let done = match action {
            PinholeAction::Open(pinhole) | PinholeAction::Update(pinhole) => {
                self.write(pinhole, clock::to_kernel(now.0))
            }
            PinholeAction::Close { local, .. } => self.close(*local, clock::to_kernel(now.0)),
        };
        done.unwrap_or_else(|error| {
            tracing::error!(%error, ?action, "the kernel refused a pinhole");
            if is_full(&error) {
                PinholeResult::Full
            } else {
                PinholeResult::Failed
            }
        })
    }

    /// Pinholes whose idle limit has passed. Those that the kernel would not remove are closed here; the others are the engine's to close.
    pub fn take_idle(&mut self, now: Instant) -> Vec<SocketAddr> {
        let now = clock::to_kernel(now.0);
        let mut idle = Vec::new();
        while let Some(&(deadline, local)) = self.deadlines.first() {
            if deadline > now {
                break;
            }
            self.deadlines.pop_first();
            let Some(open) = self.open.get_mut(&local) else {
                continue;
            };
            let last = self
                .maps
                .counts(open.slot)
                .map_or(0, |counts| counts.ingress_last.max(counts.egress_last));
            let expired = open.doomed || is_expired(open.opened, last, open.idle, now);
            // An idle one is asked about again after a while, should the engine want to keep it.
            open.deadline = if expired { now } else { open.opened.max(last) }
                .saturating_add(open.idle)
                .saturating_add(1);
            self.deadlines.insert((open.deadline, local));
            if expired {
                idle.push((local, open.doomed));
            }
        }
        idle.into_iter()
            .filter_map(|(local, ours)| {
                if ours && let Err(error) = self.close(local, now) {
                    tracing::error!(%error, %local, "a pinhole that no call wants could not be closed; trying again");
                }
                (!ours).then_some(local)
            })
            .collect()
    }

    /// When [`Self::take_idle`] should be called next.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines
            .first()
            .map(|&(deadline, _)| clock::from_kernel(deadline))
    }

    /// A pinhole's traffic, if it is open.
    pub fn traffic(&self, local: &SocketAddr) -> Option<Traffic> {
        let open = self.open.get(local)?;
        let counts = self.maps.counts(open.slot).ok()?;
        let base = &open.baseline;
        Some(Traffic {
            ingress_packets: counts.ingress_packets.wrapping_sub(base.ingress_packets),
            egress_packets: counts.egress_packets.wrapping_sub(base.egress_packets),
            dropped_packets: counts.dropped_packets.wrapping_sub(base.dropped_packets),
            ingress_last: (counts.ingress_packets != base.ingress_packets)
                .then_some(counts.ingress_last),
            egress_last: (counts.egress_packets != base.egress_packets)
                .then_some(counts.egress_last),
            latch: open
                .arming
                .map(|_| LatchState::read(counts.latch, open.generation, local.is_ipv4())),
        })
    }

    fn adopt(&mut self) -> Result<Inheritance, MapError> {
        let mut found = self.maps.pinholes()?;
        // The engine numbers calls in the order in which it hears of them.
        found.sort_by_key(|(pinhole, place)| (place.opened, pinhole.local));
        let mut inheritance = Inheritance::default();
        for (pinhole, place) in found {
            let local = pinhole.local;
            let deadline = place.opened.saturating_add(place.idle).saturating_add(1);
            self.deadlines.insert((deadline, local));
            self.open.insert(
                local,
                Open {
                    slot: place.slot,
                    generation: place.generation,
                    arming: pinhole.latch,
                    baseline: SlotCounts::default(),
                    opened: place.opened,
                    idle: place.idle,
                    deadline,
                    doomed: false,
                },
            );
            let provider = self
                .providers
                .iter()
                .position(|name| *name == place.provider)
                .and_then(|number| u16::try_from(number).ok());
            match provider {
                Some(number) if !pinhole.sources.is_empty() => {
                    inheritance.pinholes.push(Pinhole {
                        provider: ProviderId(number),
                        ..pinhole
                    });
                }
                _ => inheritance.orphans.push(local),
            }
        }
        Ok(inheritance)
    }

    fn write(&mut self, pinhole: &Pinhole, now: u64) -> Result<PinholeResult, MapError> {
        let known = self.open.get(&pinhole.local).copied();
        let Some(slot) = known
            .map(|open| open.slot)
            .or_else(|| self.free.pop_front())
        else {
            return Ok(PinholeResult::Full);
        };
        let idle = clock::to_kernel(pinhole.idle);
        let found = self.maps.counts(slot).unwrap_or_default();
        let generation = next_generation(
            known.map(|open| (open.generation, open.arming)),
            pinhole.latch,
            Latch(found.latch),
        );
        let place = Place {
            slot,
            generation,
            opened: now,
            idle,
            provider: self
                .providers
                .get(usize::from(pinhole.provider.0))
                .copied()
                .unwrap_or_default(),
        };
        if let Err(error) = self.maps.insert(KernelPinhole::new(pinhole, place)) {
            if known.is_none() {
                self.free.push_front(slot);
            }
            return Err(error);
        }
        if let Some(open) = known {
            self.deadlines.remove(&(open.deadline, pinhole.local));
        }
        let deadline = now.saturating_add(idle).saturating_add(1);
        self.deadlines.insert((deadline, pinhole.local));
        self.open.insert(
            pinhole.local,
            Open {
                slot,
                generation,
                arming: pinhole.latch,
                baseline: known.map_or(found, |open| open.baseline),
                opened: now,
                idle,
                deadline,
                doomed: false,
            },
        );
        Ok(PinholeResult::Done)
    }

    fn close(&mut self, local: SocketAddr, now: u64) -> Result<PinholeResult, MapError> {
        let Some(open) = self.open.get(&local).copied() else {
            return Ok(PinholeResult::Done);
        };
        match self.maps.remove(local) {
            // Somebody emptied the map by hand: what was to be reached is reached.
            Ok(()) | Err(MapError::KeyNotFound | MapError::ElementNotFound) => {}
            Err(error) => {
                self.deadlines.remove(&(open.deadline, local));
                let deadline = now.saturating_add(CLOSE_AGAIN);
                self.deadlines.insert((deadline, local));
                let doomed = Open {
                    deadline,
                    doomed: true,
                    ..open
                };
                self.open.insert(local, doomed);
                return Err(error);
            }
        }
        self.open.remove(&local);
        self.deadlines.remove(&(open.deadline, local));
        self.free.push_back(open.slot);
        Ok(PinholeResult::Done)
    }
}

fn is_full(error: &MapError) -> bool {
    matches!(error, MapError::SyscallError(error) if error.io_error.raw_os_error() == Some(rustix::io::Errno::TOOBIG.raw_os_error())
        || error.io_error.raw_os_error() == Some(rustix::io::Errno::NOSPC.raw_os_error())
        || error.io_error.raw_os_error() == Some(rustix::io::Errno::NOMEM.raw_os_error()))
}
