//! How often the task that owns the engine may be asked: calls come first.
//!
//! Root and the daemon's own user have a budget of their own, so that nobody else who may ask keeps them from it.

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

/// A request of root's, or of the daemon's user.
#[derive(Debug, Clone, Copy)]
pub struct Privileged;

/// The budgets of a socket.
#[derive(Debug, Clone, Default)]
pub struct Rates {
    privileged: Rate,
    others: Rate,
}

/// The time until which what was asked is paid for (the generic cell rate algorithm).
#[derive(Debug, Clone, Default)]
struct Rate(Arc<Mutex<Option<Instant>>>);

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
pub async fn limit(State(rates): State<Rates>, request: Request, next: Next) -> Response {
    let rate = match request.extensions().get::<Privileged>() {
        Some(Privileged) => rates.privileged,
        None => rates.others,
    };
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
    use axum::{Router, body::Body, middleware, routing::get};
    use tower_service::Service;

    use super::*;

    #[tokio::test]
    async fn whoever_asks_too_often_is_in_nobodys_way_who_has_more_rights() {
        let rates = middleware::from_fn_with_state(Rates::default(), limit);
        let mut router = Router::new().route("/", get(async || "here")).layer(rates);
        let request = || Request::new(Body::empty());
        let mut last = StatusCode::OK;
        for _ in 0..2 * BURST {
            last = router.call(request()).await.expect("an answer").status();
        }
        assert_eq!(last, StatusCode::TOO_MANY_REQUESTS);
        let mut privileged = request();
        privileged.extensions_mut().insert(Privileged);
        let answer = router.call(privileged).await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
    }

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
