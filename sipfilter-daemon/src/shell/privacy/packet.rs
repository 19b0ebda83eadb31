//! A captured packet's way out: what it says is redacted in place, so that it keeps its length, its headers and their lengths.
//!
//! It knows one packet at a time: a user part that one segment of a TCP stream begins and the next one ends is two users, and what of it
//! cannot be told for one stays. Only the checksum of the IPv4 header is mended.

use std::net::{Ipv4Addr, Ipv6Addr};

use sipfilter_common::{
    parse::{self, Fragment, Ip, Network},
    reader::Reader,
};

use super::Redactor;
use crate::config::Redact;

const ETHERNET: usize = 14;
const UDP_HEADER: usize = 8;
/// Offset of the header length in a TCP header (RFC 9293 §3.1).
const TCP_OFFSET: usize = 12;
/// RTP and RTCP begin with a version of 2 (RFC 7983 §7).
const RTP: std::ops::Range<u8> = 128..192;

impl Redactor {
    /// A packet as it may be read. It begins with its Ethernet header and may be cut short.
    pub fn packet(&self, packet: &mut [u8]) {
        let redact = self.redact();
        if redact == Redact::None {
            return;
        }
        let cut = Cut(packet);
        let text = match parse::parse_ethernet(&cut) {
            Ok(Network::Ipv4(start)) => {
                let text = parse::parse_ipv4(&cut, start)
                    .ok()
                    .and_then(|ip| text_of(&cut, &ip));
                if redact == Redact::UsersAndAddresses {
                    self.addresses_v4(packet, start);
                }
                text
            }
            Ok(Network::Ipv6(start)) => {
                let text = parse::parse_ipv6(&cut, start)
                    .ok()
                    .and_then(|ip| text_of(&cut, &ip));
                if redact == Redact::UsersAndAddresses {
                    for at in [start + 8, start + 24] {
                        self.address_in(packet, at, |octets: [u8; 16]| {
                            Ipv6Addr::from(octets).into()
                        });
                    }
                }
                text
            }
            _ => Some(ETHERNET),
        };
        if let Some(text) = text.and_then(|start| packet.get_mut(start..)) {
            self.in_place(text);
        }
    }

    fn addresses_v4(&self, packet: &mut [u8], start: usize) {
        for at in [start + 12, start + 16] {
            self.address_in(packet, at, |octets: [u8; 4]| Ipv4Addr::from(octets).into());
        }
        let words = packet
            .get(start)
            .map_or(0, |first| usize::from(first & 15) * 2);
        let Some(header) = packet.get_mut(start..start + words * 2) else {
            return;
        };
        let Some(checksum) = header.get_mut(10..12) else {
            return;
        };
        checksum.fill(0);
        // RFC 1071.
        let sum: u32 = header
            .chunks_exact(2)
            .map(|word| word.iter().fold(0, |sum, &byte| sum << 8 | u32::from(byte)))
            .sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        let folded = ((folded & 0xffff) + (folded >> 16)) as u16;
        if let Some(checksum) = header.get_mut(10..12) {
            checksum.copy_from_slice(&(!folded).to_be_bytes());
        }
    }

    fn address_in<const N: usize>(
        &self,
        packet: &mut [u8],
        at: usize,
        address: impl FnOnce([u8; N]) -> std::net::IpAddr,
    ) {
        let Some(octets) = packet
            .get_mut(at..)
            .and_then(|rest| rest.first_chunk_mut::<N>())
        else {
            return;
        };
        let token = match self.address(address(*octets)) {
            std::net::IpAddr::V4(token) => token.octets().to_vec(),
            std::net::IpAddr::V6(token) => token.octets().to_vec(),
        };
        // An IPv4 address within an IPv6 one has a token of the other length.
        let padding = N.saturating_sub(token.len());
        octets.fill(0);
        if let Some(octets) = octets.get_mut(padding..) {
            octets.copy_from_slice(&token);
        }
    }
}

/// Where text may stand; nothing where the packet carries media.
fn text_of<A>(packet: &Cut<'_>, ip: &Ip<A>) -> Option<usize> {
    let start = match (ip.fragment, ip.protocol) {
        (Fragment::Later { .. }, _) => ip.transport,
        (_, parse::UDP) => ip.transport + UDP_HEADER,
        (_, parse::TCP) => {
            let offset: [u8; 1] = packet.bytes(ip.transport + TCP_OFFSET)?;
            let [offset] = offset;
            return Some(ip.transport + usize::from(offset >> 4) * 4);
        }
        _ => ip.transport,
    };
    let [first] = packet.bytes(start)?;
    (!RTP.contains(&first)).then_some(start)
}

/// A packet of which perhaps only the beginning is there.
struct Cut<'a>(&'a [u8]);

impl Reader for Cut<'_> {
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.0.get(offset..)?.first_chunk().copied()
    }

    fn length(&self) -> usize {
        usize::MAX
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{PacketBuilder, SlicedPacket};

    use super::*;

    const INVITE: &str = "INVITE sip:+4930123456@203.0.113.10 SIP/2.0\r\nFrom: Alice <sip:alice@198.51.100.7>;tag=1\r\nCSeq: 314159265 INVITE\r\nContent-Length: 34\r\n\r\nv=0\r\no=- 1 1 IN IP4 198.51.100.7\r\n";

    fn packet() -> Vec<u8> {
        let builder = PacketBuilder::ethernet2([0; 6], [0; 6])
            .ipv4([198, 51, 100, 7], [203, 0, 113, 10], 64)
            .udp(5060, 5060);
        let mut packet = Vec::new();
        builder
            .write(&mut packet, INVITE.as_bytes())
            .expect("a packet");
        packet
    }

    #[test]
    fn a_packet_keeps_its_form_and_names_nobody() {
        let redactor = Redactor::new([1, 2], Redact::UsersAndAddresses);
        redactor.configure(
            Redact::UsersAndAddresses,
            &["203.0.113.10".parse().expect("one")],
        );
        let mut told = packet();
        redactor.packet(&mut told);
        assert_eq!(told.len(), packet().len());
        let text = String::from_utf8_lossy(&told).into_owned();
        for gone in ["4930123456", "Alice", "alice", "198.51.100.7"] {
            assert!(!text.contains(gone), "{text}");
        }
        for stays in [
            "@203.0.113.10 SIP/2.0\r\n",
            "CSeq: 314159265 INVITE",
            "IN IP4 xxx.xx.xxx.x\r\n",
        ] {
            assert!(text.contains(stays), "{text}");
        }
        let sliced = SlicedPacket::from_ethernet(&told).expect("a packet");
        let Some(etherparse::NetSlice::Ipv4(ip)) = sliced.net else {
            panic!("IPv4");
        };
        let header = ip.header().to_header();
        assert_eq!(header.destination, [203, 0, 113, 10]);
        assert_eq!(header.source[0] >> 4, 15, "{header:?}");
        assert_eq!(header.header_checksum, header.calc_header_checksum());
    }

    #[test]
    fn without_a_setting_and_in_media_nothing_changes() {
        let mut told = packet();
        Redactor::new([1, 2], Redact::None).packet(&mut told);
        assert_eq!(told, packet());
        let mut media = packet();
        media[14 + 20 + 8] = 0x80;
        let before = media.clone();
        Redactor::new([1, 2], Redact::Users).packet(&mut media);
        assert_eq!(media, before);
        for length in 0..before.len() {
            let mut cut = before[..length].to_vec();
            Redactor::new([1, 2], Redact::UsersAndAddresses).packet(&mut cut);
        }
    }
}
