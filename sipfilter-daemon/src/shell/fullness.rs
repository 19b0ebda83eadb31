//! Tables that are full: says so in the log, with the key that makes them larger, seldom enough that a flood of calls is no flood of lines.
//!
//! It reads what the engine counts. What a full table gives up is the engine's decision.

use std::time::Duration;

use crate::engine::{Instant, Refusal, counters::Counters};

/// At least so long between two lines about one table.
const QUIET: Duration = Duration::from_secs(10);

/// What is refused where a table is full, and the key under `[limits]` that says how much it holds.
const TABLES: [(Refusal, &str); 5] = [
    (Refusal::TooManyCalls, "calls"),
    (Refusal::TooManyCallsOfProvider, "calls_per_provider"),
    (Refusal::TooManyDialogs, "dialogs_per_call"),
    (Refusal::TooManyMedia, "media_per_session"),
    (Refusal::TooManyPinholes, "pinholes"),
];

/// What was counted last, and when it was said.
#[derive(Debug, Default)]
pub struct Fullness([Watched; TABLES.len()]);

#[derive(Debug, Default)]
struct Watched {
    said: u64,
    quiet_until: Instant,
}

impl Fullness {
    /// Looks at the counters.
    pub fn check(&mut self, now: Instant, counters: &Counters) {
        for (key, refused) in self.lines(now, |refusal| counters.refused(refusal)) {
            tracing::warn!(
                refused,
                "no room for more: raise `{key}` under [limits], if these are calls of yours"
            );
        }
    }

    fn lines(
        &mut self,
        now: Instant,
        refused: impl Fn(Refusal) -> u64,
    ) -> Vec<(&'static str, u64)> {
        let mut lines = Vec::new();
        for (watched, (refusal, key)) in self.0.iter_mut().zip(TABLES) {
            let count = refused(refusal);
            if count > watched.said && now >= watched.quiet_until {
                lines.push((key, count - watched.said));
                *watched = Watched {
                    said: count,
                    quiet_until: now + QUIET,
                };
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_table_is_named_now_and_then() {
        let second = |seconds| Instant(Duration::from_secs(seconds));
        let mut fullness = Fullness::default();
        let mut said = Vec::new();
        for now in 0..25 {
            let lines = fullness.lines(second(now), |refusal| match refusal {
                Refusal::TooManyPinholes => now,
                _ => 0,
            });
            said.extend(lines.into_iter().map(|(key, refused)| (now, key, refused)));
        }
        assert_eq!(
            said,
            [
                (1, "pinholes", 1),
                (11, "pinholes", 10),
                (21, "pinholes", 10)
            ]
        );
    }
}
