//! The constants of time that no configuration changes, and the smallest of several deadlines.

use std::time::Duration;

use crate::engine::Instant;

/// How long what was agreed before an answer may still be heard after it, where no ACK will say that it has arrived: the other side
/// acts on the answer only then, and a lost one is repeated a few times (RFC 3261 §17.1.2.2: after 0.5, 1.5, 3.5 and 7.5 s). It closes
/// nothing that is in force, so it may be generous.
pub const SETTLE: Duration = Duration::from_secs(8);

/// The earlier of two deadlines, either of which may not be armed.
pub fn earliest(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
