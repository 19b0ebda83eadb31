//! The writer between two loads of the programs: its pinholes go along, whatever the size of the new maps.
//!
//! It changes nothing for the programs that run until it is told that they do not any more. Invariant: what is written between
//! [`MapWriter::succession`] and [`MapWriter::accept`] is lost, so that nothing may be.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use super::{KernelMaps, KernelPinholes, MapWriter};
use crate::{
    engine::settings::Provider,
    shell::datapath::{Datapath, DatapathError},
};

/// The maps of programs that are loaded and do not run yet, with every pinhole in them.
pub struct Succession {
    maps: KernelMaps,
    slots: BTreeMap<SocketAddr, u32>,
    is_resized: bool,
    capacity: u32,
}

impl MapWriter<KernelMaps> {
    /// Leads the programs of `next` to the pinholes that there are.
    ///
    /// # Errors
    /// [`DatapathError`]; nothing has changed then.
    pub fn succession(
        &self,
        next: &mut Datapath,
        capacity: u32,
    ) -> Result<Succession, DatapathError> {
        let constants = next.constants;
        let is_resized = next.is_resized();
        let going = || {
            self.open
                .iter()
                .filter(|(local, _)| KernelPinholes::is_local(&constants, **local))
        };
        let open = going().count();
        if u32::try_from(open).is_ok_and(|open| open > capacity) {
            return Err(DatapathError::TooManyPinholes {
                open,
                limit: capacity,
            });
        }
        let slots: BTreeMap<SocketAddr, u32> = going()
            .zip(0..)
            .map(|((local, open), number)| (*local, if is_resized { number } else { open.slot }))
            .collect();
        let moved = going()
            .filter(|_| is_resized)
            .map(|(_, open)| open.slot)
            .zip(0..);
        Ok(Succession {
            maps: self.maps.succeed(next, &slots, moved)?,
            slots,
            is_resized,
            capacity,
        })
    }

    /// Goes on with the maps of the programs that run now. Gives the pinholes that are no more, because nobody protects their address.
    pub fn accept(&mut self, succession: Succession, providers: &[Provider]) -> Vec<SocketAddr> {
        let Succession {
            maps,
            slots,
            is_resized,
            capacity,
        } = succession;
        self.maps = maps;
        self.set_providers(providers);
        if let Err(error) = self.maps.free_left_behind() {
            // Nothing leads to them; the next start frees them.
            tracing::warn!(%error, "places of pinholes that are no more stay occupied");
        }
        let gone: Vec<SocketAddr> = self
            .open
            .keys()
            .filter(|local| !slots.contains_key(local))
            .copied()
            .collect();
        for local in &gone {
            if let Some(open) = self.open.remove(local) {
                self.deadlines.remove(&(open.deadline, *local));
                self.free.push_back(open.slot);
            }
        }
        for (local, open) in &mut self.open {
            open.slot = slots.get(local).copied().unwrap_or(open.slot);
        }
        if is_resized {
            let taken: BTreeSet<u32> = slots.into_values().collect();
            self.free = (0..capacity).filter(|slot| !taken.contains(slot)).collect();
        }
        gone
    }
}
