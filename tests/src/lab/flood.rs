//! A flood of signalling from an address that may signal: requests and garbage, as fast as somebody with a provider's address could send.
//!
//! Bounded in number and paced, so that a machine with two processors still runs everything else. What becomes of it is the filter's to say.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::{
    address::{Place, SIP_PORT},
    topology::Network,
};

const BATCH: u64 = 64;
const PAUSE: Duration = Duration::from_micros(1_500);
/// Not the port of the agent there.
const PORT: u16 = 5075;

/// A flood that is under way.
#[derive(Debug)]
pub struct Flood {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<u64>>,
}

impl Flood {
    /// Floods a protected address from one of the provider's, with at most so many packets.
    ///
    /// # Errors
    /// Where the socket cannot be bound.
    pub fn start(network: &Network, from: Place, to: IpAddr, most: u64) -> Result<Self> {
        Self::of(network, from, to, most, |number, to| match number % 3 {
            0 => vec![0; 400],
            _ => invite(&format!("flood-{number}@lab"), to).into_bytes(),
        })
    }

    /// The same of long answers that nobody waits for: what a filter copies as readily as those of calls in progress.
    ///
    /// # Errors
    /// Where the socket cannot be bound.
    pub fn of_answers(network: &Network, from: Place, to: IpAddr, most: u64) -> Result<Self> {
        Self::of(network, from, to, most, |number, to| {
            let mut answer = format!(
                "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP {to};branch=z9hG4bK{number}\r\nFrom: <sip:a@lab>;tag=1\r\nTo: <sip:b@lab>;tag=2\r\n\
                 Call-ID: flood-{number}@lab\r\nCSeq: 1 OPTIONS\r\nContent-Length: 1000\r\n\r\n"
            )
            .into_bytes();
            answer.resize(answer.len() + 1000, b'x');
            answer
        })
    }

    fn of(
        network: &Network,
        from: Place,
        to: IpAddr,
        most: u64,
        packet: fn(u64, SocketAddr) -> Vec<u8>,
    ) -> Result<Self> {
        let socket = socket(network, from)?;
        let to = SocketAddr::new(to, SIP_PORT);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut sent = 0;
            while sent < most && !stopped.load(Ordering::Relaxed) {
                for _ in 0..BATCH {
                    sent += u64::from(socket.send_to(&packet(sent, to), to).is_ok());
                }
                thread::sleep(PAUSE);
            }
            sent
        });
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    /// Ends it, and tells how many packets there were.
    #[must_use]
    pub fn finish(mut self) -> u64 {
        self.end()
    }

    fn end(&mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .take()
            .and_then(|thread| thread.join().ok())
            .unwrap_or(0)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.end();
    }
}

/// Sends one INVITE with this Call-ID.
///
/// # Errors
/// Where it cannot be sent.
pub fn send_invite(network: &Network, from: Place, to: IpAddr, call_id: &str) -> Result<()> {
    let to = SocketAddr::new(to, SIP_PORT);
    socket(network, from)?
        .send_to(invite(call_id, to).as_bytes(), to)
        .context("an INVITE could not be sent")?;
    Ok(())
}

fn socket(network: &Network, from: Place) -> Result<UdpSocket> {
    let at = SocketAddr::new(from.address(network.family), PORT);
    network
        .provider
        .enter(|| UdpSocket::bind(at).with_context(|| format!("cannot bind {at}")))?
}

fn invite(call_id: &str, to: SocketAddr) -> String {
    format!(
        "INVITE sip:flood@{to} SIP/2.0\r\nVia: SIP/2.0/UDP flood:{PORT};branch=z9hG4bK{call_id}\r\nFrom: <sip:flood@lab>;tag=1\r\n\
         To: <sip:flood@{to}>\r\nCall-ID: {call_id}\r\nCSeq: 1 INVITE\r\nContact: <sip:flood@lab>\r\nMax-Forwards: 70\r\n\
         Content-Length: 0\r\n\r\n"
    )
}
