//! The kernel's maps of pinholes and slots as the writer uses them. It keeps no account of what is in them.
//!
//! [`Maps`] stands between, so that a test can have the kernel refuse what it hardly ever refuses.

use std::{collections::BTreeMap, net::SocketAddr};

use aya::maps::MapError;
use sipfilter_common::{abi::map, slot::SlotCounts};

use super::pinholes::KernelPinholes;
use crate::{
    engine::pinhole::Pinhole,
    shell::{
        datapath::{Datapath, DatapathError},
        policy::{KernelPinhole, Place},
        slots::Slots,
    },
};

/// What the writer asks of the maps.
pub trait Maps {
    /// Every pinhole that is there, with the provider's number that it was written with.
    ///
    /// # Errors
    /// [`MapError`] if a map cannot be read.
    fn pinholes(&self) -> Result<Vec<(Pinhole, Place)>, MapError>;

    /// Puts a pinhole in, or in the place of the one that is there.
    ///
    /// # Errors
    /// [`MapError`] if the kernel refuses.
    fn insert(&mut self, pinhole: KernelPinhole) -> Result<(), MapError>;

    /// Takes a pinhole out.
    ///
    /// # Errors
    /// [`MapError`] if it is not there, or the kernel refuses.
    fn remove(&mut self, local: SocketAddr) -> Result<(), MapError>;

    /// What the kernel has counted in a slot.
    ///
    /// # Errors
    /// [`MapError`] if there is no such slot.
    fn counts(&self, slot: u32) -> Result<SlotCounts, MapError>;
}

/// The maps of the running programs.
pub struct KernelMaps {
    pinholes: KernelPinholes,
    slots: Slots,
}

impl KernelMaps {
    /// Takes them from the datapath.
    ///
    /// # Errors
    /// [`DatapathError`] if a map is missing or unreadable.
    pub fn take(datapath: &mut Datapath) -> Result<Self, DatapathError> {
        Ok(Self {
            pinholes: KernelPinholes::take(datapath)?,
            slots: Slots::take(datapath)?,
        })
    }
}

impl KernelMaps {
    /// The maps of programs to come, with the pinholes of `slots` in these slots. `moved` are those of other slots than now: what was
    /// counted goes along.
    ///
    /// # Errors
    /// [`DatapathError`]; nothing has changed then.
    pub fn succeed(
        &self,
        datapath: &mut Datapath,
        slots: &BTreeMap<SocketAddr, u32>,
        moved: impl IntoIterator<Item = (u32, u32)>,
    ) -> Result<Self, DatapathError> {
        let failed = DatapathError::of_map(map::SLOTS);
        let mut next = Slots::take(datapath)?;
        for (from, to) in moved {
            let counts = self.slots.counts(from).map_err(failed)?;
            next.set(to, &counts).map_err(failed)?;
        }
        Ok(Self {
            pinholes: self.pinholes.succeed(datapath, slots)?,
            slots: next,
        })
    }

    /// Frees what belongs to pinholes that were not taken along.
    ///
    /// # Errors
    /// [`MapError`] if it cannot be written.
    pub fn free_left_behind(&mut self) -> Result<(), MapError> {
        self.pinholes.free_left_behind()
    }
}

impl Maps for KernelMaps {
    fn pinholes(&self) -> Result<Vec<(Pinhole, Place)>, MapError> {
        self.pinholes.all()
    }

    fn insert(&mut self, pinhole: KernelPinhole) -> Result<(), MapError> {
        self.pinholes.insert(pinhole)
    }

    fn remove(&mut self, local: SocketAddr) -> Result<(), MapError> {
        self.pinholes.remove(local)
    }

    fn counts(&self, slot: u32) -> Result<SlotCounts, MapError> {
        self.slots.counts(slot)
    }
}
