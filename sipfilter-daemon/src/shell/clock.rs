//! The one clock: the kernel's monotonic clock, the same that the programs stamp records and slots with.

use std::{
    fs,
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use rustix::time::{ClockId, clock_gettime};

use crate::engine::Instant;

/// What a time namespace (time_namespaces(7)) adds to the clock for this process, in nanoseconds. The kernel's programs live in none.
static OFFSET: LazyLock<i128> = LazyLock::new(|| {
    fs::read_to_string("/proc/self/timens_offsets")
        .ok()
        .and_then(|text| parse_offset(&text))
        .unwrap_or(0)
});

/// Now. Steps of the wall clock do not touch it.
pub fn now() -> Instant {
    let time = clock_gettime(ClockId::Monotonic);
    let shown = i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec);
    from_kernel(u64::try_from(shown - *OFFSET).unwrap_or(0))
}

/// The line of the monotonic clock: name, seconds, nanoseconds.
fn parse_offset(text: &str) -> Option<i128> {
    let mut words = text
        .lines()
        .find_map(|line| line.strip_prefix("monotonic"))?
        .split_whitespace();
    let mut number = || words.next()?.parse::<i128>().ok();
    Some(number()? * 1_000_000_000 + number()?)
}

/// The wall clock's time of a moment that has been.
pub fn wall(at: Instant) -> SystemTime {
    let age = now().since(at);
    let wall = SystemTime::now();
    wall.checked_sub(age).unwrap_or(wall)
}

/// A kernel time stamp.
pub fn from_kernel(nanoseconds: u64) -> Instant {
    Instant(Duration::from_nanos(nanoseconds))
}

/// A time for the kernel: nanoseconds, which suffice for centuries.
pub fn to_kernel(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_monotonic_clock_and_no_other() {
        let monotonic = || {
            let time = clock_gettime(ClockId::Monotonic);
            Duration::new(
                time.tv_sec.unsigned_abs(),
                time.tv_nsec.unsigned_abs() as u32,
            )
        };
        if *OFFSET == 0 {
            let (before, now, after) = (monotonic(), now().0, monotonic());
            assert!(
                before <= now && now <= after,
                "{before:?} {now:?} {after:?}"
            );
        }
    }

    #[test]
    fn a_time_namespace_is_seen_through() {
        for (text, expect) in [
            (
                "monotonic           0         0\nboottime            0         0\n",
                Some(0),
            ),
            (
                "monotonic       86400         7\n",
                Some(86_400_000_000_007),
            ),
            ("monotonic         -10 500000000\n", Some(-9_500_000_000)),
            ("boottime            0         0\n", None),
            ("monotonic\n", None),
        ] {
            assert_eq!(parse_offset(text), expect, "{text}");
        }
    }
}
