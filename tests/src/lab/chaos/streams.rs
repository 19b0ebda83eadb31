//! The audio of all calls at once, at the rate of real calls: every packet numbered, every socket's arrivals counted.
//!
//! Two threads send and two receive, whatever the number of calls. The sockets take packets from anybody, as a PBX's do; there are sockets
//! on the closed ports, too, so that what a stranger gets through is counted wherever it goes. Invariant: between two tallies that
//! were taken while nobody talks, what was sent and not counted as delivered is lost.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc, PoisonError, RwLock, RwLockWriteGuard,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
    process::{Resource, getrlimit, setrlimit},
};

use crate::lab::{
    address::PBX_RTP_LAST,
    attack::{self, Kind},
    call::Call,
    rtp::{self, PACKET_TIME, Way, bind_all},
    topology::Network,
};

/// How many times in 20 ms a sender wakes up, so that its packets are spread over them.
const TURNS: usize = 10;
/// Who is later than this has been kept from sending, and does not make up for it.
const LATE: Duration = Duration::from_millis(100);
/// Between two turns of a sender that makes up for lost time.
const BREATH: Duration = Duration::from_micros(300);

/// The sockets of all calls, and the threads on them. Quiet until [`Streams::talk`].
pub struct Streams {
    shared: Arc<Shared>,
    /// Held while nobody talks.
    after_bye: Vec<(Arc<UdpSocket>, SocketAddr)>,
    threads: Vec<thread::JoinHandle<()>>,
}

struct Shared {
    stop: AtomicBool,
    /// Senders send while they can read it and it says so.
    talking: RwLock<bool>,
    /// By number of the stream: twice the call's, and one more on its way out.
    sent: Vec<AtomicU32>,
    delivered: Vec<AtomicU32>,
    refused: AtomicU64,
    arrived: [AtomicU64; Kind::ALL.len()],
    probes: AtomicU64,
}

/// What a socket is for.
#[derive(Debug, Clone, Copy)]
enum Ear {
    /// A call's stream.
    Stream(u16, Way),
    /// Nobody's call.
    Closed,
    /// The port that is probed.
    Probed,
}

/// What all streams have sent and lost.
pub struct Tally {
    /// Packets sent.
    pub sent: u64,
    /// Packets that did not arrive.
    pub lost: u64,
    /// The streams that lost some.
    pub losses: Vec<String>,
}

/// Counts of every stream at a moment.
pub struct Snapshot(Vec<(u32, u32)>);

impl Snapshot {
    /// What has happened since another one.
    pub fn since(&self, before: &Self) -> Tally {
        let mut tally = Tally {
            sent: 0,
            lost: 0,
            losses: Vec::new(),
        };
        for (number, (now, before)) in self.0.iter().zip(&before.0).enumerate() {
            let sent = now.0 - before.0;
            let lost = sent.saturating_sub(now.1 - before.1);
            tally.sent += u64::from(sent);
            tally.lost += u64::from(lost);
            if lost > 0 && tally.losses.len() < 8 {
                let way = if number.is_multiple_of(2) {
                    "in"
                } else {
                    "out"
                };
                tally
                    .losses
                    .push(format!("call {} {way}: {lost} of {sent}", number / 2));
            }
        }
        tally
    }
}

/// Everybody talks until this is dropped.
pub struct Talking<'a>(&'a Shared);

impl Drop for Talking<'_> {
    fn drop(&mut self) {
        *write(&self.0.talking) = false;
    }
}

fn write(talking: &RwLock<bool>) -> RwLockWriteGuard<'_, bool> {
    talking.write().unwrap_or_else(PoisonError::into_inner)
}

/// The closed port that is probed, on the media address of these calls. No attack of another kind names it.
pub fn probed(calls: &[Call]) -> SocketAddr {
    let address = calls.first().map_or(IpAddr::from([0, 0, 0, 0]), |call| {
        call.pbx_media_inside.ip()
    });
    SocketAddr::new(address, PBX_RTP_LAST - 1)
}

impl Streams {
    /// Binds everything in the provider's and the PBX's namespace.
    ///
    /// # Errors
    /// Where an address cannot be bound.
    pub fn bind(network: &Network, calls: &[Call]) -> Result<Self> {
        allow_files()?;
        let outside = bind_all(
            &network.provider,
            calls.iter().map(|call| call.provider_media),
        )?;
        let inside = bind_all(
            network.pbx(),
            calls.iter().map(|call| call.pbx_media_inside),
        )?;
        let closed: Vec<SocketAddr> = calls.iter().flat_map(attack::closed_ports).collect();
        let closed = bind_all(network.pbx(), closed.into_iter())?;
        let probed = bind_all(network.pbx(), std::iter::once(probed(calls)))?;

        let mut pbx: Vec<(Ear, Arc<UdpSocket>)> = closed
            .into_iter()
            .map(|socket| (Ear::Closed, Arc::new(socket)))
            .chain(
                probed
                    .into_iter()
                    .map(|socket| (Ear::Probed, Arc::new(socket))),
            )
            .collect();
        let mut provider = Vec::new();
        let (mut arriving, mut leaving) = (Vec::new(), Vec::new());
        for ((call, outside), inside) in calls.iter().zip(outside).zip(inside) {
            let (outside, inside) = (Arc::new(outside), Arc::new(inside));
            arriving.push((Arc::clone(&outside), call.pbx_media));
            leaving.push((Arc::clone(&inside), call.provider_media));
            provider.push((Ear::Stream(call.number, Way::Out), outside));
            pbx.push((Ear::Stream(call.number, Way::In), inside));
        }
        let counters = || (0..2 * calls.len()).map(|_| AtomicU32::new(0)).collect();
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            talking: RwLock::new(false),
            sent: counters(),
            delivered: counters(),
            refused: AtomicU64::new(0),
            arrived: [const { AtomicU64::new(0) }; Kind::ALL.len()],
            probes: AtomicU64::new(0),
        });
        let after_bye = arriving.clone();
        let mut threads = Vec::new();
        for listeners in [pbx, provider] {
            let queue = watch(&listeners)?;
            let shared = Arc::clone(&shared);
            threads.push(thread::spawn(move || listen(&queue, &listeners, &shared)));
        }
        for (way, streams) in [(Way::In, arriving), (Way::Out, leaving)] {
            let shared = Arc::clone(&shared);
            threads.push(thread::spawn(move || talk(way, &streams, &shared)));
        }
        Ok(Self {
            shared,
            after_bye,
            threads,
        })
    }

    /// Everybody talks until what is returned is dropped.
    pub fn talk(&self) -> Talking<'_> {
        *write(&self.shared.talking) = true;
        Talking(&self.shared)
    }

    /// Counts of every stream.
    pub fn tally(&self) -> Snapshot {
        let pairs = self.shared.sent.iter().zip(&self.shared.delivered);
        Snapshot(
            pairs
                .map(|(sent, delivered)| {
                    let delivered = delivered.load(Ordering::Relaxed);
                    (sent.load(Ordering::Relaxed), delivered)
                })
                .collect(),
        )
    }

    /// Waits until everything that was sent has arrived, or until nothing has for half a second.
    pub fn settle(&self) {
        let totals = || {
            let Snapshot(counts) = self.tally();
            counts.iter().fold((0_u64, 0_u64), |(sent, come), count| {
                (sent + u64::from(count.0), come + u64::from(count.1))
            })
        };
        let (sent, mut last) = totals();
        let mut moved = Instant::now();
        while last < sent && moved.elapsed() < Duration::from_millis(500) {
            thread::sleep(Duration::from_millis(20));
            let (_, now) = totals();
            if now > last {
                (last, moved) = (now, Instant::now());
            }
        }
        // Nobody waits for what should not arrive; it gets the same time.
        thread::sleep(Duration::from_millis(100));
    }

    /// How many marked packets of each kind have arrived at any of the PBX's ports.
    pub fn arrived(&self) -> [u64; Kind::ALL.len()] {
        Kind::ALL.map(|kind| self.shared.arrived[kind as usize].load(Ordering::Relaxed))
    }

    /// How many packets have arrived at the port that is probed.
    pub fn probes(&self) -> u64 {
        self.shared.probes.load(Ordering::Relaxed)
    }

    /// What to say where a socket did not take a packet.
    pub fn refused(&self) -> Option<String> {
        let refused = self.shared.refused.load(Ordering::Relaxed);
        (refused > 0).then(|| format!("{refused} RTP packets could not even be sent"))
    }

    /// One marked packet for each call, from the very socket that carried its audio.
    ///
    /// # Errors
    /// Where a socket refuses.
    pub fn send_after_bye(&self) -> Result<u64> {
        let mut sent = 0;
        for (number, (socket, to)) in (0..).zip(&self.after_bye) {
            let mut packet = rtp::rtp_header(number, Way::In, 40_000);
            packet.extend(attack::marker(Kind::AfterBye));
            socket.send_to(&packet, to)?;
            sent += 1;
            if sent % 8 == 0 {
                thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(sent)
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Four sockets for each call are more than many a shell allows.
fn allow_files() -> Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).context("cannot raise the limit of open files")
}

fn talk(way: Way, streams: &[(Arc<UdpSocket>, SocketAddr)], shared: &Shared) {
    let mut packets: Vec<Vec<u8>> = (0..)
        .zip(streams)
        .map(|(call, _)| rtp::packet(call, way, 0))
        .collect();
    let turn = streams.len().div_ceil(TURNS);
    let pause = PACKET_TIME * u32::try_from(turn).unwrap_or(1)
        / u32::try_from(streams.len()).unwrap_or(u32::MAX).max(1);
    let mut next = 0;
    let mut due = Instant::now();
    while !shared.stop.load(Ordering::Relaxed) {
        {
            let talking = shared
                .talking
                .read()
                .unwrap_or_else(PoisonError::into_inner);
            for _ in 0..turn {
                if !*talking {
                    break;
                }
                let sent = &shared.sent[2 * next + usize::from(way == Way::Out)];
                let (socket, to) = &streams[next];
                rtp::renumber(&mut packets[next], sent.load(Ordering::Relaxed));
                match socket.send_to(&packets[next], to) {
                    Ok(_) => sent.fetch_add(1, Ordering::Relaxed),
                    Err(_) => {
                        shared.refused.fetch_add(1, Ordering::Relaxed);
                        0
                    }
                };
                next = (next + 1) % streams.len();
            }
        }
        due += pause;
        let now = Instant::now();
        if now > due + LATE {
            due = now;
        }
        thread::sleep(due.saturating_duration_since(now).max(BREATH));
    }
}

fn watch(listeners: &[(Ear, Arc<UdpSocket>)]) -> Result<rustix::fd::OwnedFd> {
    let queue = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for (number, (_, socket)) in (0..).zip(listeners) {
        let data = epoll::EventData::new_u64(number);
        epoll::add(&queue, &**socket, data, epoll::EventFlags::IN)?;
    }
    Ok(queue)
}

fn listen(queue: &rustix::fd::OwnedFd, listeners: &[(Ear, Arc<UdpSocket>)], shared: &Shared) {
    let patience = Timespec {
        tv_sec: 0,
        tv_nsec: 50_000_000,
    };
    let mut events: Vec<epoll::Event> = Vec::with_capacity(256);
    // A bit for each packet of each socket's stream, so that none counts twice.
    let mut seen: Vec<Vec<u64>> = vec![Vec::new(); listeners.len()];
    let mut buffer = [0_u8; 2048];
    while !shared.stop.load(Ordering::Relaxed) {
        events.clear();
        if epoll::wait(queue, spare_capacity(&mut events), Some(&patience)).is_err() {
            continue;
        }
        for event in &events {
            let number = event.data.u64() as usize;
            let (ear, socket) = &listeners[number];
            while let Ok(length) = socket.recv(&mut buffer) {
                shared.handle(*ear, &buffer[..length], &mut seen[number]);
            }
        }
        // A few packets at a time cost less than each alone.
        thread::sleep(Duration::from_millis(2));
    }
}

impl Shared {
    fn handle(&self, ear: Ear, packet: &[u8], seen: &mut Vec<u64>) {
        match ear {
            Ear::Probed => {
                self.probes.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Ear::Stream(call, way) => {
                if let Some((of, direction, number)) = rtp::attribute(packet)
                    && (of, direction) == (call, way)
                {
                    let (word, bit) = (number as usize / 64, 1 << (number % 64));
                    if seen.len() <= word {
                        seen.resize(word + 1, 0);
                    }
                    if seen[word] & bit == 0 {
                        seen[word] |= bit;
                        let stream = 2 * usize::from(call) + usize::from(way == Way::Out);
                        self.delivered[stream].fetch_add(1, Ordering::Relaxed);
                    }
                    return;
                }
            }
            Ear::Closed => {}
        }
        if let Some(kind) = attack::find_marker(packet) {
            self.arrived[kind as usize].fetch_add(1, Ordering::Relaxed);
        }
    }
}
