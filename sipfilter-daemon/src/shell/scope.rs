//! The modes, the allow-list of strict scope and the providers' media limits in the kernel's form. Pure translation, as `policy` is; what
//! a prefix's list holds is `ranges`' matter.

use std::collections::BTreeMap;

use ipnet::IpNet;
use sipfilter_common::{
    settings::{Mode, Modes},
    value::{
        AllowList, Allowed, MAX_ALLOWED, MAX_MEDIA_RANGES, MediaLimits, MediaPorts, MediaRange,
    },
};

use crate::{
    engine::settings::{Egress, Enforcement, Filtering, Provider, Provisional, Scope, Settings},
    ranges::{entries_by_prefix, media_by_prefix, or_anywhere},
};

/// The modes as the kernel's bits.
pub fn modes(filtering: &Filtering) -> Modes {
    let mut modes = Modes::DEFAULT;
    if filtering.enforcement == Enforcement::Observe {
        modes = modes.with(Mode::Observe);
    }
    if matches!(filtering.scope, Scope::Strict(_)) {
        modes = modes.with(Mode::Strict);
    }
    if filtering.egress == Egress::Enforce {
        modes = modes.with(Mode::EnforceEgress);
    }
    if filtering.provisional == Provisional::On {
        modes = modes.with(Mode::Provisional);
    }
    modes
}

/// The same, and what the providers add to them.
pub(super) fn all_modes(settings: &Settings) -> Modes {
    let modes = modes(&settings.filtering);
    let takes_replies = |provider: &Provider| !provider.media.replies.is_empty();
    if settings.providers.iter().any(takes_replies) {
        modes.with(Mode::Replies)
    } else {
        modes
    }
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

/// Providers' media limits by prefix; what exceeds a prefix's places is left out, which the configuration's check rules out.
pub(super) fn media_limits(settings: &Settings) -> BTreeMap<IpNet, MediaLimits> {
    media_by_prefix(&settings.providers)
        .into_iter()
        .map(|(prefix, wanted)| {
            let mut limits = MediaLimits {
                ranges: [MediaRange::NOTHING; MAX_MEDIA_RANGES],
            };
            for (place, range) in limits.ranges.iter_mut().zip(wanted) {
                *place = range;
            }
            (prefix, limits)
        })
        .collect()
}

/// Where each provider's media comes from.
pub(super) fn provider_media(settings: &Settings) -> BTreeMap<(u16, IpNet), MediaPorts> {
    let mut places = BTreeMap::new();
    for (number, provider) in (0_u16..).zip(&settings.providers) {
        let ports = MediaPorts {
            min: *provider.media.ports.start(),
            max: *provider.media.ports.end(),
        };
        for prefix in or_anywhere(&provider.media.prefixes) {
            places.insert((number, prefix), ports);
        }
    }
    places
}
