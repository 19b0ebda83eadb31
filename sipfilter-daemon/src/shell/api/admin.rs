//! The admin socket's verbs: what changes something.

use axum::{
    Router,
    extract::{Path as Segment, State},
    http::StatusCode,
    response::Response,
    routing::post,
};
use tokio::sync::mpsc;

use super::{Order, answer, failure, record};

/// Everything under `/v1/` that is done.
pub fn routes(orders: mpsc::Sender<Order>) -> Router {
    Router::new()
        .route("/v1/calls/{id}/close", post(close))
        .fallback(async || {
            failure(
                StatusCode::NOT_FOUND,
                "no such verb; there is POST /v1/calls/{id}/close",
            )
        })
        .with_state(orders)
}

async fn close(
    State(orders): State<mpsc::Sender<Order>>,
    Segment(id): Segment<String>,
) -> Response {
    record(answer(orders, |asker| Order::CloseCall(id, asker)).await)
}
