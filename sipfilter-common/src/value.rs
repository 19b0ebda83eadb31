//! Map values: integers only, without implicit padding, sizes asserted.
//!
//! Pinholes, provider rules and the stamp are written by user space only; slots and counters by the kernel only.

use core::cell::Cell;

use crate::addr::{Address, Ipv4, Ipv6};
use crate::settings::{Modes, Transport};

/// The most sources that one pinhole can name.
pub const MAX_SOURCES: usize = 4;

/// One pinhole. Times are nanoseconds of the monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Pinhole<A> {
    /// When it was opened or last renewed by signalling.
    pub opened: u64,
    /// Longest time without a packet in either direction.
    pub idle: u64,
    /// The call, as the daemon numbers it.
    pub call: u64,
    /// Its place in the slot array.
    pub slot: u32,
    /// The provider's number.
    pub provider: u16,
    /// What may pass.
    pub shapes: Shapes,
    /// Who may send; unused places never match ([`Source::none`]).
    pub sources: [Source<A>; MAX_SOURCES],
}

/// An address range and a port range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Source<A> {
    /// The network address; no bits outside the mask.
    pub address: A,
    /// The mask; all zero for any address.
    pub mask: A,
    /// First port.
    pub port_min: u16,
    /// Last port; below the first in an unused place.
    pub port_max: u16,
}

impl<A: Address> Source<A> {
    /// Whether a packet from this address and port is meant.
    #[inline(always)]
    pub fn contains(&self, address: A, port: u16) -> bool {
        port >= self.port_min && port <= self.port_max && address.matches(self.address, self.mask)
    }
}

impl<A: Default> Source<A> {
    /// A place that matches nothing.
    pub fn none() -> Self {
        Self {
            address: A::default(),
            mask: A::default(),
            port_min: 1,
            port_max: 0,
        }
    }
}

/// What may flow through a pinhole, by the first byte of a datagram (RFC 7983 §7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct Shapes(u16);

impl Shapes {
    /// RTP and RTCP: version 2 in the first two bits (RFC 3550 §5.1, §6.4.1).
    pub const RTP: Self = Self(1);
    /// STUN, where ICE was negotiated.
    pub const STUN: Self = Self(1 << 1);
    /// DTLS, where DTLS-SRTP was negotiated.
    pub const DTLS: Self = Self(1 << 2);
    /// UDPTL (T.38) begins with a bare sequence number: there is nothing to tell it by.
    pub const ANY: Self = Self(u16::MAX);
    const OTHER: Self = Self(1 << 15);

    /// What a datagram with this first byte is.
    #[inline(always)]
    pub const fn of(first: u8) -> Self {
        match first {
            0..=3 => Self::STUN,
            20..=63 => Self::DTLS,
            128..=191 => Self::RTP,
            _ => Self::OTHER,
        }
    }

    /// Whether one of these is among `self`.
    #[inline(always)]
    pub const fn admits(self, shapes: Self) -> bool {
        self.0 & shapes.0 != 0
    }

    /// Both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What the kernel knows of a pinhole's traffic, as the kernel writes it. A reused slot keeps its counts, so that readers
/// take a baseline when they open a pinhole. User space reads a [`SlotCounts`] in its place.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Slot {
    /// Packets that came in and passed.
    pub ingress_packets: Cell<u64>,
    /// Their IP bytes.
    pub ingress_bytes: Cell<u64>,
    /// When the last one passed, in nanoseconds of the monotonic clock.
    pub ingress_last: Cell<u64>,
    /// Packets that left from the pinhole's address and port.
    pub egress_packets: Cell<u64>,
    /// Their IP bytes.
    pub egress_bytes: Cell<u64>,
    /// When the last one left.
    pub egress_last: Cell<u64>,
    /// Packets to the pinhole that were dropped.
    pub dropped_packets: Cell<u64>,
    /// When the last one was dropped.
    pub dropped_last: Cell<u64>,
}

impl Slot {
    /// The last sign of life in either direction.
    #[inline(always)]
    pub fn last(&self) -> u64 {
        let (ingress, egress) = (self.ingress_last.get(), self.egress_last.get());
        if ingress > egress { ingress } else { egress }
    }

    /// One packet came in and passed.
    #[inline(always)]
    pub fn count_ingress(&self, bytes: usize, now: u64) {
        add(&self.ingress_packets, 1);
        add(&self.ingress_bytes, bytes as u64);
        self.ingress_last.set(now);
    }

    /// One packet left.
    #[inline(always)]
    pub fn count_egress(&self, bytes: usize, now: u64) {
        add(&self.egress_packets, 1);
        add(&self.egress_bytes, bytes as u64);
        self.egress_last.set(now);
    }

    /// One packet was dropped.
    #[inline(always)]
    pub fn count_dropped(&self, now: u64) {
        add(&self.dropped_packets, 1);
        self.dropped_last.set(now);
    }
}

/// A plain read and write, not one atomic instruction: network cards keep a flow on one CPU, and where one does not, a lost count is
/// cheaper than a locked instruction for every packet.
#[inline(always)]
fn add(counter: &Cell<u64>, amount: u64) {
    counter.set(counter.get().wrapping_add(amount));
}

/// A reading of a [`Slot`]: the same layout, by value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
#[expect(missing_docs, reason = "the fields are Slot's, documented there")]
pub struct SlotCounts {
    pub ingress_packets: u64,
    pub ingress_bytes: u64,
    pub ingress_last: u64,
    pub egress_packets: u64,
    pub egress_bytes: u64,
    pub egress_last: u64,
    pub dropped_packets: u64,
    pub dropped_last: u64,
}

/// What a signalling prefix allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct ProviderRule {
    /// The provider's number; where prefixes of several providers overlap, the most specific one's.
    pub provider: u16,
    /// Transports, one bit each ([`Transport::bit`]): the union over every provider whose prefixes hold this one.
    pub transports: u16,
}

impl ProviderRule {
    /// Whether SIP may come over this transport.
    #[inline(always)]
    pub const fn allows(&self, transport: Transport) -> bool {
        self.transports & transport.bit() != 0
    }
}

/// The most entries that strict scope holds for one source prefix.
pub const MAX_ALLOWED: usize = 16;

/// What strict scope lets in from one source prefix: the union over every prefix that holds this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct AllowList {
    /// The entries; unused places match nothing ([`Allowed::NOTHING`]).
    pub entries: [Allowed; MAX_ALLOWED],
}

/// One protocol and a range of destination ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct Allowed {
    /// IANA protocol number.
    pub protocol: u16,
    /// First port; 0 to 65535 for a protocol whose ports are not read.
    pub min: u16,
    /// Last port; below the first in an unused place.
    pub max: u16,
}

impl Allowed {
    /// A place that matches nothing.
    pub const NOTHING: Self = Self {
        protocol: 0,
        min: 1,
        max: 0,
    };
}

impl AllowList {
    /// Whether a packet of this protocol may come to this port.
    #[inline(always)]
    pub fn admits(&self, protocol: u8, port: u16) -> bool {
        self.entries.iter().any(|entry| {
            entry.protocol == u16::from(protocol) && port >= entry.min && port <= entry.max
        })
    }
}

/// One counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Their bytes, from the Ethernet header on.
    pub bytes: u64,
}

/// What the maps were made for. Written last at start; a reader that finds another version must not interpret anything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Stamp {
    /// [`crate::abi::ABI_VERSION`] of the writer.
    pub abi_version: u16,
    /// How the policy is applied, for readers of the counters. It may change without any other map's becoming wrong.
    pub modes: Modes,
    /// Entries in the slot array and in each pinhole map.
    pub pinholes: u32,
    /// Hash of the policy (addresses, ports, providers) that the maps were filled from.
    pub policy: u64,
}

/// Longest-prefix-match keys of providers carry the address only; transport and port are judged on the value.
const _: () = {
    assert!(size_of::<Pinhole<Ipv4>>() == 32 + 12 * MAX_SOURCES);
    assert!(size_of::<Pinhole<Ipv6>>() == 32 + 36 * MAX_SOURCES);
    assert!(size_of::<Source<Ipv4>>() == 12);
    assert!(size_of::<Source<Ipv6>>() == 36);
    assert!(size_of::<Slot>() == 64 && size_of::<SlotCounts>() == 64);
    assert!(size_of::<ProviderRule>() == 4);
    assert!(size_of::<Count>() == 16);
    assert!(size_of::<AllowList>() == 6 * MAX_ALLOWED);
    assert!(size_of::<Stamp>() == 16);
};
