//! What happens now: the lines of `GET /v1/events`, one object each.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Happening, Near};

/// One line of `GET /v1/events`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// When it was told: UTC, RFC 3339.
    pub at: String,
    /// What it was.
    #[serde(flatten)]
    pub what: Occurrence,
}

/// What an event is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Occurrence {
    /// A packet that was dropped, or that passed only because nothing is enforced: a sample, see `counted`.
    Drop(Box<DroppedPacket>),
    /// So many packets were dropped within the last tenth of a second, and so many of them were sampled.
    Counted {
        /// Why.
        reason: String,
        /// All of them.
        packets: u64,
        /// Those among them that were told of.
        samples: u64,
    },
    /// A call's first INVITE.
    CallStarted {
        /// The call's number.
        call: u64,
        /// Its Call-ID.
        call_id: String,
        /// Its provider.
        provider: String,
        /// `inbound` (the provider called) or `outbound`.
        direction: String,
    },
    /// What happened in a call, as its record tells it.
    Call {
        /// The call's number.
        call: u64,
        /// Its Call-ID.
        call_id: String,
        /// What happened.
        #[serde(flatten)]
        what: Happening,
    },
    /// A message that belongs to no call was refused, named as in the counters `refusals`.
    Refused {
        /// What.
        refusal: String,
    },
    /// Copies of signalling were lost between the kernel and the daemon.
    Lost {
        /// How many.
        packets: u64,
    },
    /// This reader was too slow, and so many events passed it by.
    Missed {
        /// How many.
        events: u64,
    },
}

/// One dropped packet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DroppedPacket {
    /// Why.
    pub reason: String,
    /// `drop`, or `would drop` where nothing is enforced.
    pub verdict: String,
    /// The interface where it came in, or would have left.
    pub interface: String,
    /// `in` or `out`.
    pub direction: String,
    /// `udp`, `tcp` or the protocol's number; `null` for what is no IP packet.
    pub protocol: Option<String>,
    /// Where it came from; port 0 where it has none.
    pub source: Option<SocketAddr>,
    /// Where it went.
    pub destination: Option<SocketAddr>,
    /// Its bytes, from its link-layer header on.
    pub bytes: u32,
    /// What it claims, if it is SIP from nobody's signalling address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sip: Option<SipClaims>,
    /// The call that it nearly belonged to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub near: Option<Near>,
}

/// What a stranger's message says. None of it is believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SipClaims {
    /// A request's method, or `response`.
    pub method: String,
    /// User-Agent or Server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    /// The domains in From, Contact and Via.
    pub domains: Vec<String>,
}
