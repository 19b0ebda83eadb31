//! From a captured IP packet to what reassembly works on: whole transport payloads, fragments with their place, UDP payloads, TCP
//! segments.
//!
//! The kernel's parser (`sipfilter_common::parse`) says where headers end, so that both sides see one packet the same way; this file
//! adds what only user space needs: a fragment's offset and TCP's sequence numbers. Checksums are not verified, because offloads
//! leave them unfinished in the copies of packets; the receiving host verifies them. It reassembles nothing and reads no SIP.

use std::net::IpAddr;

use sipfilter_common::{
    addr::Ipv6,
    parse::{self, Fragment, Ip, Malformed, Network, Ports},
    reader::Reader as _,
};

use super::{Direction, Flow, settings::SignallingPorts};

const IPV4_FLAGS_AND_OFFSET: usize = 6;
const IPV6_NEXT_HEADER: usize = 6;
const IPV6_HEADER: usize = 40;
const IPV6_FRAGMENT: u8 = 44;
const UDP_HEADER: usize = 8;
const TCP_HEADER: usize = 20;

/// An IP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// What it carries.
    pub content: Content<'a>,
}

/// What an IP packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content<'a> {
    /// All of a transport packet.
    Whole {
        /// Its protocol number.
        protocol: u8,
        /// Its bytes from the transport header on.
        payload: &'a [u8],
    },
    /// A part of one.
    Part(Part<'a>),
}

/// A fragment (RFC 791 §3.2, RFC 8200 §4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part<'a> {
    /// Identification.
    pub id: u32,
    /// The protocol number that every fragment of the datagram repeats.
    pub protocol: u8,
    /// The first byte's place in the datagram.
    pub offset: usize,
    /// More fragments follow.
    pub more: bool,
    /// The bytes.
    pub data: &'a [u8],
    /// In the first fragment: where the transport header begins, behind further IPv6 extension headers.
    pub transport: Option<TransportStart>,
    /// IPv6: no router ever cut this fragment again.
    pub is_ipv6: bool,
}

/// Where a datagram's transport header begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransportStart {
    /// Its protocol number.
    pub protocol: u8,
    /// Its offset in the datagram.
    pub offset: usize,
}

/// A TCP segment (RFC 9293 §3.1), as far as following a stream needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Source and destination port.
    pub ports: Ports,
    /// Sequence number of the first byte, or of SYN.
    pub sequence: u32,
    /// What the sender has received, if ACK is set.
    pub acknowledgment: Option<u32>,
    /// SYN.
    pub syn: bool,
    /// FIN.
    pub fin: bool,
    /// RST.
    pub rst: bool,
    /// The bytes.
    pub data: &'a [u8],
}

/// Reads an IP packet from its IP header on.
///
/// # Errors
/// [`Malformed`] if the packet ends early or contradicts itself, or is no IP packet at all.
pub fn read_packet(bytes: &[u8]) -> Result<Packet<'_>, Malformed> {
    match parse::parse_raw(&bytes)? {
        Network::Ipv4(start) => {
            let ip = parse::parse_ipv4(&bytes, start)?;
            let word = bytes.be16(start + IPV4_FLAGS_AND_OFFSET).ok_or(Malformed)?;
            let place = Place {
                data: ip.transport,
                protocol: ip.protocol,
                offset: usize::from(word & 0x1fff) * 8,
                more: word & 0x2000 != 0,
            };
            packet(bytes, &ip, Some(place), false)
        }
        Network::Ipv6(start) => {
            let ip = parse::parse_ipv6(&bytes, start)?;
            let place = match ip.fragment {
                Fragment::Whole => None,
                _ => Some(ipv6_place(bytes, &ip).ok_or(Malformed)?),
            };
            packet(bytes, &ip, place, true)
        }
        Network::Other => Err(Malformed),
    }
}

/// Reads a UDP header (RFC 768): the ports and the payload.
///
/// # Errors
/// [`Malformed`] if the length field is smaller than the header or larger than the packet.
pub fn read_udp(bytes: &[u8]) -> Result<(Ports, &[u8]), Malformed> {
    let ports = read_ports(bytes)?;
    let length = usize::from(bytes.be16(4).ok_or(Malformed)?);
    let payload = bytes.get(UDP_HEADER..length).ok_or(Malformed)?;
    Ok((ports, payload))
}

/// Reads a TCP header; options are skipped.
///
/// # Errors
/// [`Malformed`] if the data offset is smaller than the header or larger than the packet.
pub fn read_tcp(bytes: &[u8]) -> Result<Segment<'_>, Malformed> {
    let ports = read_ports(bytes)?;
    let sequence = u32::from_be_bytes(bytes.bytes(4).ok_or(Malformed)?);
    let acknowledgment = u32::from_be_bytes(bytes.bytes(8).ok_or(Malformed)?);
    let [offset, flags] = bytes.bytes(12).ok_or(Malformed)?;
    let header = usize::from(offset >> 4) * 4;
    if header < TCP_HEADER {
        return Err(Malformed);
    }
    Ok(Segment {
        ports,
        sequence,
        acknowledgment: (flags & 0x10 != 0).then_some(acknowledgment),
        syn: flags & 0x02 != 0,
        fin: flags & 0x01 != 0,
        rst: flags & 0x04 != 0,
        data: bytes.get(header..).ok_or(Malformed)?,
    })
}

/// Whether the segment's ports are ones for SIP over TLS.
pub fn is_tls(flow: &Flow, pbx: &SignallingPorts, provider: &SignallingPorts) -> bool {
    let (ours, theirs) = match flow.direction {
        Direction::Ingress => (flow.destination.port(), flow.source.port()),
        Direction::Egress => (flow.source.port(), flow.destination.port()),
    };
    pbx.tls.contains(&ours) || provider.tls.contains(&theirs)
}

fn read_ports(bytes: &[u8]) -> Result<Ports, Malformed> {
    Ok(Ports {
        source: bytes.be16(0).ok_or(Malformed)?,
        destination: bytes.be16(2).ok_or(Malformed)?,
    })
}

/// What the fragment fields say.
struct Place {
    /// Where in the packet the fragment's data begins.
    data: usize,
    protocol: u8,
    offset: usize,
    more: bool,
}

fn packet<'a, A: Copy + Into<IpAddr>>(
    bytes: &'a [u8],
    ip: &Ip<A>,
    place: Option<Place>,
    is_ipv6: bool,
) -> Result<Packet<'a>, Malformed> {
    let content = match (ip.fragment, place) {
        (Fragment::First { id } | Fragment::Later { id }, Some(place)) => {
            let is_first = matches!(ip.fragment, Fragment::First { .. });
            Content::Part(Part {
                id,
                protocol: place.protocol,
                offset: place.offset,
                more: place.more,
                data: bytes.get(place.data..ip.end).ok_or(Malformed)?,
                transport: is_first.then(|| TransportStart {
                    protocol: ip.protocol,
                    offset: ip.transport.saturating_sub(place.data),
                }),
                is_ipv6,
            })
        }
        _ => Content::Whole {
            protocol: ip.protocol,
            payload: bytes.get(ip.transport..ip.end).ok_or(Malformed)?,
        },
    };
    Ok(Packet {
        source: ip.source.into(),
        destination: ip.destination.into(),
        content,
    })
}

/// Finds the fragment header that the kernel's parser stepped over: the first one that is no atomic fragment's (RFC 6946).
fn ipv6_place(bytes: &[u8], ip: &Ip<Ipv6>) -> Option<Place> {
    let mut next = bytes.byte(ip.start + IPV6_NEXT_HEADER)?;
    let mut at = ip.start + IPV6_HEADER;
    while at < ip.end {
        let [protocol, length, high, low] = bytes.bytes(at)?;
        if next != IPV6_FRAGMENT {
            next = protocol;
            at += (usize::from(length) + 1) * 8;
            continue;
        }
        let word = u16::from_be_bytes([high, low]);
        if word & 0xfff9 != 0 {
            return Some(Place {
                data: at + 8,
                protocol,
                offset: usize::from(word & 0xfff8),
                more: word & 1 != 0,
            });
        }
        next = protocol;
        at += 8;
    }
    None
}
