//! Takes provisional places back, once the engine has read the message that they were opened for.
//!
//! The kernel opens them, and lets them lapse by itself; whatever fails here only makes that later. By the time a place is closed
//! here, what the engine made of the message is in the pinhole maps.

use aya::maps::{Array, MapData};
use sipfilter_common::{
    abi::map, classify::provisional::for_each_place, settings::Settings, value::Provisional,
};

use super::{
    datapath::{Datapath, DatapathError},
    policy::KernelPolicy,
};

/// The kernel's provisional places.
pub struct Provisionals {
    words: Array<MapData, u64>,
    settings: Settings,
}

impl Provisionals {
    /// Takes the map from the datapath that was loaded for this policy.
    ///
    /// # Errors
    /// [`DatapathError`] if the map is missing.
    pub fn new(datapath: &mut Datapath, policy: &KernelPolicy) -> Result<Self, DatapathError> {
        Ok(Self {
            words: datapath.take(map::PROVISIONAL)?,
            settings: policy.settings,
        })
    }

    /// Closes what this IP packet of the PBX's own may have opened.
    pub fn revoke(&mut self, packet: &[u8]) {
        let Self { words, settings } = self;
        for_each_place(packet, settings, |place| {
            if let Err(error) = words.set(place.index(), Provisional::CLOSED.0, 0) {
                tracing::debug!(%error, "a provisional place stays open until it lapses");
            }
        });
    }
}
