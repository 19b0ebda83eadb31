//! What `sipfilterctl doctor` found.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The answer of `sipfilterctl doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Checkup {
    /// The configuration that was looked at.
    pub config: String,
    /// The worst outcome of all checks; `unknown` is none.
    pub outcome: String,
    /// What was looked at, in order.
    pub checks: Vec<Check>,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    /// What it is about: `kernel`, `interface eth0`, `pbx`, `provider vapi-us`, ….
    pub subject: String,
    /// A stable name: `kernel_version`, `lro`, `sip_alg`, ….
    pub code: String,
    /// `ok`, `warning`, `problem`, or `unknown` where it could not be looked at.
    pub outcome: String,
    /// What was seen.
    pub evidence: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}
