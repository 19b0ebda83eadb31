//! What reaches the PBX: an AF_PACKET socket (packet(7)) in its namespace that counts the attackers' markers on every frame addressed to it.
//!
//! It sees what the kernel took off the wire, whether or not anybody listens on the port; frames that XDP dropped, native or generic,
//! never come this far. It judges nothing but markers and destination.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use anyhow::Result;

use super::{
    attack::{self, Kind},
    link::Link,
    namespace::Namespace,
};

/// Counts of marked packets that arrived.
#[derive(Debug)]
pub struct Sniffer {
    shared: Arc<Shared>,
    thread: Option<thread::JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    counts: [AtomicU64; Kind::ALL.len()],
}

impl Sniffer {
    /// Starts counting frames to any of `addresses`.
    ///
    /// # Errors
    /// Without root's privileges.
    pub fn start(namespace: &Namespace, addresses: Vec<IpAddr>) -> Result<Self> {
        let tap = Link::tap(namespace)?;
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            counts: [const { AtomicU64::new(0) }; Kind::ALL.len()],
        });
        let thread = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let mut buffer = [0_u8; 65_536];
                loop {
                    match tap.receive(&mut buffer) {
                        Some(frame) => {
                            if let Some(kind) = arrival(frame, &addresses) {
                                shared.counts[kind as usize].fetch_add(1, Ordering::Relaxed);
                            }
                        }
                        // Only an idle tap is left, so that everything that arrived before the stop is counted.
                        None if shared.stop.load(Ordering::Relaxed) => break,
                        None => {}
                    }
                }
            })
        };
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// How many packets of one kind have arrived.
    #[must_use]
    pub fn count(&self, kind: Kind) -> u64 {
        self.shared.counts[kind as usize].load(Ordering::Relaxed)
    }
}

impl Drop for Sniffer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Every frame that a namespace's interfaces sent and received, kept as bytes.
#[derive(Debug)]
pub struct Recorder {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<Vec<Vec<u8>>>,
}

impl Recorder {
    /// Starts recording.
    ///
    /// # Errors
    /// Without root's privileges.
    pub fn start(namespace: &Namespace) -> Result<Self> {
        let tap = Link::tap(namespace)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut frames = Vec::new();
            let mut buffer = [0_u8; 65_536];
            loop {
                match tap.receive(&mut buffer) {
                    Some(frame) => frames.push(frame.to_vec()),
                    None if stopped.load(Ordering::Relaxed) => return frames,
                    None => {}
                }
            }
        });
        Ok(Self { stop, thread })
    }

    /// Stops once the tap is idle, and gives the frames in their order.
    ///
    /// # Errors
    /// Where the recording thread panicked.
    pub fn finish(self) -> Result<Vec<Vec<u8>>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .map_err(|_| anyhow::anyhow!("the recorder panicked"))
    }
}

/// The marker of a frame that is addressed to the PBX. An ICMP error that quotes a marked packet goes the other way and is not one.
fn arrival(frame: &[u8], addresses: &[IpAddr]) -> Option<Kind> {
    let (to, transport) = destination(frame)?;
    if !addresses.contains(&to) {
        return None;
    }
    attack::find_marker(transport)
}

/// The destination of an Ethernet frame's IP packet, and what follows the fixed IP header.
#[must_use]
pub fn destination(frame: &[u8]) -> Option<(IpAddr, &[u8])> {
    let packet = frame.get(14..)?;
    match frame.get(12..14)? {
        [0x08, 0x00] => {
            let octets: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
            Some((octets.into(), packet.get(20..)?))
        }
        [0x86, 0xdd] => {
            let octets: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
            Some((octets.into(), packet.get(40..)?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_marked_frames_to_the_pbx_are_arrivals() {
        let pbx: IpAddr = "203.0.113.10".parse().unwrap();
        let mut frame = vec![0; 14];
        frame[12] = 8;
        frame.extend([
            0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 66, 203, 0, 113, 10,
        ]);
        frame.extend([0; 8]);
        assert_eq!(arrival(&frame, &[pbx]), None, "no marker");
        frame.extend(attack::marker(Kind::OpenPort));
        assert_eq!(arrival(&frame, &[pbx]), Some(Kind::OpenPort));
        assert_eq!(arrival(&frame, &[]), None, "not addressed to the PBX");
        assert_eq!(arrival(&frame[..30], &[pbx]), None, "cut short");
    }
}
