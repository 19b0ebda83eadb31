//! The kernel's port filter: a bit for each port that may have a pinhole, so that a flood to all others never reaches the hash tables.
//!
//! Pinholes of several addresses may share a bit. Invariant: a bit is set for as long as a pinhole that has it may be in the kernel's
//! maps; a bit too many costs a look-up, a bit too few a call's audio.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use aya::maps::{Array, MapData, MapError};
use sipfilter_common::{
    addr::{Ipv4, Ipv6},
    key::{FilterPlace, PinholeKey},
};

/// The filter in the kernel, and how many pinholes stand behind each bit.
pub struct PortFilter {
    words: Array<MapData, u64>,
    pinholes: BTreeMap<FilterPlace, u32>,
}

impl PortFilter {
    /// Takes the map over. Bits that an earlier run left stay until [`Self::keep_only_known`].
    pub fn new(words: Array<MapData, u64>) -> Self {
        Self {
            words,
            pinholes: BTreeMap::new(),
        }
    }

    /// To be called before a new pinhole is put into the kernel.
    ///
    /// # Errors
    /// What the kernel says; nothing has changed then.
    pub fn add(&mut self, local: &SocketAddr) -> Result<(), MapError> {
        let place = place(local);
        let known = self.pinholes.get(&place).copied().unwrap_or_default();
        if known == 0 {
            self.write(place, |word| word | place.bit())?;
        }
        self.pinholes.insert(place, known + 1);
        Ok(())
    }

    /// To be called after a pinhole has left the kernel, once for each [`Self::add`].
    pub fn remove(&mut self, local: &SocketAddr) {
        let place = place(local);
        match self.pinholes.get_mut(&place) {
            Some(known) if *known > 1 => *known -= 1,
            Some(_) => {
                self.pinholes.remove(&place);
                if let Err(error) = self.write(place, |word| word & !place.bit()) {
                    // It costs a look-up, nothing else.
                    tracing::debug!(%error, %local, "the port filter keeps a bit too many");
                }
            }
            None => debug_assert!(false, "{local} was never added"),
        }
    }

    /// Clears the bits that nothing stands behind: those of pinholes that went while nobody kept the filter.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn keep_only_known(&mut self) -> Result<(), MapError> {
        let mut wanted: BTreeMap<u32, u64> = BTreeMap::new();
        for place in self.pinholes.keys() {
            *wanted.entry(place.word()).or_default() |= place.bit();
        }
        for number in 0..FilterPlace::PORT_WORDS {
            let word = wanted.get(&number).copied().unwrap_or_default();
            if self.words.get(&number, 0)? != word {
                self.words.set(number, word, 0)?;
            }
        }
        Ok(())
    }

    /// Nobody else writes the map, so that reading before writing loses nothing.
    fn write(&mut self, place: FilterPlace, change: impl Fn(u64) -> u64) -> Result<(), MapError> {
        let word = self.words.get(&place.word(), 0)?;
        self.words.set(place.word(), change(word), 0)
    }
}

fn place(local: &SocketAddr) -> FilterPlace {
    match local.ip() {
        IpAddr::V4(address) => PinholeKey::new(Ipv4::from(address), local.port()).filter_place(),
        IpAddr::V6(address) => PinholeKey::new(Ipv6::from(address), local.port()).filter_place(),
    }
}
