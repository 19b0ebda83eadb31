//! The union of what all calls want, and what the kernel has been told of it.
//!
//! Several calls may want one local address and port (forks, transfers, a port reused before the old call's end was seen): the pinhole is
//! the union, and closes when the last want goes. It does not know why a call wants what it wants (`call::plan` does). Its
//! invariant: an entry exists exactly as long as somebody wants it, and an open one's contents are the union of its wants.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    ops::Bound::{Excluded, Unbounded},
};

use super::{Label, Pinhole, PinholeAction, PinholeResult};
use crate::engine::{CallNumber, Instant, Refusal, call::plan::Want, settings::ProviderId};

/// What the kernel has, as far as it has said.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kernel {
    /// Nothing: not told yet, or told and refused. Tried again with the call's next message.
    Absent,
    /// This pinhole.
    Open {
        pinhole: Pinhole,
        /// Whether the kernel has said so, for this state or an earlier one.
        is_confirmed: bool,
        /// When the kernel last reported it silent.
        silent: Option<Instant>,
    },
    /// An older state of this pinhole: an update was refused. Tried again with the call's next message.
    Stale { pinhole: Pinhole },
}

impl Kernel {
    fn pinhole(&self) -> Option<&Pinhole> {
        match self {
            Self::Absent => None,
            Self::Open { pinhole, .. } | Self::Stale { pinhole } => Some(pinhole),
        }
    }
}

/// Who wants a pinhole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The call.
    pub call: CallNumber,
    /// Its provider.
    pub provider: ProviderId,
    /// What it is known by to daemons to come.
    pub label: Label,
}

#[derive(Debug, Clone)]
struct Entry {
    /// By call, the oldest first.
    wants: Vec<(Owner, Want)>,
    kernel: Kernel,
    life: Life,
}

/// From one `Open` to the `Close` behind it. An answer to an action of an earlier life tells nothing of this one: several actions on one
/// place may come of one input, and be answered after the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Life(u64);

/// All pinholes, by local address and port.
#[derive(Debug)]
pub struct PinholeTable {
    entries: BTreeMap<SocketAddr, Entry>,
    /// How many of them the kernel has.
    open: usize,
    limit: usize,
    lives: u64,
    /// The actions that the shell has not answered yet, in order.
    awaited: BTreeMap<SocketAddr, VecDeque<Life>>,
}

impl PinholeTable {
    /// An empty table for at most `limit` open pinholes.
    pub fn new(limit: usize) -> Self {
        Self {
            entries: BTreeMap::new(),
            open: 0,
            limit,
            lives: 0,
            awaited: BTreeMap::new(),
        }
    }

    /// The pinholes that the kernel has.
    pub fn iter(&self) -> impl Iterator<Item = &Pinhole> {
        self.entries
            .values()
            .filter_map(|entry| entry.kernel.pinhole())
    }

    /// Those of them behind this place.
    pub fn behind(&self, local: Option<SocketAddr>) -> impl Iterator<Item = &Pinhole> {
        let from = local.map_or(Unbounded, Excluded);
        let behind = self.entries.range((from, Unbounded));
        behind.filter_map(|(_, entry)| entry.kernel.pinhole())
    }

    /// The one that the kernel has at this place.
    pub fn pinhole(&self, local: SocketAddr) -> Option<&Pinhole> {
        self.entries.get(&local)?.kernel.pinhole()
    }

    /// How many the kernel has.
    pub fn open(&self) -> usize {
        self.open
    }

    /// Whether the kernel has this one.
    pub fn is_open(&self, local: SocketAddr) -> bool {
        self.entries
            .get(&local)
            .is_some_and(|entry| entry.kernel != Kernel::Absent)
    }

    /// The calls that want this one.
    pub fn owners(&self, local: SocketAddr) -> impl Iterator<Item = CallNumber> {
        let wants = self.entries.get(&local).map(|entry| entry.wants.as_slice());
        wants
            .unwrap_or_default()
            .iter()
            .map(|(owner, _)| owner.call)
    }

    /// Replaces all wants of a call: `before` is where its wants were. Closes come first, so that a full table finds room.
    /// Tells what was refused.
    pub fn apply(
        &mut self,
        owner: Owner,
        wants: BTreeMap<SocketAddr, Want>,
        before: &[SocketAddr],
        renew: bool,
        actions: &mut impl FnMut(PinholeAction),
    ) -> BTreeSet<Refusal> {
        let mut refusals = BTreeSet::new();
        let gone = before.iter().filter(|local| !wants.contains_key(local));
        for local in gone.copied().collect::<BTreeSet<_>>() {
            if let Some(entry) = self.entries.get_mut(&local) {
                entry.wants.retain(|(other, _)| other.call != owner.call);
            }
            self.sync(local, false, actions, &mut refusals);
        }
        for (local, want) in wants {
            let entry = self.entries.entry(local).or_insert_with(|| Entry {
                wants: Vec::with_capacity(1),
                kernel: Kernel::Absent,
                life: Life(0),
            });
            match entry
                .wants
                .binary_search_by_key(&owner.call, |(other, _)| other.call)
            {
                Ok(index) => {
                    if let Some(known) = entry.wants.get_mut(index) {
                        *known = (owner, want);
                    }
                }
                Err(index) => entry.wants.insert(index, (owner, want)),
            }
            self.sync(local, renew, actions, &mut refusals);
        }
        refusals
    }

    /// Takes a pinhole that the kernel has from an earlier run, for the call that stands for its owner. Tells whether there was room.
    pub fn adopt(&mut self, pinhole: Pinhole) -> bool {
        if self.open >= self.limit || self.entries.contains_key(&pinhole.local) {
            return false;
        }
        let owner = Owner {
            call: pinhole.call,
            provider: pinhole.provider,
            label: pinhole.label,
        };
        let want = Want {
            sources: pinhole.sources.clone(),
            stream: pinhole.stream,
            extras: pinhole.extras,
            terms: pinhole.terms,
            latch: pinhole.latch,
            idle: pinhole.idle,
        };
        self.open += 1;
        self.lives += 1;
        self.entries.insert(
            pinhole.local,
            Entry {
                life: Life(self.lives),
                wants: vec![(owner, want)],
                kernel: Kernel::Open {
                    pinhole,
                    is_confirmed: true,
                    silent: None,
                },
            },
        );
        true
    }

    /// Gives every owner another provider's number, as far as `renumber` knows one.
    pub fn renumber(
        &mut self,
        renumber: impl Fn(ProviderId) -> Option<ProviderId>,
        actions: &mut impl FnMut(PinholeAction),
    ) {
        for (local, entry) in &mut self.entries {
            for (owner, _) in &mut entry.wants {
                owner.provider = renumber(owner.provider).unwrap_or(owner.provider);
            }
            if let Kernel::Open { pinhole, .. } | Kernel::Stale { pinhole } = &mut entry.kernel {
                let provider = renumber(pinhole.provider).unwrap_or(pinhole.provider);
                if provider != pinhole.provider {
                    pinhole.provider = provider;
                    self.awaited
                        .entry(*local)
                        .or_default()
                        .push_back(entry.life);
                    actions(PinholeAction::Update(pinhole.clone()));
                }
            }
        }
    }

    /// Another limit from now on. What is open stays open.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit.max(self.open);
    }

    /// What became of the earliest `Open` or `Update` of this place that has no answer yet. Tells whose pinhole it is.
    pub fn handle_result(&mut self, local: SocketAddr, result: PinholeResult) -> Vec<CallNumber> {
        let Some((life, is_last)) = self.take_awaited(local) else {
            return Vec::new();
        };
        let Some(entry) = self.entries.get_mut(&local) else {
            return Vec::new();
        };
        if entry.life != life {
            return Vec::new();
        }
        if result == PinholeResult::Done {
            if let Kernel::Open { is_confirmed, .. } = &mut entry.kernel {
                *is_confirmed = true;
            }
            return Vec::new();
        }
        let owners = entry.wants.iter().map(|(owner, _)| owner.call).collect();
        if !is_last {
            // A later action on it is under way, and decides.
            return owners;
        }
        entry.kernel = match std::mem::replace(&mut entry.kernel, Kernel::Absent) {
            // An update failed: what was there before still is, and must be closed in the end.
            Kernel::Open {
                pinhole,
                is_confirmed: true,
                ..
            } => Kernel::Stale { pinhole },
            Kernel::Open { .. } => {
                self.open -= 1;
                Kernel::Absent
            }
            other => other,
        };
        owners
    }

    /// The action that is answered now, and whether it is the last on its place.
    fn take_awaited(&mut self, local: SocketAddr) -> Option<(Life, bool)> {
        let awaited = self.awaited.get_mut(&local)?;
        let life = awaited.pop_front()?;
        let is_last = awaited.is_empty();
        if is_last {
            self.awaited.remove(&local);
        }
        Some((life, is_last))
    }

    /// The kernel saw no packet here for the idle limit. Names the calls that want it.
    pub fn handle_idle(&mut self, local: SocketAddr, now: Instant) -> Vec<CallNumber> {
        let Some(entry) = self.entries.get_mut(&local) else {
            return Vec::new();
        };
        if let Kernel::Open { silent, .. } = &mut entry.kernel {
            *silent = Some(now);
        }
        entry.wants.iter().map(|(owner, _)| owner.call).collect()
    }

    /// Whether every one of these pinholes is silent. An old report does not count: a pinhole that is still silent is reported
    /// again after each idle limit.
    pub fn are_silent(&self, locals: &[SocketAddr], now: Instant) -> bool {
        locals.iter().all(
            |local| match self.entries.get(local).map(|entry| &entry.kernel) {
                Some(Kernel::Open {
                    pinhole,
                    silent: Some(since),
                    ..
                }) => now < *since + 2 * pinhole.idle,
                Some(Kernel::Open { silent: None, .. }) => false,
                Some(Kernel::Absent | Kernel::Stale { .. }) | None => true,
            },
        )
    }

    /// Sends an open pinhole again, so that its silence is counted anew.
    pub fn renew(&mut self, local: SocketAddr, actions: &mut impl FnMut(PinholeAction)) {
        if let Some(entry) = self.entries.get(&local)
            && let Kernel::Open { pinhole, .. } = &entry.kernel
        {
            actions(PinholeAction::Update(pinhole.clone()));
            self.awaited.entry(local).or_default().push_back(entry.life);
        }
    }

    /// Panics if an entry disagrees with its wants: our bug.
    #[cfg(debug_assertions)]
    pub fn check_invariants(&self) {
        for (local, entry) in &self.entries {
            assert!(!entry.wants.is_empty(), "nobody wants {local}");
            if let Kernel::Open { pinhole, .. } = &entry.kernel {
                let (union, _) = unite(*local, &entry.wants).unzip();
                assert_eq!(Some(pinhole), union.as_ref());
                assert!(!pinhole.sources.is_empty());
                assert!(pinhole.sources.len() <= super::MAX_SOURCES);
                assert!(pinhole.sources.is_sorted());
            }
        }
        assert_eq!(self.open, self.iter().count());
        assert!(self.open <= self.limit);
    }

    /// What this call wants here, for the invariants.
    #[cfg(debug_assertions)]
    pub fn want(&self, local: SocketAddr, call: CallNumber) -> Option<&Want> {
        let entry = self.entries.get(&local)?;
        let (_, want) = entry.wants.iter().find(|(owner, _)| owner.call == call)?;
        Some(want)
    }

    /// How many wants there are in all, for the invariants.
    #[cfg(debug_assertions)]
    pub fn wants(&self) -> usize {
        self.entries.values().map(|entry| entry.wants.len()).sum()
    }

    /// Brings the kernel's pinhole in line with the wants.
    fn sync(
        &mut self,
        local: SocketAddr,
        renew: bool,
        actions: &mut impl FnMut(PinholeAction),
        refusals: &mut BTreeSet<Refusal>,
    ) {
        let Some(entry) = self.entries.get_mut(&local) else {
            return;
        };
        let Some((pinhole, is_complete)) = unite(local, &entry.wants) else {
            match &entry.kernel {
                Kernel::Absent => {}
                Kernel::Open { pinhole, .. } | Kernel::Stale { pinhole } => {
                    self.open -= 1;
                    actions(PinholeAction::Close {
                        local,
                        call: pinhole.call,
                    });
                }
            }
            self.entries.remove(&local);
            return;
        };
        if !is_complete && entry.wants.len() > 1 {
            // A single call's own surplus was reported when it was planned.
            refusals.insert(Refusal::TooManySources);
        }
        let is_confirmed = match &entry.kernel {
            Kernel::Absent => {
                if self.open >= self.limit {
                    refusals.insert(Refusal::TooManyPinholes);
                    return;
                }
                self.open += 1;
                self.lives += 1;
                entry.life = Life(self.lives);
                actions(PinholeAction::Open(pinhole.clone()));
                false
            }
            Kernel::Open { pinhole: known, .. } if *known == pinhole && !renew => return,
            Kernel::Open { is_confirmed, .. } => {
                actions(PinholeAction::Update(pinhole.clone()));
                *is_confirmed
            }
            Kernel::Stale { .. } => {
                actions(PinholeAction::Update(pinhole.clone()));
                true
            }
        };
        self.awaited.entry(local).or_default().push_back(entry.life);
        entry.kernel = Kernel::Open {
            pinhole,
            is_confirmed,
            silent: None,
        };
    }
}

/// The union of all wants, and whether every source found a place; `None` if nobody wants anything.
fn unite(local: SocketAddr, wants: &[(Owner, Want)]) -> Option<(Pinhole, bool)> {
    // The newest first: where places run out, an older call may have left the port without our seeing it.
    let ((owner, newest), rest) = wants.split_last()?;
    let mut union = newest.clone();
    let mut is_complete = true;
    for (_, want) in rest.iter().rev() {
        is_complete &= union.unite(want);
    }
    union.sources.sort_unstable();
    let pinhole = Pinhole {
        local,
        sources: union.sources,
        stream: union.stream,
        extras: union.extras,
        terms: union.terms,
        latch: union.latch,
        idle: union.idle,
        provider: owner.provider,
        call: owner.call,
        label: if rest.is_empty() {
            owner.label
        } else {
            Label::NONE
        },
    };
    Some((pinhole, is_complete))
}
