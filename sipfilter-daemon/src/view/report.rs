//! `GET /v1/report`: what enforcing would have broken, or breaks.

use std::net::{IpAddr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DroppedReason, DroppedSource, LimitedSource, Source, Stranger};

/// What the rules called to drop since the daemon started. Counts of pinholes and of reasons are exact; who sent it rests on samples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// Since when: the start of the daemon, UTC, RFC 3339.
    pub since: String,
    /// How long that is.
    pub seconds: f64,
    /// `observe` (nothing was dropped) or `enforce` (it was).
    pub enforcement: String,
    /// Nothing of a call or a provider would have been dropped, as far as can be told, and there were calls.
    pub safe_to_enforce: bool,
    /// Why not, in sentences; empty where it is safe.
    pub objections: Vec<String>,
    /// Calls that were answered.
    pub calls_answered: u64,
    /// Calls whose own ports were hit: first those that would have lost media.
    pub calls: Vec<ReportedCall>,
    /// Such calls that are not told one by one, because there are too many.
    pub more_calls: u64,
    /// SIP from providers, or in their name.
    pub signalling: ReportedSignalling,
    /// The rest by source and reason, most first: samples.
    pub rest: Vec<DroppedSource>,
    /// Sources that are not shown or not remembered any more.
    pub more_sources: u64,
    /// Everything by reason: counted.
    pub reasons: Vec<DroppedReason>,
}

/// One call whose own ports were hit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReportedCall {
    /// The daemon's number for it.
    pub number: u64,
    /// Its Call-ID, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call_id: Option<String>,
    /// Its provider.
    pub provider: String,
    /// It would have lost media of its own, or nothing speaks against that.
    pub loses_media: bool,
    /// Nothing of it came through, and of what is to be dropped everything that was looked at came from others: from addresses that
    /// neither its SDP nor its provider names. Then nothing of its own would have been dropped, unless its media comes from there.
    #[serde(default)]
    pub only_others: bool,
    /// Why that is thought, in a sentence.
    pub because: String,
    /// Its ports that were hit: counted.
    pub pinholes: Vec<ReportedPinhole>,
    /// Who hit them: samples.
    pub sources: Vec<ReportedSource>,
}

/// A call's port and what came to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReportedPinhole {
    /// The protected address and port.
    pub local: SocketAddr,
    /// `rtp`, `rtcp` or `udptl`.
    pub stream: String,
    /// Who may send.
    pub sources: Vec<Source>,
    /// Packets that came in and pass.
    pub ingress_packets: u64,
    /// Packets that left.
    pub egress_packets: u64,
    /// Packets that came in and are to be dropped.
    pub dropped_packets: u64,
}

/// Who hit a call's ports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReportedSource {
    /// Its address.
    pub source: IpAddr,
    /// The port of its last packet.
    pub port: u16,
    /// The reason.
    pub reason: String,
    /// Where its last packet went.
    pub destination: SocketAddr,
    /// How near that was to the call, as in `drops`.
    pub how: String,
    /// The call's own, or its provider's: what it sends is media of the call.
    pub is_own: bool,
    /// About how many packets.
    pub packets: u64,
    /// Packets that were looked at.
    pub samples: u64,
    /// The first of them: UTC, RFC 3339.
    pub first_seen: String,
    /// The last of them.
    pub last_seen: String,
}

/// SIP from providers, or in their name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReportedSignalling {
    /// From addresses that are a provider's, by source and reason: samples.
    pub providers: Vec<DroppedSource>,
    /// Sources that sent more than they may: counted.
    pub limited: Vec<LimitedSource>,
    /// Strangers that claim the domain of one of your providers, whose addresses may have changed: samples.
    pub claims: Vec<Stranger>,
}
