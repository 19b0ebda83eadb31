//! Calls that go on while the filter is killed, restarted, upgraded and changed: one phase for each, under attack all the while.
//!
//! It measures and judges; what a phase does to the daemon stands in [`phase`], the audio in [`streams`]. Every packet is counted on a
//! socket, so that a loss is a number and no guess. Invariant: a run cannot pass on counters that never count, because the same attack is
//! counted before there is a filter.

mod phase;
mod probe;
mod streams;

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde::{Serialize, Serializer};

use self::{
    phase::Step,
    probe::Probe,
    streams::{Streams, Tally},
};
use super::{
    address::Family,
    attack::{Attack, Fired, Kind},
    call::{Call, Direction},
    daemon::{Daemon, Mode},
    sipp::{Answer, Cue, Pair, Progress},
    topology::{Network, Topology},
};

pub use phase::Phase;

/// How long the calls may take to be set up or to end.
const SIGNALLING: Duration = Duration::from_secs(60);
/// Calls a second, for each direction.
const RATE: u16 = 50;
/// How long everybody sends before a phase begins, and after it is over.
const LEAD: Duration = Duration::from_millis(500);
/// How long strangers send where there is no filter.
const OPEN: Duration = Duration::from_millis(600);
/// Between the last answered BYE and the RTP that must no longer pass.
const SETTLE: Duration = Duration::from_millis(500);

/// What is to be run.
#[derive(Debug, Clone)]
pub struct Run {
    /// Calls in progress, half of them inbound.
    pub calls: u16,
    /// How the filter is attached; without one, to see the promises break.
    pub filter: Option<Mode>,
    /// What happens to it, in this order.
    pub phases: Vec<Phase>,
    /// How long nobody is there to read signalling after a kill.
    pub dead: Duration,
}

/// The result, in the form that `--json` prints.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Calls placed.
    pub calls: usize,
    /// Calls whose caller has the 200 and whose callee has the ACK.
    pub established: usize,
    /// The attack that was counted before there was a filter.
    pub open: Strangers,
    /// What was counted while each thing happened, by its name.
    #[serde(serialize_with = "as_map")]
    pub phases: Vec<(&'static str, Counted)>,
    /// RTP packets that ended calls sent towards the PBX.
    pub after_bye_sent: u64,
    /// Those that arrived.
    pub after_bye_delivered: u64,
    /// Pinholes open after all calls have ended.
    pub pinholes_left: usize,
    /// How long all of it took.
    pub seconds: f64,
}

/// Strangers' packets.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Strangers {
    /// Sent, to open ports and closed ones.
    pub strangers_sent: u64,
    /// Those that arrived.
    pub strangers_delivered: u64,
    /// Sent to one closed port, a millisecond apart: the watch for a moment without a filter.
    pub probes_sent: u64,
    /// Those that arrived.
    pub probes_delivered: u64,
    /// The longest time between two of them, in milliseconds: a shorter moment could have been missed.
    pub probe_gap_ms: f64,
}

/// What was counted in one phase.
#[derive(Debug, Clone, Serialize)]
pub struct Counted {
    /// RTP packets that the calls sent, both ways.
    pub rtp_sent: u64,
    /// Those that did not arrive.
    pub rtp_lost: u64,
    /// RTP packets a second.
    pub rtp_rate: u64,
    /// What strangers sent.
    #[serde(flatten)]
    pub strangers: Strangers,
    /// Pinholes open afterwards.
    pub pinholes: usize,
    /// How long the daemon was away or busy with it, in seconds.
    pub seconds: f64,
    /// The kinds of attack that arrived.
    #[serde(skip)]
    pub arrivals: Vec<(&'static str, u64)>,
    /// Streams that lost packets: call, way, sent, lost.
    #[serde(skip)]
    pub losses: Vec<String>,
}

fn as_map<S: Serializer>(
    phases: &[(&'static str, Counted)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(phases.iter().map(|(name, counted)| (name, counted)))
}

impl Report {
    /// The promises that did not hold, in words; empty where all did.
    #[must_use]
    pub fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        let mut check = |held: bool, message: String| {
            if !held {
                broken.push(message);
            }
        };
        check(
            self.calls > 0 && self.established == self.calls,
            format!(
                "{} of {} calls were established",
                self.established, self.calls
            ),
        );
        check(!self.phases.is_empty(), "nothing happened".to_owned());
        for (name, counted) in &self.phases {
            check(
                counted.rtp_sent > 0 && counted.rtp_lost == 0,
                format!(
                    "{name}: {} of {} RTP packets were lost: {}",
                    counted.rtp_lost,
                    counted.rtp_sent,
                    counted.losses.join(", ")
                ),
            );
            let strangers = &counted.strangers;
            check(
                strangers.strangers_sent > 0 && strangers.strangers_delivered == 0,
                format!(
                    "{name}: {} of {} packets of strangers arrived: {:?}",
                    strangers.strangers_delivered, strangers.strangers_sent, counted.arrivals
                ),
            );
            check(
                strangers.probes_sent > 0 && strangers.probes_delivered == 0,
                format!(
                    "{name}: there was a moment without a filter: {} of {} probes of a closed port arrived",
                    strangers.probes_delivered, strangers.probes_sent
                ),
            );
            check(
                counted.pinholes == 2 * self.calls,
                format!(
                    "{name}: {} pinholes afterwards, {} calls have {}",
                    counted.pinholes,
                    self.calls,
                    2 * self.calls
                ),
            );
        }
        check(
            self.after_bye_sent > 0 && self.after_bye_delivered == 0,
            format!(
                "{} of {} packets sent after BYE arrived",
                self.after_bye_delivered, self.after_bye_sent
            ),
        );
        check(
            self.pinholes_left == 0,
            format!("{} pinholes are left", self.pinholes_left),
        );
        broken
    }
}

/// Runs all of it once; `say` is told what is going on.
///
/// # Errors
/// Where the lab cannot be built or a part of it fails; a broken promise is no error but a result.
pub fn run(run: &Run, say: impl Fn(&str)) -> Result<Report> {
    let started = Instant::now();
    say("building the lab");
    let network = Network::build(Topology::Routed, Family::V4, &[])?;
    let calls = Call::plan(&network, run.calls.div_ceil(2), run.calls / 2);
    let streams = Streams::bind(&network, &calls)?;
    say("an attack that nothing stops");
    let open = without_filter(&network, &calls, &streams)?;
    let step = Step::new(&network, run)?;
    let daemon = match run.filter {
        None => None,
        Some(_) => {
            say("attaching the filter");
            Some(step.start()?)
        }
    };
    say("setting up calls");
    let pairs = [Direction::Inbound, Direction::Outbound]
        .into_iter()
        .filter(|&direction| calls.iter().any(|call| call.direction == direction))
        .map(|direction| Pair::start(&network, &calls, direction, Answer::AtOnce, RATE))
        .collect::<Result<Vec<_>>>()?;
    let established = wait_for(&pairs, calls.len(), Progress::Established);
    if established < calls.len() {
        let complaints: String = pairs.iter().map(Pair::complaints).collect();
        bail!(
            "{established} of {} calls were established within {} s: {complaints}",
            calls.len(),
            SIGNALLING.as_secs()
        );
    }
    let mut story = Story {
        run,
        network: &network,
        calls: &calls,
        streams,
        step,
        daemon,
    };
    let phases = story.phases(&say)?;
    say("hanging up");
    let (after_bye_sent, after_bye_delivered) = story.hang_up(&pairs)?;
    let pinholes_left = story.pinholes()?;
    Ok(Report {
        calls: calls.len(),
        established,
        open,
        phases,
        after_bye_sent,
        after_bye_delivered,
        pinholes_left,
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// Every kind of attack must be able to arrive, and be counted, where nothing stops it.
fn without_filter(network: &Network, calls: &[Call], streams: &Streams) -> Result<Strangers> {
    let siege = Siege::begin(network, calls)?;
    let before = siege.look(streams);
    thread::sleep(OPEN);
    let seen = siege.look(streams).since(&before);
    for kind in KINDS {
        if seen.delivered(kind) == 0 {
            bail!(
                "{}: none of {} packets arrived where there is no filter, so that a run would prove nothing",
                kind.title(),
                seen.sent(kind)
            );
        }
    }
    let strangers = seen.strangers();
    if strangers.probes_delivered == 0 {
        bail!("no probe arrived where there is no filter, so that a run would prove nothing");
    }
    drop(siege);
    // What is on its way belongs to nobody's count.
    thread::sleep(Duration::from_millis(100));
    Ok(strangers)
}

/// What strangers do all the while.
const KINDS: [Kind; 8] = [
    Kind::OpenPort,
    Kind::ClosedPort,
    Kind::ClosedPortFromProvider,
    Kind::WrongSourcePort,
    Kind::WrongProviderAddress,
    Kind::NotMedia,
    Kind::PayloadType,
    Kind::ForgedConsent,
];

struct Siege {
    attack: Attack,
    probe: Probe,
}

impl Siege {
    fn begin(network: &Network, calls: &[Call]) -> Result<Self> {
        Ok(Self {
            attack: Attack::endless_on_media(network, calls)?,
            probe: Probe::start(network, streams::probed(calls))?,
        })
    }

    fn look(&self, streams: &Streams) -> Sight {
        // What arrives between the two looks would be more than was sent.
        let (arrived, probes_delivered) = (streams.arrived(), streams.probes());
        let fired = self.attack.fired();
        Sight {
            fired: Kind::ALL.map(|kind| Fired::count(&fired, kind)),
            arrived,
            probes_sent: self.probe.sent(),
            probes_delivered,
            gap: self.probe.take_longest_gap(),
        }
    }
}

/// What has been sent by strangers, and what of it has arrived, up to a moment.
struct Sight {
    fired: [u64; Kind::ALL.len()],
    arrived: [u64; Kind::ALL.len()],
    probes_sent: u64,
    probes_delivered: u64,
    gap: Duration,
}

impl Sight {
    fn since(mut self, before: &Self) -> Self {
        for kind in Kind::ALL {
            self.fired[kind as usize] -= before.fired[kind as usize];
            self.arrived[kind as usize] -= before.arrived[kind as usize];
        }
        self.probes_sent -= before.probes_sent;
        self.probes_delivered -= before.probes_delivered;
        self
    }

    fn sent(&self, kind: Kind) -> u64 {
        self.fired[kind as usize]
    }

    fn delivered(&self, kind: Kind) -> u64 {
        self.arrived[kind as usize]
    }

    fn strangers(&self) -> Strangers {
        Strangers {
            strangers_sent: KINDS.iter().map(|&kind| self.sent(kind)).sum(),
            strangers_delivered: KINDS.iter().map(|&kind| self.delivered(kind)).sum(),
            probes_sent: self.probes_sent,
            probes_delivered: self.probes_delivered,
            probe_gap_ms: (self.gap.as_secs_f64() * 10_000.0).round() / 10.0,
        }
    }
}

struct Story<'a> {
    run: &'a Run,
    network: &'a Network,
    calls: &'a [Call],
    streams: Streams,
    step: Step<'a>,
    daemon: Option<Daemon>,
}

impl Story<'_> {
    fn phases(&mut self, say: &impl Fn(&str)) -> Result<Vec<(&'static str, Counted)>> {
        let siege = Siege::begin(self.network, self.calls)?;
        let mut counted = Vec::new();
        let phases: &[Phase] = match self.run.filter {
            Some(_) => &self.run.phases,
            None => &[Phase::Nothing],
        };
        for &phase in phases {
            say(phase.title());
            let result = self
                .measure(phase, &siege)
                .with_context(|| format!("{}: {}", phase.name(), self.log()))?;
            counted.push((phase.name(), result));
        }
        Ok(counted)
    }

    fn measure(&mut self, phase: Phase, siege: &Siege) -> Result<Counted> {
        let (before, sight) = (self.streams.tally(), siege.look(&self.streams));
        let talking = self.streams.talk();
        let began = Instant::now();
        thread::sleep(LEAD);
        let acted = Instant::now();
        self.daemon = match self.daemon.take() {
            Some(daemon) => Some(self.step.take(phase, daemon)?),
            None => {
                thread::sleep(self.run.dead);
                None
            }
        };
        let seconds = acted.elapsed().as_secs_f64();
        thread::sleep(LEAD);
        drop(talking);
        let lasted = began.elapsed().as_secs_f64();
        self.streams.settle();
        let after = self.streams.tally();
        let seen = siege.look(&self.streams).since(&sight);
        let Tally { sent, lost, losses } = after.since(&before);
        if let Some(errors) = self.streams.refused() {
            bail!("{errors}");
        }
        Ok(Counted {
            rtp_sent: sent,
            rtp_lost: lost,
            rtp_rate: (sent as f64 / lasted) as u64,
            strangers: seen.strangers(),
            pinholes: self.pinholes()?,
            seconds: (seconds * 100.0).round() / 100.0,
            arrivals: KINDS
                .into_iter()
                .filter(|&kind| seen.delivered(kind) > 0)
                .map(|kind| (kind.title(), seen.delivered(kind)))
                .collect(),
            losses,
        })
    }

    /// Ends all calls; gives how much RTP was sent afterwards, and how much of it arrived.
    fn hang_up(&self, pairs: &[Pair]) -> Result<(u64, u64)> {
        for pair in pairs {
            for call in self
                .calls
                .iter()
                .filter(|call| call.direction == pair.direction())
            {
                pair.cue(call, call.ends_by(), Cue::Proceed)?;
                thread::sleep(Duration::from_millis(3));
            }
        }
        let ended = wait_for(pairs, self.calls.len(), Progress::Ended);
        if ended < self.calls.len() {
            let complaints: String = pairs.iter().map(Pair::complaints).collect();
            bail!(
                "{ended} of {} calls ended within {} s: {complaints}",
                self.calls.len(),
                SIGNALLING.as_secs()
            );
        }
        thread::sleep(SETTLE);
        let before = self.streams.arrived()[Kind::AfterBye as usize];
        let sent = self.streams.send_after_bye()?;
        thread::sleep(SETTLE);
        Ok((
            sent,
            self.streams.arrived()[Kind::AfterBye as usize] - before,
        ))
    }

    fn pinholes(&self) -> Result<usize> {
        self.daemon.as_ref().map_or(Ok(0), Daemon::pinholes)
    }

    fn log(&self) -> String {
        self.daemon.as_ref().map_or_else(String::new, Daemon::log)
    }
}

fn wait_for(pairs: &[Pair], all: usize, progress: Progress) -> usize {
    let deadline = Instant::now() + SIGNALLING;
    loop {
        let come = pairs.iter().map(|pair| pair.reached(progress).len()).sum();
        if come >= all || Instant::now() > deadline {
            return come;
        }
        thread::sleep(Duration::from_millis(50));
    }
}
