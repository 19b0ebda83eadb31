//! From a captured IP packet to the SIP payload of a UDP datagram, or to what it is instead.
//!
//! The bytes are read by the kernel's own parser (`sipfilter_common::parse`), so that both sides see one packet the same way. It
//! reassembles nothing and reads no SIP.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use sipfilter_common::{
    addr::{Ipv4, Ipv6},
    parse::{self, Fragment, Ip, Malformed, Network, Ports},
};

use super::{Direction, Flow, settings::SignallingPorts};

/// What a captured packet holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Captured<'a> {
    /// A whole UDP datagram.
    Datagram {
        /// Where it was seen.
        flow: Flow,
        /// What it carries.
        payload: &'a [u8],
    },
    /// A part of an IP packet.
    Fragment,
    /// A TCP segment.
    Segment {
        /// Where it was seen.
        flow: Flow,
    },
    /// Any other protocol.
    Other,
}

/// Reads a packet from its IP header on.
///
/// # Errors
/// [`Malformed`] if the packet ends early or contradicts itself.
pub fn decode(direction: Direction, bytes: &[u8]) -> Result<Captured<'_>, Malformed> {
    match parse::parse_raw(&bytes)? {
        Network::Ipv4(start) => {
            decode_transport(direction, bytes, &parse::parse_ipv4(&bytes, start)?)
        }
        Network::Ipv6(start) => {
            decode_transport(direction, bytes, &parse::parse_ipv6(&bytes, start)?)
        }
        Network::Other => Err(Malformed),
    }
}

/// Whether the segment's ports are ones for SIP over TLS.
pub fn is_tls(flow: &Flow, pbx: &SignallingPorts, provider: &SignallingPorts) -> bool {
    let (ours, theirs) = match flow.direction {
        Direction::Ingress => (flow.destination.port(), flow.source.port()),
        Direction::Egress => (flow.source.port(), flow.destination.port()),
    };
    pbx.tls.contains(&ours) || provider.tls.contains(&theirs)
}

fn decode_transport<'a, A: Copy + Into<Address>>(
    direction: Direction,
    bytes: &'a [u8],
    ip: &Ip<A>,
) -> Result<Captured<'a>, Malformed> {
    if ip.fragment != Fragment::Whole {
        return Ok(Captured::Fragment);
    }
    match ip.protocol {
        parse::UDP => {
            let (start, end) = ip.udp_payload(&bytes)?;
            Ok(Captured::Datagram {
                flow: flow(direction, ip, ip.ports(&bytes)?),
                payload: bytes.get(start..end).ok_or(Malformed)?,
            })
        }
        parse::TCP => Ok(Captured::Segment {
            flow: flow(direction, ip, ip.ports(&bytes)?),
        }),
        _ => Ok(Captured::Other),
    }
}

fn flow<A: Copy + Into<Address>>(direction: Direction, ip: &Ip<A>, ports: Ports) -> Flow {
    let Address(source) = ip.source.into();
    let Address(destination) = ip.destination.into();
    Flow {
        direction,
        source: SocketAddr::new(source, ports.source),
        destination: SocketAddr::new(destination, ports.destination),
    }
}

/// The wire's address in the standard library's clothes.
struct Address(IpAddr);

impl From<Ipv4> for Address {
    fn from(address: Ipv4) -> Self {
        Self(IpAddr::V4(Ipv4Addr::from(address.to_bytes())))
    }
}

impl From<Ipv6> for Address {
    fn from(address: Ipv6) -> Self {
        Self(IpAddr::V6(Ipv6Addr::from(address.to_bytes())))
    }
}
