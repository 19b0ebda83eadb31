//! Metrics for Prometheus: `GET /metrics`, on this host alone unless the operator says otherwise.
//!
//! It owns the listener and the form of the text. What is counted comes from the task that owns the engine, at most once a second,
//! whoever asks how often. Nothing that names a caller, a number or an address is a label.

mod exposition;
#[cfg(test)]
mod queries;

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{
    net::TcpListener,
    sync::{Mutex, mpsc, oneshot},
};

pub use exposition::Snapshot;

use super::api::Question;

/// An answer younger than this is given again.
const FRESH: Duration = Duration::from_secs(1);
/// OpenMetrics, which Prometheus reads since version 2.5.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Listens where the configuration says.
///
/// # Errors
/// What the system says: somebody may listen there.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

struct Source {
    questions: mpsc::Sender<Question>,
    last: Mutex<Option<(Instant, String)>>,
}

/// Serves the metrics until the task is dropped.
///
/// # Errors
/// What the system says.
pub async fn serve(listener: TcpListener, questions: mpsc::Sender<Question>) -> io::Result<()> {
    let source = Arc::new(Source {
        questions,
        last: Mutex::new(None),
    });
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .fallback(async || (StatusCode::NOT_FOUND, "there is only /metrics\n"))
        .with_state(source);
    axum::serve(listener, routes).await
}

async fn metrics(State(source): State<Arc<Source>>) -> Response {
    // Held while the engine's task answers: whoever comes meanwhile gets the same answer.
    let mut last = source.last.lock().await;
    let text = match &*last {
        Some((at, text)) if at.elapsed() < FRESH => text.clone(),
        _ => {
            let Some(text) = ask(&source.questions).await else {
                return StatusCode::SERVICE_UNAVAILABLE.into_response();
            };
            *last = Some((Instant::now(), text.clone()));
            text
        }
    };
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response()
}

async fn ask(questions: &mpsc::Sender<Question>) -> Option<String> {
    let (asker, answered) = oneshot::channel();
    questions.send(Question::Metrics(asker)).await.ok()?;
    Some(answered.await.ok()?.text())
}
