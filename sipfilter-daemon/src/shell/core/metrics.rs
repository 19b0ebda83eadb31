//! What the engine's owner tells Prometheus. It reads, and asks the kernel for its counters only.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use sipfilter_common::abi::ABI_VERSION;

use super::{Core, calls::is_in_progress};
use crate::{
    engine::{
        CallNumber, CallState, CallView, Instant,
        pinhole::Stream,
        settings::{Enforcement, ProviderId},
    },
    shell::{metrics::Snapshot, scope::modes, traffic::Silent},
};

/// How long an answered call may take until both sides are heard: ringback and greetings are one way, too.
const SETTLED: Duration = Duration::from_secs(5);
/// Calls, and pinholes, that are looked at at once.
const CALLS: usize = 500;
const PINHOLES: usize = 2_000;
const STATES: [&str; 4] = ["inviting", "ringing", "challenged", "confirmed"];

impl Core {
    pub(super) fn metrics(&self, count: Count, now: Instant) -> Snapshot {
        let mut providers = self.ledger.totals().clone();
        for provider in &self.settings.providers {
            providers.entry(provider.name.clone()).or_default();
        }
        let adopted = self.engine.adopted_pinholes() as u64;
        let open = self.engine.open_pinholes() as u64;
        let in_progress = self.engine.calls_in_progress() as u64;
        let limits = &self.settings.limits;
        Snapshot {
            version: env!("CARGO_PKG_VERSION"),
            abi: ABI_VERSION,
            log_lines_lost: self.watch.log.lost(),
            uptime_seconds: now.since(self.about.started).as_secs_f64(),
            is_enforcing: self.settings.filtering.enforcement == Enforcement::Enforce,
            interfaces: self
                .about
                .attached
                .iter()
                .map(|(name, how)| (name.clone(), how.to_string()))
                .collect(),
            filtered: self
                .interfaces()
                .into_iter()
                .map(|interface| {
                    let is_filtered = matches!(interface.state.as_str(), "filtered" | "renamed");
                    (interface.name, is_filtered)
                })
                .collect(),
            // What cannot be read is left out, as if the scrape had failed for it.
            packets: self
                .counters
                .view(modes(&self.settings.filtering))
                .unwrap_or_default(),
            engine: self.engine.counters().readings().collect(),
            providers,
            calls: count.calls.named(self),
            one_way: count.one_way.named(self),
            pinholes: count.pinholes.named(self),
            adopted,
            reading: self.reading.histogram().clone(),
            opening: self.opening.histogram().clone(),
            tables: vec![
                ("calls", in_progress, limits.calls as u64),
                ("pinholes", open + adopted, limits.pinholes as u64),
            ],
        }
    }

    /// Who is not heard in an answered call that nobody holds.
    fn one_way(&self, call: &CallView<'_>, now: Instant) -> Option<Silent> {
        let is_settled = call.confirmed_at.is_some_and(|at| now.since(at) >= SETTLED);
        if call.state != CallState::Confirmed || call.hold || !is_settled {
            return None;
        }
        self.ledger.one_way(call.pinholes)
    }
}

/// Calls and pinholes, counted as far as somebody has looked.
pub(super) struct Count {
    calls: Tally,
    one_way: Tally,
    pinholes: Tally,
    next: Next,
}

/// Behind which call, or which pinhole, the next look begins.
#[derive(Clone, Copy)]
enum Next {
    Calls(Option<CallNumber>),
    Pinholes(Option<SocketAddr>),
}

impl Count {
    pub fn new(core: &Core) -> Self {
        let providers = core.settings.providers.len();
        Self {
            calls: Tally::of(providers, &STATES),
            one_way: Tally::of(providers, &Silent::ALL.map(Silent::name)),
            pinholes: Tally::of(providers, &Stream::ALL.map(Stream::name)),
            next: Next::Calls(None),
        }
    }

    /// Looks at the next ones. Tells whether there may be more.
    pub fn look(&mut self, core: &Core, now: Instant) -> bool {
        match self.next {
            Next::Calls(behind) => {
                let mut last = None;
                for call in core.engine.calls_behind(behind).take(CALLS) {
                    last = Some(call.number);
                    if !is_in_progress(&call) {
                        continue;
                    }
                    if let Some(silent) = core.one_way(&call, now) {
                        self.one_way.add(call.provider, silent.name());
                    }
                    self.calls.add(call.provider, call.state.name());
                }
                self.next = match last {
                    Some(_) => Next::Calls(last),
                    None => Next::Pinholes(None),
                };
                true
            }
            Next::Pinholes(behind) => {
                let mut last = None;
                for pinhole in core.engine.pinholes_behind(behind).take(PINHOLES) {
                    last = Some(pinhole.local);
                    self.pinholes.add(pinhole.provider, pinhole.stream.name());
                }
                self.next = Next::Pinholes(last);
                last.is_some()
            }
        }
    }
}

/// Counts by provider and something else, of many calls or pinholes: no name is written down for each.
struct Tally(BTreeMap<(ProviderId, &'static str), u64>);

impl Tally {
    /// What is at zero is told, too, so that a graph has a line from the beginning.
    fn of(providers: usize, names: &[&'static str]) -> Self {
        let providers = (0..providers).filter_map(|number| u16::try_from(number).ok());
        let all =
            providers.flat_map(|number| names.iter().map(move |name| (ProviderId(number), *name)));
        Self(all.map(|key| (key, 0)).collect())
    }

    fn add(&mut self, provider: ProviderId, name: &'static str) {
        *self.0.entry((provider, name)).or_default() += 1;
    }

    fn named(self, core: &Core) -> BTreeMap<(String, &'static str), u64> {
        let mut named = BTreeMap::new();
        for ((provider, name), count) in self.0 {
            let provider = core.provider_name(provider).to_owned();
            *named.entry((provider, name)).or_default() += count;
        }
        named
    }
}
