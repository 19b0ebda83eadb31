//! The kernel's array of terms: each that some pinhole has, once.
//!
//! Invariant: as many as there are pinholes of both families can be there, so that it is never full; and one that no pinhole has any more is not
//! written again before every program that may read it has ended.

use std::collections::{BTreeMap, VecDeque};

use aya::maps::{Array, MapData, MapError};
use sipfilter_common::gate::Terms;

use super::pinholes::full;

/// The array, and who uses what of it.
pub(super) struct KernelTerms {
    array: Array<MapData, Terms>,
    known: BTreeMap<Terms, Known>,
    free: VecDeque<u32>,
}

/// Terms that are there.
struct Known {
    number: u32,
    /// How many pinholes have them.
    users: u32,
}

impl KernelTerms {
    pub(super) fn new(array: Array<MapData, Terms>) -> Self {
        Self {
            free: (0..array.len()).collect(),
            array,
            known: BTreeMap::new(),
        }
    }

    /// The number of these terms, for one more pinhole.
    pub(super) fn take(&mut self, terms: Terms) -> Result<u32, MapError> {
        if let Some(known) = self.known.get_mut(&terms) {
            known.users += 1;
            return Ok(known.number);
        }
        let number = self.free.pop_front().ok_or(full(self.array.len()))?;
        if let Err(error) = self.array.set(number, terms, 0) {
            self.free.push_front(number);
            return Err(error);
        }
        self.known.insert(terms, Known { number, users: 1 });
        Ok(number)
    }

    /// One pinhole less has them, and no program looks at it any more.
    pub(super) fn release(&mut self, terms: &Terms) {
        let Some(known) = self.known.get_mut(terms) else {
            return;
        };
        known.users = known.users.saturating_sub(1);
        if known.users == 0 {
            self.free.push_back(known.number);
            self.known.remove(terms);
        }
    }
}
