//! Questions to a running daemon, over its control socket.

use std::{
    io,
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
    http::response::Parts,
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    net::UnixStream,
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
};

use crate::{shell::api, view};

/// An answer longer than this is no answer of ours.
const MAX_ANSWER: usize = 256 * 1024 * 1024;
/// Until the next question where a long list takes more than the daemon answers in a second.
const TOO_OFTEN: Duration = Duration::from_millis(50);
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
    exchange(
        runtime_dir,
        api::CONTROL.0,
        Method::GET,
        resource,
        Bytes::new(),
    )
}

/// Asks for all of a list, page after page ([`api::pages`]).
///
/// # Errors
/// [`ClientError`].
pub fn list<T: DeserializeOwned>(
    runtime_dir: &Path,
    resource: &str,
) -> Result<Vec<T>, ClientError> {
    let runtime = runtime(runtime_dir)?;
    runtime.block_on(async {
        let (mut rows, mut next) = (Vec::new(), Some(resource.to_owned()));
        while let Some(resource) = next.take() {
            let page = page(runtime_dir, &resource);
            let page = tokio::time::timeout(PATIENCE, page).await;
            let (more, link): (Vec<T>, _) = page.map_err(|_| ClientError::Timeout)??;
            rows.extend(more);
            next = link;
        }
        Ok(rows)
    })
}

/// One page, and the resource of the next one.
async fn page<T: DeserializeOwned>(
    runtime_dir: &Path,
    resource: &str,
) -> Result<(Vec<T>, Option<String>), ClientError> {
    loop {
        let asking = ask(
            runtime_dir,
            api::CONTROL.0,
            Method::GET,
            resource,
            Bytes::new(),
        );
        let (head, body) = asking.await?;
        if head.status == StatusCode::TOO_MANY_REQUESTS {
            tokio::time::sleep(TOO_OFTEN).await;
            continue;
        }
        let link = head.headers.get(hyper::header::LINK);
        let next = link.and_then(|link| api::pages::next(link.to_str().ok()?).map(str::to_owned));
        return Ok((said(head.status, &body)?, next));
    }
}

/// Has something done.
///
/// # Errors
/// [`ClientError`].
pub fn post<T: DeserializeOwned>(runtime_dir: &Path, verb: &str) -> Result<T, ClientError> {
    exchange(runtime_dir, api::ADMIN.0, Method::POST, verb, Bytes::new())
}

/// Has something done with this.
///
/// # Errors
/// [`ClientError`].
pub fn post_json<T: DeserializeOwned>(
    runtime_dir: &Path,
    verb: &str,
    with: &impl Serialize,
) -> Result<T, ClientError> {
    let body = serde_json::to_vec(with).map_err(|error| ClientError::Answer(error.to_string()))?;
    exchange(runtime_dir, api::ADMIN.0, Method::POST, verb, body.into())
}

fn exchange<T: DeserializeOwned>(
    runtime_dir: &Path,
    socket: &str,
    method: Method,
    resource: &str,
    body: Bytes,
) -> Result<T, ClientError> {
    runtime(runtime_dir)?.block_on(async {
        let asking = ask(runtime_dir, socket, method, resource, body);
        let (head, body) = tokio::time::timeout(PATIENCE, asking)
            .await
            .map_err(|_| ClientError::Timeout)??;
        said(head.status, &body)
    })
}

/// How a stream came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The daemon ended it, or ended itself.
    Daemon,
    /// Ctrl-C, or SIGTERM.
    Signal,
    /// The time was up.
    Time,
    /// Whoever took it has had enough.
    Reader,
}

/// A stream that has begun: whatever happens from now on is in it, also while something else is asked.
pub struct Stream {
    runtime: Runtime,
    body: Incoming,
    terminated: Signal,
    interrupted: Signal,
}

impl Stream {
    /// Has the daemon begin.
    ///
    /// # Errors
    /// [`ClientError`] where it does not.
    pub fn open(runtime_dir: &Path, socket: &str, resource: &str) -> Result<Self, ClientError> {
        let runtime = runtime(runtime_dir)?;
        let begun = runtime.block_on(async {
            let signals = signal(SignalKind::terminate())
                .and_then(|terminated| Ok((terminated, signal(SignalKind::interrupt())?)));
            let signals = signals.map_err(|source| down(runtime_dir, source))?;
            let opening = async {
                let response =
                    open(runtime_dir, socket, Method::GET, resource, Bytes::new()).await?;
                let status = response.status();
                let body = response.into_body();
                match status.is_success() {
                    true => Ok(body),
                    false => Err(refusal(status, &read(body).await?)),
                }
            };
            let body = tokio::time::timeout(PATIENCE, opening)
                .await
                .map_err(|_| ClientError::Timeout)??;
            Ok::<_, ClientError>((body, signals))
        });
        let (body, (terminated, interrupted)) = begun?;
        Ok(Self {
            runtime,
            body,
            terminated,
            interrupted,
        })
    }

    /// Hands on what comes until `take` breaks off, a signal comes, or the time is up.
    ///
    /// # Errors
    /// What `take` says.
    pub fn follow<E>(
        self,
        limit: Option<Duration>,
        mut take: impl FnMut(&[u8]) -> Result<ControlFlow<()>, E>,
    ) -> Result<Ended, E> {
        let Self {
            runtime,
            mut body,
            mut terminated,
            mut interrupted,
        } = self;
        runtime.block_on(async {
            let over = async {
                match limit {
                    Some(limit) => tokio::time::sleep(limit).await,
                    None => std::future::pending().await,
                }
            };
            tokio::pin!(over);
            loop {
                let frame = tokio::select! {
                    frame = body.frame() => frame,
                    _ = interrupted.recv() => return Ok(Ended::Signal),
                    _ = terminated.recv() => return Ok(Ended::Signal),
                    () = &mut over => return Ok(Ended::Time),
                };
                // However the daemon ends, it does not finish the stream.
                let Some(Ok(frame)) = frame else {
                    return Ok(Ended::Daemon);
                };
                if let Some(bytes) = frame.data_ref()
                    && take(bytes)?.is_break()
                {
                    return Ok(Ended::Reader);
                }
            }
        })
    }
}

fn runtime(runtime_dir: &Path) -> Result<Runtime, ClientError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| down(runtime_dir, source))
}

fn down(runtime_dir: &Path, source: io::Error) -> ClientError {
    ClientError::Down {
        path: runtime_dir.to_owned(),
        source,
    }
}

/// Asks, and gives all of the answer.
async fn ask(
    runtime_dir: &Path,
    socket: &str,
    method: Method,
    resource: &str,
    body: Bytes,
) -> Result<(Parts, Bytes), ClientError> {
    let response = open(runtime_dir, socket, method, resource, body).await?;
    let (head, body) = response.into_parts();
    Ok((head, read(body).await?))
}

/// What an answer says.
fn said<T: DeserializeOwned>(status: StatusCode, body: &[u8]) -> Result<T, ClientError> {
    if status.is_success() {
        serde_json::from_slice(body).map_err(unreadable)
    } else {
        Err(refusal(status, body))
    }
}

/// Asks, and gives the answer's head. Its connection goes on by itself until the answer is over.
async fn open(
    runtime_dir: &Path,
    socket: &str,
    method: Method,
    resource: &str,
    body: Bytes,
) -> Result<Response<Incoming>, ClientError> {
    let socket = runtime_dir.join(socket);
    let stream = UnixStream::connect(&socket)
        .await
        .map_err(|source| match source.kind() {
            io::ErrorKind::PermissionDenied => ClientError::Permission {
                path: socket,
                source,
            },
            _ => down(runtime_dir, source),
        })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(resource)
        .header(hyper::header::HOST, "sipfilterd")
        .header(hyper::header::CONTENT_TYPE, "application/json")
        .body(Full::new(body))
        .map_err(|error| ClientError::Answer(error.to_string()))?;
    Ok(sender.send_request(request).await?)
}

async fn read(body: Incoming) -> Result<Bytes, ClientError> {
    let body = Limited::new(body, MAX_ANSWER).collect().await;
    let body = body.map_err(|error| match error.downcast::<LengthLimitError>() {
        Ok(_) => ClientError::Answer(format!("longer than {MAX_ANSWER} bytes")),
        Err(error) => ClientError::Answer(error.to_string()),
    })?;
    Ok(body.to_bytes())
}

fn refusal(status: StatusCode, body: &[u8]) -> ClientError {
    match serde_json::from_slice::<view::Failure>(body) {
        Err(error) => unreadable(error),
        Ok(failure) => match status {
            StatusCode::NOT_FOUND | StatusCode::CONFLICT => ClientError::Unknown(failure.error),
            _ => ClientError::Refused(failure.error),
        },
    }
}

fn unreadable(error: serde_json::Error) -> ClientError {
    ClientError::Answer(error.to_string())
}
