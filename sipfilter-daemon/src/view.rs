//! What the daemon tells and the control program shows: the JSON schema of the control socket.
//!
//! Fields are added, never renamed or given another meaning. Durations are seconds, counts are since the start of the daemon or
//! since the pinhole opened.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sipfilter_common::value::PayloadTypes;

/// `GET /v1/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// The configuration it runs with.
    pub config: String,
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
    /// The engine's counters, by name.
    pub counters: BTreeMap<String, u64>,
}

/// From the kernel's sight of the message that opens a pinhole to its being open, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LimitedSource {
    /// Its address, or its IPv6 network.
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// `native` or `generic`.
    pub mode: String,
    /// Why generic, where native was wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
}

/// One of `GET /v1/calls`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// The daemon's number for it.
    pub number: u64,
    /// Call-ID.
    pub call_id: String,
    /// The provider's own identifier, header name and value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider_call_id: Option<(String, String)>,
    /// Its provider.
    pub provider: String,
    /// `inbound` (the provider called) or `outbound`.
    pub direction: String,
    /// How far it is.
    pub state: String,
    /// Either side holds the other.
    pub hold: bool,
    /// Since its first INVITE.
    pub age_seconds: f64,
    /// Where the PBX said it receives media, as the outside sees it.
    pub local_media: Vec<SocketAddr>,
    /// Where the provider said it receives media.
    pub remote_media: Vec<SocketAddr>,
    /// Its open pinholes.
    pub pinholes: Vec<SocketAddr>,
}

/// `GET /v1/calls/{id}`: what is known of one call, during it and for a while afterwards. `id` is its number, its Call-ID, or the
/// beginning of a Call-ID that no other call's has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CallRecord {
    /// The daemon's number for it.
    pub number: u64,
    /// Call-ID.
    pub call_id: String,
    /// The provider's own identifiers, header name and value.
    pub provider_call_ids: Vec<(String, String)>,
    /// Its provider.
    pub provider: String,
    /// `inbound` (the provider called) or `outbound`.
    pub direction: String,
    /// How far it is; `ended` with an `end`.
    pub state: String,
    /// Nothing is dropped, whatever the pinholes below let in.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub observing: bool,
    /// When its first INVITE was seen: UTC, RFC 3339.
    pub started: String,
    /// From then to its end, or to now.
    pub duration_seconds: f64,
    /// How it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<CallEnd>,
    /// Where the PBX last said it receives media, as the outside sees it.
    pub local_media: Vec<SocketAddr>,
    /// Where the provider last said it receives media.
    pub remote_media: Vec<SocketAddr>,
    /// What its messages say of other calls, and others' of it.
    pub links: Vec<CallLink>,
    /// What happened, in order of time.
    pub timeline: Vec<Moment>,
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CallEnd {
    /// The reason, named as in the counters `calls_ended`.
    pub reason: String,
    /// The final status of a rejected INVITE. From 300 to 399 it was redirected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
}

/// A call's relation to another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallLink {
    /// `replaces` and `replaced_by` (RFC 3891), `refer_to` (RFC 3515), `referred_by` (RFC 3892), `referred` (a call that a REFER
    /// of this one brought about).
    pub relation: String,
    /// The other call's Call-ID, or what the header says.
    pub value: String,
    /// The other call's number, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call: Option<u64>,
}

/// One line of a call's timeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// Since the call's first message.
    pub at_seconds: f64,
    /// What happened.
    #[serde(flatten)]
    pub what: Happening,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Happening {
    /// A SIP message.
    Message {
        /// `provider` or `pbx`.
        from: String,
        /// The method, or the one that a response answers.
        method: String,
        /// A response's status.
        #[serde(skip_serializing_if = "Option::is_none")]
        status: Option<u16>,
        /// It brought SDP.
        sdp: bool,
    },
    /// One side, or both, named places for media.
    Media {
        /// The PBX's, as the outside sees them.
        local: Vec<SocketAddr>,
        /// The provider's.
        remote: Vec<SocketAddr>,
    },
    /// A pinhole came, changed or went.
    Pinhole {
        /// `opened`, `updated` or `closed`.
        change: String,
        /// The protected address and port.
        local: SocketAddr,
        /// Who may send; empty for one that closed.
        sources: Vec<Source>,
        /// `rtp`, `rtcp` or `udptl`; not said of one that closed.
        #[serde(skip_serializing_if = "Option::is_none")]
        stream: Option<String>,
        /// Why it could not be done: `full` or `failed`.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// The first 2xx.
    Confirmed,
    /// Something was refused, named as in the counters `refusals`.
    Refused {
        /// What.
        refusal: String,
    },
    /// The end.
    Ended {
        /// How.
        #[serde(flatten)]
        end: CallEnd,
    },
    /// Here so many lines were left out.
    Elided {
        /// How many.
        lines: u64,
    },
}

/// One of `GET /v1/pinholes`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pinhole {
    /// The protected address and port.
    pub local: SocketAddr,
    /// Who may send.
    pub sources: Vec<Source>,
    /// `rtp`, `rtcp` or `udptl`.
    pub stream: String,
    /// RTP payload types that may come; `null` where they do not matter.
    #[serde(default)]
    pub payload_types: Option<Vec<u8>>,
    /// Whether RTCP may come on this port.
    #[serde(default)]
    pub rtcp: bool,
    /// Packets per second in the long run; `null` without a limit.
    #[serde(default)]
    pub packets_per_second: Option<u32>,
    /// `waiting`, the source that it has latched to, or `latched` where only a hash of that is known; `null` without a latch.
    #[serde(default)]
    pub latch: Option<String>,
    /// Its provider.
    pub provider: String,
    /// The call's number.
    pub call: u64,
    /// Closed after this long without a packet.
    pub idle_limit_seconds: f64,
    /// Since the last packet in either direction, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_seconds: Option<f64>,
    /// Packets that came in and passed.
    pub ingress_packets: u64,
    /// Packets that left.
    pub egress_packets: u64,
    /// Packets that came in and were dropped.
    pub dropped_packets: u64,
}

/// The numbers in a set of payload types.
pub fn payload_types(set: PayloadTypes) -> Vec<u8> {
    (0..128).filter(|&number| set.admits(number)).collect()
}

/// An address range and a port range.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// A prefix.
    pub net: ipnet::IpNet,
    /// `first-last`.
    pub ports: String,
}

/// One of `sipfilterctl stats`: read from the pinned maps, not from the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// The reason or note.
    pub name: String,
    /// `pass`, `drop`, `would drop` (it is only observed) or `note`.
    pub kind: String,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// An error that the control socket answers with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What is wrong and what to do.
    pub error: String,
}
