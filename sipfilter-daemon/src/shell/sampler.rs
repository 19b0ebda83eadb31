//! Reads the kernel's samples of dropped packets, and grants it more of them.
//!
//! A thread of its own, which looks ten times a second: nobody is woken by a drop, and nothing that goes on here holds up the task that
//! opens pinholes. Invariant: at most [`GRANT`] samples of each reason are taken in a [`TICK`], whatever comes; and where this thread is
//! not, what is granted runs out, and drops cost nothing more.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, SystemTime},
};

use aya::maps::{Array, MapData, RingBuf};
use sipfilter_common::{
    abi::{SampleGrants, map},
    reason::{Action, Counter, Reason},
    settings::Modes,
};

use super::{
    clock,
    counters::Counters,
    datapath::{Datapath, DatapathError},
    feed::{Feed, Packet},
    interface,
    ledger::{Ledger, verdict_name},
    sample::Sample,
};
use crate::{
    engine::{Direction, Instant, sip::claims::read_claims},
    view,
};

/// Between two looks.
pub const TICK: Duration = Duration::from_millis(100);
/// Samples of one reason in a tick.
pub const GRANT: u32 = 64;
/// Every so many ticks the grants of all reasons are written, and all counters are read.
const SWEEP: u32 = 10;

/// The thread, which ends with this.
#[derive(Debug)]
pub struct Sampler {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The maps, and where what is found in them goes.
pub struct Sources {
    ring: RingBuf<MapData>,
    grants: Array<MapData, SampleGrants>,
    counters: Counters,
    modes: Modes,
    ledger: Ledger,
    feed: Feed,
    /// What was counted when it was last looked at.
    seen: BTreeMap<Reason, u64>,
}

impl Sources {
    /// Takes the ring buffer and the grants from the datapath. `counters` are the same that its programs count in; what they hold by
    /// now was before.
    ///
    /// # Errors
    /// [`DatapathError`] where a map is missing.
    pub fn new(
        datapath: &mut Datapath,
        counters: Counters,
        ledger: Ledger,
        feed: Feed,
    ) -> Result<Self, DatapathError> {
        let mut sources = Self {
            ring: datapath.take(map::SAMPLES)?,
            grants: datapath.take(map::SAMPLE_GRANTS)?,
            modes: datapath.constants.modes(),
            counters,
            ledger,
            feed,
            seen: BTreeMap::new(),
        };
        for reason in sampled() {
            sources.count(reason);
        }
        sources.grant();
        Ok(sources)
    }

    /// Looks once. `is_sweep` looks also at reasons of which there is no sample.
    pub fn look(&mut self, is_sweep: bool) {
        let mut samples = Vec::new();
        // Whoever looks seldom finds no more than was granted; the bound is for a kernel that grants itself.
        let bound = GRANT as usize * Reason::ALL.len();
        for _ in 0..bound {
            let Some(record) = self.ring.next() else {
                break;
            };
            samples.extend(Sample::read(&record));
        }
        let mut taken: BTreeMap<Reason, u64> = BTreeMap::new();
        for sample in &samples {
            *taken.entry(sample.reason).or_default() += 1;
        }
        let wall = (SystemTime::now(), clock::now());
        let mut counted = BTreeMap::new();
        for reason in sampled() {
            if taken.contains_key(&reason) || is_sweep {
                counted.insert(reason, self.handle_count(reason));
            }
        }
        if !counted.is_empty() {
            self.grant();
        }
        for sample in &samples {
            let packets = counted.get(&sample.reason).copied().unwrap_or_default();
            let samples = taken.get(&sample.reason).copied().unwrap_or(1);
            // A packet may be counted after its sample was read, and before.
            self.handle_sample(sample, (packets as f64 / samples as f64).max(1.0), wall);
        }
        for (reason, packets) in counted {
            let samples = taken.get(&reason).copied().unwrap_or_default();
            if packets > samples {
                self.feed.publish(wall.0, || view::Occurrence::Counted {
                    reason: reason.name().to_owned(),
                    packets,
                    samples,
                });
            }
        }
    }

    /// Has the ledger know of a reason's packets since the last look.
    fn handle_count(&mut self, reason: Reason) -> u64 {
        let packets = self.count(reason);
        let passes = self.modes.action(reason) == Action::Pass;
        if packets > 0 && self.modes.ruling(reason) == Action::Drop {
            self.ledger.lock().handle_count(reason, packets, passes);
        }
        packets
    }

    /// A sample stands for `weight` packets.
    fn handle_sample(&self, sample: &Sample, weight: f64, (wall, now): (SystemTime, Instant)) {
        let age = now.since(sample.at);
        let at = wall.checked_sub(age).unwrap_or(wall);
        let near = self.ledger.lock().handle_sample(sample, weight, at);
        self.feed.publish(at, || {
            view::Occurrence::Drop(Box::new(packet(sample, near.clone())))
        });
        self.feed.publish_packet(|| Packet::Dropped {
            at,
            sample: Box::new(sample.clone()),
            near,
        });
    }

    /// Packets of a reason since the last look.
    fn count(&mut self, reason: Reason) -> u64 {
        let Ok(count) = self.counters.read(Counter::Reason(reason)) else {
            return 0;
        };
        let before = self.seen.insert(reason, count.packets);
        // Counters that began anew hold less than before.
        count.packets.saturating_sub(before.unwrap_or(0))
    }

    /// All reasons at once: of which none was taken, has as many as before.
    fn grant(&mut self) {
        if let Err(error) = self.grants.set(0, [GRANT; _], 0) {
            tracing::debug!(%error, "no samples");
        }
    }
}

impl Sampler {
    /// Begins to look.
    ///
    /// # Errors
    /// What the system says.
    pub fn start(mut sources: Sources) -> io::Result<Self> {
        let is_over = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&is_over);
        let thread = thread::Builder::new()
            .name("samples".to_owned())
            .spawn(move || {
                for tick in 0_u32.. {
                    if end.load(Ordering::Relaxed) {
                        break;
                    }
                    sources.look(tick.is_multiple_of(SWEEP));
                    thread::park_timeout(TICK);
                }
            })?;
        Ok(Self {
            is_over,
            thread: Some(thread),
        })
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It panics nowhere; if it did, the filter does not depend on it.
            let _ = thread.join();
        }
    }
}

/// The reasons that the programs take samples of.
fn sampled() -> impl Iterator<Item = Reason> {
    let mut reasons = Reason::ALL.iter().copied();
    std::iter::from_fn(move || {
        reasons
            .by_ref()
            .find(|reason| reason.action() == Action::Drop)
    })
}

fn packet(sample: &Sample, near: Option<view::Near>) -> view::DroppedPacket {
    let claims = (sample.reason == Reason::UnknownSource)
        .then(|| read_claims(sample.payload()))
        .flatten();
    view::DroppedPacket {
        reason: sample.reason.name().to_owned(),
        verdict: verdict_name(sample.dropped).to_owned(),
        interface: interface::name(sample.interface)
            .unwrap_or_else(|| sample.interface.0.to_string()),
        direction: match sample.direction {
            Direction::Ingress => "in",
            Direction::Egress => "out",
        }
        .to_owned(),
        protocol: sample.ends.map(|ends| ends.protocol_name()),
        source: sample.ends.map(|ends| ends.source),
        destination: sample.ends.map(|ends| ends.destination),
        bytes: sample.original,
        sip: claims.map(|claims| view::SipClaims {
            method: claims.method,
            user_agent: claims.user_agent,
            domains: claims.domains,
        }),
        near,
    }
}
