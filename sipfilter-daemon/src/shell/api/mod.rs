//! The control sockets: HTTP/JSON on unix sockets in the runtime directory, so that `curl --unix-socket` works as well as
//! `sipfilterctl`.
//!
//! There are two, so that the file system's permissions say who may do what: `read` is on one that its group may open, `admin` on
//! one for the daemon's user (and root) alone. They own no state: each request asks the task that owns the engine, from a thread of
//! their own (`thread`). `control` opens the sockets, `server` bounds the connections and `rate` the requests.

mod admin;
mod capture;
mod control;
pub mod pages;
mod rate;
mod read;
pub(super) mod server;
mod thread;
mod watch;

use std::{net::SocketAddr, time::Duration};

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use tokio::sync::{mpsc, oneshot};

use self::pages::{Page, Rows};
pub use self::{
    control::{ADMIN, BindError, CONTROL, Channels, Control},
    thread::SocketThread,
};
use super::{core::Gathered, metrics::Snapshot, record::LookupError};
use crate::{engine::CallNumber, view};

/// A question to the task that owns the engine. Answering it changes nothing.
#[derive(Debug)]
pub enum Question {
    /// How is it going?
    Status(oneshot::Sender<view::Status>),
    /// Which calls are there?
    Calls(
        Page<CallNumber>,
        oneshot::Sender<Rows<view::Call, CallNumber>>,
    ),
    /// What happened in this one? By number, Call-ID or its beginning.
    Call(
        String,
        oneshot::Sender<Result<view::CallRecord, LookupError>>,
    ),
    /// What is there to count?
    Metrics(oneshot::Sender<Snapshot>),
    /// Which pinholes are open?
    Pinholes(
        Page<SocketAddr>,
        oneshot::Sender<Rows<view::Pinhole, SocketAddr>>,
    ),
    /// What would enforcing have broken?
    Report(oneshot::Sender<Box<Gathered>>),
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
