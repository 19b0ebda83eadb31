//! The control socket's resources for those who look on: who is dropped, who knocks, and what happens now.
//!
//! None of them asks the task that opens pinholes. A stream ends with its reader or with the daemon; a reader that is too slow is told
//! what it missed.

use std::{collections::BTreeSet, time::SystemTime};

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
        .route("/v1/drops", get(drops))
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

/// `?limit=N&call=1,2`. By address, nobody can choose here: where addresses are redacted, that would tell whose a token is.
#[derive(Debug, Deserialize)]
struct WantedDrops {
    limit: Option<usize>,
    call: Option<String>,
}

async fn drops(State(watch): State<Watch>, Query(wanted): Query<WantedDrops>) -> Response {
    let limit = wanted.limit.unwrap_or(ROWS);
    let Some(calls) = wanted.call else {
        let drops = watch.drops.drops(limit);
        return Json(drops).into_response();
    };
    let numbers: Result<BTreeSet<u64>, _> = calls.split(',').map(str::parse).collect();
    let Ok(numbers) = numbers else {
        return failure(
            StatusCode::BAD_REQUEST,
            &format!("{calls:?} is no list of calls' numbers, like ?call=1,2"),
        );
    };
    let drops = watch.drops.lock().drops_near(&numbers, limit);
    Json(drops).into_response()
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
