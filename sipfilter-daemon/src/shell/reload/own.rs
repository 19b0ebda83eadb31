//! When to look at the interfaces' own addresses, which are protected where `pbx.addresses` names none: an interface may come, and get
//! addresses, long after the start.
//!
//! It only says when; `reload` looks, and loads. Invariant: whatever becomes of addresses, loads come at growing intervals from
//! [`SHORT`] to [`LONG`], which begin anew after [`QUIET`] without any.

use std::time::{Duration, Instant};

/// Between the first load and the second: an interface gets its addresses one after the other.
const SHORT: Duration = Duration::from_secs(1);
/// Between two loads where there have been many.
const LONG: Duration = Duration::from_secs(600);
/// So long without a load, and it is no storm any more.
const QUIET: Duration = Duration::from_secs(1_200);
/// Nothing needs to be told for a look after that time: the kernel cannot always say everything.
const SELDOM: Duration = Duration::from_secs(60);

/// What was seen and done so far.
#[derive(Debug)]
pub struct Lookout {
    is_doubtful: bool,
    looked: Instant,
    loaded: Option<Instant>,
    pause: Duration,
}

impl Lookout {
    /// What has happened since the addresses were read is not known.
    pub fn new(now: Instant) -> Self {
        Self {
            is_doubtful: true,
            looked: now,
            loaded: None,
            pause: SHORT,
        }
    }

    /// There may be others by now.
    pub fn doubt(&mut self) {
        self.is_doubtful = true;
    }

    /// Whether to look.
    pub fn is_due(&self, now: Instant) -> bool {
        let is_time = self.is_doubtful || now >= self.looked + SELDOM;
        is_time && self.loaded.is_none_or(|at| now >= at + self.pause)
    }

    /// A look found nothing that is not protected.
    pub fn found_nothing(&mut self, now: Instant) {
        self.is_doubtful = false;
        self.looked = now;
    }

    /// A look found something, and it is being loaded. Whether it was, the next look tells.
    pub fn found(&mut self, now: Instant) {
        self.pause = match self.loaded {
            Some(at) if now < at + QUIET => (2 * self.pause).min(LONG),
            _ => SHORT,
        };
        self.loaded = Some(now);
        self.is_doubtful = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_start_and_what_is_told_afterwards_are_looked_into_at_once() {
        let now = Instant::now();
        let mut lookout = Lookout::new(now);
        assert!(lookout.is_due(now));
        lookout.found_nothing(now);
        assert!(!lookout.is_due(now + SECOND));
        lookout.doubt();
        assert!(lookout.is_due(now + SECOND));
    }

    #[test]
    fn what_nobody_told_is_found_in_time() {
        let now = Instant::now();
        let mut lookout = Lookout::new(now);
        lookout.found_nothing(now);
        assert!(!lookout.is_due(now + SELDOM - SECOND));
        assert!(lookout.is_due(now + SELDOM));
    }

    #[test]
    fn addresses_that_come_one_after_the_other_wait_a_second_and_a_storm_of_them_for_long() {
        // Something new is told each second, for as long as it takes.
        let begin = Instant::now();
        let mut lookout = Lookout::new(begin);
        let mut loads = Vec::new();
        for second in 0..7_200_u32 {
            let now = begin + second * SECOND;
            lookout.doubt();
            if lookout.is_due(now) {
                lookout.found(now);
                loads.push(second);
            }
        }
        assert_eq!(loads[..6], [0, 1, 3, 7, 15, 31]);
        // An hour at most six.
        let late: Vec<_> = loads.iter().filter(|&&second| second >= 3_600).collect();
        assert_eq!(late.len(), 6, "{loads:?}");
        // It is over: the next one is no storm.
        let now = begin + 7_200 * SECOND;
        lookout.found_nothing(now);
        let later = now + QUIET;
        assert!(lookout.is_due(later));
        lookout.found(later);
        assert!(lookout.is_due(later + SHORT));
    }

    #[test]
    fn what_could_not_be_loaded_is_tried_again() {
        let now = Instant::now();
        let mut lookout = Lookout::new(now);
        lookout.found(now);
        assert!(!lookout.is_due(now));
        assert!(lookout.is_due(now + SHORT));
    }
}
