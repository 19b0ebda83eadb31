//! From the text that `sdp-types` leaves to endpoints: addresses, ports, payload types, and what sections take from the session.
//!
//! It does not resolve names and does not judge an address. Addresses come out canonical: IPv4-mapped IPv6 is IPv4.

use std::net::IpAddr;

use sdp_types::{Attribute, Media, NetType, Session};

use super::{
    Candidate, Connection, MAX_CANDIDATES, MAX_CONNECTIONS, MediaDescription, MediaDirection,
    MediaKind, Protocol, Rtcp, SdpError, SessionDescription, filter::BANDWIDTH,
};

/// Reads a filtered session.
pub(super) fn session(session: Session) -> Result<SessionDescription, SdpError> {
    let defaults = Defaults {
        connections: session.connection.as_slice(),
        direction: direction(&session.attributes).unwrap_or_default(),
        ice: has(&session.attributes, "ice-ufrag"),
        fingerprint: has(&session.attributes, "fingerprint"),
    };
    let media = session.medias.iter().enumerate();
    let media = media.map(|(section, media)| description(section, media, &defaults));
    Ok(SessionDescription {
        media: media.collect::<Result<_, _>>()?,
    })
}

/// What holds for every section that does not say otherwise.
struct Defaults<'s> {
    connections: &'s [sdp_types::Connection],
    direction: MediaDirection,
    ice: bool,
    fingerprint: bool,
}

fn description(
    section: usize,
    media: &Media,
    defaults: &Defaults<'_>,
) -> Result<MediaDescription, SdpError> {
    let protocol = protocol(&media.proto);
    let port_count = media.num_ports.unwrap_or(1);
    // RTP takes every second port (RFC 8866 §5.14), the ones between are RTCP's.
    let step = if protocol == Protocol::Rtp { 2 } else { 1 };
    let last = u32::from(media.port) + step * u32::from(port_count).saturating_sub(1);
    if port_count == 0 || last > u32::from(u16::MAX) {
        return Err(SdpError::Port { section });
    }
    let attributes = &media.attributes;
    Ok(MediaDescription {
        kind: kind(&media.media),
        protocol,
        port: media.port,
        port_count,
        connections: connections(media, defaults)?,
        direction: direction(attributes).unwrap_or(defaults.direction),
        rtcp: rtcp(attributes),
        candidates: candidates(attributes)?,
        ice: defaults.ice || has(attributes, "ice-ufrag"),
        fingerprint: defaults.fingerprint || has(attributes, "fingerprint"),
        crypto: has(attributes, "crypto"),
        payload_types: match protocol {
            Protocol::Rtp => payload_types(&media.fmt),
            Protocol::Udptl | Protocol::Other => 0,
        },
        packet_time: values(attributes, "ptime").find_map(packet_time),
        bandwidth: values(attributes, BANDWIDTH).filter_map(bandwidth).max(),
    })
}

fn kind(media: &str) -> MediaKind {
    match media {
        "audio" => MediaKind::Audio,
        "video" => MediaKind::Video,
        "image" => MediaKind::Image,
        _ => MediaKind::Other,
    }
}

/// RTP's profiles over UDP are registered as `RTP/…` and `UDP/TLS/RTP/…`; over TCP they begin with `TCP` (RFC 4571, RFC 7850).
fn protocol(proto: &str) -> Protocol {
    let is = |known: &str| proto.eq_ignore_ascii_case(known);
    let begins = |with: &str| {
        proto
            .get(..with.len())
            .is_some_and(|begin| begin.eq_ignore_ascii_case(with))
    };
    if begins("RTP/") || begins("UDP/TLS/RTP/") {
        Protocol::Rtp
    } else if is("udptl") || is("UDP/TLS/UDPTL") {
        Protocol::Udptl
    } else {
        Protocol::Other
    }
}

/// The section's own `c=` lines if it has any, else the session's (RFC 8866 §5.7), without repetitions. Networks other than the
/// Internet have no address here.
fn connections(media: &Media, defaults: &Defaults<'_>) -> Result<Vec<Connection>, SdpError> {
    let lines = match media.connections.as_slice() {
        [] => defaults.connections,
        own => own,
    };
    if lines.len() > MAX_CONNECTIONS {
        return Err(SdpError::TooManyAddresses {
            limit: MAX_CONNECTIONS,
        });
    }
    let mut connections = Vec::with_capacity(lines.len());
    for line in lines.iter().filter(|line| line.nettype == NetType::In) {
        match connection(&line.connection_address) {
            Some(connection) if !connections.contains(&connection) => connections.push(connection),
            Some(_) => {}
            // A stream that is off needs no address.
            None if media.port == 0 => {}
            None => return Err(SdpError::Address),
        }
    }
    Ok(connections)
}

/// An address or a name, with its `/ttl/count` cut off (multicast, §5.7).
fn connection(text: &str) -> Option<Connection> {
    let (address, suffix) = text.split_once('/').unwrap_or((text, "0"));
    if !suffix.splitn(2, '/').all(is_number) {
        return None;
    }
    if let Ok(address) = address.parse::<IpAddr>() {
        return Some(Connection::Address(address.to_canonical()));
    }
    is_host_name(address).then(|| Connection::Name(address.to_owned()))
}

/// RFC 1123 §2.1: the last label is not all digits, or it would be a broken IPv4 address.
fn is_host_name(text: &str) -> bool {
    let last = text
        .trim_end_matches('.')
        .rsplit('.')
        .next()
        .unwrap_or_default();
    text.len() <= 255
        && !last.is_empty()
        && !is_number(last)
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

/// The first of the section's direction attributes (§6.7).
fn direction(attributes: &[Attribute]) -> Option<MediaDirection> {
    attributes
        .iter()
        .find_map(|attribute| match attribute.attribute.as_str() {
            "sendrecv" => Some(MediaDirection::SendRecv),
            "sendonly" => Some(MediaDirection::SendOnly),
            "recvonly" => Some(MediaDirection::RecvOnly),
            "inactive" => Some(MediaDirection::Inactive),
            _ => None,
        })
}

fn has(attributes: &[Attribute], name: &str) -> bool {
    attributes
        .iter()
        .any(|attribute| attribute.attribute == name)
}

/// The values of the attributes called `name`.
fn values<'s>(attributes: &'s [Attribute], name: &str) -> impl Iterator<Item = &'s str> {
    let named = attributes
        .iter()
        .filter(move |attribute| attribute.attribute == name);
    named.filter_map(|attribute| attribute.value.as_deref())
}

/// RFC 5761 §5.1.1, RFC 8858 (`rtcp-mux-only` stands beside or for `rtcp-mux`), RFC 3605.
fn rtcp(attributes: &[Attribute]) -> Rtcp {
    Rtcp {
        mux: has(attributes, "rtcp-mux") || has(attributes, "rtcp-mux-only"),
        explicit: values(attributes, "rtcp").find_map(explicit_rtcp),
    }
}

/// RFC 3605 §2.1: `port [nettype addrtype address]`.
fn explicit_rtcp(value: &str) -> Option<(u16, Option<IpAddr>)> {
    let mut fields = value.split_ascii_whitespace();
    let port = port(fields.next()?)?;
    let address = fields.nth(2).and_then(|text| text.parse::<IpAddr>().ok());
    let address = address.map(|address| address.to_canonical());
    Some((port, address.filter(|address| !address.is_unspecified())))
}

/// The UDP candidates with literal addresses; mDNS names (`….local`) and TCP candidates say nothing about where media comes from.
fn candidates(attributes: &[Attribute]) -> Result<Vec<Candidate>, SdpError> {
    let mut candidates = Vec::new();
    for candidate in values(attributes, "candidate").filter_map(candidate) {
        if candidates.len() == MAX_CANDIDATES {
            return Err(SdpError::TooManyAddresses {
                limit: MAX_CANDIDATES,
            });
        }
        candidates.push(candidate);
    }
    Ok(candidates)
}

/// RFC 8839 §5.1: `foundation component transport priority address port typ type …`.
fn candidate(value: &str) -> Option<Candidate> {
    let mut fields = value.split_ascii_whitespace();
    let component = number(fields.nth(1)?).filter(|component| (1..=256).contains(component))?;
    if !fields.next()?.eq_ignore_ascii_case("udp") {
        return None;
    }
    let address = fields.nth(1)?.parse::<IpAddr>().ok()?.to_canonical();
    Some(Candidate {
        component,
        address,
        port: port(fields.next()?)?,
    })
}

/// Some write fractions of milliseconds, which round up to nothing less than one.
fn packet_time(value: &str) -> Option<u16> {
    let whole = value.trim().split('.').next()?;
    number(whole).map(|milliseconds| milliseconds.max(1))
}

/// RFC 8866 §5.8: `AS` in kilobits; RFC 3890 §6.2.2: `TIAS` in bits. Other modifiers count something else, and nothing is no bandwidth that
/// one could plan with.
fn bandwidth(value: &str) -> Option<u64> {
    let (modifier, amount) = value.trim().split_once(':')?;
    let unit = match modifier {
        "AS" => 1_000,
        "TIAS" => 1,
        _ => return None,
    };
    let amount: u64 = is_number(amount).then(|| amount.parse().ok()).flatten()?;
    Some(amount.saturating_mul(unit)).filter(|&bits| bits > 0)
}

/// The formats of an RTP section are payload types (§5.14), 7 bits each (RFC 3550 §5.1).
fn payload_types(formats: &str) -> u128 {
    formats
        .split_ascii_whitespace()
        .filter_map(number)
        .filter(|&payload_type| payload_type < 128)
        .fold(0, |set, payload_type| set | 1 << payload_type)
}

fn port(text: &str) -> Option<u16> {
    number(text).filter(|&port| port != 0)
}

/// Digits only: `parse` alone would take a sign.
fn number(text: &str) -> Option<u16> {
    is_number(text).then(|| text.parse().ok()).flatten()
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}
