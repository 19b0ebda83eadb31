//! What is not voice and must stay reachable throughout: a plain TCP service and ping (RFC 792, RFC 4443).

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, ipproto, recv, sendto,
    socket_with,
    sockopt::{Timeout, set_socket_timeout},
};

use super::{namespace::Namespace, topology::Network};

/// A port that is neither SIP nor RTP.
pub const PORT: u16 = 8080;
const GREETING: &[u8] = b"plain\n";
const PATIENCE: Duration = Duration::from_secs(2);

/// The service on the edge, and visitors from outside who use it again and again.
#[derive(Debug)]
pub struct Service {
    shared: Arc<Shared>,
    visitors: Vec<thread::JoinHandle<()>>,
    server: Option<thread::JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    enough: AtomicBool,
    closed: AtomicBool,
    tcp: Tally,
    ping: Tally,
}

#[derive(Debug, Default)]
struct Tally {
    tried: AtomicU32,
    served: AtomicU32,
}

impl Tally {
    fn note(&self, served: bool) {
        self.tried.fetch_add(1, Ordering::Relaxed);
        if served {
            self.served.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn count(&self) -> Reached {
        Reached {
            tried: self.tried.load(Ordering::Relaxed),
            served: self.served.load(Ordering::Relaxed),
        }
    }
}

/// How often something was tried, and how often it worked.
#[derive(Debug, Clone, Copy)]
pub struct Reached {
    /// Attempts.
    pub tried: u32,
    /// Attempts that worked.
    pub served: u32,
}

impl Reached {
    /// Tried at least once, and served every time.
    #[must_use]
    pub fn always(self) -> bool {
        self.tried > 0 && self.tried == self.served
    }
}

impl Service {
    /// Starts the service and its visitors.
    ///
    /// # Errors
    /// Where the service's address cannot be bound.
    pub fn start(network: &Network) -> Result<Self> {
        let at = SocketAddr::new(network.service_place().address(network.family), PORT);
        let listener = network
            .edge
            .enter(|| TcpListener::bind(at))?
            .with_context(|| format!("cannot serve on {at}"))?;
        listener.set_nonblocking(true)?;
        let shared = Arc::new(Shared::default());
        let server = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || serve(&listener, &shared))
        };
        let mut visitors = Vec::new();
        for namespace in [&network.provider, &network.stranger] {
            let shared = Arc::clone(&shared);
            let name = namespace.name().to_owned();
            visitors.push(visitor(&name, at, shared)?);
        }
        Ok(Self {
            shared,
            visitors,
            server: Some(server),
        })
    }

    /// Stops the visitors and tells how they fared: TCP, then ping.
    #[must_use]
    pub fn finish(mut self) -> (Reached, Reached) {
        self.stop();
        (self.shared.tcp.count(), self.shared.ping.count())
    }

    /// The server closes last, or a visitor in its queue would be turned away.
    fn stop(&mut self) {
        self.shared.enough.store(true, Ordering::Relaxed);
        for visitor in self.visitors.drain(..) {
            let _ = visitor.join();
        }
        self.shared.closed.store(true, Ordering::Relaxed);
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop();
    }
}

fn serve(listener: &TcpListener, shared: &Shared) {
    while !shared.closed.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((mut stream, _)) => {
                let _ = stream.write_all(GREETING);
            }
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
}

fn visitor(namespace: &str, at: SocketAddr, shared: Arc<Shared>) -> Result<thread::JoinHandle<()>> {
    let file = std::fs::File::open(format!("/run/netns/{namespace}"))?;
    Ok(thread::spawn(move || {
        use std::os::fd::AsFd as _;
        if rustix::thread::move_into_link_name_space(
            file.as_fd(),
            Some(rustix::thread::LinkNameSpaceType::Network),
        )
        .is_err()
        {
            shared.tcp.note(false);
            return;
        }
        while !shared.enough.load(Ordering::Relaxed) {
            shared.tcp.note(visit(at).is_ok());
            shared.ping.note(echo(None, at.ip()).is_ok());
            thread::sleep(Duration::from_millis(200));
        }
    }))
}

fn visit(at: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&at, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut got = Vec::new();
    stream.read_to_end(&mut got)?;
    if got != GREETING {
        bail!("the service at {at} said {got:?}");
    }
    Ok(())
}

/// One echo request, and its reply, from an address of a namespace.
///
/// # Errors
/// Where no reply comes within two seconds.
pub fn ping(namespace: &Namespace, from: IpAddr, to: IpAddr) -> Result<()> {
    namespace.enter(|| echo(Some(from), to))?
}

fn echo(from: Option<IpAddr>, to: IpAddr) -> Result<()> {
    const IDENTIFIER: [u8; 2] = [0x51, 0xf1];
    let (family, protocol, request, reply) = match to {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP, 8, 0),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6, 128, 129),
    };
    let socket = socket_with(
        family,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(protocol),
    )
    .context("cannot ping without root's privileges")?;
    if let Some(from) = from {
        bind(&socket, &SocketAddr::new(from, 0))?;
    }
    set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
    let mut packet = [request, 0, 0, 0, IDENTIFIER[0], IDENTIFIER[1], 0, 1];
    // The kernel fills in the checksum of ICMPv6 only.
    let checksum = !(packet.chunks(2).fold(0_u32, |sum, pair| {
        let sum = sum + (u32::from(pair[0]) << 8 | u32::from(pair[1]));
        (sum & 0xffff) + (sum >> 16)
    }) as u16);
    packet[2..4].copy_from_slice(&checksum.to_be_bytes());
    sendto(
        &socket,
        &packet,
        SendFlags::empty(),
        &SocketAddr::new(to, 0),
    )?;
    let deadline = Instant::now() + PATIENCE;
    let mut buffer = [0_u8; 1500];
    while Instant::now() < deadline {
        let (length, _) = recv(&socket, &mut buffer, RecvFlags::empty())
            .with_context(|| format!("no echo from {to}"))?;
        let packet = &buffer[..length];
        let message = match to {
            IpAddr::V4(_) => packet.get(20..),
            IpAddr::V6(_) => Some(packet),
        };
        if message.is_some_and(|m| m.len() >= 8 && m[0] == reply && m[4..6] == IDENTIFIER) {
            return Ok(());
        }
    }
    bail!("no echo from {to}")
}
