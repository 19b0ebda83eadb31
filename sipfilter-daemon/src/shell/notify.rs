//! What the service manager hears of the daemon (sd_notify(3)): that it filters, that it still gets on, that it ends.
//!
//! The proof of life is given by the task that owns engine and map writer, at the end of its own turn, and never by a timer or a task
//! of its own: one that hangs in the engine or in a system call of the map writer falls silent, and is replaced. Without a service
//! manager all this does nothing.

use std::{
    cell::Cell, env, fmt::Write as _, io, os::unix::net::UnixDatagram, path::Path, time::Duration,
};

use sd_notify::NotifyState;

use crate::engine::Instant;

/// Of the time that the manager allows between two signs of life, the part after which the next one is given.
const SHARE: u32 = 3;

/// The service manager, where there is one.
#[derive(Debug)]
pub struct Manager {
    heartbeat: Option<Heartbeat>,
    line: Line,
    /// As far as the manager knows.
    is_loading: bool,
}

/// Signs of life that are owed.
#[derive(Debug)]
struct Heartbeat {
    every: Duration,
    last: Instant,
}

impl Manager {
    /// The one that the environment names.
    pub fn of_environment(now: Instant) -> Self {
        Self {
            heartbeat: sd_notify::watchdog_enabled().map(|limit| Heartbeat::within(limit, now)),
            line: Line::of_environment(),
            is_loading: false,
        }
    }

    /// How often a turn has to end at least, for signs of life to come in time.
    pub fn pace(&self) -> Option<Duration> {
        self.heartbeat.as_ref().map(|heartbeat| heartbeat.every)
    }

    /// The daemon filters; `status` is a line for people.
    pub fn ready(&self, status: &str) {
        self.line
            .tell(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// A turn of the task that owns everything has ended.
    pub fn turn_ended(&mut self, now: Instant) {
        if self.heartbeat.as_mut().is_some_and(|beat| beat.is_due(now)) {
            self.line.tell(&[NotifyState::Watchdog]);
        }
    }

    /// Whether another configuration is being loaded now; `status` is what is filtered once that is over, whatever became of it.
    pub fn loading(&mut self, is_loading: bool, status: impl FnOnce() -> String) {
        match (self.is_loading, is_loading) {
            (false, true) => match NotifyState::monotonic_usec_now() {
                // Later managers tell by the time which reload is meant.
                Ok(time) => self.line.tell(&[NotifyState::Reloading, time]),
                Err(_) => self.line.tell(&[NotifyState::Reloading]),
            },
            (true, false) => self.ready(&status()),
            _ => {}
        }
        self.is_loading = is_loading;
    }

    /// The daemon ends, because it was asked to.
    pub fn stopping(&self) {
        self.line.tell(&[NotifyState::Stopping]);
    }
}

impl Heartbeat {
    fn within(limit: Duration, now: Instant) -> Self {
        Self {
            every: limit / SHARE,
            last: now,
        }
    }

    /// Whether one is due now; then it counts as given.
    fn is_due(&mut self, now: Instant) -> bool {
        let is_due = now.since(self.last) >= self.every;
        if is_due {
            self.last = now;
        }
        is_due
    }
}

/// The way to the manager.
#[derive(Debug)]
struct Line {
    /// Open from the start: where no descriptor is left, the manager would otherwise hear no sign of life.
    socket: Option<UnixDatagram>,
    /// As the log knows already.
    is_broken: Cell<bool>,
}

impl Line {
    fn of_environment() -> Self {
        let path = env::var_os("NOTIFY_SOCKET");
        Self {
            socket: path.and_then(|path| connect(path.as_ref()).ok()),
            is_broken: Cell::new(false),
        }
    }

    fn tell(&self, state: &[NotifyState<'_>]) {
        let kept = self.socket.as_ref().map(|socket| send(socket, state));
        let told = match kept {
            Some(Ok(())) => Ok(()),
            // It may be another one by now, or of a kind that only the library knows.
            _ => sd_notify::notify(state),
        };
        match told {
            Ok(()) => self.is_broken.set(false),
            Err(error) => {
                if !self.is_broken.replace(true) {
                    tracing::warn!(%error, "the service manager cannot be told ($NOTIFY_SOCKET)");
                }
            }
        }
    }
}

fn connect(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    Ok(socket)
}

fn send(socket: &UnixDatagram, state: &[NotifyState<'_>]) -> io::Result<()> {
    let mut message = String::new();
    for one in state {
        writeln!(message, "{one}").map_err(io::Error::other)?;
    }
    socket.send(message.as_bytes()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_of_life_come_with_turns_and_not_more_often_than_needed() {
        let at = |milliseconds| Instant(Duration::from_millis(milliseconds));
        let mut heartbeat = Heartbeat::within(Duration::from_secs(9), at(500));
        let turns = [
            600, 3_400, 3_500, 3_600, 6_499, 6_500, 60_000, 60_001, 63_000,
        ];
        let given: Vec<u64> = turns
            .into_iter()
            .filter(|turn| heartbeat.is_due(at(*turn)))
            .collect();
        assert_eq!(given, [3_500, 6_500, 60_000, 63_000]);
    }
}
