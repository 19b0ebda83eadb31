//! Providers: what a profile, an `[[provider]]` and a trunk say of one, put together and checked.
//!
//! A trunk's word goes before its provider's, key by key. Where the two come from is the caller's matter.
//!
//! Invariant: a [`Provider`] made here has at least one prefix to signal from, one transport, and media limits that one pinhole
//! can hold.

use std::ops::{Range, RangeInclusive};

use ipnet::IpNet;
use sipfilter_common::{
    abi::{MEDIA_PREFIXES, PROVIDER_PREFIXES},
    value::MAX_MEDIA_RANGES,
};

use toml::Spanned;

use super::{
    document::Document,
    raw::{RawFacts, RawRates, RawSignallingPorts},
    values,
};
use crate::{
    engine::{
        pinhole::MAX_SOURCES,
        settings::{
            EarlyMedia, Media, MediaSource, Provider, SignallingPorts, SignallingRates, Transport,
        },
    },
    ranges::media_by_prefix,
};

const TRANSPORTS: [(&str, Transport); 3] = [
    ("udp", Transport::Udp),
    ("tcp", Transport::Tcp),
    ("tls", Transport::Tls),
];
const SOURCES: [(&str, MediaSource); 4] = [
    ("signalled", MediaSource::Signalled),
    ("exact", MediaSource::Exact),
    ("prefix", MediaSource::Prefix),
    ("latch", MediaSource::Latch),
];
const EARLY_MEDIA: [(&str, EarlyMedia); 2] = [
    ("on-offer", EarlyMedia::OnOffer),
    ("on-answer", EarlyMedia::OnAnswer),
];

/// A prefix shorter than this (IPv4, IPv6) is no provider's whole network as far as we know of any.
const WIDE: (u8, u8) = (16, 29);

/// A value as the configuration writes it.
pub(super) trait Keyword: Copy + PartialEq + 'static {
    /// All values with their words.
    const WORDS: &'static [(&'static str, Self)];

    /// This value's word.
    fn as_word(self) -> &'static str {
        Self::WORDS
            .iter()
            .find(|(_, value)| *value == self)
            .map_or("", |(word, _)| word)
    }
}

impl Keyword for Transport {
    const WORDS: &'static [(&'static str, Self)] = &TRANSPORTS;
}
impl Keyword for MediaSource {
    const WORDS: &'static [(&'static str, Self)] = &SOURCES;
}
impl Keyword for EarlyMedia {
    const WORDS: &'static [(&'static str, Self)] = &EARLY_MEDIA;
}

/// What one place says of a provider; every part may be left to another place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Facts {
    pub signalling: Option<Vec<IpNet>>,
    pub transports: Option<Vec<Transport>>,
    pub ports: RawPorts,
    pub rates: Rates,
    pub media_source: Option<MediaSource>,
    pub media_ports: Option<RangeInclusive<u16>>,
    pub prefixes: Option<Vec<IpNet>>,
    pub replies: Option<Vec<RangeInclusive<u16>>>,
    pub packets_per_second: Option<u32>,
    pub early_media: Option<EarlyMedia>,
}

/// What one place says of how much SIP an address may send; every part may be left to another place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Rates {
    requests: Option<u32>,
    messages: Option<u32>,
    segments: Option<u32>,
}

impl Rates {
    /// Checks each value by itself.
    pub(super) fn check(doc: &mut Document, raw: &RawRates) -> Self {
        let mut rate = |number: &Option<_>| {
            number
                .as_ref()
                .and_then(|number| signalling_rate(doc, number))
        };
        Self {
            requests: rate(&raw.requests_per_second),
            messages: rate(&raw.messages_per_second),
            segments: rate(&raw.segments_per_second),
        }
    }

    /// These, and `other`'s where these are silent.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            requests: self.requests.or(other.requests),
            messages: self.messages.or(other.messages),
            segments: self.segments.or(other.segments),
        }
    }

    /// The finished rates.
    pub(super) fn finish(self) -> SignallingRates {
        let default = SignallingRates::default();
        SignallingRates {
            requests: self.requests.unwrap_or(default.requests),
            messages: self.messages.unwrap_or(default.messages),
            segments: self.segments.unwrap_or(default.segments),
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RawPorts {
    udp: Option<Vec<u16>>,
    tcp: Option<Vec<u16>>,
    tls: Option<Vec<u16>>,
}

impl Facts {
    /// Checks each value by itself.
    pub(super) fn check(doc: &mut Document, raw: RawFacts<'_>) -> Self {
        let signalling = raw.signalling.as_ref().and_then(|texts| {
            let nets = values::list(doc, texts, values::prefix);
            for (net, text) in nets.iter().zip(texts.get_ref()) {
                warn_if_wide(doc, net, text.span());
            }
            // An empty list says nothing; one whose elements were all refused has been complained of already, and
            // complaining that it is missing would be noise, so it stays.
            (!texts.get_ref().is_empty()).then_some(nets)
        });
        let transports = raw.transports.as_ref().and_then(|texts| {
            if texts.get_ref().is_empty() {
                doc.error(
                    texts.span(),
                    "no transport is left",
                    "list those in use: transports = [\"udp\", \"tcp\", \"tls\"], or leave the key out for all three",
                );
            }
            let list = values::list(doc, texts, |doc, text| values::word(doc, text, Transport::WORDS));
            (!list.is_empty()).then_some(list)
        });
        let checked =
            values::signalling_ports(doc, raw.signalling_ports, &SignallingPorts::default());
        let RawSignallingPorts { udp, tcp, tls } = raw.signalling_ports;
        Self {
            signalling,
            transports,
            ports: RawPorts {
                udp: udp.as_ref().map(|_| checked.udp),
                tcp: tcp.as_ref().map(|_| checked.tcp),
                tls: tls.as_ref().map(|_| checked.tls),
            },
            rates: Rates::check(doc, raw.signalling_limits),
            media_source: raw
                .media
                .source
                .as_ref()
                .and_then(|text| values::word(doc, text, MediaSource::WORDS)),
            media_ports: raw
                .media
                .ports
                .as_ref()
                .and_then(|text| values::port_range(doc, text)),
            prefixes: raw
                .media
                .prefixes
                .as_ref()
                .map(|texts| values::list(doc, texts, values::prefix)),
            replies: raw
                .media
                .replies
                .as_ref()
                .map(|texts| values::list(doc, texts, values::port_range)),
            packets_per_second: raw
                .media
                .packets_per_second
                .as_ref()
                .and_then(|number| packet_rate(doc, number)),
            early_media: raw
                .early_media
                .as_ref()
                .and_then(|text| values::word(doc, text, EarlyMedia::WORDS)),
        }
    }

    /// These facts, and `other`'s where these are silent.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            signalling: self.signalling.or(other.signalling),
            transports: self.transports.or(other.transports),
            ports: RawPorts {
                udp: self.ports.udp.or(other.ports.udp),
                tcp: self.ports.tcp.or(other.ports.tcp),
                tls: self.ports.tls.or(other.ports.tls),
            },
            rates: self.rates.or(other.rates),
            media_source: self.media_source.or(other.media_source),
            media_ports: self.media_ports.or(other.media_ports),
            prefixes: self.prefixes.or(other.prefixes),
            replies: self.replies.or(other.replies),
            packets_per_second: self.packets_per_second.or(other.packets_per_second),
            early_media: self.early_media.or(other.early_media),
        }
    }

    /// The finished provider. What is missing or contradictory is reported at `span`, the trunk's or provider's own name.
    ///
    /// `unpublished` is the profile's word on why it has no addresses.
    pub(super) fn finish(
        self,
        doc: &mut Document,
        span: Range<usize>,
        name: &str,
        unpublished: Option<&str>,
    ) -> Option<Provider> {
        let Some(signalling) = self.signalling else {
            if doc.has_refused(&["signalling"]) {
                return None;
            }
            let help = format!(
                "{}add its addresses below this line, for example: signalling = [\"198.51.100.10/32\"]",
                unpublished.map_or_else(String::new, |text| format!(
                    "{}; then ",
                    text.trim_end_matches('.')
                ))
            );
            doc.error(
                span,
                format!("provider `{name}` has no signalling addresses"),
                help,
            );
            return None;
        };
        let prefixes = self.prefixes.unwrap_or_default();
        let Some(ports) = self.media_ports else {
            if doc.has_refused(&["media", "media.ports"]) {
                return None;
            }
            doc.error(
                span,
                format!("provider `{name}` has no RTP port range"),
                "say from which ports its RTP comes: media = { ports = \"40000-60000\" }, or \"1-65535\" if it does not say".to_owned(),
            );
            return None;
        };
        let source = self.media_source.unwrap_or(MediaSource::Signalled);
        let early_media = self.early_media.unwrap_or(if prefixes.is_empty() {
            EarlyMedia::OnAnswer
        } else {
            EarlyMedia::OnOffer
        });
        let spread = prefixes.iter().filter(|net| net.addr().is_ipv4()).count();
        let spread = spread.max(prefixes.len() - spread);
        match (source, early_media) {
            (MediaSource::Prefix, _) if prefixes.is_empty() => {
                doc.error(
                    span.clone(),
                    format!("provider `{name}` takes its media from prefixes, and none is given"),
                    "add media.prefixes = [\"203.0.113.0/24\"], or set media.source = \"signalled\"",
                );
                return None;
            }
            (MediaSource::Prefix | MediaSource::Latch, _) | (_, EarlyMedia::OnOffer)
                if spread > MAX_SOURCES => {
                doc.error(
                    span.clone(),
                    format!("provider `{name}` has {spread} media prefixes of one family, and one pinhole holds {MAX_SOURCES}"),
                    "join them into fewer, wider prefixes, or set media.source = \"signalled\" and early_media = \"on-answer\"",
                );
                return None;
            }
            (_, EarlyMedia::OnOffer) if prefixes.is_empty() => doc.warn(
                span.clone(),
                format!("early media of provider `{name}` is let in from any address while a call rings, because it has no media.prefixes"),
                "add media.prefixes = [\"203.0.113.0/24\"], or set early_media = \"on-answer\"",
            ),
            (MediaSource::Latch, _) if prefixes.is_empty() => doc.warn(
                span.clone(),
                format!("media of provider `{name}` is let in from whoever sends first to an open port, because it has no media.prefixes"),
                "add media.prefixes = [\"203.0.113.0/24\"], or set media.source = \"signalled\" if its SDP names where it sends from",
            ),
            _ => {}
        }
        let default = SignallingPorts::default();
        let provider = Provider {
            name: name.to_owned(),
            signalling,
            transports: self
                .transports
                .unwrap_or_else(|| TRANSPORTS.iter().map(|(_, transport)| *transport).collect()),
            signalling_ports: SignallingPorts {
                udp: self.ports.udp.unwrap_or(default.udp),
                tcp: self.ports.tcp.unwrap_or(default.tcp),
                tls: self.ports.tls.unwrap_or(default.tls),
            },
            media: Media {
                source,
                ports,
                prefixes,
                replies: self.replies.unwrap_or_default(),
                packets_per_second: self.packets_per_second,
            },
            early_media,
            rates: self.rates.finish(),
        };
        for transport in &provider.transports {
            let (word, list) = match transport {
                Transport::Udp => ("udp", &provider.signalling_ports.udp),
                Transport::Tcp => ("tcp", &provider.signalling_ports.tcp),
                Transport::Tls => ("tls", &provider.signalling_ports.tls),
            };
            if list.is_empty() {
                doc.error(
                    span.clone(),
                    format!("provider `{name}` uses {word} but has no {word} port"),
                    format!(
                        "take \"{word}\" out of transports, or give signalling_ports.{word} a port"
                    ),
                );
            }
        }
        Some(provider)
    }
}

/// Far above any stream, and the kernel still counts in whole microseconds.
const MAX_PACKET_RATE: u32 = 1_000_000;

fn packet_rate(doc: &mut Document, number: &Spanned<u64>) -> Option<u32> {
    let rate = u32::try_from(*number.get_ref()).unwrap_or(u32::MAX);
    if (1..=MAX_PACKET_RATE).contains(&rate) {
        return Some(rate);
    }
    doc.error(
        number.span(),
        format!(
            "{} is not between 1 and {MAX_PACKET_RATE}",
            number.get_ref()
        ),
        "write packets per second of one stream, for example 400, or leave the key out",
    );
    None
}

/// What one address may send. Fewer, and a busy minute of an honest trunk would be cut.
const LEAST_SIGNALLING_RATE: u32 = 10;

fn signalling_rate(doc: &mut Document, number: &Spanned<u64>) -> Option<u32> {
    let bounds = LEAST_SIGNALLING_RATE as usize..=MAX_PACKET_RATE as usize;
    let rate = values::count(doc, number, bounds)?;
    u32::try_from(rate).ok()
}

fn warn_if_wide(doc: &mut Document, net: &IpNet, span: Range<usize>) {
    let least = if net.addr().is_ipv4() { WIDE.0 } else { WIDE.1 };
    if net.prefix_len() < least {
        doc.warn(
            span,
            format!("{net} is very wide: whoever is in it may signal to the PBX"),
            "list the provider's own signalling addresses if it publishes them",
        );
    }
}

/// Reports the trunk with which the media limits of one prefix, or their prefixes, outgrow the kernel's table.
pub(super) fn check_media_limits(doc: &mut Document, trunks: &[(Range<usize>, Provider)]) {
    let mut providers: Vec<Provider> = Vec::new();
    for (span, provider) in trunks {
        providers.push(provider.clone());
        let limits = media_by_prefix(&providers);
        if let Some((prefix, ranges)) = limits
            .iter()
            .find(|(_, list)| list.len() > MAX_MEDIA_RANGES)
        {
            doc.error(
                span.clone(),
                format!(
                    "with `{}`, the media of {prefix} has {} port ranges, and at most {MAX_MEDIA_RANGES} fit into the kernel's list for one prefix",
                    provider.name,
                    ranges.len()
                ),
                "join the ranges of media.ports and media.replies, or give media.prefixes so that the providers are told apart",
            );
            return;
        }
        if limits.len() > MEDIA_PREFIXES as usize {
            doc.error(
                span.clone(),
                format!("{} media prefixes up to here, and at most {MEDIA_PREFIXES} fit into the kernel's table", limits.len()),
                "join neighbouring prefixes into wider ones",
            );
            return;
        }
    }
}

/// Reports signalling prefixes that two trunks share, where the kernel could not tell whose packet it is, and mentions those
/// that lie inside another's.
pub(super) fn check_overlaps(doc: &mut Document, trunks: &[(Range<usize>, Provider)]) {
    let mut prefixes = 0;
    for (span, provider) in trunks {
        prefixes += provider.signalling.len();
        if prefixes > PROVIDER_PREFIXES as usize {
            doc.error(
                span.clone(),
                format!("{prefixes} signalling prefixes up to here, and at most {PROVIDER_PREFIXES} fit into the kernel's table"),
                "join neighbouring prefixes into wider ones",
            );
            return;
        }
    }
    for (index, (span, provider)) in trunks.iter().enumerate() {
        for (_, earlier) in &trunks[..index] {
            for net in &provider.signalling {
                for other in &earlier.signalling {
                    if net == other {
                        doc.error(
                            span.clone(),
                            format!("`{}` and `{}` both signal from {net}", provider.name, earlier.name),
                            "one address belongs to one trunk: remove it from one of the two (signalling = […] in the trunk)",
                        );
                        continue;
                    }
                    let (inner, outer) = if net.contains(other) {
                        ((earlier, other), (provider, net))
                    } else if other.contains(net) {
                        ((provider, net), (earlier, other))
                    } else {
                        continue;
                    };
                    doc.warn(
                        span.clone(),
                        format!(
                            "{} of `{}` lies inside {} of `{}`: its calls count as `{}`'s",
                            inner.1, inner.0.name, outer.1, outer.0.name, inner.0.name
                        ),
                        "the most specific prefix wins; nothing to do if that is what is meant",
                    );
                }
            }
        }
    }
}
