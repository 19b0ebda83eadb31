//! Port ranges by source prefix, as the kernel's longest match wants them: the allow-list of strict scope, and providers' media limits.
//!
//! `config` counts with it whether everything fits, `shell` writes it. Nothing here knows how many places a list has.
//!
//! Invariant: a longest match sees one list only, so each prefix's list holds what every wider one allows.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sipfilter_common::value::{Allowed, MediaRange};

use crate::engine::settings::{Allow, Provider};

/// What is allowed from each prefix that a rule names, its wider ones' entries included; neighbouring port ranges are one entry.
pub(crate) fn entries_by_prefix(rules: &[Allow]) -> BTreeMap<IpNet, Vec<Allowed>> {
    let rules = rules.iter().map(|rule| Rule {
        prefixes: or_anywhere(&rule.from),
        ranges: ranges(u16::from(rule.protocol), &rule.ports),
    });
    union_by_prefix(&rules.collect::<Vec<_>>(), |(protocol, min, max)| Allowed {
        protocol,
        min,
        max,
    })
}

/// Where providers' media may go, and from where their replies may come, for each prefix that one of them names.
pub(crate) fn media_by_prefix(providers: &[Provider]) -> BTreeMap<IpNet, Vec<MediaRange>> {
    let rules = providers.iter().map(|provider| {
        let media = &provider.media;
        let mut own = ranges(0, std::slice::from_ref(&media.ports));
        if !media.replies.is_empty() {
            own.extend(ranges(1, &media.replies));
        }
        Rule {
            prefixes: or_anywhere(&media.prefixes),
            ranges: own,
        }
    });
    union_by_prefix(&rules.collect::<Vec<_>>(), |(replies, min, max)| {
        MediaRange { replies, min, max }
    })
}

/// A kind of range, its first and its last port.
type Range = (u16, u16, u16);

/// What holds for some prefixes.
struct Rule {
    prefixes: Vec<IpNet>,
    ranges: Vec<Range>,
}

/// The prefixes that a rule names; none named means every address.
pub(crate) fn or_anywhere(prefixes: &[IpNet]) -> Vec<IpNet> {
    if prefixes.is_empty() {
        vec![Ipv4Net::default().into(), Ipv6Net::default().into()]
    } else {
        prefixes.iter().map(IpNet::trunc).collect()
    }
}

/// Ranges of one kind; none given means every port.
fn ranges(kind: u16, ports: &[RangeInclusive<u16>]) -> Vec<Range> {
    if ports.is_empty() {
        return vec![(kind, 0, u16::MAX)];
    }
    ports
        .iter()
        .map(|ports| (kind, *ports.start(), *ports.end()))
        .collect()
}

fn union_by_prefix<T>(rules: &[Rule], entry: impl Fn(Range) -> T) -> BTreeMap<IpNet, Vec<T>> {
    let prefixes: BTreeSet<IpNet> = rules
        .iter()
        .flat_map(|rule| rule.prefixes.clone())
        .collect();
    prefixes
        .into_iter()
        .map(|prefix| {
            let held = rules
                .iter()
                .filter(|rule| rule.prefixes.iter().any(|wider| wider.contains(&prefix)))
                .flat_map(|rule| rule.ranges.iter().copied());
            let entries = joined(held.collect()).into_iter().map(&entry);
            (prefix, entries.collect())
        })
        .collect()
}

fn joined(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_unstable();
    let mut joined: Vec<Range> = Vec::new();
    for (kind, min, max) in ranges {
        match joined.last_mut() {
            Some(last) if last.0 == kind && u32::from(min) <= u32::from(last.2) + 1 => {
                last.2 = last.2.max(max);
            }
            _ => joined.push((kind, min, max)),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrow_prefix_keeps_what_the_wider_ones_allow() {
        let allow = |protocol, ports: &[(u16, u16)], from: &[&str]| Allow {
            protocol,
            ports: ports.iter().map(|&(first, last)| first..=last).collect(),
            from: from
                .iter()
                .map(|net| net.parse().expect("a prefix"))
                .collect(),
        };
        let lists = entries_by_prefix(&[
            allow(6, &[(80, 80), (443, 443)], &[]),
            allow(6, &[(22, 22), (81, 90)], &["192.0.2.0/24"]),
            allow(47, &[], &["192.0.2.7/32"]),
        ]);
        let show = |prefix: &str| -> Vec<(u16, u16, u16)> {
            lists[&prefix.parse::<IpNet>().expect("a prefix")]
                .iter()
                .map(|entry| (entry.protocol, entry.min, entry.max))
                .collect()
        };
        assert_eq!(lists.len(), 4);
        assert_eq!(show("::/0"), [(6, 80, 80), (6, 443, 443)]);
        assert_eq!(show("0.0.0.0/0"), show("::/0"));
        assert_eq!(
            show("192.0.2.0/24"),
            [(6, 22, 22), (6, 80, 90), (6, 443, 443)]
        );
        assert_eq!(
            show("192.0.2.7/32"),
            [(6, 22, 22), (6, 80, 90), (6, 443, 443), (47, 0, 65_535)]
        );
    }
}
