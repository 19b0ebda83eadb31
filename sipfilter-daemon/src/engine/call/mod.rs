//! One call: the first INVITE, the dialogs that its answers began, and how it ends.
//!
//! A call belongs to one provider and is known by its Call-ID and the inviting side's tag; a Call-ID that passes twice (a proxy that sends
//! a call back out) is two calls. It never reads a packet, a clock or the kernel's state. Its invariant: an ended call has no living
//! dialog and wants no pinhole.

pub mod dialog;
mod invitation;
pub mod message;
pub mod offer_answer;
pub mod plan;
pub mod session;
mod succession;
pub mod table;
pub mod timers;
pub mod transaction;
pub mod view;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use dialog::{Dialog, Stage};
use message::{Form, HashKey, Seen, Verb};
use offer_answer::{Carrier, Description, Exchange, Negotiation};
use plan::Plan;
use session::Limits;
pub use succession::Spare;
use timers::earliest;
use transaction::{Invite, OfferIn, Progress};

use super::{
    CallNumber, Direction, EndReason, Instant, Refusal,
    pinhole::{Arming, Label},
    settings::{EarlyMedia, ProviderId, Timers},
};

/// What a message is judged against.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The time.
    pub now: Instant,
    /// Addresses, ports and the provider.
    pub limits: Limits<'a>,
}

impl<'a> Context<'a> {
    fn timers(&self) -> &'a Timers {
        &self.limits.settings.timers
    }
}

/// What came of a message or a deadline, besides the call's new state.
#[derive(Debug, Default)]
pub struct Effects {
    /// What was refused, each once.
    pub refusals: Vec<Refusal>,
    /// The first 2xx to the first INVITE.
    pub confirmed: bool,
    /// The call ended.
    pub ended: Option<EndReason>,
    /// Both sides said that the session goes on: its pinholes' silence is counted anew.
    pub renewed: bool,
    /// A dialog's 2xx was acknowledged.
    acknowledged: bool,
}

impl Effects {
    fn wrong_dialog(&mut self) {
        self.refusals.push(Refusal::WrongDialog);
    }
}

/// How far a call has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The INVITE waits for its final response.
    Inviting {
        deadline: Instant,
        cancelled: bool,
        /// Signalling was lost meanwhile: the final response may have been among it.
        lossy: bool,
    },
    /// The INVITE was refused in a way that asks for another one (RFC 3261 §22.2, §22.3; RFC 4028 §7.3).
    Challenged { status: u16, deadline: Instant },
    /// A 2xx was seen.
    Confirmed { at: Instant },
    /// Over, remembered until then.
    Ended { reason: EndReason, until: Instant },
}

/// What the pinhole table was last told.
#[derive(Debug, Clone, Default)]
pub struct Planned {
    /// The local addresses and ports, in order.
    pub locals: Box<[SocketAddr]>,
    /// Some source found no place, and that was said.
    pub is_cut: bool,
    /// The kernel has at least one of them, and will tell when all are silent.
    pub is_watched: bool,
}

/// Whether we saw a call from its first INVITE on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beginning {
    Seen,
    /// It was taken up with an INVITE inside its dialog: the kernel may have pinholes of it that we know nothing of.
    Missed,
}

/// One call.
#[derive(Debug, Clone)]
pub struct Call {
    number: CallNumber,
    provider: ProviderId,
    call_id: Box<str>,
    provider_call_id: Option<Box<(Box<str>, Box<str>)>>,
    inviter: Direction,
    inviter_tag: Option<Box<str>>,
    beginning: Beginning,
    started: Instant,
    confirmed_at: Option<Instant>,
    last_heard: Instant,
    /// Until when both sides hold the session to be alive without another word (RFC 4028).
    session_until: Instant,
    phase: Phase,
    invite: Invite,
    /// The INVITE's offer, for the dialogs that are still to come.
    offer: Option<Exchange>,
    dialogs: Vec<Dialog>,
    /// What the pinhole table was last told, kept here for whoever tells it next.
    pub planned: Planned,
}

impl Call {
    /// The call that this INVITE begins. One inside a dialog (its To has a tag) is taken up too: the dialog began before we listened.
    pub fn new(
        number: CallNumber,
        provider: ProviderId,
        seen: &Seen<'_>,
        context: &Context<'_>,
        effects: &mut Effects,
    ) -> Self {
        let invite = Invite::new(seen);
        let offer = first_offer(seen, context, effects);
        let inviter = seen.requester();
        let (beginning, dialogs) = match seen.to_tag {
            Some(tag) => {
                let dialog = Dialog::new(Some(tag), inviter, &invite, offer.as_ref());
                (Beginning::Missed, vec![dialog])
            }
            None => (Beginning::Seen, Vec::new()),
        };
        let mut call = Self {
            number,
            provider,
            call_id: seen.call_id.into(),
            provider_call_id: None,
            inviter,
            inviter_tag: seen.from_tag.map(Into::into),
            beginning,
            started: context.now,
            confirmed_at: None,
            last_heard: context.now,
            session_until: Instant::default(),
            phase: Phase::Inviting {
                deadline: context.now + context.timers().ack,
                cancelled: false,
                lossy: false,
            },
            invite,
            offer,
            dialogs,
            planned: Planned::default(),
        };
        call.note_provider_call_id(seen);
        call
    }

    /// Its number.
    pub fn number(&self) -> CallNumber {
        self.number
    }

    /// Its provider.
    pub fn provider(&self) -> ProviderId {
        self.provider
    }

    /// Its provider has another number from now on.
    pub fn renumber(&mut self, provider: ProviderId) {
        self.provider = provider;
    }

    /// What it is known by to daemons that come after this one.
    pub fn label(&self, key: HashKey) -> Label {
        key.label(self.inviter, &self.call_id, self.inviter_tag.as_deref())
    }

    /// Whether we saw it from its first INVITE on.
    pub fn is_seen_from_its_beginning(&self) -> bool {
        self.beginning == Beginning::Seen
    }

    /// Its Call-ID.
    pub fn call_id(&self) -> &str {
        &self.call_id
    }

    /// Who sent the first INVITE.
    pub fn inviter(&self) -> Direction {
        self.inviter
    }

    /// Whether it is over.
    pub fn is_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended { .. })
    }

    /// Whether silence may end it: a call that still rings is its signalling's matter.
    pub fn is_confirmed(&self) -> bool {
        matches!(self.phase, Phase::Confirmed { .. })
    }

    /// Whether silence may not end it yet: its session timer (RFC 4028) has not run out. That it runs out ends nothing by itself.
    pub fn is_in_session(&self, now: Instant) -> bool {
        now < self.session_until
    }

    /// Takes a message of this call.
    pub fn handle(&mut self, seen: &Seen<'_>, context: &Context<'_>, effects: &mut Effects) {
        if self.is_ended() {
            return;
        }
        self.last_heard = context.now;
        self.note_provider_call_id(seen);
        match seen.form {
            Form::Request => self.handle_request(seen, context, effects),
            Form::Response(status) => self.handle_response(seen, status, context, effects),
        }
        if effects.confirmed || effects.renewed {
            self.note_session(seen, context);
        }
        if std::mem::take(&mut effects.acknowledged) {
            self.prune_early();
        }
    }

    /// The next time at which it changes by itself.
    pub fn deadline(&self, timers: &Timers) -> Instant {
        let phase = match self.phase {
            Phase::Inviting { deadline, .. } | Phase::Challenged { deadline, .. } => deadline,
            Phase::Ended { until, .. } => return until,
            // With pinholes, the kernel tells when it falls silent. A call without any (its media was refused, or the kernel's table
            // is full) is judged by its signalling, with the patience that a call on hold gets.
            Phase::Confirmed { at } => {
                let silent = self.last_heard.max(at) + timers.hold_idle;
                let rest = self.dialogs.iter().filter_map(Dialog::deadline).min();
                let silent = (!self.planned.is_watched).then_some(silent);
                return earliest(silent, rest).unwrap_or(Instant::FAR);
            }
        };
        self.dialogs
            .iter()
            .filter_map(Dialog::deadline)
            .min()
            .map_or(phase, |dialog| dialog.min(phase))
    }

    /// What is due by now. Tells whether an ended call may be forgotten.
    pub fn handle_timeout(&mut self, context: &Context<'_>, effects: &mut Effects) -> bool {
        let now = context.now;
        match self.phase {
            Phase::Ended { until, .. } => return until <= now,
            Phase::Inviting {
                deadline,
                cancelled: false,
                lossy: true,
            } if deadline <= now && self.has_media() => self.presume_confirmed(now, effects),
            Phase::Inviting {
                deadline,
                cancelled,
                ..
            } if deadline <= now => {
                let reason = if cancelled {
                    EndReason::Cancelled
                } else {
                    EndReason::NoAnswer
                };
                self.end(reason, context, effects);
            }
            Phase::Challenged { status, deadline } if deadline <= now => {
                self.end(EndReason::Rejected(status), context, effects);
            }
            Phase::Confirmed { at } => {
                let mut lapsed = false;
                for dialog in &mut self.dialogs {
                    lapsed |= dialog.handle_timeout(now);
                }
                if lapsed && !self.is_established() {
                    self.end(EndReason::NoAck, context, effects);
                } else if !self.planned.is_watched
                    && self.last_heard.max(at) + context.timers().hold_idle <= now
                {
                    self.end(EndReason::Idle, context, effects);
                }
            }
            Phase::Inviting { .. } | Phase::Challenged { .. } => {
                for dialog in &mut self.dialogs {
                    dialog.handle_timeout(now);
                }
            }
        }
        false
    }

    /// Ends it, whatever its state.
    pub fn end(&mut self, reason: EndReason, context: &Context<'_>, effects: &mut Effects) {
        if self.is_ended() {
            return;
        }
        self.phase = Phase::Ended {
            reason,
            until: context.now + context.timers().linger,
        };
        self.dialogs = Vec::new();
        self.offer = None;
        effects.ended = Some(reason);
    }

    /// Signalling was lost on the way to us: an answer or an ACK may have been among it, and no timer may count on the contrary.
    pub fn forgive_loss(&mut self, timers: &Timers) {
        if let Phase::Inviting {
            lossy,
            deadline,
            cancelled,
        } = &mut self.phase
        {
            *lossy = true;
            if !*cancelled {
                *deadline = (*deadline).max(self.last_heard + timers.invite);
            }
        }
        for dialog in &mut self.dialogs {
            dialog.forgive_missing_ack();
        }
    }

    /// The pinholes that it wants now.
    pub fn plan<'a>(&self, limits: &Limits<'a>) -> Plan<'a> {
        let turns = self
            .dialogs
            .iter()
            .map(|dialog| dialog.negotiation().turn());
        let arming = Arming {
            call: self.number,
            turn: turns.fold(0, u32::wrapping_add),
        };
        let mut plan = Plan::new(&limits.settings.timers, &limits.provider.media, arming);
        // Where a call was taken up, the kernel has what was agreed before: to open an unanswered offer would be to close that again if
        // the offer is rejected.
        let opens_early = self.inviter == Direction::Egress
            && self.beginning == Beginning::Seen
            && limits.provider.early_media == EarlyMedia::OnOffer;
        let limit = opens_early.then_some(&*limits.nets.limit);
        // Where sources are more than there are places: who answered goes first, then who rang last.
        let (established, others): (Vec<_>, Vec<_>) = self
            .dialogs
            .iter()
            .rev()
            .partition(|dialog| dialog.is_established());
        for dialog in established.into_iter().chain(others) {
            plan.add_negotiation(dialog.negotiation(), limit);
        }
        if let (Phase::Inviting { .. }, Some(limit), false, Some(offer)) = (
            self.phase,
            limit,
            self.has_media(),
            self.offer.as_ref().and_then(Exchange::unanswered_local),
        ) {
            plan.add_offer(offer, limit);
        }
        plan
    }

    fn handle_request(&mut self, seen: &Seen<'_>, context: &Context<'_>, effects: &mut Effects) {
        match seen.verb {
            Verb::Invite if seen.to_tag.is_none() => self.handle_invite(seen, context, effects),
            Verb::Cancel => self.handle_cancel(seen, context),
            Verb::Bye => self.handle_bye(seen, context, effects),
            // The ACK of a failed INVITE is of the INVITE's own branch (RFC 3261 §17.1.1.3) and names a tag that never made a dialog.
            Verb::Ack
                if self.is_first(seen)
                    && self.invite.progress == Progress::Pending
                    && self.invite.is_answered_by(seen) => {}
            Verb::Invite | Verb::Ack | Verb::Prack | Verb::Update => {
                self.note_missed_answer(seen, context, effects);
                match self.dialog(seen) {
                    Some(dialog) => dialog.handle_request(seen, context, effects),
                    None => effects.wrong_dialog(),
                };
                if self.is_first(seen) && seen.verb == Verb::Invite {
                    self.invite.add_branch(seen.branch);
                }
            }
            Verb::Aside(_) => {}
        }
    }

    fn handle_response(
        &mut self,
        seen: &Seen<'_>,
        status: u16,
        context: &Context<'_>,
        effects: &mut Effects,
    ) {
        match seen.verb {
            Verb::Invite if self.is_first(seen) => {
                self.handle_first_response(seen, status, context, effects);
            }
            // An answer to an INVITE from before a challenge.
            Verb::Invite if seen.requester() == self.inviter && seen.cseq < self.invite.cseq => {}
            Verb::Invite => match self.dialog(seen) {
                Some(dialog) => dialog.handle_invite_response(seen, status, context, effects),
                None => effects.wrong_dialog(),
            },
            Verb::Update | Verb::Prack => match self.dialog(seen) {
                Some(dialog) => dialog.handle_response(seen, status, context, effects),
                None => effects.wrong_dialog(),
            },
            Verb::Ack | Verb::Bye | Verb::Cancel | Verb::Aside(_) => {}
        }
    }

    fn handle_bye(&mut self, seen: &Seen<'_>, context: &Context<'_>, effects: &mut Effects) {
        self.note_missed_answer(seen, context, effects);
        match self.dialog(seen) {
            Some(dialog) if dialog.stage() == Stage::Ended => return,
            Some(dialog) if dialog.may_end_by(seen) => dialog.end(),
            _ => {
                effects.wrong_dialog();
                return;
            }
        }
        if matches!(self.phase, Phase::Confirmed { .. }) && !self.is_established() {
            self.end(EndReason::Bye(seen.sender), context, effects);
        }
    }

    fn has_media(&self) -> bool {
        self.dialogs
            .iter()
            .any(|dialog| dialog.negotiation().agreements().next().is_some())
    }

    /// Whether the message is of the first INVITE's transaction, or its ACK or CANCEL.
    fn is_first(&self, seen: &Seen<'_>) -> bool {
        seen.requester() == self.inviter && seen.cseq == self.invite.cseq
    }

    fn is_established(&self) -> bool {
        self.dialogs.iter().any(Dialog::is_established)
    }

    fn dialog(&mut self, seen: &Seen<'_>) -> Option<&mut Dialog> {
        let tag = seen.tag_of(self.inviter.opposite());
        self.dialogs.iter_mut().find(|dialog| dialog.is(tag))
    }

    /// The caller has chosen: what only rang elsewhere is over.
    fn prune_early(&mut self) {
        for dialog in &mut self.dialogs {
            if matches!(dialog.stage(), Stage::Early { .. }) {
                dialog.end();
            }
        }
    }

    /// The 2xx says how long the session lasts; one without an interval switches the timer off (RFC 4028 §7.2). The operator's patience
    /// with calls on hold is the most that a peer can ask for.
    fn note_session(&mut self, seen: &Seen<'_>, context: &Context<'_>) {
        if matches!(seen.form, Form::Response(200..=299)) {
            let interval = Duration::from_secs(seen.session_expires.unwrap_or(0).into());
            self.session_until = context.now + interval.min(context.timers().hold_idle);
        }
    }

    fn note_provider_call_id(&mut self, seen: &Seen<'_>) {
        if self.provider_call_id.is_none()
            && let Some((name, value)) = seen.provider_call_id
            && name.len() + value.len() <= message::MAX_IDENTIFIER
        {
            self.provider_call_id = Some(Box::new((name.into(), value.into())));
        }
    }
}

/// What the message's SDP describes, under our limits. Addresses on hold stand for what `before` last said.
fn describe(
    seen: &Seen<'_>,
    before: &Negotiation,
    context: &Context<'_>,
    effects: &mut Effects,
) -> Option<Description> {
    let (body, refusals) = (seen.sdp?, &mut effects.refusals);
    Some(match seen.sender {
        Direction::Egress => Description::Local(Arc::new(context.limits.read_local(
            body,
            before.last_local(),
            refusals,
        )?)),
        Direction::Ingress => Description::Remote(Arc::new(context.limits.read_remote(
            body,
            before.last_remote(),
            refusals,
        )?)),
    })
}

/// The offer that a first INVITE brings, if it brings one.
fn first_offer(seen: &Seen<'_>, context: &Context<'_>, effects: &mut Effects) -> Option<Exchange> {
    let offer = describe(seen, &Negotiation::default(), context, effects)?;
    Some(Exchange::new(Carrier::of(seen, OfferIn::Request), offer))
}
