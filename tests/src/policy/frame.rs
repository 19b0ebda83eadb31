//! Frames, byte by byte: Ethernet with any tags, IPv4 with options, IPv6 with extension headers, fragments, UDP and TCP.
//!
//! Checksums stay zero: neither the policy nor a test run of the programs looks at them.

use std::net::{IpAddr, SocketAddr};

/// IANA protocol numbers that the cases use.
pub const ICMP: u8 = 1;
/// See [`ICMP`].
pub const TCP: u8 = 6;
/// See [`ICMP`].
pub const UDP: u8 = 17;

const HOP_BY_HOP: u8 = 0;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// A frame in the making. The defaults are a whole UDP datagram without tags or options.
#[derive(Debug, Clone)]
pub struct Frame {
    source: SocketAddr,
    destination: SocketAddr,
    protocol: u8,
    /// What the header says instead of `protocol`.
    label: Option<u8>,
    vlan_tags: Vec<u16>,
    ipv4_options: usize,
    extensions: Vec<u8>,
    fragment: Option<Fragment>,
    payload: Vec<u8>,
    padding: usize,
    /// TCP's, PSH and ACK unless said otherwise.
    flags: u8,
}

#[derive(Debug, Clone, Copy)]
struct Fragment {
    id: u32,
    /// In units of eight bytes.
    offset: u16,
    more: bool,
}

impl Frame {
    /// A UDP datagram. Both ends must be of one family.
    pub fn udp(source: &str, destination: &str, payload: &[u8]) -> Self {
        Self::between(
            UDP,
            source.parse().expect("a socket address"),
            destination.parse().expect("a socket address"),
            payload,
        )
    }

    /// A packet of any protocol. Both ends must be of one family.
    pub fn between(
        protocol: u8,
        source: SocketAddr,
        destination: SocketAddr,
        payload: &[u8],
    ) -> Self {
        Self {
            source,
            destination,
            protocol,
            label: None,
            vlan_tags: Vec::new(),
            ipv4_options: 0,
            extensions: Vec::new(),
            fragment: None,
            payload: payload.to_vec(),
            padding: 0,
            flags: 0x18,
        }
    }

    /// A TCP segment.
    pub fn tcp(source: &str, destination: &str, payload: &[u8]) -> Self {
        Self {
            protocol: TCP,
            ..Self::udp(source, destination, payload)
        }
    }

    /// Sets the flags of a TCP header.
    pub fn flags(mut self, flags: u8) -> Self {
        self.flags = flags;
        self
    }

    /// Another protocol, whose header is the payload's beginning.
    pub fn other(protocol: u8, source: &str, destination: &str, payload: &[u8]) -> Self {
        Self {
            protocol,
            ..Self::udp(source, destination, payload)
        }
    }

    /// Names another protocol in the IP header than the one whose header follows.
    pub fn relabelled(mut self, protocol: u8) -> Self {
        self.label = Some(protocol);
        self
    }

    /// Puts a VLAN tag with this ethertype in front, outside of those that are there.
    pub fn tagged(mut self, ethertype: u16) -> Self {
        self.vlan_tags.insert(0, ethertype);
        self
    }

    /// Adds IPv4 options: `words` words of four bytes, at most ten.
    pub fn with_options(mut self, words: usize) -> Self {
        self.ipv4_options = words * 4;
        self
    }

    /// Adds IPv6 destination-options headers, or one hop-by-hop header and then those.
    pub fn with_extensions(mut self, count: usize) -> Self {
        self.extensions = (0..count)
            .map(|index| {
                if index == 0 {
                    HOP_BY_HOP
                } else {
                    DESTINATION_OPTIONS
                }
            })
            .collect();
        self
    }

    /// Makes it a fragment; `offset` counts units of eight bytes. One with an offset has no transport header, only payload.
    pub fn fragment(mut self, id: u32, offset: u16, more: bool) -> Self {
        self.fragment = Some(Fragment { id, offset, more });
        self
    }

    /// Adds bytes behind the IP packet, as Ethernet does to short frames.
    pub fn padded(mut self, bytes: usize) -> Self {
        self.padding = bytes;
        self
    }

    /// The offset of the IP header.
    pub fn ip_offset(&self) -> usize {
        14 + 4 * self.vlan_tags.len()
    }

    /// The frame's bytes.
    pub fn build(&self) -> Vec<u8> {
        let mut frame = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2];
        for tag in &self.vlan_tags {
            frame.extend(tag.to_be_bytes());
            frame.extend([0x00, 0x64]);
        }
        let transport = self.transport();
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                frame.extend([0x08, 0x00]);
                frame.extend(self.ipv4(source.octets(), destination.octets(), &transport));
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                frame.extend([0x86, 0xdd]);
                frame.extend(self.ipv6(source.octets(), destination.octets(), &transport));
            }
            _ => panic!("both ends of a frame are of one family"),
        }
        frame.extend(std::iter::repeat_n(0, self.padding));
        frame
    }

    fn named_protocol(&self) -> u8 {
        self.label.unwrap_or(self.protocol)
    }

    fn transport(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let is_later = self.fragment.is_some_and(|fragment| fragment.offset != 0);
        if !is_later && matches!(self.protocol, UDP | TCP) {
            bytes.extend(self.source.port().to_be_bytes());
            bytes.extend(self.destination.port().to_be_bytes());
            if self.protocol == UDP {
                bytes.extend((8 + self.payload.len() as u16).to_be_bytes());
                bytes.extend([0, 0]);
            } else {
                let flags = self.flags;
                bytes.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
            }
        }
        bytes.extend(&self.payload);
        bytes
    }

    fn ipv4(&self, source: [u8; 4], destination: [u8; 4], transport: &[u8]) -> Vec<u8> {
        let header = 20 + self.ipv4_options;
        let mut bytes = vec![0x40 | (header / 4) as u8, 0];
        bytes.extend(((header + transport.len()) as u16).to_be_bytes());
        let (id, flags_and_offset) = match self.fragment {
            Some(fragment) => (
                fragment.id as u16,
                u16::from(fragment.more) << 13 | fragment.offset,
            ),
            None => (0x1234, 0x4000),
        };
        bytes.extend(id.to_be_bytes());
        bytes.extend(flags_and_offset.to_be_bytes());
        bytes.extend([64, self.named_protocol(), 0, 0]);
        bytes.extend(source);
        bytes.extend(destination);
        bytes.extend(std::iter::repeat_n(1, self.ipv4_options));
        bytes.extend(transport);
        bytes
    }

    fn ipv6(&self, source: [u8; 16], destination: [u8; 16], transport: &[u8]) -> Vec<u8> {
        let mut kinds = self.extensions.clone();
        if self.fragment.is_some() {
            kinds.push(FRAGMENT);
        }
        let mut chain = Vec::new();
        for (index, &kind) in kinds.iter().enumerate() {
            let next = kinds
                .get(index + 1)
                .copied()
                .unwrap_or(self.named_protocol());
            match (kind, self.fragment) {
                (FRAGMENT, Some(fragment)) => {
                    chain.extend([next, 0]);
                    chain.extend((fragment.offset << 3 | u16::from(fragment.more)).to_be_bytes());
                    chain.extend(fragment.id.to_be_bytes());
                }
                // One unit of eight bytes, filled by a PadN option.
                _ => chain.extend([next, 0, 1, 4, 0, 0, 0, 0]),
            }
        }
        let mut bytes = vec![0x60, 0, 0, 0];
        bytes.extend(((chain.len() + transport.len()) as u16).to_be_bytes());
        bytes.extend([kinds.first().copied().unwrap_or(self.named_protocol()), 64]);
        bytes.extend(source);
        bytes.extend(destination);
        bytes.extend(chain);
        bytes.extend(transport);
        bytes
    }
}
