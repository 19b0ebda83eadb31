//! Map keys: small, one size per family, without implicit padding.

use crate::{
    addr::{Address, Ipv4, Ipv6},
    settings::{Protected, Settings},
};

/// Where a pinhole is: the protected address and port, as packets from outside carry them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(C)]
pub struct PinholeKey<A> {
    address: A,
    port: u16,
    zero: u16,
}

impl<A: Copy> PinholeKey<A> {
    /// A local address and port.
    #[inline(always)]
    pub const fn new(address: A, port: u16) -> Self {
        Self {
            address,
            port,
            zero: 0,
        }
    }

    /// The local address.
    pub const fn address(&self) -> A {
        self.address
    }

    /// The local port.
    pub const fn port(&self) -> u16 {
        self.port
    }
}

/// A bit of a filter that stands in front of a dearer table. Where it is clear, the table has nothing to find. Where it is set, it may
/// have: several keys share a bit.
///
/// The source filter has one for each beginning of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilterPlace(u32);

impl FilterPlace {
    /// Words in the source filter.
    pub const SOURCE_WORDS: usize = (2 << 16) / u64::BITS as usize;

    /// The source filter's bit for an address.
    #[inline(always)]
    pub fn of_source<A: Address>(address: A) -> Self {
        Self(address.top())
    }

    /// The word's number.
    #[inline(always)]
    pub const fn word(self) -> usize {
        (self.0 / u64::BITS) as usize % Self::SOURCE_WORDS
    }

    /// The bit in it.
    pub const fn bit(self) -> u64 {
        1 << (self.0 % u64::BITS)
    }

    /// The bit's value in its word: 0 or 1.
    #[inline(always)]
    pub const fn bit_of(self, word: u64) -> u32 {
        (word >> (self.0 % u64::BITS)) as u32 & 1
    }
}

/// The number of a port of a protected address: the address's number in the settings, and the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortPlace(u32);

impl PortPlace {
    /// Places of one address.
    pub const PER_ADDRESS: u32 = 1 << 16;

    /// The port's number.
    #[inline(always)]
    pub const fn new(address: u32, port: u16) -> Self {
        Self(address << 16 | port as u32)
    }

    /// A port of a protected address: those of IPv4 come first.
    #[inline(always)]
    pub fn of<A: Address>(settings: &Settings, at: Protected, port: u16) -> Self {
        Self::new(A::number(settings, at), port)
    }

    /// Its place in an array.
    #[inline(always)]
    pub const fn index(self) -> u32 {
        self.0
    }
}

/// Key of a provider's media: its number, and an address of which a prefix counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct ProviderAddress<A> {
    /// The provider's number.
    pub provider: u32,
    /// Where its media comes from.
    pub address: A,
}

/// Bits of a [`ProviderAddress`] in front of the address.
pub const PROVIDER_BITS: u32 = 32;

/// Key of a fragmented datagram (RFC 791 §2.3, RFC 8200 §4.5): what its fragments have in common.
///
/// One form for both families: fragments are rare, and a second map would cost more than the longer key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct FragmentKey {
    /// Source address.
    pub source: Ipv6,
    /// Destination address.
    pub destination: Ipv6,
    /// Identification: 16 bits in IPv4, 32 in IPv6.
    pub id: u32,
    /// Protocol number behind the fragment header.
    pub protocol: u32,
}

/// Key of a source of signalling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct SourceKey {
    /// The sender ([`crate::addr::Address::sender`]).
    pub sender: Ipv6,
    /// The provider's number: two providers may share an IPv6 network.
    pub provider: u32,
}

/// Key of a flow that the protected host began: from where to where it sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct FlowKey<A> {
    /// The protected address.
    pub local: A,
    /// Whom it sent to.
    pub remote: A,
    /// The protected address's port.
    pub local_port: u16,
    /// The other one's port.
    pub remote_port: u16,
}

const _: () = {
    assert!(size_of::<ProviderAddress<Ipv4>>() == 8);
    assert!(size_of::<ProviderAddress<Ipv6>>() == 20);
    assert!(size_of::<FlowKey<Ipv4>>() == 12);
    assert!(size_of::<FlowKey<Ipv6>>() == 36);
    assert!(size_of::<SourceKey>() == 20);
    assert!(size_of::<PinholeKey<Ipv4>>() == 8);
    assert!(size_of::<PinholeKey<Ipv6>>() == 20);
    assert!(size_of::<FragmentKey>() == 40);
};
