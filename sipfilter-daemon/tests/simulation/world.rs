//! One seeded run: the clock, the queue of what is to happen, the network between the agents, and the promises, asked at each packet.
//!
//! What the agents do with a message is in `agents`, what attackers do in `attackers`; both send through [`World::send_sip`] and
//! [`World::send_frame`] only.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    net::SocketAddr,
    time::Duration,
};

use sipfilter_common::{
    reason::{Action, Reason},
    settings::Modes,
};
use sipfilter_daemon::engine::Direction;

use crate::{
    agents::Timer,
    call::{Call, CallId, DialogId, Form, Msg, Tx},
    edge::Edge,
    frames::{sockets, udp},
    messages::{describe, text},
    places::{pbx, rules, settings, signalling},
    random::Random,
    shadow::{Rule, Shadow},
    tcp::{Link, Segment},
    wire::{Component, Medium, Shape, Side, media, udptl},
};

/// How a run is disturbed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// Packets lost between provider and edge, of a hundred.
    pub loss: u64,
    /// Packets that arrive twice.
    pub duplication: u64,
    /// How much longer than the shortest delay a packet may take: reordering.
    pub jitter: u64,
    /// Copies that never reach the engine.
    pub capture_loss: u64,
    /// Seconds between restarts of the daemon; 0 for none.
    pub restarts: u64,
    /// Whether somebody attacks.
    pub attacks: bool,
}

/// What a run saw, for the assurance that it tested something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub calls: u64,
    pub confirmed: u64,
    pub messages: u64,
    /// Media from outside that both sides had agreed on, and that passed.
    pub wanted: u64,
    /// Media from outside that had to be dropped, and was.
    pub refused: u64,
    /// Everything that attackers sent.
    pub hostile: u64,
    pub restarts: u64,
    /// UPDATEs while a call rings.
    pub early_changes: u64,
    /// Messages over TCP.
    pub streamed: u64,
    /// Fax that passed.
    pub fax: u64,
    /// Dialogs of calls that have several.
    pub forked: u64,
    /// Provisional responses that wanted a PRACK.
    pub reliable: u64,
}

impl Tally {
    pub fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.confirmed += other.confirmed;
        self.messages += other.messages;
        self.wanted += other.wanted;
        self.refused += other.refused;
        self.hostile += other.hostile;
        self.restarts += other.restarts;
        self.early_changes += other.early_changes;
        self.streamed += other.streamed;
        self.fax += other.fax;
        self.forked += other.forked;
        self.reliable += other.reliable;
    }
}

pub enum Event {
    Edge(Packet),
    Arrive(Msg),
    ArriveSegment(Segment),
    Timer(Timer),
    Media(CallId, DialogId, Side),
    Attack,
    Tick,
    Restart,
}

#[derive(Clone)]
pub struct Packet {
    pub direction: Direction,
    pub frame: Vec<u8>,
    pub kind: Kind,
}

#[derive(Clone)]
pub enum Kind {
    Sip(Msg),
    Segment(Segment),
    Media(CallId, DialogId, Shape),
    Hostile(Shape),
}

struct Due {
    at: Duration,
    order: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

pub struct World {
    pub random: Random,
    pub now: Duration,
    queue: BinaryHeap<Reverse<Due>>,
    order: u64,
    pub faults: Faults,
    pub edge: Edge,
    pub shadow: Shadow,
    pub rules: Vec<Rule>,
    pub calls: Vec<Call>,
    pub txs: Vec<Tx>,
    pub links: Vec<Link>,
    /// The PBX's ports in use.
    pub ports: BTreeMap<u16, (CallId, DialogId)>,
    pub version: u64,
    /// Everything that came from a provider, for replays.
    pub overheard: Vec<Packet>,
    pub tally: Tally,
    /// What happened, if anybody wants to know.
    pub trace: Option<Vec<String>>,
    /// The first promise that was broken.
    pub broken: Option<String>,
    end: Duration,
}

impl World {
    pub fn new(seed: u64, trace: bool) -> Self {
        let mut random = Random::new(seed);
        let faults = Faults {
            loss: [0, 0, 3, 10, 25][random.below(5)],
            duplication: [0, 0, 5, 20][random.below(4)],
            jitter: [0, 20, 100, 400][random.below(4)],
            capture_loss: if random.percent(10) { 5 } else { 0 },
            restarts: if random.percent(12) {
                random.between(5, 30)
            } else {
                0
            },
            attacks: random.percent(60),
        };
        let start = Duration::from_secs(1_000);
        let mut world = Self {
            random,
            now: start,
            queue: BinaryHeap::new(),
            order: 0,
            faults,
            edge: Edge::new(settings()),
            shadow: Shadow::default(),
            rules: rules(),
            calls: Vec::new(),
            txs: Vec::new(),
            links: Vec::new(),
            ports: BTreeMap::new(),
            version: 0,
            overheard: Vec::new(),
            tally: Tally::default(),
            trace: trace.then(Vec::new),
            broken: None,
            end: start + Duration::from_secs(150),
        };
        world.note(|| format!("{faults:?}"));
        let count = world.random.between(2, 5);
        for _ in 0..count {
            let at = Duration::from_millis(world.random.between(0, 30_000));
            world.after(at, Event::Timer(Timer::Begin));
        }
        world.after(Duration::from_millis(500), Event::Tick);
        if faults.restarts > 0 {
            world.after(Duration::from_secs(faults.restarts), Event::Restart);
        }
        if faults.attacks {
            world.after(Duration::from_millis(700), Event::Attack);
        }
        world
    }

    /// Plays to the end.
    pub fn run(&mut self) {
        while self.broken.is_none()
            && let Some(Reverse(Due { at, event, .. })) = self.queue.pop()
        {
            self.now = at;
            self.take(event);
        }
        if self.broken.is_none() {
            self.fall_silent();
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Edge(packet) => self.cross(packet),
            Event::Arrive(msg) => self.receive(msg),
            Event::ArriveSegment(segment) => self.arrive(segment),
            Event::Timer(timer) => self.handle_timer(timer),
            Event::Media(call, dialog, side) => self.send_media(call, dialog, side),
            Event::Attack => {
                self.attack();
                self.again(30, 900, Event::Attack);
            }
            Event::Tick => {
                self.edge.tick(self.now);
                self.note_actions();
                self.again(500, 500, Event::Tick);
            }
            Event::Restart => {
                self.edge.restart();
                self.tally.restarts += 1;
                self.note(|| "the daemon restarts".to_owned());
                for call in &mut self.calls {
                    call.tainted = true;
                }
                self.miss_links();
                let after = self.faults.restarts * 1_000;
                self.again(after, after, Event::Restart);
            }
        }
    }

    /// Once nobody calls any more, what the engine knows of is closed in time: pinholes of calls that it has followed at once, everything
    /// else (calls that nobody saw end, and what attackers made it believe) after the longest idle limit, an hour.
    fn fall_silent(&mut self) {
        let is_followed = self.calls.iter().all(|call| !call.tainted);
        self.wait(400, 10);
        if is_followed {
            self.expect_closed();
        }
        self.wait(4 * 3_600, 240);
        self.expect_closed();
        let calls = self.edge.calls();
        if !calls.is_empty() {
            self.fail(|| format!("the engine still follows calls that are long over: {calls:?}"));
        }
    }

    fn wait(&mut self, seconds: u64, step: u64) {
        for _ in 0..seconds / step {
            self.now += Duration::from_secs(step);
            self.edge.tick(self.now);
        }
        self.note_actions();
    }

    fn expect_closed(&mut self) {
        let locals = self.edge.locals();
        if !locals.is_empty() {
            self.fail(|| format!("pinholes outlive every call: {locals:?}"));
        }
    }

    pub fn after(&mut self, delay: Duration, event: Event) {
        self.order += 1;
        self.queue.push(Reverse(Due {
            at: self.now + delay,
            order: self.order,
            event,
        }));
    }

    /// Once more between so many milliseconds from now, unless the run is over by then.
    fn again(&mut self, from: u64, to: u64, event: Event) {
        let delay = Duration::from_millis(self.random.between(from, to));
        if self.now + delay < self.end {
            self.after(delay, event);
        }
    }

    pub fn note(&mut self, line: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:9.3} {}", now.as_secs_f64() - 1_000.0, line()));
        }
    }

    fn note_actions(&mut self) {
        for action in std::mem::take(&mut self.edge.actions) {
            self.note(|| format!("            engine: {action}"));
        }
    }

    pub fn fail(&mut self, why: impl FnOnce() -> String) {
        if self.broken.is_none() {
            let why = why();
            self.note(|| format!("BROKEN: {why}"));
            self.broken = Some(why);
        }
    }

    /// A genuine message sets out.
    pub fn send_sip(&mut self, msg: Msg) {
        let tx = &self.txs[msg.tx.0];
        let call = &self.calls[tx.call.0];
        let sender = match msg.form {
            Form::Request | Form::Ack(_) => tx.by,
            Form::Response(_) => tx.by.other(),
        };
        let payload = text(call, tx, &msg).into_bytes();
        if let Some(link) = call.link {
            self.write(link, sender, &payload, msg);
            return;
        }
        let v6 = call.plan.v6;
        let (pbx, provider) = (pbx(v6), signalling(call.plan.provider, v6));
        let (direction, source, destination) = match sender {
            Side::Provider => (Direction::Ingress, provider, pbx),
            Side::Pbx => (Direction::Egress, pbx, provider),
        };
        let frame = udp(source, destination, &payload);
        self.send_frame(Packet {
            direction,
            frame,
            kind: Kind::Sip(msg),
        });
    }

    /// Over the first hop: through the Internet to the edge, or through the PBX's own network.
    pub fn send_frame(&mut self, packet: Packet) {
        match packet.direction {
            Direction::Ingress => self.through_the_internet(|| Event::Edge(packet.clone())),
            Direction::Egress => {
                let delay = Duration::from_micros(self.random.between(100, 2_000));
                self.after(delay, Event::Edge(packet));
            }
        }
    }

    fn through_the_internet(&mut self, event: impl Fn() -> Event) {
        let copies = match () {
            () if self.random.percent(self.faults.loss) => 0,
            () if self.random.percent(self.faults.duplication) => 2,
            () => 1,
        };
        for _ in 0..copies {
            let delay = self.random.between(10, 15 + self.faults.jitter);
            self.after(Duration::from_millis(delay), event());
        }
    }

    fn cross(&mut self, packet: Packet) {
        match &packet.kind {
            Kind::Media(call, dialog, shape) => {
                let (call, dialog, shape) = (*call, *dialog, *shape);
                self.cross_media(&packet, Some((call, dialog)), shape);
            }
            Kind::Hostile(shape) => {
                self.tally.hostile += 1;
                if !(10_000..20_000).contains(&sockets(&packet.frame).1.port()) {
                    self.note(|| "ATTACK by SIP".to_owned());
                    self.edge
                        .cross(self.now, packet.direction, &packet.frame, true);
                    self.note_actions();
                } else {
                    self.cross_media(&packet, None, *shape);
                }
            }
            Kind::Segment(segment) => self.cross_tcp(&packet, *segment),
            Kind::Sip(msg) => {
                let msg = msg.clone();
                self.cross_sip(&packet, msg);
            }
        }
    }

    fn cross_sip(&mut self, packet: &Packet, msg: Msg) {
        let copied = !self.random.percent(self.faults.capture_loss);
        self.note_message(&msg, copied);
        let reason = self
            .edge
            .cross(self.now, packet.direction, &packet.frame, copied);
        self.note_actions();
        match (packet.direction, reason) {
            (Direction::Ingress, Reason::Signalling) => {
                if self.overheard.len() < 200 {
                    self.overheard.push(packet.clone());
                }
                let delay = Duration::from_micros(self.random.between(100, 2_000));
                self.after(delay, Event::Arrive(msg));
            }
            (Direction::Egress, Reason::EgressSignalling) => {
                self.through_the_internet(|| Event::Arrive(msg.clone()));
            }
            (_, reason) => self.fail(|| format!("SIP of a provider was judged {}", reason.name())),
        }
    }

    fn cross_tcp(&mut self, packet: &Packet, segment: Segment) {
        let copied = !self.random.percent(self.faults.capture_loss);
        if !copied {
            self.taint(segment.link());
        }
        for msg in self.cross_segment(segment, copied) {
            self.tally.streamed += 1;
            self.note_message(&msg, copied);
        }
        let reason = self
            .edge
            .cross(self.now, packet.direction, &packet.frame, copied);
        self.note_actions();
        match (packet.direction, reason) {
            (Direction::Ingress, Reason::Signalling) => {
                let delay = Duration::from_micros(self.random.between(100, 2_000));
                self.after(delay, Event::ArriveSegment(segment));
            }
            (Direction::Egress, Reason::EgressSignalling) => {
                self.through_the_internet(|| Event::ArriveSegment(segment));
            }
            (_, reason) => self.fail(|| format!("SIP over TCP was judged {}", reason.name())),
        }
    }

    /// The filter can know of this message now.
    fn note_message(&mut self, msg: &Msg, copied: bool) {
        self.tally.messages += 1;
        self.tally.reliable += u64::from(msg.is_reliable);
        let tx = &self.txs[msg.tx.0];
        let call = tx.call;
        if self.trace.is_some() {
            let line = describe(&self.calls[call.0], call, tx, msg);
            let lost = if copied { "" } else { " (capture lost)" };
            self.note(|| format!("{line}{lost}"));
        }
        if !copied {
            self.calls[call.0].tainted = true;
        }
        self.calls[call.0].known = true;
        self.shadow.cross(self.now, &self.txs[msg.tx.0], msg);
    }

    /// Promises 1 to 3, for one packet.
    fn cross_media(&mut self, packet: &Packet, of: Option<(CallId, DialogId)>, shape: Shape) {
        let (source, destination) = sockets(&packet.frame);
        let reason = self
            .edge
            .cross(self.now, packet.direction, &packet.frame, true);
        if packet.direction == Direction::Egress {
            if Modes::DEFAULT.action(reason) == Action::Drop {
                self.fail(|| "a packet was dropped on the way out".to_owned());
            }
            return;
        }
        let permitted = self.shadow.permits(
            self.now,
            &self.calls,
            &self.rules,
            source,
            destination,
            shape,
        );
        let wanted = of.is_some_and(|(call, dialog)| {
            self.is_wanted(call, dialog, (source, destination), shape)
        });
        match reason.action() {
            // What the PBX's own SDP named a moment ago, and the engine could not read.
            Action::Pass if reason == Reason::Provisional && self.edge.may_be_unread() => {}
            Action::Pass if !permitted => self.fail(|| {
                format!("promise 1: {source} > {destination} of {of:?} passed, but no live call asked for it")
            }),
            Action::Drop if wanted => self.fail(|| {
                let reason = reason.name();
                format!("promise 2: {source} > {destination} of {of:?} was dropped ({reason}), though both sides agreed on it")
            }),
            Action::Pass => {
                self.tally.wanted += u64::from(wanted);
                self.tally.fax += u64::from(wanted && shape == Shape::Other);
            }
            Action::Drop => self.tally.refused += 1,
        }
    }

    /// Whether both agents hold, right now, that this flow is negotiated.
    fn is_wanted(
        &mut self,
        call: CallId,
        dialog: DialogId,
        (source, destination): (SocketAddr, SocketAddr),
        shape: Shape,
    ) -> bool {
        let call = &self.calls[call.0];
        let [provider, pbx] = &call.dialogs[dialog.0].ends;
        let flows = |component| {
            let streams = provider.mine.as_ref().map_or(0, |desc| desc.sections.len());
            (0..streams).any(|stream| {
                provider
                    .flow(stream, component)
                    .is_some_and(|(from, to, medium)| {
                        (from, to, shape_of(medium)) == (source, destination, shape)
                    })
            })
        };
        !call.tainted
            && (flows(Component::Rtp) || flows(Component::Rtcp))
            && pbx.expects(destination, source, shape)
    }

    fn send_media(&mut self, call: CallId, dialog: DialogId, side: Side) {
        let end = self.calls[call.0].dialogs[dialog.0].end(side);
        let streams = end.mine.as_ref().map_or(1, |desc| desc.sections.len());
        let stream = self.random.below(streams);
        let component = if self.random.percent(15) {
            Component::Rtcp
        } else {
            Component::Rtp
        };
        let end = self.calls[call.0].dialogs[dialog.0].end(side);
        if end.exists && !end.alive {
            return;
        }
        if let Some((source, destination, medium)) = end.flow(stream, component) {
            let direction = match side {
                Side::Provider => Direction::Ingress,
                Side::Pbx => Direction::Egress,
            };
            let shape = shape_of(medium);
            let payload = match shape {
                Shape::Rtp => media(component),
                Shape::Other => udptl(self.order),
            };
            self.send_frame(Packet {
                direction,
                frame: udp(source, destination, &payload),
                kind: Kind::Media(call, dialog, shape),
            });
        }
        self.again(20, 200, Event::Media(call, dialog, side));
    }
}

fn shape_of(medium: Medium) -> Shape {
    match medium {
        Medium::Audio | Medium::Video => Shape::Rtp,
        Medium::Fax => Shape::Other,
    }
}
