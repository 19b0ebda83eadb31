//! [`Engine`]: the stages wired together, and the one conversation with the shell.
//!
//! It decides nothing about SIP or SDP itself: it finds whose message came, lets the call take it, and turns what the call then wants into
//! actions. Its invariants, checked after every input in debug builds: the pinholes are the union of what living calls want, and the armed
//! deadline is the earliest of all.

mod adoption;
mod reconfigure;

use std::{
    collections::{BTreeSet, VecDeque},
    net::SocketAddr,
};

use sipfilter_common::parse::Malformed;

use super::{
    CallNumber, CallView, Counters, Direction, EndReason, Endpoints, Event, Input, Instant,
    MessageSummary, Output, Refusal, Relation,
    adopted::AdoptedCalls,
    call::{
        Call, Context, Effects, Planned,
        message::{Aside, Form, HashKey, MAX_IDENTIFIER, Seen, Verb},
        session::{Limits, Nets},
        table::{CallTable, Found, Room},
    },
    decode,
    pinhole::{
        Pinhole, PinholeAction, PinholeResult,
        table::{Owner, PinholeTable},
    },
    reassemble::{self, Delivery, Reassembler},
    settings::{Provider, ProviderId, Settings, SignallingPorts, Transport},
    sip::{self, SipError},
    trunk,
};

/// Up to this many calls, debug builds check all of them after every input.
#[cfg(debug_assertions)]
const FULLY_CHECKED_CALLS: usize = 64;

/// The engine. See the module above for the order of calls.
#[derive(Debug)]
pub struct Engine {
    settings: Settings,
    key: HashKey,
    /// The key of the labels by which daemons to come know our calls.
    label_key: HashKey,
    /// By provider number.
    nets: Vec<Nets>,
    /// What TLS looks like from outside, over all providers.
    provider_ports: SignallingPorts,
    now: Instant,
    reassembler: Reassembler,
    calls: CallTable,
    pinholes: PinholeTable,
    adopted: AdoptedCalls,
    outputs: VecDeque<Output>,
    counters: Counters,
}

impl Engine {
    /// An engine without calls, for the rest as [`Self::new`]. `label_key` is the one that earlier runs used.
    pub fn resuming(settings: Settings, hash_key: [u64; 2], label_key: [u64; 2]) -> Self {
        Self {
            label_key: HashKey(label_key),
            ..Self::new(settings, hash_key)
        }
    }

    /// An engine without calls. `hash_key` must be drawn anew for each run: it keeps peers from aiming hash collisions at tables.
    pub fn new(settings: Settings, hash_key: [u64; 2]) -> Self {
        let key = HashKey(hash_key);
        let nets = nets(&settings);
        let provider_ports = provider_ports(&settings);
        let limit = settings.limits.pinholes;
        Self {
            settings,
            key,
            label_key: key,
            nets,
            provider_ports,
            now: Instant::default(),
            reassembler: Reassembler::new(reassemble::Limits::default()),
            calls: CallTable::new(key),
            pinholes: PinholeTable::new(limit),
            adopted: AdoptedCalls::default(),
            outputs: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// Takes one input. A time before the last one counts as the last one.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) {
        self.now = self.now.max(now);
        self.expire();
        match input {
            Input::Packet {
                direction,
                bytes,
                truncated,
            } => self.handle_packet(direction, bytes, truncated),
            Input::PinholeResult { local, result } => self.handle_result(local, result),
            Input::PinholeNotClosed { local: _ } => self.refuse(None, Refusal::ActionFailed),
            Input::PinholeIdle { local } => self.handle_idle(local),
            Input::CaptureLost { packets } => self.handle_lost(packets),
            Input::EndCall(number) => {
                self.end_adopted(number, EndReason::Operator);
                self.end_call(number, EndReason::Operator);
            }
        }
        #[cfg(debug_assertions)]
        self.check_invariants();
    }

    /// Carries out what is due by now.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = self.now.max(now);
        self.expire();
        #[cfg(debug_assertions)]
        self.check_invariants();
    }

    /// The next thing to do or to report; `None` once there is nothing left.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match (self.calls.deadline(), self.reassembler.poll_timeout()) {
            (Some(calls), Some(reassembler)) => Some(calls.min(reassembler)),
            (calls, reassembler) => calls.or(reassembler),
        }
    }

    /// Every call, those that are over and still remembered included, in order of appearance.
    pub fn calls(&self) -> impl Iterator<Item = CallView<'_>> {
        self.calls.iter().map(Call::view)
    }

    /// Those behind this one, in the same order.
    pub fn calls_behind(&self, number: Option<CallNumber>) -> impl Iterator<Item = CallView<'_>> {
        self.calls.behind(number).map(Call::view)
    }

    /// The number of every call, in order.
    pub fn call_numbers(&self) -> Vec<CallNumber> {
        self.calls.numbers()
    }

    /// How many calls are not over.
    pub fn calls_in_progress(&self) -> usize {
        self.calls.in_progress()
    }

    /// One call.
    pub fn call(&self, number: CallNumber) -> Option<CallView<'_>> {
        self.calls.call(number).map(Call::view)
    }

    /// Where both sides of a call said they receive media.
    pub fn endpoints(&self, number: CallNumber) -> Option<Endpoints> {
        self.calls.call(number).map(Call::endpoints)
    }

    /// Every pinhole that the kernel was told to open, in order of local address and port.
    pub fn pinholes(&self) -> impl Iterator<Item = &Pinhole> {
        self.pinholes.iter()
    }

    /// Those behind this local address and port, in the same order.
    pub fn pinholes_behind(&self, local: Option<SocketAddr>) -> impl Iterator<Item = &Pinhole> {
        self.pinholes.behind(local)
    }

    /// How many pinholes the kernel has.
    pub fn open_pinholes(&self) -> usize {
        self.pinholes.open()
    }

    /// The pinhole at a local address and port, if the kernel was told to open one.
    pub fn pinhole(&self, local: SocketAddr) -> Option<&Pinhole> {
        self.pinholes.pinhole(local)
    }

    /// What was counted since the start.
    pub fn counters(&self) -> Counters {
        let mut counters = self.counters.clone();
        counters.reassembly = self.reassembler.counts().clone();
        counters
    }

    /// The settings that it works by.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    fn handle_packet(&mut self, direction: Direction, bytes: &[u8], truncated: bool) {
        if truncated {
            self.refuse(None, Refusal::Truncated);
            return;
        }
        let (settings, provider_ports) = (&self.settings, &self.provider_ports);
        let mut refusal = None;
        let taken = self
            .reassembler
            .handle_packet(self.now, direction, bytes, &mut |flow| {
                if decode::is_tls(flow, &settings.pbx.signalling, provider_ports) {
                    refusal = Some(Refusal::Tls);
                } else if trunk::provider_of(&settings.providers, flow, Transport::Tcp).is_none() {
                    refusal = Some(Refusal::UnknownPeer);
                }
                refusal.is_none()
            });
        match taken {
            Ok(Some(datagram)) => self.handle_message(&datagram),
            Ok(None) => self.handle_streams(),
            Err(Malformed) => refusal = Some(Refusal::MalformedSip),
        }
        if let Some(refusal) = refusal {
            self.refuse(None, refusal);
        }
    }

    /// Takes the messages that streams have completed.
    fn handle_streams(&mut self) {
        while let Some(message) = self.reassembler.poll_delivery() {
            self.handle_message(&message);
        }
    }

    fn handle_message(&mut self, delivery: &Delivery<'_>) {
        let Delivery {
            flow,
            transport,
            bytes,
        } = delivery;
        let Some(id) = trunk::provider_of(&self.settings.providers, flow, *transport) else {
            self.refuse(None, Refusal::UnknownPeer);
            return;
        };
        let scan = match sip::scan_datagram(bytes) {
            Ok(scan) => scan,
            Err(SipError::KeepAlive) => {
                self.counters.keep_alives += 1;
                return;
            }
            Err(_) => {
                self.refuse(None, Refusal::MalformedSip);
                return;
            }
        };
        match flow.direction {
            Direction::Ingress => self.counters.messages_in += 1,
            Direction::Egress => self.counters.messages_out += 1,
        }
        match Verb::of(scan.method()) {
            None => return,
            Some(Verb::Aside(_)) if !self.calls.may_know(scan.call_id()) => return,
            Some(_) => {}
        }
        let message = scan.into_message();
        match Seen::read(&message, flow.direction, self.key) {
            Ok(Some(seen)) => self.handle_seen(id, &seen),
            Ok(None) => {}
            Err(_) => self.refuse(None, Refusal::MalformedSip),
        }
    }

    fn handle_seen(&mut self, provider: ProviderId, seen: &Seen<'_>) {
        let is_invite = seen.form == Form::Request && seen.verb == Verb::Invite;
        if !self.adopted.is_empty() && self.handle_adopted(provider, seen) {
            return;
        }
        match self.calls.find(provider, seen) {
            Found::Call(number) => {
                let is_followed = self
                    .calls
                    .call(number)
                    .is_some_and(|call| call.is_followed_by(seen));
                if is_followed {
                    self.begin(provider, seen);
                } else if let Verb::Aside(_) = seen.verb {
                    self.tell(number, seen);
                } else {
                    self.tell(number, seen);
                    self.touch(number, |call, context, effects| {
                        call.handle(seen, context, effects);
                    });
                    self.settle_estate(number, seen);
                }
            }
            Found::OtherCall | Found::Nothing if matches!(seen.verb, Verb::Aside(_)) => {}
            Found::OtherCall | Found::Nothing if is_invite => self.begin(provider, seen),
            Found::OtherCall => self.refuse(None, Refusal::WrongDialog),
            Found::Nothing => self.refuse(None, Refusal::UnknownDialog),
        }
    }

    fn begin(&mut self, provider: ProviderId, seen: &Seen<'_>) {
        loop {
            match self
                .calls
                .room(provider, seen.call_id, &self.settings.limits)
            {
                Room::Free => break,
                Room::InsteadOf(spare, refusal) => self.shed(spare, refusal),
                Room::Full(refusal) => {
                    self.refuse(None, refusal);
                    return;
                }
            }
        }
        let number = self.calls.next_number();
        let Some(context) = context(&self.settings, &self.nets, self.key, self.now, provider)
        else {
            return;
        };
        let mut effects = Effects::default();
        let call = Call::new(number, provider, seen, &context, &mut effects);
        self.calls.insert(call);
        self.counters.calls += 1;
        self.outputs.push_back(Output::Event(Event::CallStarted {
            call: number,
            call_id: seen.call_id.to_owned(),
            provider,
            direction: seen.sender,
        }));
        self.tell(number, seen);
        self.inherit(number, provider, seen);
        self.follow_up(number, effects);
    }

    /// Tells of a message of a call's.
    fn tell(&mut self, call: CallNumber, seen: &Seen<'_>) {
        let message = MessageSummary {
            sender: seen.sender,
            form: seen.form,
            verb: seen.verb,
            has_sdp: seen.sdp.is_some(),
            session_expires: seen.session_expires,
        };
        self.outputs
            .push_back(Output::Event(Event::Message { call, message }));
        if seen.form != Form::Request
            || !matches!(seen.verb, Verb::Invite | Verb::Aside(Aside::Refer))
        {
            return;
        }
        let related = [
            (Relation::Replaces, &seen.related.replaces),
            (Relation::ReferredBy, &seen.related.referred_by),
            (Relation::ReferTo, &seen.related.refer_to),
        ];
        for (relation, value) in related {
            let Some(value) = value
                .as_deref()
                .filter(|text| (1..=MAX_IDENTIFIER).contains(&text.len()))
            else {
                continue;
            };
            self.outputs.push_back(Output::Event(Event::Related {
                call,
                relation,
                value: value.to_owned(),
            }));
        }
    }

    /// Forgets a call for the sake of a new one.
    fn shed(&mut self, number: CallNumber, refusal: Refusal) {
        if self.calls.call(number).is_some_and(|call| !call.is_ended()) {
            self.refuse(Some(number), refusal);
            self.end_call(number, EndReason::Shed);
        }
        self.calls.remove(number);
    }

    /// Lets a call change, and does what follows from it.
    fn touch(
        &mut self,
        number: CallNumber,
        change: impl FnOnce(&mut Call, &Context<'_>, &mut Effects),
    ) {
        let Some(call) = self.calls.call_mut(number) else {
            return;
        };
        let provider = call.provider();
        let Some(context) = context(&self.settings, &self.nets, self.key, self.now, provider)
        else {
            return;
        };
        let mut effects = Effects::default();
        change(call, &context, &mut effects);
        self.follow_up(number, effects);
    }

    /// Tells what happened to a call, plans its pinholes anew and arms its deadline.
    fn follow_up(&mut self, number: CallNumber, effects: Effects) {
        for refusal in effects.refusals {
            self.refuse(Some(number), refusal);
        }
        if effects.confirmed {
            self.counters.calls_confirmed += 1;
            self.outputs
                .push_back(Output::Event(Event::CallConfirmed { call: number }));
        }
        self.plan(number, effects.renewed);
        if let Some(reason) = effects.ended {
            self.end_inheritance(number, reason);
            self.counters.count_end(reason);
            self.outputs.push_back(Output::Event(Event::CallEnded {
                call: number,
                reason,
            }));
        }
        self.calls.rearm(number, &self.settings.timers);
    }

    fn plan(&mut self, number: CallNumber, renew: bool) {
        let Some(call) = self.calls.call_mut(number) else {
            return;
        };
        let provider = call.provider();
        let Some(limits) = limits(&self.settings, &self.nets, self.key, provider) else {
            return;
        };
        let plan = call.plan(&limits);
        let owner = Owner {
            call: number,
            provider,
            label: call.label(self.label_key),
        };
        let before = std::mem::take(&mut call.planned);
        call.planned = Planned {
            locals: plan.wants.keys().copied().collect(),
            is_cut: plan.is_cut,
            is_watched: false,
        };
        let is_newly_cut = plan.is_cut && !before.is_cut;
        let (outputs, counters) = (&mut self.outputs, &mut self.counters);
        let refusals =
            self.pinholes
                .apply(owner, plan.wants, &before.locals, renew, &mut |action| {
                    emit(outputs, counters, action)
                });
        self.watch(number);
        // What a shared pinhole became, it became for all that want it.
        let locals = before.locals.into_iter().chain(self.planned(number));
        let sharers: BTreeSet<CallNumber> = locals
            .flat_map(|local| self.pinholes.owners(local))
            .filter(|owner| *owner != number)
            .collect();
        for sharer in sharers {
            self.watch(sharer);
            self.calls.rearm(sharer, &self.settings.timers);
        }
        if is_newly_cut {
            self.refuse(Some(number), Refusal::TooManySources);
        }
        for refusal in refusals {
            self.refuse(Some(number), refusal);
        }
    }

    fn planned(&self, number: CallNumber) -> Vec<SocketAddr> {
        self.calls
            .call(number)
            .map(|call| call.planned.locals.to_vec())
            .unwrap_or_default()
    }

    /// Notes whether the kernel has any of the call's pinholes.
    fn watch(&mut self, number: CallNumber) {
        if let Some(call) = self.calls.call_mut(number) {
            let mut locals = call.planned.locals.iter();
            call.planned.is_watched = locals.any(|local| self.pinholes.is_open(*local));
        }
    }

    fn handle_result(&mut self, local: SocketAddr, result: PinholeResult) {
        let calls = self.pinholes.handle_result(local, result);
        let refusal = match result {
            PinholeResult::Done => return,
            PinholeResult::Full => Refusal::TooManyPinholes,
            PinholeResult::Failed => Refusal::ActionFailed,
        };
        if calls.is_empty() {
            self.refuse(None, refusal);
        }
        for call in calls {
            self.refuse(Some(call), refusal);
            self.watch(call);
            self.calls.rearm(call, &self.settings.timers);
        }
    }

    /// A call is over once all of its pinholes are silent; until then a silent one (RTCP that nobody sends, a muted stream) stays open.
    /// A call that still rings is not: nothing needs to be heard before it is answered.
    fn handle_idle(&mut self, local: SocketAddr) {
        for number in self.pinholes.handle_idle(local, self.now) {
            let left = self.adopted.call(number);
            if left.is_some_and(|(_, locals)| self.pinholes.are_silent(locals, self.now)) {
                self.end_adopted(number, EndReason::Idle);
                continue;
            }
            let is_over = self.calls.call(number).is_some_and(|call| {
                call.is_confirmed()
                    && !call.is_in_session(self.now)
                    && self.pinholes.are_silent(&call.planned.locals, self.now)
            });
            if is_over {
                self.end_call(number, EndReason::Idle);
            }
        }
        let (outputs, counters) = (&mut self.outputs, &mut self.counters);
        self.pinholes
            .renew(local, &mut |action| emit(outputs, counters, action));
    }

    fn handle_lost(&mut self, packets: u64) {
        self.counters.capture_lost += packets;
        for number in self.calls.numbers() {
            if let Some(call) = self.calls.call_mut(number) {
                call.forgive_loss(&self.settings.timers);
            }
            self.calls.rearm(number, &self.settings.timers);
        }
    }

    fn end_call(&mut self, number: CallNumber, reason: EndReason) {
        self.touch(number, |call, context, effects| {
            call.end(reason, context, effects);
        });
    }

    /// Every deadline that has passed, the earliest first.
    fn expire(&mut self) {
        if self
            .reassembler
            .poll_timeout()
            .is_some_and(|due| due <= self.now)
        {
            self.reassembler.handle_timeout(self.now);
            self.handle_streams();
        }
        while let Some(number) = self.calls.due(self.now) {
            let mut forget = false;
            self.touch(number, |call, context, effects| {
                forget = call.handle_timeout(context, effects);
            });
            if forget {
                self.calls.remove(number);
            }
        }
    }

    fn refuse(&mut self, call: Option<CallNumber>, refusal: Refusal) {
        self.counters.count_refusal(refusal);
        self.outputs
            .push_back(Output::Event(Event::Refused { call, refusal }));
    }

    /// Panics if a promise of this module is broken: our bug.
    #[cfg(debug_assertions)]
    fn check_invariants(&self) {
        if self.calls.len() > FULLY_CHECKED_CALLS {
            return;
        }
        self.calls.check_invariants(&self.settings.timers);
        self.pinholes.check_invariants();
        assert_eq!(
            self.calls.deadline(),
            self.calls
                .iter()
                .map(|call| call.deadline(&self.settings.timers))
                .min()
                .filter(|deadline| *deadline != Instant::FAR)
        );
        let mut wants = 0;
        for call in self.calls.iter() {
            let limits = limits(&self.settings, &self.nets, self.key, call.provider());
            let Some(plan) = limits.map(|limits| call.plan(&limits)) else {
                continue;
            };
            wants += plan.wants.len();
            let mut locals = plan.wants.keys();
            assert_eq!(
                call.planned.is_watched,
                locals.any(|local| self.pinholes.is_open(*local))
            );
            assert!(plan.wants.keys().eq(call.planned.locals.iter()));
            for (local, want) in &plan.wants {
                assert_eq!(self.pinholes.want(*local, call.number()), Some(want));
            }
        }
        for (owner, locals) in self.adopted.iter() {
            wants += locals.len();
            for local in locals {
                assert!(self.pinholes.want(*local, owner.call).is_some());
            }
        }
        assert_eq!(wants, self.pinholes.wants());
    }
}

fn nets(settings: &Settings) -> Vec<Nets> {
    let providers = settings.providers.iter();
    providers
        .map(|provider| Nets::new(&provider.media))
        .collect()
}

/// The providers' ports for SIP over TLS, over all of them.
fn provider_ports(settings: &Settings) -> SignallingPorts {
    let providers = settings.providers.iter();
    SignallingPorts {
        udp: Vec::new(),
        tcp: Vec::new(),
        tls: providers
            .flat_map(|provider| provider.signalling_ports.tls.iter().copied())
            .collect(),
    }
}

fn emit(outputs: &mut VecDeque<Output>, counters: &mut Counters, action: PinholeAction) {
    match action {
        PinholeAction::Open(_) => counters.pinholes_opened += 1,
        PinholeAction::Update(_) => counters.pinholes_updated += 1,
        PinholeAction::Close { .. } => counters.pinholes_closed += 1,
    }
    outputs.push_back(Output::Pinhole(action));
}

fn context<'a>(
    settings: &'a Settings,
    nets: &'a [Nets],
    key: HashKey,
    now: Instant,
    provider: ProviderId,
) -> Option<Context<'a>> {
    Some(Context {
        now,
        limits: limits(settings, nets, key, provider)?,
    })
}

fn limits<'a>(
    settings: &'a Settings,
    nets: &'a [Nets],
    key: HashKey,
    provider: ProviderId,
) -> Option<Limits<'a>> {
    let index = usize::from(provider.0);
    let provider: &Provider = settings.providers.get(index)?;
    Some(Limits {
        settings,
        provider,
        nets: nets.get(index)?,
        key,
    })
}
