//! The one owner of the engine: feeds it, carries its outputs out, and answers what the control socket asks.
//!
//! It decides nothing. Whatever an action leads to goes back into the engine as an input before anything else does.

mod metrics;
mod report;
pub mod succession;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    ops::RangeInclusive,
    time::{Duration, SystemTime},
};

use sipfilter_common::reason::{Action, Counter, Reason};

use super::{
    api::{Order, Question},
    clock,
    counters::Counters,
    datapath::Attached,
    delay::Delays,
    feed::{Feed, Packet},
    fullness::Fullness,
    harm::{Harm, Hit},
    ledger::{Ledger as Drops, Stray},
    map_writer::{Inheritance, MapWriter, Traffic},
    pressure::Pressure,
    privacy::Redactor,
    provisional::Provisionals,
    record::{LookupError, Records, Witness},
    reload::places::Place,
    scope::modes,
    traffic::Ledger,
};
use crate::{
    config::Config,
    diagnosis::{self, Flow, Stillness},
    engine::{
        CallNumber, CallState, CallView, Direction, EndReason, Engine, Event, Input, Instant,
        Output,
        counters::Reading,
        pinhole::{Pinhole, PinholeAction, PinholeResult, Source, Stream, Terms},
        settings::{Enforcement, Provider, ProviderId, Settings},
    },
    view,
};

/// Limited sources that `status` names, those with most first.
const SHOWN_SOURCES: usize = 20;

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
            self.reading.add(clock::now().0.saturating_sub(now.0));
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
                at: wall(now),
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
        self.ledger.sweep(|local| self.writer.traffic(local));
    }

    /// Answers one question; the asker may have gone.
    pub fn answer(&self, question: Question) {
        let now = clock::now();
        let _ = match question {
            Question::Status(asker) => asker.send(self.status(now)).map_err(drop),
            Question::Call(id, asker) => asker.send(self.record(&id, now)).map_err(drop),
            Question::Calls(asker) => asker.send(self.calls(now)).map_err(drop),
            Question::Metrics(asker) => asker.send(self.metrics(now)).map_err(drop),
            Question::Pinholes(asker) => asker.send(self.pinholes(now)).map_err(drop),
            Question::Report(asker) => asker.send(Box::new(self.report(now))).map_err(drop),
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
            self.opening.add(at.0.saturating_sub(now.0));
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

    /// What the records do not tell.
    fn publish(&self, event: &Event) {
        let feed = &self.watch.feed;
        match event {
            Event::CallStarted {
                call,
                call_id,
                provider,
                direction,
            } => feed.publish(SystemTime::now(), || view::Occurrence::CallStarted {
                call: call.0,
                call_id: call_id.clone(),
                provider: self.provider_name(*provider).to_owned(),
                direction: direction_name(*direction).to_owned(),
            }),
            Event::Refused {
                call: None,
                refusal,
            } => feed.publish(SystemTime::now(), || view::Occurrence::Refused {
                refusal: refusal.name().to_owned(),
            }),
            _ => {}
        }
    }

    /// Has the record take down what the engine may have forgotten when somebody asks.
    fn record_state(&mut self, call: CallNumber, now: Instant) {
        if let Some(view) = self.engine.call(call) {
            let endpoints = self.engine.endpoints(call);
            self.records.handle_state(&view, endpoints, now);
        }
    }

    /// Lines that a peer can cause are at debug level, so that nobody fills the disk from outside.
    fn log_event(&self, event: &Event) {
        match event {
            Event::CallStarted {
                call,
                call_id,
                provider,
                direction,
            } => tracing::debug!(
                call = call.0,
                call_id,
                provider = self.provider_name(*provider),
                direction = direction_name(*direction),
                "call started"
            ),
            Event::Message { call, message } => tracing::trace!(call = call.0, ?message, "message"),
            Event::Related {
                call,
                relation,
                value,
            } => tracing::trace!(call = call.0, ?relation, value, "related"),
            Event::CallConfirmed { call } => tracing::debug!(call = call.0, "call confirmed"),
            Event::CallEnded { call, reason } => {
                tracing::debug!(call = call.0, reason = reason.name(), "call ended");
            }
            Event::Refused { call, refusal } => {
                tracing::debug!(
                    call = call.map(|call| call.0),
                    refusal = refusal.name(),
                    "refused"
                );
            }
        }
    }

    fn provider_name(&self, provider: ProviderId) -> &str {
        provider_name(&self.settings.providers, provider)
    }

    /// What the rules call to drop, by the kernel's counters; what cannot be read counts as nothing.
    fn packets_to_drop(&self) -> u64 {
        let modes = modes(&self.settings.filtering);
        Reason::ALL
            .iter()
            .filter(|reason| modes.ruling(**reason) == Action::Drop)
            .filter_map(|reason| self.counters.read(Counter::Reason(*reason)).ok())
            .map(|count| count.packets)
            .sum()
    }

    fn status(&self, now: Instant) -> view::Status {
        let summary = self.about.config.summary();
        let pbx = &self.settings.pbx;
        view::Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            config: self.about.config.path.display().to_string(),
            unconfirmed: self.about.unconfirmed.as_ref().map(|(file, deadline)| {
                view::Unconfirmed {
                    file: file.clone(),
                    seconds_left: seconds_since(now, *deadline),
                }
            }),
            uptime_seconds: seconds_since(self.about.started, now),
            interfaces: self.interfaces(),
            protected: pbx.addresses.clone(),
            rtp_ports: format!("{}-{}", pbx.rtp_ports.start(), pbx.rtp_ports.end()),
            enforcement: summary.enforcement.to_owned(),
            scope: summary.scope.to_owned(),
            egress: summary.egress.to_owned(),
            packets_to_drop: self.packets_to_drop(),
            providers: self
                .settings
                .providers
                .iter()
                .map(|provider| provider.name.clone())
                .collect(),
            calls: self.calls_in_progress().count(),
            pinholes: self.engine.pinholes().count(),
            adopted_pinholes: self.engine.adopted_pinholes(),
            reading: self.reading.view(),
            opening: self.opening.view(),
            limited_sources: self.limited_sources(),
            forged_packets: self.pressure.forged(),
            routes_changed: self.pressure.is_route_outdated(),
            counters: self
                .engine
                .counters()
                .readings()
                .map(|reading| (counter_name(&reading), reading.value))
                .collect(),
        }
    }

    fn interfaces(&self) -> Vec<view::Interface> {
        let attached = self.about.attached.iter();
        attached
            .map(|(name, attached)| {
                let (state, now_called, why) = match self.about.places.get(name) {
                    None | Some(Place::Filtered) => ("filtered", None, None),
                    Some(Place::Renamed(other)) => ("renamed", Some(other.clone()), None),
                    Some(Place::Gone) => ("gone", None, None),
                    Some(Place::Refused(why)) => ("refused", None, Some(why.clone())),
                };
                view::Interface {
                    name: name.clone(),
                    mode: attached.to_string(),
                    fallback: match attached {
                        Attached::Fallback { why } => Some(why.clone()),
                        Attached::Native | Attached::Generic => None,
                    },
                    state: state.to_owned(),
                    now_called,
                    refusal: why,
                }
            })
            .collect()
    }

    fn limited_sources(&self) -> Vec<view::LimitedSource> {
        self.pressure
            .limited_sources()
            .into_iter()
            .take(SHOWN_SOURCES)
            .map(|limited| view::LimitedSource {
                source: limited.source,
                provider: self.provider_name(limited.provider).to_owned(),
                requests: limited.spending.begins.refused,
                messages: limited.spending.continues.refused,
                segments: limited.spending.segments.refused,
            })
            .collect()
    }

    fn calls(&self, now: Instant) -> Vec<view::Call> {
        self.calls_in_progress()
            .map(|call| self.call(&call, now))
            .collect()
    }

    /// The engine remembers ended calls for a while, so that late messages open nothing; they are not in progress any more.
    fn calls_in_progress(&self) -> impl Iterator<Item = CallView<'_>> {
        self.engine
            .calls()
            .filter(|call| !matches!(call.state, CallState::Ended(_)))
    }

    fn call(&self, call: &CallView<'_>, now: Instant) -> view::Call {
        view::Call {
            number: call.number.0,
            call_id: call.call_id.to_owned(),
            provider_call_id: call
                .provider_call_id
                .map(|(name, value)| (name.to_owned(), value.to_owned())),
            provider: self.provider_name(call.provider).to_owned(),
            direction: direction_name(call.direction).to_owned(),
            state: call.state.name().to_owned(),
            hold: call.hold,
            age_seconds: seconds_since(call.started, now),
            local_media: call.local_media.clone(),
            remote_media: call.remote_media.clone(),
            pinholes: call.pinholes.to_vec(),
            finding: self
                .stillness(call, now)
                .map(|still| still.code().to_owned()),
        }
    }

    /// Which direction of a call's media is silent now. It is asked of every call at once, so it reads no timeline.
    fn stillness(&self, call: &CallView<'_>, now: Instant) -> Option<Stillness> {
        let answered = call.confirmed_at.filter(|_| !call.hold)?;
        let mut flow = Flow::default();
        let ago = |last: Option<u64>, before: Option<f64>| {
            let last = last.map(|last| seconds_since(clock::from_kernel(last), now));
            [last, before].into_iter().flatten().reduce(f64::min)
        };
        for local in call.pinholes {
            let is_media = self
                .engine
                .pinhole(*local)
                .is_some_and(|pinhole| pinhole.stream != Stream::Rtcp);
            if !is_media {
                continue;
            }
            let traffic = self.writer.traffic(local)?;
            flow.from_provider += traffic.ingress_packets;
            flow.from_pbx += traffic.egress_packets;
            flow.provider_still = ago(traffic.ingress_last, flow.provider_still);
            flow.pbx_still = ago(traffic.egress_last, flow.pbx_still);
        }
        diagnosis::judge_media(&flow, seconds_since(answered, now))
    }

    fn record(&self, id: &str, now: Instant) -> Result<view::CallRecord, LookupError> {
        let record = self.records.find(id)?;
        let state = match self.engine.call(record.number) {
            Some(call) if record.end.is_none() => call.state,
            _ => CallState::Ended(EndReason::Operator),
        };
        Ok(view::CallRecord {
            observing: self.settings.filtering.enforcement == Enforcement::Observe,
            ..record.view(self.provider_name(record.provider), state.name(), self, now)
        })
    }

    fn pinholes(&self, now: Instant) -> Vec<view::Pinhole> {
        self.engine
            .pinholes()
            .map(|pinhole| self.pinhole(pinhole, now))
            .collect()
    }

    fn closed(&self, now: Instant) -> Vec<view::ClosedPinhole> {
        let closed = self.ledger.closed().map(|closed| view::ClosedPinhole {
            local: closed.local,
            sources: closed.sources.iter().map(source_view).collect(),
            provider: closed.provider.clone(),
            call: closed.call.0,
            closed_seconds: seconds_since(closed.at, now),
        });
        closed.collect()
    }

    fn pinhole(&self, pinhole: &Pinhole, now: Instant) -> view::Pinhole {
        let traffic = self.writer.traffic(&pinhole.local).unwrap_or_default();
        let last = traffic.ingress_last.max(traffic.egress_last);
        view::Pinhole {
            local: pinhole.local,
            sources: pinhole.sources.iter().map(source_view).collect(),
            stream: stream_name(pinhole.stream).to_owned(),
            payload_types: payload_types_view(pinhole.stream, pinhole.terms),
            rtcp: pinhole.terms.rtcp,
            packets_per_second: pinhole.terms.packets_per_second.number(),
            latch: traffic.latch.map(|latch| latch.to_string()),
            provider: self.provider_name(pinhole.provider).to_owned(),
            call: pinhole.call.0,
            idle_limit_seconds: pinhole.idle.as_secs_f64(),
            idle_seconds: last.map(|last| seconds_since(clock::from_kernel(last), now)),
            ingress_packets: traffic.ingress_packets,
            egress_packets: traffic.egress_packets,
            dropped_packets: traffic.dropped_packets,
        }
    }
}

impl Witness for Core {
    fn traffic(&self, local: &SocketAddr) -> Option<Traffic> {
        self.writer.traffic(local)
    }

    fn strays(&self, local: SocketAddr, time: &RangeInclusive<Instant>) -> Vec<Stray> {
        self.watch.drops.lock().strays(local, time)
    }
}

fn provider_name(providers: &[Provider], provider: ProviderId) -> &str {
    providers
        .get(usize::from(provider.0))
        .map_or("?", |provider| &provider.name)
}

/// The wall clock's time of a moment that has just been.
fn wall(at: Instant) -> SystemTime {
    let now = SystemTime::now();
    now.checked_sub(clock::now().0.saturating_sub(at.0))
        .unwrap_or(now)
}

fn log_action(action: &PinholeAction) {
    match action {
        PinholeAction::Open(pinhole) => {
            tracing::debug!(call = pinhole.call.0, local = %pinhole.local, sources = ?pinhole.sources, "pinhole opened")
        }
        PinholeAction::Update(pinhole) => {
            tracing::debug!(call = pinhole.call.0, local = %pinhole.local, sources = ?pinhole.sources, "pinhole updated")
        }
        PinholeAction::Close { local, call } => {
            tracing::debug!(call = call.0, %local, "pinhole closed")
        }
    }
}

/// `refusals.wrong_dialog`, `calls_ended.bye_ingress`: the labelled ones under their own names.
fn counter_name(reading: &Reading) -> String {
    match reading.label {
        Some((_, label)) => format!("{}.{label}", reading.name),
        None => reading.name.to_owned(),
    }
}

/// `inbound` is a call that the provider makes.
pub(super) fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "inbound",
        Direction::Egress => "outbound",
    }
}

/// A stable name.
pub(super) fn stream_name(stream: Stream) -> &'static str {
    match stream {
        Stream::Rtp => "rtp",
        Stream::Rtcp => "rtcp",
        Stream::Udptl => "udptl",
    }
}

/// Payload types for a report; T.38 has none.
pub(super) fn payload_types_view(stream: Stream, terms: Terms) -> Option<Vec<u8>> {
    (stream != Stream::Udptl).then(|| view::payload_types(terms.payload_types))
}

/// A source for a report.
pub(super) fn source_view(source: &Source) -> view::Source {
    view::Source {
        net: source.net,
        ports: format!("{}-{}", source.ports.0, source.ports.1),
    }
}

/// None if `then` is to come.
pub(super) fn seconds_since(then: Instant, now: Instant) -> f64 {
    now.0
        .checked_sub(then.0)
        .unwrap_or(Duration::ZERO)
        .as_secs_f64()
}
