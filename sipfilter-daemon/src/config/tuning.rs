//! `[limits]`, `[timers]`, `[log]`, `[metrics]`, `[privacy]` and `[xdp]`: numbers and words with bounds, all with defaults.
//!
//! It does not decide what a limit does when it is reached; the engine and the kernel do.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    time::Duration,
};

use schemars::JsonSchema;
use serde::Serialize;
use sipfilter_common::abi::MAX_PINHOLES;

use super::{
    document::Document,
    raw::{RawLimits, RawLog, RawMetrics, RawPrivacy, RawTimers, RawXdp, Text},
    values,
};
use crate::engine::settings::{Limits, Timers};

/// The most calls that can be asked for: what memory a call takes, times this, is still a small machine's.
const MAX_CALLS: usize = 1_000_000;
/// Forking and media descriptions beyond this are no call.
const MAX_PARTS: usize = 64;
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3_600);
/// RFC 3261 §16.6 step 11: timer C, which an INVITE may ring at least.
const TIMER_C: Duration = Duration::from_secs(180);
/// RFC 3261 §17.1.1.2: 64*T1, after which a retransmission is given up.
const TIMER_64_T1: Duration = Duration::from_secs(32);

/// How the XDP program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// Native where the driver can, else generic, with a line in the log.
    #[default]
    Auto,
    /// In the driver, or not at all.
    Native,
    /// In the network stack.
    Generic,
}

/// What a daemon that is stopped leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnStop {
    /// Nothing is filtered any more.
    #[default]
    Detach,
    /// The programs stay attached, with the pinholes of the calls in progress.
    Keep,
}

/// How the daemon logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
pub struct Log {
    /// Lines for people or for programs.
    pub format: LogFormat,
    /// The least severe level that is shown.
    pub level: LogLevel,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// A log level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// What stops the daemon from doing its work.
    Error,
    /// What the operator should look at.
    Warn,
    /// What happens: calls, attachments, reloads.
    #[default]
    Info,
    /// What peers cause, too.
    Debug,
    /// Everything.
    Trace,
}

/// Whom those who read are not told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
pub struct Privacy {
    /// In log, control sockets and captures alike.
    pub redact: Redact,
}

/// What a token stands for instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Redact {
    /// Nothing.
    #[default]
    None,
    /// Telephone numbers, user parts and names.
    Users,
    /// These, and addresses of anybody but the PBX.
    UsersAndAddresses,
}

const LEVELS: [(&str, LogLevel); 5] = [
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
    ("trace", LogLevel::Trace),
];
const FORMATS: [(&str, LogFormat); 2] = [("text", LogFormat::Text), ("json", LogFormat::Json)];
const REDACTIONS: [(&str, Redact); 3] = [
    ("none", Redact::None),
    ("users", Redact::Users),
    ("users-and-addresses", Redact::UsersAndAddresses),
];
const STOPS: [(&str, OnStop); 2] = [("detach", OnStop::Detach), ("keep", OnStop::Keep)];
const MODES: [(&str, XdpMode); 3] = [
    ("auto", XdpMode::Auto),
    ("native", XdpMode::Native),
    ("generic", XdpMode::Generic),
];

fn as_word<T: PartialEq>(known: &[(&'static str, T)], value: &T) -> &'static str {
    known
        .iter()
        .find(|(_, candidate)| candidate == value)
        .map_or("", |(word, _)| word)
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(as_word(&LEVELS, self))
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(as_word(&FORMATS, self))
    }
}

impl fmt::Display for Redact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(as_word(&REDACTIONS, self))
    }
}

impl fmt::Display for XdpMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(as_word(&MODES, self))
    }
}

pub(super) fn limits(doc: &mut Document, raw: &RawLimits) -> Limits {
    let default = Limits::default();
    let mut read = |number: &Option<_>, bounds: RangeInclusive<usize>, default: usize| {
        number
            .as_ref()
            .and_then(|number| values::count(doc, number, bounds))
            .unwrap_or(default)
    };
    let pinholes = usize::try_from(MAX_PINHOLES).unwrap_or(usize::MAX);
    let calls = read(&raw.calls, 1..=MAX_CALLS, default.calls);
    let limits = Limits {
        calls,
        // The share of one provider cannot be more than the whole; where only the whole is set, the share follows.
        calls_per_provider: read(
            &raw.calls_per_provider,
            1..=MAX_CALLS,
            default.calls_per_provider.min(calls),
        ),
        dialogs_per_call: read(
            &raw.dialogs_per_call,
            1..=MAX_PARTS,
            default.dialogs_per_call,
        ),
        media_per_session: read(
            &raw.media_per_session,
            1..=MAX_PARTS,
            default.media_per_session,
        ),
        pinholes: read(&raw.pinholes, 1..=pinholes, default.pinholes),
    };
    if let Some(given) = &raw.calls_per_provider
        && limits.calls_per_provider > calls
    {
        doc.error(
            given.span(),
            format!(
                "calls_per_provider = {} is more than calls = {calls}",
                limits.calls_per_provider
            ),
            format!("write at most {calls}, or raise limits.calls"),
        );
    }
    limits
}

pub(super) fn timers(doc: &mut Document, raw: &RawTimers) -> Timers {
    let default = Timers::default();
    let mut read = |text: &Option<Text>, default: Duration| {
        text.as_ref()
            .and_then(|text| values::duration(doc, text, SECOND..=DAY))
            .unwrap_or(default)
    };
    let media_idle = read(&raw.media_idle, default.media_idle);
    let timers = Timers {
        media_idle,
        // Hold lengthens the idle limit, it never shortens it.
        hold_idle: read(&raw.hold_idle, default.hold_idle.max(media_idle)),
        invite: read(&raw.invite, default.invite),
        ack: read(&raw.ack, default.ack),
        linger: read(&raw.linger, default.linger),
    };
    if let Some(text) = &raw.hold_idle
        && timers.hold_idle < media_idle
    {
        doc.error(
            text.span(),
            format!(
                "hold_idle is shorter than media_idle, {}",
                humantime::format_duration(media_idle)
            ),
            format!(
                "write at least \"{}\": a call on hold is silent for longer",
                humantime::format_duration(media_idle)
            ),
        );
    }
    for (text, value, least, what) in [
        (
            &raw.invite,
            timers.invite,
            TIMER_C,
            "a call may ring that long (RFC 3261, timer C)",
        ),
        (
            &raw.ack,
            timers.ack,
            TIMER_64_T1,
            "a 200 is retransmitted that long (RFC 3261, 64*T1)",
        ),
    ] {
        if let Some(text) = text
            && value < least
        {
            let least = humantime::format_duration(least);
            doc.warn(
                text.span(),
                format!("{} is short: calls can be lost", text.get_ref()),
                format!("write \"{least}\" or more: {what}"),
            );
        }
    }
    timers
}

pub(super) fn log(doc: &mut Document, raw: &RawLog) -> Log {
    Log {
        format: choice(doc, &raw.format, &FORMATS),
        level: choice(doc, &raw.level, &LEVELS),
    }
}

pub(super) fn privacy(doc: &mut Document, raw: &RawPrivacy) -> Privacy {
    Privacy {
        redact: choice(doc, &raw.redact, &REDACTIONS),
    }
}

pub(super) fn xdp(doc: &mut Document, raw: &RawXdp) -> XdpMode {
    choice(doc, &raw.mode, &MODES)
}

pub(super) fn on_stop(doc: &mut Document, raw: &Option<Text>) -> OnStop {
    choice(doc, raw, &STOPS)
}

/// Where Prometheus finds the metrics unless the operator says otherwise: on this host alone.
pub const DEFAULT_METRICS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9_760);
const METRICS_OFF: &str = "off";

/// `None` where metrics are switched off.
pub(super) fn metrics(doc: &mut Document, raw: &RawMetrics) -> Option<SocketAddr> {
    let Some(text) = &raw.listen else {
        return Some(DEFAULT_METRICS);
    };
    let given = text.get_ref().trim();
    if given == METRICS_OFF {
        return None;
    }
    let Ok(address) = given.parse::<SocketAddr>() else {
        doc.error(
            text.span(),
            format!("{given:?} is neither an address with a port nor \"{METRICS_OFF}\""),
            format!("write \"{DEFAULT_METRICS}\", or \"[::1]:9760\", or \"{METRICS_OFF}\""),
        );
        return None;
    };
    if !address.ip().is_loopback() {
        doc.warn(
            text.span(),
            format!("whoever reaches {address} can read the metrics"),
            "they name your providers and count your calls: let a firewall admit the Prometheus server alone, or listen on 127.0.0.1",
        );
    }
    Some(address)
}

fn choice<T: Copy + Default>(doc: &mut Document, text: &Option<Text>, known: &[(&str, T)]) -> T {
    text.as_ref()
        .and_then(|text| values::word(doc, text, known))
        .unwrap_or_default()
}
