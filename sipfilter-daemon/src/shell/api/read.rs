//! The control socket's resources: what can be seen and changes nothing.

use axum::{
    Router,
    extract::{Path as Segment, State},
    http::StatusCode,
    response::Response,
    routing::get,
};
use tokio::sync::mpsc;

use super::{Question, answer, ask, failure, record};

/// Everything under `/v1/` that is read.
pub fn routes(questions: mpsc::Sender<Question>) -> Router {
    Router::new()
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
        .route(
            "/v1/report",
            get(async |State(questions)| ask(questions, Question::Report).await),
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

async fn call(
    State(questions): State<mpsc::Sender<Question>>,
    Segment(id): Segment<String>,
) -> Response {
    record(answer(questions, |asker| Question::Call(id, asker)).await)
}
