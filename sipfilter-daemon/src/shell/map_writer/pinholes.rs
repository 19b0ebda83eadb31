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
    gate::{Gate, Terms},
    key::{PinholeKey, PortPlace},
    place::Place,
    settings::{Protects, Settings},
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
    ways: Ways,
    four: Elements<Ipv4>,
    six: Elements<Ipv6>,
}

/// What leads packets of both families to elements.
struct Ways {
    constants: Settings,
    places: Array<MapData, Place>,
    terms: KernelTerms,
}

/// One family's arrays.
struct Elements<A: Address>
where
    Pinhole<A>: Pod,
    Gate<A>: Pod,
{
    array: Array<MapData, Pinhole<A>>,
    gates: Array<MapData, Gate<A>>,
    /// The terms of the elements that have a gate.
    terms: BTreeMap<u32, Terms>,
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
        let ways = Ways::take(datapath)?;
        let failed = DatapathError::of_map;
        let mut this = Self {
            four: Elements::read(
                datapath.take(map::PINHOLES4)?,
                datapath.take(map::GATES4)?,
                &ways,
            )
            .map_err(failed(map::PINHOLES4))?,
            six: Elements::read(
                datapath.take(map::PINHOLES6)?,
                datapath.take(map::GATES6)?,
                &ways,
            )
            .map_err(failed(map::PINHOLES6))?,
            ways,
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
            ways: Ways::take(datapath)?,
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
        };
        next.lead_to_all().map_err(failed(map::PLACES))?;
        Ok(next)
    }

    /// Whether a pinhole for this address can be written.
    pub fn is_local(constants: &Settings, local: SocketAddr) -> bool {
        match local.ip() {
            IpAddr::V4(ip) => {
                place::<Ipv4>(constants, &PinholeKey::new(ip.into(), local.port())).is_some()
            }
            IpAddr::V6(ip) => {
                place::<Ipv6>(constants, &PinholeKey::new(ip.into(), local.port())).is_some()
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
        self.four.lead_to_all(&mut self.ways)?;
        self.six.lead_to_all(&mut self.ways)
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
            KernelPinhole::V4(key, value) => self.four.insert(&mut self.ways, key, value),
            KernelPinhole::V6(key, value) => self.six.insert(&mut self.ways, key, value),
        }
    }

    /// Takes a pinhole out.
    ///
    /// # Errors
    /// [`MapError`] if it is not there, or the kernel refuses.
    pub fn remove(&mut self, local: SocketAddr) -> Result<(), MapError> {
        match local.ip() {
            IpAddr::V4(ip) => {
                let key = PinholeKey::new(Ipv4::from(ip), local.port());
                self.four.remove(&mut self.ways, &key)
            }
            IpAddr::V6(ip) => {
                let key = PinholeKey::new(Ipv6::from(ip), local.port());
                self.six.remove(&mut self.ways, &key)
            }
        }
    }
}

impl Ways {
    fn take(datapath: &mut Datapath) -> Result<Self, DatapathError> {
        Ok(Self {
            constants: datapath.constants,
            places: datapath.take(map::PLACES)?,
            terms: KernelTerms::new(datapath.take(map::TERMS)?),
        })
    }

    /// Where the word of a pinhole's address and port is.
    fn place<A: Address>(&self, key: &PinholeKey<A>) -> Result<u32, MapError>
    where
        Settings: Protects<A>,
    {
        let place = place(&self.constants, key).ok_or(MapError::KeyNotFound)?;
        Ok(place.index())
    }

    /// Leads packets to a port's element, by the word at `index`.
    fn lead(&mut self, index: u32, port: u16, number: u32, slot: u32) -> Result<(), MapError> {
        let place = self.constants.empty_place(port).leading_to(number, slot);
        self.places.set(index, place, 0)
    }
}

fn place<A: Address>(constants: &Settings, key: &PinholeKey<A>) -> Option<PortPlace>
where
    Settings: Protects<A>,
{
    let at = constants.protected(key.address())?;
    Some(PortPlace::of::<A>(constants, at, key.port()))
}

/// No element is left.
pub(super) const fn full(elements: u32) -> MapError {
    MapError::OutOfBounds {
        index: elements,
        max_entries: elements,
    }
}

impl<A: Address + Ord + Default + Into<IpAddr>> Elements<A>
where
    Pinhole<A>: Pod,
    Gate<A>: Pod,
    Settings: Protects<A>,
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
                    let number = next.free.pop_front().ok_or(full(next.array.len()))?;
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
        ways: &Ways,
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
            if ways.place(&key).is_err() || !is_latest {
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

    /// For maps of places that lead nowhere yet.
    fn lead_to_all(&mut self, ways: &mut Ways) -> Result<(), MapError> {
        for (key, &number) in &self.taken {
            let pinhole = self.array.get(&number, 0)?;
            let terms = make_gate(&mut self.gates, &mut ways.terms, number, &pinhole)?;
            self.terms.insert(number, terms);
            ways.lead(ways.place(key)?, key.port(), number, pinhole.slot)?;
        }
        Ok(())
    }

    fn insert(
        &mut self,
        ways: &mut Ways,
        key: PinholeKey<A>,
        pinhole: Pinhole<A>,
    ) -> Result<(), MapError> {
        let index = ways.place(&key)?;
        let free = self.take_free(&mut ways.terms);
        let number = free.ok_or(full(self.array.len()))?;
        if let Err(error) = self.array.set(number, pinhole, 0) {
            self.free.push_front(number);
            return Err(error);
        }
        match make_gate(&mut self.gates, &mut ways.terms, number, &pinhole) {
            Ok(terms) => self.terms.insert(number, terms),
            Err(error) => {
                self.retire(number)?;
                return Err(error);
            }
        };
        // Whoever sees the word sees the element.
        fence(Ordering::SeqCst);
        if let Err(error) = ways.lead(index, key.port(), number, pinhole.slot) {
            self.retire(number)?;
            return Err(error);
        }
        match self.taken.insert(key, number) {
            Some(earlier) => self.retire(earlier),
            None => Ok(()),
        }
    }

    fn remove(&mut self, ways: &mut Ways, key: &PinholeKey<A>) -> Result<(), MapError> {
        let index = ways.place(key)?;
        let number = *self.taken.get(key).ok_or(MapError::KeyNotFound)?;
        // First, so that no later run finds it; programs do not look at it.
        self.mark_free(number)?;
        // What the port is for, the programs find out again.
        ways.places.set(index, Place::OTHER, 0)?;
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
                    terms.release(&taken);
                }
                self.free.push_back(number);
            }
        }
        self.free.pop_front()
    }
}

/// What programs read of an element that none of them knows yet. Tells the terms that it takes.
fn make_gate<A: Address>(
    gates: &mut Array<MapData, Gate<A>>,
    known: &mut KernelTerms,
    number: u32,
    pinhole: &Pinhole<A>,
) -> Result<Terms, MapError>
where
    Gate<A>: Pod,
{
    let terms = pinhole.terms();
    let gate = pinhole.gate(known.take(terms)?);
    if let Err(error) = gates.set(number, gate, 0) {
        known.release(&terms);
        return Err(error);
    }
    Ok(terms)
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
