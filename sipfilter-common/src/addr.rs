//! IP addresses as they lie in packets and maps. Byte order is this file's matter and nobody else's.
//!
//! An address is held as the machine words that its network-order bytes make when they are loaded, so that comparing and masking
//! cost no swap. Ports are host-order `u16` everywhere outside [`crate::parse`].

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::settings::{Protected, Settings, constant};

/// An IP address of one family.
pub trait Address: Copy + Eq {
    /// What fills a [`crate::value::Pinhole`] up to its alignment.
    type Filling: Copy + Eq + core::fmt::Debug + Default;

    /// What fills a [`crate::gate::Gate`] up to half a cache line, or one.
    type GateFilling: Copy + Eq + core::fmt::Debug + Default;

    /// The address in 128 bits; IPv4 as `::ffff:a.b.c.d` (RFC 4291 §2.5.5.2).
    fn mapped(self) -> Ipv6;

    /// Its number among the protected addresses of both families, if it is one.
    fn index_in(self, settings: &Settings) -> Option<u32>;

    /// The number of a protected address of this family.
    fn number(settings: &Settings, at: Protected) -> u32;

    /// What a sender can be told by, in 128 bits: an IPv4 address, or the /64 that an IPv6 host has all of to send from (RFC 7421 §4.1).
    fn sender(self) -> Ipv6;

    /// One of 2^17 numbers, by family and first bits ([`Self::TOP_BITS`]).
    fn top(self) -> u32;

    /// How many of the first bits [`Self::top`] is made of: addresses that share them have one number.
    const TOP_BITS: u8;

    /// Whether the bits under `mask` are those of `other`, which has no others.
    fn matches(self, other: Self, mask: Self) -> bool;

    /// The address with a port in 48 bits: as they are (IPv4), or by a hash under this load-time key (IPv6), so that nobody can
    /// choose an address that stands for another.
    fn token(self, port: u16, key: &[u64; 2]) -> u64;
}

/// An IPv4 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Ipv4(u32);

/// An IPv6 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Ipv6([u32; 4]);

impl Ipv4 {
    /// The prefix length of a mask.
    pub const fn prefix_length(self) -> u8 {
        u32::from_be_bytes(self.to_bytes()).leading_ones() as u8
    }

    /// From the bytes of a packet.
    #[inline(always)]
    pub const fn from_bytes(bytes: [u8; 4]) -> Self {
        Self(u32::from_ne_bytes(bytes))
    }

    /// From a word as it lies in a packet, which [`Address::token`] gives.
    #[inline(always)]
    pub const fn from_word(word: u32) -> Self {
        Self(word)
    }

    /// The bytes of a packet.
    pub const fn to_bytes(self) -> [u8; 4] {
        self.0.to_ne_bytes()
    }

    /// The mask of a prefix length; lengths over 32 count as 32.
    pub const fn mask(length: u8) -> Self {
        let length = if length > 32 { 32 } else { length as u32 };
        let bits = if length == 0 {
            0
        } else {
            u32::MAX << (32 - length)
        };
        Self::from_bytes(bits.to_be_bytes())
    }
}

impl Ipv6 {
    /// The prefix length of a mask.
    pub const fn prefix_length(self) -> u8 {
        u128::from_be_bytes(self.to_bytes()).leading_ones() as u8
    }

    /// From the bytes of a packet.
    #[inline(always)]
    pub const fn from_bytes(b: [u8; 16]) -> Self {
        Self([
            u32::from_ne_bytes([b[0], b[1], b[2], b[3]]),
            u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
            u32::from_ne_bytes([b[8], b[9], b[10], b[11]]),
            u32::from_ne_bytes([b[12], b[13], b[14], b[15]]),
        ])
    }

    /// From words as they lie in a packet.
    #[inline(always)]
    pub const fn from_words(words: [u32; 4]) -> Self {
        Self(words)
    }

    /// The bytes of a packet.
    pub const fn to_bytes(self) -> [u8; 16] {
        let [a, b, c, d] = self.0;
        let (a, b, c, d) = (
            a.to_ne_bytes(),
            b.to_ne_bytes(),
            c.to_ne_bytes(),
            d.to_ne_bytes(),
        );
        [
            a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1],
            d[2], d[3],
        ]
    }

    /// The mask of a prefix length; lengths over 128 count as 128.
    pub const fn mask(length: u8) -> Self {
        let length = if length > 128 { 128 } else { length as u32 };
        let bits = if length == 0 {
            0
        } else {
            u128::MAX << (128 - length)
        };
        Self::from_bytes(bits.to_be_bytes())
    }
}

impl Address for Ipv4 {
    type Filling = [u32; 0];
    type GateFilling = [u32; 0];

    #[inline(always)]
    fn index_in(self, settings: &Settings) -> Option<u32> {
        settings.index4(self)
    }

    #[inline(always)]
    fn number(_: &Settings, at: Protected) -> u32 {
        at.0
    }

    #[inline(always)]
    fn mapped(self) -> Ipv6 {
        Ipv6([0, 0, 0x0000_ffff_u32.to_be(), self.0])
    }

    const TOP_BITS: u8 = 16;

    #[inline(always)]
    fn top(self) -> u32 {
        u32::from_be(self.0) >> 16
    }

    #[inline(always)]
    fn sender(self) -> Ipv6 {
        self.mapped()
    }

    #[inline(always)]
    fn matches(self, other: Self, mask: Self) -> bool {
        self.0 & mask.0 == other.0
    }

    #[inline(always)]
    fn token(self, port: u16, _: &[u64; 2]) -> u64 {
        (port as u64) << 32 | self.0 as u64
    }
}

impl Address for Ipv6 {
    type Filling = [u32; 1];
    type GateFilling = [u32; 2];

    #[inline(always)]
    fn index_in(self, settings: &Settings) -> Option<u32> {
        settings.index6(self)
    }

    #[inline(always)]
    fn number(settings: &Settings, at: Protected) -> u32 {
        constant(&settings.protected4_count) + at.0
    }

    #[inline(always)]
    fn mapped(self) -> Ipv6 {
        self
    }

    const TOP_BITS: u8 = 32;

    #[inline(always)]
    fn top(self) -> u32 {
        let first = u32::from_be(self.0[0]);
        1 << 16 | (first >> 16 ^ first & 0xffff)
    }

    #[inline(always)]
    fn sender(self) -> Ipv6 {
        let [a, b, ..] = self.0;
        Ipv6([a, b, 0, 0])
    }

    #[inline(always)]
    fn matches(self, other: Self, mask: Self) -> bool {
        let (a, m, o) = (self.0, mask.0, other.0);
        // One difference word instead of four branches.
        ((a[0] & m[0]) ^ o[0])
            | ((a[1] & m[1]) ^ o[1])
            | ((a[2] & m[2]) ^ o[2])
            | ((a[3] & m[3]) ^ o[3])
            == 0
    }

    #[inline(always)]
    fn token(self, port: u16, key: &[u64; 2]) -> u64 {
        let [a, b, c, d] = self.0;
        let words = [
            (a as u64) << 32 | b as u64,
            (c as u64) << 32 | d as u64,
            port as u64,
        ];
        let [first, second] = key;
        sip_hash_1_3([constant(first), constant(second)], words)
    }
}

/// SipHash-1-3 of 24 bytes: Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012, with one round for each word and three
/// at the end.
#[inline(always)]
fn sip_hash_1_3(key: [u64; 2], words: [u64; 3]) -> u64 {
    let mut state = [
        key[0] ^ 0x736f_6d65_7073_6575,
        key[1] ^ 0x646f_7261_6e64_6f6d,
        key[0] ^ 0x6c79_6765_6e65_7261,
        key[1] ^ 0x7465_6462_7974_6573,
    ];
    let length = 24_u64 << 56;
    for word in [words[0], words[1], words[2], length] {
        state[3] ^= word;
        sip_round(&mut state);
        state[0] ^= word;
    }
    state[2] ^= 0xff;
    sip_round(&mut state);
    sip_round(&mut state);
    sip_round(&mut state);
    state[0] ^ state[1] ^ state[2] ^ state[3]
}

#[inline(always)]
fn sip_round([a, b, c, d]: &mut [u64; 4]) {
    *a = a.wrapping_add(*b);
    *b = b.rotate_left(13) ^ *a;
    *a = a.rotate_left(32);
    *c = c.wrapping_add(*d);
    *d = d.rotate_left(16) ^ *c;
    *a = a.wrapping_add(*d);
    *d = d.rotate_left(21) ^ *a;
    *c = c.wrapping_add(*b);
    *b = b.rotate_left(17) ^ *c;
    *c = c.rotate_left(32);
}

impl From<Ipv4Addr> for Ipv4 {
    fn from(address: Ipv4Addr) -> Self {
        Self::from_bytes(address.octets())
    }
}

impl From<Ipv4> for IpAddr {
    fn from(address: Ipv4) -> Self {
        Self::V4(address.to_bytes().into())
    }
}

impl From<Ipv6Addr> for Ipv6 {
    fn from(address: Ipv6Addr) -> Self {
        Self::from_bytes(address.octets())
    }
}

impl From<Ipv6> for IpAddr {
    fn from(address: Ipv6) -> Self {
        Self::V6(address.to_bytes().into())
    }
}

const _: () = assert!(size_of::<Ipv4>() == 4 && size_of::<Ipv6>() == 16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive() {
        let four = [203, 0, 113, 10];
        assert_eq!(Ipv4::from_bytes(four).to_bytes(), four);
        let six: [u8; 16] = core::array::from_fn(|i| i as u8);
        assert_eq!(Ipv6::from_bytes(six).to_bytes(), six);
    }

    #[test]
    fn mapped_is_the_standard_form() {
        let address: Ipv4Addr = "203.0.113.10".parse().unwrap();
        assert_eq!(
            Ipv4::from(address).mapped().to_bytes(),
            address.to_ipv6_mapped().octets()
        );
    }

    #[test]
    fn the_hash_is_siphash_1_3() {
        use core::hash::Hasher as _;

        let key = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        for words in [[0; 3], [1, 2, 3], [u64::MAX, 0x0123_4567_89ab_cdef, 40_000]] {
            let mut hasher = siphasher::sip::SipHasher13::new_with_keys(key[0], key[1]);
            for word in words {
                hasher.write(&word.to_le_bytes());
            }
            assert_eq!(sip_hash_1_3(key, words), hasher.finish(), "{words:?}");
        }
    }

    #[test]
    fn prefixes_match_their_addresses_only() {
        #[track_caller]
        fn check(address: &str, net: &str, length: u8, expect: bool) {
            let matched = match (address.parse().unwrap(), net.parse().unwrap()) {
                (IpAddr::V4(a), IpAddr::V4(n)) => {
                    Ipv4::from(a).matches(n.into(), Ipv4::mask(length))
                }
                (IpAddr::V6(a), IpAddr::V6(n)) => {
                    Ipv6::from(a).matches(n.into(), Ipv6::mask(length))
                }
                _ => unreachable!("one family"),
            };
            assert_eq!(matched, expect, "{address} in {net}/{length}");
        }
        check("198.51.100.10", "198.51.100.10", 32, true);
        check("198.51.100.11", "198.51.100.10", 32, false);
        check("198.51.100.11", "198.51.100.10", 31, true);
        check("198.51.101.0", "198.51.100.0", 23, true);
        check("198.51.102.0", "198.51.100.0", 23, false);
        check("192.0.2.1", "0.0.0.0", 0, true);
        check("2001:db8::1", "2001:db8::", 127, true);
        check("2001:db8::2", "2001:db8::", 127, false);
        check("2001:db8:0:1::", "2001:db8::", 63, true);
        check("2001:db9::", "2001:db8::", 32, false);
        check("2001:db9::", "::", 0, true);
    }
}
