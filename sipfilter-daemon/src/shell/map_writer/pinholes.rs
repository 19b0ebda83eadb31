//! The kernel's arrays of pinholes, and the array of places that leads packets to them.
//!
//! It does not decide what is open. Invariant: a place leads to an element that is written completely, and no element is written again
//! while a program may still read it. So every change takes a fresh element and then one word.

use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, SocketAddr},
    sync::atomic::{Ordering, fence},
    time::Duration,
};

use aya::{
    Pod,
    maps::{Array, MapData, MapError},
};
use rustix::thread::{MembarrierCommand, membarrier};
use sipfilter_common::{
    abi::map,
    addr::{Address, Ipv4, Ipv6},
    gate::Gate,
    key::PinholeKey,
    place::Place,
    settings::{Protects as _, Settings},
    value::Pinhole,
};

use super::terms::KernelTerms;
use crate::{
    engine::pinhole as engine,
    shell::{
        datapath::{Datapath, DatapathError},
        policy::{self, KernelPinhole},
        reread,
    },
};

/// The pinholes in the kernel.
pub struct KernelPinholes {
    constants: Settings,
    places: Array<MapData, Place>,
    terms: KernelTerms,
    four: Elements<Ipv4>,
    six: Elements<Ipv6>,
}

/// One family's arrays.
struct Elements<A: Address>
where
    Pinhole<A>: Pod,
    Gate<A>: Pod,
{
    array: Array<MapData, Pinhole<A>>,
    gates: Array<MapData, Gate<A>>,
    /// The terms of the elements' gates, by their numbers.
    terms: BTreeMap<u32, u32>,
    taken: BTreeMap<PinholeKey<A>, u32>,
    free: VecDeque<u32>,
    /// No place leads there any more, but a program may be on its way.
    resting: Vec<u32>,
    /// Of pinholes that programs to come are not to have.
    left: Vec<u32>,
}

impl KernelPinholes {
    /// Takes the arrays from the datapath, and leads packets to the pinholes that an earlier run left.
    ///
    /// # Errors
    /// [`DatapathError`] if a map is missing or cannot be read or written.
    pub fn take(datapath: &mut Datapath) -> Result<Self, DatapathError> {
        let constants = datapath.constants;
        let failed = DatapathError::of_map;
        let mut this = Self {
            places: datapath.take(map::PLACES)?,
            terms: KernelTerms::new(datapath.take(map::TERMS)?),
            four: Elements::read(
                datapath.take(map::PINHOLES4)?,
                datapath.take(map::GATES4)?,
                |key| place4(&constants, key).is_some(),
            )
            .map_err(failed(map::PINHOLES4))?,
            six: Elements::read(
                datapath.take(map::PINHOLES6)?,
                datapath.take(map::GATES6)?,
                |key| place6(&constants, key).is_some(),
            )
            .map_err(failed(map::PINHOLES6))?,
            constants,
        };
        this.lead_to_all().map_err(failed(map::PLACES))?;
        Ok(this)
    }

    /// The same pinholes behind the places of programs to come, those of `slots` alone, in these slots. Where the arrays are others
    /// (`is_resized`), they are copied. Nothing changes for the programs that run; nothing may be written until the others run.
    ///
    /// # Errors
    /// [`DatapathError`] if a map is missing or cannot be read or written.
    pub fn succeed(
        &self,
        datapath: &mut Datapath,
        slots: &BTreeMap<SocketAddr, u32>,
    ) -> Result<Self, DatapathError> {
        let failed = DatapathError::of_map;
        let is_resized = datapath.is_resized();
        let mut next = Self {
            places: datapath.take(map::PLACES)?,
            terms: KernelTerms::new(datapath.take(map::TERMS)?),
            four: self
                .four
                .succeed(
                    datapath.take(map::PINHOLES4)?,
                    datapath.take(map::GATES4)?,
                    slots,
                    is_resized,
                )
                .map_err(failed(map::PINHOLES4))?,
            six: self
                .six
                .succeed(
                    datapath.take(map::PINHOLES6)?,
                    datapath.take(map::GATES6)?,
                    slots,
                    is_resized,
                )
                .map_err(failed(map::PINHOLES6))?,
            constants: datapath.constants,
        };
        next.lead_to_all().map_err(failed(map::PLACES))?;
        Ok(next)
    }

    /// Whether a pinhole for this address can be written.
    pub fn is_local(constants: &Settings, local: SocketAddr) -> bool {
        match local.ip() {
            IpAddr::V4(ip) => {
                place4(constants, &PinholeKey::new(ip.into(), local.port())).is_some()
            }
            IpAddr::V6(ip) => {
                place6(constants, &PinholeKey::new(ip.into(), local.port())).is_some()
            }
        }
    }

    /// Frees the elements of pinholes that were not taken along.
    ///
    /// # Errors
    /// [`MapError`] if an element cannot be written.
    pub fn free_left_behind(&mut self) -> Result<(), MapError> {
        self.four.free_left_behind()?;
        self.six.free_left_behind()
    }

    fn lead_to_all(&mut self) -> Result<(), MapError> {
        for (key, number) in self.four.taken.clone() {
            let slot = self.four.make_gate(&mut self.terms, number)?;
            let index = place4(&self.constants, &key).ok_or(MapError::KeyNotFound)?;
            let empty = self.constants.empty_place(key.port());
            self.places.set(index, empty.leading_to(number, slot), 0)?;
        }
        for (key, number) in self.six.taken.clone() {
            let slot = self.six.make_gate(&mut self.terms, number)?;
            let index = place6(&self.constants, &key).ok_or(MapError::KeyNotFound)?;
            let empty = self.constants.empty_place(key.port());
            self.places.set(index, empty.leading_to(number, slot), 0)?;
        }
        Ok(())
    }

    /// Every pinhole that is there, with the provider's number that it was written with.
    ///
    /// # Errors
    /// [`MapError`] if an array cannot be read.
    pub fn all(&self) -> Result<Vec<(engine::Pinhole, policy::Place)>, MapError> {
        let mut found = Vec::new();
        for (key, number) in &self.four.taken {
            let local = SocketAddr::new(IpAddr::from(key.address()), key.port());
            let value = self.four.array.get(number, 0)?;
            let pinhole = reread::pinhole(local, &value, Ipv4::prefix_length);
            found.push((pinhole, policy::Place::of(&value)));
        }
        for (key, number) in &self.six.taken {
            let local = SocketAddr::new(IpAddr::from(key.address()), key.port());
            let value = self.six.array.get(number, 0)?;
            let pinhole = reread::pinhole(local, &value, Ipv6::prefix_length);
            found.push((pinhole, policy::Place::of(&value)));
        }
        Ok(found)
    }

    /// Puts a pinhole in, or in the place of the one that is there.
    ///
    /// # Errors
    /// [`MapError`] if its address is not protected, or the kernel refuses.
    pub fn insert(&mut self, pinhole: KernelPinhole) -> Result<(), MapError> {
        match pinhole {
            KernelPinhole::V4(key, value) => {
                let empty = self.constants.empty_place(key.port());
                let index = place4(&self.constants, &key).ok_or(MapError::KeyNotFound)?;
                let leading = Leading {
                    places: &mut self.places,
                    terms: &mut self.terms,
                    index,
                    empty,
                };
                self.four.insert(leading, key, value)
            }
            KernelPinhole::V6(key, value) => {
                let empty = self.constants.empty_place(key.port());
                let index = place6(&self.constants, &key).ok_or(MapError::KeyNotFound)?;
                let leading = Leading {
                    places: &mut self.places,
                    terms: &mut self.terms,
                    index,
                    empty,
                };
                self.six.insert(leading, key, value)
            }
        }
    }

    /// Takes a pinhole out.
    ///
    /// # Errors
    /// [`MapError`] if it is not there, or the kernel refuses.
    pub fn remove(&mut self, local: SocketAddr) -> Result<(), MapError> {
        match local.ip() {
            IpAddr::V4(address) => {
                let key = PinholeKey::new(Ipv4::from(address), local.port());
                let index = place4(&self.constants, &key).ok_or(MapError::KeyNotFound)?;
                self.four.remove(&mut self.places, index, &key)
            }
            IpAddr::V6(address) => {
                let key = PinholeKey::new(Ipv6::from(address), local.port());
                let index = place6(&self.constants, &key).ok_or(MapError::KeyNotFound)?;
                self.six.remove(&mut self.places, index, &key)
            }
        }
    }
}

fn place4(constants: &Settings, key: &PinholeKey<Ipv4>) -> Option<u32> {
    let at = constants.protected(key.address())?;
    Some(constants.place4(at, key.port()))
}

fn place6(constants: &Settings, key: &PinholeKey<Ipv6>) -> Option<u32> {
    let at = constants.protected(key.address())?;
    Some(constants.place6(at, key.port()))
}

/// What leads a packet to an element.
struct Leading<'a> {
    places: &'a mut Array<MapData, Place>,
    terms: &'a mut KernelTerms,
    /// Of the place.
    index: u32,
    /// The place without a pinhole.
    empty: Place,
}

impl<A: Address + Ord + Default + Into<IpAddr>> Elements<A>
where
    Pinhole<A>: Pod,
    Gate<A>: Pod,
{
    fn succeed(
        &self,
        array: Array<MapData, Pinhole<A>>,
        gates: Array<MapData, Gate<A>>,
        slots: &BTreeMap<SocketAddr, u32>,
        is_resized: bool,
    ) -> Result<Self, MapError> {
        let slot_of = |key: &PinholeKey<A>| {
            let local = SocketAddr::new(key.address().into(), key.port());
            slots.get(&local).copied()
        };
        let mut next = Self {
            array,
            gates,
            terms: BTreeMap::new(),
            taken: BTreeMap::new(),
            free: self.free.clone(),
            resting: self.resting.clone(),
            left: Vec::new(),
        };
        if is_resized {
            next.free = (0..next.array.len()).collect();
            next.resting.clear();
        }
        for (key, &number) in &self.taken {
            match slot_of(key) {
                Some(slot) if is_resized => {
                    let pinhole = Pinhole {
                        slot,
                        ..self.array.get(&number, 0)?
                    };
                    let number = next.free.pop_front().ok_or(MapError::OutOfBounds {
                        index: next.array.len(),
                        max_entries: next.array.len(),
                    })?;
                    next.array.set(number, pinhole, 0)?;
                    next.taken.insert(*key, number);
                }
                Some(_) => {
                    next.taken.insert(*key, number);
                }
                None if is_resized => {}
                None => next.left.push(number),
            }
        }
        Ok(next)
    }

    fn free_left_behind(&mut self) -> Result<(), MapError> {
        while let Some(number) = self.left.pop() {
            self.retire(number)?;
        }
        Ok(())
    }

    fn read(
        array: Array<MapData, Pinhole<A>>,
        gates: Array<MapData, Gate<A>>,
        is_local: impl Fn(&PinholeKey<A>) -> bool,
    ) -> Result<Self, MapError> {
        let mut this = Self {
            array,
            gates,
            terms: BTreeMap::new(),
            taken: BTreeMap::new(),
            free: VecDeque::new(),
            resting: Vec::new(),
            left: Vec::new(),
        };
        let mut latest: BTreeMap<PinholeKey<A>, u64> = BTreeMap::new();
        for number in 0..this.array.len() {
            let pinhole = this.array.get(&number, 0)?;
            let key = pinhole.local;
            if key.port() == 0 {
                this.free.push_back(number);
                continue;
            }
            // A run that died while it replaced a pinhole leaves two of them.
            let is_latest = latest
                .get(&key)
                .is_none_or(|&opened| opened <= pinhole.opened);
            if !is_local(&key) || !is_latest {
                this.retire(number)?;
                continue;
            }
            latest.insert(key, pinhole.opened);
            if let Some(earlier) = this.taken.insert(key, number) {
                this.retire(earlier)?;
            }
        }
        Ok(this)
    }

    fn insert(
        &mut self,
        to: Leading<'_>,
        key: PinholeKey<A>,
        pinhole: Pinhole<A>,
    ) -> Result<(), MapError> {
        let number = self.take_free(to.terms).ok_or(MapError::OutOfBounds {
            index: self.array.len(),
            max_entries: self.array.len(),
        })?;
        if let Err(error) = self.array.set(number, pinhole, 0) {
            self.free.push_front(number);
            return Err(error);
        }
        if let Err(error) = self.make_gate(to.terms, number) {
            self.retire(number)?;
            return Err(error);
        }
        // Whoever sees the word sees the element.
        fence(Ordering::SeqCst);
        let place = to.empty.leading_to(number, pinhole.slot);
        if let Err(error) = to.places.set(to.index, place, 0) {
            self.retire(number)?;
            return Err(error);
        }
        match self.taken.insert(key, number) {
            Some(earlier) => self.retire(earlier),
            None => Ok(()),
        }
    }

    /// What programs read of an element that is written, and that none of them knows yet. Tells its slot.
    fn make_gate(&mut self, terms: &mut KernelTerms, number: u32) -> Result<u32, MapError> {
        let pinhole = self.array.get(&number, 0)?;
        let taken = terms.take(pinhole.terms())?;
        if let Err(error) = self.gates.set(number, pinhole.gate(taken), 0) {
            terms.release(taken);
            return Err(error);
        }
        self.terms.insert(number, taken);
        Ok(pinhole.slot)
    }

    fn remove(
        &mut self,
        places: &mut Array<MapData, Place>,
        index: u32,
        key: &PinholeKey<A>,
    ) -> Result<(), MapError> {
        let number = *self.taken.get(key).ok_or(MapError::KeyNotFound)?;
        // First, so that no later run finds it; programs do not look at it.
        self.mark_free(number)?;
        // What the port is for, the programs find out again.
        places.set(index, Place::OTHER, 0)?;
        self.taken.remove(key);
        self.resting.push(number);
        Ok(())
    }

    fn retire(&mut self, number: u32) -> Result<(), MapError> {
        self.mark_free(number)?;
        self.resting.push(number);
        Ok(())
    }

    /// Changes nothing else: a program may be reading.
    fn mark_free(&mut self, number: u32) -> Result<(), MapError> {
        let pinhole = Pinhole {
            local: PinholeKey::default(),
            ..self.array.get(&number, 0)?
        };
        self.array.set(number, pinhole, 0)
    }

    fn take_free(&mut self, terms: &mut KernelTerms) -> Option<u32> {
        if self.free.is_empty() {
            wait_for_programs();
            for number in self.resting.drain(..) {
                if let Some(taken) = self.terms.remove(&number) {
                    terms.release(taken);
                }
                self.free.push_back(number);
            }
        }
        self.free.pop_front()
    }
}

/// Returns when every program that runs now has ended. This takes some milliseconds; that it is seldom necessary, the spare elements
/// see to.
fn wait_for_programs() {
    // The kernel carries the order out by waiting for a grace period of RCU, under which programs run. It refuses where some processors
    // have no ticks.
    if membarrier(MembarrierCommand::Global).is_err() {
        std::thread::sleep(LONGEST_RUN);
    }
}

/// Longer than any program runs, by far.
const LONGEST_RUN: Duration = Duration::from_millis(100);
