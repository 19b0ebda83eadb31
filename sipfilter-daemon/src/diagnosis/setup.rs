//! How a call came about and ended: refusals by either side, what the filter refused, calls that connect and then drop.

use super::{NOTE, PROBLEM, finding, hints, media::answered_at, owned, seconds};
use crate::view::{CallRecord, Finding, Happening};

/// A call that ends so soon after its answer was hardly talked on.
const SHORT: f64 = 5.0;
/// 64*T1, when whoever answered gives up for want of an ACK (RFC 3261 §13.3.1.4), and what a network adds.
const NO_ACK: std::ops::RangeInclusive<f64> = 30.0..=36.0;

/// A side of the call, as the timeline names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Provider,
    Pbx,
}

impl Side {
    fn of(from: &str) -> Self {
        match from {
            "pbx" => Self::Pbx,
            _ => Self::Provider,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Provider => "the provider",
            Self::Pbx => "the PBX",
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Provider => Self::Pbx,
            Self::Pbx => Self::Provider,
        }
    }
}

/// A message of the timeline.
#[derive(Clone, Copy)]
struct Seen<'a> {
    at: f64,
    from: Side,
    method: &'a str,
    status: Option<u16>,
    session_expires: Option<u32>,
}

pub(super) fn findings(record: &CallRecord) -> Vec<Finding> {
    let messages: Vec<Seen<'_>> = messages(record).collect();
    let caller = match record.direction.as_str() {
        "outbound" => Side::Pbx,
        _ => Side::Provider,
    };
    let mut found = Vec::new();
    found.extend(authentication(&messages, caller, record));
    if found.is_empty() {
        found.extend(refused(record, caller));
    }
    found.extend(unanswered(&messages, caller, record));
    found.extend(dropped(&messages, caller, record));
    found.extend(refusals(record));
    found.extend(failed_pinholes(record));
    found
}

fn messages(record: &CallRecord) -> impl Iterator<Item = Seen<'_>> {
    record
        .timeline
        .iter()
        .filter_map(|moment| match &moment.what {
            Happening::Message {
                from,
                method,
                status,
                session_expires,
                ..
            } => Some(Seen {
                at: moment.at_seconds,
                from: Side::of(from),
                method,
                status: *status,
                session_expires: *session_expires,
            }),
            _ => None,
        })
}

/// Challenge after challenge, or one that nobody took up (RFC 3261 §22).
fn authentication(messages: &[Seen<'_>], caller: Side, record: &CallRecord) -> Option<Finding> {
    let is_challenge = |status: Option<u16>| matches!(status, Some(401 | 407));
    let challenges = messages
        .iter()
        .filter(|seen| seen.method == "INVITE" && is_challenge(seen.status) && seen.from != caller)
        .count();
    let is_over = record.end.is_some();
    let is_answered = answered_at(record).is_some();
    if is_answered || challenges == 0 {
        return None;
    }
    let invitations = messages
        .iter()
        .filter(|seen| seen.method == "INVITE" && seen.status.is_none() && seen.from == caller)
        .count();
    let (asker, asked) = (caller.other().name(), caller.name());
    if challenges >= 2 && invitations >= 2 {
        return Some(finding(
            PROBLEM,
            "authentication_loop",
            format!(
                "{asker} asked for credentials {challenges} times and never took those of {asked}."
            ),
            hints::credentials(caller, &record.provider),
        ));
    }
    (is_over && invitations < 2).then(|| {
        finding(
            PROBLEM,
            "credentials_missing",
            format!("{asker} asked for credentials and {asked} sent none."),
            hints::credentials(caller, &record.provider),
        )
    })
}

/// A final error answer.
fn refused(record: &CallRecord, caller: Side) -> Option<Finding> {
    let end = record.end.as_ref()?;
    let status = end.status?;
    let by = caller.other();
    let meaning = hints::meaning(status);
    let severity = match status {
        300..=399 | 486 | 487 | 600 | 603 => NOTE,
        _ => PROBLEM,
    };
    Some(finding(
        severity,
        hints::code(status),
        format!("{} refused the call: {status} {meaning}.", by.name()),
        hints::causes(status, by, &record.provider),
    ))
}

/// Nobody said anything to the INVITE, or nothing final.
fn unanswered(messages: &[Seen<'_>], caller: Side, record: &CallRecord) -> Option<Finding> {
    let is_over = record.end.as_ref()?;
    let silent = caller.other();
    let has_answered = messages
        .iter()
        .any(|seen| seen.from == silent && seen.status.is_some());
    if has_answered && is_over.reason == "no_answer" {
        return Some(finding(
            PROBLEM,
            "no_final_answer",
            format!("{} rang and never gave a final answer.", silent.name()),
            owned(&[
                "its final answer took another way than through this host's interfaces, or was lost",
            ]),
        ));
    }
    let began = messages
        .iter()
        .any(|seen| seen.from == caller && seen.method == "INVITE" && seen.status.is_none());
    if has_answered || !began {
        return None;
    }
    let tries = messages
        .iter()
        .filter(|seen| seen.from == caller && seen.method == "INVITE" && seen.status.is_none())
        .count();
    Some(finding(
        PROBLEM,
        "no_reply",
        format!(
            "{} never replied to the INVITE ({tries} sent).",
            silent.name()
        ),
        match silent {
            Side::Pbx => owned(&[
                "the PBX does not listen on that address and port, or its own firewall or access list drops what comes from the provider",
                "the PBX's answers leave by an interface that is not under `interfaces`",
            ]),
            Side::Provider => owned(&[
                "the provider does not know this address: add your public address to the trunk's allow-list at the provider",
                "the provider's answers come from an address that is not in the trunk's `signalling`: see `sipfilterctl stats`, unknown_source",
                "the INVITE does not reach it: a route or a firewall on the way",
            ]),
        },
    ))
}

/// Calls that connect and then drop.
fn dropped(messages: &[Seen<'_>], caller: Side, record: &CallRecord) -> Option<Finding> {
    let answered = answered_at(record)?;
    let end = record.end.as_ref()?;
    let after = record.duration_seconds - answered;
    let answerer = caller.other();
    let has_ack = messages
        .iter()
        .any(|seen| seen.method == "ACK" && seen.from == caller && seen.at >= answered);
    let by = match end.reason.as_str() {
        "bye_local" => Some(Side::Pbx),
        "bye_remote" => Some(Side::Provider),
        _ => None,
    };
    if end.reason == "no_ack" || (!has_ack && by == Some(answerer) && NO_ACK.contains(&after)) {
        return Some(finding(
            PROBLEM,
            "no_ack",
            format!(
                "connects, then drops: {} answered and {} never acknowledged it (no ACK); such calls end after 32 s.",
                answerer.name(),
                caller.name()
            ),
            match answerer {
                Side::Pbx => owned(&[
                    "the PBX's Contact names an address that the provider cannot reach: set the PBX's external signalling address (`external_signaling_address`, `externip`, `ext-sip-ip`)",
                    "the ACK comes from an address that is not in the trunk's `signalling`: see `sipfilterctl stats`, unknown_source",
                ]),
                Side::Provider => owned(&[
                    "the provider's 200 did not reach the PBX, or names a Contact or route that the PBX cannot reach",
                    "the PBX sends its ACK by an interface that is not under `interfaces`",
                ]),
            },
        ));
    }
    if end.reason == "idle" {
        return Some(finding(
            PROBLEM,
            "went_silent",
            "no BYE was seen; the call was given up after its media had been silent for the idle limit (`media_idle` or `hold_idle` under [timers]).".to_owned(),
            owned(&["one end vanished without a BYE, or its BYE took another way than through this host's interfaces"]),
        ));
    }
    let by = by?;
    if let Some(timer) = session_timer(messages, record.duration_seconds) {
        return Some(finding(
            PROBLEM,
            "session_timer",
            format!(
                "connects, then drops: {} ended the call {} after its last refresh, when the session timer of {timer} s ran out without another one (RFC 4028).",
                by.name(),
                seconds(record.duration_seconds - last_refresh(messages))
            ),
            owned(&[
                "the side that should refresh the session does not, or its re-INVITE or UPDATE is refused or lost: see the messages above",
                "switch session timers off at the PBX (`timers = no` in Asterisk's PJSIP, `enable-timer = false` in FreeSWITCH) if the provider allows that",
            ]),
        ));
    }
    (after < SHORT).then(|| {
        finding(
            NOTE,
            "short_call",
            format!(
                "connects, then drops: {} ended the call {} after the answer.",
                by.name(),
                seconds(after)
            ),
            match by {
                Side::Provider => owned(&[
                    "nobody was heard: see what is said of its media",
                    "the provider's application ended it: its own log of the call says why",
                ]),
                Side::Pbx => owned(&[
                    "the PBX's dialplan came to its end (a wrong extension or context, an application that failed): the PBX's log says why",
                    "whoever answered hung up",
                ]),
            },
        )
    })
}

/// The session interval that had lapsed when the call ended, if one had: whoever does not refresh sends BYE min(32 s, a third) before
/// the end at the earliest (RFC 4028 §10).
fn session_timer(messages: &[Seen<'_>], end: f64) -> Option<u32> {
    let interval = messages
        .iter()
        .rev()
        .find_map(|seen| seen.session_expires)?;
    let whole = f64::from(interval);
    let early = whole - (whole / 3.0).min(32.0) - 2.0;
    let since = end - last_refresh(messages);
    (early..=whole + 10.0).contains(&since).then_some(interval)
}

/// The last 2xx to an INVITE or UPDATE.
fn last_refresh(messages: &[Seen<'_>]) -> f64 {
    messages
        .iter()
        .rev()
        .find(|seen| {
            matches!(seen.method, "INVITE" | "UPDATE") && matches!(seen.status, Some(200..=299))
        })
        .map_or(0.0, |seen| seen.at)
}

/// What the filter itself refused in this call.
fn refusals(record: &CallRecord) -> Vec<Finding> {
    let mut names: Vec<&str> = record
        .timeline
        .iter()
        .filter_map(|moment| match &moment.what {
            Happening::Refused { refusal } => Some(refusal.as_str()),
            _ => None,
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter().filter_map(hints::refusal).collect()
}

fn failed_pinholes(record: &CallRecord) -> Option<Finding> {
    let error = record
        .timeline
        .iter()
        .find_map(|moment| match &moment.what {
            Happening::Pinhole {
                error: Some(error), ..
            } => Some(error.as_str()),
            _ => None,
        })?;
    Some(match error {
        "full" => finding(
            PROBLEM,
            "pinhole_table_full",
            "a pinhole could not be opened: the kernel's table is full.".to_owned(),
            owned(&["raise `pinholes` under [limits]"]),
        ),
        _ => finding(
            PROBLEM,
            "pinhole_failed",
            "a pinhole could not be changed: the kernel refused.".to_owned(),
            owned(&["see the daemon's log"]),
        ),
    })
}
