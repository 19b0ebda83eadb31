//! The table of calls: capped in total and per provider, found by Call-ID and tags, each with one armed deadline.
//!
//! Call-IDs are text that a peer chose, so they are looked up by a keyed hash. A full table forgets calls that are over, then refuses
//! new ones; a living call is never given up. It does not know what a message means (`Call` does).

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Call,
    message::{HashKey, Seen},
};
use crate::engine::{
    CallNumber, Instant, Refusal,
    settings::{Limits, ProviderId, Timers},
};

/// What is known about a message's Call-ID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// The message is this call's.
    Call(CallNumber),
    /// The Call-ID is known, but the tags or the provider are another call's, or nobody's.
    OtherCall,
    /// The Call-ID is unknown.
    Nothing,
}

/// All calls, the ended ones that still linger included.
#[derive(Debug)]
pub struct CallTable {
    key: HashKey,
    calls: BTreeMap<CallNumber, Call>,
    by_call_id: BTreeSet<(u64, CallNumber)>,
    armed: BTreeMap<CallNumber, Instant>,
    deadlines: BTreeSet<(Instant, CallNumber)>,
    /// Ended calls in the order in which they end their stay, by provider.
    lingering: BTreeMap<ProviderId, BTreeSet<(Instant, CallNumber)>>,
    per_provider: BTreeMap<ProviderId, usize>,
    next: u64,
}

impl CallTable {
    /// An empty table.
    pub fn new(key: HashKey) -> Self {
        Self {
            key,
            calls: BTreeMap::new(),
            by_call_id: BTreeSet::new(),
            armed: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            lingering: BTreeMap::new(),
            per_provider: BTreeMap::new(),
            next: 1,
        }
    }

    /// How many calls it holds.
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// All calls, in order of appearance.
    pub fn iter(&self) -> impl Iterator<Item = &Call> {
        self.calls.values()
    }

    /// Their numbers.
    pub fn numbers(&self) -> Vec<CallNumber> {
        self.calls.keys().copied().collect()
    }

    /// One call.
    pub fn call(&self, number: CallNumber) -> Option<&Call> {
        self.calls.get(&number)
    }

    /// One call, to change it; call [`Self::rearm`] afterwards.
    pub fn call_mut(&mut self, number: CallNumber) -> Option<&mut Call> {
        self.calls.get_mut(&number)
    }

    /// Whose message this is. A living call comes before one that is over.
    pub fn find(&self, provider: ProviderId, seen: &Seen<'_>) -> Found {
        let hash = self.hash(seen.call_id);
        let mut found = Found::Nothing;
        let range = (hash, CallNumber(0))..=(hash, CallNumber(u64::MAX));
        for (_, number) in self.by_call_id.range(range).rev() {
            let Some(call) = self.calls.get(number) else {
                continue;
            };
            if call.call_id() != seen.call_id {
                continue;
            }
            if call.provider() != provider || !call.owns(seen) {
                if found == Found::Nothing {
                    found = Found::OtherCall;
                }
            } else if !call.is_ended() {
                return Found::Call(*number);
            } else if !matches!(found, Found::Call(_)) {
                found = Found::Call(*number);
            }
        }
        found
    }

    /// The number for a new call of this provider with this Call-ID, and a place for it.
    ///
    /// # Errors
    /// The limit that is reached.
    pub fn reserve(
        &mut self,
        provider: ProviderId,
        call_id: &str,
        limits: &Limits,
    ) -> Result<CallNumber, Refusal> {
        // Calls of one Call-ID are told apart one by one, so that there must not be many.
        let hash = self.hash(call_id);
        let range = (hash, CallNumber(0))..=(hash, CallNumber(u64::MAX));
        if self.by_call_id.range(range).count() >= limits.dialogs_per_call {
            return Err(Refusal::TooManyDialogs);
        }
        if self.per_provider.get(&provider).copied().unwrap_or(0) >= limits.calls_per_provider
            && !self.forget_lingering(provider)
        {
            return Err(Refusal::TooManyCallsOfProvider);
        }
        if self.calls.len() >= limits.calls {
            let any = self
                .lingering
                .iter()
                .filter_map(|(provider, calls)| Some((calls.first()?, *provider)))
                .min()
                .map(|(_, provider)| provider);
            if !any.is_some_and(|provider| self.forget_lingering(provider)) {
                return Err(Refusal::TooManyCalls);
            }
        }
        let number = CallNumber(self.next);
        self.next = self.next.saturating_add(1);
        Ok(number)
    }

    /// Takes a new call.
    pub fn insert(&mut self, call: Call) {
        let (number, provider) = (call.number(), call.provider());
        self.by_call_id.insert((self.hash(call.call_id()), number));
        *self.per_provider.entry(provider).or_default() += 1;
        self.calls.insert(number, call);
    }

    /// Arms the call's deadline anew.
    pub fn rearm(&mut self, number: CallNumber, timers: &Timers) {
        let Some(call) = self.calls.get(&number) else {
            return;
        };
        let deadline = call.deadline(timers);
        if let Some(old) = self.armed.insert(number, deadline) {
            if old == deadline && !call.is_ended() {
                return;
            }
            self.deadlines.remove(&(old, number));
        }
        self.deadlines.insert((deadline, number));
        if call.is_ended() {
            self.lingering
                .entry(call.provider())
                .or_default()
                .insert((deadline, number));
        }
    }

    /// Forgets a call.
    pub fn remove(&mut self, number: CallNumber) {
        let Some(call) = self.calls.remove(&number) else {
            return;
        };
        let provider = call.provider();
        self.by_call_id.remove(&(self.hash(call.call_id()), number));
        if let Some(deadline) = self.armed.remove(&number) {
            self.deadlines.remove(&(deadline, number));
            if let Some(lingering) = self.lingering.get_mut(&provider) {
                lingering.remove(&(deadline, number));
            }
        }
        if let Some(count) = self.per_provider.get_mut(&provider) {
            *count -= 1;
        }
    }

    /// The earliest deadline of all.
    pub fn deadline(&self) -> Option<Instant> {
        let (deadline, _) = self.deadlines.first()?;
        (*deadline != Instant::FAR).then_some(*deadline)
    }

    /// The next call whose deadline has passed.
    pub fn due(&self, now: Instant) -> Option<CallNumber> {
        let (deadline, number) = self.deadlines.first()?;
        (*deadline <= now).then_some(*number)
    }

    /// Panics if the indices disagree with the calls: our bug.
    #[cfg(debug_assertions)]
    pub fn check_invariants(&self, timers: &Timers) {
        assert_eq!(self.calls.len(), self.armed.len());
        assert_eq!(self.calls.len(), self.deadlines.len());
        assert_eq!(self.calls.len(), self.by_call_id.len());
        assert_eq!(
            self.calls.len(),
            self.per_provider.values().copied().sum::<usize>()
        );
        assert_eq!(
            self.calls.values().filter(|call| call.is_ended()).count(),
            self.lingering.values().map(BTreeSet::len).sum::<usize>()
        );
        for (number, call) in &self.calls {
            let deadline = call.deadline(timers);
            assert_eq!(self.armed.get(number), Some(&deadline), "{call:?}");
            assert!(self.deadlines.contains(&(deadline, *number)));
        }
    }

    fn forget_lingering(&mut self, provider: ProviderId) -> bool {
        let oldest = self.lingering.get(&provider).and_then(BTreeSet::first);
        let Some((_, number)) = oldest.copied() else {
            return false;
        };
        self.remove(number);
        true
    }

    fn hash(&self, call_id: &str) -> u64 {
        self.key.hash(call_id.as_bytes())
    }
}
