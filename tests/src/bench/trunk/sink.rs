//! The PBX's media: sockets that note which RTP packets of which call have arrived.
//!
//! One thread reads them all. It answers nothing and judges nothing; a packet is known by its contents, not by its socket.

use std::{
    net::{SocketAddr, UdpSocket},
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result};
use rustix::event::{Timespec, epoll};

use crate::lab::namespace::Namespace;

const HEADER: usize = 12;
const PAYLOAD: usize = 160;
const MAGIC: &[u8; 8] = b"sflbench";
/// Packets of one call that can be told apart.
pub const MOST_PACKETS: u32 = 64;

/// An RTP packet (RFC 3550 §5.1) of 20 ms of PCMU, with its call and its number in the payload.
#[must_use]
pub fn packet(call: u32, number: u32) -> [u8; HEADER + PAYLOAD] {
    let mut bytes = [0xff; HEADER + PAYLOAD];
    let fields: [&[u8]; 7] = [
        &[0x80, 0],
        &(number as u16).to_be_bytes(),
        &(number * 160).to_be_bytes(),
        &call.to_be_bytes(),
        MAGIC,
        &call.to_be_bytes(),
        &number.to_be_bytes(),
    ];
    let mut rest = bytes.iter_mut();
    for (to, from) in rest.by_ref().zip(fields.into_iter().flatten()) {
        *to = *from;
    }
    bytes
}

fn attribute(bytes: &[u8]) -> Option<(u32, u32)> {
    let rest = bytes.get(HEADER..)?.strip_prefix(MAGIC)?;
    let (call, rest) = rest.split_first_chunk()?;
    let (number, _) = rest.split_first_chunk()?;
    Some((u32::from_be_bytes(*call), u32::from_be_bytes(*number)))
}

/// The sockets and their reader.
#[derive(Debug)]
pub struct Sink {
    seen: Arc<[AtomicU64]>,
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<Result<()>>>,
}

impl Sink {
    /// Listens at each of these addresses for the packets of so many calls.
    ///
    /// # Errors
    /// Where an address cannot be bound.
    pub fn start(namespace: &Namespace, at: &[SocketAddr], calls: u32) -> Result<Self> {
        let sockets = namespace.enter(|| -> Result<Vec<UdpSocket>> {
            at.iter()
                .map(|at| {
                    let socket =
                        UdpSocket::bind(at).with_context(|| format!("cannot bind {at}"))?;
                    socket.set_nonblocking(true)?;
                    Ok(socket)
                })
                .collect()
        })??;
        let events = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for (index, socket) in sockets.iter().enumerate() {
            let data = epoll::EventData::new_u64(index as u64);
            epoll::add(&events, socket, data, epoll::EventFlags::IN)?;
        }
        let seen: Arc<[AtomicU64]> = (0..calls).map(|_| AtomicU64::new(0)).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let reader = {
            let (seen, stop) = (Arc::clone(&seen), Arc::clone(&stop));
            thread::Builder::new()
                .name("sink".into())
                .spawn(move || read(&events, &sockets, &seen, &stop))?
        };
        Ok(Self {
            seen,
            stop,
            reader: Some(reader),
        })
    }

    /// A bit for each packet of a call that has arrived, the first one's lowest.
    #[must_use]
    pub fn seen(&self, call: u32) -> u64 {
        self.seen
            .get(call as usize)
            .map_or(0, |seen| seen.load(Ordering::Relaxed))
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(Ok(Err(error))) = self.reader.take().map(JoinHandle::join) {
            eprintln!("the media sink stopped: {error:#}");
        }
    }
}

fn read(
    events: &OwnedFd,
    sockets: &[UdpSocket],
    seen: &[AtomicU64],
    stop: &AtomicBool,
) -> Result<()> {
    let patience = Timespec {
        tv_sec: 0,
        tv_nsec: 50_000_000,
    };
    let mut buffer = [0_u8; 2048];
    let mut ready = Vec::with_capacity(256);
    while !stop.load(Ordering::Relaxed) {
        ready.clear();
        match epoll::wait(
            events,
            rustix::buffer::spare_capacity(&mut ready),
            Some(&patience),
        ) {
            Err(rustix::io::Errno::INTR) => continue,
            done => done?,
        };
        for event in &ready {
            let Some(socket) = sockets.get(event.data.u64() as usize) else {
                continue;
            };
            while let Ok(length) = socket.recv(&mut buffer) {
                if let Some((call, number)) = buffer.get(..length).and_then(attribute)
                    && number < MOST_PACKETS
                    && let Some(seen) = seen.get(call as usize)
                {
                    seen.fetch_or(1 << number, Ordering::Relaxed);
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_tells_its_call_and_number() {
        let bytes = packet(70_000, 5);
        assert_eq!(attribute(&bytes), Some((70_000, 5)));
        assert_eq!(bytes.first(), Some(&0x80));
        assert_eq!(attribute(&bytes[..20]), None);
    }
}
