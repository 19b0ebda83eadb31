//! The policy in the kernel's form: load-time constants, signalling prefixes, pinholes.
//!
//! Pure translation; `datapath` and `map_writer` carry it into the kernel, and host tests into tables of their own.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use ipnet::IpNet;
use sipfilter_common::{
    addr::{Address, Ipv4, Ipv6},
    budget::Budgets,
    host::HostTables,
    key::PinholeKey,
    settings::{self as kernel, MAX_OUTER, MAX_PORTS, MAX_PROTECTED, Modes, PortRange},
    value::{
        self, AllowList, Budget, Flags, Latch, MAX_SOURCES, MediaLimits, MediaPorts, ProviderRule,
        Shapes, Source,
    },
};

use super::{clock, scope};
use crate::engine::{
    pinhole::{Arming, BURST, Pinhole, Stream},
    settings::{EarlyMedia, Settings, SignallingPorts, SignallingRates, Transport},
};

/// What the kernel is given of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelPolicy {
    /// The constants of both programs.
    pub settings: kernel::Settings,
    /// Signalling prefixes and what each allows, most specific rules complete in themselves.
    pub providers: BTreeMap<IpNet, ProviderRule>,
    /// The allow-list of strict scope by source prefix, each complete in itself.
    pub allowed: BTreeMap<IpNet, AllowList>,
    /// Where media goes to and comes from, by prefix, each complete in itself.
    pub media: BTreeMap<IpNet, MediaLimits>,
    /// Where each provider's media comes from, by the provider's number.
    pub provider_media: BTreeMap<(u16, IpNet), MediaPorts>,
}

impl KernelPolicy {
    /// Translates settings that `config` has checked; what exceeds the kernel's places is left out, which the check rules out.
    pub fn new(settings: &Settings) -> Self {
        Self {
            settings: constants(settings),
            providers: provider_rules(settings),
            allowed: scope::allow_lists(settings),
            media: scope::media_limits(settings),
            provider_media: scope::provider_media(settings),
        }
    }

    /// The same in ordinary memory, without pinholes.
    pub fn host_tables(&self, slots: usize) -> HostTables {
        let mut tables = HostTables::new(self.settings, slots);
        for (prefix, rule) in &self.providers {
            tables.add_provider(prefix.network(), prefix.prefix_len(), *rule);
        }
        for (prefix, list) in &self.allowed {
            tables.add_allowed(prefix.network(), prefix.prefix_len(), *list);
        }
        for (prefix, limits) in &self.media {
            tables.add_media_limits(prefix.network(), prefix.prefix_len(), *limits);
        }
        for ((provider, prefix), ports) in &self.provider_media {
            tables.add_provider_media(*provider, prefix.network(), prefix.prefix_len(), *ports);
        }
        tables
    }

    /// A number that changes whenever anything does that pinned maps rest on: not with what only the load brings (modes, outer
    /// interfaces, allow-list, media limits, early media, what a source of signalling may send), which changes nothing about an open
    /// pinhole.
    pub fn hash(&self) -> u64 {
        let settings = kernel::Settings {
            modes: Modes::DEFAULT,
            outer: [0; MAX_OUTER],
            ..self.settings
        };
        let mut providers = self.providers.clone();
        for rule in providers.values_mut() {
            rule.transports &= !ProviderRule::ON_OFFER;
            rule.budgets = Budgets::default();
        }
        // The debug form names every field and value; the hash only has to tell policies apart on one machine.
        fnv1a(format!("{settings:?} {providers:?}").as_bytes())
    }
}

/// FNV-1a, 64 bits: a stable hash for names and stamps, not for hostile input.
pub(super) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn constants(settings: &Settings) -> kernel::Settings {
    let pbx = &settings.pbx;
    let mut constants = kernel::Settings::EMPTY;
    let (four, six): (Vec<IpAddr>, Vec<IpAddr>) =
        pbx.addresses.iter().partition(|address| address.is_ipv4());
    for (place, address) in constants
        .protected4
        .iter_mut()
        .zip(four.iter().filter_map(as_v4))
    {
        *place = Ipv4::from(address);
        constants.protected4_count += 1;
    }
    for (place, address) in constants
        .protected6
        .iter_mut()
        .zip(six.iter().filter_map(as_v6))
    {
        *place = Ipv6::from(address);
        constants.protected6_count += 1;
    }
    debug_assert!(
        four.len() <= MAX_PROTECTED && six.len() <= MAX_PROTECTED,
        "checked by the configuration"
    );
    constants.rtp = PortRange {
        min: *pbx.rtp_ports.start(),
        max: *pbx.rtp_ports.end(),
    };
    if let Some(udptl) = &pbx.udptl_ports {
        constants.udptl = PortRange {
            min: *udptl.start(),
            max: *udptl.end(),
        };
    }
    constants.pbx = ports([&pbx.signalling]);
    constants.providers = ports(
        settings
            .providers
            .iter()
            .map(|provider| &provider.signalling_ports),
    );
    constants.modes = scope::all_modes(settings);
    constants
}

fn as_v4(address: &IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    }
}

fn as_v6(address: &IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(address) => Some(*address),
    }
}

fn ports<'a>(lists: impl IntoIterator<Item = &'a SignallingPorts>) -> kernel::Ports {
    let mut merged = kernel::Ports::default();
    for list in lists {
        add_ports(&mut merged.udp, &list.udp);
        add_ports(&mut merged.tcp, &list.tcp);
        add_ports(&mut merged.tls, &list.tls);
    }
    merged
}

fn add_ports(places: &mut [u16; MAX_PORTS], ports: &[u16]) {
    for &port in ports {
        if places.contains(&port) {
            continue;
        }
        if let Some(free) = places.iter_mut().find(|place| **place == 0) {
            *free = port;
        }
    }
}

/// Each prefix gets the transports of every provider whose prefixes hold it, because the kernel's longest match sees one rule only;
/// the rule names the provider with the most specific prefix, the first one configured where two are equal.
fn provider_rules(settings: &Settings) -> BTreeMap<IpNet, ProviderRule> {
    let mut rules: BTreeMap<IpNet, ProviderRule> = BTreeMap::new();
    for (number, provider) in settings.providers.iter().enumerate() {
        for prefix in &provider.signalling {
            rules.entry(prefix.trunc()).or_insert(ProviderRule {
                provider: number as u16,
                transports: match provider.early_media {
                    EarlyMedia::OnOffer => ProviderRule::ON_OFFER,
                    EarlyMedia::OnAnswer => 0,
                },
                budgets: budgets(&provider.rates),
            });
        }
    }
    for (prefix, rule) in &mut rules {
        for provider in &settings.providers {
            if provider
                .signalling
                .iter()
                .any(|wider| wider.contains(prefix))
            {
                rule.transports |= provider
                    .transports
                    .iter()
                    .map(|&t| kernel_transport(t).bit())
                    .fold(0, |a, b| a | b);
            }
        }
    }
    rules
}

/// Signalling that may come at once, as what may come in this time: it lets everything through that is merely uneven, and still leaves
/// most of the ring buffer to others.
const SIGNALLING_BURST: Duration = Duration::from_millis(250);
/// Packets that may come at once however low the rate is: a restarted provider's greetings come together.
const LEAST_BURST: u32 = 32;
/// Not less than the kernel's unit of a burst.
const BURST_UNIT: Duration = Duration::from_millis(2);

fn budgets(rates: &SignallingRates) -> Budgets {
    Budgets {
        begins: signalling_budget(rates.requests),
        continues: signalling_budget(rates.messages),
        segments: signalling_budget(rates.segments),
    }
}

fn signalling_budget(rate: u32) -> Budget {
    // The first packet needs no burst, and the kernel rounds down to its unit.
    let least = Duration::from_secs(u64::from(LEAST_BURST) - 1) / rate.max(1) + BURST_UNIT;
    Budget::new(rate, clock::to_kernel(SIGNALLING_BURST.max(least)))
}

fn kernel_transport(transport: Transport) -> kernel::Transport {
    match transport {
        Transport::Udp => kernel::Transport::Udp,
        Transport::Tcp => kernel::Transport::Tcp,
        Transport::Tls => kernel::Transport::Tls,
    }
}

/// A pinhole as the entry of one of the kernel's maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelPinhole {
    /// For IPv4.
    V4(PinholeKey<Ipv4>, value::Pinhole<Ipv4>),
    /// For IPv6.
    V6(PinholeKey<Ipv6>, value::Pinhole<Ipv6>),
}

/// Where and when a pinhole comes to lie. Times are nanoseconds of the monotonic clock.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Its slot.
    pub slot: u32,
    /// Which latching this is ([`next_generation`]).
    pub generation: u16,
    /// When it is opened or renewed.
    pub opened: u64,
    /// Its longest silence.
    pub idle: u64,
    /// Its provider, by [`name_hash`].
    pub provider: u32,
}

impl Place {
    /// Where and when a pinhole of the maps was written.
    pub fn of<A: Address>(pinhole: &value::Pinhole<A>) -> Self {
        Self {
            slot: pinhole.slot,
            generation: pinhole.generation,
            opened: pinhole.opened,
            idle: pinhole.idle,
            provider: pinhole.provider_name,
        }
    }
}

/// What a provider is known by under every policy.
pub fn name_hash(name: &str) -> u32 {
    let hash = fnv1a(name.as_bytes());
    (hash ^ hash >> 32) as u32
}

/// The generation to write with a pinhole. `known`: what it was written with last, and for which arming; else `found`, what lies in its
/// slot, is another pinhole's.
pub fn next_generation(
    known: Option<(u16, Option<Arming>)>,
    arming: Option<Arming>,
    found: Latch,
) -> u16 {
    match known {
        Some((generation, known)) if known == arming => generation,
        Some((generation, _)) => Latch::next_generation(generation),
        None => Latch::next_generation(found.generation()),
    }
}

impl KernelPinhole {
    /// Translates a pinhole. Sources of the other family match nothing and are left out.
    pub fn new(pinhole: &Pinhole, place: Place) -> Self {
        let port = pinhole.local.port();
        match pinhole.local.ip() {
            IpAddr::V4(address) => {
                let local = PinholeKey::new(address.into(), port);
                Self::V4(
                    local,
                    kernel_value(local, pinhole, place, |net| match net {
                        IpNet::V4(net) => {
                            Some((net.network().into(), Ipv4::mask(net.prefix_len())))
                        }
                        IpNet::V6(_) => None,
                    }),
                )
            }
            IpAddr::V6(address) => {
                let local = PinholeKey::new(address.into(), port);
                Self::V6(
                    local,
                    kernel_value(local, pinhole, place, |net| match net {
                        IpNet::V4(_) => None,
                        IpNet::V6(net) => {
                            Some((net.network().into(), Ipv6::mask(net.prefix_len())))
                        }
                    }),
                )
            }
        }
    }
}

fn kernel_value<A: Address + Default>(
    local: PinholeKey<A>,
    pinhole: &Pinhole,
    place: Place,
    convert: impl Fn(&IpNet) -> Option<(A, A)>,
) -> value::Pinhole<A> {
    let mut sources = [Source::none(); MAX_SOURCES];
    let wanted = pinhole.sources.iter().filter_map(|source| {
        let (address, mask) = convert(&source.net)?;
        Some(Source {
            address,
            mask,
            port_min: source.ports.0,
            port_max: source.ports.1,
        })
    });
    for (place, source) in sources.iter_mut().zip(wanted) {
        *place = source;
    }
    let mut shapes = match pinhole.stream {
        Stream::Rtp | Stream::Rtcp => Shapes::RTP,
        Stream::Udptl => Shapes::ANY,
    };
    if pinhole.extras.stun {
        shapes = shapes.with(Shapes::STUN);
    }
    if pinhole.extras.dtls {
        shapes = shapes.with(Shapes::DTLS);
    }
    let mut flags = Flags::default();
    if pinhole.terms.rtcp {
        flags = flags.with(Flags::RTCP);
    }
    if pinhole.latch.is_some() {
        flags = flags.with(Flags::LATCH);
    }
    let rate = pinhole.terms.packets_per_second.number();
    value::Pinhole {
        opened: place.opened,
        idle: place.idle,
        payload_types: pinhole.terms.payload_types,
        budget: Budget::new(rate.unwrap_or(0), clock::to_kernel(BURST)),
        slot: place.slot,
        shapes,
        flags,
        generation: place.generation,
        provider: pinhole.provider.0,
        sources,
        provider_name: place.provider,
        call: pinhole.label.0,
        local,
        filling: A::Filling::default(),
    }
}
