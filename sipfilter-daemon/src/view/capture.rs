//! What a capture has come to.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `sipfilterctl capture`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Captured {
    /// The file; `-` for standard output.
    pub file: String,
    /// Packets in it.
    pub packets: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// Why it ended: `count`, `seconds`, `size`, `signal`, `daemon`, or `reader` if nobody reads the pipe any more.
    pub ended: String,
    /// Packets that were dropped meanwhile, whether or not they are in it.
    pub dropped_packets: u64,
    /// Those among them that the daemon was shown: no more can be in it.
    pub dropped_samples: u64,
}
