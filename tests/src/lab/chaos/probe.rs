//! A stranger who tries one closed port a thousand times a second: what arrives came through a moment without a filter.
//!
//! It counts what it sends, and how long it was itself kept from sending; whether something arrived is the listener's to say.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::lab::{
    address::Place,
    rtp::{Way, rtp_header},
    topology::Network,
};

const PACE: Duration = Duration::from_millis(1);
const PORT: u16 = 45_679;

/// The thread that sends.
pub struct Probe {
    shared: Arc<Shared>,
    thread: Option<thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    sent: AtomicU64,
    longest: AtomicU64,
}

impl Probe {
    /// Starts sending.
    ///
    /// # Errors
    /// Where the address cannot be bound.
    pub fn start(network: &Network, to: SocketAddr) -> Result<Self> {
        let at = SocketAddr::new(Place::Stranger.address(network.family), PORT);
        let socket = network
            .stranger
            .enter(|| UdpSocket::bind(at).with_context(|| format!("cannot bind {at}")))??;
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            let mut packet = rtp_header(0, Way::In, 0);
            packet.resize(172, 0xff);
            let mut last = Instant::now();
            while !theirs.stop.load(Ordering::Relaxed) {
                if socket.send_to(&packet, to).is_ok() {
                    theirs.sent.fetch_add(1, Ordering::Relaxed);
                    let gap = last.elapsed();
                    last = Instant::now();
                    let gap = u64::try_from(gap.as_nanos()).unwrap_or(u64::MAX);
                    theirs.longest.fetch_max(gap, Ordering::Relaxed);
                }
                thread::sleep(PACE);
            }
        });
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// How many packets were sent so far.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }

    /// The longest time between two packets since this was asked last.
    pub fn take_longest_gap(&self) -> Duration {
        Duration::from_nanos(self.shared.longest.swap(0, Ordering::Relaxed))
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
