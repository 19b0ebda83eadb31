//! A lab with agents on it, for stories told step by step: who calls, what is said, what must be heard.
//!
//! The scoreboard runs everything at once; here a test decides each step, and every step fails by itself.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{
    address::Place,
    attack::{Attack, Kind},
    call::{Call, Direction, Role},
    daemon::{Daemon, Filter},
    rtp::Agents,
    sipp::{Answer, Cue, Pair, Progress},
    sniffer::Sniffer,
    topology::Network,
};

const PATIENCE: Duration = Duration::from_secs(10);

/// What happened during a disturbance of the filter.
#[derive(Debug, Clone, Copy, Default)]
pub struct Through {
    /// RTP packets that the calls sent.
    pub sent: u64,
    /// Those of them that did not arrive.
    pub lost: u64,
    /// Packets of strangers.
    pub strangers_sent: u64,
    /// Those of them that did.
    pub strangers_delivered: u64,
}

/// Network, filter, agents and sniffer. Fields are dropped in this order: the network last.
#[derive(Debug)]
pub struct Stage {
    /// All calls of the story.
    pub calls: Vec<Call>,
    /// Their audio.
    pub agents: Agents,
    /// Their signalling, by direction.
    pairs: Vec<Pair>,
    sniffer: Sniffer,
    /// The filter, if there is one.
    pub daemon: Option<Daemon>,
    /// Where all this happens.
    pub network: Network,
}

impl Stage {
    /// Builds everything on a network; no call is placed yet.
    ///
    /// # Errors
    /// Where a part cannot be started.
    pub fn set(network: Network, filter: Filter, inbound: u16, outbound: u16) -> Result<Self> {
        let daemon = match filter {
            Filter::None => None,
            Filter::Sipfilter(mode) => Some(Daemon::start(&network, mode)?),
        };
        Self::behind(daemon, network, inbound, outbound)
    }

    /// The same behind a filter that runs already, or none.
    ///
    /// # Errors
    /// Where a part cannot be started.
    pub fn behind(
        daemon: Option<Daemon>,
        network: Network,
        inbound: u16,
        outbound: u16,
    ) -> Result<Self> {
        let calls = Call::plan(&network, inbound, outbound);
        let agents = Agents::start(&network, &calls)?;
        let pbx = [Place::PbxCallee, Place::PbxCaller]
            .map(|place| network.inside(place).address(network.family));
        let sniffer = Sniffer::start(network.pbx(), pbx.to_vec())?;
        Ok(Self {
            calls,
            agents,
            pairs: Vec::new(),
            sniffer,
            daemon,
            network,
        })
    }

    /// Places all calls, and waits until each has come to `progress`.
    ///
    /// # Errors
    /// Where one has not within ten seconds.
    pub fn place_calls(&mut self, answer: Answer, progress: Progress) -> Result<()> {
        for direction in [Direction::Inbound, Direction::Outbound] {
            if self.calls.iter().any(|call| call.direction == direction) {
                self.start(direction, answer)?;
            }
        }
        self.expect(|_| true, progress)?;
        self.let_daemon_read();
        Ok(())
    }

    /// Places the calls of one direction, and waits until each has come to `progress`.
    ///
    /// # Errors
    /// Where one has not within ten seconds.
    pub fn place(
        &mut self,
        direction: Direction,
        answer: Answer,
        progress: Progress,
    ) -> Result<()> {
        self.start(direction, answer)?;
        self.expect(|call| call.direction == direction, progress)?;
        self.let_daemon_read();
        Ok(())
    }

    /// The agents may be faster than the daemon, which is not what is shown here. It reads what it was shown before it answers anything,
    /// so a question makes sure of it; whether there is an answer does not matter.
    fn let_daemon_read(&self) {
        let _: Result<usize> = self.pinholes();
    }

    fn start(&mut self, direction: Direction, answer: Answer) -> Result<()> {
        let pair = Pair::start(&self.network, &self.calls, direction, answer, 20)?;
        self.pairs.push(pair);
        Ok(())
    }

    /// Gives a cue to one agent of each chosen call, and waits until these calls have come to `progress`.
    ///
    /// # Errors
    /// Where one has not within ten seconds.
    pub fn cue(
        &self,
        chosen: impl Fn(&Call) -> bool,
        role: Role,
        cue: Cue,
        progress: Progress,
    ) -> Result<()> {
        for call in self.calls.iter().filter(|call| chosen(call)) {
            self.pair(call)?.cue(call, role, cue)?;
            thread::sleep(Duration::from_millis(5));
        }
        self.expect(chosen, progress)
    }

    /// Sends so many packets each way on the chosen calls; every one of them must arrive.
    ///
    /// # Errors
    /// With the streams that lost packets.
    pub fn talk(&mut self, chosen: impl Fn(&Call) -> bool, packets: u32) -> Result<()> {
        let numbers: Vec<u16> = self
            .calls
            .iter()
            .filter(|call| chosen(call))
            .map(|call| call.number)
            .collect();
        if numbers.is_empty() {
            bail!("no call was chosen to talk");
        }
        self.agents
            .send(|number| numbers.contains(&number), packets)?;
        self.agents.settle();
        let losses: Vec<_> = self
            .agents
            .counts()
            .into_iter()
            .filter(|(_, count)| count.delivered < count.sent)
            .collect();
        if losses.is_empty() {
            return Ok(());
        }
        Err(self.explain(format!("audio was lost: {losses:?}")))
    }

    /// Lets `disturb` happen to the filter while all calls talk and strangers send to their ports all the while. Everything that the calls say must
    /// arrive, and nothing that a stranger sends. `disturb` gives back the daemon that filters afterwards.
    ///
    /// # Errors
    /// With the streams that lost packets, or what strangers got through.
    pub fn talk_through(
        &mut self,
        disturb: impl FnOnce(&Network, Option<Daemon>) -> Result<Daemon>,
    ) -> Result<Through> {
        let before = self.agents.counts();
        let attack = Attack::endless_on_media(&self.network, &self.calls)?;
        let fired = attack.fired();
        let (network, agents, daemon) = (&self.network, &mut self.agents, self.daemon.take());
        let is_over = AtomicBool::new(false);
        // The disturbance is this thread's matter: what it starts dies with the thread that started it.
        let daemon = thread::scope(|scope| {
            let talking = scope.spawn(|| -> Result<()> {
                while !is_over.load(Ordering::Relaxed) {
                    agents.send(|_| true, 5)?;
                }
                agents.send(|_| true, 10)
            });
            thread::sleep(Duration::from_millis(200));
            let daemon = disturb(network, daemon);
            is_over.store(true, Ordering::Relaxed);
            talking
                .join()
                .unwrap_or_else(|_| bail!("the agents panicked"))?;
            daemon
        })?;
        self.daemon = Some(daemon);
        drop(attack);
        self.agents.settle();
        // What strangers sent last gets the time to arrive, too.
        thread::sleep(Duration::from_millis(100));
        let mut through = Through::default();
        let mut losses = Vec::new();
        for (stream, count) in self.agents.counts() {
            let earlier = before.get(&stream).copied().unwrap_or_default();
            let (sent, lost) = (
                count.sent - earlier.sent,
                (count.sent - count.delivered) - (earlier.sent - earlier.delivered),
            );
            through.sent += u64::from(sent);
            through.lost += u64::from(lost);
            if lost > 0 {
                losses.push((stream, sent, lost));
            }
        }
        for kind in Kind::ALL {
            through.strangers_sent += fired.count(kind);
            through.strangers_delivered += self.arrived(kind);
        }
        if through.lost == 0 && through.strangers_delivered == 0 {
            return Ok(through);
        }
        Err(self.explain(format!(
            "{through:?}; streams that lost packets (sent, lost): {losses:?}"
        )))
    }

    /// Sends RTP on calls that have ended; gives how much was sent and how much reached the PBX.
    ///
    /// # Errors
    /// Where it cannot be sent.
    pub fn talk_after_the_end(&self, chosen: impl Fn(&Call) -> bool) -> Result<(u64, u64)> {
        thread::sleep(Duration::from_millis(300));
        let before = self.sniffer.count(Kind::AfterBye);
        let sent = self.agents.send_after_bye(
            |number| {
                self.calls
                    .iter()
                    .any(|call| call.number == number && chosen(call))
            },
            3,
        )?;
        thread::sleep(Duration::from_millis(300));
        Ok((sent, self.sniffer.count(Kind::AfterBye) - before))
    }

    /// How many marked packets of a kind reached the PBX.
    #[must_use]
    pub fn arrived(&self, kind: Kind) -> u64 {
        self.sniffer.count(kind)
    }

    /// How many pinholes are open; none without a filter.
    ///
    /// # Errors
    /// Where `sipfilterctl` fails.
    pub fn pinholes(&self) -> Result<usize> {
        self.daemon.as_ref().map_or(Ok(0), Daemon::pinholes)
    }

    /// Ends all calls, which must leave nothing behind.
    ///
    /// # Errors
    /// Where one does not end, a packet arrives after that, or a pinhole stays.
    pub fn hang_up(&self) -> Result<()> {
        self.cue(|_| true, Role::Caller, Cue::Proceed, Progress::Ended)?;
        let (sent, arrived) = self.talk_after_the_end(|_| true)?;
        ensure!(
            sent > 0 && arrived == 0,
            "{arrived} of {sent} packets after BYE arrived"
        );
        let left = self.pinholes()?;
        ensure!(left == 0, "{left} pinholes outlive their calls");
        Ok(())
    }

    fn expect(&self, chosen: impl Fn(&Call) -> bool, progress: Progress) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let late: Vec<u16> = self
                .calls
                .iter()
                .filter(|call| chosen(call))
                .filter(|call| {
                    !self
                        .pair(call)
                        .is_ok_and(|pair| pair.reached(progress).contains(&call.number))
                })
                .map(|call| call.number)
                .collect();
            if late.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                let complaints: String = self.pairs.iter().map(Pair::complaints).collect();
                return Err(self.explain(format!(
                    "calls {late:?} did not come to {progress:?}: {complaints}"
                )));
            }
            thread::sleep(Duration::from_millis(30));
        }
    }

    fn pair(&self, call: &Call) -> Result<&Pair> {
        self.pairs
            .iter()
            .find(|pair| pair.direction() == call.direction)
            .context("the call was never placed")
    }

    fn explain(&self, what: String) -> anyhow::Error {
        match &self.daemon {
            Some(daemon) => anyhow::anyhow!("{what}\nthe daemon's log:\n{}", daemon.log()),
            None => anyhow::anyhow!(what),
        }
    }
}
