//! The kernel programs and maps of one instance: loading, filling, and what the next start is to find.
//!
//! It does not decide what is open (the engine does) and does not touch pinholes after the load (`map_writer` does). `attachment` puts the
//! programs on interfaces, `state` knows which maps of an earlier run can be used again. Invariant: nothing that is attached changes before
//! every map is filled, and then each program is replaced in one step.

mod attachment;
mod error;
mod occupied;
mod state;

use std::{collections::BTreeMap, fmt};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, LpmTrie, MapData, MapError, PerCpuArray, PerCpuValues, lpm_trie::Key},
    programs::{ProgramError, SchedClassifier, Xdp},
};
use ipnet::IpNet;
use sipfilter_common::{
    abi::{ABI_VERSION, RESTING_PINHOLES, map, program},
    addr::{Ipv4, Ipv6},
    key::{PROVIDER_BITS, PortPlace, ProviderAddress},
    reason::COUNTERS,
    settings::{self as kernel, Mode},
    value::{Count, MediaPorts, Stamp},
};

use super::{pins::Pins, policy::KernelPolicy, source_filter};
pub use attachment::{Attachment, attachments, detach};
pub use error::DatapathError;
pub use occupied::Occupied;
pub use state::Found;
use state::{Plan, Sizes};

/// The object that the build script compiled, or that `SIPFILTER_EBPF_OBJECT` named at build time.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sipfilter.bpf.o"));

/// LRU maps take their memory at once, so they have their size only where somebody uses them.
const FLOW_MAPS: [&str; 2] = [map::FLOWS4, map::FLOWS6];

/// How XDP came to be attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attached {
    /// In the driver.
    Native,
    /// In the network stack, as ordered.
    Generic,
    /// In the network stack, because the driver refused.
    Fallback {
        /// What it said.
        why: String,
    },
}

impl fmt::Display for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic | Self::Fallback { .. } => "generic",
        })
    }
}

/// Whether the places for media in advance of the daemon can go on being used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provisional {
    /// Addresses and providers have the numbers that they had.
    Kept,
    /// They have others.
    New,
}

/// The loaded programs and maps. Dropping it changes nothing that is pinned.
pub struct Datapath {
    ebpf: Ebpf,
    /// What was found at start.
    pub found: Found,
    /// What the programs were loaded with.
    pub constants: kernel::Settings,
    /// Maps that lie beside their place in the instance's directory until [`Datapath::commit`].
    pending: Vec<&'static str>,
    /// Maps of state that this policy does without.
    unused: Vec<&'static str>,
    /// What the maps were made for.
    stamp: Stamp,
}

impl Datapath {
    /// Loads programs and maps for a policy: on the state that is pinned where `pins` says, or on maps of their own for a test of the
    /// programs alone. Nothing that is attached or pinned has changed then; [`Datapath::commit`] follows once the programs are attached.
    ///
    /// # Errors
    /// [`DatapathError`]: the text says what to do.
    pub fn load(
        policy: &KernelPolicy,
        pinholes: u32,
        pins: Option<&Pins>,
    ) -> Result<Self, DatapathError> {
        Self::load_on(policy, pinholes, pins, None)
    }

    /// The same on the state of programs that run, to take their place while they do. Their pinholes are where they were, unless
    /// [`Self::is_resized`]. `provisional`: what the places for media in advance mean has not changed either.
    ///
    /// # Errors
    /// [`DatapathError`]; nothing that is attached or pinned has changed then.
    pub fn load_beside(
        policy: &KernelPolicy,
        pinholes: u32,
        pins: &Pins,
        provisional: Provisional,
    ) -> Result<Self, DatapathError> {
        let loaded = Self::load_on(policy, pinholes, Some(pins), Some(provisional));
        loaded.inspect_err(|_| pins.give_up_pending())
    }

    /// The maps of pinholes are others than before, and empty.
    pub fn is_resized(&self) -> bool {
        matches!(self.found, Found::Resized(_))
    }

    fn load_on(
        policy: &KernelPolicy,
        pinholes: u32,
        pins: Option<&Pins>,
        beside: Option<Provisional>,
    ) -> Result<Self, DatapathError> {
        let wanted = Stamp {
            abi_version: ABI_VERSION,
            pinholes,
            policy: policy.hash(),
            modes: policy.settings.modes,
            latch_key: super::hash_key(),
            label_key: super::hash_key(),
        };
        let modes = policy.settings.modes;
        let uses_flows = modes.has(Mode::Strict) || modes.has(Mode::Replies);
        // A family without addresses has no pinholes.
        let elements = |addresses| match addresses {
            0 => 1,
            _ => pinholes.saturating_add(RESTING_PINHOLES),
        };
        let sizes = Sizes {
            four: elements(policy.settings.protected4_count),
            six: elements(policy.settings.protected6_count),
            slots: pinholes,
        };
        let plan = match pins {
            Some(pins) => Plan::new(pins, wanted, sizes)?,
            None => Plan::nothing(wanted),
        };
        if let (Some(_), Some(pins)) = (beside, pins)
            && !plan.is_continued()
        {
            return Err(DatapathError::NotOurs {
                path: pins.directory().to_owned(),
            });
        }
        let settings = kernel::Settings {
            latch_key: plan.stamp.latch_key,
            ..policy.settings
        };
        let source_filter = source_filter::words(policy.providers.keys());
        let mut loader = EbpfLoader::new();
        loader
            .override_global(map::SETTINGS, &settings, true)
            .override_global(map::SOURCE_FILTER, source_filter.as_slice(), true)
            .map_max_entries(map::PLACES, settings.places().max(1))
            .map_max_entries(map::PINHOLES4, sizes.four)
            .map_max_entries(map::PINHOLES6, sizes.six)
            .map_max_entries(map::GATES4, sizes.four)
            .map_max_entries(map::GATES6, sizes.six)
            .map_max_entries(map::TERMS, sizes.four.saturating_add(sizes.six))
            .map_max_entries(map::SLOTS, pinholes)
            .map_max_entries(map::ASIDES, pinholes);
        let (mut pending, mut unused) = (Vec::new(), Vec::new());
        if modes.has(Mode::Provisional) {
            let addresses = settings.protected4_count + settings.protected6_count;
            let places = addresses.saturating_mul(PortPlace::PER_ADDRESS).max(1);
            loader.map_max_entries(map::PROVISIONAL, places);
            if let Some(pins) = pins {
                let is_kept = beside == Some(Provisional::Kept)
                    && state::has_shape(pins, map::PROVISIONAL, (size_of::<u64>(), places));
                if is_kept {
                    loader.map_pin_path(map::PROVISIONAL, pins.path(map::PROVISIONAL));
                } else {
                    loader.map_pin_path(map::PROVISIONAL, pins.next_path(map::PROVISIONAL));
                    pending.push(map::PROVISIONAL);
                }
            }
        } else {
            unused.push(map::PROVISIONAL);
        }
        if !uses_flows {
            for name in FLOW_MAPS {
                loader.map_max_entries(name, 1);
                unused.push(name);
            }
        }
        if let Some(pins) = pins {
            let flows = FLOW_MAPS.iter().filter(|_| uses_flows);
            for name in map::STATE.iter().chain(&map::POLICY).chain(flows) {
                if plan.reused.contains(name) {
                    loader.map_pin_path(name, pins.path(name));
                } else {
                    loader.map_pin_path(name, pins.next_path(name));
                    pending.push(*name);
                }
            }
        }
        let mut ebpf = loader.load(OBJECT)?;
        for name in [program::INGRESS, program::EGRESS] {
            load_program(&mut ebpf, name)?;
        }
        let mut datapath = Self {
            ebpf,
            constants: settings,
            found: plan.found,
            pending,
            unused,
            stamp: plan.stamp,
        };
        datapath.fill((map::PROVIDERS4, map::PROVIDERS6), &policy.providers)?;
        datapath.fill((map::ALLOWED4, map::ALLOWED6), &policy.allowed)?;
        datapath.fill((map::MEDIA_LIMITS4, map::MEDIA_LIMITS6), &policy.media)?;
        datapath.fill_provider_media(policy)?;
        if let (Found::Resized(_), Some(pins), None) = (datapath.found, pins, beside) {
            state::migrate(pins, &mut datapath.ebpf, sizes)?;
        }
        datapath.write_stamp()?;
        Ok(datapath)
    }

    /// The key of the labels in the pinholes.
    pub fn label_key(&self) -> [u64; 2] {
        self.stamp.label_key
    }

    /// Makes what was loaded what the next start finds. To be called once the programs are attached in the place of any others.
    ///
    /// # Errors
    /// [`DatapathError`]: the programs filter all the same, and the next start will say that it found another state.
    pub fn commit(&mut self, pins: &Pins) -> Result<(), DatapathError> {
        if map::STATE
            .iter()
            .any(|name| *name != map::STAMP && self.pending.contains(name))
        {
            // Without a stamp nothing is read: a start that finds us in the middle of this makes everything anew.
            pins.remove_map(map::STAMP)?;
        }
        for name in self.pending.iter().filter(|name| **name != map::STAMP) {
            pins.promote(name)?;
        }
        for name in &self.unused {
            pins.remove_map(name)?;
        }
        for (name, path) in [
            (program::INGRESS, pins.next_path(program::INGRESS)),
            (program::EGRESS, pins.next_path(program::EGRESS)),
        ] {
            let program = self
                .ebpf
                .program_mut(name)
                .ok_or(DatapathError::Missing(name))?;
            program.pin(&path).map_err(|source| DatapathError::Link {
                path,
                source: std::io::Error::other(source),
            })?;
            pins.promote(name)?;
        }
        pins.promote(map::STAMP)?;
        self.pending.clear();
        if let Found::Same { modes: false, .. } = self.found {
            self.zero_counters(pins)?;
        }
        Ok(())
    }

    /// The loaded XDP program, for test runs and measurements.
    ///
    /// # Errors
    /// [`DatapathError::Missing`].
    pub fn ingress(&mut self) -> Result<&mut Xdp, DatapathError> {
        self.program(program::INGRESS)
    }

    /// The loaded TC program, for test runs and measurements.
    ///
    /// # Errors
    /// [`DatapathError::Missing`].
    pub fn egress(&mut self) -> Result<&mut SchedClassifier, DatapathError> {
        self.program(program::EGRESS)
    }

    /// Everything loaded, for the kernel's diagnostics channel.
    pub fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// Hands a map over to the part that uses it from now on.
    ///
    /// # Errors
    /// [`DatapathError::Missing`], or [`DatapathError::Map`] if it is of another kind.
    pub fn take<M>(&mut self, name: &'static str) -> Result<M, DatapathError>
    where
        M: TryFrom<aya::maps::Map, Error = MapError>,
    {
        let map = self
            .ebpf
            .take_map(name)
            .ok_or(DatapathError::Missing(name))?;
        M::try_from(map).map_err(DatapathError::of_map(name))
    }

    fn program<'a, P>(&'a mut self, name: &'static str) -> Result<&'a mut P, DatapathError>
    where
        &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
    {
        let program = self
            .ebpf
            .program_mut(name)
            .ok_or(DatapathError::Missing(name))?;
        program.try_into().map_err(DatapathError::of_program(name))
    }

    /// Fills a pair of longest-prefix matches, one for each family.
    fn fill<V: aya::Pod>(
        &mut self,
        (name4, name6): (&'static str, &'static str),
        entries: &BTreeMap<IpNet, V>,
    ) -> Result<(), DatapathError> {
        let mut four: LpmTrie<MapData, Ipv4, V> = self.take(name4)?;
        let mut six: LpmTrie<MapData, Ipv6, V> = self.take(name6)?;
        for (prefix, value) in entries {
            let length = u32::from(prefix.prefix_len());
            let (name, inserted) = match prefix {
                IpNet::V4(net) => (
                    name4,
                    four.insert(&Key::new(length, net.network().into()), value, 0),
                ),
                IpNet::V6(net) => (
                    name6,
                    six.insert(&Key::new(length, net.network().into()), value, 0),
                ),
            };
            inserted.map_err(DatapathError::of_map(name))?;
        }
        Ok(())
    }

    fn fill_provider_media(&mut self, policy: &KernelPolicy) -> Result<(), DatapathError> {
        let (name4, name6) = (map::PROVIDER_MEDIA4, map::PROVIDER_MEDIA6);
        let mut four: LpmTrie<MapData, ProviderAddress<Ipv4>, MediaPorts> = self.take(name4)?;
        let mut six: LpmTrie<MapData, ProviderAddress<Ipv6>, MediaPorts> = self.take(name6)?;
        for ((provider, prefix), ports) in &policy.provider_media {
            let provider = u32::from(*provider);
            let length = PROVIDER_BITS + u32::from(prefix.prefix_len());
            let (name, inserted) = match prefix {
                IpNet::V4(net) => {
                    let address = net.network().into();
                    let key = Key::new(length, ProviderAddress { provider, address });
                    (name4, four.insert(&key, ports, 0))
                }
                IpNet::V6(net) => {
                    let address = net.network().into();
                    let key = Key::new(length, ProviderAddress { provider, address });
                    (name6, six.insert(&key, ports, 0))
                }
            };
            inserted.map_err(DatapathError::of_map(name))?;
        }
        Ok(())
    }

    /// What was counted under other modes must not mix with what is counted now.
    fn zero_counters(&self, pins: &Pins) -> Result<(), DatapathError> {
        let failed = DatapathError::of_map(map::COUNTERS);
        let mut counters =
            PerCpuArray::<_, Count>::try_from(pins.open(map::COUNTERS)?).map_err(failed)?;
        for place in 0..COUNTERS {
            let cpus = counters.get(&place, 0).map_err(failed)?.len();
            let zero = PerCpuValues::try_from(vec![Count::default(); cpus])
                .map_err(|error| failed(error.into()))?;
            counters.set(place, zero, 0).map_err(failed)?;
        }
        Ok(())
    }

    fn write_stamp(&mut self) -> Result<(), DatapathError> {
        let stamp = self.stamp;
        let mut array: Array<MapData, Stamp> = self.take(map::STAMP)?;
        array
            .set(0, stamp, 0)
            .map_err(DatapathError::of_map(map::STAMP))
    }
}

fn load_program(ebpf: &mut Ebpf, name: &'static str) -> Result<(), DatapathError> {
    let program = ebpf.program_mut(name).ok_or(DatapathError::Missing(name))?;
    let loaded = if name == program::INGRESS {
        <&mut Xdp>::try_from(program).and_then(Xdp::load)
    } else {
        <&mut SchedClassifier>::try_from(program).and_then(SchedClassifier::load)
    };
    loaded.map_err(DatapathError::of_program(name))
}
