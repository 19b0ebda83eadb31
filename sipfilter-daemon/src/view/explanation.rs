//! `sipfilterctl explain`: what becomes of one packet, and why.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What `sipfilterctl explain --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Explanation {
    /// What it was judged by: `daemon` (the kernel's maps, and what the running daemon knows of calls), `maps` (what a daemon left) or
    /// `configuration` (as if no call were in progress).
    pub basis: String,
    /// `udp` or `tcp`.
    pub protocol: String,
    /// Where it comes from.
    pub source: SocketAddr,
    /// Where it goes.
    pub destination: SocketAddr,
    /// What it carries, in words.
    pub content: String,
    /// `ingress` (from outside) or `egress`.
    pub direction: String,
    /// `pass`, `drop` or `would drop` (it is only observed).
    pub verdict: String,
    /// The reason, named as in the counters.
    pub reason: String,
    /// What its rule says.
    pub rule: String,
    /// The pinhole that had a part in it.
    pub pinhole: Option<SocketAddr>,
    /// The call that it belongs to, or nearly.
    pub call: Option<ExplainedCall>,
    /// What it would have needed to pass; `null` for what passes and where nothing would have helped.
    pub nearest_miss: Option<NearestMiss>,
    /// What else to know.
    pub notes: Vec<String>,
}

/// The call of an [`Explanation`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExplainedCall {
    /// The daemon's number for it.
    pub number: u64,
    /// Its Call-ID, while it is in progress.
    pub call_id: Option<String>,
    /// Its provider.
    pub provider: Option<String>,
}

/// What a dropped packet missed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NearestMiss {
    /// A stable name, as in `simulate`: `wrong_source`, `next_port`, `not_a_provider`, ….
    pub why: String,
    /// The same in words.
    pub text: String,
    /// Where the pinhole is, where not at the packet's destination.
    pub place: Option<SocketAddr>,
}
