//! The constants of time that no configuration changes, and the smallest of several deadlines.

use std::time::Duration;

use crate::engine::Instant;

/// How long what was agreed before an answer may still be heard after it, where no ACK says that it has arrived: some round trips and
/// what is under way. It closes nothing that is in force, so it may be generous.
pub const SETTLE: Duration = Duration::from_secs(2);

/// The earlier of two deadlines, either of which may not be armed.
pub fn earliest(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
