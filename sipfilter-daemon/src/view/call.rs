//! Calls: the list, and what happened in one.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Finding, MediaRecord, Source};

/// One of `GET /v1/calls?after=NUMBER&limit=N`, both as one likes: the oldest first, those behind that number, at most a thousand. Where
/// there are more, the answer's `Link` header names the rest (`rel="next"`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    /// What is wrong with its media, named as in `findings` of its record: `silent_provider`, `silent_pbx`, `no_media`, ….
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finding: Option<String>,
}

/// `GET /v1/calls/{id}`: what is known of one call, during it and for a while afterwards. `id` is its number, its Call-ID, or the
/// beginning of a Call-ID that no other call's has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    /// Either side holds the other, or did at the end.
    #[serde(default)]
    pub hold: bool,
    /// What its pinholes carried.
    #[serde(default)]
    pub media: Vec<MediaRecord>,
    /// What was wrong with it, in words, what weighs most first; empty where nothing is worth saying.
    #[serde(default)]
    pub findings: Vec<Finding>,
    /// What happened, in order of time.
    pub timeline: Vec<Moment>,
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CallEnd {
    /// The reason, named as in the counters `calls_ended`.
    pub reason: String,
    /// The final status of a rejected INVITE. From 300 to 399 it was redirected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
}

/// A call's relation to another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Moment {
    /// Since the call's first message.
    pub at_seconds: f64,
    /// What happened.
    #[serde(flatten)]
    pub what: Happening,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
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
        /// How long the session lasts from here on without a refresh, in seconds (RFC 4028).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session_expires: Option<u32>,
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
        /// What of the stream may pass; not said of one that closed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        terms: Option<Terms>,
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

/// What of a stream may pass through a pinhole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Terms {
    /// RTP payload types; `null` where they do not matter.
    pub payload_types: Option<Vec<u8>>,
    /// Whether RTCP may come on this port.
    pub rtcp: bool,
    /// Packets per second in the long run; `null` without a limit.
    pub packets_per_second: Option<u32>,
    /// Whether the first source that sends becomes the only one.
    pub latch: bool,
}
