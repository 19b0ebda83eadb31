//! Map values: integers only, without implicit padding, sizes asserted.
//!
//! Pinholes, provider rules and the stamp are written by user space only; counters and what sources have spent by the kernel only.

use crate::addr::{Address, Ipv4, Ipv6};
use crate::budget::Budgets;
use crate::key::PinholeKey;
use crate::settings::{Modes, Transport};

/// The most sources that one pinhole can name.
pub const MAX_SOURCES: usize = 4;

/// One pinhole. Times are nanoseconds of the monotonic clock. What most packets need of it lies in a [`crate::gate::Gate`], too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Pinhole<A: Address> {
    /// When it was opened or last renewed by signalling.
    pub opened: u64,
    /// Longest time without a packet in either direction.
    pub idle: u64,
    /// What RTP may carry.
    pub payload_types: PayloadTypes,
    /// How many packets may come.
    pub budget: Budget,
    /// Its place in the slot array.
    pub slot: u32,
    /// What may pass.
    pub shapes: Shapes,
    /// How.
    pub flags: Flags,
    /// Which latching this is: a slot's latch counts only if it names the same. User space changes it to arm the latch anew.
    pub generation: u16,
    /// The provider's number, under the policy that the pinhole was written with.
    pub provider: u16,
    /// Who may send; unused places never match ([`Source::none`]).
    pub sources: [Source<A>; MAX_SOURCES],
    /// A hash of the provider's name, which is the same under every policy.
    pub provider_name: u32,
    /// A keyed hash of what every message of the call carries ([`Stamp::label_key`]), so that whoever takes the maps over can tell whose
    /// pinhole it is; 0 where several calls share it.
    pub call: u64,
    /// Where it is; with port 0 it is nowhere, and free.
    pub local: PinholeKey<A>,
    /// Fills up to the alignment.
    pub filling: A::Filling,
}

/// A set of RTP payload types (RFC 3550 §5.1): seven bits, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[repr(transparent)]
pub struct PayloadTypes([u64; 2]);

impl PayloadTypes {
    /// Every type.
    pub const ALL: Self = Self([u64::MAX; 2]);

    /// Bit n stands for type n.
    pub const fn new(set: u128) -> Self {
        Self([set as u64, (set >> 64) as u64])
    }

    /// What is in either.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self([self.0[0] | other.0[0], self.0[1] | other.0[1]])
    }

    /// Bit n stands for type n.
    pub const fn bits(self) -> u128 {
        self.0[0] as u128 | (self.0[1] as u128) << 64
    }

    /// Whether the type is in the set. `second`: the second byte of the packet, whose first bit is the marker.
    #[inline(always)]
    pub const fn admits(&self, second: u8) -> bool {
        let half = if second & 0x40 == 0 {
            self.0[0]
        } else {
            self.0[1]
        };
        half >> (second & 0x3f) & 1 != 0
    }
}

/// A packet budget of a stream or of a source of signalling, by the generic cell rate algorithm: each packet moves the theoretical arrival time of the next one on by
/// `interval`, and one that comes more than `burst` before its time is too many. Nothing is ever divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[repr(C)]
pub struct Budget {
    /// Nanoseconds for each packet; 0 is no limit.
    pub interval: u32,
    /// Milliseconds' worth of packets that may come at once.
    pub burst: u32,
}

/// A unit of [`Budget::burst`] in nanoseconds, near enough to a millisecond, by shifting.
const BURST_SHIFT: u32 = 20;

impl Budget {
    /// At most `packets_per_second` in the long run, and as many at once as fit into `burst` nanoseconds. 0 is no limit.
    pub const fn new(packets_per_second: u32, burst: u64) -> Self {
        let units = burst >> BURST_SHIFT;
        Self {
            interval: match 1_000_000_000_u32.checked_div(packets_per_second) {
                Some(interval) => interval,
                None => 0,
            },
            burst: if units > u32::MAX as u64 {
                u32::MAX
            } else {
                units as u32
            },
        }
    }

    /// Packets per second; `None` without a limit.
    pub const fn packets_per_second(self) -> Option<u32> {
        1_000_000_000_u32.checked_div(self.interval)
    }

    /// The theoretical arrival time after a packet at `now`, or `None` if the packet is one too many. `due`: the time before it.
    #[inline(always)]
    pub const fn spend(&self, due: u64, now: u64) -> Option<u64> {
        if due > now {
            if due - now > (self.burst as u64) << BURST_SHIFT {
                return None;
            }
            Some(due.wrapping_add(self.interval as u64))
        } else {
            Some(now.wrapping_add(self.interval as u64))
        }
    }
}

/// How a pinhole lets packets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[repr(transparent)]
pub struct Flags(u16);

impl Flags {
    /// The first packet that passes fixes the source, among those that are allowed, until the generation changes.
    pub const LATCH: Self = Self(1);
    /// RTCP may come here (RFC 5761 §4 tells it from RTP).
    pub const RTCP: Self = Self(1 << 1);

    /// Whether all of these are set.
    #[inline(always)]
    pub const fn has(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// Both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What a slot remembers of the source that it has latched to, in one word: the generation in the upper 16 bits, and below it the
/// address and port (IPv4), or a keyed hash of them (IPv6). Generation 0 is never in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct Latch(pub u64);

impl Latch {
    const GENERATION: u32 = 48;

    /// The latch on a source; `token` as in [`Address::token`].
    #[inline(always)]
    pub const fn new(generation: u16, token: u64) -> Self {
        Self((generation as u64) << Self::GENERATION | token & ((1 << Self::GENERATION) - 1))
    }

    /// Whose latching it is.
    #[inline(always)]
    pub const fn generation(self) -> u16 {
        (self.0 >> Self::GENERATION) as u16
    }

    /// The source, where it was one of IPv4.
    pub fn source4(self) -> core::net::SocketAddrV4 {
        let [_, _, p, q, rest @ ..] = self.0.to_be_bytes();
        let address = Ipv4::from_word(u32::from_be_bytes(rest)).to_bytes();
        core::net::SocketAddrV4::new(address.into(), u16::from_be_bytes([p, q]))
    }

    /// A generation that neither this one nor a fresh slot has.
    #[must_use]
    pub const fn next_generation(generation: u16) -> u16 {
        match generation.wrapping_add(1) {
            0 => 1,
            next => next,
        }
    }
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

impl<A> Source<A> {
    /// Whether it can match anything.
    pub const fn is_used(&self) -> bool {
        self.port_min <= self.port_max
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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
        // Apart from the others, so that the most frequent one takes one comparison.
        if first >> 6 == 2 {
            return Self::RTP;
        }
        match first {
            0..=3 => Self::STUN,
            20..=63 => Self::DTLS,
            _ => Self::OTHER,
        }
    }

    /// Whether one of these is among `self`.
    #[inline(always)]
    pub const fn admits(self, shapes: Self) -> bool {
        self.0 & shapes.0 != 0
    }

    /// Whether everything may pass: then nothing is known of what a datagram is.
    #[inline(always)]
    pub const fn is_any(self) -> bool {
        self.admits(Self::OTHER)
    }

    /// Both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What a signalling prefix allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct ProviderRule {
    /// The provider's number; where prefixes of several providers overlap, the most specific one's.
    pub provider: u16,
    /// Transports, one bit each ([`Transport::bit`]): the union over every provider whose prefixes hold this one.
    pub transports: u16,
    /// How much each of the prefix's addresses may send.
    pub budgets: Budgets,
}

impl ProviderRule {
    /// Whether SIP may come over this transport.
    #[inline(always)]
    pub const fn allows(&self, transport: Transport) -> bool {
        self.transports & transport.bit() != 0
    }
}

impl ProviderRule {
    /// Beside the transports: the provider may send early media once the PBX's own offer is out.
    pub const ON_OFFER: u16 = 1 << 15;

    /// Whether the PBX's offer lets media in before there is an answer.
    #[inline(always)]
    pub const fn opens_on_offer(&self) -> bool {
        self.transports & Self::ON_OFFER != 0
    }
}

/// A place for media that the daemon has not read of yet, in one word: until when, for which provider, and how many packets are left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct Provisional(pub u64);

/// How long a provisional place is open, in nanoseconds: longer than a daemon on a busy machine takes to read a message.
pub const PROVISIONAL_LIFETIME: u64 = 200_000_000;
/// How many packets pass through one: what a stream sends meanwhile, and some to spare.
pub const PROVISIONAL_PACKETS: u64 = 16;

impl Provisional {
    /// Nothing may come.
    pub const CLOSED: Self = Self(0);
    /// A unit of time, near enough to a millisecond, by shifting.
    const TIME_SHIFT: u32 = 20;
    const DEADLINE: u32 = 24;
    const PROVIDER: u32 = 8;

    /// Open from now on for a provider.
    #[inline(always)]
    pub const fn new(now: u64, provider: u16) -> Self {
        let deadline = now.wrapping_add(PROVISIONAL_LIFETIME) >> Self::TIME_SHIFT;
        Self(deadline << Self::DEADLINE | (provider as u64) << Self::PROVIDER | PROVISIONAL_PACKETS)
    }

    /// Whether it is not too late, and a packet is left.
    #[inline(always)]
    pub const fn is_open(self, now: u64) -> bool {
        now >> Self::TIME_SHIFT <= self.0 >> Self::DEADLINE && self.0 & 0xff != 0
    }

    /// Whose media it is for.
    #[inline(always)]
    pub const fn provider(self) -> u16 {
        (self.0 >> Self::PROVIDER) as u16
    }

    /// After one more packet, if there is one left.
    #[inline(always)]
    pub const fn less_one(self) -> Option<Self> {
        if self.0 & 0xff == 0 {
            return None;
        }
        Some(Self(self.0 - 1))
    }
}

/// The ports that a provider's media comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct MediaPorts {
    /// First port.
    pub min: u16,
    /// Last port.
    pub max: u16,
}

impl MediaPorts {
    /// Whether the port is one of them.
    #[inline(always)]
    pub const fn contains(&self, port: u16) -> bool {
        port >= self.min && port <= self.max
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

/// The most port ranges that are held for one prefix of providers' media.
pub const MAX_MEDIA_RANGES: usize = 16;

/// Where providers' media goes to and comes from, for one prefix: the union over every provider whose media prefixes hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct MediaLimits {
    /// The ranges; unused places match nothing ([`MediaRange::NOTHING`]).
    pub ranges: [MediaRange; MAX_MEDIA_RANGES],
}

/// A range of a provider's ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct MediaRange {
    /// 1 if the provider's replies may come from here without a pinhole, else 0.
    pub replies: u16,
    /// First port.
    pub min: u16,
    /// Last port; below the first in an unused place.
    pub max: u16,
}

impl MediaRange {
    /// A place that matches nothing.
    pub const NOTHING: Self = Self {
        replies: 0,
        min: 1,
        max: 0,
    };

    #[inline(always)]
    const fn contains(&self, port: u16) -> bool {
        port >= self.min && port <= self.max
    }
}

impl MediaLimits {
    /// Whether some provider's media may go to this port.
    #[inline(always)]
    pub fn contains(&self, port: u16) -> bool {
        self.ranges.iter().any(|range| range.contains(port))
    }

    /// Whether replies from this port may come in without a pinhole.
    #[inline(always)]
    pub fn takes_replies(&self, port: u16) -> bool {
        self.ranges
            .iter()
            .any(|range| range.replies != 0 && range.contains(port))
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
    /// The key of the latches in the slots: who takes the maps over must go on with it.
    pub latch_key: [u64; 2],
    /// The key of the hashes in [`Pinhole::call`]: the same.
    pub label_key: [u64; 2],
}

impl Stamp {
    /// Whether what lies in the maps of the one means the same to the other.
    pub const fn is_readable_by(&self, other: &Self) -> bool {
        self.abi_version == other.abi_version
    }
}

/// Longest-prefix-match keys of providers carry the address only; transport and port are judged on the value.
const _: () = {
    assert!(size_of::<Pinhole<Ipv4>>() == 120 && align_of::<Pinhole<Ipv4>>() == 8);
    assert!(size_of::<Pinhole<Ipv6>>() == 232 && align_of::<Pinhole<Ipv6>>() == 8);
    assert!(core::mem::offset_of!(Pinhole<Ipv4>, filling) == 120);
    assert!(core::mem::offset_of!(Pinhole<Ipv6>, filling) + 4 == 232);
    assert!(size_of::<Source<Ipv4>>() == 12);
    assert!(size_of::<Source<Ipv6>>() == 36);
    assert!(size_of::<ProviderRule>() == 28);
    assert!(size_of::<Count>() == 16);
    assert!(size_of::<MediaLimits>() == 6 * MAX_MEDIA_RANGES);
    assert!(size_of::<AllowList>() == 6 * MAX_ALLOWED);
    assert!(size_of::<Stamp>() == 48);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_admits_its_payload_types_with_and_without_the_marker() {
        for number in 0..128_u8 {
            let set = PayloadTypes::new(1 << number);
            assert_eq!(set.bits(), 1 << number);
            for other in 0..128_u8 {
                assert_eq!(set.admits(other), other == number, "{other} in {number}");
                assert_eq!(set.admits(other | 0x80), other == number);
            }
        }
    }

    /// Lets packets come at these times, and counts those that pass.
    fn passing(budget: Budget, times: impl IntoIterator<Item = u64>) -> usize {
        let mut due = 0;
        let spent = times.into_iter().filter(|&now| {
            let spent = budget.spend(due, now);
            due = spent.unwrap_or(due);
            spent.is_some()
        });
        spent.count()
    }

    const SECOND: u64 = 1_000_000_000;
    const BURST: u64 = 10 * SECOND;

    #[test]
    fn a_budget_takes_its_rate_for_ever_and_not_much_more() {
        let budget = Budget::new(400, BURST);
        assert_eq!(budget.packets_per_second(), Some(400));
        let evenly = |rate: u64| (0..60 * rate).map(move |n| 100 * SECOND + n * SECOND / rate);
        assert_eq!(passing(budget, evenly(400)), 60 * 400);
        // Ten times as many: the rate, and the burst once.
        let most = (60 + 10) * 400;
        let passed = passing(budget, evenly(4_000));
        assert!((most - 10..=most + 10).contains(&passed), "{passed}");
    }

    #[test]
    fn a_stall_of_seconds_and_a_clock_of_ticks_lose_nothing() {
        let budget = Budget::new(200, BURST);
        // 50 packets each second, of which eight seconds arrive at once, and whatever arrives is stamped by a coarse clock.
        let tick = |time: u64| time / 10_000_000 * 10_000_000;
        let times = (0..60 * 50).map(|n| n * SECOND / 50).map(|time| {
            if (20 * SECOND..28 * SECOND).contains(&time) {
                28 * SECOND
            } else {
                tick(time)
            }
        });
        assert_eq!(passing(budget, times), 60 * 50);
    }

    #[test]
    fn a_budget_without_a_rate_takes_everything() {
        let budget = Budget::new(0, 0);
        assert_eq!(budget.packets_per_second(), None);
        assert_eq!(passing(budget, core::iter::repeat_n(7, 100_000)), 100_000);
    }

    #[test]
    fn a_latch_of_ipv4_names_its_source() {
        let source: core::net::SocketAddrV4 = "198.51.100.20:45001".parse().unwrap();
        let token = Ipv4::from(*source.ip()).token(source.port(), &[0; 2]);
        assert_eq!(Latch::new(3, token).source4(), source);
    }
}
