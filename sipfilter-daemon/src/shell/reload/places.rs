//! Which of the configured interfaces are filtered now. A link stays on the interface that it was put on, whatever that is called; a
//! configuration names interfaces by what they are called now.
//!
//! It looks, remembers and says; `reload` attaches. Invariant: an interface is [`Place::Filtered`] or [`Place::Renamed`] only where the
//! programs are on it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::shell::{
    interface::{self, Index},
    rtnetlink::Changes,
};

/// Until it is tried again where it failed.
const AGAIN: Duration = Duration::from_secs(5);

/// Where an interface of the configuration is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// It is there, and filtered.
    Filtered,
    /// It is filtered, and has this name by now.
    Renamed(String),
    /// There is none of its name.
    Gone,
    /// There is one, and it cannot be filtered: why.
    Refused(String),
}

/// The configured interfaces by name.
#[derive(Debug)]
pub struct Places {
    known: BTreeMap<String, Known>,
}

#[derive(Debug)]
struct Known {
    place: Place,
    /// The one that the programs are on.
    index: Option<Index>,
    not_before: Instant,
}

impl Known {
    fn new(index: Option<Index>) -> Self {
        Self {
            place: match index {
                Some(_) => Place::Filtered,
                None => Place::Gone,
            },
            index,
            not_before: Instant::now(),
        }
    }
}

impl Places {
    /// The ones that are filtered now.
    pub fn of(interfaces: &[String]) -> Self {
        let mut places = Self {
            known: BTreeMap::new(),
        };
        places.settle(interfaces);
        places
    }

    /// The programs have been put on those of these that are there.
    pub fn settle(&mut self, interfaces: &[String]) {
        let mut before = std::mem::take(&mut self.known);
        for name in interfaces {
            let known = match (interface::index(name), before.remove(name)) {
                (None, Some(known)) => known,
                (index, _) => Known::new(index),
            };
            self.known.insert(name.clone(), known);
        }
    }

    /// Interfaces that are gone take their programs along, also where another one has their number by now.
    pub fn forget(&mut self, changes: &Changes) {
        for known in self.known.values_mut() {
            let is_doubtful = changes.is_partial && known.place == Place::Filtered;
            if is_doubtful
                || known
                    .index
                    .is_some_and(|index| changes.gone.contains(&index))
            {
                known.index = None;
            }
        }
    }

    /// Looks where they are, and tells which of them have to be filtered anew.
    pub fn look(&mut self) -> Vec<String> {
        let mut anew = Vec::new();
        for (name, known) in &mut self.known {
            match interface::index(name) {
                Some(index) if known.index == Some(index) => known.is_back(name),
                Some(_) if Instant::now() >= known.not_before => anew.push(name.clone()),
                Some(_) => {}
                None => known.is_away(name),
            }
        }
        anew
    }

    /// The programs are on it.
    pub fn attached(&mut self, name: &str, index: Index) {
        if let Some(known) = self.known.get_mut(name) {
            if let Place::Renamed(other) = &known.place {
                tracing::warn!(
                    interface = name,
                    other,
                    "another interface has this name by now; the one that had it stays filtered until the next reload or start"
                );
            }
            tracing::warn!(
                interface = name,
                index = index.0,
                "the interface is there again: filtered"
            );
            *known = Known::new(Some(index));
        }
    }

    /// They could not be put there.
    pub fn refused(&mut self, name: &str, why: String) {
        if let Some(known) = self.known.get_mut(name) {
            let place = Place::Refused(why.clone());
            if known.place != place {
                tracing::error!(
                    interface = name,
                    why,
                    "the interface is there again, and NOT FILTERED; trying on"
                );
            }
            known.place = place;
            known.not_before = Instant::now() + AGAIN;
        }
    }

    /// Interfaces that are filtered under another name than the configuration says.
    pub fn renamed(&self) -> Vec<Index> {
        let renamed = |known: &Known| {
            known
                .index
                .filter(|_| matches!(known.place, Place::Renamed(_)))
        };
        self.known.values().filter_map(renamed).collect()
    }

    /// Where each is.
    pub fn all(&self) -> BTreeMap<String, Place> {
        let place = |(name, known): (&String, &Known)| (name.clone(), known.place.clone());
        self.known.iter().map(place).collect()
    }
}

impl Known {
    fn is_back(&mut self, name: &str) {
        if self.place != Place::Filtered {
            tracing::info!(
                interface = name,
                "the interface has its name again; it was filtered all the time"
            );
            self.place = Place::Filtered;
        }
    }

    fn is_away(&mut self, name: &str) {
        let other = self.index.and_then(interface::name);
        let place = match other {
            Some(other) => Place::Renamed(other),
            None => Place::Gone,
        };
        if place == self.place {
            return;
        }
        match &place {
            Place::Renamed(other) => tracing::warn!(
                interface = name,
                other,
                "the interface has another name now; it stays filtered: write the new name under `interfaces` and reload, or the next start will not find it"
            ),
            _ => {
                self.index = None;
                tracing::warn!(
                    interface = name,
                    "the interface is gone; one of this name is filtered as soon as it is there"
                );
            }
        }
        self.place = place;
    }
}
