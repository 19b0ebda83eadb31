//! The policy's tables in ordinary memory, for tests and simulations: the same [`Tables`] as the kernel's, without a kernel.

use core::{
    cell::{Cell, RefCell},
    net::IpAddr,
};
use std::{
    collections::{BTreeMap, VecDeque},
    vec::Vec,
};

use crate::{
    abi::{FLOWS, FRAGMENTED_DATAGRAMS, SIGNALLING_SOURCES},
    addr::{Address, Ipv4, Ipv6},
    budget::{Class, SourceSpending, SourceSpent},
    classify::{FamilyTables, FragmentFate, LocalEnd, Tables, provisional::for_each_place},
    gate::{Gate, Hole, Terms},
    key::{FlowKey, FragmentKey, PinholeKey, PortPlace, SourceKey},
    place::Place,
    settings::{Mode, Settings},
    slot::{Aside, Slot, SlotCounts},
    value::{
        AllowList, Budget, MAX_SOURCES, MediaLimits, MediaPorts, Pinhole, ProviderRule,
        Provisional, Source,
    },
};

/// Tables that a test fills by hand.
#[derive(Debug, Clone)]
pub struct HostTables {
    /// The constants.
    pub settings: Settings,
    /// IPv4 pinholes.
    pub pinholes4: BTreeMap<PinholeKey<Ipv4>, Pinhole<Ipv4>>,
    /// IPv6 pinholes.
    pub pinholes6: BTreeMap<PinholeKey<Ipv6>, Pinhole<Ipv6>>,
    /// Slots; a pinhole that names one beyond the end counts as absent, as in the kernel.
    pub slots: Vec<HostSlot>,
    /// The clock.
    pub now: Cell<u64>,
    providers4: Prefixes<Ipv4, ProviderRule>,
    providers6: Prefixes<Ipv6, ProviderRule>,
    allowed4: Prefixes<Ipv4, AllowList>,
    allowed6: Prefixes<Ipv6, AllowList>,
    media4: Prefixes<Ipv4, MediaLimits>,
    media6: Prefixes<Ipv6, MediaLimits>,
    provider_media4: Vec<(u16, Prefixes<Ipv4, MediaPorts>)>,
    provider_media6: Vec<(u16, Prefixes<Ipv6, MediaPorts>)>,
    provisional: RefCell<BTreeMap<PortPlace, Provisional>>,
    flows4: RefCell<Recent<FlowKey<Ipv4>, u64>>,
    flows6: RefCell<Recent<FlowKey<Ipv6>, u64>>,
    fragments: RefCell<Recent<FragmentKey, FragmentFate>>,
    sources: RefCell<BTreeMap<SourceKey, SourceSpent>>,
}

/// Both halves of a slot.
#[derive(Debug, Clone, Default)]
pub struct HostSlot {
    /// What media packets need.
    pub slot: Slot,
    /// The rest.
    pub aside: Aside,
}

impl HostSlot {
    /// What is counted, by value.
    pub fn counts(&self) -> SlotCounts {
        let Self { slot, aside } = self;
        SlotCounts {
            ingress_packets: slot.ingress_packets.get(),
            egress_packets: aside.egress_packets.get(),
            dropped_packets: aside.dropped_packets.get(),
            ingress_last: slot.ingress_last.get(),
            egress_last: slot.egress_last.get(),
            due: slot.due.get(),
            latch: aside.latch.get(),
        }
    }
}

impl From<SlotCounts> for HostSlot {
    fn from(counts: SlotCounts) -> Self {
        Self {
            slot: Slot {
                due: Cell::new(counts.due),
                ingress_last: Cell::new(counts.ingress_last),
                egress_last: Cell::new(counts.egress_last),
                ingress_packets: Cell::new(counts.ingress_packets),
            },
            aside: Aside {
                latch: Cell::new(counts.latch),
                egress_packets: Cell::new(counts.egress_packets),
                dropped_packets: Cell::new(counts.dropped_packets),
            },
        }
    }
}

/// A pinhole's parts, made when they are asked for.
struct HostHole<'a, A: Address> {
    gate: Gate<A>,
    terms: Terms,
    sources: &'a [Source<A>; MAX_SOURCES],
    slot: &'a HostSlot,
}

impl<'a, A: Address> HostHole<'a, A> {
    fn new(pinhole: &'a Pinhole<A>, slot: &'a HostSlot) -> Self {
        Self {
            gate: pinhole.gate(0),
            terms: pinhole.terms(),
            sources: &pinhole.sources,
            slot,
        }
    }
}

impl<A: Address> Hole<A> for HostHole<'_, A> {
    fn gate(&self) -> &Gate<A> {
        &self.gate
    }

    fn terms(&self) -> &Terms {
        &self.terms
    }

    fn sources(&self) -> Option<&[Source<A>; MAX_SOURCES]> {
        Some(self.sources)
    }

    fn slot(&self) -> &Slot {
        &self.slot.slot
    }

    fn aside(&self) -> Option<&Aside> {
        Some(&self.slot.aside)
    }
}

/// A longest-prefix match: lengths, networks and values.
type Prefixes<A, V> = Vec<(u8, A, V)>;

/// As much as the kernel remembers; what came first goes first.
#[derive(Debug, Clone)]
struct Recent<K, V> {
    values: BTreeMap<K, V>,
    order: VecDeque<K>,
    capacity: u32,
}

impl<K: Ord + Copy, V> Recent<K, V> {
    const fn new(capacity: u32) -> Self {
        Self {
            values: BTreeMap::new(),
            order: VecDeque::new(),
            capacity,
        }
    }

    fn remember(&mut self, key: K, value: V) {
        if self.values.insert(key, value).is_some() {
            return;
        }
        self.order.push_back(key);
        if self.order.len() > self.capacity as usize
            && let Some(oldest) = self.order.pop_front()
        {
            self.values.remove(&oldest);
        }
    }
}

impl HostTables {
    /// Tables with these constants and so many slots, empty otherwise.
    pub fn new(settings: Settings, slots: usize) -> Self {
        Self {
            settings,
            pinholes4: BTreeMap::new(),
            pinholes6: BTreeMap::new(),
            slots: (0..slots).map(|_| HostSlot::default()).collect(),
            now: Cell::new(0),
            providers4: Vec::new(),
            providers6: Vec::new(),
            allowed4: Vec::new(),
            allowed6: Vec::new(),
            media4: Vec::new(),
            media6: Vec::new(),
            provider_media4: Vec::new(),
            provider_media6: Vec::new(),
            provisional: RefCell::default(),
            flows4: RefCell::new(Recent::new(FLOWS)),
            flows6: RefCell::new(Recent::new(FLOWS)),
            fragments: RefCell::new(Recent::new(FRAGMENTED_DATAGRAMS)),
            sources: RefCell::default(),
        }
    }

    /// A pinhole's slot.
    pub fn slot(&self, index: u32) -> Option<&HostSlot> {
        self.slots.get(index as usize)
    }

    /// What the kernel knows of a port once it has asked what is noted there.
    fn place_at(&self, place: PortPlace, port: u16, has_pinhole: bool) -> Place {
        let empty = self.settings.empty_place(port);
        let is_awaited = has_pinhole
            || self.provisional(place).is_open(self.now())
            || self.settings.modes().has(Mode::Replies);
        match empty.is_media() && !is_awaited {
            true => empty.shut(),
            false if has_pinhole => empty.leading_to(0, 0),
            false => empty,
        }
    }

    /// Adds a signalling prefix.
    pub fn add_provider(&mut self, network: IpAddr, length: u8, rule: ProviderRule) {
        match network {
            IpAddr::V4(network) => self.providers4.push((length, network.into(), rule)),
            IpAddr::V6(network) => self.providers6.push((length, network.into(), rule)),
        }
    }

    /// Adds a media prefix.
    pub fn add_media_limits(&mut self, network: IpAddr, length: u8, limits: MediaLimits) {
        match network {
            IpAddr::V4(network) => self.media4.push((length, network.into(), limits)),
            IpAddr::V6(network) => self.media6.push((length, network.into(), limits)),
        }
    }

    /// Adds a prefix of one provider's media.
    pub fn add_provider_media(
        &mut self,
        provider: u16,
        network: IpAddr,
        length: u8,
        ports: MediaPorts,
    ) {
        match network {
            IpAddr::V4(network) => {
                of_provider(&mut self.provider_media4, provider).push((
                    length,
                    network.into(),
                    ports,
                ));
            }
            IpAddr::V6(network) => {
                of_provider(&mut self.provider_media6, provider).push((
                    length,
                    network.into(),
                    ports,
                ));
            }
        }
    }

    /// Closes the places that an IP packet of the PBX's own may have opened, as the daemon does once it has read it.
    pub fn revoke_provisional(&self, packet: &[u8]) {
        for_each_place(packet, &self.settings, |place| {
            self.provisional.borrow_mut().remove(&place);
        });
    }

    /// The provisional places that are or were open.
    pub fn provisional_places(&self) -> BTreeMap<PortPlace, Provisional> {
        self.provisional.borrow().clone()
    }

    /// Adds a source prefix of the allow-list of strict scope.
    pub fn add_allowed(&mut self, network: IpAddr, length: u8, list: AllowList) {
        match network {
            IpAddr::V4(network) => self.allowed4.push((length, network.into(), list)),
            IpAddr::V6(network) => self.allowed6.push((length, network.into(), list)),
        }
    }

    /// The first fragments that are remembered.
    pub fn fragments(&self) -> BTreeMap<FragmentKey, FragmentFate> {
        self.fragments.borrow().values.clone()
    }

    /// The IPv4 flows that are remembered, and when the protected host last sent on each.
    pub fn flows4(&self) -> BTreeMap<FlowKey<Ipv4>, u64> {
        self.flows4.borrow().values.clone()
    }

    /// The same for IPv6.
    pub fn flows6(&self) -> BTreeMap<FlowKey<Ipv6>, u64> {
        self.flows6.borrow().values.clone()
    }

    /// What sources of signalling have spent.
    pub fn sources(&self) -> BTreeMap<SourceKey, SourceSpending> {
        let sources = self.sources.borrow();
        let spendings = sources.iter().map(|(key, spent)| (*key, spent.spending()));
        spendings.collect()
    }
}

fn of_provider<V: Default>(list: &mut Vec<(u16, V)>, provider: u16) -> &mut V {
    let index = match list.iter().position(|(number, _)| *number == provider) {
        Some(index) => index,
        None => {
            list.push((provider, V::default()));
            list.len() - 1
        }
    };
    &mut list[index].1
}

fn longest_match<A: Address, V>(
    prefixes: &[(u8, A, V)],
    address: A,
    mask: impl Fn(u8) -> A,
) -> Option<&V> {
    prefixes
        .iter()
        .filter(|(length, network, _)| address.matches(*network, mask(*length)))
        .max_by_key(|(length, ..)| *length)
        .map(|(.., rule)| rule)
}

impl FamilyTables<Ipv4> for HostTables {
    fn place(&self, local: &LocalEnd<Ipv4>) -> Place {
        let place = PortPlace::of::<Ipv4>(&self.settings, local.at, local.port);
        let key = PinholeKey::new(local.address, local.port);
        self.place_at(place, local.port, self.pinholes4.contains_key(&key))
    }

    fn pinhole_of(&self, _: Place, local: &LocalEnd<Ipv4>) -> Option<impl Hole<Ipv4>> {
        let key = PinholeKey::new(local.address, local.port);
        let pinhole = self.pinholes4.get(&key)?;
        Some(HostHole::new(pinhole, self.slot(pinhole.slot)?))
    }

    fn provider_hint(&self, address: Ipv4) -> u32 {
        self.provider(address).is_some().into()
    }

    fn provider(&self, address: Ipv4) -> Option<&ProviderRule> {
        longest_match(&self.providers4, address, Ipv4::mask)
    }

    fn allowed(&self, address: Ipv4) -> Option<&AllowList> {
        longest_match(&self.allowed4, address, Ipv4::mask)
    }

    fn media_limits(&self, address: Ipv4) -> Option<&MediaLimits> {
        longest_match(&self.media4, address, Ipv4::mask)
    }

    fn provider_media(&self, provider: u16, address: Ipv4) -> Option<&MediaPorts> {
        let (_, prefixes) = self
            .provider_media4
            .iter()
            .find(|(number, _)| *number == provider)?;
        longest_match(prefixes, address, Ipv4::mask)
    }

    fn flow(&self, key: &FlowKey<Ipv4>) -> Option<u64> {
        self.flows4.borrow().values.get(key).copied()
    }

    fn remember_flow(&self, key: &FlowKey<Ipv4>, now: u64) {
        self.flows4.borrow_mut().remember(*key, now);
    }
}

impl FamilyTables<Ipv6> for HostTables {
    fn place(&self, local: &LocalEnd<Ipv6>) -> Place {
        let place = PortPlace::of::<Ipv6>(&self.settings, local.at, local.port);
        let key = PinholeKey::new(local.address, local.port);
        self.place_at(place, local.port, self.pinholes6.contains_key(&key))
    }

    fn pinhole_of(&self, _: Place, local: &LocalEnd<Ipv6>) -> Option<impl Hole<Ipv6>> {
        let key = PinholeKey::new(local.address, local.port);
        let pinhole = self.pinholes6.get(&key)?;
        Some(HostHole::new(pinhole, self.slot(pinhole.slot)?))
    }

    fn provider_hint(&self, address: Ipv6) -> u32 {
        self.provider(address).is_some().into()
    }

    fn provider(&self, address: Ipv6) -> Option<&ProviderRule> {
        longest_match(&self.providers6, address, Ipv6::mask)
    }

    fn allowed(&self, address: Ipv6) -> Option<&AllowList> {
        longest_match(&self.allowed6, address, Ipv6::mask)
    }

    fn media_limits(&self, address: Ipv6) -> Option<&MediaLimits> {
        longest_match(&self.media6, address, Ipv6::mask)
    }

    fn provider_media(&self, provider: u16, address: Ipv6) -> Option<&MediaPorts> {
        let (_, prefixes) = self
            .provider_media6
            .iter()
            .find(|(number, _)| *number == provider)?;
        longest_match(prefixes, address, Ipv6::mask)
    }

    fn flow(&self, key: &FlowKey<Ipv6>) -> Option<u64> {
        self.flows6.borrow().values.get(key).copied()
    }

    fn remember_flow(&self, key: &FlowKey<Ipv6>, now: u64) {
        self.flows6.borrow_mut().remember(*key, now);
    }
}

impl Tables for HostTables {
    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn now(&self) -> u64 {
        self.now.get()
    }

    fn exchange_latch(&self, aside: &Aside, stale: u64, new: u64) -> u64 {
        let found = aside.latch.get();
        if found == stale {
            aside.latch.set(new);
        }
        found
    }

    fn provisional(&self, place: PortPlace) -> Provisional {
        self.provisional
            .borrow()
            .get(&place)
            .copied()
            .unwrap_or(Provisional::CLOSED)
    }

    fn open_provisional(&self, place: PortPlace, provisional: Provisional) {
        self.provisional.borrow_mut().insert(place, provisional);
    }

    /// [`FamilyTables::place`] asks every time.
    fn shut(&self, _: PortPlace, _: Place) {}

    fn exchange_provisional(
        &self,
        place: PortPlace,
        stale: Provisional,
        new: Provisional,
    ) -> Provisional {
        let found = self.provisional(place);
        if found == stale {
            self.open_provisional(place, new);
        }
        found
    }

    fn forget(&self, number: u32) -> u32 {
        number
    }

    /// Where the kernel forgets the source that was silent for longest, this forgets any: sources are too many in floods only.
    fn spend(&self, source: &SourceKey, class: Class, budget: Budget) -> bool {
        let mut sources = self.sources.borrow_mut();
        if sources.len() >= SIGNALLING_SOURCES as usize && !sources.contains_key(source) {
            sources.pop_first();
        }
        sources
            .entry(*source)
            .or_default()
            .take(class, budget, self.now())
    }

    fn remember_fragment(&self, key: &FragmentKey, fate: FragmentFate) {
        self.fragments.borrow_mut().remember(*key, fate);
    }

    fn recall_fragment(&self, key: &FragmentKey) -> Option<FragmentFate> {
        self.fragments.borrow().values.get(key).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_first_fragments_are_forgotten() {
        let tables = HostTables::new(Settings::EMPTY, 0);
        let key = |id| FragmentKey {
            source: Ipv6::default(),
            destination: Ipv6::default(),
            id,
            protocol: 17,
        };
        for id in 0..FRAGMENTED_DATAGRAMS + 2 {
            tables.remember_fragment(&key(id), FragmentFate::Pass);
            tables.remember_fragment(&key(id), FragmentFate::Drop);
        }
        assert_eq!(tables.recall_fragment(&key(1)), None);
        assert_eq!(tables.recall_fragment(&key(2)), Some(FragmentFate::Drop));
    }
}
