//! From link-layer bytes to addresses, protocol and ports: Ethernet, up to two VLAN tags, IPv4 with options, IPv6 with
//! extension headers, fragments, UDP and TCP ports.
//!
//! It judges nothing: what cannot be read is an error that [`crate::classify`] turns into a verdict.

use crate::{
    addr::{Ipv4, Ipv6},
    reader::Reader,
};

/// IANA protocol number of TCP.
pub const TCP: u8 = 6;
/// IANA protocol number of UDP.
pub const UDP: u8 = 17;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_QINQ: u16 = 0x88a8;
const ETHERTYPE_QINQ_OLD: u16 = 0x9100;

const ETHERNET_HEADER: usize = 14;
const VLAN_TAG: usize = 4;
const UDP_HEADER: usize = 8;
/// Offset of the flags in a TCP header, and two of them (RFC 9293 §3.1).
const TCP_HEADER: usize = 20;
const TCP_OFFSET: usize = 12;
const TCP_FLAGS: usize = 13;
const TCP_SYN: u8 = 1 << 1;
const TCP_ACK: u8 = 1 << 4;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;

/// Extension headers looked through. Real media and signalling has none or a fragment header; who hides UDP behind more is refused.
const MAX_EXTENSIONS: usize = 4;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

/// The packet is cut short or contradicts itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// What stands behind the link-layer header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// IPv4, its header at this offset.
    Ipv4(usize),
    /// IPv6, its header at this offset.
    Ipv6(usize),
    /// Anything else.
    Other,
}

/// An IP packet up to its transport header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ip<A> {
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
    /// Protocol number of the transport header.
    pub protocol: u8,
    /// Whether the transport header is here.
    pub fragment: Fragment,
    /// Offset of the IP header.
    pub start: usize,
    /// Offset of the transport header, or of the fragment's data.
    pub transport: usize,
    /// Offset of the first byte behind the IP packet (padding may follow).
    pub end: usize,
}

/// A packet's part of its datagram (RFC 791 §3.2, RFC 8200 §4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fragment {
    /// All of it.
    Whole,
    /// The first fragment, with the transport header.
    First {
        /// Identification.
        id: u32,
    },
    /// Any other fragment.
    Later {
        /// Identification.
        id: u32,
    },
}

/// UDP or TCP ports, in host byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
}

/// Reads an Ethernet header and up to two VLAN tags (IEEE 802.1Q, 802.1ad).
///
/// # Errors
/// [`Malformed`] if the frame ends inside.
#[inline(always)]
pub fn parse_ethernet<R: Reader>(reader: &R) -> Result<Network, Malformed> {
    let mut ethertype = reader.be16(ETHERNET_HEADER - 2).ok_or(Malformed)?;
    let mut offset = ETHERNET_HEADER;
    if is_vlan(ethertype) {
        ethertype = reader.be16(offset + 2).ok_or(Malformed)?;
        offset += VLAN_TAG;
        if is_vlan(ethertype) {
            ethertype = reader.be16(offset + 2).ok_or(Malformed)?;
            offset += VLAN_TAG;
        }
    }
    Ok(match ethertype {
        ETHERTYPE_IPV4 => Network::Ipv4(offset),
        ETHERTYPE_IPV6 => Network::Ipv6(offset),
        _ => Network::Other,
    })
}

/// A whole UDP datagram in a frame without tags, over IP without options or extension headers: nearly everything that comes to a PBX.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plain {
    /// Over IPv4.
    V4(Datagram<Ipv4>),
    /// Over IPv6.
    V6(Datagram<Ipv6>),
}

/// All that the rules need of a UDP datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram<A> {
    /// The IP packet.
    pub ip: Ip<A>,
    /// The ports.
    pub ports: Ports,
    /// Where the payload begins and ends.
    pub payload: (usize, usize),
}

/// Reads a plain datagram, whose headers all lie at fixed offsets, in a fraction of the time that [`parse_ethernet`] and what follows it
/// take. They would read the same. `None` for everything else, and for what is malformed.
#[inline(always)]
pub fn parse_plain<R: Reader>(reader: &R) -> Option<Plain> {
    // As they lie in the packet: turning round what is read would take time, turning round a constant takes none.
    const IPV4: u16 = ETHERTYPE_IPV4.to_be();
    const IPV6: u16 = ETHERTYPE_IPV6.to_be();
    match u16::from_ne_bytes(reader.bytes(ETHERNET_HEADER - 2)?) {
        IPV4 => plain4(reader).map(Plain::V4),
        IPV6 => plain6(reader).map(Plain::V6),
        _ => None,
    }
}

#[inline(always)]
fn plain4<R: Reader>(reader: &R) -> Option<Datagram<Ipv4>> {
    const VERSION_AND_LENGTH: u8 = 0x45;
    let [first, second, third, source, destination, ports, length] =
        reader.words::<{ (IPV4_HEADER + UDP_HEADER) / 4 }>(ETHERNET_HEADER)?;
    let [version, _, l0, l1] = first.to_ne_bytes();
    let [_, _, f0, f1] = second.to_ne_bytes();
    let [_, protocol, ..] = third.to_ne_bytes();
    if version != VERSION_AND_LENGTH
        || u16::from_be_bytes([f0, f1]) & 0x3fff != 0
        || protocol != UDP
    {
        return None;
    }
    let ip = Ip {
        source: Ipv4::from_word(source),
        destination: Ipv4::from_word(destination),
        protocol: UDP,
        fragment: Fragment::Whole,
        start: ETHERNET_HEADER,
        transport: ETHERNET_HEADER + IPV4_HEADER,
        end: ETHERNET_HEADER + u16::from_be_bytes([l0, l1]) as usize,
    };
    datagram(reader, ip, [ports, length])
}

#[inline(always)]
fn plain6<R: Reader>(reader: &R) -> Option<Datagram<Ipv6>> {
    const TRANSPORT: usize = ETHERNET_HEADER + IPV6_HEADER;
    let [first, second, s0, s1, s2, s3, d0, d1, d2, d3, ports, length] =
        reader.words::<{ (IPV6_HEADER + UDP_HEADER) / 4 }>(ETHERNET_HEADER)?;
    let (first, second) = (u32::from_be(first), u32::from_be(second));
    if first >> 28 != 6 || (second >> 8) as u8 != UDP {
        return None;
    }
    let ip = Ip {
        source: Ipv6::from_words([s0, s1, s2, s3]),
        destination: Ipv6::from_words([d0, d1, d2, d3]),
        protocol: UDP,
        fragment: Fragment::Whole,
        start: ETHERNET_HEADER,
        transport: TRANSPORT,
        end: TRANSPORT + (second >> 16) as usize,
    };
    datagram(reader, ip, [ports, length])
}

/// `header`: the words of the UDP header (RFC 768).
#[inline(always)]
fn datagram<A, R: Reader>(reader: &R, ip: Ip<A>, header: [u32; 2]) -> Option<Datagram<A>> {
    let [[s0, s1, d0, d1], [l0, l1, ..]] = header.map(u32::to_ne_bytes);
    let length = u16::from_be_bytes([l0, l1]) as usize;
    let payload_end = ip.transport + length;
    if length < UDP_HEADER || payload_end > ip.end || ip.end > reader.length() {
        return None;
    }
    Some(Datagram {
        ports: Ports {
            source: u16::from_be_bytes([s0, s1]),
            destination: u16::from_be_bytes([d0, d1]),
        },
        payload: (ip.transport + UDP_HEADER, payload_end),
        ip,
    })
}

/// Reads the IP version of a packet that has no link-layer header.
///
/// # Errors
/// [`Malformed`] if the packet is empty.
#[inline(always)]
pub fn parse_raw<R: Reader>(reader: &R) -> Result<Network, Malformed> {
    Ok(match reader.byte(0).ok_or(Malformed)? >> 4 {
        4 => Network::Ipv4(0),
        6 => Network::Ipv6(0),
        _ => Network::Other,
    })
}

#[inline(always)]
fn is_vlan(ethertype: u16) -> bool {
    matches!(
        ethertype,
        ETHERTYPE_VLAN | ETHERTYPE_QINQ | ETHERTYPE_QINQ_OLD
    )
}

/// Reads an IPv4 header (RFC 791 §3.1); options are skipped.
///
/// # Errors
/// [`Malformed`] if the version or a length is wrong or the packet ends early.
#[inline(always)]
pub fn parse_ipv4<R: Reader>(reader: &R, start: usize) -> Result<Ip<Ipv4>, Malformed> {
    let [first, second, third, source, destination] = reader
        .words::<{ IPV4_HEADER / 4 }>(start)
        .ok_or(Malformed)?;
    let (first, second, third) = (
        u32::from_be(first),
        u32::from_be(second),
        u32::from_be(third),
    );
    let header_length = (first >> 24 & 0xf) as usize * 4;
    let total_length = (first & 0xffff) as usize;
    let end = start + total_length;
    if first >> 28 != 4
        || header_length < IPV4_HEADER
        || total_length < header_length
        || !reader.holds(end)
    {
        return Err(Malformed);
    }
    let (id, flags_and_offset) = (second >> 16, second & 0xffff);
    let fragment = if flags_and_offset & 0x3fff == 0 {
        Fragment::Whole
    } else if flags_and_offset & 0x1fff == 0 {
        Fragment::First { id }
    } else {
        Fragment::Later { id }
    };
    Ok(Ip {
        source: Ipv4::from_word(source),
        destination: Ipv4::from_word(destination),
        protocol: (third >> 16) as u8,
        fragment,
        start,
        transport: start + header_length,
        end,
    })
}

/// Reads an IPv6 header and the extension headers behind it (RFC 8200 §4).
///
/// # Errors
/// [`Malformed`] if the version or a length is wrong, the packet ends early, or more than four extension headers stand
/// in front of the transport header.
#[inline(always)]
pub fn parse_ipv6<R: Reader>(reader: &R, start: usize) -> Result<Ip<Ipv6>, Malformed> {
    let words = reader
        .words::<{ IPV6_HEADER / 4 }>(start)
        .ok_or(Malformed)?;
    let [first, second, s0, s1, s2, s3, d0, d1, d2, d3] = words;
    let (first, second) = (u32::from_be(first), u32::from_be(second));
    let end = start + IPV6_HEADER + (second >> 16) as usize;
    if first >> 28 != 6 || !reader.holds(end) {
        return Err(Malformed);
    }
    let source = Ipv6::from_words([s0, s1, s2, s3]);
    let destination = Ipv6::from_words([d0, d1, d2, d3]);
    let mut protocol = (second >> 8) as u8;
    let mut transport = start + IPV6_HEADER;
    let mut fragment = Fragment::Whole;
    for _ in 0..MAX_EXTENSIONS {
        match protocol {
            HOP_BY_HOP | ROUTING | DESTINATION => {
                let [next, length] = reader.bytes(transport).ok_or(Malformed)?;
                protocol = next;
                transport += (usize::from(length) + 1) * 8;
            }
            FRAGMENT => {
                let header: [u8; 8] = reader.bytes(transport).ok_or(Malformed)?;
                let id = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
                let flags_and_offset = u16::from_be_bytes([header[2], header[3]]);
                protocol = header[0];
                transport += 8;
                if flags_and_offset & 0xfff8 != 0 {
                    // What follows is data, whatever it looks like.
                    fragment = Fragment::Later { id };
                    break;
                }
                // An atomic fragment (RFC 6946) is a whole packet.
                fragment = if flags_and_offset & 1 == 0 {
                    Fragment::Whole
                } else {
                    Fragment::First { id }
                };
            }
            _ => break,
        }
    }
    let unread = !matches!(fragment, Fragment::Later { .. })
        && matches!(protocol, HOP_BY_HOP | ROUTING | DESTINATION | FRAGMENT);
    if unread || transport > end {
        return Err(Malformed);
    }
    Ok(Ip {
        source,
        destination,
        protocol,
        fragment,
        start,
        transport,
        end,
    })
}

impl<A> Ip<A> {
    /// The length of the IP packet in bytes, header included.
    #[inline(always)]
    pub const fn length(&self) -> usize {
        self.end - self.start
    }

    /// The ports of a UDP or TCP header.
    ///
    /// # Errors
    /// [`Malformed`] if the packet ends before the ports.
    #[inline(always)]
    pub fn ports<R: Reader>(&self, reader: &R) -> Result<Ports, Malformed> {
        if self.transport + 4 > self.end {
            return Err(Malformed);
        }
        let ports: [u8; 4] = reader.bytes(self.transport).ok_or(Malformed)?;
        Ok(Ports {
            source: u16::from_be_bytes([ports[0], ports[1]]),
            destination: u16::from_be_bytes([ports[2], ports[3]]),
        })
    }

    /// Whether a TCP segment asks for a connection: SYN without ACK (RFC 9293 §3.5).
    ///
    /// # Errors
    /// [`Malformed`] if the packet ends before the flags.
    #[inline(always)]
    pub fn opens_connection<R: Reader>(&self, reader: &R) -> Result<bool, Malformed> {
        let at = self.transport + TCP_FLAGS;
        if at >= self.end {
            return Err(Malformed);
        }
        let flags = reader.byte(at).ok_or(Malformed)?;
        Ok(flags & (TCP_SYN | TCP_ACK) == TCP_SYN)
    }

    /// Where the payload of a TCP header begins and ends (RFC 9293 §3.1).
    ///
    /// # Errors
    /// [`Malformed`] if the packet ends inside the header, or the header says that it does.
    #[inline(always)]
    pub fn tcp_payload<R: Reader>(&self, reader: &R) -> Result<(usize, usize), Malformed> {
        let at = self.transport + TCP_OFFSET;
        if at >= self.end {
            return Err(Malformed);
        }
        let header = usize::from(reader.byte(at).ok_or(Malformed)? >> 4) * 4;
        let payload = self.transport + header;
        if header < TCP_HEADER || payload > self.end {
            return Err(Malformed);
        }
        Ok((payload, self.end))
    }

    /// Where the payload of a UDP header begins and ends (RFC 768); in a first fragment it ends with the fragment.
    ///
    /// # Errors
    /// [`Malformed`] if the length field is smaller than the header or larger than the packet.
    #[inline(always)]
    pub fn udp_payload<R: Reader>(&self, reader: &R) -> Result<(usize, usize), Malformed> {
        let payload = self.transport + UDP_HEADER;
        if payload > self.end {
            return Err(Malformed);
        }
        let length = usize::from(reader.be16(self.transport + 4).ok_or(Malformed)?);
        let end = self.transport + length;
        match self.fragment {
            Fragment::Whole if length < UDP_HEADER || end > self.end => Err(Malformed),
            Fragment::Whole => Ok((payload, end)),
            _ => Ok((payload, self.end)),
        }
    }
}
