//! What a report says of one packet: its ends, its direction as the PBX sees it, and what it carries.
//!
//! The bytes are read by the policy's own parser. Nothing here judges: a packet that the policy calls malformed still has a flow, as far
//! as its addresses can be read.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use sipfilter_common::{
    addr::{Ipv4, Ipv6},
    parse::{self, Fragment, Ip, Malformed, Network},
    reason::Reason,
    settings::{Protects, Settings},
};

use crate::engine::{Direction, pinhole::Stream};

/// One packet's ends and payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Source; port 0 where it has none.
    pub source: SocketAddr,
    /// Destination; port 0 where it has none.
    pub destination: SocketAddr,
    /// What the IP header says that it carries.
    pub protocol: Protocol,
    /// A later fragment: without ports.
    pub is_fragment: bool,
    /// The UDP payload, empty in any other packet.
    pub payload: &'a [u8],
}

/// An IP protocol number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(pub u8);

impl Protocol {
    /// Its usual name, or its number.
    pub fn name(self) -> String {
        match self.0 {
            1 => "icmp".to_owned(),
            parse::TCP => "tcp".to_owned(),
            parse::UDP => "udp".to_owned(),
            58 => "icmpv6".to_owned(),
            other => other.to_string(),
        }
    }
}

/// What a flow's packets are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// SIP, by its ports: also what was refused for its source.
    Sip,
    /// RTP (RFC 3550 §5.1).
    Rtp,
    /// RTCP (RFC 3550 §6.1, told from RTP as RFC 5761 §4 does).
    Rtcp,
    /// Anything to or from a pinhole for T.38.
    Udptl,
    /// STUN, on a media port (RFC 7983 §7).
    Stun,
    /// DTLS, on a media port (RFC 7983 §7).
    Dtls,
    /// Later fragments.
    Fragment,
    /// Anything else.
    Other,
}

impl Kind {
    /// A stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sip => "sip",
            Self::Rtp => "rtp",
            Self::Rtcp => "rtcp",
            Self::Udptl => "udptl",
            Self::Stun => "stun",
            Self::Dtls => "dtls",
            Self::Fragment => "fragment",
            Self::Other => "other",
        }
    }

    /// Of a packet that the policy judged so. `stream` is what the pinhole that it met was opened for.
    pub fn of(packet: &Packet<'_>, reason: Reason, stream: Option<Stream>) -> Self {
        match reason {
            _ if packet.is_fragment => Self::Fragment,
            Reason::Signalling
            | Reason::UnknownSource
            | Reason::EgressSignalling
            | Reason::EgressForeignSignalling => Self::Sip,
            _ if stream == Some(Stream::Udptl) => Self::Udptl,
            Reason::Media
            | Reason::NoPinhole
            | Reason::PinholeExpired
            | Reason::WrongSource
            | Reason::NotMedia
            | Reason::Reply
            | Reason::Provisional
            | Reason::EgressForeignMedia
            | Reason::PayloadType
            | Reason::RateLimited
            | Reason::EgressMedia => Self::of_payload(packet.payload),
            // Media that leaves without a pinhole still deserves its name; a name server's answer does not become one.
            Reason::EgressOther if packet.protocol == Protocol(parse::UDP) => {
                match Self::of_payload(packet.payload) {
                    kind @ (Self::Rtp | Self::Rtcp) => kind,
                    _ => Self::Other,
                }
            }
            _ => Self::Other,
        }
    }

    fn of_payload(payload: &[u8]) -> Self {
        const RTP_HEADER: usize = 12;
        const RTCP_HEADER: usize = 8;
        const STUN_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
        match payload {
            [128..=191, 192..=223, ..] if payload.len() >= RTCP_HEADER => Self::Rtcp,
            [128..=191, ..] if payload.len() >= RTP_HEADER => Self::Rtp,
            [0..=3, _, _, _, cookie @ ..] if cookie.starts_with(&STUN_COOKIE) => Self::Stun,
            [20..=63, 0xfe, ..] => Self::Dtls,
            _ => Self::Other,
        }
    }
}

impl<'a> Packet<'a> {
    /// Reads a frame; `None` if it is no IP packet or ends before its addresses do.
    pub fn read(frame: &'a [u8]) -> Option<Self> {
        match parse::parse_ethernet(&frame).ok()? {
            Network::Ipv4(start) => match parse::parse_ipv4(&frame, start) {
                Ok(ip) => Some(Self::of_ip(frame, &ip)),
                Err(Malformed) => Self::without_ports(
                    Ipv4Addr::from(bytes::<4>(frame, start + 12)?).into(),
                    Ipv4Addr::from(bytes::<4>(frame, start + 16)?).into(),
                    Protocol(*frame.get(start + 9)?),
                ),
            },
            Network::Ipv6(start) => match parse::parse_ipv6(&frame, start) {
                Ok(ip) => Some(Self::of_ip(frame, &ip)),
                Err(Malformed) => Self::without_ports(
                    Ipv6Addr::from(bytes::<16>(frame, start + 8)?).into(),
                    Ipv6Addr::from(bytes::<16>(frame, start + 24)?).into(),
                    Protocol(*frame.get(start + 6)?),
                ),
            },
            Network::Other => None,
        }
    }

    /// Which way it goes, if it concerns a protected address at all. What runs between protected addresses (a capture on all interfaces
    /// shows a host's talk with itself) never crosses the outer interface.
    pub fn direction(&self, settings: &Settings) -> Option<Direction> {
        let from = is_protected(settings, self.source.ip());
        let to = is_protected(settings, self.destination.ip());
        match (from, to) {
            (false, true) => Some(Direction::Ingress),
            (true, false) => Some(Direction::Egress),
            (true, true) | (false, false) => None,
        }
    }

    fn without_ports(source: IpAddr, destination: IpAddr, protocol: Protocol) -> Option<Self> {
        Some(Self {
            source: SocketAddr::new(source, 0),
            destination: SocketAddr::new(destination, 0),
            protocol,
            is_fragment: false,
            payload: &[],
        })
    }

    fn of_ip<A: Copy + Into<IpAddr>>(frame: &'a [u8], ip: &Ip<A>) -> Self {
        let is_fragment = matches!(ip.fragment, Fragment::Later { .. });
        let has_ports = !is_fragment && matches!(ip.protocol, parse::UDP | parse::TCP);
        let (source, destination) = match ip.ports(&frame) {
            Ok(ports) if has_ports => (ports.source, ports.destination),
            _ => (0, 0),
        };
        let payload = if has_ports && ip.protocol == parse::UDP {
            ip.udp_payload(&frame)
                .ok()
                .and_then(|(start, end)| frame.get(start..end))
                .unwrap_or(&[])
        } else {
            &[]
        };
        Self {
            source: SocketAddr::new(ip.source.into(), source),
            destination: SocketAddr::new(ip.destination.into(), destination),
            protocol: Protocol(ip.protocol),
            is_fragment,
            payload,
        }
    }
}

fn bytes<const N: usize>(frame: &[u8], offset: usize) -> Option<[u8; N]> {
    frame.get(offset..)?.first_chunk().copied()
}

fn is_protected(settings: &Settings, address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => settings.is_protected(Ipv4::from(address)),
        IpAddr::V6(address) => settings.is_protected(Ipv6::from(address)),
    }
}
