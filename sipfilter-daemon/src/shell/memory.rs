//! Keeps the program in memory: an idle daemon's code is what the kernel takes away first, and a page that has to be read from a disk
//! costs a call its first packets.
//!
//! Only what is mapped at the start is kept, and nothing fails for want of it: the filter works without.

use rustix::mm::{MlockAllFlags, mlockall};

/// Locks what is mapped by now, the code among it.
pub fn keep() {
    if let Err(error) = mlockall(MlockAllFlags::CURRENT) {
        tracing::info!(
            %error,
            "the program may be paged out, and calls then wait for it; LimitMEMLOCK=infinity in its unit, or `ulimit -l unlimited`, lets it stay"
        );
    }
}
