//! [`Engine`] and the calls of earlier runs: how they end, and how calls of this run go on with them. `adopted` keeps them.

use std::collections::BTreeMap;

use super::{Engine, emit};
use crate::engine::{
    CallNumber, EndReason, Event, Output,
    call::{
        Call,
        message::{Form, Seen, Verb},
    },
    pinhole::{Pinhole, table::Owner},
    settings::ProviderId,
};

impl Engine {
    /// Takes a pinhole that the kernel has from an earlier run; `pinhole.call` does not count. To be called before the first input. Tells
    /// whether there was room for it.
    pub fn adopt(&mut self, pinhole: Pinhole) -> bool {
        let call = match self.adopted.number(pinhole.label) {
            Some(number) => number,
            None => self.calls.next_number(),
        };
        let owner = Owner {
            call,
            provider: pinhole.provider,
            label: pinhole.label,
        };
        let local = pinhole.local;
        let is_taken = self.pinholes.adopt(Pinhole { call, ..pinhole });
        if is_taken {
            self.adopted.add(owner, local);
        }
        is_taken
    }

    /// Pinholes of earlier runs that no call of this one has replaced.
    pub fn adopted_pinholes(&self) -> usize {
        self.adopted.pinholes()
    }

    /// Whether the message is of a call of an earlier run, and of no other: then it is done with. Of such a call nothing is known but its
    /// pinholes, so that only its end can be told; an INVITE makes it a call of this run.
    pub(super) fn handle_adopted(&mut self, provider: ProviderId, seen: &Seen<'_>) -> bool {
        let labels = seen.labels(self.label_key);
        let Some(number) = self.adopted.find(&labels, provider) else {
            return false;
        };
        if self.adopted.has_heir(number) {
            return false;
        }
        match (seen.form, seen.verb) {
            (Form::Request, Verb::Invite) => return false,
            (Form::Request, Verb::Bye) => self.end_adopted(number, EndReason::Bye(seen.sender)),
            // Both sides say that the session goes on (RFC 4028 §7.4, RFC 3311).
            (Form::Response(200..=299), Verb::Invite | Verb::Update) => {
                let locals = self.adopted.call(number).map(|(_, locals)| locals.to_vec());
                let (outputs, counters) = (&mut self.outputs, &mut self.counters);
                for local in locals.into_iter().flatten() {
                    self.pinholes
                        .renew(local, &mut |action| emit(outputs, counters, action));
                }
            }
            _ => {}
        }
        true
    }

    /// Lets the call go on with what an earlier run has left of it.
    pub(super) fn inherit(&mut self, heir: CallNumber, provider: ProviderId, seen: &Seen<'_>) {
        if self.adopted.is_empty() {
            return;
        }
        let labels = seen.labels(self.label_key);
        if let Some(number) = self.adopted.find(&labels, provider) {
            self.adopted.bequeath(number, heir);
        }
    }

    /// Once both sides have agreed anew and the one that asked has heard of it, what an earlier run has left is not needed any more.
    pub(super) fn settle_estate(&mut self, heir: CallNumber, seen: &Seen<'_>) {
        if seen.form != Form::Request || seen.verb != Verb::Ack {
            return;
        }
        let Some(number) = self.adopted.inherited(heir) else {
            return;
        };
        let is_settled = self
            .calls
            .call(heir)
            .is_some_and(|call| call.is_confirmed() && !call.planned.locals.is_empty());
        if is_settled {
            self.give_up(number);
        }
    }

    /// Ends a call of an earlier run.
    pub(super) fn end_adopted(&mut self, number: CallNumber, reason: EndReason) {
        if self.give_up(number) {
            self.counters.count_end(reason);
            self.outputs.push_back(Output::Event(Event::CallEnded {
                call: number,
                reason,
            }));
        }
    }

    /// Wants no more what an earlier run has left of a call. Tells whether there was anything.
    fn give_up(&mut self, number: CallNumber) -> bool {
        let Some((owner, locals)) = self.adopted.remove(number) else {
            return false;
        };
        let (outputs, counters) = (&mut self.outputs, &mut self.counters);
        self.pinholes
            .apply(owner, BTreeMap::new(), &locals, false, &mut |action| {
                emit(outputs, counters, action);
            });
        true
    }

    /// What becomes of an earlier run's pinholes when the call that went on with them ends. Only where the whole call is over are they; an
    /// INVITE inside a dialog that was refused has changed nothing.
    pub(super) fn end_inheritance(&mut self, heir: CallNumber, reason: EndReason) {
        let Some(number) = self.adopted.inherited(heir) else {
            return;
        };
        let is_new = self
            .calls
            .call(heir)
            .is_some_and(Call::is_seen_from_its_beginning);
        match reason {
            EndReason::Bye(_) | EndReason::Operator | EndReason::ProviderRemoved => {
                self.give_up(number);
            }
            EndReason::Rejected(_) | EndReason::Cancelled if is_new => {
                self.give_up(number);
            }
            _ => self.adopted.disown(heir),
        }
    }
}
