//! What became of another configuration.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `POST /v1/reload`: the answer of `sipfilterctl reload`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Reload {
    /// The configuration is in force. Where it is not, nothing has changed.
    pub ok: bool,
    /// Its file.
    pub file: String,
    /// What it changes (where `ok` is false: would have changed), by key. Empty: nothing.
    pub changes: Vec<Change>,
    /// Calls that were ended, because their provider is not configured any more.
    pub calls_ended: usize,
    /// Pinholes that were closed with them, or because their address is not protected any more.
    pub pinholes_closed: usize,
    /// Why the configuration is not in force.
    pub errors: Vec<Problem>,
    /// After so many seconds it goes again, unless it is confirmed.
    #[serde(default)]
    pub confirm_within_seconds: Option<f64>,
    /// What the operator probably did not mean.
    pub warnings: Vec<Problem>,
}

/// What `POST /v1/apply` is given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Apply {
    /// The file's absolute path, for messages.
    pub file: String,
    /// What it says.
    pub text: String,
    /// How long it is in force unless it is confirmed.
    pub confirm_within_seconds: f64,
}

/// What `POST /v1/confirm` answers: whoever confirmed is to write it, because the daemon may not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Confirmed {
    /// The file that was applied.
    pub file: String,
    /// The daemon's configuration file, which is to say the same.
    pub config: String,
    /// What it is to say.
    pub text: String,
}

/// A key that says something else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Change {
    /// Its path, such as `limits.calls` or `provider.example.signalling`.
    pub key: String,
    /// What it said and says no more.
    pub removed: Vec<String>,
    /// What it says now.
    pub added: Vec<String>,
}

/// Something wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// The file and the place in it (line and column, from one), where it is one of the text's.
    pub place: Option<ProblemPlace>,
    /// What is wrong, and what to do.
    pub message: String,
    /// The same as `check-config` prints it, with the line itself.
    pub text: String,
}

/// Where a problem is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProblemPlace {
    /// The file.
    pub file: String,
    /// Its line, from one.
    pub line: usize,
    /// The character in the line, from one.
    pub column: usize,
    /// The key; empty where the text is no TOML at all.
    pub key: String,
}
