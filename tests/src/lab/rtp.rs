//! RTP agents (RFC 3550): for each call one stream each way, 20 ms packets, every packet attributable to its call, direction and number.
//!
//! The sockets take packets from anybody, as a PBX's do: what a stranger gets through is seen. The agents know no SIP; who may send
//! when is decided by the caller of [`Agents::send`].

use std::{
    collections::BTreeMap,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::sockopt::set_socket_recv_buffer_size_force,
};

use super::{attack, call::Call, namespace::Namespace, topology::Network};

/// Time between two packets of one stream.
pub const PACKET_TIME: Duration = Duration::from_millis(20);
const HEADER: usize = 12;
const PAYLOAD: usize = 160;
const MAGIC: &[u8; 8] = b"lab-call";
/// Where a packet carries its number: after header, mark, call and way.
const NUMBER: usize = HEADER + 8 + 2 + 1;
const RECEIVE_BUFFER: usize = 1 << 20;

/// Which way a stream goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// Provider to PBX: what the filter judges.
    In,
    /// PBX to provider.
    Out,
}

#[derive(Debug)]
struct Stream {
    call: u16,
    way: Way,
    from: UdpSocket,
    to: SocketAddr,
}

/// What one stream has sent and delivered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Packets sent.
    pub sent: u32,
    /// Different packets received by the right agent.
    pub delivered: u32,
}

/// Counts by call and way.
pub type Counts = BTreeMap<(u16, Way), Count>;

/// The RTP sockets of all calls, and a thread that receives on every one of them.
#[derive(Debug)]
pub struct Agents {
    streams: Vec<Stream>,
    sent: BTreeMap<(u16, Way), u32>,
    received: Arc<Received>,
    receiver: Option<thread::JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Received {
    stop: AtomicBool,
    total: AtomicU64,
    seen: Mutex<BTreeMap<(u16, Way), Vec<bool>>>,
}

impl Agents {
    /// Binds every call's sockets in the provider's and the PBX's namespace.
    ///
    /// # Errors
    /// Where an address cannot be bound.
    pub fn start(network: &Network, calls: &[Call]) -> Result<Self> {
        let provider = bind_all(
            &network.provider,
            calls.iter().map(|call| call.provider_media),
        )?;
        let pbx = bind_all(
            network.pbx(),
            calls.iter().map(|call| call.pbx_media_inside),
        )?;
        let mut listeners = Vec::new();
        let mut streams = Vec::new();
        for ((call, provider), pbx) in calls.iter().zip(provider).zip(pbx) {
            listeners.push((call.number, Way::In, pbx.try_clone()?));
            listeners.push((call.number, Way::Out, provider.try_clone()?));
            for (way, from, to) in [
                (Way::In, provider, call.pbx_media),
                (Way::Out, pbx, call.provider_media),
            ] {
                streams.push(Stream {
                    call: call.number,
                    way,
                    from,
                    to,
                });
            }
        }
        let received = Arc::new(Received::default());
        let receiver = {
            let received = Arc::clone(&received);
            thread::spawn(move || receive(&listeners, &received))
        };
        Ok(Self {
            streams,
            sent: BTreeMap::new(),
            received,
            receiver: Some(receiver),
        })
    }

    /// Sends `packets` on both streams of each chosen call, in real time, spread over each 20 ms as independent calls would be. The
    /// provider's half comes first in every turn, so that address translation sees a flow from one side before the other.
    ///
    /// # Errors
    /// Where a socket refuses.
    pub fn send(&mut self, chosen: impl Fn(u16) -> bool, packets: u32) -> Result<()> {
        let mut turn: Vec<&Stream> = self
            .streams
            .iter()
            .filter(|stream| chosen(stream.call))
            .collect();
        turn.sort_by_key(|stream| stream.way);
        let pause = PACKET_TIME / u32::try_from(turn.len()).unwrap_or(u32::MAX).max(1);
        let mut due = Instant::now();
        for _ in 0..packets {
            for stream in &turn {
                let number = self.sent.entry((stream.call, stream.way)).or_default();
                stream
                    .from
                    .send_to(&packet(stream.call, stream.way, *number), stream.to)
                    .with_context(|| format!("cannot send RTP to {}", stream.to))?;
                *number += 1;
                due += pause;
                // Sleeping is coarse; a few packets back to back are what a network does, too.
                if let Some(wait) = due.checked_duration_since(Instant::now())
                    && wait > Duration::from_millis(1)
                {
                    thread::sleep(wait);
                }
            }
        }
        Ok(())
    }

    /// Sends one marked packet per chosen call to the PBX, from the very socket that carried the call's audio: RTP after BYE.
    ///
    /// # Errors
    /// Where a socket refuses.
    pub fn send_after_bye(&self, chosen: impl Fn(u16) -> bool, packets: u32) -> Result<u64> {
        let mut sent = 0;
        for _ in 0..packets {
            for stream in &self.streams {
                if stream.way == Way::In && chosen(stream.call) {
                    let mut bytes = rtp_header(stream.call, Way::In, 40_000);
                    bytes.extend(attack::marker(attack::Kind::AfterBye));
                    stream.from.send_to(&bytes, stream.to)?;
                    sent += 1;
                    if sent % 8 == 0 {
                        thread::sleep(Duration::from_millis(1));
                    }
                }
            }
        }
        Ok(sent)
    }

    /// How many packets have arrived so far, over all streams.
    #[must_use]
    pub fn delivered_so_far(&self) -> u64 {
        self.received.total.load(Ordering::Relaxed)
    }

    /// A way to read the number of delivered packets from another thread.
    pub fn delivered_meter(&self) -> impl Fn() -> u64 + Send + use<> {
        let received = Arc::clone(&self.received);
        move || received.total.load(Ordering::Relaxed)
    }

    /// Counts of every stream.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let seen = self
            .received
            .seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.sent
            .iter()
            .map(|(&stream, &sent)| {
                let delivered = seen
                    .get(&stream)
                    .map_or(0, |seen| seen.iter().filter(|&&s| s).count());
                (
                    stream,
                    Count {
                        sent,
                        delivered: u32::try_from(delivered).unwrap_or(u32::MAX),
                    },
                )
            })
            .collect()
    }

    /// Waits until everything sent has arrived, or until nothing has for 300 ms.
    pub fn settle(&self) {
        let total: u64 = self.sent.values().map(|&n| u64::from(n)).sum();
        let mut last = self.delivered_so_far();
        loop {
            if last >= total {
                return;
            }
            thread::sleep(Duration::from_millis(300));
            let now = self.delivered_so_far();
            if now == last {
                return;
            }
            last = now;
        }
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        self.received.stop.store(true, Ordering::Relaxed);
        if let Some(receiver) = self.receiver.take() {
            let _ = receiver.join();
        }
    }
}

/// An RTP packet without its payload: version 2, PCMU, a source number made of call and way.
#[must_use]
pub fn rtp_header(call: u16, way: Way, sequence: u32) -> Vec<u8> {
    let mut bytes = vec![0x80, 0];
    bytes.extend(
        u16::try_from(sequence & 0xffff)
            .unwrap_or_default()
            .to_be_bytes(),
    );
    bytes.extend(sequence.wrapping_mul(160).to_be_bytes());
    bytes.extend((u32::from(call) << 1 | u32::from(way == Way::Out)).to_be_bytes());
    bytes
}

/// One packet of a stream.
#[must_use]
pub fn packet(call: u16, way: Way, number: u32) -> Vec<u8> {
    let mut bytes = rtp_header(call, way, number);
    bytes.extend(MAGIC);
    bytes.extend(call.to_be_bytes());
    bytes.push(u8::from(way == Way::Out));
    bytes.extend(number.to_be_bytes());
    bytes.resize(HEADER + PAYLOAD, 0xff);
    bytes
}

/// Makes another packet of the same stream of it.
pub(crate) fn renumber(packet: &mut [u8], number: u32) {
    let sequence = u16::try_from(number & 0xffff).unwrap_or_default();
    let fields: [(usize, &[u8]); 3] = [
        (2, &sequence.to_be_bytes()),
        (4, &number.wrapping_mul(160).to_be_bytes()),
        (NUMBER, &number.to_be_bytes()),
    ];
    for (at, bytes) in fields {
        if let Some(place) = packet.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }
}

/// Whose packet it is, if it is one of a call's.
#[must_use]
pub fn attribute(bytes: &[u8]) -> Option<(u16, Way, u32)> {
    let rest = bytes.get(HEADER..)?.strip_prefix(MAGIC)?;
    let (&call, rest) = rest.split_first_chunk::<2>()?;
    let (&way, rest) = rest.split_first()?;
    let (&number, _) = rest.split_first_chunk::<4>()?;
    let way = if way == 0 { Way::In } else { Way::Out };
    Some((u16::from_be_bytes(call), way, u32::from_be_bytes(number)))
}

/// Sockets in a namespace that do not block and take bursts.
pub(crate) fn bind_all(
    namespace: &Namespace,
    addresses: impl Iterator<Item = SocketAddr> + Send,
) -> Result<Vec<UdpSocket>> {
    namespace.enter(|| {
        addresses
            .map(|at| {
                let socket = UdpSocket::bind(at).with_context(|| format!("cannot bind {at}"))?;
                socket.set_nonblocking(true)?;
                set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER)?;
                Ok(socket)
            })
            .collect()
    })?
}

fn receive(listeners: &[(u16, Way, UdpSocket)], received: &Received) {
    let mut waiting: Vec<PollFd<'_>> = listeners
        .iter()
        .map(|(_, _, socket)| PollFd::new(socket, PollFlags::IN))
        .collect();
    let patience = Timespec {
        tv_sec: 0,
        tv_nsec: 50_000_000,
    };
    let mut buffer = [0_u8; 2048];
    while !received.stop.load(Ordering::Relaxed) {
        if !matches!(poll(&mut waiting, Some(&patience)), Ok(1..)) {
            continue;
        }
        let mut seen = received.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for (ready, (call, way, socket)) in waiting.iter().zip(listeners) {
            if ready.revents().is_empty() {
                continue;
            }
            while let Ok((length, _)) = socket.recv_from(&mut buffer) {
                if let Some((of, direction, number)) = attribute(&buffer[..length])
                    && (of, direction) == (*call, *way)
                {
                    let seen = seen.entry((of, direction)).or_default();
                    let index = number as usize;
                    if seen.len() <= index {
                        seen.resize(index + 1, false);
                    }
                    if !std::mem::replace(&mut seen[index], true) {
                        received.total.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_attributed_to_its_call_way_and_number() {
        let bytes = packet(7, Way::Out, 70_000);
        assert_eq!(attribute(&bytes), Some((7, Way::Out, 70_000)));
        assert_eq!(attribute(&bytes[..20]), None);
        assert_eq!(bytes.len(), 172);
    }

    #[test]
    fn a_packet_with_another_number_is_the_one_that_would_have_been_made() {
        let mut bytes = packet(7, Way::Out, 3);
        renumber(&mut bytes, 70_000);
        assert_eq!(bytes, packet(7, Way::Out, 70_000));
    }
}
