//! Who holds how much: entries and bytes per owner and in total, against their caps.
//!
//! An owner is the peer at the far end, for whose packets memory is spent. It holds no data and evicts nothing (the tables do).
//! Its invariant: the total is the sum over the owners, and an owner that holds nothing is forgotten.

use std::collections::{BTreeMap, BTreeSet};

/// The caps of one table. Bytes include a flat charge for the table's own cost per entry and per piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    /// Entries of one owner.
    pub entries_per_source: usize,
    /// Bytes of one owner.
    pub bytes_per_source: usize,
    /// Entries of all owners.
    pub entries: usize,
    /// Bytes of all owners.
    pub bytes: usize,
}

/// Which cap stands in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// [`Quota::entries_per_source`]
    SourceEntries,
    /// [`Quota::bytes_per_source`]
    SourceBytes,
    /// [`Quota::entries`]
    TotalEntries,
    /// [`Quota::bytes`]
    TotalBytes,
}

/// What an owner, or everybody, holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Entries.
    pub entries: usize,
    /// Bytes.
    pub bytes: usize,
}

/// The accounts of one table.
#[derive(Debug)]
pub struct Ledger<O> {
    quota: Quota,
    total: Usage,
    owners: BTreeMap<O, Usage>,
    by_weight: BTreeSet<(usize, O)>,
}

impl<O: Ord + Copy> Ledger<O> {
    /// Empty accounts.
    pub fn new(quota: Quota) -> Self {
        Self {
            quota,
            total: Usage::default(),
            owners: BTreeMap::new(),
            by_weight: BTreeSet::new(),
        }
    }

    /// What everybody holds.
    pub fn total(&self) -> Usage {
        self.total
    }

    /// What one owner holds.
    pub fn usage(&self, owner: O) -> Usage {
        self.owners.get(&owner).copied().unwrap_or_default()
    }

    /// Which cap, if any, keeps the owner from holding so much more.
    pub fn obstacle(&self, owner: O, entries: usize, bytes: usize) -> Option<Full> {
        let own = self.usage(owner);
        let quota = &self.quota;
        if own.entries + entries > quota.entries_per_source {
            Some(Full::SourceEntries)
        } else if own.bytes + bytes > quota.bytes_per_source {
            Some(Full::SourceBytes)
        } else if self.total.entries + entries > quota.entries {
            Some(Full::TotalEntries)
        } else if self.total.bytes + bytes > quota.bytes {
            Some(Full::TotalBytes)
        } else {
            None
        }
    }

    /// How many more bytes the owner may hold.
    pub fn room(&self, owner: O) -> usize {
        let own = self
            .quota
            .bytes_per_source
            .saturating_sub(self.usage(owner).bytes);
        own.min(self.quota.bytes.saturating_sub(self.total.bytes))
    }

    /// The owner that holds the most bytes.
    pub fn heaviest(&self) -> Option<O> {
        self.by_weight.last().map(|&(_, owner)| owner)
    }

    /// Books a change of what the owner holds, from `before` to `after`.
    pub fn change(&mut self, owner: O, before: Usage, after: Usage) {
        if before == after {
            return;
        }
        let own = self.usage(owner);
        let replace = |held: usize, before: usize, after: usize| {
            held.saturating_sub(before).saturating_add(after)
        };
        let changed = Usage {
            entries: replace(own.entries, before.entries, after.entries),
            bytes: replace(own.bytes, before.bytes, after.bytes),
        };
        self.total.entries = replace(self.total.entries, before.entries, after.entries);
        self.total.bytes = replace(self.total.bytes, before.bytes, after.bytes);
        self.by_weight.remove(&(own.bytes, owner));
        if changed == Usage::default() {
            self.owners.remove(&owner);
        } else {
            self.owners.insert(owner, changed);
            self.by_weight.insert((changed.bytes, owner));
        }
    }

    /// Compares the accounts with a recount, and with the caps.
    #[cfg(test)]
    pub fn check_against(&self, recount: &BTreeMap<O, Usage>)
    where
        O: std::fmt::Debug,
    {
        assert_eq!(&self.owners, recount);
        let total = recount.values().fold(Usage::default(), |sum, usage| Usage {
            entries: sum.entries + usage.entries,
            bytes: sum.bytes + usage.bytes,
        });
        assert_eq!(self.total, total);
        let weights: BTreeSet<_> = recount
            .iter()
            .map(|(&owner, usage)| (usage.bytes, owner))
            .collect();
        assert_eq!(self.by_weight, weights);
        for usage in recount.values() {
            assert!(usage.entries <= self.quota.entries_per_source);
            assert!(usage.bytes <= self.quota.bytes_per_source);
        }
        assert!(total.entries <= self.quota.entries && total.bytes <= self.quota.bytes);
    }
}
