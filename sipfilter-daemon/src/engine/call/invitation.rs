//! The first INVITE's transaction: copies, challenges, provisional and final responses, CANCEL (RFC 3261 §9, §13).
//!
//! It moves the call's phase and makes dialogs; what the responses' SDP means is the dialog's matter.

use super::{
    Beginning, Call, Context, Effects, Phase,
    dialog::{Dialog, Stage},
    first_offer,
    message::{Seen, Verb},
    transaction::{Invite, Progress},
};
use crate::engine::{EndReason, Instant, Refusal};

impl Call {
    /// The first INVITE again: a retransmission, a copy from a forking proxy, or a new attempt after a challenge.
    pub(super) fn handle_invite(
        &mut self,
        seen: &Seen<'_>,
        context: &Context<'_>,
        effects: &mut Effects,
    ) {
        if seen.cseq == self.invite.cseq {
            if matches!(self.phase, Phase::Inviting { .. }) {
                self.invite.add_branch(seen.branch);
                for dialog in &mut self.dialogs {
                    dialog.add_branch(seen);
                }
            }
            return;
        }
        if seen.cseq < self.invite.cseq {
            return;
        }
        match self.phase {
            Phase::Inviting { .. } | Phase::Challenged { .. } => {
                self.invite = Invite::new(seen);
                self.offer = first_offer(seen, context, effects);
                self.dialogs.clear();
                self.phase = Phase::Inviting {
                    deadline: context.now + context.timers().ack,
                    cancelled: false,
                    lossy: false,
                };
            }
            Phase::Confirmed { .. } => effects.wrong_dialog(),
            Phase::Ended { .. } => {}
        }
    }

    /// CANCEL decides nothing: the final response does, and a 2xx may be under way (RFC 3261 §9.1). If none is ever seen, the
    /// transaction counts as cancelled after 64*T1.
    pub(super) fn handle_cancel(&mut self, seen: &Seen<'_>, context: &Context<'_>) {
        if !self.is_first(seen) || !self.invite.is_answered_by(seen) {
            return;
        }
        if let Phase::Inviting {
            deadline,
            cancelled,
            ..
        } = &mut self.phase
        {
            *cancelled = true;
            *deadline = (*deadline).min(context.now + context.timers().ack);
        }
    }

    pub(super) fn handle_first_response(
        &mut self,
        seen: &Seen<'_>,
        status: u16,
        context: &Context<'_>,
        effects: &mut Effects,
    ) {
        if !self.invite.is_answered_by(seen) {
            // Copies that have failed already answer again until they are acknowledged.
            if status < 300 {
                effects.wrong_dialog();
            }
            return;
        }
        self.invite.note_response(seen.branch);
        match status {
            ..=100 => self.wait_on(context),
            101..=299 => self.handle_progress(seen, status, context, effects),
            300.. => self.handle_failure(seen, status, context, effects),
        }
    }

    /// Timer C starts anew with every provisional response (RFC 3261 §16.7); until the first one timer B runs (§17.1.1.2).
    fn wait_on(&mut self, context: &Context<'_>) {
        if let Phase::Inviting {
            deadline,
            cancelled: false,
            ..
        } = &mut self.phase
        {
            *deadline = context.now + context.timers().invite;
        }
    }

    /// A 1xx or 2xx to the first INVITE, which may begin a dialog (RFC 3261 §12.1).
    fn handle_progress(
        &mut self,
        seen: &Seen<'_>,
        status: u16,
        context: &Context<'_>,
        effects: &mut Effects,
    ) {
        let is_final = status >= 200;
        let is_known = self.dialog(seen).is_some();
        self.wait_on(context);
        match &mut self.phase {
            Phase::Inviting { .. } => {}
            // A 1xx behind the 2xx is late; a further 2xx is another branch of a fork.
            Phase::Confirmed { .. } if is_final || is_known => {}
            _ => return,
        }
        let tag = seen.tag_of(self.inviter.opposite());
        if !is_known {
            // Only an INVITE outside any dialog forks (RFC 3261 §12.2.1.2): who answers from another one was not asked.
            if matches!(self.beginning, Beginning::Missed) {
                effects.wrong_dialog();
                return;
            }
            let limit = context.limits.settings.limits.dialogs_per_call;
            if self.dialogs.len() >= limit {
                self.dialogs.retain(|dialog| dialog.stage() != Stage::Ended);
            }
            if self.dialogs.len() >= limit && is_final {
                // Who answers goes before who only rings.
                let early = |dialog: &Dialog| matches!(dialog.stage(), Stage::Early { .. });
                if let Some(index) = self.dialogs.iter().position(early) {
                    self.dialogs.remove(index);
                }
            }
            if self.dialogs.len() >= limit {
                effects.refusals.push(Refusal::TooManyDialogs);
                return;
            }
            let dialog = Dialog::new(tag, self.inviter, &self.invite, self.offer.as_ref());
            // Hardly any call has more than one: no room in advance.
            self.dialogs.reserve_exact(1);
            self.dialogs.push(dialog);
        }
        let Some(dialog) = self.dialogs.iter_mut().find(|dialog| dialog.is(tag)) else {
            return;
        };
        if dialog.stage() == Stage::Ended {
            return;
        }
        if status == 199 {
            // Early Dialog Terminated (RFC 6228).
            dialog.end();
            return;
        }
        dialog.handle_invite_response(seen, status, context, effects);
        if !is_final {
            return;
        }
        let until = context.now + context.timers().ack;
        dialog.establish(context.now, until);
        for other in &mut self.dialogs {
            other.expire_at(until);
        }
        self.invite.progress = Progress::Final;
        self.confirm(context.now, effects);
    }

    fn handle_failure(
        &mut self,
        seen: &Seen<'_>,
        status: u16,
        context: &Context<'_>,
        effects: &mut Effects,
    ) {
        let cancelled = match self.phase {
            Phase::Inviting { cancelled, .. } => cancelled,
            // Confirmed by other signs than a 2xx, and wrongly.
            Phase::Confirmed { .. } if self.invite.progress == Progress::Pending => false,
            _ => return,
        };
        if !self.invite.fail_branch(seen.branch) {
            if let Phase::Inviting { deadline, .. } = &mut self.phase
                && !self.invite.is_proceeding()
            {
                // What is left was sent to a server that never responded, before the next one was tried (RFC 3263 §4.3).
                *deadline = (*deadline).min(context.now + context.timers().ack);
            }
            return;
        }
        if matches!(status, 401 | 407 | 422) {
            self.dialogs.clear();
            self.offer = None;
            self.phase = Phase::Challenged {
                status,
                deadline: context.now + context.timers().ack,
            };
        } else if cancelled && status == 487 {
            self.end(EndReason::Cancelled, context, effects);
        } else {
            self.end(EndReason::Rejected(status), context, effects);
        }
    }

    /// A request that only an answered call can bring, in a dialog that we know as early: the 2xx was lost on the way to us. These are the
    /// ACK of a 2xx (of a branch of its own), a further INVITE, and a BYE of the callee's (RFC 3261 §15).
    pub(super) fn note_missed_answer(
        &mut self,
        seen: &Seen<'_>,
        context: &Context<'_>,
        effects: &mut Effects,
    ) {
        let is_proof = match seen.verb {
            Verb::Ack => self.is_first(seen) && seen.branch.is_some(),
            Verb::Invite => seen.to_tag.is_some() && !self.is_first(seen),
            Verb::Bye => seen.sender != self.inviter,
            Verb::Cancel | Verb::Prack | Verb::Update | Verb::Aside(_) => false,
        };
        if !is_proof || !matches!(self.phase, Phase::Inviting { .. }) {
            return;
        }
        let until = context.now + context.timers().ack;
        if let Some(dialog) = self.dialog(seen)
            && dialog.stage() != Stage::Ended
        {
            dialog.establish(context.now, until);
            self.confirm(context.now, effects);
        }
    }

    /// The INVITE counts as answered.
    fn confirm(&mut self, now: Instant, effects: &mut Effects) {
        if !self.is_confirmed() {
            self.phase = Phase::Confirmed { at: now };
            self.confirmed_at = Some(now);
            effects.confirmed = true;
        }
    }

    /// No final response was seen, but it may have been lost, and media was agreed: silence decides from here on.
    pub(super) fn presume_confirmed(&mut self, now: Instant, effects: &mut Effects) {
        for dialog in &mut self.dialogs {
            dialog.establish(now, now);
            dialog.forgive_missing_ack();
        }
        self.confirm(now, effects);
    }
}
