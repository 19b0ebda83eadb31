//! The kernel's maps, copied into tables of ordinary memory: what the policy would look at, at this moment.
//!
//! It reads and never writes. Between two reads the kernel goes on, so that a copy may hold one pinhole that has closed meanwhile. What
//! only the running programs know (constants, places that are open for a fifth of a second) comes from the configuration, or not at all.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, SystemTime},
};

use aya::maps::{Array, HashMap, LpmTrie, MapData, lpm_trie::Key};
use ipnet::IpNet;
use sipfilter_common::{
    abi::map,
    addr::{Address, Ipv4, Ipv6},
    classify::FamilyTables as _,
    host::HostTables,
    key::FlowKey,
    slot::SlotCounts,
    value::{self, AllowList, Flags, Latch, MediaLimits, ProviderRule, Shapes},
};

use super::super::maps::open;
use crate::{
    engine::{
        CallNumber, Instant,
        pinhole::{Arming, Extras, Label, PacketRate, Pinhole, Source, Stream, Terms},
        settings::{ProviderId, Settings},
    },
    explain::Scene,
    shell::{
        clock,
        pins::{PinError, Pins},
        policy::KernelPolicy,
        slots::Slots,
    },
    view,
};

/// Numbers from here on stand for calls that only the maps know.
const UNKNOWN_CALLS: u64 = 1 << 63;

/// Settings, tables, and the pinholes in the engine's words.
pub(super) struct Copied {
    settings: Settings,
    pub(super) tables: HostTables,
    pinholes: BTreeMap<SocketAddr, Lying>,
    now: Instant,
}

/// A pinhole and what lies beside it.
struct Lying {
    pinhole: Pinhole,
    generation: u16,
    opened: u64,
    counts: SlotCounts,
}

impl Copied {
    /// A configuration alone: no call is in progress.
    pub(super) fn of_settings(settings: Settings) -> Self {
        let tables = KernelPolicy::new(&settings).host_tables(0);
        Self::new(settings, tables)
    }

    /// The pinned maps. `told`: the running daemon's own list, which knows calls by their numbers.
    pub(super) fn of_maps(
        settings: Settings,
        pins: &Pins,
        told: &[view::Pinhole],
    ) -> Result<Self, PinError> {
        let constants = KernelPolicy::new(&settings).settings;
        let mut copied = Self::new(settings, HostTables::new(constants, 0));
        copied.tables.settings.latch_key = pins.stamp()?.latch_key;
        copied.policy(pins)?;
        let slots = Slots::open(pins)?;
        let counts = |slot| slots.counts(slot).unwrap_or_default();
        let numbers: BTreeMap<SocketAddr, u64> = told
            .iter()
            .map(|pinhole| (pinhole.local, pinhole.call))
            .collect();
        let four: Array<MapData, value::Pinhole<Ipv4>> = open(pins, map::PINHOLES4)?;
        for entry in four.iter() {
            let found = entry.map_err(|source| pins.map_error(map::PINHOLES4, source))?;
            if let Some(slot) = copied.add(&found, &counts, &numbers, Ipv4::prefix_length) {
                let own = value::Pinhole { slot, ..found };
                copied.tables.pinholes4.insert(found.local, own);
            }
        }
        let six: Array<MapData, value::Pinhole<Ipv6>> = open(pins, map::PINHOLES6)?;
        for entry in six.iter() {
            let found = entry.map_err(|source| pins.map_error(map::PINHOLES6, source))?;
            if let Some(slot) = copied.add(&found, &counts, &numbers, Ipv6::prefix_length) {
                let own = value::Pinhole { slot, ..found };
                copied.tables.pinholes6.insert(found.local, own);
            }
        }
        copied.flows(pins)?;
        Ok(copied)
    }

    fn new(settings: Settings, tables: HostTables) -> Self {
        let now = clock::now();
        tables.now.set(clock::to_kernel(now.0));
        Self {
            settings,
            tables,
            pinholes: BTreeMap::new(),
            now,
        }
    }

    /// Every open pinhole, and when it was opened.
    pub(super) fn pinholes(&self) -> impl Iterator<Item = (Instant, &Pinhole)> {
        self.pinholes
            .values()
            .map(|lying| (clock::from_kernel(lying.opened), &lying.pinhole))
    }

    /// When something was that was so long ago.
    pub(super) fn ago(&self, seconds: f64) -> Instant {
        let ago = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        Instant(self.now.0.saturating_sub(ago))
    }

    /// Takes a pinhole in, if it is one, and tells the number of its slot here.
    fn add<A: Address + Into<IpAddr>>(
        &mut self,
        found: &value::Pinhole<A>,
        counts: &impl Fn(u32) -> SlotCounts,
        numbers: &BTreeMap<SocketAddr, u64>,
        prefix_length: impl Fn(A) -> u8,
    ) -> Option<u32> {
        if found.local.port() == 0 {
            return None;
        }
        let counts = counts(found.slot);
        let slot = u32::try_from(self.tables.slots.len()).ok()?;
        self.tables.slots.push(counts.into());
        let local = SocketAddr::new(found.local.address().into(), found.local.port());
        let call = match numbers.get(&local) {
            Some(number) => CallNumber(*number),
            None => CallNumber(UNKNOWN_CALLS | found.call),
        };
        let lying = Lying {
            generation: found.generation,
            opened: found.opened,
            counts,
            pinhole: in_words(local, found, call, prefix_length),
        };
        self.pinholes.insert(local, lying);
        Some(slot)
    }

    /// What the running programs know of providers.
    fn policy(&mut self, pins: &Pins) -> Result<(), PinError> {
        let tables = &mut self.tables;
        prefixes::<Ipv4, ProviderRule>(pins, map::PROVIDERS4, |net, length, rule| {
            tables.add_provider(net, length, rule);
        })?;
        prefixes::<Ipv6, ProviderRule>(pins, map::PROVIDERS6, |net, length, rule| {
            tables.add_provider(net, length, rule);
        })?;
        prefixes::<Ipv4, AllowList>(pins, map::ALLOWED4, |net, length, list| {
            tables.add_allowed(net, length, list);
        })?;
        prefixes::<Ipv6, AllowList>(pins, map::ALLOWED6, |net, length, list| {
            tables.add_allowed(net, length, list);
        })?;
        prefixes::<Ipv4, MediaLimits>(pins, map::MEDIA_LIMITS4, |net, length, limits| {
            tables.add_media_limits(net, length, limits);
        })?;
        prefixes::<Ipv6, MediaLimits>(pins, map::MEDIA_LIMITS6, |net, length, limits| {
            tables.add_media_limits(net, length, limits);
        })
    }

    /// The flows that the protected hosts began, where the maps for them are in use.
    fn flows(&mut self, pins: &Pins) -> Result<(), PinError> {
        if pins.path(map::FLOWS4).exists() {
            let four: HashMap<MapData, FlowKey<Ipv4>, u64> = open(pins, map::FLOWS4)?;
            for (key, at) in four.iter().filter_map(Result::ok) {
                self.tables.remember_flow(&key, at);
            }
        }
        if pins.path(map::FLOWS6).exists() {
            let six: HashMap<MapData, FlowKey<Ipv6>, u64> = open(pins, map::FLOWS6)?;
            for (key, at) in six.iter().filter_map(Result::ok) {
                self.tables.remember_flow(&key, at);
            }
        }
        Ok(())
    }
}

fn prefixes<A, V>(
    pins: &Pins,
    name: &'static str,
    mut add: impl FnMut(IpAddr, u8, V),
) -> Result<(), PinError>
where
    A: Address + aya::Pod + Into<IpAddr>,
    V: aya::Pod,
{
    let trie: LpmTrie<MapData, A, V> = open(pins, name)?;
    for entry in trie.iter() {
        let (key, value): (Key<A>, V) = entry.map_err(|source| pins.map_error(name, source))?;
        if let Ok(length) = u8::try_from(key.prefix_len()) {
            add(key.data().into(), length, value);
        }
    }
    Ok(())
}

fn in_words<A: Address + Into<IpAddr>>(
    local: SocketAddr,
    found: &value::Pinhole<A>,
    call: CallNumber,
    prefix_length: impl Fn(A) -> u8,
) -> Pinhole {
    let sources = found
        .sources
        .iter()
        .filter(|source| source.port_min <= source.port_max)
        .filter_map(|source| {
            Some(Source {
                net: IpNet::new(source.address.into(), prefix_length(source.mask)).ok()?,
                ports: (source.port_min, source.port_max),
            })
        });
    let rtcp = found.flags.has(Flags::RTCP);
    let stream = match (found.shapes.is_any(), found.payload_types.bits() == 0) {
        (true, _) => Stream::Udptl,
        (false, true) if rtcp => Stream::Rtcp,
        (false, _) => Stream::Rtp,
    };
    Pinhole {
        local,
        sources: sources.collect(),
        stream,
        extras: Extras {
            stun: found.shapes.admits(Shapes::STUN),
            dtls: found.shapes.admits(Shapes::DTLS),
        },
        terms: Terms {
            payload_types: found.payload_types,
            rtcp,
            packets_per_second: found
                .budget
                .packets_per_second()
                .map_or(PacketRate::UNLIMITED, PacketRate::new),
        },
        latch: found
            .flags
            .has(Flags::LATCH)
            .then_some(Arming { call, turn: 0 }),
        idle: Duration::from_nanos(found.idle),
        provider: ProviderId(found.provider),
        call,
        label: Label(found.call),
    }
}

impl Scene for Copied {
    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn tables(&self) -> &HostTables {
        &self.tables
    }

    fn pinhole(&self, local: &SocketAddr) -> Option<&Pinhole> {
        self.pinholes.get(local).map(|lying| &lying.pinhole)
    }

    fn latched(&self, local: &SocketAddr) -> Option<SocketAddr> {
        let lying = self.pinholes.get(local)?;
        let latch = Latch(lying.counts.latch);
        let is_told = lying.pinhole.latch.is_some() && local.is_ipv4();
        (is_told && latch.generation() == lying.generation).then(|| latch.source4().into())
    }

    fn last_packet(&self, local: &SocketAddr) -> Option<Instant> {
        let lying = self.pinholes.get(local)?;
        let last = lying.counts.ingress_last.max(lying.counts.egress_last);
        Some(clock::from_kernel(last.max(lying.opened)))
    }

    fn when(&self, at: Instant) -> String {
        let ago = self.now.0.saturating_sub(at.0);
        let time = SystemTime::now()
            .checked_sub(ago)
            .unwrap_or(SystemTime::UNIX_EPOCH);
        format!(
            "{} ({} s ago)",
            humantime::format_rfc3339_seconds(time),
            ago.as_secs()
        )
    }

    fn call_name(&self, call: CallNumber) -> String {
        match known(call) {
            Some(number) => format!("call {number}"),
            None => "a call of an earlier run".to_owned(),
        }
    }
}

/// The running daemon's number for a call, if it has one.
pub(super) fn known(call: CallNumber) -> Option<u64> {
    (call.0 & UNKNOWN_CALLS == 0).then_some(call.0)
}
