//! The modes and the allow-list of strict scope in the kernel's form. Pure translation, as `policy` is.
//!
//! Invariant: the kernel's longest match sees one list only, so each prefix's list holds what every wider one allows.

use std::collections::BTreeMap;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sipfilter_common::{
    settings::{Mode, Modes},
    value::{AllowList, Allowed, MAX_ALLOWED},
};

use crate::engine::settings::{Allow, Enforcement, Filtering, Scope, Settings};

/// The modes as the kernel's bits.
pub fn modes(filtering: &Filtering) -> Modes {
    let mut modes = Modes::DEFAULT;
    if filtering.enforcement == Enforcement::Observe {
        modes = modes.with(Mode::Observe);
    }
    if matches!(filtering.scope, Scope::Strict(_)) {
        modes = modes.with(Mode::Strict);
    }
    modes
}

/// The allow-list by source prefix; what exceeds a prefix's places is left out, which the configuration's check rules out.
pub(super) fn allow_lists(settings: &Settings) -> BTreeMap<IpNet, AllowList> {
    let Scope::Strict(rules) = &settings.filtering.scope else {
        return BTreeMap::new();
    };
    entries_by_prefix(rules)
        .into_iter()
        .map(|(prefix, wanted)| {
            let mut list = AllowList {
                entries: [Allowed::NOTHING; MAX_ALLOWED],
            };
            for (place, entry) in list.entries.iter_mut().zip(wanted) {
                *place = entry;
            }
            (prefix, list)
        })
        .collect()
}

/// What is allowed from each prefix that a rule names, its wider ones' entries included; neighbouring port ranges are one entry.
pub(crate) fn entries_by_prefix(rules: &[Allow]) -> BTreeMap<IpNet, Vec<Allowed>> {
    let mut lists: BTreeMap<IpNet, Vec<Allowed>> = rules
        .iter()
        .flat_map(sources)
        .map(|prefix| (prefix, Vec::new()))
        .collect();
    for (prefix, list) in &mut lists {
        for rule in rules {
            if sources(rule).iter().any(|wider| wider.contains(prefix)) {
                list.extend(entries(rule));
            }
        }
        *list = joined(std::mem::take(list));
    }
    lists
}

fn sources(rule: &Allow) -> Vec<IpNet> {
    if rule.from.is_empty() {
        vec![Ipv4Net::default().into(), Ipv6Net::default().into()]
    } else {
        rule.from.iter().map(IpNet::trunc).collect()
    }
}

fn entries(rule: &Allow) -> Vec<Allowed> {
    let entry = |min, max| Allowed {
        protocol: u16::from(rule.protocol),
        min,
        max,
    };
    if rule.ports.is_empty() {
        vec![entry(0, u16::MAX)]
    } else {
        rule.ports
            .iter()
            .map(|ports| entry(*ports.start(), *ports.end()))
            .collect()
    }
}

fn joined(mut entries: Vec<Allowed>) -> Vec<Allowed> {
    entries.sort_unstable();
    let mut joined: Vec<Allowed> = Vec::new();
    for entry in entries {
        match joined.last_mut() {
            Some(last)
                if last.protocol == entry.protocol
                    && u32::from(entry.min) <= u32::from(last.max) + 1 =>
            {
                last.max = last.max.max(entry.max);
            }
            _ => joined.push(entry),
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
