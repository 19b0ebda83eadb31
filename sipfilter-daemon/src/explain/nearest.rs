//! The nearest miss: what a dropped packet would have needed to pass.
//!
//! It remembers where pinholes were and for whom, and compares a packet that was dropped with them. It explains verdicts and never makes
//! one.
//!
//! Bounds: [`MAX_SPANS`] pinholes are remembered, the oldest are forgotten first, and a few per local address and port.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
};

use sipfilter_common::{
    addr::{Ipv4, Ipv6},
    classify::FamilyTables,
    host::HostTables,
    reason::Reason,
    settings::{Settings, Transport},
};

use super::{
    Scene,
    packet::{Packet, Protocol},
};
use crate::engine::{
    CallNumber, Instant,
    pinhole::{Extras, Pinhole, Source, Terms},
};
use crate::view::payload_types;

/// Pinholes that are remembered after they were closed.
pub const MAX_SPANS: usize = 65_536;
/// A pinhole at most so many ports away may be meant: RTP and RTCP come in pairs, and a call has a few of them.
const BESIDE: u16 = 8;
/// How many of them on one local address and port.
const MAX_SPANS_HERE: usize = 8;

/// Why a packet missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// SIP from an address that is no provider's.
    NotAProvider,
    /// SIP from a provider over a transport that it does not use.
    WrongTransport,
    /// There is a pinhole, for somebody else.
    WrongSource,
    /// There is a pinhole, and it was silent for too long.
    Expired,
    /// There is a pinhole for its source, but the packet is not what was negotiated.
    NotMedia,
    /// There is a pinhole for its source and for RTP, but not of this payload type.
    PayloadType,
    /// There is a pinhole for it, and more packets than its stream can need.
    RateLimited,
    /// There is a pinhole that has latched to another source.
    Latched,
    /// There was a pinhole.
    Closed,
    /// There was to be a pinhole for its source.
    NotYet,
    /// There is a pinhole a few ports beside.
    NextPort,
    /// There is a pinhole on this port of another protected address.
    OtherAddress,
    /// Its source may reach another port.
    OtherPort,
    /// Nothing comes near.
    Unnamed,
}

impl Why {
    /// A stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotAProvider => "not_a_provider",
            Self::WrongTransport => "wrong_transport",
            Self::WrongSource => "wrong_source",
            Self::Expired => "expired",
            Self::NotMedia => "not_media",
            Self::PayloadType => "payload_type",
            Self::RateLimited => "rate_limited",
            Self::Latched => "latched",
            Self::Closed => "closed",
            Self::NotYet => "not_yet",
            Self::NextPort => "next_port",
            Self::OtherAddress => "other_address",
            Self::OtherPort => "other_port",
            Self::Unnamed => "unnamed",
        }
    }
}

/// One explanation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Miss {
    /// Why.
    pub why: Why,
    /// Whose pinhole it missed.
    pub call: Option<CallNumber>,
    /// Where that is, where not at the packet's destination.
    pub place: Option<SocketAddr>,
}

/// A pinhole's life.
#[derive(Debug, Clone)]
struct Span {
    call: CallNumber,
    sources: Vec<Source>,
    opened: Instant,
    closed: Option<Instant>,
}

/// Where pinholes are and were.
#[derive(Debug, Default)]
pub struct History {
    spans: BTreeMap<SocketAddr, VecDeque<Span>>,
    /// The places of closed spans, the oldest first; a crowded place may stand here more often than it has spans.
    closed: VecDeque<SocketAddr>,
    /// Where a single address may send to now.
    by_source: BTreeMap<IpAddr, BTreeSet<SocketAddr>>,
}

impl History {
    /// A pinhole was opened or changed.
    pub fn open(&mut self, now: Instant, pinhole: &Pinhole) {
        let spans = self.spans.entry(pinhole.local).or_default();
        match spans.back_mut() {
            Some(span) if span.closed.is_none() => {
                forget_sources(&mut self.by_source, &span.sources, pinhole.local);
                span.call = pinhole.call;
                span.sources.clone_from(&pinhole.sources);
            }
            _ => spans.push_back(Span {
                call: pinhole.call,
                sources: pinhole.sources.clone(),
                opened: now,
                closed: None,
            }),
        }
        for address in pinhole.sources.iter().filter_map(host) {
            self.by_source
                .entry(address)
                .or_default()
                .insert(pinhole.local);
        }
    }

    /// A pinhole was closed.
    pub fn close(&mut self, now: Instant, local: SocketAddr) {
        let Some(spans) = self.spans.get_mut(&local) else {
            return;
        };
        let Some(span) = spans.back_mut().filter(|span| span.closed.is_none()) else {
            return;
        };
        span.closed = Some(now);
        forget_sources(&mut self.by_source, &span.sources, local);
        self.closed.push_back(local);
        if spans.len() > MAX_SPANS_HERE {
            spans.pop_front();
        }
        if self.closed.len() > MAX_SPANS {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some(oldest) = self.closed.pop_front() else {
            return;
        };
        if let Some(spans) = self.spans.get_mut(&oldest) {
            if spans.front().is_some_and(|span| span.closed.is_some()) {
                spans.pop_front();
            }
            if spans.is_empty() {
                self.spans.remove(&oldest);
            }
        }
    }

    /// What a dropped packet missed; `None` where no pinhole or provider would have helped (a malformed packet, a stray fragment).
    pub fn nearest(&self, scene: &impl Scene, packet: &Packet<'_>, reason: Reason) -> Option<Miss> {
        let here = |why| Miss {
            why,
            call: scene
                .pinhole(&packet.destination)
                .map(|pinhole| pinhole.call),
            place: None,
        };
        match reason {
            Reason::UnknownSource => Some(Miss {
                why: if provider(scene.tables(), packet.source.ip()).is_some() {
                    Why::WrongTransport
                } else {
                    Why::NotAProvider
                },
                call: None,
                place: None,
            }),
            Reason::WrongSource => {
                let pinhole = scene.pinhole(&packet.destination);
                let is_allowed =
                    pinhole.is_some_and(|pinhole| is_among(&pinhole.sources, packet.source));
                Some(here(if is_allowed {
                    Why::Latched
                } else {
                    Why::WrongSource
                }))
            }
            Reason::PayloadType => Some(here(Why::PayloadType)),
            Reason::RateLimited => Some(here(Why::RateLimited)),
            Reason::PinholeExpired => Some(here(Why::Expired)),
            Reason::NotMedia => Some(here(Why::NotMedia)),
            Reason::NoPinhole => Some(self.nearest_pinhole(scene, packet)),
            _ => None,
        }
    }

    /// A pinhole that closed before anything else here was told.
    pub fn add_closed(
        &mut self,
        local: SocketAddr,
        call: CallNumber,
        sources: Vec<Source>,
        closed: Instant,
    ) {
        self.spans.entry(local).or_default().push_back(Span {
            call,
            sources,
            opened: closed,
            closed: Some(closed),
        });
        self.closed.push_back(local);
    }

    fn nearest_pinhole(&self, scene: &impl Scene, packet: &Packet<'_>) -> Miss {
        let local = packet.destination;
        if let Some(span) = self.spans.get(&local).and_then(VecDeque::back) {
            return Miss {
                why: Why::Closed,
                call: Some(span.call),
                place: None,
            };
        }
        let beside = |distances: RangeInclusive<u16>| {
            distances
                .flat_map(|distance| {
                    [
                        local.port().checked_sub(distance),
                        local.port().checked_add(distance),
                    ]
                })
                .flatten()
                .map(|port| (Why::NextPort, SocketAddr::new(local.ip(), port)))
        };
        let elsewhere = scene
            .settings()
            .pbx
            .addresses
            .iter()
            .map(|address| (Why::OtherAddress, SocketAddr::new(*address, local.port())));
        let by_source = self
            .by_source
            .get(&packet.source.ip())
            .and_then(BTreeSet::first)
            .map(|place| (Why::OtherPort, *place));
        beside(1..=1)
            .chain(elsewhere)
            .chain(by_source)
            .chain(beside(2..=BESIDE))
            .find_map(|(why, place)| {
                Some(Miss {
                    why,
                    call: Some(scene.pinhole(&place)?.call),
                    place: Some(place),
                })
            })
            .unwrap_or(Miss {
                why: Why::Unnamed,
                call: None,
                place: None,
            })
    }

    /// The pinhole that was opened for this source after its packet had been dropped for want of one: the call, and when.
    pub fn opened_later(
        &self,
        (source, local): (SocketAddr, SocketAddr),
        dropped: Instant,
    ) -> Option<(CallNumber, Instant)> {
        self.spans
            .get(&local)?
            .iter()
            .find(|span| span.opened >= dropped && is_among(&span.sources, source))
            .map(|span| (span.call, span.opened))
    }

    /// An explanation in words, for a packet that was dropped now.
    pub fn explain(&self, scene: &impl Scene, packet: &Packet<'_>, miss: &Miss) -> String {
        let call = miss
            .call
            .map_or_else(String::new, |call| scene.call_name(call));
        let source = packet.source;
        let local = packet.destination;
        match (miss.why, miss.place) {
            (Why::NotAProvider, _) => {
                format!("{} is in no provider's signalling prefixes", source.ip())
            }
            (Why::WrongTransport, _) => {
                let name = transport_name(&scene.tables().settings, packet);
                format!("{} is a provider's, which does not use {name}", source.ip())
            }
            (Why::WrongSource, _) => format!(
                "the pinhole of {call} on that port expects {}, arrived from {source}",
                scene
                    .pinhole(&local)
                    .map_or_else(String::new, |p| sources(&p.sources)),
            ),
            (Why::Expired, _) => {
                let limit = scene.pinhole(&local).map_or(0, |p| p.idle.as_secs());
                let last = scene.last_packet(&local).unwrap_or_default();
                format!(
                    "the pinhole of {call} had no packet after {}, longer than its limit of {limit} s",
                    scene.when(last)
                )
            }
            (Why::NotMedia, _) => {
                let first = packet.payload.first().map_or_else(
                    || "it is empty".to_owned(),
                    |byte| format!("its first byte is {byte:#04x}"),
                );
                let expected = scene
                    .pinhole(&local)
                    .map_or_else(String::new, |p| expected(p.extras));
                format!("the pinhole of {call} expects {expected}, and {first}")
            }
            (Why::PayloadType, _) => {
                let terms = scene.pinhole(&local).map(|pinhole| pinhole.terms);
                let found = match packet.payload.get(1) {
                    Some(192..=223) => "RTCP".to_owned(),
                    Some(second) => format!("payload type {}", second & 0x7f),
                    None => "nothing".to_owned(),
                };
                format!(
                    "the pinhole of {call} expects {}, arrived with {found}",
                    terms.map_or_else(String::new, negotiated)
                )
            }
            (Why::RateLimited, _) => {
                let rate = scene
                    .pinhole(&local)
                    .and_then(|pinhole| pinhole.terms.packets_per_second.number());
                format!(
                    "the pinhole of {call} takes {} packets per second",
                    rate.unwrap_or_default()
                )
            }
            (Why::Latched, _) => format!(
                "the pinhole of {call} on that port has latched to {}, arrived from {source}",
                scene
                    .latched(&local)
                    .map_or_else(|| "another source".to_owned(), |source| source.to_string())
            ),
            (Why::Closed, _) => self.explain_closed(scene, packet, &call),
            (Why::NextPort, Some(place)) => {
                let side = if place.port() < local.port() {
                    "below"
                } else {
                    "above"
                };
                let distance = place.port().abs_diff(local.port());
                let distance = match distance {
                    1 => "one".to_owned(),
                    more => more.to_string(),
                };
                format!(
                    "{call} named port {}, {distance} {side} this one",
                    place.port()
                )
            }
            (Why::OtherAddress, Some(place)) => {
                format!("{call} named this port on {}", place.ip())
            }
            (Why::OtherPort, Some(place)) => {
                format!("{call} expects media from {} on {place}", source.ip())
            }
            _ => "no call named this port".to_owned(),
        }
    }

    fn explain_closed(&self, scene: &impl Scene, packet: &Packet<'_>, call: &str) -> String {
        let Some(span) = self.spans.get(&packet.destination).and_then(VecDeque::back) else {
            return "no call named this port".to_owned();
        };
        let until = span.closed.map_or_else(String::new, |at| scene.when(at));
        let mut text = format!("a pinhole of {call} existed until {until}");
        if !is_among(&span.sources, packet.source) {
            // Writing to a string cannot fail.
            let _ = write!(text, ", for {}", sources(&span.sources));
        }
        text
    }
}

/// The address of a source that is a single one.
fn host(source: &Source) -> Option<IpAddr> {
    (source.net.prefix_len() == source.net.max_prefix_len()).then(|| source.net.addr())
}

fn forget_sources(
    by_source: &mut BTreeMap<IpAddr, BTreeSet<SocketAddr>>,
    sources: &[Source],
    local: SocketAddr,
) {
    for address in sources.iter().filter_map(host) {
        if let Some(places) = by_source.get_mut(&address) {
            places.remove(&local);
            if places.is_empty() {
                by_source.remove(&address);
            }
        }
    }
}

fn is_among(sources: &[Source], address: SocketAddr) -> bool {
    sources.iter().any(|source| {
        source.net.contains(&address.ip())
            && (source.ports.0..=source.ports.1).contains(&address.port())
    })
}

/// What a stream that is not UDPTL lets in, by the first byte (RFC 7983 §7).
fn expected(extras: Extras) -> String {
    let mut text = "RTP of version 2".to_owned();
    for (is_expected, name) in [(extras.stun, " or STUN"), (extras.dtls, " or DTLS")] {
        if is_expected {
            text.push_str(name);
        }
    }
    text
}

/// What RTP may carry.
fn negotiated(terms: Terms) -> String {
    let types: Vec<String> = payload_types(terms.payload_types)
        .into_iter()
        .map(|number| number.to_string())
        .collect();
    match (types.is_empty(), terms.rtcp) {
        (true, _) => "RTCP".to_owned(),
        (false, true) => format!("payload types {} or RTCP", types.join(", ")),
        (false, false) => format!("payload types {}", types.join(", ")),
    }
}

fn sources(sources: &[Source]) -> String {
    let texts: Vec<String> = sources
        .iter()
        .map(|source| {
            let (min, max) = source.ports;
            let ports = if min == max {
                format!("port {min}")
            } else {
                format!("ports {min}-{max}")
            };
            match host(source) {
                Some(address) => format!("{address} {ports}"),
                None => format!("{} {ports}", source.net),
            }
        })
        .collect();
    texts.join(" or ")
}

fn provider(tables: &HostTables, address: IpAddr) -> Option<u16> {
    let rule = match address {
        IpAddr::V4(address) => tables.provider(Ipv4::from(address)),
        IpAddr::V6(address) => tables.provider(Ipv6::from(address)),
    };
    rule.map(|rule| rule.provider)
}

fn transport_name(settings: &Settings, packet: &Packet<'_>) -> &'static str {
    match settings.pbx.over_tcp(packet.destination.port()) {
        Some(Transport::Tls) if packet.protocol == Protocol(sipfilter_common::parse::TCP) => "TLS",
        Some(_) if packet.protocol == Protocol(sipfilter_common::parse::TCP) => "TCP",
        _ => "UDP",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::engine::{
        pinhole::{Extras, Stream},
        settings::ProviderId,
    };

    fn pinhole(number: u64) -> Pinhole {
        let address = 0xcb00_7100_u32 + u32::try_from(number / 60_000).expect("small");
        let port = 5_000 + u16::try_from(number % 60_000).expect("below the modulus");
        let source = IpAddr::from([198, 51, 100, 20]);
        Pinhole {
            local: SocketAddr::new(IpAddr::V4(address.into()), port),
            sources: vec![Source::host(source, 40_000..=40_001)],
            stream: Stream::Rtp,
            extras: Extras::default(),
            terms: crate::engine::pinhole::Terms::ANY,
            latch: None,
            idle: Duration::from_secs(1),
            provider: ProviderId(0),
            call: CallNumber(number),
            label: crate::engine::pinhole::Label::NONE,
        }
    }

    #[test]
    fn the_oldest_pinholes_are_forgotten_first() {
        let mut history = History::default();
        let living = pinhole(1_000_000);
        history.open(Instant::default(), &living);
        for number in 0..MAX_SPANS as u64 + 10 {
            let pinhole = pinhole(number);
            history.open(Instant::default(), &pinhole);
            history.close(Instant::default(), pinhole.local);
        }
        assert_eq!(history.closed.len(), MAX_SPANS);
        assert_eq!(history.spans.len(), MAX_SPANS + 1);
        assert!(!history.spans.contains_key(&pinhole(9).local));
        assert!(history.spans.contains_key(&pinhole(10).local));
        assert!(history.spans.contains_key(&living.local));
    }

    #[test]
    fn one_place_is_remembered_a_few_times() {
        let mut history = History::default();
        let pinhole = pinhole(1);
        for time in 0..20 {
            let now = Instant(Duration::from_secs(time));
            history.open(now, &pinhole);
            history.close(now, pinhole.local);
        }
        let spans = &history.spans[&pinhole.local];
        assert_eq!(spans.len(), MAX_SPANS_HERE);
        assert_eq!(spans[0].opened, Instant(Duration::from_secs(12)));
        assert!(history.by_source.is_empty());
    }
}
