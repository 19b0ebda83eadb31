//! A call among others: which messages are its own, what follows it under the same Call-ID, and when it may make room.
//!
//! It changes nothing. `table` asks, the call's phase answers.

use super::{
    Call, Phase,
    message::{Form, Seen, Verb},
};
use crate::engine::{Direction, EndReason};

/// Why a full table may forget a call, the likeliest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Spare {
    /// It is over.
    Over,
    /// Nothing but its INVITE was seen, or the INVITE was refused and asked for anew: it has no media, and forged packets can make any
    /// number of these. A new attempt is a new call.
    Unanswered,
}

impl Call {
    /// Whether the message's tags make it one of this call's: the inviting side's tag is always there.
    pub fn owns(&self, seen: &Seen<'_>) -> bool {
        self.inviter_tag.as_deref() == seen.tag_of(self.inviter)
            && (seen.to_tag.is_some()
                || seen.form != Form::Request
                || seen.requester() == self.inviter)
    }

    /// Whether the message is an INVITE after the end of this call that begins another: the same caller tries again, or the two
    /// go on with a dialog that we had given up by our own timers, or of which we saw an INVITE fail.
    pub fn is_followed_by(&self, seen: &Seen<'_>) -> bool {
        if seen.form != Form::Request || seen.verb != Verb::Invite {
            return false;
        }
        let is_inviters = seen.requester() == self.inviter;
        let is_next = is_inviters && seen.cseq > self.invite.cseq;
        let goes_on = seen.to_tag.is_some() && (is_next || !is_inviters);
        let reason = match self.phase {
            Phase::Ended { reason, .. } => reason,
            Phase::Challenged { .. } => return goes_on,
            Phase::Inviting { .. } | Phase::Confirmed { .. } => return false,
        };
        match reason {
            EndReason::Idle | EndReason::NoAck | EndReason::NoAnswer => {
                is_next || seen.to_tag.is_some()
            }
            // After a BYE, an INVITE inside the dialog is a late copy of one from before it.
            EndReason::Operator | EndReason::ProviderRemoved | EndReason::Bye(_) => {
                is_next && seen.to_tag.is_none()
            }
            EndReason::Rejected(_) => is_next || goes_on,
            EndReason::Cancelled | EndReason::Shed => is_next,
        }
    }

    /// Whether a full table may forget it. It has no pinhole then.
    pub fn spare(&self) -> Option<Spare> {
        match self.phase {
            Phase::Ended { .. } => Some(Spare::Over),
            Phase::Challenged { .. } => Some(Spare::Unanswered),
            Phase::Inviting { .. } => {
                let is_forgeable = self.inviter == Direction::Ingress;
                let is_unanswered = is_forgeable && !self.invite.is_proceeding();
                // Requests inside its dialog may have been answered where the INVITE's own answer was not seen.
                (is_unanswered && self.planned.locals.is_empty()).then_some(Spare::Unanswered)
            }
            Phase::Confirmed { .. } => None,
        }
    }
}
