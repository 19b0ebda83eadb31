//! Both control sockets, from the daemon's start to its end, in a runtime directory that somebody may take away.
//!
//! Invariant: filtering does not depend on them; where they are gone they are made anew as soon as that can be done.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use axum::{Router, middleware};
use tokio::{net::UnixListener, runtime::Handle, sync::mpsc, task::JoinHandle};

use super::{Order, Question, admin, capture, rate, read, server, watch};
use crate::{
    error_text,
    shell::{core::Watch, privacy, reload::Command, runtime_dir::RuntimeDir},
};

/// The socket to read from, by its name in the runtime directory; its group may, too.
pub const CONTROL: (&str, u32) = ("control.sock", 0o660);
/// The socket for what changes something.
pub const ADMIN: (&str, u32) = ("admin.sock", 0o600);

/// What a served socket hands its requests to.
#[derive(Debug, Clone)]
pub struct Channels {
    /// Questions to the engine's task.
    pub questions: mpsc::Sender<Question>,
    /// Orders to it.
    pub orders: mpsc::Sender<Order>,
    /// What changes the configuration.
    pub configuring: mpsc::Sender<Command>,
    /// What happens, to be followed.
    pub watch: Watch,
}

/// Both sockets while they are served, in a runtime directory that somebody may take away.
pub struct Control {
    runtime_dir: RuntimeDir,
    channels: Channels,
    thread: Handle,
    serving: JoinHandle<()>,
    is_lost: bool,
}

impl Control {
    /// Begins to serve, on this thread.
    ///
    /// # Errors
    /// As [`Sockets::bind`].
    pub fn open(
        runtime_dir: RuntimeDir,
        channels: Channels,
        thread: &Handle,
    ) -> Result<Self, BindError> {
        let sockets = Sockets::bind(runtime_dir.path(), thread)?;
        Ok(Self {
            runtime_dir,
            serving: thread.spawn(sockets.serve(channels.clone())),
            channels,
            thread: thread.clone(),
            is_lost: false,
        })
    }

    /// The runtime directory.
    pub fn runtime_dir(&self) -> &Path {
        self.runtime_dir.path()
    }

    /// Makes directory and sockets anew where they are gone: the filter does not depend on them, whoever wants to ask it does.
    pub fn check(&mut self) {
        let is_there = |(name, _): (&str, u32)| {
            let found = fs::symlink_metadata(self.runtime_dir.path().join(name));
            !matches!(found, Err(error) if error.kind() == io::ErrorKind::NotFound)
        };
        if is_there(CONTROL) && is_there(ADMIN) {
            self.is_lost = false;
            return;
        }
        match self.restore() {
            Ok(()) => {
                tracing::warn!(path = %self.runtime_dir.path().display(), "the control sockets were taken away: made anew");
            }
            Err(error) if !self.is_lost => {
                self.is_lost = true;
                tracing::error!(
                    error = error_text::with_causes(error.as_ref()),
                    "the control sockets were taken away: filtering goes on, and nobody can ask or reload; trying again"
                );
            }
            Err(_) => {}
        }
    }

    fn restore(&mut self) -> Result<(), Box<dyn std::error::Error>> {
        self.runtime_dir.restore()?;
        unlink(self.runtime_dir.path());
        let sockets = Sockets::bind(self.runtime_dir.path(), &self.thread)?;
        self.serving.abort();
        self.serving = self.thread.spawn(sockets.serve(self.channels.clone()));
        Ok(())
    }

    /// Serves no more.
    pub fn stop(&self) {
        self.serving.abort();
    }

    /// Removes the sockets of a daemon that ends.
    pub fn unlink(&self) {
        unlink(self.runtime_dir.path());
    }
}

/// Both sockets, bound.
#[derive(Debug)]
struct Sockets {
    control: UnixListener,
    admin: UnixListener,
}

impl Sockets {
    /// Binds them, replacing those that a dead daemon left. They belong to this thread.
    ///
    /// # Errors
    /// What the system says, with the path.
    fn bind(runtime_dir: &Path, thread: &Handle) -> Result<Self, BindError> {
        let _there = thread.enter();
        let bind = |(name, mode): (&str, u32)| {
            let path = runtime_dir.join(name);
            server::bind(&path, mode).map_err(|source| BindError { path, source })
        };
        Ok(Self {
            control: bind(CONTROL)?,
            admin: bind(ADMIN)?,
        })
    }

    /// Serves both until the future is dropped.
    async fn serve(self, channels: Channels) {
        let Channels {
            questions,
            orders,
            configuring,
            watch,
        } = channels;
        let redactor = watch.redactor.clone();
        let read = read::routes(questions, watch.drops.clone()).merge(watch::routes(watch.clone()));
        let read = read.layer(middleware::from_fn_with_state(
            redactor.clone(),
            privacy::api::redact,
        ));
        let admin = admin::routes(orders, configuring, redactor).merge(capture::routes(watch));
        tokio::join!(
            server::serve(self.control, CONTROL.0, limited(read)),
            server::serve(self.admin, ADMIN.0, limited(admin)),
        );
    }
}

fn limited(routes: Router) -> Router {
    routes.layer(middleware::from_fn_with_state(
        rate::Rates::default(),
        rate::limit,
    ))
}

fn unlink(runtime_dir: &Path) {
    for (name, _) in [CONTROL, ADMIN] {
        match fs::remove_file(runtime_dir.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, socket = name, "the control socket stays behind");
            }
            _ => {}
        }
    }
}

/// A socket that cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error(
    "control socket {}: {source}{}",
    path.display(),
    way_out(source)
)]
pub struct BindError {
    path: PathBuf,
    source: io::Error,
}

fn way_out(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull => {
            "; make room there, or give another place with --runtime-dir DIR"
        }
        // What is in the way says it itself.
        _ => "",
    }
}
