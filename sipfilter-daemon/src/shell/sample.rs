//! One sample of a dropped packet, read: when, why, from where to where, and what it carries.
//!
//! The bytes are read by the policy's own parser. A sample may be cut short; what it has not got counts as there where only lengths
//! matter. Nothing here panics, whatever the packet is, and nothing is judged.

use std::{
    net::{IpAddr, SocketAddr},
    ops::Range,
};

use sipfilter_common::{
    parse::{self, Fragment, Ip, Network},
    reader::Reader,
    reason::Reason,
    record::{EGRESS, SampleHeader},
};

use super::{clock, interface};
use crate::engine::{Direction, Instant};

/// Offset and unit of the header length in a TCP header (RFC 9293 §3.1).
const TCP_OFFSET: usize = 12;

/// A dropped packet, or one that the rules call to drop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// When the kernel judged it.
    pub at: Instant,
    /// Why.
    pub reason: Reason,
    /// Whether it was dropped; if not, nothing is enforced.
    pub dropped: bool,
    /// Which way it went.
    pub direction: Direction,
    /// Where it came in, or would have left.
    pub interface: interface::Index,
    /// Its length, from its link-layer header on.
    pub original: u32,
    /// Its ends, as far as they can be read.
    pub ends: Option<Ends>,
    /// Its beginning, from its link-layer header on.
    pub bytes: Vec<u8>,
    payload: Range<usize>,
}

/// Where a packet comes from and goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// Source; port 0 where it has none.
    pub source: SocketAddr,
    /// Destination; port 0 where it has none.
    pub destination: SocketAddr,
    /// What the IP header says that it carries.
    pub protocol: u8,
}

impl Ends {
    /// The protocol's usual name, or its number.
    pub fn protocol_name(&self) -> String {
        match self.protocol {
            1 => "icmp".to_owned(),
            parse::TCP => "tcp".to_owned(),
            parse::UDP => "udp".to_owned(),
            58 => "icmpv6".to_owned(),
            other => other.to_string(),
        }
    }
}

impl Sample {
    /// Reads a record of the ring buffer; `None` for one that contradicts itself or is of another version.
    pub fn read(record: &[u8]) -> Option<Self> {
        let (header, bytes) = SampleHeader::split(record)?;
        let found = Cut {
            bytes,
            original: header.original as usize,
        }
        .read();
        let (ends, payload) = match found {
            Some((ends, payload)) => (Some(ends), payload),
            None => (None, 0..0),
        };
        Some(Self {
            at: clock::from_kernel(header.time),
            reason: Reason::from_number(header.reason)?,
            dropped: header.dropped != 0,
            direction: match header.direction {
                EGRESS => Direction::Egress,
                _ => Direction::Ingress,
            },
            interface: interface::Index(header.interface),
            original: header.original,
            ends,
            bytes: bytes.to_vec(),
            payload,
        })
    }

    /// What is there of the UDP or TCP payload.
    pub fn payload(&self) -> &[u8] {
        let end = self.payload.end.min(self.bytes.len());
        self.bytes.get(self.payload.start..end).unwrap_or(&[])
    }
}

/// A packet of which only the beginning is there.
struct Cut<'a> {
    bytes: &'a [u8],
    original: usize,
}

impl Reader for Cut<'_> {
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.bytes.get(offset..)?.first_chunk().copied()
    }

    fn length(&self) -> usize {
        self.original
    }
}

impl Cut<'_> {
    fn read(&self) -> Option<(Ends, Range<usize>)> {
        match parse::parse_ethernet(self).ok()? {
            Network::Ipv4(start) => match parse::parse_ipv4(self, start) {
                Ok(ip) => Some(self.read_ip(&ip)),
                Err(_) => Some((
                    without_ports(
                        self.address::<4>(start + 12)?,
                        self.address::<4>(start + 16)?,
                        self.byte(start + 9)?,
                    ),
                    0..0,
                )),
            },
            Network::Ipv6(start) => match parse::parse_ipv6(self, start) {
                Ok(ip) => Some(self.read_ip(&ip)),
                Err(_) => Some((
                    without_ports(
                        self.address::<16>(start + 8)?,
                        self.address::<16>(start + 24)?,
                        self.byte(start + 6)?,
                    ),
                    0..0,
                )),
            },
            Network::Other => None,
        }
    }

    fn address<const N: usize>(&self, offset: usize) -> Option<IpAddr>
    where
        IpAddr: From<[u8; N]>,
    {
        self.bytes::<N>(offset).map(IpAddr::from)
    }

    fn read_ip<A: Copy + Into<IpAddr>>(&self, ip: &Ip<A>) -> (Ends, Range<usize>) {
        let mut ends = without_ports(ip.source.into(), ip.destination.into(), ip.protocol);
        if matches!(ip.fragment, Fragment::Later { .. }) {
            return (ends, 0..0);
        }
        let has_ports = matches!(ip.protocol, parse::UDP | parse::TCP);
        let Some(ports) = ip.ports(self).ok().filter(|_| has_ports) else {
            return (ends, 0..0);
        };
        ends.source.set_port(ports.source);
        ends.destination.set_port(ports.destination);
        let payload = match ip.protocol {
            parse::UDP => ip.udp_payload(self).ok().map(|(start, end)| start..end),
            _ => self.byte(ip.transport + TCP_OFFSET).map(|byte| {
                let header = usize::from(byte >> 4) * 4;
                ip.transport + header..ip.end
            }),
        };
        (ends, payload.unwrap_or(0..0))
    }
}

fn without_ports(source: IpAddr, destination: IpAddr, protocol: u8) -> Ends {
    Ends {
        source: SocketAddr::new(source, 0),
        destination: SocketAddr::new(destination, 0),
        protocol,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use etherparse::PacketBuilder;
    use sipfilter_common::record::SAMPLE_HEADER;

    use super::*;

    /// A record as the kernel writes it, with at most `captured` bytes of a UDP packet.
    pub(crate) fn record(
        reason: Reason,
        (source, destination): (&str, &str),
        payload: &[u8],
        captured: usize,
    ) -> Vec<u8> {
        let [source, destination]: [SocketAddr; 2] =
            [source, destination].map(|text| text.parse().expect("a socket address"));
        let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let builder = match (source.ip(), destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                builder.ipv4(source.octets(), destination.octets(), 64)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                builder.ipv6(source.octets(), destination.octets(), 64)
            }
            _ => panic!("one family"),
        };
        let builder = builder.udp(source.port(), destination.port());
        let mut frame = Vec::new();
        builder.write(&mut frame, payload).expect("a packet");
        of_frame(reason, &frame, captured)
    }

    fn of_frame(reason: Reason, frame: &[u8], captured: usize) -> Vec<u8> {
        let captured = captured.min(frame.len());
        let mut record = Vec::with_capacity(SAMPLE_HEADER + captured);
        record.extend(7_000_000_000_u64.to_ne_bytes());
        record.extend((captured as u32).to_ne_bytes());
        record.extend((frame.len() as u32).to_ne_bytes());
        record.extend(3_u32.to_ne_bytes());
        record.extend((reason as u16).to_ne_bytes());
        record.extend([1, 0]);
        record.extend(&frame[..captured]);
        record
    }

    #[test]
    fn a_sample_has_its_ends_and_payload_also_where_its_end_is_missing() {
        let check = |ends: (&str, &str), captured: usize, payload: usize| {
            let record = record(Reason::NoPinhole, ends, &[b'x'; 300], captured);
            let sample = Sample::read(&record).expect("a sample");
            let found = sample.ends.expect("its ends");
            let found = (found.source.to_string(), found.destination.to_string());
            assert_eq!(found, (ends.0.to_owned(), ends.1.to_owned()));
            assert_eq!(sample.payload().len(), payload, "{captured}");
            assert_eq!((sample.reason, sample.dropped), (Reason::NoPinhole, true));
        };
        let four = ("192.0.2.66:4000", "203.0.113.10:10000");
        let six = ("[2001:db8::66]:4000", "[2001:db8:113::a]:10000");
        check(four, 2_000, 300);
        check(four, 100, 100 - 42);
        check(four, 42, 0);
        check(six, 2_000, 300);
        check(six, 100, 100 - 62);
    }

    #[test]
    fn whatever_the_packet_is_reading_it_ends() {
        let whole = record(
            Reason::Malformed,
            ("[2001:db8::66]:4000", "[2001:db8:113::a]:5060"),
            b"INVITE",
            2_000,
        );
        for end in 0..whole.len() {
            assert_eq!(Sample::read(&whole[..end]), None);
        }
        let frame = &whole[SAMPLE_HEADER..];
        for at in 0..frame.len() {
            for byte in [0, 0x0f, 0x45, 0x60, 0xff] {
                let mut frame = frame.to_vec();
                frame[at] = byte;
                for captured in [frame.len(), at, at + 1] {
                    let record = of_frame(Reason::Malformed, &frame, captured);
                    let sample = Sample::read(&record).expect("a sample");
                    assert!(sample.payload().len() <= 6);
                }
            }
        }
    }

    #[test]
    fn a_reason_of_another_version_is_no_sample() {
        let mut record = of_frame(Reason::Malformed, &[0; 60], 60);
        record[20] = 47;
        assert_eq!(Sample::read(&record), None);
    }
}
