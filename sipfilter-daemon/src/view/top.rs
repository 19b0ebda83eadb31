//! What `sipfilterctl top` shows: calls, pinholes and reasons, with rates between two readings.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Call, Counter, Pinhole, Status};

/// The answer of `sipfilterctl top --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Default)]
pub struct Top {
    /// Between the two readings that the rates are made of.
    pub interval_seconds: f64,
    /// The daemon's word; null while it does not answer.
    pub daemon: Option<Status>,
    /// Why it does not, or why the kernel's counters cannot be read.
    pub errors: Vec<String>,
    /// Calls in progress.
    pub calls: Vec<TopCall>,
    /// Open pinholes.
    pub pinholes: Vec<TopPinhole>,
    /// The kernel's counters.
    pub reasons: Vec<TopReason>,
}

/// A call, and what its pinholes let through.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TopCall {
    /// The call.
    #[serde(flatten)]
    pub call: Call,
    /// Packets from the provider in a second.
    pub ingress_per_second: f64,
    /// Packets from the PBX in a second.
    pub egress_per_second: f64,
}

/// A pinhole and its rates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TopPinhole {
    /// The pinhole.
    #[serde(flatten)]
    pub pinhole: Pinhole,
    /// Packets from the provider in a second.
    pub ingress_per_second: f64,
    /// Packets from the PBX in a second.
    pub egress_per_second: f64,
    /// Packets in a second that were dropped.
    pub dropped_per_second: f64,
}

/// A reason or note and its rate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TopReason {
    /// The counter.
    #[serde(flatten)]
    pub counter: Counter,
    /// Packets in a second.
    pub packets_per_second: f64,
    /// Bytes in a second.
    pub bytes_per_second: f64,
}
