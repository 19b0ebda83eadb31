//! The table of calls: capped in total and per provider, found by Call-ID and tags, each with one armed deadline.
//!
//! Call-IDs are text that a peer chose, so they are looked up by a keyed hash. A full table forgets calls that are over, then those
//! that nobody on our side has answered, the oldest first, so that forged INVITEs crowd out one another; then it refuses new ones. A call
//! that the PBX made or answered is never given up. It does not know what a message means (`Call` does).

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound::{Excluded, Unbounded},
};

use super::{
    Call, Spare,
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

/// Whether there is a place for a new call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// There is.
    Free,
    /// There may be once this call is forgotten: ask again then.
    InsteadOf(CallNumber, Refusal),
    /// This limit is reached.
    Full(Refusal),
}

/// Where a call stands in the indices of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Armed {
    deadline: Instant,
    spare: Option<Spare>,
    is_over: bool,
}

impl Armed {
    fn of(call: &Call, timers: &Timers) -> Self {
        Self {
            deadline: call.deadline(timers),
            spare: call.spare(),
            is_over: call.is_ended(),
        }
    }
}

/// All calls, the ended ones that still linger included.
#[derive(Debug)]
pub struct CallTable {
    key: HashKey,
    calls: BTreeMap<CallNumber, Call>,
    by_call_id: BTreeSet<(u64, CallNumber)>,
    armed: BTreeMap<CallNumber, Armed>,
    deadlines: BTreeSet<(Instant, CallNumber)>,
    /// Calls that may be forgotten, in the order in which they are, by provider.
    spare: BTreeMap<ProviderId, BTreeSet<(Spare, Instant, CallNumber)>>,
    per_provider: BTreeMap<ProviderId, usize>,
    /// How many are not over, so that nobody has to look at each to know.
    in_progress: usize,
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
            spare: BTreeMap::new(),
            per_provider: BTreeMap::new(),
            in_progress: 0,
            next: 1,
        }
    }

    /// How many calls it holds.
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// How many of them are not over.
    pub fn in_progress(&self) -> usize {
        self.in_progress
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// All calls, in order of appearance.
    pub fn iter(&self) -> impl Iterator<Item = &Call> {
        self.calls.values()
    }

    /// Those behind this one.
    pub fn behind(&self, number: Option<CallNumber>) -> impl Iterator<Item = &Call> {
        let from = number.map_or(Unbounded, Excluded);
        self.calls.range((from, Unbounded)).map(|(_, call)| call)
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

    /// Whether any call may have this Call-ID; false says that none has.
    pub fn may_know(&self, call_id: &str) -> bool {
        let hash = self.hash(call_id);
        let range = (hash, CallNumber(0))..=(hash, CallNumber(u64::MAX));
        self.by_call_id.range(range).next().is_some()
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

    /// Whether there is a place for a new call of this provider with this Call-ID.
    pub fn room(&self, provider: ProviderId, call_id: &str, limits: &Limits) -> Room {
        // Calls of one Call-ID are told apart one by one, so that there must not be many.
        let hash = self.hash(call_id);
        let range = (hash, CallNumber(0))..=(hash, CallNumber(u64::MAX));
        let same = self.by_call_id.range(range).map(|(_, number)| *number);
        if same.clone().count() >= limits.dialogs_per_call {
            let spare = same.filter_map(|number| Some((self.armed.get(&number)?.spare?, number)));
            return Room::after(spare.min(), Refusal::TooManyDialogs);
        }
        if self.per_provider.get(&provider).copied().unwrap_or(0) >= limits.calls_per_provider {
            let spare = self.first_spare(provider);
            return Room::after(spare, Refusal::TooManyCallsOfProvider);
        }
        if self.calls.len() >= limits.calls {
            let any = self.spare.values().filter_map(BTreeSet::first).min();
            let any = any.map(|(spare, _, number)| (*spare, *number));
            return Room::after(any, Refusal::TooManyCalls);
        }
        Room::Free
    }

    /// Gives every call another provider's number; [`Self::rearm`] all of them afterwards.
    pub fn renumber(&mut self, renumber: impl Fn(ProviderId) -> Option<ProviderId>) {
        self.armed.clear();
        self.in_progress = 0;
        self.deadlines.clear();
        self.spare.clear();
        self.per_provider.clear();
        for call in self.calls.values_mut() {
            if let Some(provider) = renumber(call.provider()) {
                call.renumber(provider);
            }
            *self.per_provider.entry(call.provider()).or_default() += 1;
        }
    }

    /// The number for a new call.
    pub fn next_number(&mut self) -> CallNumber {
        let number = CallNumber(self.next);
        self.next = self.next.saturating_add(1);
        number
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
        let armed = Armed::of(call, timers);
        let provider = call.provider();
        let old = self.armed.insert(number, armed);
        if old == Some(armed) {
            return;
        }
        if let Some(old) = old {
            self.disarm(provider, number, old);
        }
        self.deadlines.insert((armed.deadline, number));
        self.in_progress += usize::from(!armed.is_over);
        if let Some(spare) = armed.spare {
            self.spare
                .entry(provider)
                .or_default()
                .insert((spare, armed.deadline, number));
        }
    }

    /// Forgets a call.
    pub fn remove(&mut self, number: CallNumber) {
        let Some(call) = self.calls.remove(&number) else {
            return;
        };
        let provider = call.provider();
        self.by_call_id.remove(&(self.hash(call.call_id()), number));
        if let Some(armed) = self.armed.remove(&number) {
            self.disarm(provider, number, armed);
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
        for (number, call) in &self.calls {
            let armed = Armed::of(call, timers);
            assert_eq!(self.armed.get(number), Some(&armed), "{call:?}");
            assert!(self.deadlines.contains(&(armed.deadline, *number)));
            assert!(
                armed.spare.is_none() || call.planned.locals.is_empty(),
                "{call:?}"
            );
        }
        let in_progress = self.calls.values().filter(|call| !call.is_ended());
        assert_eq!(self.in_progress, in_progress.count());
        let spare = self.armed.iter().filter_map(|(number, armed)| {
            let call = self.calls.get(number)?;
            Some((call.provider(), (armed.spare?, armed.deadline, *number)))
        });
        let listed = self
            .spare
            .iter()
            .flat_map(|(provider, calls)| calls.iter().map(|call| (*provider, *call)));
        assert!(spare.collect::<BTreeSet<_>>().into_iter().eq(listed));
    }

    fn first_spare(&self, provider: ProviderId) -> Option<(Spare, CallNumber)> {
        let (spare, _, number) = self.spare.get(&provider)?.first()?;
        Some((*spare, *number))
    }

    fn disarm(&mut self, provider: ProviderId, number: CallNumber, armed: Armed) {
        self.deadlines.remove(&(armed.deadline, number));
        self.in_progress -= usize::from(!armed.is_over);
        if let (Some(spare), Some(calls)) = (armed.spare, self.spare.get_mut(&provider)) {
            calls.remove(&(spare, armed.deadline, number));
        }
    }

    fn hash(&self, call_id: &str) -> u64 {
        self.key.hash(call_id.as_bytes())
    }
}

impl Room {
    fn after(spare: Option<(Spare, CallNumber)>, refusal: Refusal) -> Self {
        match spare {
            Some((_, number)) => Self::InsteadOf(number, refusal),
            None => Self::Full(refusal),
        }
    }
}
