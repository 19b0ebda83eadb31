//! One dialog of a call: its stage, its two sides' requests, and the offers and answers that they carry.
//!
//! A dialog is known by the callee's tag, the caller's being the call's (RFC 3261 §12). It decides which message is an offer and which
//! an answer, and leaves what follows from them to `offer_answer`. It ends nothing but itself.

use super::{
    Context, Effects, describe,
    message::{Form, Seen, Verb},
    offer_answer::{Carrier, Exchange, Finality, Negotiation},
    timers::{LATE_REPEAT, TIMER_64_T1, earliest, settle_after},
    transaction::{Invite, OfferIn, Progress, Sides},
};
use crate::engine::{Direction, Instant};

/// How far a dialog has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// A provisional response made it. Once another dialog of the same INVITE has won, it lives until then.
    Early {
        /// When it is given up, if that is settled.
        until: Option<Instant>,
    },
    /// A 2xx was seen, its ACK not yet (RFC 3261 §13.3.1.4).
    AwaitingAck {
        /// When it is given up.
        until: Instant,
    },
    /// The same, but copies were lost since: the ACK may have been among them, as long as nobody repeats the 2xx.
    Presumed {
        /// When it would have been given up.
        until: Instant,
    },
    /// Both sides know that it stands.
    Confirmed,
    /// Over; remembered so that late messages open nothing.
    Ended,
}

/// One dialog.
#[derive(Debug, Clone)]
pub struct Dialog {
    /// The callee's tag; `None` for peers of before RFC 3261.
    callee_tag: Option<Box<str>>,
    inviter: Direction,
    stage: Stage,
    /// When its 2xx was first seen.
    answered: Instant,
    /// When that was last seen again.
    repeated: Instant,
    negotiation: Negotiation,
    invites: Sides<Option<Invite>>,
    /// The highest CSeq of a request that brought an offer, by who sent it.
    highest: Sides<u32>,
}

impl Dialog {
    /// A dialog that a response to this INVITE begins; the INVITE's offer is its first.
    pub fn new(
        callee_tag: Option<&str>,
        inviter: Direction,
        invite: &Invite,
        offer: Option<&Exchange>,
    ) -> Self {
        let mut invites = Sides::default();
        // Another dialog's 2xx settles nothing in this one.
        let mut own = invite.clone();
        own.progress = Progress::Pending;
        *invites.of_mut(inviter) = Some(own);
        let mut highest = Sides::default();
        *highest.of_mut(inviter) = invite.cseq;
        Self {
            callee_tag: callee_tag.map(Into::into),
            inviter,
            stage: Stage::Early { until: None },
            answered: Instant::default(),
            repeated: Instant::default(),
            negotiation: offer
                .cloned()
                .map(Negotiation::with_offer)
                .unwrap_or_default(),
            invites,
            highest,
        }
    }

    /// Whether this is the dialog with that tag of the callee's.
    pub fn is(&self, callee_tag: Option<&str>) -> bool {
        self.callee_tag.as_deref() == callee_tag
    }

    /// How far it is.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Its offers and answers.
    pub fn negotiation(&self) -> &Negotiation {
        &self.negotiation
    }

    /// Whether a 2xx made it and nothing has ended it.
    pub fn is_established(&self) -> bool {
        matches!(
            self.stage,
            Stage::AwaitingAck { .. } | Stage::Presumed { .. } | Stage::Confirmed
        )
    }

    /// Whether it is taken to be acknowledged.
    fn is_acknowledged(&self) -> bool {
        matches!(self.stage, Stage::Presumed { .. } | Stage::Confirmed)
    }

    /// The next time at which it changes by itself.
    pub fn deadline(&self) -> Option<Instant> {
        let stage = match self.stage {
            Stage::Early { until } => until,
            Stage::AwaitingAck { until } | Stage::Presumed { until } => Some(until),
            Stage::Confirmed => None,
            Stage::Ended => return None,
        };
        earliest(stage, self.negotiation.deadline())
    }

    /// What is due by now. Tells whether the dialog ended.
    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        if self
            .negotiation
            .deadline()
            .is_some_and(|until| until <= now)
        {
            self.negotiation.finish();
        }
        let due = match self.stage {
            Stage::Early { until } => until.is_some_and(|until| until <= now),
            Stage::AwaitingAck { until } => until <= now,
            Stage::Presumed { until } => {
                if until <= now {
                    self.stage = Stage::Confirmed;
                }
                false
            }
            Stage::Confirmed | Stage::Ended => false,
        };
        if due {
            self.end();
        }
        due
    }

    /// It is over.
    pub fn end(&mut self) {
        self.stage = Stage::Ended;
        self.negotiation = Negotiation::default();
        self.invites = Sides::default();
    }

    /// Another dialog of the same INVITE has won: an early one waits for its own final response until then.
    pub fn expire_at(&mut self, until: Instant) {
        if self.stage == (Stage::Early { until: None }) {
            self.stage = Stage::Early { until: Some(until) };
        }
    }

    /// Signalling was lost on the way to us. A dialog with media may well have been acknowledged, unless the 2xx is repeated from now on,
    /// or was when hardly any repeat was left: who can have copies lost must not keep alive what nobody has acknowledged.
    pub fn forgive_missing_ack(&mut self) {
        if let Stage::AwaitingAck { until } = self.stage
            && self.repeated < self.answered + LATE_REPEAT
            && self.negotiation.agreements().next().is_some()
        {
            let until = until.max(self.answered + TIMER_64_T1);
            self.stage = Stage::Presumed { until };
        }
    }

    /// A response to an INVITE of either side. 2xx to the first one raises the stage (the caller of this knows the first).
    pub fn handle_invite_response(
        &mut self,
        seen: &Seen<'_>,
        status: u16,
        context: &Context<'_>,
        effects: &mut Effects,
    ) {
        let Some(invite) = self.invites.of_mut(seen.requester()) else {
            effects.wrong_dialog();
            return;
        };
        if !invite.is_answered_by(seen) {
            // A late answer to an earlier INVITE of this side is no news; one to a later INVITE, or from another branch, is none of ours.
            if invite.cseq <= seen.cseq {
                effects.wrong_dialog();
            }
            return;
        }
        if invite.progress == Progress::Final {
            return;
        }
        if status >= 200 {
            invite.progress = Progress::Final;
        }
        let carrier = Carrier::of(seen, invite.offer_in);
        if status >= 300 {
            self.negotiation.reject(&carrier);
            return;
        }
        let finality = if status >= 200 {
            Finality::Final
        } else {
            Finality::Provisional
        };
        let is_renewal = finality == Finality::Final && self.is_acknowledged();
        effects.renewed |= is_renewal;
        let description = describe(seen, &self.negotiation, context, effects);
        // The ACK ends this earlier.
        let until = context.now + context.timers().ack;
        match (carrier.offer_in, description) {
            (OfferIn::Request, Some(answer)) => {
                self.negotiation.answer(&carrier, answer, finality, until);
            }
            (OfferIn::Request, None) if finality == Finality::Final => {
                self.negotiation.settle(&carrier, until);
            }
            (OfferIn::Response, Some(offer)) => {
                // Where a PRACK has answered the offer of a reliable 183, the 200 may repeat it; the ACK without SDP then drops it.
                self.negotiation.offer(Exchange::new(carrier, offer));
            }
            (_, None) => {}
        }
    }

    /// A further copy of the INVITE that began this dialog.
    pub fn add_branch(&mut self, seen: &Seen<'_>) {
        if let Some(invite) = self.invites.of_mut(seen.requester())
            && invite.cseq == seen.cseq
        {
            invite.add_branch(seen.branch);
        }
    }

    /// A 2xx to the call's first INVITE was seen, maybe again, or must have been there.
    pub fn establish(&mut self, now: Instant, until: Instant) {
        self.stage = match self.stage {
            Stage::Early { .. } => {
                self.answered = now;
                Stage::AwaitingAck { until }
            }
            Stage::AwaitingAck { until } | Stage::Presumed { until } => {
                Stage::AwaitingAck { until }
            }
            stage @ (Stage::Confirmed | Stage::Ended) => stage,
        };
        self.repeated = now;
    }

    /// A request inside the dialog that may bring an offer or an answer.
    pub fn handle_request(
        &mut self,
        seen: &Seen<'_>,
        context: &Context<'_>,
        effects: &mut Effects,
    ) {
        if self.stage == Stage::Ended {
            return;
        }
        let requester = seen.requester();
        match seen.verb {
            Verb::Ack => self.handle_ack(seen, context, effects),
            Verb::Prack => {
                let early = self.response_carrier(requester);
                match early.filter(|carrier| self.negotiation.is_open(carrier)) {
                    Some(carrier) => {
                        if let Some(answer) = describe(seen, &self.negotiation, context, effects) {
                            let until = context.now + settle_after(seen.sender);
                            self.negotiation
                                .answer(&carrier, answer, Finality::Final, until);
                        }
                    }
                    None => self.offer(seen, context, effects),
                }
            }
            Verb::Update => self.offer(seen, context, effects),
            Verb::Invite => self.handle_reinvite(seen, context, effects),
            Verb::Bye | Verb::Cancel | Verb::Aside(_) => {}
        }
        self.note_progress(seen);
    }

    /// A response to an UPDATE or PRACK.
    pub fn handle_response(
        &mut self,
        seen: &Seen<'_>,
        status: u16,
        context: &Context<'_>,
        effects: &mut Effects,
    ) {
        let carrier = Carrier::of(seen, OfferIn::Request);
        if status < 200 {
            return;
        }
        effects.renewed |=
            (200..300).contains(&status) && seen.verb == Verb::Update && self.is_acknowledged();
        if !self.negotiation.is_open(&carrier) {
            return;
        }
        if status >= 300 {
            self.negotiation.reject(&carrier);
            return;
        }
        let until = context.now + settle_after(seen.sender);
        match describe(seen, &self.negotiation, context, effects) {
            Some(answer) => self
                .negotiation
                .answer(&carrier, answer, Finality::Final, until),
            None => self.negotiation.settle(&carrier, until),
        }
    }

    /// Whether a BYE of this CSeq can be the sender's next request; a lower one is a replay (RFC 3261 §12.2.2).
    pub fn may_end_by(&self, bye: &Seen<'_>) -> bool {
        self.stage != Stage::Ended && bye.cseq >= *self.highest.of(bye.sender)
    }

    /// RFC 3261 §14: the offer, or the request for one, of an established dialog.
    fn handle_reinvite(&mut self, seen: &Seen<'_>, context: &Context<'_>, effects: &mut Effects) {
        let requester = seen.requester();
        if let Some(known) = self.invites.of_mut(requester)
            && known.cseq >= seen.cseq
        {
            if known.cseq == seen.cseq && known.progress == Progress::Pending {
                known.add_branch(seen.branch);
            }
            return;
        }
        *self.invites.of_mut(requester) = Some(Invite::new(seen));
        self.offer(seen, context, effects);
    }

    fn handle_ack(&mut self, seen: &Seen<'_>, context: &Context<'_>, effects: &mut Effects) {
        let requester = seen.requester();
        let Some(invite) = self.invites.of(requester) else {
            effects.wrong_dialog();
            return;
        };
        let is_latest = invite.cseq == seen.cseq;
        if is_latest && requester == self.inviter && self.may_be_acknowledged() {
            self.stage = Stage::Confirmed;
            effects.acknowledged = true;
        }
        // A lost ACK may come after its sender's next INVITE, which the other side refuses as long as it waits for the answer.
        let delayed = Carrier {
            requester,
            verb: Verb::Invite,
            cseq: seen.cseq,
            branch: None,
            offer_in: OfferIn::Response,
        };
        if self.negotiation.is_open(&delayed) {
            match describe(seen, &self.negotiation, context, effects) {
                Some(answer) => {
                    self.negotiation.answer(
                        &delayed,
                        answer,
                        Finality::Final,
                        context.now + settle_after(seen.sender),
                    );
                }
                None => self.negotiation.reject(&delayed),
            }
        } else {
            // Again with every repeated 200, maybe long after the next offer (RFC 3261 §13.2.2.4): it tells of its own INVITE only.
            self.negotiation.acknowledge(requester, seen.cseq);
        }
    }

    /// Takes the request's SDP as an offer, unless it was seen before or comes too late.
    fn offer(&mut self, seen: &Seen<'_>, context: &Context<'_>, effects: &mut Effects) {
        if seen.sdp.is_none() {
            return;
        }
        let highest = self.highest.of_mut(seen.sender);
        if seen.cseq <= *highest {
            return;
        }
        *highest = seen.cseq;
        if let Some(offer) = describe(seen, &self.negotiation, context, effects) {
            let carrier = Carrier::of(seen, OfferIn::Request);
            self.negotiation.offer(Exchange::new(carrier, offer));
        }
    }

    /// A caller who goes on with requests has had the 2xx, so its ACK was sent even if nobody here saw it.
    fn note_progress(&mut self, seen: &Seen<'_>) {
        let first = self.invites.of(self.inviter).as_ref();
        if seen.form == Form::Request
            && seen.sender == self.inviter
            && seen.verb != Verb::Prack
            && first.is_some_and(|invite| seen.cseq > invite.cseq)
            && self.may_be_acknowledged()
        {
            self.stage = Stage::Confirmed;
        }
    }

    fn may_be_acknowledged(&self) -> bool {
        matches!(
            self.stage,
            Stage::AwaitingAck { .. } | Stage::Presumed { .. }
        )
    }

    /// The place of an offer that stood in the response to this side's INVITE.
    fn response_carrier(&self, requester: Direction) -> Option<Carrier> {
        let invite = self.invites.of(requester).as_ref()?;
        Some(Carrier {
            requester,
            verb: Verb::Invite,
            cseq: invite.cseq,
            branch: None,
            offer_in: OfferIn::Response,
        })
    }
}
