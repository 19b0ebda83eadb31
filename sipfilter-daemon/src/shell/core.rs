//! The one owner of the engine: feeds it, carries its outputs out, and answers what the control socket asks.
//!
//! It decides nothing. Whatever an action leads to goes back into the engine as an input before anything else does.

mod calls;
mod metrics;
mod pinholes;
mod report;
mod status;
pub mod succession;
mod telling;
mod work;

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::SystemTime,
};

use self::{metrics::Count, report::Gathering, telling::log_action, work::Work};
pub use self::{pinholes::payload_types_view, report::Gathered};
use super::{
    api::{Order, Question},
    clock,
    counters::Counters,
    datapath::Attached,
    delay::Delays,
    feed::{Feed, Packet},
    fullness::Fullness,
    harm::{Harm, Hit},
    ledger::Ledger as Drops,
    logging::Lines,
    map_writer::{Inheritance, MapWriter, Traffic},
    pressure::Pressure,
    privacy::Redactor,
    provisional::Provisionals,
    record::Records,
    reload::places::Place,
    traffic::Ledger,
};
use crate::{
    config::Config,
    engine::{
        CallNumber, Direction, Engine, Event, Input, Instant, Output,
        pinhole::{PinholeAction, PinholeResult},
        settings::{Provider, ProviderId, Settings},
    },
    view,
};

/// Engine and pinholes.
pub struct Core {
    engine: Engine,
    writer: MapWriter,
    provisionals: Provisionals,
    records: Records,
    counters: Counters,
    ledger: Ledger,
    harm: Harm,
    settings: Settings,
    about: About,
    reading: Delays,
    opening: Delays,
    /// Empty between two inputs; kept for its memory.
    done: Vec<Done>,
    pressure: Pressure,
    fullness: Fullness,
    watch: Watch,
    /// The calls that the packet moved that is being handled.
    moved: Vec<CallNumber>,
    /// What is done between inputs.
    work: VecDeque<Work>,
}

/// Where it is told what happens, for those who look on.
#[derive(Debug, Clone)]
pub struct Watch {
    /// Whoever follows.
    pub feed: Feed,
    /// Who was dropped, and what they missed.
    pub drops: Drops,
    /// What all of it passes before it is told.
    pub redactor: Redactor,
    /// The log.
    pub log: Lines,
}

/// An output of the engine that has been carried out, and what is still to be told of it.
enum Done {
    Pinhole(PinholeAction, PinholeResult, Option<Traffic>, Instant),
    Event(Event),
}

/// The kernel's maps, by what is done with them.
pub struct Kernel {
    /// Pinholes.
    pub writer: MapWriter,
    /// What an earlier run has left of them.
    pub inheritance: Inheritance,
    /// Provisional places.
    pub provisionals: Provisionals,
    /// Counters.
    pub counters: Counters,
    /// What sources have spent.
    pub pressure: Pressure,
}

/// The keys of the engine's hashes.
pub struct Keys {
    /// Drawn anew for each run.
    pub hash: [u64; 2],
    /// The same as in earlier runs.
    pub label: [u64; 2],
}

/// What `status` tells besides counts.
pub struct About {
    /// The configuration's file.
    pub config: Config,
    /// Where and how the programs are attached.
    pub attached: Vec<(String, Attached)>,
    /// When the daemon started.
    pub started: Instant,
    /// What was applied and waits to be confirmed, and until when it does.
    pub unconfirmed: Option<(String, Instant)>,
    /// Where the interfaces are by now; those of which nothing is said are where they were.
    pub places: BTreeMap<String, Place>,
}

impl Core {
    /// Puts the parts together.
    pub fn new(settings: Settings, keys: Keys, kernel: Kernel, about: About, watch: Watch) -> Self {
        let Kernel {
            writer,
            inheritance,
            provisionals,
            counters,
            pressure,
        } = kernel;
        let now = clock::now();
        let mut core = Self {
            engine: Engine::resuming(settings.clone(), keys.hash, keys.label),
            writer,
            provisionals,
            records: Records::telling(watch.feed.clone()),
            counters,
            ledger: Ledger::default(),
            harm: Harm::default(),
            fullness: Fullness::default(),
            settings,
            about,
            reading: Delays::default(),
            opening: Delays::default(),
            done: Vec::new(),
            pressure,
            watch,
            moved: Vec::new(),
            work: VecDeque::new(),
        };
        for local in inheritance.orphans {
            tracing::info!(%local, "pinhole of a provider that is not configured any more: closed");
            core.writer.disinherit(local, now);
        }
        for pinhole in inheritance.pinholes {
            let local = pinhole.local;
            if !core.engine.adopt(pinhole) {
                tracing::warn!(%local, "no room for a pinhole of an earlier run (`pinholes` under [limits]): closed");
                core.writer.disinherit(local, now);
            }
        }
        if core.engine.adopted_pinholes() > 0 {
            tracing::info!(
                pinholes = core.engine.adopted_pinholes(),
                "took over the pinholes of calls in progress"
            );
        }
        core
    }

    /// One input, and everything that follows from it.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) {
        if matches!(input, Input::Packet { .. }) {
            self.reading.add(clock::now().since(now));
        }
        let sent = match &input {
            Input::Packet {
                direction: Direction::Egress,
                bytes,
                ..
            } => Some(*bytes),
            _ => None,
        };
        self.moved.clear();
        self.engine.handle(now, input);
        self.drain(now);
        if let Some(packet) = sent {
            self.provisionals.revoke(packet);
        }
        if let Input::Packet {
            direction,
            bytes,
            truncated,
        } = input
        {
            self.watch.feed.publish_packet(|| Packet::Signalling {
                at: clock::wall(now),
                direction,
                bytes: bytes.to_owned(),
                truncated,
                calls: self.moved.clone(),
            });
        }
    }

    /// What time alone brings about: the engine's timers, and pinholes that went idle.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.engine.handle_timeout(now);
        self.drain(now);
        for local in self.writer.take_idle(now) {
            self.handle(now, Input::PinholeIdle { local });
        }
    }

    /// When [`Self::handle_timeout`] must be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.engine.poll_timeout(), self.writer.next_deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Tells the engine of copies that the ring buffers could not take, and the log of sources that sent too much; follows what passes.
    pub fn check_losses(&mut self) {
        let now = clock::now();
        let providers = &self.settings.providers;
        let packets = self.pressure.check(now, &self.counters, |provider| {
            provider_name(providers, provider).to_owned()
        });
        if packets > 0 {
            self.watch
                .feed
                .publish(SystemTime::now(), || view::Occurrence::Lost { packets });
            self.handle(now, Input::CaptureLost { packets });
        }
        self.fullness.check(now, &self.engine.counters());
        self.begin_sweep();
    }

    /// Answers one question, or begins to: what concerns all calls is told after some [`Self::work`]. The asker may have gone.
    pub fn answer(&mut self, question: Question) {
        let now = clock::now();
        let _ = match question {
            Question::Status(asker) => asker.send(self.status(now)).map_err(drop),
            Question::Call(id, asker) => asker.send(self.record(&id, now)).map_err(drop),
            Question::Calls(page, asker) => asker.send(self.calls(&page, now)).map_err(drop),
            Question::Metrics(asker) => {
                let count = Box::new(Count::new(self));
                self.work.push_back(Work::Metrics(count, asker));
                Ok(())
            }
            Question::Pinholes(page, asker) => asker.send(self.pinholes(&page, now)).map_err(drop),
            Question::Report(asker) => {
                let gathering = Box::new(Gathering::new(self));
                self.work.push_back(Work::Report(gathering, asker));
                Ok(())
            }
            Question::Closed(asker) => asker.send(self.closed(now)).map_err(drop),
        };
    }

    /// Carries out one order; whoever gave it may have gone.
    pub fn obey(&mut self, order: Order) {
        let now = clock::now();
        let _ = match order {
            Order::CloseCall(id, asker) => {
                let found = self.records.find(&id).map(|record| record.number);
                let closed = found.and_then(|number| {
                    tracing::info!(call = number.0, "closed by order");
                    self.handle(now, Input::EndCall(number));
                    self.record(&number.0.to_string(), clock::now())
                });
                asker.send(closed).map_err(drop)
            }
        };
    }

    /// `now` is the time of the input that all this follows from. The kernel hears of every pinhole before anything is logged or
    /// recorded: media may be on its way already.
    fn drain(&mut self, now: Instant) {
        let mut done = std::mem::take(&mut self.done);
        loop {
            while let Some(output) = self.engine.poll_output() {
                done.push(match output {
                    Output::Pinhole(action) => self.carry_out(action, now),
                    Output::Event(event) => Done::Event(event),
                });
            }
            if done.is_empty() {
                break;
            }
            for done in done.drain(..) {
                self.tell(done, now);
            }
        }
        self.done = done;
    }

    fn carry_out(&mut self, action: PinholeAction, now: Instant) -> Done {
        // Its counts go with it.
        let traffic = match &action {
            PinholeAction::Close { local, .. } => {
                let last = self.writer.traffic(local);
                self.close_books(local, last);
                last
            }
            PinholeAction::Open(_) | PinholeAction::Update(_) => None,
        };
        let result = self.writer.apply(&action, clock::now());
        let at = clock::now();
        if matches!(action, PinholeAction::Open(_)) && result == PinholeResult::Done {
            self.opening.add(at.since(now));
        }
        Done::Pinhole(action, result, traffic, at)
    }

    /// Writes down what a pinhole had that closes now.
    fn close_books(&mut self, local: &SocketAddr, last: Option<Traffic>) {
        let (Some(closed), Some(last)) = (self.ledger.close(local, last, clock::now()), last)
        else {
            return;
        };
        if let Some(hit) = Hit::new(*local, closed.stream, &closed.sources, &last) {
            let engine = &self.engine;
            self.harm.add(closed.call, &closed.provider, hit, || {
                Some(engine.call(closed.call)?.call_id.to_owned())
            });
        }
    }

    /// Tells log, records and engine what was done.
    fn tell(&mut self, done: Done, now: Instant) {
        match done {
            Done::Pinhole(action, result, traffic, at) => {
                log_action(&action);
                self.records.handle_pinhole(&action, result, traffic, at);
                self.watch.drops.lock().handle_pinhole(&action, result, at);
                if let PinholeAction::Open(pinhole) | PinholeAction::Update(pinhole) = &action
                    && result == PinholeResult::Done
                {
                    let provider = provider_name(&self.settings.providers, pinhole.provider);
                    self.ledger.open(pinhole, provider);
                }
                let input = match (action, result) {
                    (PinholeAction::Open(pinhole) | PinholeAction::Update(pinhole), result) => {
                        let local = pinhole.local;
                        Input::PinholeResult { local, result }
                    }
                    (PinholeAction::Close { .. }, PinholeResult::Done) => return,
                    (PinholeAction::Close { local, .. }, _) => Input::PinholeNotClosed { local },
                };
                self.engine.handle(at, input);
            }
            Done::Event(event) => {
                self.log_event(&event);
                self.publish(&event);
                self.records.handle_event(&event, now, SystemTime::now());
                if let Event::Message { call, .. } = event {
                    self.moved.push(call);
                    self.record_state(call, now);
                }
            }
        }
    }

    /// Has the record take down what the engine may have forgotten when somebody asks.
    fn record_state(&mut self, call: CallNumber, now: Instant) {
        if let Some(view) = self.engine.call(call) {
            let endpoints = self.engine.endpoints(call);
            self.records.handle_state(&view, endpoints, now);
        }
    }

    fn provider_name(&self, provider: ProviderId) -> &str {
        provider_name(&self.settings.providers, provider)
    }
}

fn provider_name(providers: &[Provider], provider: ProviderId) -> &str {
    providers
        .get(usize::from(provider.0))
        .map_or("?", |provider| &provider.name)
}
