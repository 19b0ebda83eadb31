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
    datapath::Attachment,
    interface::{Asker, Index},
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
    /// There is none of its name any more.
    Gone,
    /// There has been none of its name yet.
    Awaited,
    /// There is one, and it cannot be filtered: why.
    Refused(String),
}

/// The configured interfaces by name.
#[derive(Debug)]
pub struct Places {
    known: BTreeMap<String, Known>,
    /// Kept, so that no interface counts as gone for want of a descriptor to ask with.
    asker: Option<Asker>,
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
                None => Place::Awaited,
            },
            index,
            not_before: Instant::now(),
        }
    }
}

impl Places {
    /// These, of which those are filtered that `attachments` tell.
    pub fn of(interfaces: &[String], attachments: &[Attachment]) -> Self {
        let mut places = Self {
            known: BTreeMap::new(),
            asker: Asker::new().ok(),
        };
        places.settle(interfaces, attachments);
        places
    }

    /// The programs have been put on these, as `attachments` tell: one that has appeared since is not among those.
    pub fn settle(&mut self, interfaces: &[String], attachments: &[Attachment]) {
        let mut before = std::mem::take(&mut self.known);
        for name in interfaces {
            let index = self.index(name).flatten();
            let index = index.filter(|&index| attachments.contains(&Attachment { index }));
            let known = match (index, before.remove(name)) {
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

    /// Looks where they are, and tells which of them have to be filtered anew. What cannot be asked is as it was.
    pub fn look(&mut self) -> Vec<String> {
        let mut anew = Vec::new();
        if self.asker.is_none() {
            self.asker = Asker::new().ok();
        }
        let Some(asker) = &self.asker else {
            return anew;
        };
        for (name, known) in &mut self.known {
            match asker.index(name) {
                Ok(Some(index)) if known.index == Some(index) => known.is_back(name),
                Ok(Some(_)) if Instant::now() >= known.not_before => anew.push(name.clone()),
                Ok(Some(_)) | Err(_) => {}
                Ok(None) => known.is_away(name, asker),
            }
        }
        anew
    }

    /// The index of an interface; `None` where it cannot be asked.
    fn index(&self, name: &str) -> Option<Option<Index>> {
        self.asker.as_ref()?.index(name).ok()
    }

    /// Whether there is certainly no interface of this number.
    pub fn is_absent(&self, index: Index) -> bool {
        let name = self.asker.as_ref().map(|asker| asker.name(index));
        matches!(name, Some(Ok(None)))
    }

    /// Whether one of these is among those that are filtered.
    pub fn are_of(&self, indices: &[Index]) -> bool {
        let mut filtered = self.known.values().filter_map(|known| known.index);
        filtered.any(|index| indices.contains(&index))
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
            let again = match known.place {
                Place::Awaited => "",
                _ => " again",
            };
            tracing::warn!(
                interface = name,
                index = index.0,
                "the interface is there{again}: filtered"
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
                    "the interface is there, and NOT FILTERED; trying on"
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

    fn is_away(&mut self, name: &str, asker: &Asker) {
        let place = match self.index.map(|index| asker.name(index)) {
            Some(Ok(Some(other))) => Place::Renamed(other),
            Some(Err(_)) => return,
            None if self.place == Place::Awaited => return,
            _ => Place::Gone,
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
