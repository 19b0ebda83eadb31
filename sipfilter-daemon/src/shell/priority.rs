//! The daemon's place among the machine's programs: a call's audio waits for it, so it does not wait for others.
//!
//! It asks for the lowest real-time priority, as PBXs do for themselves, else for the best niceness. An operator who has chosen either
//! has chosen. The kernel keeps a share of each processor for ordinary programs, whatever a real-time one does
//! (`kernel.sched_rt_runtime_us`), so that a flood of signalling locks nobody out.

use std::io;

use nix::libc;
use rustix::process::{getpriority_process, setpriority_process};

/// The lowest of the real-time priorities: ordinary programs come after it, a PBX's own real-time threads before.
const REAL_TIME: libc::c_int = 1;
/// The highest weight among ordinary programs.
const NICENESS: i32 = -20;

/// Asks for a better place for this thread, and does without where it has no right to one.
pub fn raise() {
    if has_been_chosen() {
        return;
    }
    let Err(why) = become_real_time() else {
        return;
    };
    tracing::debug!(%why, "no real-time priority");
    if let Err(error) = setpriority_process(None, NICENESS) {
        tracing::warn!(%error, "on a busy machine pinholes open late: no right to a better priority (CAP_SYS_NICE)");
    }
}

fn has_been_chosen() -> bool {
    // SAFETY: the call takes a number, 0 for this thread, and returns one.
    let policy = unsafe { libc::sched_getscheduler(0) };
    policy != libc::SCHED_OTHER || getpriority_process(None) != Ok(0)
}

fn become_real_time() -> io::Result<()> {
    let parameters = libc::sched_param {
        sched_priority: REAL_TIME,
    };
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: the kernel reads the parameters, which live until the call returns, and changes this thread's scheduling alone.
    match unsafe { libc::sched_setscheduler(0, policy, &parameters) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
