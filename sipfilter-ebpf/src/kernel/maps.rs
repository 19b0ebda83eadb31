//! The maps, and the policy's view of them.

use core::arch::asm;

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_NOEXIST},
    helpers::{bpf_jiffies64, bpf_ktime_get_coarse_ns},
    macros::map,
    maps::{
        Array, LruHashMap, PerCpuArray, RingBuf,
        lpm_trie::{Key, LpmTrie},
    },
};
use sipfilter_common::{
    abi,
    addr::{Address, Ipv4, Ipv6},
    budget::{Class, SourceSpending, SourceSpent},
    classify::{FamilyTables, FragmentFate, LocalEnd, Tables},
    gate::{Gate, Hole, Terms},
    key::{
        FilterPlace, FlowKey, FragmentKey, PROVIDER_BITS, PortPlace, ProviderAddress, SourceKey,
    },
    place::Place,
    reason::{COUNTERS as COUNTER_PLACES, Counter, Reason},
    sdp_scan::{BLOCK, MAX_BLOCKS, Scan},
    settings::Settings,
    slot::{Aside, AsideWords, Slot, SlotWords},
    value::{
        AllowList, Budget, Count, MAX_SOURCES, MediaLimits, MediaPorts, Pinhole, ProviderRule,
        Provisional, Source, Stamp,
    },
};

/// Filled by the loader; nothing is protected until it is.
#[unsafe(no_mangle)]
static SETTINGS: Settings = Settings::EMPTY;

/// Filled by the loader. A bit that stays in the processor's nearest cache spares strangers' signalling the longest-prefix match; as a
/// constant it takes a load, without the look-up of a map.
#[unsafe(no_mangle)]
static SOURCE_FILTER: [u64; FilterPlace::SOURCE_WORDS] = [0; FilterPlace::SOURCE_WORDS];

/// Always zero, which the verifier does not know: other than [`SETTINGS`] it lies where programs may write.
#[unsafe(no_mangle)]
static mut NOTHING: u32 = 0;

/// The coarse clock as it stood at a tick: asking it takes a call, counting ticks a load. It moves with the ticks and only with them.
struct Clock {
    tick: u64,
    now: u64,
}

#[unsafe(no_mangle)]
static mut CLOCK: Clock = Clock { tick: 0, now: 0 };

#[map]
static STAMP: Array<Stamp> = Array::with_max_entries(1, 0);

// Arrays, because the kernel compiles a look-up in one into a few instructions of the program, without a call. Those that packets of
// calls go through can be mapped (`BPF_F_MMAPABLE`), which nobody does: their elements begin at a page and so at a cache line.
#[map]
static PLACES: Array<Place> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[map]
static PINHOLES4: Array<Pinhole<Ipv4>> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[map]
static PINHOLES6: Array<Pinhole<Ipv6>> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[map]
static GATES4: Array<Gate<Ipv4>> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[map]
static GATES6: Array<Gate<Ipv6>> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[map]
static TERMS: Array<Terms> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[map]
static SLOTS: Array<SlotWords> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[map]
static ASIDES: Array<AsideWords> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[map]
static PROVIDERS4: LpmTrie<Ipv4, ProviderRule> =
    LpmTrie::with_max_entries(abi::PROVIDER_PREFIXES, 0);

#[map]
static PROVIDERS6: LpmTrie<Ipv6, ProviderRule> =
    LpmTrie::with_max_entries(abi::PROVIDER_PREFIXES, 0);

#[map]
static ALLOWED4: LpmTrie<Ipv4, AllowList> = LpmTrie::with_max_entries(abi::ALLOWED_PREFIXES, 0);

#[map]
static ALLOWED6: LpmTrie<Ipv6, AllowList> = LpmTrie::with_max_entries(abi::ALLOWED_PREFIXES, 0);

#[map]
static MEDIA_LIMITS4: LpmTrie<Ipv4, MediaLimits> =
    LpmTrie::with_max_entries(abi::MEDIA_PREFIXES, 0);

#[map]
static MEDIA_LIMITS6: LpmTrie<Ipv6, MediaLimits> =
    LpmTrie::with_max_entries(abi::MEDIA_PREFIXES, 0);

// Indexed, not hashed: a flood to closed ports pays a load.
#[map]
static PROVISIONAL: Array<u64> = Array::with_max_entries(1, 0);

#[map]
static PROVIDER_MEDIA4: LpmTrie<ProviderAddress<Ipv4>, MediaPorts> =
    LpmTrie::with_max_entries(abi::MEDIA_PREFIXES, 0);

#[map]
static PROVIDER_MEDIA6: LpmTrie<ProviderAddress<Ipv6>, MediaPorts> =
    LpmTrie::with_max_entries(abi::MEDIA_PREFIXES, 0);

/// Bytes that are scanned of a message, at most.
pub const SCANNED: usize = MAX_BLOCKS * BLOCK;

/// A scan for media ports in progress. In the memory of a map the verifier does not follow it from word to word.
#[repr(C)]
pub struct Scanned {
    pub scan: Scan,
    pub text: [u64; SCANNED / 8],
}

#[map]
static SCAN: PerCpuArray<Scanned> = PerCpuArray::with_max_entries(1, 0);

#[map]
static FLOWS4: LruHashMap<FlowKey<Ipv4>, u64> = LruHashMap::with_max_entries(abi::FLOWS, 0);

#[map]
static FLOWS6: LruHashMap<FlowKey<Ipv6>, u64> = LruHashMap::with_max_entries(abi::FLOWS, 0);

#[map]
static FRAGMENTS: LruHashMap<FragmentKey, u32> =
    LruHashMap::with_max_entries(abi::FRAGMENTED_DATAGRAMS, 0);

#[map]
static COUNTERS: PerCpuArray<Count> = PerCpuArray::with_max_entries(COUNTER_PLACES, 0);

#[map]
static SOURCES: LruHashMap<SourceKey, SourceSpending> =
    LruHashMap::with_max_entries(abi::SIGNALLING_SOURCES, 0);

#[map]
pub static SIGNALLING_IN: RingBuf = RingBuf::with_byte_size(abi::RING_BYTES, 0);

#[map]
pub static SIGNALLING_OUT: RingBuf = RingBuf::with_byte_size(abi::RING_BYTES, 0);

#[map]
pub static SAMPLES: RingBuf = RingBuf::with_byte_size(abi::SAMPLE_RING_BYTES, 0);

/// Granted by user space, taken by [`take_grant`].
#[unsafe(link_section = ".data.grants")]
#[unsafe(no_mangle)]
static mut SAMPLE_GRANTS: abi::SampleGrants = [0; COUNTER_PLACES as usize];

/// The kernel's tables.
pub struct KernelTables;

impl FamilyTables<Ipv4> for KernelTables {
    #[inline(always)]
    fn place(&self, local: &LocalEnd<Ipv4>) -> Place {
        place(PortPlace::of::<Ipv4>(&SETTINGS, local.at, local.port))
    }

    #[inline(always)]
    fn pinhole_of(&self, place: Place, _: &LocalEnd<Ipv4>) -> Option<impl Hole<Ipv4>> {
        KernelHole::met(&GATES4, &PINHOLES4, place)
    }

    #[inline(always)]
    fn provider_hint(&self, address: Ipv4) -> u32 {
        hint(FilterPlace::of_source(address))
    }

    #[inline(always)]
    fn provider(&self, address: Ipv4) -> Option<&ProviderRule> {
        if self.provider_hint(address) == 0 {
            return None;
        }
        PROVIDERS4.get(Key::new(32, address))
    }

    #[inline(always)]
    fn allowed(&self, address: Ipv4) -> Option<&AllowList> {
        ALLOWED4.get(Key::new(32, address))
    }

    #[inline(always)]
    fn media_limits(&self, address: Ipv4) -> Option<&MediaLimits> {
        MEDIA_LIMITS4.get(Key::new(32, address))
    }

    #[inline(always)]
    fn provider_media(&self, provider: u16, address: Ipv4) -> Option<&MediaPorts> {
        let provider = provider.into();
        let key = ProviderAddress { provider, address };
        PROVIDER_MEDIA4.get(Key::new(PROVIDER_BITS + 32, key))
    }

    #[inline(always)]
    fn flow(&self, key: &FlowKey<Ipv4>) -> Option<u64> {
        // SAFETY: the value is one number; a reused element gives another flow's time for one packet at worst.
        unsafe { FLOWS4.get(key) }.copied()
    }

    #[inline(always)]
    fn remember_flow(&self, key: &FlowKey<Ipv4>, now: u64) {
        // A full LRU map evicts; the call fails only under contention, and then the next packet of the flow is noted.
        let _ = FLOWS4.insert(key, now, 0);
    }
}

impl FamilyTables<Ipv6> for KernelTables {
    #[inline(always)]
    fn place(&self, local: &LocalEnd<Ipv6>) -> Place {
        place(PortPlace::of::<Ipv6>(&SETTINGS, local.at, local.port))
    }

    #[inline(always)]
    fn pinhole_of(&self, place: Place, _: &LocalEnd<Ipv6>) -> Option<impl Hole<Ipv6>> {
        KernelHole::met(&GATES6, &PINHOLES6, place)
    }

    #[inline(always)]
    fn provider_hint(&self, address: Ipv6) -> u32 {
        hint(FilterPlace::of_source(address))
    }

    #[inline(always)]
    fn provider(&self, address: Ipv6) -> Option<&ProviderRule> {
        if self.provider_hint(address) == 0 {
            return None;
        }
        PROVIDERS6.get(Key::new(128, address))
    }

    #[inline(always)]
    fn allowed(&self, address: Ipv6) -> Option<&AllowList> {
        ALLOWED6.get(Key::new(128, address))
    }

    #[inline(always)]
    fn media_limits(&self, address: Ipv6) -> Option<&MediaLimits> {
        MEDIA_LIMITS6.get(Key::new(128, address))
    }

    #[inline(always)]
    fn provider_media(&self, provider: u16, address: Ipv6) -> Option<&MediaPorts> {
        let provider = provider.into();
        let key = ProviderAddress { provider, address };
        PROVIDER_MEDIA6.get(Key::new(PROVIDER_BITS + 128, key))
    }

    #[inline(always)]
    fn flow(&self, key: &FlowKey<Ipv6>) -> Option<u64> {
        // SAFETY: the value is one number; a reused element gives another flow's time for one packet at worst.
        unsafe { FLOWS6.get(key) }.copied()
    }

    #[inline(always)]
    fn remember_flow(&self, key: &FlowKey<Ipv6>, now: u64) {
        // A full LRU map evicts; the call fails only under contention, and then the next packet of the flow is noted.
        let _ = FLOWS6.insert(key, now, 0);
    }
}

impl Tables for KernelTables {
    #[inline(always)]
    fn settings(&self) -> &Settings {
        &SETTINGS
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        // SAFETY: the helpers take nothing and return numbers; the words are valid and aligned. Several CPUs may write them at once: the
        // time is written first, so that whoever finds this tick finds its time, or one that another CPU read a moment before.
        unsafe {
            let clock = &raw mut CLOCK;
            let (tick, now) = (&raw mut (*clock).tick, &raw mut (*clock).now);
            let current = bpf_jiffies64();
            if tick.read_volatile() == current {
                return now.read_volatile();
            }
            let read = bpf_ktime_get_coarse_ns();
            now.write_volatile(read);
            tick.write_volatile(current);
            read
        }
    }

    #[inline(always)]
    fn exchange_latch(&self, aside: &Aside, stale: u64, new: u64) -> u64 {
        // SAFETY: the word is valid and aligned.
        unsafe { exchange(aside.latch.as_ptr(), stale, new) }
    }

    #[inline(always)]
    fn forget(&self, number: u32) -> u32 {
        // SAFETY: nobody writes it. Volatile, or the compiler would take it for what it is.
        number ^ unsafe { (&raw const NOTHING).read_volatile() }
    }

    #[inline(always)]
    fn provisional(&self, place: PortPlace) -> Provisional {
        let Some(word) = PROVISIONAL.get_ptr(place.index()) else {
            return Provisional::CLOSED;
        };
        // SAFETY: the word is valid and aligned. Volatile, because what is read next must not be read before.
        Provisional(unsafe { word.read_volatile() })
    }

    #[inline(always)]
    fn open_provisional(&self, place: PortPlace, provisional: Provisional) {
        if let Some(word) = PROVISIONAL.get_ptr_mut(place.index()) {
            // SAFETY: the word is valid and aligned, and written whole. The exchange changes nothing; it is the barrier between this word
            // and the next: whoever shuts the port at this moment sees that the word is open, or we see that the port is shut.
            unsafe {
                word.write_volatile(provisional.0);
                exchange(word, provisional.0, provisional.0);
            }
        }
        change_place(place, Place::unshut);
    }

    #[inline(always)]
    fn shut(&self, place: PortPlace, known: Place) {
        change_place(place, |found| match found.pinhole() {
            Some(_) => found,
            None => known.shut(),
        });
        // Another CPU may have opened it meanwhile.
        if self.provisional(place).is_open(self.now()) {
            change_place(place, Place::unshut);
        }
    }

    #[inline(always)]
    fn exchange_provisional(
        &self,
        place: PortPlace,
        stale: Provisional,
        new: Provisional,
    ) -> Provisional {
        let Some(word) = PROVISIONAL.get_ptr_mut(place.index()) else {
            return Provisional::CLOSED;
        };
        // SAFETY: the word is valid and aligned.
        Provisional(unsafe { exchange(word, stale.0, new.0) })
    }

    #[inline(always)]
    fn spend(&self, source: &SourceKey, class: Class, budget: Budget) -> bool {
        let spent = SOURCES.get_ptr_mut(source).or_else(|| {
            // A full LRU map evicts; the call fails only under contention.
            let _ = SOURCES.insert(source, SourceSpending::default(), BPF_NOEXIST.into());
            SOURCES.get_ptr_mut(source)
        });
        // Without memory of a source there is nothing to hold against it.
        spent.is_none_or(|spent| {
            // SAFETY: both types have one layout, and only the kernel programs write it. An element that is reused meanwhile costs another
            // source one packet's worth.
            let spent = unsafe { &*spent.cast::<SourceSpent>() };
            spent.take(class, budget, self.now())
        })
    }

    #[inline(always)]
    fn remember_fragment(&self, key: &FragmentKey, fate: FragmentFate) {
        // A full LRU map evicts; the call fails only under contention, and then later fragments count as unknown.
        let _ = FRAGMENTS.insert(key, fate as u32, 0);
    }

    #[inline(always)]
    fn recall_fragment(&self, key: &FragmentKey) -> Option<FragmentFate> {
        // SAFETY: the value is one number; a reused element gives another datagram's fate for one packet at worst.
        FragmentFate::from_number(*unsafe { FRAGMENTS.get(key) }?)
    }
}

/// Puts `new` in the place of `stale`, if that is there, and tells what was there. The library has no such thing for this target.
///
/// # Safety
/// The word must be valid and aligned.
#[inline(always)]
unsafe fn exchange(word: *mut u64, stale: u64, new: u64) -> u64 {
    let found;
    // SAFETY: the caller vouches for the word, and the instruction (version 3 of the set) touches nothing else.
    unsafe {
        asm!(
            "r0 = cmpxchg_64({word} + 0, r0, {new})",
            word = in(reg) word,
            new = in(reg) new,
            inout("r0") stale => found,
            options(nostack),
        );
    }
    found
}

/// Where this CPU's scan for media ports rests.
#[inline(always)]
pub fn scan_place() -> Option<*mut Scanned> {
    SCAN.get_ptr_mut(0)
}

/// A bit of the source filter.
#[inline(always)]
fn hint(place: FilterPlace) -> u32 {
    let word: *const u64 = &SOURCE_FILTER[place.word()];
    // SAFETY: the word is valid and aligned. Volatile, because it is not the zero that stands here.
    place.bit_of(unsafe { word.read_volatile() })
}

/// Changes what is known of a port, unless user space writes it at the same moment: then it knows better.
#[inline(always)]
fn change_place(place: PortPlace, change: impl Fn(Place) -> Place) {
    let Some(word) = PLACES.get_ptr_mut(place.index()) else {
        return;
    };
    // SAFETY: the element is valid and aligned, a word in memory, and read at once.
    unsafe {
        let found = word.read_volatile();
        let changed = change(found);
        if changed != found {
            exchange(word.cast(), found.word(), changed.word());
        }
    }
}

/// What is known of a port.
#[inline(always)]
fn place(of: PortPlace) -> Place {
    // SAFETY: the element is valid and aligned. It must be read at once, because user space may change it meanwhile.
    PLACES
        .get_ptr(of.index())
        .map_or(Place::OTHER, |place| unsafe { place.read_volatile() })
}

/// The parts of a pinhole that a place leads to.
struct KernelHole<A: Address + 'static> {
    gate: &'static Gate<A>,
    terms: &'static Terms,
    slot: &'static Slot,
    pinholes: &'static Array<Pinhole<A>>,
    place: Place,
}

impl<A: Address> KernelHole<A> {
    #[inline(always)]
    fn met(
        gates: &'static Array<Gate<A>>,
        pinholes: &'static Array<Pinhole<A>>,
        place: Place,
    ) -> Option<Self> {
        let number = place.pinhole()?;
        let words = SLOTS.get_ptr_mut(place.slot())?;
        let gate = gates.get(number)?;
        // Half of a word and half of its successor would lead to a pinhole of another slot.
        if gate.slot != place.slot() {
            return None;
        }
        Some(Self {
            gate,
            terms: TERMS.get(gate.terms)?,
            // SAFETY: both types have one layout, array elements are never freed, and nobody else writes this one.
            slot: unsafe { &*words.cast::<Slot>() },
            pinholes,
            place,
        })
    }
}

impl<A: Address> Hole<A> for KernelHole<A> {
    #[inline(always)]
    fn gate(&self) -> &Gate<A> {
        self.gate
    }

    #[inline(always)]
    fn terms(&self) -> &Terms {
        self.terms
    }

    #[inline(always)]
    fn sources(&self) -> Option<&[Source<A>; MAX_SOURCES]> {
        let pinhole = self.pinholes.get(self.place.pinhole()?)?;
        Some(&pinhole.sources)
    }

    #[inline(always)]
    fn slot(&self) -> &Slot {
        self.slot
    }

    #[inline(always)]
    fn aside(&self) -> Option<&Aside> {
        let words = ASIDES.get_ptr_mut(self.place.slot())?;
        // SAFETY: as above.
        Some(unsafe { &*words.cast::<Aside>() })
    }
}

/// Adds one packet to a counter of this CPU.
#[inline(always)]
pub fn count(counter: Counter, bytes: usize) {
    if let Some(place) = COUNTERS.get_ptr_mut(counter.index()) {
        // SAFETY: the place is this CPU's own, and no program interrupts another on it.
        let count = unsafe { &mut *place };
        count.packets += 1;
        count.bytes += bytes as u64;
    }
}

/// Takes one sample of what is granted for a reason. Two CPUs may take the same one: a sample more does no harm.
#[inline(always)]
pub fn take_grant(reason: Reason) -> bool {
    let mut place = u64::from(Counter::Reason(reason).index());
    // SAFETY: the instruction changes nothing: the compiler knows that and would leave the bound out, which the verifier asks for. The word is
    // valid and aligned, and read and written whole.
    unsafe {
        asm!(
            "{place} &= {last}",
            place = inout(reg) place,
            last = const COUNTER_PLACES - 1,
            options(pure, nomem, nostack),
        );
        let grants = (&raw mut SAMPLE_GRANTS).cast::<u32>().add(place as usize);
        let granted = grants.read_volatile();
        if granted == 0 {
            return false;
        }
        grants.write_volatile(granted - 1);
    }
    true
}
