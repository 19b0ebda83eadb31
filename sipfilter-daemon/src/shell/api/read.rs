//! The control socket's resources: what can be seen and changes nothing.

use std::net::SocketAddr;

use axum::{
    Json, Router,
    extract::{Path as Segment, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::sync::mpsc;

use super::{
    Question, answer, ask, failure, no_answer,
    pages::{self, Asked, Page, Rows},
    record,
};
use crate::{engine::CallNumber, shell::ledger::Ledger};

/// The long lists.
const CALLS: &str = "/v1/calls";
const PINHOLES: &str = "/v1/pinholes";

/// Everything under `/v1/` that is read.
pub fn routes(questions: mpsc::Sender<Question>, drops: Ledger) -> Router {
    Router::new()
        .route(
            "/v1/status",
            get(async |State(questions)| ask(questions, Question::Status).await),
        )
        .route(CALLS, get(calls))
        .route("/v1/calls/{id}", get(call))
        .route(PINHOLES, get(pinholes))
        .route(
            "/v1/report",
            get(move |State(questions)| report(questions, drops)),
        )
        .route(
            "/v1/pinholes/closed",
            get(async |State(questions)| ask(questions, Question::Closed).await),
        )
        .fallback(async || {
            failure(
                StatusCode::NOT_FOUND,
                "no such resource; there are /v1/status, /v1/calls, /v1/calls/{id}, /v1/pinholes, /v1/pinholes/closed, /v1/report, /v1/drops, /v1/strangers and /v1/events",
            )
        })
        .with_state(questions)
}

async fn report(questions: mpsc::Sender<Question>, drops: Ledger) -> Response {
    match answer(questions, Question::Report).await {
        Some(gathered) => Json(gathered.report(&drops)).into_response(),
        None => no_answer(),
    }
}

async fn calls(
    State(questions): State<mpsc::Sender<Question>>,
    Query(asked): Query<Asked<u64>>,
) -> Response {
    let Page { after, limit } = asked.page(pages::CALLS);
    let page = Page {
        after: after.map(CallNumber),
        limit,
    };
    match answer(questions, |asker| Question::Calls(page, asker)).await {
        Some(Rows { rows, next }) => {
            let next = next.map(|number| number.0);
            Rows { rows, next }.answer(CALLS, limit)
        }
        None => no_answer(),
    }
}

async fn pinholes(
    State(questions): State<mpsc::Sender<Question>>,
    Query(asked): Query<Asked<SocketAddr>>,
) -> Response {
    let page = asked.page(pages::PINHOLES);
    match answer(questions, |asker| Question::Pinholes(page, asker)).await {
        Some(rows) => rows.answer(PINHOLES, page.limit),
        None => no_answer(),
    }
}

async fn call(
    State(questions): State<mpsc::Sender<Question>>,
    Segment(id): Segment<String>,
) -> Response {
    record(answer(questions, |asker| Question::Call(id, asker)).await)
}
