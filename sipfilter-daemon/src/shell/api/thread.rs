//! The thread on which sockets are served: to read requests, to redact answers and to put them into words takes time that the task that
//! opens pinholes does not have.
//!
//! Invariant: nothing on it touches the engine or the kernel's maps; it asks, by channels, and waits.

use std::{io, thread};

use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
};

/// The thread, for as long as this value lives. What still runs on it then is dropped.
#[derive(Debug)]
pub struct SocketThread {
    handle: Handle,
    _end: oneshot::Sender<()>,
}

impl SocketThread {
    /// Begins.
    ///
    /// # Errors
    /// What the system says.
    pub fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel::<()>();
        thread::Builder::new()
            .name("sockets".to_owned())
            .spawn(move || {
                // Nothing is ever sent: it ends with the other side.
                let _ = runtime.block_on(ended);
            })?;
        Ok(Self { handle, _end: end })
    }

    /// Whoever spawns there, or makes sockets that are to be served there.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_spawned_there_runs_beside_the_one_who_asks_and_ends_with_it() {
        let sockets = SocketThread::start().expect("a thread");
        let name = || thread::current().name().map(str::to_owned);
        let there = sockets.handle().spawn(async move { name() });
        // Nobody here gives way, and it is done all the same.
        while !there.is_finished() {
            thread::yield_now();
        }
        assert_eq!(there.await.expect("no panic").as_deref(), Some("sockets"));
        let endless = sockets.handle().spawn(std::future::pending::<()>());
        drop(sockets);
        assert!(endless.await.expect_err("it was dropped").is_cancelled());
    }
}
