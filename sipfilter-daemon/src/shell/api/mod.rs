//! The control sockets: HTTP/JSON on unix sockets in the runtime directory, so that `curl --unix-socket` works as well as
//! `sipfilterctl`.
//!
//! There are two, so that the file system's permissions say who may do what: `read` is on one that its group may open, `admin` on
//! one for the daemon's user (and root) alone. They own no state: each request asks the task that owns the engine. `server` bounds
//! the connections and `rate` the requests.

mod admin;
mod capture;
mod rate;
mod read;
pub(super) mod server;
mod watch;

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use axum::{
    Json, Router,
    http::StatusCode,
    middleware,
    response::{IntoResponse, Response},
};
use tokio::{
    net::UnixListener,
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use super::{
    core::Watch, metrics::Snapshot, privacy, record::LookupError, runtime_dir::RuntimeDir,
};
use crate::view;

/// The socket to read from, by its name in the runtime directory; its group may, too.
pub const CONTROL: (&str, u32) = ("control.sock", 0o660);
/// The socket for what changes something.
pub const ADMIN: (&str, u32) = ("admin.sock", 0o600);

/// A question to the task that owns the engine. Answering it changes nothing.
#[derive(Debug)]
pub enum Question {
    /// How is it going?
    Status(oneshot::Sender<view::Status>),
    /// Which calls are there?
    Calls(oneshot::Sender<Vec<view::Call>>),
    /// What happened in this one? By number, Call-ID or its beginning.
    Call(
        String,
        oneshot::Sender<Result<view::CallRecord, LookupError>>,
    ),
    /// What is there to count?
    Metrics(oneshot::Sender<Snapshot>),
    /// Which pinholes are open?
    Pinholes(oneshot::Sender<Vec<view::Pinhole>>),
    /// What would enforcing have broken?
    Report(oneshot::Sender<Box<view::Report>>),
    /// Which ones closed last?
    Closed(oneshot::Sender<Vec<view::ClosedPinhole>>),
}

/// An order to the task that owns the engine.
#[derive(Debug)]
pub enum Order {
    /// End this call, whatever its parties say; its record then.
    CloseCall(
        String,
        oneshot::Sender<Result<view::CallRecord, LookupError>>,
    ),
}

/// Questions, and orders, that may wait for an answer; further ones wait at the socket.
pub const QUEUE: usize = 16;

/// A task that takes longer to answer is stuck.
const PATIENCE: Duration = Duration::from_secs(10);

/// Both sockets, bound.
#[derive(Debug)]
struct Sockets {
    control: UnixListener,
    admin: UnixListener,
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

impl Sockets {
    /// Binds them, replacing those that a dead daemon left.
    ///
    /// # Errors
    /// What the system says, with the path.
    fn bind(runtime_dir: &Path) -> Result<Self, BindError> {
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
        let read = read::routes(questions).merge(watch::routes(watch.clone()));
        let read = read.layer(middleware::from_fn_with_state(
            redactor.clone(),
            privacy::api::redact,
        ));
        let admin = admin::routes(orders, configuring, redactor).merge(capture::routes(watch));
        tokio::join!(
            server::serve(self.control, limited(read)),
            server::serve(self.admin, limited(admin)),
        );
    }
}

/// What a served socket hands its requests to.
#[derive(Debug, Clone)]
pub struct Channels {
    /// Questions to the engine's task.
    pub questions: mpsc::Sender<Question>,
    /// Orders to it.
    pub orders: mpsc::Sender<Order>,
    /// What changes the configuration.
    pub configuring: mpsc::Sender<super::reload::Command>,
    /// What happens, to be followed.
    pub watch: Watch,
}

/// Both sockets while they are served, in a runtime directory that somebody may take away.
pub struct Control {
    runtime_dir: RuntimeDir,
    channels: Channels,
    serving: JoinHandle<()>,
    is_lost: bool,
}

impl Control {
    /// Begins to serve.
    ///
    /// # Errors
    /// As [`Sockets::bind`].
    pub fn open(runtime_dir: RuntimeDir, channels: Channels) -> Result<Self, BindError> {
        let sockets = Sockets::bind(runtime_dir.path())?;
        Ok(Self {
            runtime_dir,
            serving: tokio::spawn(sockets.serve(channels.clone())),
            channels,
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
            let found = std::fs::symlink_metadata(self.runtime_dir.path().join(name));
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
                    error = crate::error_text::with_causes(error.as_ref()),
                    "the control sockets were taken away: filtering goes on, and nobody can ask or reload; trying again"
                );
            }
            Err(_) => {}
        }
    }

    fn restore(&mut self) -> Result<(), Box<dyn std::error::Error>> {
        self.runtime_dir.restore()?;
        unlink(self.runtime_dir.path());
        let sockets = Sockets::bind(self.runtime_dir.path())?;
        self.serving.abort();
        self.serving = tokio::spawn(sockets.serve(self.channels.clone()));
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

fn unlink(runtime_dir: &Path) {
    for (name, _) in [CONTROL, ADMIN] {
        match std::fs::remove_file(runtime_dir.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, socket = name, "the control socket stays behind");
            }
            _ => {}
        }
    }
}

fn limited(routes: Router) -> Router {
    routes.layer(middleware::from_fn_with_state(
        rate::Rates::default(),
        rate::limit,
    ))
}

async fn ask<M, T: serde::Serialize>(
    to: mpsc::Sender<M>,
    message: impl FnOnce(oneshot::Sender<T>) -> M,
) -> Response {
    match answer(to, message).await {
        Some(value) => Json(value).into_response(),
        None => no_answer(),
    }
}

/// `None` if nobody answers any more.
async fn answer<M, T>(
    to: mpsc::Sender<M>,
    message: impl FnOnce(oneshot::Sender<T>) -> M,
) -> Option<T> {
    let (answer, answered) = oneshot::channel();
    let asking = async {
        to.send(message(answer)).await.ok()?;
        answered.await.ok()
    };
    tokio::time::timeout(PATIENCE, asking).await.ok()?
}

/// What is known of a call, or that the text names none.
fn record(answer: Option<Result<view::CallRecord, LookupError>>) -> Response {
    match answer {
        Some(Ok(record)) => Json(record).into_response(),
        Some(Err(error @ LookupError::Unknown(_))) => {
            failure(StatusCode::NOT_FOUND, &error.to_string())
        }
        Some(Err(error @ LookupError::Ambiguous { .. })) => {
            failure(StatusCode::CONFLICT, &error.to_string())
        }
        None => no_answer(),
    }
}

fn no_answer() -> Response {
    failure(
        StatusCode::SERVICE_UNAVAILABLE,
        "sipfilterd is shutting down, or too busy to answer",
    )
}

fn failure(status: StatusCode, error: &str) -> Response {
    (
        status,
        Json(view::Failure {
            error: error.to_owned(),
        }),
    )
        .into_response()
}
