//! Waiting for a kernel object's file descriptor to become readable.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

use tokio::io::{Interest, unix::AsyncFd};

/// Registers `inner` with the runtime. `inner` must keep its descriptor open and unchanged for as long as it lives, which aya's ring
/// buffers and loggers do.
///
/// # Errors
/// What the event queue says.
pub fn watch<T: AsFd + AsRawFd>(inner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: `AsFd` says that the descriptor is open while `inner` lives, and no caller replaces it.
    unsafe { AsyncFd::register_with_interest(inner, Interest::READABLE) }.map_err(io::Error::from)
}
