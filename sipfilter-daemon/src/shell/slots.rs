//! The kernel's two arrays of slots as one.
//!
//! It hands no slot out; `map_writer` does. Invariant: what is read may be a moment apart, because packets come between two reads.

use aya::maps::{Array, MapData, MapError};
use sipfilter_common::{
    abi::map,
    slot::{AsideWords, SlotCounts, SlotWords},
};

use super::{
    datapath::{Datapath, DatapathError},
    pins::{PinError, Pins},
};

/// Both arrays.
pub struct Slots {
    slots: Array<MapData, SlotWords>,
    asides: Array<MapData, AsideWords>,
}

impl Slots {
    /// Takes them from the datapath.
    ///
    /// # Errors
    /// [`DatapathError`] if one is missing.
    pub fn take(datapath: &mut Datapath) -> Result<Self, DatapathError> {
        Ok(Self {
            slots: datapath.take(map::SLOTS)?,
            asides: datapath.take(map::ASIDES)?,
        })
    }

    /// Opens those that are pinned.
    ///
    /// # Errors
    /// [`PinError`] if one is missing, or something else.
    pub fn open(pins: &Pins) -> Result<Self, PinError> {
        let failed = |name| move |source| pins.map_error(name, source);
        Ok(Self {
            slots: pins
                .open(map::SLOTS)?
                .try_into()
                .map_err(failed(map::SLOTS))?,
            asides: pins
                .open(map::ASIDES)?
                .try_into()
                .map_err(failed(map::ASIDES))?,
        })
    }

    /// What the kernel has counted in a slot.
    ///
    /// # Errors
    /// [`MapError`] if there is no such slot.
    pub fn counts(&self, slot: u32) -> Result<SlotCounts, MapError> {
        let (words, others) = (self.slots.get(&slot, 0)?, self.asides.get(&slot, 0)?);
        Ok(SlotCounts::of_words(words, others))
    }

    /// Writes a slot, before any program does.
    ///
    /// # Errors
    /// [`MapError`] if there is no such slot.
    pub fn set(&mut self, slot: u32, counts: &SlotCounts) -> Result<(), MapError> {
        let (words, others) = counts.words();
        self.slots.set(slot, words, 0)?;
        self.asides.set(slot, others, 0)
    }
}
