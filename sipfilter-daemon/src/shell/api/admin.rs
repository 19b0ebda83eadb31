//! The admin socket's verbs: what changes something.

use std::{ops::RangeInclusive, time::Duration};

use axum::{
    Json, Router,
    extract::{Path as Segment, State},
    http::StatusCode,
    middleware,
    response::{IntoResponse, Response},
    routing::post,
};
use tokio::sync::mpsc;

use super::{Order as CallOrder, answer, ask, failure, no_answer, record};
use crate::{
    shell::{
        privacy::{self, Redactor},
        reload::{Command, Order, Source},
    },
    view,
};

/// How long a configuration may be on trial.
const PATIENCE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);

/// Everything under `/v1/` that is done.
pub fn routes(
    orders: mpsc::Sender<CallOrder>,
    configuring: mpsc::Sender<Command>,
    redactor: Redactor,
) -> Router {
    Router::new()
        .route("/v1/calls/{id}/close", post(close))
        // What follows tells of configurations, and the operator wrote those.
        .layer(middleware::from_fn_with_state(
            redactor,
            privacy::api::redact,
        ))
        .with_state(orders)
        .route("/v1/reload", post(reload))
        .route("/v1/apply", post(apply))
        .route("/v1/confirm", post(confirm))
        .route("/v1/rollback", post(roll_back))
        .with_state(configuring)
        .fallback(async || {
            failure(
                StatusCode::NOT_FOUND,
                "no such verb; there are POST /v1/calls/{id}/close, /v1/reload, /v1/apply, /v1/confirm, /v1/rollback, and GET /v1/capture",
            )
        })
}

async fn reload(State(configuring): State<mpsc::Sender<Command>>) -> Response {
    load(configuring, Source::File).await
}

async fn apply(
    State(configuring): State<mpsc::Sender<Command>>,
    Json(apply): Json<view::Apply>,
) -> Response {
    let seconds = apply.confirm_within_seconds;
    let Some(patience) = Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|patience| PATIENCE.contains(patience))
    else {
        return failure(
            StatusCode::BAD_REQUEST,
            "confirm_within_seconds must be from 1 to 86400",
        );
    };
    let source = Source::Text {
        file: apply.file,
        text: apply.text,
        patience,
    };
    load(configuring, source).await
}

async fn confirm(State(configuring): State<mpsc::Sender<Command>>) -> Response {
    match answer(configuring, Command::Confirm).await {
        Some(Ok(confirmed)) => Json(confirmed).into_response(),
        Some(Err(error)) => failure(StatusCode::NOT_FOUND, &error.to_string()),
        None => no_answer(),
    }
}

async fn roll_back(State(configuring): State<mpsc::Sender<Command>>) -> Response {
    ask(configuring, Command::RollBack).await
}

async fn load(configuring: mpsc::Sender<Command>, source: Source) -> Response {
    let load = |asker| {
        Command::Load(Order {
            source,
            asker: Some(asker),
        })
    };
    ask(configuring, load).await
}

async fn close(
    State(orders): State<mpsc::Sender<CallOrder>>,
    Segment(id): Segment<String>,
) -> Response {
    record(answer(orders, |asker| CallOrder::CloseCall(id, asker)).await)
}
