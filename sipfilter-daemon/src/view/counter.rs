//! The kernel's counters.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One of `sipfilterctl stats`: read from the pinned maps, not from the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
