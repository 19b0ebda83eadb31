//! Which way media flowed, by what the call's pinholes counted.
//!
//! Only streams that carry audio, video or fax are judged: RTCP may be silent. A call on hold is not judged, nor one that has only just
//! been answered.

use super::{NOTE, PROBLEM, finding, owned, packets, seconds};
use crate::view::{CallRecord, Finding, Happening, MediaRecord};

/// From when on silence means something: nobody answers and speaks in no time.
const SETTLED: f64 = 2.0;
/// A direction that flowed and then was still for so long has stopped, while the other one went on.
const STOPPED: f64 = 5.0;

/// What all streams of a call carried together.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Flow {
    /// Packets from the provider that passed.
    pub from_provider: u64,
    /// Packets that the PBX sent.
    pub from_pbx: u64,
    /// Packets to the pinholes that were dropped.
    pub dropped: u64,
    /// Since the last one from the provider.
    pub provider_still: Option<f64>,
    /// Since the last one from the PBX.
    pub pbx_still: Option<f64>,
}

/// Which direction is silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stillness {
    /// Nothing ever came from the provider, and the PBX sent.
    Provider,
    /// The PBX sent nothing, and the provider did.
    Pbx,
    /// Neither sent anything.
    Both,
    /// The provider's stopped while the PBX's went on.
    ProviderStopped,
    /// The PBX's stopped while the provider's went on.
    PbxStopped,
}

impl Stillness {
    /// The finding's stable name.
    pub fn code(self) -> &'static str {
        match self {
            Self::Provider => "silent_provider",
            Self::Pbx => "silent_pbx",
            Self::Both => "no_media",
            Self::ProviderStopped => "provider_stopped",
            Self::PbxStopped => "pbx_stopped",
        }
    }
}

/// Judges a call that was answered so many seconds ago and is not on hold.
pub fn judge(flow: &Flow, since_answer: f64) -> Option<Stillness> {
    if since_answer < SETTLED {
        return None;
    }
    let has_stopped = |still: Option<f64>, other: Option<f64>| match (still, other) {
        (Some(still), Some(other)) => still - other > STOPPED,
        _ => false,
    };
    match (flow.from_provider, flow.from_pbx) {
        (0, 0) => Some(Stillness::Both),
        (0, _) => Some(Stillness::Provider),
        (_, 0) => Some(Stillness::Pbx),
        _ if has_stopped(flow.provider_still, flow.pbx_still) => Some(Stillness::ProviderStopped),
        _ if has_stopped(flow.pbx_still, flow.provider_still) => Some(Stillness::PbxStopped),
        _ => None,
    }
}

/// What the media of a call that was answered has to say.
pub(super) fn findings(record: &CallRecord) -> Vec<Finding> {
    let Some(answered) = answered_at(record) else {
        return Vec::new();
    };
    let since_answer = record.duration_seconds - answered;
    if record.media.is_empty() {
        return no_pinhole(record, since_answer).into_iter().collect();
    }
    let streams: Vec<&MediaRecord> = record
        .media
        .iter()
        .filter(|media| media.stream != "rtcp")
        .collect();
    let flow = flow(&streams, record.duration_seconds);
    let stillness = match record.hold {
        true => None,
        false => judge(&flow, since_answer),
    };
    let mut found: Vec<Finding> = stillness
        .map(|stillness| say(stillness, &flow, &streams, since_answer))
        .into_iter()
        .collect();
    let is_told = matches!(
        stillness,
        Some(Stillness::Provider | Stillness::Both | Stillness::ProviderStopped)
    );
    if flow.dropped > 0 && !is_told {
        found.push(dropped(&flow, &streams));
    }
    found
}

/// When the call was answered, in seconds since its beginning.
pub(super) fn answered_at(record: &CallRecord) -> Option<f64> {
    record
        .timeline
        .iter()
        .find(|moment| moment.what == Happening::Confirmed)
        .map(|moment| moment.at_seconds)
}

fn flow(streams: &[&MediaRecord], now: f64) -> Flow {
    let latest = |last: fn(&MediaRecord) -> Option<f64>| {
        streams
            .iter()
            .filter_map(|media| last(media))
            .reduce(f64::max)
            .map(|at| now - at)
    };
    Flow {
        from_provider: streams.iter().map(|media| media.ingress_packets).sum(),
        from_pbx: streams.iter().map(|media| media.egress_packets).sum(),
        dropped: streams.iter().map(|media| media.dropped_packets).sum(),
        provider_still: latest(|media| media.last_ingress_seconds),
        pbx_still: latest(|media| media.last_egress_seconds),
    }
}

fn say(stillness: Stillness, flow: &Flow, streams: &[&MediaRecord], since_answer: f64) -> Finding {
    let places = places(streams);
    let (text, causes) = match stillness {
        Stillness::Provider => (
            format!(
                "one-way audio: nothing was let in from the provider, while the PBX sent {}. The PBX's side hears nothing.",
                packets(flow.from_pbx)
            ),
            towards_pbx(flow, streams),
        ),
        Stillness::Both => (
            format!(
                "no audio: {} after the answer no media has passed in either direction.",
                seconds(since_answer)
            ),
            if flow.dropped > 0 || has_strays(streams) {
                towards_pbx(flow, streams)
            } else {
                vec![
                    format!("no packet came to {places} at all, and none left from there: media takes a way that does not lead through this host's interfaces"),
                    "neither side sends before it hears something: see whether the PBX has a codec in common with the provider".to_owned(),
                ]
            },
        ),
        Stillness::Pbx => (
            format!(
                "one-way audio: nothing left from the PBX at {places}, while the provider sent {}. The provider's side hears nothing.",
                packets(flow.from_provider)
            ),
            owned(&[
                "the PBX's media leaves by another interface or route: list every outer interface under `interfaces`",
                "the PBX sends from another address or port than its SDP names (symmetric RTP off, another NAT on the way)",
                "the PBX's phone is silent: one-way audio behind the PBX, muted, or silence suppression",
            ]),
        ),
        Stillness::ProviderStopped => (
            format!(
                "the provider's audio stopped {} before the PBX's last packet, after {}.",
                seconds(gap(flow.provider_still, flow.pbx_still)),
                packets(flow.from_provider)
            ),
            if flow.dropped > 0 || has_strays(streams) {
                towards_pbx(flow, streams)
            } else {
                owned(&[
                    "the far end's phone lost its network, or went silent with silence suppression; a hold shows as a re-INVITE above",
                ])
            },
        ),
        Stillness::PbxStopped => (
            format!(
                "the PBX's audio stopped {} before the provider's last packet, after {}.",
                seconds(gap(flow.pbx_still, flow.provider_still)),
                packets(flow.from_pbx)
            ),
            owned(&[
                "the PBX's phone lost its network, or went silent with silence suppression",
                "the way out of this network has changed: the PBX's media leaves by an interface that is not under `interfaces`",
            ]),
        ),
    };
    finding(PROBLEM, stillness.code(), text, causes)
}

fn gap(longer: Option<f64>, shorter: Option<f64>) -> f64 {
    longer.unwrap_or_default() - shorter.unwrap_or_default()
}

/// Why nothing from the provider was let in.
fn towards_pbx(flow: &Flow, streams: &[&MediaRecord]) -> Vec<String> {
    if flow.dropped == 0 && has_strays(streams) {
        let mut causes: Vec<String> = strays(streams).collect();
        causes.push(format!(
            "no packet came to {} while its pinhole was open: the far end sends before the call is agreed on, and then stops or goes elsewhere; \
             a pinhole opens when the SDP of both sides has been seen, on early media with `early_media = \"on-offer\"` before the answer",
            places(streams)
        ));
        return causes;
    }
    if flow.dropped == 0 {
        return vec![
            format!(
                "no packet came to {} at all: is that address reachable from outside? An address of the PBX's own network in its SDP needs a NAT table or the PBX's external address setting",
                places(streams)
            ),
            "the provider's media comes in by an interface that is not under `interfaces`"
                .to_owned(),
        ];
    }
    let expected = expected(streams);
    let mut causes = vec![format!(
        "{} came to {} and were dropped, because they were not what was negotiated; expected from {expected}",
        packets(flow.dropped),
        places(streams),
    )];
    causes.extend(strays(streams));
    causes.extend(remedies(streams).map(str::to_owned));
    causes
}

fn has_strays(streams: &[&MediaRecord]) -> bool {
    streams.iter().any(|media| !media.strays.is_empty())
}

/// What helps, by why it was dropped. Where nobody was seen, it is taken for what it mostly is.
fn remedies(streams: &[&MediaRecord]) -> impl Iterator<Item = &'static str> {
    let mut reasons: Vec<&str> = streams
        .iter()
        .flat_map(|media| media.strays.iter().map(|stray| stray.reason.as_str()))
        .collect();
    if reasons.is_empty() {
        reasons.push("wrong_source");
    }
    [
        (
            "wrong_source",
            "media from another address than the SDP names: if it is the provider's, set the trunk's `media.prefixes` or `media.source`",
        ),
        (
            "payload_type",
            "a codec that neither side's SDP lists: a transcoder on the way, or a peer that answers with one codec and sends another",
        ),
        (
            "not_media",
            "what comes is no RTP as negotiated: one side encrypts (DTLS, ZRTP) or sends STUN without having offered it",
        ),
        (
            "rate_limited",
            "more packets a second than the codec can need: raise the trunk's `media.packets_per_second` if they are the provider's",
        ),
        (
            "pinhole_expired",
            "it came after a silence longer than the idle limit: raise `media_idle` or `hold_idle` under [timers]",
        ),
    ]
    .into_iter()
    .filter(move |(reason, _)| reasons.contains(reason))
    .map(|(_, remedy)| remedy)
}

/// Who sent what was dropped: X instead of Y.
fn strays<'a>(streams: &'a [&MediaRecord]) -> impl Iterator<Item = String> + 'a {
    streams.iter().flat_map(|media| {
        media.strays.iter().map(|stray| {
            let mut text = format!("media came from {}", stray.source);
            if stray.reason == "wrong_source" {
                let expected = crate::view::sources_text(&media.sources);
                text.push_str(&format!(" instead of {expected}"));
            }
            let count = packets(stray.packets);
            text.push_str(&format!(" ({}, at least {count}", stray.reason));
            if stray.first_seconds < media.opened_seconds {
                text.push_str(", before the pinhole was open");
            }
            text + ")"
        })
    })
}

fn dropped(flow: &Flow, streams: &[&MediaRecord]) -> Finding {
    let mut causes: Vec<String> = strays(streams).collect();
    causes.push(format!(
        "whoever is not {} is not let in; nothing is wrong if that is a stranger",
        expected(streams)
    ));
    finding(
        NOTE,
        "dropped_at_pinhole",
        format!(
            "{} to the call's open ports were dropped, because they were not what was negotiated.",
            packets(flow.dropped)
        ),
        causes,
    )
}

/// An answered call without any pinhole.
fn no_pinhole(record: &CallRecord, since_answer: f64) -> Option<Finding> {
    if since_answer < SETTLED || record.observing && record.local_media.is_empty() {
        return None;
    }
    let cause = match (
        record.local_media.is_empty(),
        record.remote_media.is_empty(),
    ) {
        (true, false) => {
            "the PBX's SDP was not seen leaving: its signalling takes another interface, or its SDP was refused (see above)"
        }
        (false, true) => {
            "the provider's SDP was not seen arriving: its signalling takes another interface, or its SDP was refused (see above)"
        }
        (true, true) => {
            "no SDP of either side was seen: signalling over TLS (see `media.replies`), or it takes another interface"
        }
        (false, false) => "the two sides' SDP did not become an agreement that opens anything",
    };
    Some(finding(
        PROBLEM,
        "never_opened",
        "the call was answered and no pinhole was ever opened for it: no media can come in."
            .to_owned(),
        vec![cause.to_owned()],
    ))
}

fn places(streams: &[&MediaRecord]) -> String {
    let mut places: Vec<String> = streams
        .iter()
        .map(|media| media.local.to_string())
        .collect();
    places.dedup();
    places.join(", ")
}

fn expected(streams: &[&MediaRecord]) -> String {
    let mut sources: Vec<String> = streams
        .iter()
        .map(|media| crate::view::sources_text(&media.sources))
        .collect();
    sources.dedup();
    sources.join(" or ")
}
