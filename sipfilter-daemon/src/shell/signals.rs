//! Signals: those that end the daemon, what each of them leaves behind, and the one that has it read its configuration again.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM, SIGINT and SIGUSR2.
pub struct Termination {
    terminate: Signal,
    interrupt: Signal,
    handover: Signal,
}

/// Why the daemon ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It is stopped, by the signal of this name.
    Stop(&'static str),
    /// Another one is to take over: what systemd sends for a restart, by `RestartKillSignal=`, because SIGTERM alone does not tell a restart
    /// from a stop.
    Handover,
}

impl Termination {
    /// Installs the handlers.
    ///
    /// # Errors
    /// What the system says. Must run inside a tokio runtime.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            handover: signal(SignalKind::user_defined2())?,
        })
    }

    /// Waits for one.
    pub async fn wait(&mut self) -> Ending {
        tokio::select! {
            _ = self.terminate.recv() => Ending::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Ending::Stop("SIGINT"),
            _ = self.handover.recv() => Ending::Handover,
        }
    }
}

/// SIGHUP: the configuration is to be read again.
pub struct Hangup(Signal);

impl Hangup {
    /// Installs the handler.
    ///
    /// # Errors
    /// What the system says. Must run inside a tokio runtime.
    pub fn new() -> io::Result<Self> {
        signal(SignalKind::hangup()).map(Self)
    }

    /// Waits for one. Several that come meanwhile are one.
    pub async fn wait(&mut self) {
        if self.0.recv().await.is_none() {
            std::future::pending().await
        }
    }
}
