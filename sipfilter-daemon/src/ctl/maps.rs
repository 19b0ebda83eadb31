//! `sipfilterctl maps`: the pinned kernel maps as they are. Works without the daemon.

use std::{
    collections::BTreeMap,
    io::Write,
    net::{IpAddr, SocketAddr},
};

use aya::maps::{Array, LpmTrie, MapData, MapError};
use clap::Subcommand;
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Serialize;
use sipfilter_common::{
    abi::map,
    addr::{Address, Ipv4, Ipv6},
    settings::Transport,
    value::{self, Flags, ProviderRule, Shapes},
};

use super::{CtlError, Outcome, Session, output, stats};
use crate::{
    shell::{
        detach_all,
        map_writer::LatchState,
        pins::{PinError, Pins},
        runtime_dir::RuntimeDir,
        slots::Slots,
    },
    view,
};

/// Arguments of `maps`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print providers, pinholes and counters as the kernel has them
    Dump,
    /// Detach the programs of a daemon that does not run any more, and forget its calls
    Remove,
}

/// The JSON answer of `dump`.
#[derive(Serialize, JsonSchema)]
pub(super) struct Dump {
    /// The layout of the maps.
    abi_version: u16,
    /// Pinholes that there is room for.
    pinhole_capacity: u32,
    /// A hash of what decides about packets: addresses, ports, providers.
    policy: String,
    /// Prefixes that signalling may come from.
    providers: Vec<Provider>,
    /// Open pinholes.
    pinholes: Vec<Pinhole>,
    /// One for each reason and note.
    counters: Vec<view::Counter>,
}

#[derive(Serialize, JsonSchema)]
struct Provider {
    /// Addresses.
    #[schemars(with = "String")]
    prefix: IpNet,
    /// The provider's number: its trunk's place in the configuration.
    provider: u16,
    /// `udp`, `tcp`, `tls`.
    transports: Vec<&'static str>,
}

#[derive(Serialize, JsonSchema)]
struct Pinhole {
    /// The protected address and port.
    local: SocketAddr,
    /// Who may send.
    sources: Vec<view::Source>,
    /// What may pass, by RFC 7983.
    shapes: Vec<&'static str>,
    /// RTP payload types; `null` where they do not matter.
    payload_types: Option<Vec<u8>>,
    /// Packets per second in the long run; `null` without a limit.
    packets_per_second: Option<u32>,
    /// `waiting`, the source that it has latched to, or `latched` where the kernel knows a hash of that only; `null` without a latch.
    latch: Option<String>,
    /// The provider's number.
    provider: u16,
    /// A hash that only sipfilterd can tell a call by; zeros where several calls share the pinhole.
    call: String,
    /// Where the kernel counts its packets.
    slot: u32,
    /// Closed after this long without a packet.
    idle_limit_seconds: f64,
    /// Counts of the slot: of every pinhole that has had it.
    slot_counts: Counts,
}

#[derive(Serialize, JsonSchema)]
struct Counts {
    /// Came in and passed.
    ingress_packets: u64,
    /// Left.
    egress_packets: u64,
    /// Came in and were dropped.
    dropped_packets: u64,
}

pub(super) fn run(args: &Args, session: &mut Session<'_>) -> Result<Outcome, CtlError> {
    let pins = Pins::of_runtime_dir(session.runtime_dir);
    match args.action {
        Action::Dump => session.answer(&look(&pins)?, dump)?,
        Action::Remove => {
            // A running daemon holds the lock; it keeps its maps.
            let _lock = RuntimeDir::lock(session.runtime_dir)?;
            detach_all(&pins);
            pins.remove()?;
        }
    }
    Ok(Outcome::Done)
}

fn look(pins: &Pins) -> Result<Dump, CtlError> {
    let stamp = pins.stamp()?;
    Ok(Dump {
        abi_version: stamp.abi_version,
        pinhole_capacity: stamp.pinholes,
        policy: format!("{:016x}", stamp.policy),
        providers: providers(pins)?,
        pinholes: pinholes(pins)?,
        counters: stats::read(pins)?.0,
    })
}

fn dump(out: &mut dyn Write, dump: &Dump) -> Result<(), CtlError> {
    writeln!(
        out,
        "ABI version {}, room for {} pinholes, policy {}\n",
        dump.abi_version, dump.pinhole_capacity, dump.policy
    )?;
    let rows = dump.providers.iter().map(|rule| {
        vec![
            rule.prefix.to_string(),
            rule.provider.to_string(),
            rule.transports.join(" "),
        ]
    });
    output::table(out, &["SIGNALLING PREFIX", "PROVIDER", "TRANSPORTS"], rows)?;
    writeln!(out)?;
    let rows = dump.pinholes.iter().map(|pinhole| {
        let sources: Vec<_> = pinhole.sources.iter().map(output::source).collect();
        vec![
            pinhole.local.to_string(),
            output::cell(&sources, "-"),
            pinhole.shapes.join(" "),
            output::payload_types(pinhole.payload_types.as_deref()),
            pinhole
                .packets_per_second
                .map_or_else(|| "-".to_owned(), |rate| rate.to_string()),
            pinhole.latch.clone().unwrap_or_else(|| "-".to_owned()),
            pinhole.provider.to_string(),
            pinhole.call.clone(),
            pinhole.slot.to_string(),
            pinhole.slot_counts.ingress_packets.to_string(),
            pinhole.slot_counts.egress_packets.to_string(),
            pinhole.slot_counts.dropped_packets.to_string(),
        ]
    });
    output::table(
        out,
        &[
            "PINHOLE",
            "FROM",
            "SHAPES",
            "TYPES",
            "PPS",
            "LATCH",
            "PROVIDER",
            "CALL",
            "SLOT",
            "SLOT IN",
            "SLOT OUT",
            "SLOT DROPPED",
        ],
        rows,
    )?;
    writeln!(out)?;
    stats::table(out, &dump.counters)
}

fn providers(pins: &Pins) -> Result<Vec<Provider>, PinError> {
    let mut rules = BTreeMap::new();
    let four: LpmTrie<MapData, Ipv4, ProviderRule> = open(pins, map::PROVIDERS4)?;
    for entry in four.iter() {
        let (key, rule) = entry.map_err(|source| pins.map_error(map::PROVIDERS4, source))?;
        insert(&mut rules, IpAddr::from(key.data()), key.prefix_len(), rule);
    }
    let six: LpmTrie<MapData, Ipv6, ProviderRule> = open(pins, map::PROVIDERS6)?;
    for entry in six.iter() {
        let (key, rule) = entry.map_err(|source| pins.map_error(map::PROVIDERS6, source))?;
        insert(&mut rules, IpAddr::from(key.data()), key.prefix_len(), rule);
    }
    Ok(rules
        .into_iter()
        .map(|(prefix, rule)| Provider {
            prefix,
            provider: rule.provider,
            transports: transports(&rule),
        })
        .collect())
}

fn insert(
    rules: &mut BTreeMap<IpNet, ProviderRule>,
    network: IpAddr,
    length: u32,
    rule: ProviderRule,
) {
    if let Some(prefix) = u8::try_from(length)
        .ok()
        .and_then(|length| IpNet::new(network, length).ok())
    {
        rules.insert(prefix, rule);
    }
}

fn transports(rule: &ProviderRule) -> Vec<&'static str> {
    [
        (Transport::Udp, "udp"),
        (Transport::Tcp, "tcp"),
        (Transport::Tls, "tls"),
    ]
    .into_iter()
    .filter(|(transport, _)| rule.allows(*transport))
    .map(|(_, name)| name)
    .collect()
}

fn pinholes(pins: &Pins) -> Result<Vec<Pinhole>, PinError> {
    let slots = Slots::open(pins)?;
    let mut pinholes = Vec::new();
    let four: Array<MapData, value::Pinhole<Ipv4>> = open(pins, map::PINHOLES4)?;
    for entry in four.iter() {
        let pinhole = entry.map_err(|source| pins.map_error(map::PINHOLES4, source))?;
        if pinhole.local.port() != 0 {
            let local = SocketAddr::new(pinhole.local.address().into(), pinhole.local.port());
            pinholes.push(show(local, &pinhole, &slots, Ipv4::prefix_length));
        }
    }
    let six: Array<MapData, value::Pinhole<Ipv6>> = open(pins, map::PINHOLES6)?;
    for entry in six.iter() {
        let pinhole = entry.map_err(|source| pins.map_error(map::PINHOLES6, source))?;
        if pinhole.local.port() != 0 {
            let local = SocketAddr::new(pinhole.local.address().into(), pinhole.local.port());
            pinholes.push(show(local, &pinhole, &slots, Ipv6::prefix_length));
        }
    }
    pinholes.sort_by_key(|pinhole| pinhole.local);
    Ok(pinholes)
}

fn show<A: Address + Into<IpAddr>>(
    local: SocketAddr,
    pinhole: &value::Pinhole<A>,
    slots: &Slots,
    prefix_length: impl Fn(A) -> u8,
) -> Pinhole {
    let counts = slots.counts(pinhole.slot).unwrap_or_default();
    let sources = pinhole
        .sources
        .iter()
        .filter(|source| source.port_min <= source.port_max)
        .filter_map(|source| {
            let net = IpNet::new(source.address.into(), prefix_length(source.mask)).ok()?;
            Some(view::Source {
                net,
                ports: format!("{}-{}", source.port_min, source.port_max),
            })
        });
    Pinhole {
        local,
        sources: sources.collect(),
        shapes: shapes(pinhole.shapes, pinhole.flags),
        payload_types: (!pinhole.shapes.is_any())
            .then(|| view::payload_types(pinhole.payload_types)),
        packets_per_second: pinhole.budget.packets_per_second(),
        latch: pinhole.flags.has(Flags::LATCH).then(|| {
            LatchState::read(counts.latch, pinhole.generation, local.is_ipv4()).to_string()
        }),
        provider: pinhole.provider,
        call: format!("{:016x}", pinhole.call),
        slot: pinhole.slot,
        idle_limit_seconds: std::time::Duration::from_nanos(pinhole.idle).as_secs_f64(),
        slot_counts: Counts {
            ingress_packets: counts.ingress_packets,
            egress_packets: counts.egress_packets,
            dropped_packets: counts.dropped_packets,
        },
    }
}

fn shapes(shapes: Shapes, flags: Flags) -> Vec<&'static str> {
    if shapes == Shapes::ANY {
        return vec!["any"];
    }
    let mut names: Vec<_> = [
        (Shapes::RTP, "rtp"),
        (Shapes::STUN, "stun"),
        (Shapes::DTLS, "dtls"),
    ]
    .into_iter()
    .filter(|(shape, _)| shapes.admits(*shape))
    .map(|(_, name)| name)
    .collect();
    if flags.has(Flags::RTCP) {
        names.push("rtcp");
    }
    names
}

/// One of the pinned maps.
pub(super) fn open<M>(pins: &Pins, name: &'static str) -> Result<M, PinError>
where
    M: TryFrom<aya::maps::Map, Error = MapError>,
{
    pins.open(name)
        .and_then(|map| M::try_from(map).map_err(|source| pins.map_error(name, source)))
}
