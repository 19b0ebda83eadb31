//! What the daemon tells and the control program shows: the JSON schema of the control sockets, and of every `--json`.
//!
//! Fields are added, never renamed or given another meaning. Durations are seconds, counts are since the start of the daemon or
//! since the pinhole opened. Each type derives its JSON schema, which `sipfilterctl schema` prints.

mod call;
mod capture;
mod checkup;
mod counter;
mod diagnosis;
mod drops;
mod event;
mod explanation;
mod names;
mod pinhole;
mod reload;
mod report;
mod status;
mod top;

use std::time::SystemTime;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use call::{Call, CallEnd, CallLink, CallRecord, Happening, Moment, Terms};
pub use capture::Captured;
pub use checkup::{Check, Checkup};
pub use counter::Counter;
pub use diagnosis::{Finding, MediaRecord, Stray};
pub use drops::{Chosen, DroppedReason, DroppedSource, Drops, Near, Stranger, Strangers};
pub use event::{DroppedPacket, Event, Occurrence, SipClaims};
pub use explanation::{ExplainedCall, Explanation, NearestMiss};
pub use names::{CheckedProvider, NameCheck, NameLookup, NamedAddress, NamedService};
pub use pinhole::{ClosedPinhole, Pinhole, Source, payload_types, source_text, sources_text};
pub use reload::{Apply, Change, Confirmed, Problem, ProblemPlace, Reload};
pub use report::{Report, ReportedCall, ReportedPinhole, ReportedSignalling, ReportedSource};
pub use status::{Delays, Interface, LimitedSource, Status, Unconfirmed};
pub use top::{Top, TopCall, TopPinhole, TopReason};

/// An error that the control socket answers with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Failure {
    /// What is wrong and what to do.
    pub error: String,
}

/// A time as every view tells it: RFC 3339, to the millisecond.
pub fn time(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}
