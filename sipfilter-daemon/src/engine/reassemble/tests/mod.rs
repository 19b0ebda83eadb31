//! Whole packets through the whole reassembler, with every account recounted after each.
//!
//! `fragments` and `streams` hold a table for every rule, `readers` the search for lost framing, `floods` the caps, `property` what
//! holds for every input.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod floods;
mod fragments;
mod property;
mod readers;
mod streams;

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{counts::Count, *};

const PROVIDER: &str = "198.51.100.10:5060";
const PBX: &str = "203.0.113.10:5060";

const SYN: u8 = 2;
const ACK: u8 = 0x10;
const FIN: u8 = 1;
const RST: u8 = 4;

/// A reassembler, its clock, and everything that it has handed on.
struct World {
    reassembler: Reassembler,
    now: Instant,
    messages: Vec<(Flow, Vec<u8>)>,
}

impl World {
    fn new() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        Self {
            reassembler: Reassembler::new(limits),
            now: Instant(Duration::from_secs(1_000)),
            messages: Vec::new(),
        }
    }

    fn packet(&mut self, direction: Direction, bytes: &[u8]) {
        let taken = self
            .reassembler
            .handle_packet(self.now, direction, bytes, &mut |_| true);
        if let Ok(Some(Delivery { flow, bytes, .. })) = taken {
            self.messages.push((flow, bytes.into_owned()));
        }
        self.collect();
    }

    fn fragment(&mut self, fragment: Frag<'_>) {
        self.packet(Direction::Ingress, &fragment.bytes());
    }

    fn segment(&mut self, segment: Tcp<'_>) {
        self.packet(segment.direction, &segment.bytes());
    }

    fn wait(&mut self, duration: Duration) {
        let until = Instant(self.now.0 + duration);
        while let Some(due) = self.reassembler.poll_timeout()
            && due <= until
        {
            self.now = self.now.max(due);
            self.reassembler.handle_timeout(self.now);
            self.collect();
        }
        self.now = until;
    }

    fn collect(&mut self) {
        while let Some(Delivery { flow, bytes, .. }) = self.reassembler.poll_delivery() {
            self.messages.push((flow, bytes.into_owned()));
        }
        self.reassembler.check_invariants();
    }

    fn count(&self, count: Count) -> u64 {
        self.reassembler.counts().of(count)
    }

    /// What was handed on since the last time, as text.
    #[track_caller]
    fn expect(&mut self, messages: &[&str]) {
        let seen: Vec<_> = self
            .messages
            .drain(..)
            .map(|(_, bytes)| String::from_utf8_lossy(&bytes).into_owned())
            .collect();
        assert_eq!(seen, messages);
    }

    #[track_caller]
    fn expect_counts(&self, expected: &[(Count, u64)]) {
        for &(count, value) in expected {
            assert_eq!(self.count(count), value, "{}", count.name());
        }
    }
}

/// A fragment of a datagram from the provider to the PBX.
#[derive(Debug, Clone, Copy)]
struct Frag<'a> {
    source: &'a str,
    destination: &'a str,
    id: u32,
    protocol: u8,
    offset: usize,
    more: bool,
    data: &'a [u8],
}

const FRAGMENT_V4: Frag<'static> = Frag {
    source: "198.51.100.10",
    destination: "203.0.113.10",
    id: 7,
    protocol: 17,
    offset: 0,
    more: true,
    data: &[],
};

const FRAGMENT_V6: Frag<'static> = Frag {
    source: "2001:db8::10",
    destination: "2001:db8:1::10",
    ..FRAGMENT_V4
};

impl Frag<'_> {
    fn bytes(&self) -> Vec<u8> {
        let (source, destination) = (
            self.source.parse().unwrap(),
            self.destination.parse().unwrap(),
        );
        match (source, destination) {
            (IpAddr::V4(_), IpAddr::V4(_)) => {
                let mut packet = ip(source, destination, self.protocol, self.data);
                packet[4..6].copy_from_slice(&(self.id as u16).to_be_bytes());
                let word = (self.offset / 8) as u16 | if self.more { 0x2000 } else { 0 };
                packet[6..8].copy_from_slice(&word.to_be_bytes());
                packet
            }
            _ => {
                let mut payload = vec![self.protocol, 0];
                payload.extend((self.offset as u16 | u16::from(self.more)).to_be_bytes());
                payload.extend(self.id.to_be_bytes());
                payload.extend(self.data);
                ip(source, destination, 44, &payload)
            }
        }
    }
}

/// A TCP segment between the provider and the PBX.
#[derive(Debug, Clone, Copy)]
struct Tcp<'a> {
    direction: Direction,
    remote: &'a str,
    local: &'a str,
    flags: u8,
    sequence: u32,
    acknowledgment: u32,
    data: &'a [u8],
}

const INBOUND: Tcp<'static> = Tcp {
    direction: Direction::Ingress,
    remote: PROVIDER,
    local: PBX,
    flags: ACK,
    sequence: 0,
    acknowledgment: 0,
    data: &[],
};

const OUTBOUND: Tcp<'static> = Tcp {
    direction: Direction::Egress,
    ..INBOUND
};

impl Tcp<'_> {
    fn bytes(&self) -> Vec<u8> {
        let remote: SocketAddr = self.remote.parse().unwrap();
        let local: SocketAddr = self.local.parse().unwrap();
        let (source, destination) = match self.direction {
            Direction::Ingress => (remote, local),
            Direction::Egress => (local, remote),
        };
        let mut segment = Vec::new();
        segment.extend(source.port().to_be_bytes());
        segment.extend(destination.port().to_be_bytes());
        segment.extend(self.sequence.to_be_bytes());
        segment.extend(self.acknowledgment.to_be_bytes());
        // One option word, so that the data offset matters.
        segment.extend([0x60, self.flags, 0xff, 0xff, 0, 0, 0, 0, 1, 1, 1, 0]);
        segment.extend(self.data);
        ip(source.ip(), destination.ip(), 6, &segment)
    }
}

fn ip(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            packet.extend([0x45, 0]);
            packet.extend((20 + payload.len() as u16).to_be_bytes());
            packet.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            packet.extend([0x60, 0, 0, 0]);
            packet.extend((payload.len() as u16).to_be_bytes());
            packet.extend([protocol, 64]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
        }
        _ => unreachable!("one family"),
    }
    packet.extend(payload);
    packet
}

/// A UDP packet from its header on.
fn udp(payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x13, 0xc4, 0x13, 0xc4];
    packet.extend((8 + payload.len() as u16).to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(payload);
    packet
}

/// A message with a Call-ID and a body.
fn sip(call: &str, body: &str) -> String {
    format!(
        "INFO sip:b@203.0.113.10 SIP/2.0\r\nVia: SIP/2.0/TCP 198.51.100.10;branch=z9hG4bK1\r\n\
         From: <sip:a@198.51.100.10>;tag=a\r\nTo: <sip:b@203.0.113.10>;tag=b\r\nCall-ID: {call}\r\n\
         CSeq: 1 INFO\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}
