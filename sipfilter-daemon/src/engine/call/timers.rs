//! The constants of time that no configuration changes, and the smallest of several deadlines.

use std::time::Duration;

use crate::engine::{Direction, Instant};

/// How long what was agreed before the PBX's answer may still be heard after it, where no ACK will say that it has arrived: the
/// provider acts on the answer only then, and asks again for a lost one a few times (RFC 3261 §17.1.2.2: after 0.5, 1.5, 3.5 and 7.5 s).
const ANSWERED_BY_PBX: Duration = Duration::from_secs(8);
/// The same after the provider's answer. It knows both sides at once and sends as they say; only what is under way is late, and what its
/// media servers send until they are told.
const ANSWERED_BY_PROVIDER: Duration = Duration::from_secs(2);

/// From when on a 2xx that is still repeated tells that no ACK has come: it is repeated for 64*T1, every T2 at least (RFC 3261 §13.3.1.4),
/// so that who stops sooner than two of those before the end has been acknowledged.
pub const LATE_REPEAT: Duration = TIMER_64_T1.saturating_sub(Duration::from_secs(2 * 4));
/// How long a 2xx without an ACK is repeated.
pub const TIMER_64_T1: Duration = Duration::from_secs(32);

/// How long what was agreed before an answer by this side counts beside it, where no ACK tells.
pub fn settle_after(answerer: Direction) -> Duration {
    match answerer {
        Direction::Egress => ANSWERED_BY_PBX,
        Direction::Ingress => ANSWERED_BY_PROVIDER,
    }
}

/// The earlier of two deadlines, either of which may not be armed.
pub fn earliest(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
