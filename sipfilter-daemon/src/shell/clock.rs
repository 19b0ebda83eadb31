//! The one clock: the kernel's monotonic clock, the same that the programs stamp records and slots with.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::engine::Instant;

/// Now.
pub fn now() -> Instant {
    let time = clock_gettime(ClockId::Monotonic);
    Instant(Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    ))
}

/// A kernel time stamp.
pub fn from_kernel(nanoseconds: u64) -> Instant {
    Instant(Duration::from_nanos(nanoseconds))
}

/// A time for the kernel: nanoseconds, which suffice for centuries.
pub fn to_kernel(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
