//! Calls of an earlier run: what the kernel still holds open for them, and who is to have it.
//!
//! Nothing is known of such a call but its label and its pinholes. A message with the same label is one of its own: its BYE closes the
//! pinholes, and the call that an INVITE inside its dialog begins anew is its heir, which replaces them with what both sides agree on. Until
//! then, or where nobody asks for them, they stay as they are and die idle. It reads no message and owns no pinhole (`run` and
//! `pinhole::table` do).
//!
//! Invariant: every entry has at least one pinhole, and no two entries share a label, but for [`Label::NONE`].

use std::{collections::BTreeMap, net::SocketAddr};

use super::{
    CallNumber,
    pinhole::{Label, table::Owner},
    settings::ProviderId,
};

/// One call of an earlier run.
#[derive(Debug, Clone)]
struct Adopted {
    owner: Owner,
    locals: Vec<SocketAddr>,
    /// The call of this run that goes on with it.
    heir: Option<CallNumber>,
}

/// All calls of earlier runs that still have pinholes.
#[derive(Debug, Default)]
pub struct AdoptedCalls {
    calls: BTreeMap<CallNumber, Adopted>,
    by_label: BTreeMap<Label, CallNumber>,
    by_heir: BTreeMap<CallNumber, CallNumber>,
}

impl AdoptedCalls {
    /// Whether there are none, as there are after a while.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// The pinholes of all of them.
    pub fn pinholes(&self) -> usize {
        self.calls.values().map(|call| call.locals.len()).sum()
    }

    /// Every call and its pinholes.
    #[cfg(debug_assertions)]
    pub fn iter(&self) -> impl Iterator<Item = (Owner, &[SocketAddr])> {
        self.calls
            .values()
            .map(|call| (call.owner, call.locals.as_slice()))
    }

    /// The number under which a label is known already.
    pub fn number(&self, label: Label) -> Option<CallNumber> {
        self.by_label.get(&label).copied()
    }

    /// Adds a pinhole to the call of this number.
    pub fn add(&mut self, owner: Owner, local: SocketAddr) {
        if owner.label != Label::NONE {
            self.by_label.insert(owner.label, owner.call);
        }
        let call = self.calls.entry(owner.call).or_insert_with(|| Adopted {
            owner,
            locals: Vec::with_capacity(2),
            heir: None,
        });
        call.locals.push(local);
    }

    /// The call that one of these labels stands for.
    pub fn find(&self, labels: &[Label], provider: ProviderId) -> Option<CallNumber> {
        labels.iter().find_map(|label| {
            let number = self.by_label.get(label)?;
            let call = self.calls.get(number)?;
            (call.owner.provider == provider).then_some(*number)
        })
    }

    /// Whether a call of this run goes on with it.
    pub fn has_heir(&self, number: CallNumber) -> bool {
        self.calls
            .get(&number)
            .is_some_and(|call| call.heir.is_some())
    }

    /// The call that this one of this run goes on with.
    pub fn inherited(&self, heir: CallNumber) -> Option<CallNumber> {
        self.by_heir.get(&heir).copied()
    }

    /// `heir` goes on with the call.
    pub fn bequeath(&mut self, number: CallNumber, heir: CallNumber) {
        if let Some(call) = self.calls.get_mut(&number) {
            if let Some(former) = call.heir.replace(heir) {
                self.by_heir.remove(&former);
            }
            self.by_heir.insert(heir, number);
        }
    }

    /// The heir came to nothing: the call is as it was.
    pub fn disown(&mut self, heir: CallNumber) {
        if let Some(number) = self.by_heir.remove(&heir)
            && let Some(call) = self.calls.get_mut(&number)
        {
            call.heir = None;
        }
    }

    /// One call and its pinholes.
    pub fn call(&self, number: CallNumber) -> Option<(Owner, &[SocketAddr])> {
        let call = self.calls.get(&number)?;
        Some((call.owner, &call.locals))
    }

    /// Forgets a call, and gives what it had.
    pub fn remove(&mut self, number: CallNumber) -> Option<(Owner, Vec<SocketAddr>)> {
        let call = self.calls.remove(&number)?;
        if call.owner.label != Label::NONE {
            self.by_label.remove(&call.owner.label);
        }
        if let Some(heir) = call.heir {
            self.by_heir.remove(&heir);
        }
        Some((call.owner, call.locals))
    }

    /// Gives every call another provider's number; those whose provider `renumber` does not know are forgotten and given.
    pub fn renumber(
        &mut self,
        renumber: impl Fn(ProviderId) -> Option<ProviderId>,
    ) -> Vec<CallNumber> {
        let mut gone = Vec::new();
        for (number, call) in &mut self.calls {
            match renumber(call.owner.provider) {
                Some(provider) => call.owner.provider = provider,
                None => gone.push(*number),
            }
        }
        gone
    }
}
