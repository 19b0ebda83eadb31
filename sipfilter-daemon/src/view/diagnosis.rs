//! What a call's media did, and what was wrong with the call.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Source;

/// One thing that is worth saying of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// `problem`, or `note` for what may well be as it should.
    pub severity: String,
    /// A stable name: `silent_provider`, `no_ack`, `forbidden`, ….
    pub code: String,
    /// What happened, as a sentence.
    pub text: String,
    /// What that usually comes from and what to do, the likeliest first.
    pub causes: Vec<String>,
}

/// What one of a call's pinholes carried, from its opening to its end or to now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MediaRecord {
    /// The protected address and port.
    pub local: SocketAddr,
    /// `rtp`, `rtcp` or `udptl`.
    pub stream: String,
    /// Who may send.
    pub sources: Vec<Source>,
    /// When it opened, since the call's first message.
    pub opened_seconds: f64,
    /// When it closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed_seconds: Option<f64>,
    /// Packets from the provider that passed.
    pub ingress_packets: u64,
    /// Packets that the PBX sent from there.
    pub egress_packets: u64,
    /// Packets to it that were dropped.
    pub dropped_packets: u64,
    /// When the last one from the provider passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_ingress_seconds: Option<f64>,
    /// When the PBX last sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_egress_seconds: Option<f64>,
    /// Who sent what was dropped, as far as samples were taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub strays: Vec<Stray>,
}

/// A source whose packets to a call's place for media were dropped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Stray {
    /// Who.
    pub source: SocketAddr,
    /// Why, as in the kernel's counters: `wrong_source`, `no_pinhole`, ….
    pub reason: String,
    /// Packets that are known of.
    pub packets: u64,
    /// When the first of them came, since the call's first message.
    pub first_seconds: f64,
}
