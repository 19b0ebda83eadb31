//! The control socket's resources for those who look on: who is dropped, who knocks, and what happens now.
//!
//! None of them asks the task that opens pinholes. A stream ends with its reader or with the daemon; a reader that is too slow is told
//! what it missed.

use std::time::SystemTime;

use axum::{
    Json, Router,
    body::Body,
    extract::{Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use futures_util::stream;
use hyper::body::Bytes;
use serde::{Deserialize, Serialize};

use super::failure;
use crate::{
    shell::{
        core::Watch,
        feed::{MAX_READERS, Next, Reader},
    },
    view,
};

/// Rows of a list, unless asked otherwise.
const ROWS: usize = 100;

/// `?limit=N`.
#[derive(Debug, Deserialize)]
struct Limit {
    limit: Option<usize>,
}

/// Everything under `/v1/` that is watched.
pub fn routes(watch: Watch) -> Router {
    Router::new()
        .route(
            "/v1/drops",
            get(
                async |State(watch): State<Watch>, Query(query): Query<Limit>| {
                    let drops = watch.drops.lock().drops(query.limit.unwrap_or(ROWS));
                    Json(drops)
                },
            ),
        )
        .route(
            "/v1/strangers",
            get(
                async |State(watch): State<Watch>, Query(query): Query<Limit>| {
                    let strangers = watch.drops.lock().strangers(query.limit.unwrap_or(ROWS));
                    Json(strangers)
                },
            ),
        )
        .route("/v1/events", get(events))
        .with_state(watch)
}

async fn events(State(watch): State<Watch>) -> Response {
    let Some(reader) = watch.feed.events() else {
        return too_many_readers();
    };
    let lines = stream::unfold(reader, async |mut reader: Reader<view::Event>| {
        let line = match reader.next().await? {
            Next::One(event) => line(&*event),
            Next::Missed(events) => line(&view::Event {
                at: view::time(SystemTime::now()),
                what: view::Occurrence::Missed { events },
            }),
        };
        Some((line, reader))
    });
    (
        [(header::CONTENT_TYPE, "application/x-ndjson")],
        Body::from_stream(lines),
    )
        .into_response()
}

fn line(value: &impl Serialize) -> Result<Bytes, serde_json::Error> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(line.into())
}

pub(super) fn too_many_readers() -> Response {
    failure(
        StatusCode::SERVICE_UNAVAILABLE,
        &format!("{MAX_READERS} readers follow already; end one of them"),
    )
}
