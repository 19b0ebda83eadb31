//! A provider that calls at a steady rate and a PBX that answers at once, made for exact times: a thread each, nothing else.
//!
//! The provider sends its first RTP packet before anything else when the PBX's 200 arrives: no real provider is as fast, and the link
//! between the two has no delay. It owns the calls' timing and their counts, not the network and not the filter.

pub mod message;
pub mod sink;

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::sockopt::set_socket_recv_buffer_size_force,
};

use self::{
    message::{Ends, Kind},
    sink::{MOST_PACKETS, Sink},
};
use crate::lab::{
    address::{
        PBX_RTP_FIRST, PBX_RTP_LAST, PROVIDER_MEDIA_COUNT, PROVIDER_RTP_FIRST, Place, SIP_PORT,
    },
    namespace::Namespace,
    rtp::PACKET_TIME,
    topology::Network,
};

const RECEIVE_BUFFER: usize = 8 << 20;
/// How long the last messages may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is to be called.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Calls per second.
    pub rate: u32,
    /// Calls in all.
    pub calls: u32,
    /// RTP packets per call, from the provider to the PBX.
    pub packets: u32,
    /// From the answer to the BYE, at least.
    pub hold: Duration,
    /// PBX media ports that take turns; more than calls that stand at once.
    pub ports: u32,
    /// From the answer to the first RTP packet.
    pub silence: Duration,
    /// Where the provider's media comes from; its SDP says so.
    pub media: Media,
}

impl Default for Plan {
    /// Nothing but calls: ten per second, one hundred, no audio.
    fn default() -> Self {
        Self {
            rate: 10,
            calls: 100,
            packets: 0,
            hold: Duration::ZERO,
            ports: 2_000,
            silence: Duration::ZERO,
            media: Media::Elsewhere,
        }
    }
}

/// Where the provider's media comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    /// The address that it signals from.
    Signalling,
    /// Addresses of its own, as with most providers.
    Elsewhere,
}

/// What came of it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    /// Calls that the PBX answered and the provider heard of.
    pub answered: u32,
    /// Calls that ended with a BYE and its 200.
    pub ended: u32,
    /// Calls of which at least one RTP packet arrived.
    pub heard: u32,
    /// Calls whose first RTP packet did not arrive.
    pub first_lost: u32,
    /// RTP packets sent.
    pub sent: u64,
    /// RTP packets that did not arrive.
    pub lost: u64,
    /// From the PBX's sending of the 200 to the provider's sending of the first RTP packet: the median.
    pub turnaround: Duration,
    /// From the first INVITE to the last.
    pub took: Duration,
}

impl Tally {
    /// Fails unless every call was made to its end: what is measured of half of the calls means nothing.
    ///
    /// # Errors
    /// With the numbers.
    pub fn expect_all_calls(&self, plan: &Plan) -> Result<()> {
        if (self.answered, self.ended) != (plan.calls, plan.calls) {
            bail!(
                "of {} calls at {} per second {} were answered and {} ended: the generator is not up to it here",
                plan.calls,
                plan.rate,
                self.answered,
                self.ended
            );
        }
        let due = Duration::from_secs(1) * plan.calls / plan.rate;
        if self.took > due + due / 10 {
            bail!(
                "{} calls at {} per second took {:.1} s instead of {:.1} s: the generator is not up to it here",
                plan.calls,
                plan.rate,
                self.took.as_secs_f64(),
                due.as_secs_f64()
            );
        }
        Ok(())
    }
}

/// Sockets of a run.
#[derive(Debug)]
pub struct Trunk {
    plan: Plan,
    ends: Vec<Ends>,
    provider: UdpSocket,
    provider_media: Vec<UdpSocket>,
    pbx: UdpSocket,
    sink: Option<Sink>,
    /// When the PBX sent each call's 200, in nanoseconds since the start.
    answered_at: Arc<[AtomicU64]>,
    standing: Arc<AtomicU32>,
}

impl Trunk {
    /// Binds everything.
    ///
    /// # Errors
    /// Where an address cannot be bound, or the plan asks for more than there is.
    pub fn new(network: &Network, plan: Plan) -> Result<Self> {
        if plan.packets > MOST_PACKETS {
            bail!(
                "{} RTP packets per call; at most {MOST_PACKETS} can be told apart",
                plan.packets
            );
        }
        let family = network.family;
        let [provider, pbx] =
            [Place::ProviderCaller, Place::PbxCallee].map(|place| place.address(family));
        let media: Vec<SocketAddr> = match plan.media {
            Media::Signalling => vec![SocketAddr::new(provider, PROVIDER_RTP_FIRST)],
            Media::Elsewhere => (0..PROVIDER_MEDIA_COUNT)
                .map(|index| Place::ProviderMedia(index).address(family))
                .map(|address| SocketAddr::new(address, PROVIDER_RTP_FIRST))
                .collect(),
        };
        // Each call has a port for RTP and one for RTCP; where one address has too few, the PBX has another.
        let pbx_media: &[Place] = if plan.ports <= u32::from(PBX_RTP_LAST - PBX_RTP_FIRST) / 2 {
            &[Place::PbxCallee]
        } else {
            &[Place::PbxCallee, Place::PbxCaller]
        };
        let ends: Vec<Ends> = (0..plan.ports as usize)
            .map(|index| -> Result<Ends> {
                let address = pbx_media[index % pbx_media.len()].address(family);
                let port = usize::from(PBX_RTP_FIRST) + index / pbx_media.len() * 2;
                if port >= usize::from(PBX_RTP_LAST) {
                    bail!("{} media ports are more than the PBX has", plan.ports);
                }
                Ok(Ends {
                    provider,
                    pbx,
                    provider_media: media[index % media.len()],
                    pbx_media: SocketAddr::new(address, u16::try_from(port)?),
                })
            })
            .collect::<Result<_>>()?;
        let sink = if plan.packets > 0 {
            let at: Vec<SocketAddr> = ends.iter().map(|ends| ends.pbx_media).collect();
            Some(Sink::start(network.pbx(), &at, plan.calls)?)
        } else {
            None
        };
        Ok(Self {
            plan,
            ends,
            provider: bind(&network.provider, SocketAddr::new(provider, SIP_PORT))?,
            provider_media: media
                .into_iter()
                .map(|at| bind(&network.provider, at))
                .collect::<Result<_>>()?,
            pbx: bind(network.pbx(), SocketAddr::new(pbx, SIP_PORT))?,
            sink,
            answered_at: (0..plan.calls).map(|_| AtomicU64::new(0)).collect(),
            standing: Arc::default(),
        })
    }

    /// How many calls stand at this moment, for another thread.
    #[must_use]
    pub fn standing(&self) -> Arc<AtomicU32> {
        Arc::clone(&self.standing)
    }

    /// Makes all calls and waits until the last has ended.
    ///
    /// # Errors
    /// Where a socket fails.
    pub fn run(&self) -> Result<Tally> {
        let stop = AtomicBool::new(false);
        let start = Instant::now();
        let mut caller = Caller::new(self, start);
        let result = thread::scope(|scope| {
            let pbx = thread::Builder::new()
                .name("pbx".into())
                .spawn_scoped(scope, || self.answer(start, &stop))?;
            let result = thread::Builder::new()
                .name("provider".into())
                .spawn_scoped(scope, || caller.run())?
                .join();
            stop.store(true, Ordering::Relaxed);
            for result in [result, pbx.join()] {
                result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            }
            anyhow::Ok(())
        });
        result?;
        // What is still on its way.
        thread::sleep(Duration::from_millis(300));
        Ok(self.tally(caller))
    }

    fn tally(&self, mut caller: Caller<'_>) -> Tally {
        let mut tally = caller.tally;
        for (call, &sent) in caller.sent.iter().enumerate() {
            let seen = self.sink.as_ref().map_or(0, |sink| sink.seen(call as u32));
            tally.sent += u64::from(sent);
            tally.heard += u32::from(seen != 0);
            tally.lost += u64::from(sent.saturating_sub(seen.count_ones()));
            tally.first_lost += u32::from(sent > 0 && seen & 1 == 0);
        }
        caller.turnarounds.sort_unstable();
        tally.turnaround = caller
            .turnarounds
            .get(caller.turnarounds.len() / 2)
            .copied()
            .unwrap_or_default();
        tally
    }

    fn ends(&self, call: u32) -> &Ends {
        &self.ends[call as usize % self.ends.len()]
    }

    /// The PBX.
    fn answer(&self, start: Instant, stop: &AtomicBool) -> Result<()> {
        let mut buffer = [0_u8; 4096];
        while !stop.load(Ordering::Relaxed) {
            if !wait(&self.pbx, Duration::from_millis(50))? {
                continue;
            }
            while let Ok((length, from)) = self.pbx.recv_from(&mut buffer) {
                let Some((kind @ (Kind::Invite | Kind::Bye), call)) =
                    buffer.get(..length).and_then(message::read)
                else {
                    continue;
                };
                let text = message::response(kind, call, self.ends(call));
                if kind == Kind::Invite
                    && let Some(at) = self.answered_at.get(call as usize)
                {
                    at.store(start.elapsed().as_nanos() as u64, Ordering::Release);
                }
                self.pbx.send_to(text.as_bytes(), from)?;
            }
        }
        Ok(())
    }
}

/// What the provider has to do at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Invite(u32),
    Rtp(u32, u32),
    Bye(u32),
}

/// The provider.
struct Caller<'a> {
    trunk: &'a Trunk,
    start: Instant,
    due: BinaryHeap<Reverse<(Instant, Due)>>,
    sent: Vec<u32>,
    turnarounds: Vec<Duration>,
    tally: Tally,
}

impl<'a> Caller<'a> {
    fn new(trunk: &'a Trunk, start: Instant) -> Self {
        Self {
            trunk,
            start,
            due: BinaryHeap::from([Reverse((start, Due::Invite(0)))]),
            sent: vec![0; trunk.plan.calls as usize],
            turnarounds: Vec::with_capacity(trunk.plan.calls as usize),
            tally: Tally::default(),
        }
    }

    fn run(&mut self) -> Result<()> {
        let mut idle_since = Instant::now();
        loop {
            let now = Instant::now();
            if let Some(Reverse((at, due))) = self.due.peek().copied()
                && at <= now
            {
                self.due.pop();
                self.handle_due(now, at, due)?;
                idle_since = now;
                // What has arrived goes before what is due next.
                self.receive()?;
                continue;
            }
            let patience = match self.due.peek() {
                Some(Reverse((at, _))) => at.saturating_duration_since(now),
                None if self.tally.ended == self.trunk.plan.calls => return Ok(()),
                None if now - idle_since > PATIENCE => return Ok(()),
                None => Duration::from_millis(50),
            };
            if wait(&self.trunk.provider, patience)? {
                self.receive()?;
                idle_since = Instant::now();
            }
        }
    }

    fn handle_due(&mut self, now: Instant, at: Instant, due: Due) -> Result<()> {
        let plan = &self.trunk.plan;
        match due {
            Due::Invite(call) => {
                self.say(Kind::Invite, call)?;
                self.tally.took = now - self.start;
                let next = call + 1;
                if next < plan.calls {
                    let offset = Duration::from_secs(1) * next / plan.rate;
                    self.due
                        .push(Reverse((self.start + offset, Due::Invite(next))));
                }
            }
            Due::Rtp(call, number) => {
                self.talk(call, number)?;
                if number + 1 < plan.packets {
                    self.due
                        .push(Reverse((at + PACKET_TIME, Due::Rtp(call, number + 1))));
                }
            }
            Due::Bye(call) => {
                self.trunk.standing.fetch_sub(1, Ordering::Relaxed);
                self.say(Kind::Bye, call)?;
            }
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<()> {
        let plan = self.trunk.plan;
        let mut buffer = [0_u8; 4096];
        while let Ok(length) = self.trunk.provider.recv(&mut buffer) {
            match buffer.get(..length).and_then(message::read) {
                Some((Kind::Answer, call)) => {
                    let now = Instant::now();
                    if plan.packets > 0 {
                        if plan.silence.is_zero() {
                            self.handle_due(now, now, Due::Rtp(call, 0))?;
                        } else {
                            self.due
                                .push(Reverse((now + plan.silence, Due::Rtp(call, 0))));
                        }
                        if let Some(at) = self.trunk.answered_at.get(call as usize) {
                            let at = Duration::from_nanos(at.load(Ordering::Acquire));
                            self.turnarounds.push((now - self.start).saturating_sub(at));
                        }
                    }
                    self.say(Kind::Ack, call)?;
                    self.tally.answered += 1;
                    self.trunk.standing.fetch_add(1, Ordering::Relaxed);
                    let end = plan.hold.max(plan.silence + PACKET_TIME * plan.packets);
                    self.due.push(Reverse((now + end, Due::Bye(call))));
                }
                Some((Kind::Goodbye, _)) => self.tally.ended += 1,
                _ => {}
            }
        }
        Ok(())
    }

    fn say(&self, kind: Kind, call: u32) -> Result<()> {
        let ends = self.trunk.ends(call);
        let text = message::request(kind, call, ends);
        let to = SocketAddr::new(ends.pbx, SIP_PORT);
        self.trunk
            .provider
            .send_to(text.as_bytes(), to)
            .with_context(|| format!("cannot send SIP to {to}"))?;
        Ok(())
    }

    fn talk(&mut self, call: u32, number: u32) -> Result<()> {
        let media = &self.trunk.provider_media;
        let ends = self.trunk.ends(call);
        // The socket that the SDP names.
        let index = call as usize % self.trunk.ends.len() % media.len();
        media[index]
            .send_to(&sink::packet(call, number), ends.pbx_media)
            .with_context(|| format!("cannot send RTP to {}", ends.pbx_media))?;
        self.sent[call as usize] += 1;
        Ok(())
    }
}

fn bind(namespace: &Namespace, at: SocketAddr) -> Result<UdpSocket> {
    namespace.enter(|| -> Result<UdpSocket> {
        let socket = UdpSocket::bind(at).with_context(|| format!("cannot bind {at}"))?;
        socket.set_nonblocking(true)?;
        set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER)?;
        Ok(socket)
    })?
}

/// Whether something arrived in time.
fn wait(socket: &UdpSocket, patience: Duration) -> Result<bool> {
    let patience = Timespec {
        tv_sec: i64::try_from(patience.as_secs())?,
        tv_nsec: i64::from(patience.subsec_nanos()),
    };
    match poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&patience)) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
