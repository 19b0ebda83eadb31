//! How the daemon is doing.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `GET /v1/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// The configuration it runs with.
    pub config: String,
    /// The configuration that is in force instead until it is confirmed, if one is.
    #[serde(default)]
    pub unconfirmed: Option<Unconfirmed>,
    /// How long it has been running.
    pub uptime_seconds: f64,
    /// Where it filters.
    pub interfaces: Vec<Interface>,
    /// Protected addresses.
    pub protected: Vec<IpAddr>,
    /// Local RTP ports, `first-last`.
    pub rtp_ports: String,
    /// `enforce` or `observe`: the latter drops nothing.
    #[serde(default)]
    pub enforcement: String,
    /// `voice` or `strict`.
    #[serde(default)]
    pub scope: String,
    /// `count` or `enforce`.
    #[serde(default)]
    pub egress: String,
    /// Packets that the rules call to drop, since the counters began. Where `enforcement` is `observe`, they passed.
    #[serde(default)]
    pub packets_to_drop: u64,
    /// The trunks' providers.
    pub providers: Vec<String>,
    /// Calls in progress.
    pub calls: usize,
    /// Open pinholes.
    pub pinholes: usize,
    /// Pinholes of an earlier run that no call of this one has claimed yet.
    pub adopted_pinholes: usize,
    /// How long messages waited to be read, since the start.
    pub reading: Delays,
    /// How long pinholes took to open, since the start.
    pub opening: Delays,
    /// Sources that sent more signalling than they may, those with most first.
    #[serde(default)]
    pub limited_sources: Vec<LimitedSource>,
    /// Packets that left, came in on an outer interface and claimed to be the PBX's, since the counters began.
    #[serde(default)]
    pub forged_packets: u64,
    /// The routes to the PBX are not those of the start: what counts as forged may be the PBX's own.
    #[serde(default)]
    pub routes_changed: bool,
    /// Lines of the log that nobody took in time, or that could not be written.
    #[serde(default)]
    pub log_lines_lost: u64,
    /// The engine's counters, by name.
    pub counters: BTreeMap<String, u64>,
}

/// From the kernel's sight of the message that opens a pinhole to its being open, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Delays {
    /// Pinholes opened.
    pub count: u64,
    /// Half of them took no longer.
    pub p50_us: f64,
    /// 99 of 100 took no longer.
    pub p99_us: f64,
    /// 999 of 1000 took no longer.
    pub p999_us: f64,
    /// The longest.
    pub max_us: f64,
}

/// A source of signalling and how many of its packets were dropped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LimitedSource {
    /// Its address, or its IPv6 network.
    #[schemars(with = "String")]
    pub source: IpNet,
    /// Its provider.
    pub provider: String,
    /// Datagrams with requests that can begin something, or with no SIP.
    pub requests: u64,
    /// Datagrams with responses and with requests of what has begun.
    pub messages: u64,
    /// TCP segments.
    pub segments: u64,
}

/// One interface.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// `native` or `generic`; `none` where nothing was attached yet.
    pub mode: String,
    /// Why generic, where native was wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
    /// `filtered`; `renamed`: filtered, under another name than the configuration says; `gone`: there is none of this name, and one is
    /// filtered as soon as it is there; `awaited`: the same of one that has not been there since the start; `refused`: it is there and cannot be filtered.
    #[serde(default)]
    pub state: String,
    /// Its name, where that is another by now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub now_called: Option<String>,
    /// Why it cannot be filtered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
}

/// A configuration that was applied and not confirmed yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Unconfirmed {
    /// Its file.
    pub file: String,
    /// After so many seconds it goes, unless it is confirmed.
    pub seconds_left: f64,
}
