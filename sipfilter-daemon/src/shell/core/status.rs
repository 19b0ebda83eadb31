//! What the engine's owner answers about the daemon as a whole.

use sipfilter_common::reason::{Action, Counter, Reason};

use super::Core;
use crate::{
    engine::{Instant, counters::Reading},
    shell::{datapath::Attached, reload::places::Place, scope::modes},
    view,
};

/// Limited sources that `status` names, those with most first.
const SHOWN_SOURCES: usize = 20;

impl Core {
    pub(super) fn status(&self, now: Instant) -> view::Status {
        let summary = self.about.config.summary();
        let pbx = &self.settings.pbx;
        view::Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            config: self.about.config.path.display().to_string(),
            unconfirmed: self.about.unconfirmed.as_ref().map(|(file, deadline)| {
                view::Unconfirmed {
                    file: file.clone(),
                    seconds_left: (*deadline).since(now).as_secs_f64(),
                }
            }),
            uptime_seconds: now.since(self.about.started).as_secs_f64(),
            interfaces: self.interfaces(),
            protected: pbx.addresses.clone(),
            rtp_ports: format!("{}-{}", pbx.rtp_ports.start(), pbx.rtp_ports.end()),
            enforcement: summary.enforcement.to_owned(),
            scope: summary.scope.to_owned(),
            egress: summary.egress.to_owned(),
            packets_to_drop: self.packets_to_drop(),
            providers: self
                .settings
                .providers
                .iter()
                .map(|provider| provider.name.clone())
                .collect(),
            calls: self.engine.calls_in_progress(),
            pinholes: self.engine.open_pinholes(),
            adopted_pinholes: self.engine.adopted_pinholes(),
            reading: self.reading.view(),
            opening: self.opening.view(),
            limited_sources: self.limited_sources(),
            forged_packets: self.pressure.forged(),
            routes_changed: self.pressure.is_route_outdated(),
            log_lines_lost: self.watch.log.lost(),
            counters: self
                .engine
                .counters()
                .readings()
                .map(|reading| (counter_name(&reading), reading.value))
                .collect(),
        }
    }

    /// What the rules call to drop, by the kernel's counters; what cannot be read counts as nothing.
    fn packets_to_drop(&self) -> u64 {
        let modes = modes(&self.settings.filtering);
        Reason::ALL
            .iter()
            .filter(|reason| modes.ruling(**reason) == Action::Drop)
            .filter_map(|reason| self.counters.read(Counter::Reason(*reason)).ok())
            .map(|count| count.packets)
            .sum()
    }

    pub(super) fn interfaces(&self) -> Vec<view::Interface> {
        let names = self.about.config.interfaces.iter();
        names
            .map(|name| {
                let mut attached = self.about.attached.iter();
                let attached = attached.find_map(|(known, how)| (known == name).then_some(how));
                let (state, now_called, why) = match self.about.places.get(name) {
                    None | Some(Place::Filtered) => ("filtered", None, None),
                    Some(Place::Renamed(other)) => ("renamed", Some(other.clone()), None),
                    Some(Place::Gone) => ("gone", None, None),
                    Some(Place::Awaited) => ("awaited", None, None),
                    Some(Place::Refused(why)) => ("refused", None, Some(why.clone())),
                };
                view::Interface {
                    name: name.clone(),
                    mode: attached.map_or_else(|| "none".to_owned(), ToString::to_string),
                    fallback: match attached {
                        Some(Attached::Fallback { why }) => Some(why.clone()),
                        Some(Attached::Native | Attached::Generic) | None => None,
                    },
                    state: state.to_owned(),
                    now_called,
                    refusal: why,
                }
            })
            .collect()
    }

    pub(super) fn limited_sources(&self) -> Vec<view::LimitedSource> {
        self.pressure
            .limited_sources()
            .into_iter()
            .take(SHOWN_SOURCES)
            .map(|limited| view::LimitedSource {
                source: limited.source,
                provider: self.provider_name(limited.provider).to_owned(),
                requests: limited.spending.begins.refused,
                messages: limited.spending.continues.refused,
                segments: limited.spending.segments.refused,
            })
            .collect()
    }
}

/// `refusals.wrong_dialog`, `calls_ended.bye_ingress`: the labelled ones under their own names.
fn counter_name(reading: &Reading) -> String {
    match reading.label {
        Some((_, label)) => format!("{}.{label}", reading.name),
        None => reading.name.to_owned(),
    }
}
