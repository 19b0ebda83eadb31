//! The kernel's maps of pinholes and slots as the writer uses them. It keeps no account of what is in them.
//!
//! [`Maps`] stands between, so that a test can have the kernel refuse what it hardly ever refuses.

use std::net::{IpAddr, SocketAddr};

use aya::maps::{Array, HashMap, MapData, MapError};
use sipfilter_common::{
    abi::map,
    addr::{Ipv4, Ipv6},
    key::PinholeKey,
    value::{self, SlotCounts},
};

use crate::shell::{
    datapath::{Datapath, DatapathError},
    policy::{KernelPinhole, Place},
    port_filter::PortFilter,
};

/// What the writer asks of the maps.
pub trait Maps {
    /// Every pinhole that is there, by local address and port.
    ///
    /// # Errors
    /// [`MapError`] if a map cannot be read.
    fn pinholes(&self) -> Result<Vec<(SocketAddr, Place)>, MapError>;

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

    /// Lets packets to this port be looked up at all.
    ///
    /// # Errors
    /// [`MapError`] if the kernel refuses.
    fn announce(&mut self, local: &SocketAddr) -> Result<(), MapError>;

    /// Takes one [`Self::announce`] back.
    fn withdraw(&mut self, local: &SocketAddr);

    /// Forgets every port that was not announced in this run.
    ///
    /// # Errors
    /// [`MapError`] if the kernel refuses.
    fn announce_only_known(&mut self) -> Result<(), MapError>;
}

/// The maps of the running programs.
pub struct KernelMaps {
    four: HashMap<MapData, PinholeKey<Ipv4>, value::Pinhole<Ipv4>>,
    six: HashMap<MapData, PinholeKey<Ipv6>, value::Pinhole<Ipv6>>,
    slots: Array<MapData, SlotCounts>,
    filter: PortFilter,
}

impl KernelMaps {
    /// Takes them from the datapath.
    ///
    /// # Errors
    /// [`DatapathError`] if a map is missing.
    pub fn take(datapath: &mut Datapath) -> Result<Self, DatapathError> {
        Ok(Self {
            four: datapath.take::<HashMap<_, _, _>>(map::PINHOLES4)?,
            six: datapath.take::<HashMap<_, _, _>>(map::PINHOLES6)?,
            slots: datapath.take::<Array<_, _>>(map::SLOTS)?,
            filter: PortFilter::new(datapath.take::<Array<_, _>>(map::PORT_FILTER)?),
        })
    }
}

impl Maps for KernelMaps {
    fn pinholes(&self) -> Result<Vec<(SocketAddr, Place)>, MapError> {
        let mut found = Vec::new();
        for entry in self.four.iter() {
            let (key, pinhole) = entry?;
            let local = SocketAddr::new(IpAddr::from(key.address()), key.port());
            found.push((local, Place::of(&pinhole)));
        }
        for entry in self.six.iter() {
            let (key, pinhole) = entry?;
            let local = SocketAddr::new(IpAddr::from(key.address()), key.port());
            found.push((local, Place::of(&pinhole)));
        }
        Ok(found)
    }

    fn insert(&mut self, pinhole: KernelPinhole) -> Result<(), MapError> {
        match pinhole {
            KernelPinhole::V4(key, value) => self.four.insert(key, value, 0),
            KernelPinhole::V6(key, value) => self.six.insert(key, value, 0),
        }
    }

    fn remove(&mut self, local: SocketAddr) -> Result<(), MapError> {
        match local.ip() {
            IpAddr::V4(address) => self
                .four
                .remove(&PinholeKey::new(Ipv4::from(address), local.port())),
            IpAddr::V6(address) => self
                .six
                .remove(&PinholeKey::new(Ipv6::from(address), local.port())),
        }
    }

    fn counts(&self, slot: u32) -> Result<SlotCounts, MapError> {
        self.slots.get(&slot, 0)
    }
    fn announce(&mut self, local: &SocketAddr) -> Result<(), MapError> {
        self.filter.add(local)
    }

    fn withdraw(&mut self, local: &SocketAddr) {
        self.filter.remove(local);
    }

    fn announce_only_known(&mut self) -> Result<(), MapError> {
        self.filter.keep_only_known()
    }
}
