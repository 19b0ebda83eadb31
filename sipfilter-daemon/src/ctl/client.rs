//! Questions to a running daemon, over its control socket.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::{Method, Request, StatusCode, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::{shell::api, view};

/// An answer longer than this is no answer of ours.
const MAX_ANSWER: usize = 256 * 1024 * 1024;
/// A daemon that takes longer is stuck.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("sipfilterd is not running with runtime directory {}: {source}; start it, or name its directory with --runtime-dir DIR", path.display())]
    Down {
        /// The runtime directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The socket is somebody else's.
    #[error("no permission to talk to sipfilterd at {}: {source}; run as root, or, where nothing is to be changed, as a member of the socket's group", path.display())]
    Permission {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It listens and does not answer.
    #[error("sipfilterd did not answer within {} s", PATIENCE.as_secs())]
    Timeout,
    /// The connection broke.
    #[error("the conversation with sipfilterd broke: {0}")]
    Http(#[from] hyper::Error),
    /// It knows no such thing, or several.
    #[error("{0}")]
    Unknown(String),
    /// It refused.
    #[error("sipfilterd: {0}")]
    Refused(String),
    /// The answer cannot be read.
    #[error(
        "sipfilterd gave an answer that this sipfilterctl cannot read ({0}); are they of one version?"
    )]
    Answer(String),
}

/// Asks for one resource.
///
/// # Errors
/// [`ClientError`].
pub fn get<T: DeserializeOwned>(runtime_dir: &Path, resource: &str) -> Result<T, ClientError> {
    exchange(runtime_dir, api::CONTROL.0, Method::GET, resource)
}

/// Has something done.
///
/// # Errors
/// [`ClientError`].
pub fn post<T: DeserializeOwned>(runtime_dir: &Path, verb: &str) -> Result<T, ClientError> {
    exchange(runtime_dir, api::ADMIN.0, Method::POST, verb)
}

fn exchange<T: DeserializeOwned>(
    runtime_dir: &Path,
    socket: &str,
    method: Method,
    resource: &str,
) -> Result<T, ClientError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| ClientError::Down {
            path: runtime_dir.to_owned(),
            source,
        })?;
    runtime.block_on(async {
        tokio::time::timeout(PATIENCE, request(runtime_dir, socket, method, resource))
            .await
            .map_err(|_| ClientError::Timeout)?
    })
}

async fn request<T: DeserializeOwned>(
    runtime_dir: &Path,
    socket: &str,
    method: Method,
    resource: &str,
) -> Result<T, ClientError> {
    let socket = runtime_dir.join(socket);
    let stream = UnixStream::connect(&socket)
        .await
        .map_err(|source| match source.kind() {
            io::ErrorKind::PermissionDenied => ClientError::Permission {
                path: socket,
                source,
            },
            _ => ClientError::Down {
                path: runtime_dir.to_owned(),
                source,
            },
        })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(resource)
        .header(hyper::header::HOST, "sipfilterd")
        .body(Empty::<Bytes>::new())
        .map_err(|error| ClientError::Answer(error.to_string()))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER)
        .collect()
        .await
        .map_err(|error| match error.downcast::<LengthLimitError>() {
            Ok(_) => ClientError::Answer(format!("longer than {MAX_ANSWER} bytes")),
            Err(error) => ClientError::Answer(error.to_string()),
        })?;
    connection.abort();
    let bytes = body.to_bytes();
    let unreadable = |error: serde_json::Error| ClientError::Answer(error.to_string());
    if status.is_success() {
        serde_json::from_slice(&bytes).map_err(unreadable)
    } else {
        let failure: view::Failure = serde_json::from_slice(&bytes).map_err(unreadable)?;
        Err(match status {
            StatusCode::NOT_FOUND | StatusCode::CONFLICT => ClientError::Unknown(failure.error),
            _ => ClientError::Refused(failure.error),
        })
    }
}
