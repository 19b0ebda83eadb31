//! What enforcing would have broken, over the whole run: the kernel's counts of each call's pinholes, and the samples of who sent it.
//!
//! The engine's owner gathers what it knows of calls, some of them at a time ([`Gathering`]); whoever asked adds who else was dropped, and
//! judges ([`Gathered::report`]), which takes a while and needs nothing of the engine.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;

use super::Core;
use crate::{
    engine::{CallNumber, Instant, settings::Enforcement},
    shell::{
        clock,
        harm::{Harmed, Hit},
        ledger::{DropLedger, Ledger},
    },
    view,
};

/// Calls that are looked at at once.
const SLICE: usize = 150;
/// Calls that are told one by one.
const CALLS: usize = 1_000;
/// Sources of the rest that are told.
const SOURCES: usize = 100;

/// What is known of calls by now.
pub(super) struct Gathering {
    /// Those that are still to be looked at.
    numbers: std::vec::IntoIter<CallNumber>,
    /// Those that are told, what weighs most first.
    calls: BTreeMap<(bool, bool, u64), view::ReportedCall>,
    /// How many are not.
    beyond: u64,
    losers: usize,
    silent: usize,
}

impl Gathering {
    pub fn new(core: &Core) -> Self {
        let hit = core.watch.drops.lock().hit_calls().collect::<Vec<_>>();
        let mut numbers = core.engine.call_numbers();
        numbers.extend(core.harm.calls().keys().copied());
        numbers.extend(hit.into_iter().map(CallNumber));
        numbers.sort_unstable();
        numbers.dedup();
        Self {
            numbers: numbers.into_iter(),
            calls: BTreeMap::new(),
            beyond: 0,
            losers: 0,
            silent: 0,
        }
    }

    /// Looks at the next ones. Tells whether there may be more.
    pub fn look(&mut self, core: &Core) -> bool {
        let drops = core.watch.drops.lock();
        let numbers: Vec<CallNumber> = self.numbers.by_ref().take(SLICE).collect();
        for number in numbers {
            if let Some(call) = core.reported(number, &drops) {
                self.add(call);
            }
        }
        self.numbers.len() > 0
    }

    fn add(&mut self, call: view::ReportedCall) {
        self.silent += usize::from(call.only_others);
        self.losers += usize::from(call.loses_media && !call.only_others);
        let key = (!call.loses_media, call.only_others, call.number);
        self.calls.insert(key, call);
        if self.calls.len() > CALLS {
            self.calls.pop_last();
            self.beyond += 1;
        }
    }
}

/// What the engine's owner has gathered for a report.
#[derive(Debug)]
pub struct Gathered {
    /// Without what others than the calls tell.
    report: view::Report,
    losers: usize,
    silent: usize,
    /// Calls that were hit and are not remembered.
    forgotten: u64,
    /// Where providers' signalling comes from.
    signalling: Vec<IpNet>,
}

impl Gathered {
    /// The report, with what the ledger knows of who was dropped.
    pub fn report(self, drops: &Ledger) -> Box<view::Report> {
        let all = drops.drops(usize::MAX);
        let strangers = drops.lock().strangers(usize::MAX);
        // Where egress is only counted, what leaves is sampled and passes all the same.
        let ruled_out: BTreeSet<&str> = all.reasons.iter().map(|row| row.reason.as_str()).collect();
        let is_ruled_out =
            |source: &view::DroppedSource| ruled_out.contains(source.reason.as_str());
        let is_sip = |source: &view::DroppedSource| {
            let address = source.source.addr();
            self.signalling.iter().any(|net| net.contains(&address))
        };
        let is_calls = |source: &view::DroppedSource| {
            source
                .near
                .as_ref()
                .is_some_and(|near| near.how != "closed")
        };
        let (providers, others): (Vec<_>, Vec<_>) = all
            .sources
            .into_iter()
            .filter(|source| is_ruled_out(source) && !is_calls(source))
            .partition(is_sip);
        let signalling = view::ReportedSignalling {
            providers,
            limited: self.report.signalling.limited,
            claims: strangers
                .strangers
                .into_iter()
                .filter(|stranger| stranger.is_trunk)
                .collect(),
        };
        let hidden = others.len().saturating_sub(SOURCES) as u64;
        let objections = objections(
            self.report.calls_answered,
            (self.losers, self.silent),
            self.forgotten,
            &signalling,
        );
        Box::new(view::Report {
            safe_to_enforce: objections.is_empty(),
            objections,
            signalling,
            rest: others.into_iter().take(SOURCES).collect(),
            more_sources: all.more_sources + hidden,
            reasons: all.reasons,
            ..self.report
        })
    }
}

impl Core {
    pub(super) fn gathered(&self, gathering: Gathering, now: Instant) -> Gathered {
        let providers = self.settings.providers.iter();
        let report = view::Report {
            since: view::time(clock::wall(self.about.started)),
            seconds: now.since(self.about.started).as_secs_f64(),
            enforcement: match self.settings.filtering.enforcement {
                Enforcement::Observe => "observe",
                Enforcement::Enforce => "enforce",
            }
            .to_owned(),
            safe_to_enforce: false,
            objections: Vec::new(),
            calls_answered: self.engine.counters().calls_confirmed,
            calls: gathering.calls.into_values().collect(),
            more_calls: self.harm.more() + gathering.beyond,
            signalling: view::ReportedSignalling {
                providers: Vec::new(),
                limited: self.limited_sources(),
                claims: Vec::new(),
            },
            rest: Vec::new(),
            more_sources: 0,
            reasons: Vec::new(),
        };
        Gathered {
            report,
            losers: gathering.losers,
            silent: gathering.silent,
            forgotten: self.harm.more(),
            signalling: providers
                .flat_map(|provider| provider.signalling.iter().copied())
                .collect(),
        }
    }

    /// A call whose pinholes were hit, closed ones and open ones as they are now, or nearly; `None` if it was not.
    fn reported(&self, number: CallNumber, drops: &DropLedger) -> Option<view::ReportedCall> {
        let mut harmed = self.harm.calls().get(&number).cloned().unwrap_or_default();
        if let Some(call) = self.engine.call(number) {
            for local in call.pinholes {
                self.add_open(&mut harmed, number, local);
            }
        }
        if harmed.pinholes.is_empty() && !drops.is_hit(number.0) {
            return None;
        }
        let nets = self.own_nets(number, &harmed);
        let is_own = |ip: IpAddr| nets.iter().any(|net| net.contains(&ip));
        Some(self.judged(number, harmed, drops.hits(number.0, is_own)))
    }

    fn add_open(&self, harmed: &mut Harmed, number: CallNumber, local: &SocketAddr) {
        let Some((_, provider)) = self.ledger.hit(local).filter(|(call, _)| *call == number) else {
            return;
        };
        if let Some(hit) = self.hit(local) {
            provider.clone_into(&mut harmed.provider);
            harmed.pinholes.push(hit);
        }
    }

    fn hit(&self, local: &SocketAddr) -> Option<Hit> {
        let (stream, sources) = self.ledger.terms(local)?;
        Hit::new(*local, stream, sources, &self.writer.traffic(local)?)
    }

    /// Where a call's own media comes from: whoever may send, and its provider.
    fn own_nets(&self, number: CallNumber, harmed: &Harmed) -> BTreeSet<IpNet> {
        let hit = harmed.pinholes.iter().flat_map(|hit| &hit.sources);
        let mut nets: BTreeSet<IpNet> = hit.map(|source| source.net).collect();
        if let Some(call) = self.engine.call(number) {
            let terms = call.pinholes.iter().filter_map(|at| self.ledger.terms(at));
            nets.extend(terms.flat_map(|(_, sources)| sources.iter().map(|source| source.net)));
        }
        for provider in &self.settings.providers {
            nets.extend(provider.signalling.iter().chain(&provider.media.prefixes));
        }
        // A whole family is nobody's own.
        nets.retain(|net| net.prefix_len() > 0);
        nets
    }

    fn judged(
        &self,
        number: CallNumber,
        harmed: Harmed,
        sources: Vec<view::ReportedSource>,
    ) -> view::ReportedCall {
        let record = self.records.call(number);
        let Judgement {
            loses_media,
            only_others,
            because,
        } = judge(&harmed.pinholes, &sources);
        view::ReportedCall {
            number: number.0,
            call_id: harmed.call_id.or_else(|| Some(record?.call_id.clone())),
            provider: match record {
                Some(record) if harmed.provider.is_empty() => {
                    self.provider_name(record.provider).to_owned()
                }
                _ => harmed.provider,
            },
            loses_media,
            only_others,
            because,
            pinholes: harmed.pinholes.iter().map(pinhole_view).collect(),
            sources,
        }
    }
}

fn pinhole_view(hit: &Hit) -> view::ReportedPinhole {
    view::ReportedPinhole {
        local: hit.local,
        stream: hit.stream.name().to_owned(),
        sources: hit.sources.iter().map(view::Source::from).collect(),
        ingress_packets: hit.ingress,
        egress_packets: hit.egress,
        dropped_packets: hit.dropped,
    }
}

/// What would have become of a call, and why that is thought. What is not known speaks against it.
struct Judgement {
    loses_media: bool,
    only_others: bool,
    because: String,
}

fn judge(pinholes: &[Hit], sources: &[view::ReportedSource]) -> Judgement {
    let loses = |because| Judgement {
        loses_media: true,
        only_others: false,
        because,
    };
    let dropped: u64 = pinholes.iter().map(|hit| hit.dropped).sum();
    if let Some(own) = sources.iter().find(|source| source.is_own) {
        return loses(format!(
            "{} is its own or its provider's, and what it sends there is {}",
            SocketAddr::new(own.source, own.port),
            own.reason
        ));
    }
    if let Some(hit) = pinholes.iter().find(|hit| hit.is_all_lost()) {
        let there = sources.iter().filter(|source| source.how == "same_port");
        let samples: u64 = there.map(|source| source.samples).sum();
        if samples == 0 {
            return loses(format!(
                "of what came to {}, nothing passes and {} packets are to be dropped",
                hit.local, hit.dropped
            ));
        }
        return Judgement {
            loses_media: true,
            only_others: true,
            because: format!(
                "no media of its own came to {}; of {dropped} packets to be dropped, {} looked at, and came from others; unless its media is to come \
                 from there, it loses none",
                hit.local,
                match samples {
                    samples if samples >= dropped => "all were".to_owned(),
                    1 => "1 was".to_owned(),
                    samples => format!("{samples} were"),
                }
            ),
        };
    }
    if sources.is_empty() {
        return loses(format!(
            "{dropped} packets are to be dropped, and none of them was looked at"
        ));
    }
    Judgement {
        loses_media: false,
        only_others: false,
        because: "it has its media; whoever else sent to its ports is no part of it".to_owned(),
    }
}

fn objections(
    answered: u64,
    (losers, silent): (usize, usize),
    more_calls: u64,
    signalling: &view::ReportedSignalling,
) -> Vec<String> {
    let claims: Vec<_> = signalling
        .claims
        .iter()
        .filter_map(|stranger| {
            Some(format!(
                "{} for {}",
                stranger.network,
                stranger.claims.as_ref()?
            ))
        })
        .collect();
    let limited = signalling.limited.iter().map(|limited| &limited.provider);
    let limited: BTreeSet<_> = limited.map(String::as_str).collect();
    let all = [
        (answered == 0).then(|| "no call was answered, so that nothing is known of media".to_owned()),
        match losers {
            0 => None,
            1 => Some("a call loses media of its own".to_owned()),
            more => Some(format!("{more} calls lose media of their own")),
        },
        match silent {
            0 => None,
            1 => Some("a call was silent, and only others sent to it: they are to be dropped, whose media they may be is not known".to_owned()),
            more => Some(format!(
                "{more} calls were silent, and only others sent to them: they are to be dropped, whose media they may be is not known"
            )),
        },
        (more_calls > 0).then(|| format!("{more_calls} more calls were hit than are remembered")),
        (!signalling.providers.is_empty())
            .then(|| "packets from providers' signalling addresses are to be dropped".to_owned()),
        (!limited.is_empty()).then(|| {
            let names: Vec<&str> = limited.into_iter().collect();
            format!("{} send more signalling than they may", names.join(", "))
        }),
        (!claims.is_empty()).then(|| {
            format!(
                "SIP in the name of your providers comes from elsewhere ({}): theirs or forged, `sipfilterctl strangers` tells more",
                claims.join(", ")
            )
        }),
    ];
    all.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::pinhole::Stream;

    fn hit(ingress: u64) -> Hit {
        Hit {
            local: SocketAddr::from(([203, 0, 113, 10], 10_000)),
            stream: Stream::Rtp,
            sources: Vec::new(),
            ingress,
            egress: 0,
            dropped: 4,
        }
    }

    fn source(is_own: bool) -> view::ReportedSource {
        view::ReportedSource {
            source: IpAddr::from([192, 0, 2, 66]),
            port: 4_000,
            reason: "wrong_source".to_owned(),
            destination: hit(0).local,
            how: "same_port".to_owned(),
            is_own,
            packets: 4,
            samples: 4,
            first_seen: String::new(),
            last_seen: String::new(),
        }
    }

    #[test]
    fn a_call_loses_media_unless_all_that_hit_it_is_somebody_elses() {
        #[track_caller]
        fn check(pinholes: &[Hit], sources: &[view::ReportedSource], expect: bool) {
            let found = judge(pinholes, sources);
            assert_eq!(found.loses_media, expect, "{}", found.because);
        }
        check(&[hit(100)], &[source(false)], false);
        check(&[hit(100)], &[source(false), source(true)], true);
        check(&[], &[source(true)], true);
        check(&[], &[source(false)], false);
        check(&[hit(0)], &[source(false)], true);
        check(&[hit(100)], &[], true);
    }

    #[test]
    fn a_silent_call_that_only_others_sent_to_is_told_as_that() {
        #[track_caller]
        fn check(pinholes: &[Hit], sources: &[view::ReportedSource], expect: bool, says: &str) {
            let found = judge(pinholes, sources);
            assert_eq!(found.only_others, expect, "{}", found.because);
            assert!(found.because.contains(says), "{}", found.because);
        }
        let silent = "no media of its own came to 203.0.113.10:10000; of 4 packets";
        check(&[hit(0)], &[source(false)], true, silent);
        check(&[hit(0)], &[source(false)], true, "all were looked at");
        let seldom = view::ReportedSource {
            samples: 1,
            ..source(false)
        };
        check(&[hit(0)], &[seldom], true, "1 was looked at");
        check(
            &[hit(0)],
            &[source(false), source(true)],
            false,
            "its own or its provider's",
        );
        // Nobody looked at what came to the port itself.
        let beside = view::ReportedSource {
            how: "next_port".to_owned(),
            ..source(false)
        };
        check(&[hit(0)], &[beside], false, "nothing passes");
        check(&[hit(0)], &[], false, "nothing passes");
        check(&[hit(100)], &[source(false)], false, "it has its media");
    }

    #[test]
    fn nothing_speaks_against_a_quiet_run_with_calls() {
        let quiet = || view::ReportedSignalling {
            providers: Vec::new(),
            limited: Vec::new(),
            claims: Vec::new(),
        };
        assert!(objections(1, (0, 0), 0, &quiet()).is_empty());
        for (answered, losers, more) in [
            (0, (0, 0), 0),
            (1, (1, 0), 0),
            (1, (0, 1), 0),
            (1, (0, 2), 0),
            (1, (0, 0), 1),
        ] {
            assert_eq!(objections(answered, losers, more, &quiet()).len(), 1);
        }
        let limited = view::ReportedSignalling {
            limited: vec![view::LimitedSource {
                source: IpAddr::from([198, 51, 100, 10]).into(),
                provider: "lab".to_owned(),
                requests: 1,
                messages: 0,
                segments: 0,
            }],
            ..quiet()
        };
        let found = objections(1, (0, 0), 0, &limited);
        assert_eq!(found, ["lab send more signalling than they may"]);
    }
}
