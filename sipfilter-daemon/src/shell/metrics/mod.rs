//! Metrics for Prometheus: `GET /metrics`, on this host alone unless the operator says otherwise.
//!
//! It owns the listener and the form of the text. What is counted comes from the task that owns the engine, at most once a second,
//! whoever asks how often. Whoever is on this host may connect, so that connections are bounded as those of the control sockets are:
//! each takes a descriptor, without which the daemon cannot even tell the service manager that it lives. Nothing that names a caller, a
//! number or an address is a label.

mod exposition;
#[cfg(test)]
mod queries;

use std::{
    convert::Infallible,
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

use super::api::{Question, server};

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
pub async fn serve(listener: TcpListener, questions: mpsc::Sender<Question>) -> Infallible {
    let source = Arc::new(Source {
        questions,
        last: Mutex::new(None),
    });
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .fallback(async || (StatusCode::NOT_FOUND, "there is only /metrics\n"))
        .with_state(source);
    server::serve(listener, "metrics", routes).await
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

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    use super::*;

    #[tokio::test]
    async fn whoever_connects_and_says_nothing_takes_few_descriptors_and_keeps_nobody_out() {
        let listener = bind(([127, 0, 0, 1], 0).into()).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (questions, _asked) = mpsc::channel(1);
        let server = tokio::spawn(serve(listener, questions));

        let mut silent = Vec::new();
        for _ in 0..4 * server::MAX_CONNECTIONS {
            silent.push(TcpStream::connect(address).await.expect("a connection"));
        }
        let mut asking = TcpStream::connect(address).await.expect("a connection");
        asking
            .write_all(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
            .await
            .expect("a request");
        let mut answer = String::new();
        // One request for each connection: it ends with the answer.
        asking.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.ends_with("there is only /metrics\n"), "{answer:?}");
        let mut open = 0;
        for mut stream in silent {
            let mut byte = [0];
            let read = tokio::time::timeout(Duration::from_millis(1), stream.read(&mut byte));
            open += usize::from(read.await.is_err());
        }
        assert!(
            open <= server::MAX_CONNECTIONS,
            "{open} silent connections are open"
        );
        server.abort();
    }
}
