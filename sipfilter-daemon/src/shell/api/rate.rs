//! How often the task that owns the engine may be asked: calls come first.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    extract::{Request, State},
    http::StatusCode,
    middleware::Next,
    response::Response,
};

use super::failure;

/// One question in the long run.
const INTERVAL: Duration = Duration::from_millis(20);
/// So many at once after a rest.
const BURST: u32 = 100;

/// The time until which what was asked is paid for (the generic cell rate algorithm).
#[derive(Debug, Clone, Default)]
pub struct Rate(Arc<Mutex<Option<Instant>>>);

impl Rate {
    /// Whether one more is admitted now.
    fn admit(&self, now: Instant) -> bool {
        let mut paid = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let from = paid.map_or(now, |paid| paid.max(now));
        if from.duration_since(now) > INTERVAL * (BURST - 1) {
            return false;
        }
        *paid = Some(from + INTERVAL);
        true
    }
}

/// Refuses what comes too often.
pub async fn limit(State(rate): State<Rate>, request: Request, next: Next) -> Response {
    if rate.admit(Instant::now()) {
        next.run(request).await
    } else {
        failure(
            StatusCode::TOO_MANY_REQUESTS,
            "more than 50 requests per second; ask less often",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_long_run() {
        let rate = Rate::default();
        let begin = Instant::now();
        assert_eq!((0..1_000).filter(|_| rate.admit(begin)).count(), 100);
        let second = begin + Duration::from_secs(1);
        assert_eq!((0..1_000).filter(|_| rate.admit(second)).count(), 50);
        let rested = begin + Duration::from_secs(100);
        assert_eq!((0..1_000).filter(|_| rate.admit(rested)).count(), 100);
    }
}
