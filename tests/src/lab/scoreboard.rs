//! One whole run, and whether every promise held: calls, audio, attacks, the time after BYE, and what is not voice.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use super::{
    address::{Family, Place},
    attack::{Attack, Fired, Kind},
    call::{Call, Direction},
    daemon::{Daemon, Filter},
    rtp::{Agents, Counts, Way},
    service::{Reached, Service},
    sipp::{Answer, Cue, Pair, Progress},
    sniffer::Sniffer,
    topology::{Network, Topology},
};

/// How long the calls may take to be set up or to end.
const SIGNALLING: Duration = Duration::from_secs(60);
/// Between the last answered BYE and the RTP that must no longer pass, unless a run says otherwise.
pub const SETTLE: Duration = Duration::from_millis(500);

/// What is to be run.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// The shape of the network.
    pub topology: Topology,
    /// IPv4 or IPv6.
    pub family: Family,
    /// What filters.
    pub filter: Filter,
    /// Calls at once, half of them inbound.
    pub calls: u16,
    /// RTP packets per call and way.
    pub packets: u32,
    /// Between the last answered BYE and the RTP that must no longer pass.
    pub settle: Duration,
}

/// The result, in the form that `--json` prints.
#[derive(Debug, Clone, Serialize)]
pub struct Scoreboard {
    /// Calls placed.
    pub calls: usize,
    /// Calls whose caller has the 200 and whose callee has the ACK.
    pub answered: usize,
    /// RTP packets sent within calls, both ways.
    pub rtp_sent: u64,
    /// Those that arrived at the right agent.
    pub rtp_delivered: u64,
    /// Calls in which each side heard at least one packet of the other.
    pub heard_calls: usize,
    /// Packets of ended calls that reached the PBX.
    pub rtp_after_bye_delivered: u64,
    /// Packets that attackers sent.
    pub attack_sent: u64,
    /// Those that reached the PBX.
    pub attack_delivered: u64,
    /// The plain TCP service answered every visit, from provider and stranger, throughout.
    pub plain_tcp_ok: bool,
    /// Pinholes open after all calls have ended; none where there is no filter.
    pub pinholes_left: usize,
    /// What the one line does not say.
    #[serde(skip)]
    pub detail: Detail,
}

/// What a person wants to know beyond the totals.
#[derive(Debug, Clone)]
pub struct Detail {
    /// Sent and delivered by kind of attack.
    pub attacks: Vec<(Kind, u64, u64)>,
    /// Visits to the plain service.
    pub tcp: Reached,
    /// Pings.
    pub ping: Reached,
    /// Pinholes while all calls stood.
    pub pinholes_open: usize,
    /// RTP packets sent after BYE.
    pub after_bye_sent: u64,
    /// The streams that lost packets: call, way, sent, delivered.
    pub losses: Vec<(u16, Way, u32, u32)>,
}

impl Scoreboard {
    /// The promises that did not hold, in words; empty where all did.
    #[must_use]
    pub fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        let mut check = |held: bool, message: String| {
            if !held {
                broken.push(message);
            }
        };
        check(self.calls > 0, "no call was placed".to_owned());
        check(
            self.answered == self.calls,
            format!("{} of {} calls were answered", self.answered, self.calls),
        );
        check(
            self.heard_calls == self.calls,
            format!(
                "{} of {} calls were heard on both sides",
                self.heard_calls, self.calls
            ),
        );
        check(
            self.rtp_sent > 0 && self.rtp_delivered == self.rtp_sent,
            format!(
                "{} of {} RTP packets were delivered; the first losses: {:?}",
                self.rtp_delivered,
                self.rtp_sent,
                self.detail.losses.iter().take(4).collect::<Vec<_>>()
            ),
        );
        check(
            self.detail.after_bye_sent > 0 && self.rtp_after_bye_delivered == 0,
            format!(
                "{} of {} packets sent after BYE reached the PBX",
                self.rtp_after_bye_delivered, self.detail.after_bye_sent
            ),
        );
        check(self.attack_sent > 0, "no attack packet was sent".to_owned());
        for &(kind, sent, delivered) in &self.detail.attacks {
            check(
                sent > 0 && delivered == 0,
                format!("{}: {delivered} of {sent} reached the PBX", kind.title()),
            );
        }
        check(
            self.plain_tcp_ok,
            format!(
                "the plain TCP service answered {} of {} visits",
                self.detail.tcp.served, self.detail.tcp.tried
            ),
        );
        check(
            self.detail.ping.always(),
            format!(
                "{} of {} pings were answered",
                self.detail.ping.served, self.detail.ping.tried
            ),
        );
        check(
            self.pinholes_left == 0,
            format!("{} pinholes are left", self.pinholes_left),
        );
        broken
    }
}

/// What a run says while it goes on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Live {
    /// What is going on.
    pub phase: &'static str,
    /// Calls answered so far.
    pub answered: usize,
    /// Calls ended so far.
    pub ended: usize,
    /// Pinholes, as last asked.
    pub pinholes: usize,
    /// RTP packets delivered so far.
    pub rtp_delivered: u64,
    /// Attack packets sent so far.
    pub attack_sent: u64,
    /// Attack packets that reached the PBX so far.
    pub attack_delivered: u64,
}

/// Runs the whole story once. `observe` is called about five times a second, from another thread.
///
/// # Errors
/// Where the lab cannot be built or a part of it fails; a broken promise is no error but a result.
pub fn run(run: Run, observe: impl Fn(Live) + Send + 'static) -> Result<Scoreboard> {
    let observer = Observer::start(observe);
    observer.set(|live| live.phase = "building the lab");
    let network = Network::build(run.topology, run.family, &[])?;
    let daemon = match run.filter {
        Filter::None => None,
        Filter::Sipfilter(mode) => {
            observer.set(|live| live.phase = "attaching the filter");
            Some(Daemon::start(&network, mode)?)
        }
    };
    let calls = Call::plan(&network, run.calls.div_ceil(2), run.calls / 2);
    let story = Story {
        run,
        network: &network,
        daemon: daemon.as_ref(),
        calls: &calls,
        observer: &observer,
    };
    let result = story.tell();
    if let (Err(_), Some(daemon)) = (&result, &daemon) {
        return result.with_context(|| format!("the daemon's log:\n{}", tail(&daemon.log())));
    }
    result
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

struct Story<'a> {
    run: Run,
    network: &'a Network,
    daemon: Option<&'a Daemon>,
    calls: &'a [Call],
    observer: &'a Observer,
}

impl Story<'_> {
    fn tell(&self) -> Result<Scoreboard> {
        let (network, calls, observer) = (self.network, self.calls, self.observer);
        let pbx = [Place::PbxCallee, Place::PbxCaller]
            .map(|place| network.inside(place).address(network.family));
        let sniffer = Arc::new(Sniffer::start(network.pbx(), pbx.to_vec())?);
        let service = Service::start(network)?;
        let mut agents = Agents::start(network, calls)?;
        observer.watch_rtp(agents.delivered_meter());
        let rounds = usize::from(self.run.calls).clamp(20, 60);
        let sip_attack = Attack::on_signalling(network, calls, rounds)?;
        let mut fired = vec![sip_attack.fired()];
        observer.watch_attacks(Arc::clone(&sniffer), fired.clone());

        observer.set(|live| live.phase = "setting up calls");
        let pairs = [Direction::Inbound, Direction::Outbound]
            .into_iter()
            .filter(|&direction| calls.iter().any(|call| call.direction == direction))
            .map(|direction| Pair::start(network, calls, direction, Answer::AtOnce, 40))
            .collect::<Result<Vec<_>>>()?;
        let answered = self.wait_for(&pairs, Progress::Established, |live, n| live.answered = n);

        observer.set(|live| live.phase = "talking, under attack");
        let pinholes_open = self.pinholes()?;
        observer.set(|live| live.pinholes = pinholes_open);
        let media_attack = Attack::on_media(network, calls, 2)?;
        fired.push(media_attack.fired());
        observer.watch_attacks(Arc::clone(&sniffer), fired.clone());
        agents.send(|_| true, self.run.packets)?;
        agents.settle();
        // The ports must be open while they are attacked.
        media_attack.finish();
        sip_attack.finish();

        observer.set(|live| live.phase = "hanging up");
        for pair in &pairs {
            for call in calls
                .iter()
                .filter(|call| call.direction == pair.direction())
            {
                pair.cue(call, call.ends_by(), Cue::Proceed)?;
                thread::sleep(Duration::from_millis(3));
            }
        }
        let ended = self.wait_for(&pairs, Progress::Ended, |live, n| live.ended = n);
        if answered == calls.len() && ended < answered {
            let complaints: String = pairs.iter().map(Pair::complaints).collect();
            bail!(
                "{ended} of {answered} calls ended within {} s: {complaints}",
                SIGNALLING.as_secs()
            );
        }

        observer.set(|live| live.phase = "after the calls");
        thread::sleep(self.run.settle);
        let after_bye_sent = agents.send_after_bye(|_| true, 3)?;
        thread::sleep(Duration::from_millis(300));
        let pinholes_left = self.pinholes()?;
        observer.set(|live| live.pinholes = pinholes_left);
        if pinholes_left > 0
            && let Some(daemon) = self.daemon
        {
            // What keeps them is in the calls' stories, which end with this daemon.
            for call in calls {
                if let Ok(story) = daemon.ctl(&["calls", "show", &call.call_id(), "--json"]) {
                    eprintln!("{story}");
                }
            }
        }
        let (tcp, ping) = service.finish();
        let counts = agents.counts();
        Ok(self.score(
            answered,
            &counts,
            &sniffer,
            &fired,
            pinholes_left,
            |losses, attacks| Detail {
                attacks,
                tcp,
                ping,
                pinholes_open,
                after_bye_sent,
                losses,
            },
        ))
    }

    fn score(
        &self,
        answered: usize,
        counts: &Counts,
        sniffer: &Sniffer,
        fired: &[Arc<Fired>],
        pinholes_left: usize,
        detail: impl FnOnce(Vec<(u16, Way, u32, u32)>, Vec<(Kind, u64, u64)>) -> Detail,
    ) -> Scoreboard {
        let losses = counts
            .iter()
            .filter(|(_, count)| count.delivered < count.sent)
            .map(|(&(call, way), count)| (call, way, count.sent, count.delivered))
            .collect();
        let attacks: Vec<_> = Kind::ALL
            .into_iter()
            .filter(|&kind| kind != Kind::AfterBye)
            .map(|kind| {
                let sent = fired.iter().map(|fired| fired.count(kind)).sum();
                (kind, sent, sniffer.count(kind))
            })
            .collect();
        let heard = |call: &&Call| {
            [Way::In, Way::Out].into_iter().all(|way| {
                counts
                    .get(&(call.number, way))
                    .is_some_and(|count| count.delivered > 0)
            })
        };
        let detail = detail(losses, attacks);
        Scoreboard {
            calls: self.calls.len(),
            answered,
            rtp_sent: counts.values().map(|count| u64::from(count.sent)).sum(),
            rtp_delivered: counts
                .values()
                .map(|count| u64::from(count.delivered))
                .sum(),
            heard_calls: self.calls.iter().filter(heard).count(),
            rtp_after_bye_delivered: sniffer.count(Kind::AfterBye),
            attack_sent: detail.attacks.iter().map(|(_, sent, _)| sent).sum(),
            attack_delivered: detail
                .attacks
                .iter()
                .map(|(_, _, delivered)| delivered)
                .sum(),
            plain_tcp_ok: detail.tcp.always(),
            pinholes_left,
            detail,
        }
    }

    /// Waits until all calls have come so far, or until the time is up; gives how many have.
    fn wait_for(
        &self,
        pairs: &[Pair],
        progress: Progress,
        note: impl Fn(&mut Live, usize),
    ) -> usize {
        let deadline = Instant::now() + SIGNALLING;
        loop {
            let reached = pairs.iter().map(|pair| pair.reached(progress).len()).sum();
            self.observer.set(|live| note(live, reached));
            if reached == self.calls.len() || Instant::now() > deadline {
                return reached;
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn pinholes(&self) -> Result<usize> {
        self.daemon.map_or(Ok(0), Daemon::pinholes)
    }
}

/// Gathers what a run knows about itself, and shows it now and then.
struct Observer {
    shared: Arc<Watched>,
    thread: Option<thread::JoinHandle<()>>,
}

type Attacks = (Arc<Sniffer>, Vec<Arc<Fired>>);

#[derive(Default)]
struct Watched {
    stop: AtomicBool,
    live: Mutex<Live>,
    rtp: Mutex<Option<Box<dyn Fn() -> u64 + Send>>>,
    attacks: Mutex<Option<Attacks>>,
}

impl Observer {
    fn start(observe: impl Fn(Live) + Send + 'static) -> Self {
        let shared = Arc::new(Watched::default());
        let thread = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                while !shared.stop.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(200));
                    observe(shared.read());
                }
                // What was watched belongs to the lab and must go with it.
                *lock(&shared.attacks) = None;
                *lock(&shared.rtp) = None;
            })
        };
        Self {
            shared,
            thread: Some(thread),
        }
    }

    fn set(&self, change: impl FnOnce(&mut Live)) {
        change(&mut lock(&self.shared.live));
    }

    fn watch_rtp(&self, meter: impl Fn() -> u64 + Send + 'static) {
        *lock(&self.shared.rtp) = Some(Box::new(meter));
    }

    fn watch_attacks(&self, sniffer: Arc<Sniffer>, fired: Vec<Arc<Fired>>) {
        *lock(&self.shared.attacks) = Some((sniffer, fired));
    }
}

impl Watched {
    fn read(&self) -> Live {
        let mut live = *lock(&self.live);
        if let Some(meter) = &*lock(&self.rtp) {
            live.rtp_delivered = meter();
        }
        if let Some((sniffer, fired)) = &*lock(&self.attacks) {
            live.attack_sent = Kind::ALL
                .iter()
                .flat_map(|&kind| fired.iter().map(move |fired| fired.count(kind)))
                .sum();
            live.attack_delivered = Kind::ALL.iter().map(|&kind| sniffer.count(kind)).sum();
        }
        live
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
