//! The admin socket's verbs: what changes something.

use axum::{
    Router,
    extract::{Path as Segment, State},
    http::StatusCode,
    response::Response,
    routing::post,
};
use tokio::sync::mpsc;

use super::{Order, answer, ask, failure, record};
use crate::shell::reload::{self, Source};

/// Everything under `/v1/` that is done.
pub fn routes(orders: mpsc::Sender<Order>, configuring: mpsc::Sender<reload::Order>) -> Router {
    Router::new()
        .route("/v1/calls/{id}/close", post(close))
        .with_state(orders)
        .route("/v1/reload", post(reload))
        .with_state(configuring)
        .fallback(async || {
            failure(
                StatusCode::NOT_FOUND,
                "no such verb; there are POST /v1/calls/{id}/close and POST /v1/reload",
            )
        })
}

async fn reload(State(configuring): State<mpsc::Sender<reload::Order>>) -> Response {
    let order = |asker| reload::Order {
        source: Source::File,
        asker: Some(asker),
    };
    ask(configuring, order).await
}

async fn close(
    State(orders): State<mpsc::Sender<Order>>,
    Segment(id): Segment<String>,
) -> Response {
    record(answer(orders, |asker| Order::CloseCall(id, asker)).await)
}
