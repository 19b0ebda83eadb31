//! A socket's connections, a control socket's or that for metrics: how many, for how long, and how much each may send.
//!
//! Whoever may open the socket may be broken or ill-meaning. So the number of connections is capped, a connection carries one
//! request, its head must come soon, and its body is small. Where the cap is reached, the oldest connection that has not asked for
//! anything yet makes room, or else the oldest that does not take its answer; ten thousand silent ones keep nobody out. Streams stay:
//! they have a cap of their own, which is lower (`feed`). Those of root and of the daemon's user make room last. Where the process has no
//! descriptor left for one more, the log says so once, and the next attempt is a second later: the daemon filters and follows calls all
//! the while.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    fs, io,
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::UnixDatagram,
    },
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use axum::Router;
use hyper::{
    Request,
    body::{Body as _, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::{io::Errno, process::geteuid};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    task::AbortHandle,
};
use tower_service::Service;

use super::rate::Privileged;
use crate::shell::descriptors::is_out_of_descriptors;

/// Connections at the same time.
pub const MAX_CONNECTIONS: usize = 64;
/// A request's head, line and headers together.
const MAX_HEAD: usize = 16 * 1024;
/// How long a request's head may take.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);

/// Until the next attempt where nobody can be let in.
const REST: Duration = Duration::from_secs(1);
/// The same where somebody has just been sent away, and their descriptor is about to be free.
const MOMENT: Duration = Duration::from_millis(10);
/// At least so long between two lines about one socket.
const QUIET: Duration = Duration::from_secs(600);

/// How far a connection has got. Numbers, because its task tells them to the others.
mod progress {
    pub const SILENT: u8 = 0;
    /// Its answer is of a known length.
    pub const ASKED: u8 = 1;
    /// Its answer goes on for as long as somebody reads.
    pub const STREAM: u8 = 2;
}

/// The other end of a connection.
pub trait Peer: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Whether it is root, or the user that the daemon runs as.
    fn is_privileged(&self) -> bool;
}

impl Peer for UnixStream {
    fn is_privileged(&self) -> bool {
        self.peer_cred()
            .is_ok_and(|peer| peer.uid() == 0 || peer.uid() == geteuid().as_raw())
    }
}

impl Peer for TcpStream {
    fn is_privileged(&self) -> bool {
        false
    }
}

/// Where connections come in.
pub trait Door {
    /// What comes in.
    type Peer: Peer;

    /// Waits for the next one.
    ///
    /// # Errors
    /// What the system says, of the connection or of the socket.
    fn next(&self) -> impl Future<Output = io::Result<Self::Peer>> + Send;
}

impl Door for UnixListener {
    type Peer = UnixStream;

    async fn next(&self) -> io::Result<UnixStream> {
        Ok(self.accept().await?.0)
    }
}

impl Door for TcpListener {
    type Peer = TcpStream;

    async fn next(&self) -> io::Result<TcpStream> {
        Ok(self.accept().await?.0)
    }
}

/// A connection, and its progress.
struct Connection {
    is_privileged: bool,
    progress: Arc<AtomicU8>,
    task: AbortHandle,
}

impl Connection {
    fn is_at(&self, (is_privileged, progress): (bool, u8)) -> bool {
        self.is_privileged == is_privileged && self.progress.load(Ordering::Relaxed) == progress
    }
}

/// The open connections by age.
#[derive(Default)]
struct Connections {
    open: BTreeMap<u64, Connection>,
    next: u64,
}

impl Connections {
    /// Ends the connection that can best be done without, for one that has rights or not. Tells whether there was one.
    fn make_room(&mut self, is_privileged: bool) -> bool {
        let oldest = |state| {
            let mut open = self.open.iter();
            open.find(|(_, connection)| connection.is_at(state))
                .map(|(&number, _)| number)
        };
        let gone = [
            (false, progress::SILENT),
            (false, progress::ASKED),
            (true, progress::SILENT),
            (true, progress::ASKED),
        ]
        .into_iter()
        // Nobody drives out who has more rights.
        .filter(|(has_rights, _)| is_privileged || !has_rights)
        .find_map(oldest);
        let connection = gone.and_then(|number| self.open.remove(&number));
        if let Some(connection) = &connection {
            connection.task.abort();
        }
        connection.is_some()
    }
}

/// Serves until the future is dropped. Connections that it has accepted by then go on to their end. `name` is the socket's in the log.
pub async fn serve(door: impl Door, name: &str, router: Router) -> Infallible {
    let connections = Arc::new(Mutex::new(Connections::default()));
    let mut standstill = Standstill::default();
    loop {
        match door.next().await {
            Ok(stream) => {
                standstill.end(name);
                admit(&connections, stream, &router);
            }
            Err(error) if is_of_connection(&error) => {}
            Err(error) => {
                standstill.begin(name, &error);
                // Whoever has rights is given the time to ask, which is short.
                let has_room = is_out_of_descriptors(&error) && lock(&connections).make_room(false);
                tokio::time::sleep(if has_room { MOMENT } else { REST }).await;
            }
        }
    }
}

/// The other side has thought better of it.
fn is_of_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

/// While nobody can be let in.
#[derive(Debug, Default)]
struct Standstill {
    is_said: bool,
    quiet_until: Option<Instant>,
}

impl Standstill {
    fn begin(&mut self, name: &str, error: &io::Error) {
        let is_time = self.quiet_until.is_none_or(|until| Instant::now() >= until);
        if self.is_said || !is_time {
            return;
        }
        self.is_said = true;
        self.quiet_until = Some(Instant::now() + QUIET);
        let way_out = match is_out_of_descriptors(error) {
            true => "; the limit of open files is reached: raise it (`LimitNOFILE=` of the unit)",
            false => "",
        };
        tracing::error!(
            socket = name,
            %error,
            "nobody can connect: filtering goes on, trying again{way_out}"
        );
    }

    fn end(&mut self, name: &str) {
        if std::mem::take(&mut self.is_said) {
            tracing::info!(socket = name, "connections are taken again");
        }
    }
}

/// Takes the connection, if there is room or room can be made.
fn admit(connections: &Arc<Mutex<Connections>>, stream: impl Peer, router: &Router) {
    let is_privileged = stream.is_privileged();
    let mut table = lock(connections);
    if table.open.len() >= MAX_CONNECTIONS && !table.make_room(is_privileged) {
        // Streams, all of them: the newcomer sees its connection closed.
        return;
    }
    let number = table.next;
    table.next += 1;
    let progress = Arc::new(AtomicU8::new(progress::SILENT));
    let task = tokio::spawn({
        let (connections, progress, router) = (
            Arc::clone(connections),
            Arc::clone(&progress),
            router.clone(),
        );
        async move {
            if let Err(error) = converse(stream, router, is_privileged, progress).await {
                tracing::debug!(%error, "a conversation on a socket broke");
            }
            lock(&connections).open.remove(&number);
        }
    });
    // The task cannot have removed itself yet: the table is locked.
    table.open.insert(
        number,
        Connection {
            is_privileged,
            progress,
            task: task.abort_handle(),
        },
    );
}

/// One request and its answer.
async fn converse(
    stream: impl Peer,
    router: Router,
    is_privileged: bool,
    progress: Arc<AtomicU8>,
) -> Result<(), hyper::Error> {
    let service = service_fn(move |mut request: Request<Incoming>| {
        if is_privileged {
            request.extensions_mut().insert(Privileged);
        }
        progress.store(progress::ASKED, Ordering::Relaxed);
        // A router is ready at any time.
        let answering = router.clone().call(request);
        let progress = Arc::clone(&progress);
        async move {
            let answer = answering.await?;
            if answer.body().size_hint().exact().is_none() {
                progress.store(progress::STREAM, Ordering::Relaxed);
            }
            Ok::<_, Infallible>(answer)
        }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(MAX_HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

/// A panic in another task leaves the table whole: nothing in here stops half-way.
fn lock(connections: &Mutex<Connections>) -> MutexGuard<'_, Connections> {
    connections.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Binds a socket that nobody else listens on, with the given permissions.
///
/// A socket that a dead daemon left is replaced; one that somebody listens on, and anything else in its place, is not ours to
/// remove.
///
/// # Errors
/// What the system says, or that the place is taken.
pub fn bind(path: &Path, mode: u32) -> io::Result<UnixListener> {
    match fs::symlink_metadata(path) {
        Ok(there) if there.file_type().is_socket() => {
            if is_listened_on(path) {
                return Err(io::Error::new(
                    io::ErrorKind::AddrInUse,
                    "another program listens on it; stop that, or give another place with --runtime-dir DIR",
                ));
            }
            fs::remove_file(path)?;
        }
        Ok(_) => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "something that is not a socket is in its place; move it away",
            ));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    Ok(listener)
}

/// Whether some process has the socket. One of another kind is refused as such there, and as nobody's where it is nobody's; so the
/// other side notices nothing.
fn is_listened_on(path: &Path) -> bool {
    let asked = UnixDatagram::unbound().and_then(|socket| socket.connect(path));
    match asked {
        Ok(()) => true,
        Err(error) => error.raw_os_error() == Some(Errno::PROTOTYPE.raw_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn silent_connections_keep_nobody_out() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("control.sock");
        let listener = bind(&path, 0o600).expect("a socket");
        let router = Router::new().route("/", get(async || "here"));
        let server = tokio::spawn(serve(listener, "control.sock", router));

        let mut silent = Vec::new();
        for _ in 0..10 * MAX_CONNECTIONS {
            silent.push(UnixStream::connect(&path).await.expect("a connection"));
        }
        let mut asking = UnixStream::connect(&path).await.expect("a connection");
        asking
            .write_all(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
            .await
            .expect("a request");
        let mut answer = String::new();
        asking
            .read_to_string(&mut answer)
            .await
            .expect("an answer, and the connection's end");
        assert!(answer.ends_with("\r\n\r\nhere"), "{answer:?}");
        // All but as many as the cap have been closed.
        let mut open = 0;
        for mut stream in silent {
            let mut byte = [0];
            let read = tokio::time::timeout(Duration::from_millis(1), stream.read(&mut byte));
            open += usize::from(read.await.is_err());
        }
        assert!(open < MAX_CONNECTIONS, "{open} silent connections are open");
        server.abort();
    }

    #[tokio::test]
    async fn a_socket_is_replaced_once_nobody_listens() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("control.sock");
        let first = bind(&path, 0o600).expect("a socket");
        let error = bind(&path, 0o600).expect_err("the place is taken");
        assert!(error.to_string().contains("listens on it"), "{error}");
        drop(first);
        bind(&path, 0o600).expect("a socket in the place of a stale one");
    }

    #[tokio::test]
    async fn those_who_do_not_take_their_answer_keep_nobody_out_and_end_no_stream() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("control.sock");
        let listener = bind(&path, 0o600).expect("a socket");
        let forever = async || {
            let lines = futures_util::stream::pending::<Result<&str, Infallible>>();
            axum::body::Body::from_stream(lines)
        };
        let router = Router::new()
            .route("/", get(async || "here"))
            .route("/long", get(async || vec![b'x'; 4_000_000]))
            .route("/stream", get(forever));
        let server = tokio::spawn(serve(listener, "control.sock", router));
        let ask = async |resource: &str| {
            let mut stream = UnixStream::connect(&path).await.expect("a connection");
            let request = format!("GET {resource} HTTP/1.1\r\nHost: here\r\n\r\n");
            stream.write_all(request.as_bytes()).await.expect("room");
            stream
        };

        let mut stream = ask("/stream").await;
        let mut byte = [0];
        stream.read_exact(&mut byte).await.expect("a head");
        let mut idle = Vec::new();
        for _ in 0..2 * MAX_CONNECTIONS {
            let mut long = ask("/long").await;
            long.read_exact(&mut byte).await.expect("a beginning");
            idle.push(long);
        }
        let mut answer = String::new();
        let mut asking = ask("/").await;
        asking.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.ends_with("\r\n\r\nhere"), "{answer:?}");
        let mut rest = Vec::new();
        let end = tokio::time::timeout(Duration::from_millis(50), stream.read_to_end(&mut rest));
        assert!(end.await.is_err(), "the stream has ended");
        server.abort();
    }

    #[tokio::test]
    async fn a_file_in_the_sockets_place_is_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("control.sock");
        std::fs::write(&path, "mine").expect("a file");
        let error = bind(&path, 0o600).expect_err("the place is taken");
        assert!(error.to_string().contains("not a socket"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).expect("the file"), "mine");
    }
}
