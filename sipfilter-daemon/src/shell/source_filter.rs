//! The kernel's source filter: a bit for each beginning of an address that a signalling prefix may have, so that strangers' signalling
//! mostly never reaches the longest-prefix match.
//!
//! Pure: prefixes in, words out. Invariant: the bit of every address in every prefix is set; a bit too many costs a look-up, a bit too
//! few a provider's signalling.

use ipnet::IpNet;
use sipfilter_common::{
    addr::{Address, Ipv4, Ipv6},
    key::FilterPlace,
};

/// The filter for these prefixes.
pub fn words<'a>(prefixes: impl IntoIterator<Item = &'a IpNet>) -> Vec<u64> {
    let mut words = vec![0; FilterPlace::SOURCE_WORDS];
    let mut set = |place: FilterPlace| {
        if let Some(word) = words.get_mut(place.word()) {
            *word |= place.bit();
        }
    };
    for prefix in prefixes {
        // A short prefix has several beginnings; one of IPv6 that is shorter than sixteen bits has every number there is.
        match prefix {
            IpNet::V4(net) => {
                let start = u32::from(net.network());
                for beginning in 0..1 << Ipv4::TOP_BITS.saturating_sub(net.prefix_len()) {
                    let address = start | beginning << (32 - u32::from(Ipv4::TOP_BITS));
                    set(FilterPlace::of_source(Ipv4::from_word(address.to_be())));
                }
            }
            IpNet::V6(net) => {
                let start = (u128::from(net.network()) >> 96) as u32;
                let free = Ipv6::TOP_BITS.saturating_sub(net.prefix_len()).min(16);
                for beginning in 0..1_u32 << free {
                    let first = (start | beginning).to_be();
                    set(FilterPlace::of_source(Ipv6::from_words([first, 0, 0, 0])));
                }
            }
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn is_set(words: &[u64], address: &str) -> bool {
        let place = match address.parse().expect("an address") {
            IpAddr::V4(address) => FilterPlace::of_source(Ipv4::from(address)),
            IpAddr::V6(address) => FilterPlace::of_source(Ipv6::from(address)),
        };
        words[place.word()] & place.bit() != 0
    }

    #[test]
    fn every_address_of_a_prefix_is_let_through_and_others_mostly_not() {
        for (prefix, inside, outside) in [
            (
                "198.51.100.8/29",
                &["198.51.100.8", "198.51.100.15"][..],
                &["192.0.2.1", "198.52.0.0"][..],
            ),
            ("198.51.100.10/32", &["198.51.100.10"], &["198.50.255.255"]),
            (
                "198.16.0.0/14",
                &["198.16.0.0", "198.19.255.255"],
                &["198.15.0.0", "198.20.0.0"],
            ),
            ("0.0.0.0/0", &["0.0.0.0", "255.255.255.255"], &["::1"]),
            (
                "2001:db8:2::/64",
                &["2001:db8:2::1"],
                &["2001:db9::1", "198.51.100.8"],
            ),
            (
                "2001:db0::/28",
                &["2001:db0::1", "2001:dbf:ffff::1"],
                &["2001:dc0::1"],
            ),
            (
                "2000::/8",
                &["2001:db8::1", "20ff:ffff::1"],
                &["198.51.100.8"],
            ),
            ("::/0", &["::", "2001:db8::1", "ffff::1"], &["0.0.0.0"]),
        ] {
            let words = words([&prefix.parse().expect("a prefix")]);
            for address in inside {
                assert!(is_set(&words, address), "{address} in {prefix}");
            }
            for address in outside {
                assert!(!is_set(&words, address), "{address} outside of {prefix}");
            }
        }
    }
}
