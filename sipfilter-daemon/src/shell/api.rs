//! The control socket: HTTP/JSON on a unix socket in the runtime directory, so that `curl --unix-socket` works as well as
//! `sipfilterctl`.
//!
//! It owns no state: each request asks the task that owns the engine. Only reading is offered so far.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use axum::{
    Json, Router,
    extract::{Path as Segment, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{
    net::UnixListener,
    sync::{mpsc, oneshot},
};

use super::{metrics::Snapshot, record::LookupError};
use crate::view;

/// The socket's name in the runtime directory.
pub const SOCKET: &str = "control.sock";

/// A question to the task that owns the engine.
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
}

/// Questions that may wait for an answer; further ones wait at the socket.
pub const QUEUE: usize = 16;

/// Binds the socket, replacing one that a dead daemon left: the runtime directory's lock is held by now.
///
/// # Errors
/// What the system says.
pub fn bind(runtime_dir: &Path) -> io::Result<UnixListener> {
    let path = socket_path(runtime_dir);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// Where the socket of a runtime directory is.
pub fn socket_path(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join(SOCKET)
}

/// Serves the socket until the task is dropped.
///
/// # Errors
/// What the system says.
pub async fn serve(listener: UnixListener, questions: mpsc::Sender<Question>) -> io::Result<()> {
    let routes = Router::new()
        .route(
            "/v1/status",
            get(async |State(questions)| ask(questions, Question::Status).await),
        )
        .route(
            "/v1/calls",
            get(async |State(questions)| ask(questions, Question::Calls).await),
        )
        .route("/v1/calls/{id}", get(call))
        .route(
            "/v1/pinholes",
            get(async |State(questions)| ask(questions, Question::Pinholes).await),
        )
        .fallback(async || {
            failure(
                StatusCode::NOT_FOUND,
                "no such resource; there are /v1/status, /v1/calls, /v1/calls/{id} and /v1/pinholes",
            )
        })
        .with_state(questions);
    axum::serve(listener, routes).await
}

async fn call(
    State(questions): State<mpsc::Sender<Question>>,
    Segment(id): Segment<String>,
) -> Response {
    match answer(questions, |asker| Question::Call(id, asker)).await {
        Some(Ok(record)) => Json(record).into_response(),
        Some(Err(error @ LookupError::Unknown(_))) => {
            failure(StatusCode::NOT_FOUND, &error.to_string())
        }
        Some(Err(error @ LookupError::Ambiguous { .. })) => {
            failure(StatusCode::CONFLICT, &error.to_string())
        }
        None => shutting_down(),
    }
}

async fn ask<T: serde::Serialize>(
    questions: mpsc::Sender<Question>,
    question: impl FnOnce(oneshot::Sender<T>) -> Question,
) -> Response {
    match answer(questions, question).await {
        Some(value) => Json(value).into_response(),
        None => shutting_down(),
    }
}

/// `None` if nobody answers any more.
async fn answer<T>(
    questions: mpsc::Sender<Question>,
    question: impl FnOnce(oneshot::Sender<T>) -> Question,
) -> Option<T> {
    let (answer, answered) = oneshot::channel();
    questions.send(question(answer)).await.ok()?;
    answered.await.ok()
}

fn shutting_down() -> Response {
    failure(
        StatusCode::SERVICE_UNAVAILABLE,
        "sipfilterd is shutting down",
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
