//! The kernel programs and maps of one instance: loading, filling, attaching, detaching.
//!
//! It does not decide what is open (the engine does) and does not touch pinholes after the load (`map_writer` does).
//! Invariant: nothing is attached before every map is filled and stamped.

use std::{collections::BTreeMap, fmt};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{Array, LpmTrie, MapData, MapError, PerCpuArray, PerCpuValues, lpm_trie::Key},
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode as AyaXdpMode, tc,
        tc::TcAttachOptions, xdp::XdpError,
    },
    util::KernelVersion,
};
use ipnet::IpNet;
use sipfilter_common::{
    abi::{self, ABI_VERSION, RESTING_PINHOLES, map, program},
    addr::{Ipv4, Ipv6},
    key::{PROVIDER_BITS, PortPlace, ProviderAddress},
    reason::COUNTERS,
    settings::{self as kernel, Mode},
    value::{Count, MediaPorts, Stamp},
};

use crate::{config::XdpMode, error_text};

use super::{
    pins::{PinError, Pins},
    policy::KernelPolicy,
    source_filter,
};

/// The object that the build script compiled, or that `SIPFILTER_EBPF_OBJECT` named at build time.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sipfilter.bpf.o"));

/// LRU maps take their memory at once, so they have their size only where somebody uses them.
const FLOW_MAPS: [&str; 2] = [map::FLOWS4, map::FLOWS6];

/// Why the datapath could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// The kernel refused the object.
    #[error("the kernel refused the programs: {0}{hint}", hint = privilege_hint(.0))]
    Load(#[from] EbpfError),
    /// A program could not be loaded.
    #[error("program {name}: {source}{hint}", hint = program_hint(.source))]
    Program {
        /// The program.
        name: &'static str,
        /// What the kernel said.
        source: Box<ProgramError>,
    },
    /// A program could not be attached.
    #[error("cannot attach to interface {interface:?} ({mode}): {source}{hint}", hint = program_hint(.source))]
    Attach {
        /// The interface.
        interface: String,
        /// How it was tried.
        mode: &'static str,
        /// What the kernel said.
        source: Box<ProgramError>,
    },
    /// The interface does not exist.
    #[error(
        "interface {0:?} does not exist; `ip link` lists those that do; correct `interfaces` in the configuration"
    )]
    NoInterface(String),
    /// The interface has no Ethernet header in front of its packets: the programs would take every packet for something else.
    #[error(
        "interface {0:?} is no Ethernet: packets of tunnels, PPP and the like cannot be filtered yet; name the Ethernet interface on which plain IP arrives"
    )]
    NotEthernet(String),
    /// A map is missing from the object or cannot be written.
    #[error("map {name}: {source}")]
    Map {
        /// The map.
        name: &'static str,
        /// What the kernel said.
        source: Box<MapError>,
    },
    /// The object has no such map or program.
    #[error(
        "the eBPF object has no {0}; it was built from another version of sipfilter: rebuild with `cargo xtask build`"
    )]
    Missing(&'static str),
    /// Pinning failed.
    #[error(transparent)]
    Pin(#[from] PinError),
}

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

/// What was found pinned at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// Maps of the same version, policy and size: in use again, with the pinholes in them.
    Same,
    /// The same, but filled while the policy was applied in another way: only the counters, which would mix what was dropped with
    /// what was not, are set to zero.
    OtherModes,
    /// Maps of another version, policy or size: removed and made anew.
    Different(Stamp),
}

/// The loaded programs and maps. Dropping it detaches the programs; pinned maps stay.
pub struct Datapath {
    ebpf: Ebpf,
    /// What was found at start.
    pub found: Found,
    /// What the programs were loaded with.
    pub constants: kernel::Settings,
}

impl Datapath {
    /// Loads programs and maps for a policy, pinned where `pins` says, or unpinned for a test of the programs alone.
    ///
    /// # Errors
    /// [`DatapathError`]: the text says what to do.
    pub fn load(
        policy: &KernelPolicy,
        pinholes: u32,
        pins: Option<&Pins>,
    ) -> Result<Self, DatapathError> {
        let mut stamp = Stamp {
            abi_version: ABI_VERSION,
            pinholes,
            policy: policy.hash(),
            modes: policy.settings.modes,
            latch_key: super::hash_key(),
        };
        let found = match pins {
            Some(pins) => prepare_pins(pins, &mut stamp)?,
            None => Found::Nothing,
        };
        let settings = kernel::Settings {
            latch_key: stamp.latch_key,
            ..policy.settings
        };
        // A family without addresses has no pinholes.
        let elements = |addresses| match addresses {
            0 => 1,
            _ => pinholes.saturating_add(RESTING_PINHOLES),
        };
        let mut loader = EbpfLoader::new();
        loader
            .override_global(map::SETTINGS, &settings, true)
            .map_max_entries(map::PLACES, settings.places().max(1))
            .map_max_entries(map::PINHOLES4, elements(settings.protected4_count))
            .map_max_entries(map::PINHOLES6, elements(settings.protected6_count))
            .map_max_entries(map::SLOTS, pinholes);
        let modes = policy.settings.modes;
        if modes.has(Mode::Provisional) {
            let addresses = settings.protected4_count + settings.protected6_count;
            let places = addresses.saturating_mul(PortPlace::PER_ADDRESS);
            loader.map_max_entries(map::PROVISIONAL, places.max(1));
        }
        let flows = if modes.has(Mode::Strict) || modes.has(Mode::Replies) {
            &FLOW_MAPS[..]
        } else {
            for name in FLOW_MAPS {
                loader.map_max_entries(name, 1);
            }
            &[]
        };
        if let Some(pins) = pins {
            for name in map::ALL.iter().chain(flows) {
                loader.map_pin_path(name, pins.path(name));
            }
        }
        let mut ebpf = loader.load(OBJECT)?;
        for name in [program::INGRESS, program::EGRESS] {
            load_program(&mut ebpf, name)?;
        }
        let mut datapath = Self {
            ebpf,
            found,
            constants: settings,
        };
        datapath.fill((map::PROVIDERS4, map::PROVIDERS6), &policy.providers)?;
        datapath.fill_source_filter(policy)?;
        datapath.fill((map::ALLOWED4, map::ALLOWED6), &policy.allowed)?;
        datapath.fill((map::MEDIA_LIMITS4, map::MEDIA_LIMITS6), &policy.media)?;
        datapath.fill_provider_media(policy)?;
        if found == Found::OtherModes {
            datapath.zero_counters()?;
        }
        datapath.write_stamp(stamp)?;
        Ok(datapath)
    }

    /// Attaches both programs to an interface.
    ///
    /// # Errors
    /// [`DatapathError::NoInterface`] or [`DatapathError::Attach`]; nothing stays attached to this interface then.
    pub fn attach(&mut self, interface: &str, mode: XdpMode) -> Result<Attached, DatapathError> {
        check_interface(interface)?;
        // Egress first: the first call's offer may leave while ingress attaches.
        let egress = self.attach_egress(interface)?;
        let attached = self.attach_ingress(interface, mode);
        if attached.is_err() {
            let program: &mut SchedClassifier = self.program(program::EGRESS)?;
            // The first error is the one to report.
            let _ = program.detach(egress);
        }
        attached
    }

    fn attach_ingress(
        &mut self,
        interface: &str,
        mode: XdpMode,
    ) -> Result<Attached, DatapathError> {
        let program: &mut Xdp = self.program(program::INGRESS)?;
        let failed = |mode, source| DatapathError::Attach {
            interface: interface.to_owned(),
            mode,
            source: Box::new(source),
        };
        if mode != XdpMode::Generic {
            match program.attach(interface, AyaXdpMode::Driver) {
                Ok(_) => return Ok(Attached::Native),
                // A program that is there already is there in either mode: falling back would only hide who it is.
                Err(error) if mode == XdpMode::Native || is_occupied(&error) => {
                    return Err(failed("native XDP", error));
                }
                Err(error) => {
                    program
                        .attach(interface, AyaXdpMode::Skb)
                        .map_err(|source| failed("generic XDP", source))?;
                    return Ok(Attached::Fallback {
                        why: error_text::with_causes(&error),
                    });
                }
            }
        }
        program
            .attach(interface, AyaXdpMode::Skb)
            .map_err(|source| failed("generic XDP", source))?;
        Ok(Attached::Generic)
    }

    fn attach_egress(
        &mut self,
        interface: &str,
    ) -> Result<tc::SchedClassifierLinkId, DatapathError> {
        // TCX came with Linux 6.6; before it, filters hang on a clsact qdisc, which may be there already.
        let options = if KernelVersion::current()
            .is_ok_and(|version| version >= KernelVersion::new(6, 6, 0))
        {
            TcAttachOptions::TcxOrder(LinkOrder::first())
        } else {
            let _ = tc::qdisc_add_clsact(interface);
            TcAttachOptions::Netlink(tc::NlOptions::default())
        };
        let program: &mut SchedClassifier = self.program(program::EGRESS)?;
        program
            .attach_with_options(interface, TcAttachType::Egress, options)
            .map_err(|source| DatapathError::Attach {
                interface: interface.to_owned(),
                mode: "TC egress",
                source: Box::new(source),
            })
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
        M::try_from(map).map_err(|source| DatapathError::Map {
            name,
            source: Box::new(source),
        })
    }

    fn program<'a, P>(&'a mut self, name: &'static str) -> Result<&'a mut P, DatapathError>
    where
        &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
    {
        let program = self
            .ebpf
            .program_mut(name)
            .ok_or(DatapathError::Missing(name))?;
        program.try_into().map_err(|source| DatapathError::Program {
            name,
            source: Box::new(source),
        })
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
            inserted.map_err(|source| DatapathError::Map {
                name,
                source: Box::new(source),
            })?;
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
            inserted.map_err(|source| DatapathError::Map {
                name,
                source: Box::new(source),
            })?;
        }
        Ok(())
    }

    fn fill_source_filter(&mut self, policy: &KernelPolicy) -> Result<(), DatapathError> {
        let mut words: Array<MapData, u64> = self.take(map::SOURCE_FILTER)?;
        for (number, word) in (0_u32..).zip(source_filter::words(policy.providers.keys())) {
            words
                .set(number, word, 0)
                .map_err(|source| DatapathError::Map {
                    name: map::SOURCE_FILTER,
                    source: Box::new(source),
                })?;
        }
        Ok(())
    }

    /// The programs are not attached yet, so nobody counts meanwhile.
    fn zero_counters(&mut self) -> Result<(), DatapathError> {
        let failed = |source| DatapathError::Map {
            name: map::COUNTERS,
            source: Box::new(source),
        };
        let counters = self
            .ebpf
            .map_mut(map::COUNTERS)
            .ok_or(DatapathError::Missing(map::COUNTERS))?;
        let mut counters = PerCpuArray::<_, Count>::try_from(counters).map_err(failed)?;
        for place in 0..COUNTERS {
            let cpus = counters.get(&place, 0).map_err(failed)?.len();
            let zero = PerCpuValues::try_from(vec![Count::default(); cpus])
                .map_err(|error| failed(error.into()))?;
            counters.set(place, zero, 0).map_err(failed)?;
        }
        Ok(())
    }

    fn write_stamp(&mut self, stamp: Stamp) -> Result<(), DatapathError> {
        let mut array: Array<MapData, Stamp> = self.take(map::STAMP)?;
        array.set(0, stamp, 0).map_err(|source| DatapathError::Map {
            name: map::STAMP,
            source: Box::new(source),
        })
    }
}

/// Keeps pinned maps that the stamp fits, and then goes on with the key of their latches; removes any others.
fn prepare_pins(pins: &Pins, stamp: &mut Stamp) -> Result<Found, PinError> {
    pins.create()?;
    let found = match pins.stamp() {
        Ok(found)
            if found.is_compatible(stamp)
                && abi::map::ALL.iter().all(|name| pins.path(name).exists()) =>
        {
            stamp.latch_key = found.latch_key;
            return Ok(if found.modes == stamp.modes {
                Found::Same
            } else {
                Found::OtherModes
            });
        }
        Ok(found) => Found::Different(found),
        // A run that died before it pinned the stamp leaves nothing worth keeping.
        Err(PinError::Absent { .. }) => Found::Nothing,
        Err(PinError::Map { .. }) => Found::Different(Stamp::default()),
        Err(error) => return Err(error),
    };
    pins.remove()?;
    pins.create()?;
    Ok(found)
}

fn load_program(ebpf: &mut Ebpf, name: &'static str) -> Result<(), DatapathError> {
    let program = ebpf.program_mut(name).ok_or(DatapathError::Missing(name))?;
    let loaded = if name == program::INGRESS {
        <&mut Xdp>::try_from(program).and_then(Xdp::load)
    } else {
        <&mut SchedClassifier>::try_from(program).and_then(SchedClassifier::load)
    };
    loaded.map_err(|source| DatapathError::Program {
        name,
        source: Box::new(source),
    })
}

/// Whether an interface is there, and has the frames that the programs can read. The kernel is asked, not `/sys`, which in a network
/// namespace may show another one's interfaces.
///
/// # Errors
/// [`DatapathError::NoInterface`] or [`DatapathError::NotEthernet`].
pub fn check_interface(name: &str) -> Result<(), DatapathError> {
    use rustix::net::{AddressFamily, SocketType, netdevice::name_to_index, socket};
    let found = socket(AddressFamily::INET, SocketType::DGRAM, None)
        .and_then(|socket| name_to_index(&socket, name));
    if found.is_err() {
        return Err(DatapathError::NoInterface(name.to_owned()));
    }
    match link_type(name) {
        Some(ARPHRD_ETHER | ARPHRD_LOOPBACK) => Ok(()),
        _ => Err(DatapathError::NotEthernet(name.to_owned())),
    }
}

/// Link types with an Ethernet header in front of each packet (`linux/if_arp.h`).
const ARPHRD_ETHER: u16 = 1;
const ARPHRD_LOOPBACK: u16 = 772;

/// The interface's link type; `None` where it has no link-layer address, which every Ethernet has.
fn link_type(interface: &str) -> Option<u16> {
    let mut entries = nix::ifaddrs::getifaddrs().ok()?;
    entries.find_map(|entry| {
        let address = entry
            .address
            .filter(|_| entry.interface_name == interface)?;
        Some(address.as_link_addr()?.hatype())
    })
}

fn is_occupied(error: &ProgramError) -> bool {
    os_error(error).is_some_and(means_occupied)
}

fn means_occupied(code: i32) -> bool {
    code == rustix::io::Errno::BUSY.raw_os_error()
        || code == rustix::io::Errno::EXIST.raw_os_error()
}

fn os_error(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut error = Some(error);
    while let Some(cause) = error {
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            return io.raw_os_error();
        }
        error = cause.source();
    }
    None
}

fn privilege_hint(error: &EbpfError) -> &'static str {
    errno_hint(os_error(error))
}

fn program_hint(error: &ProgramError) -> &'static str {
    if let ProgramError::XdpError(XdpError::NetlinkError(_)) = error {
        return "";
    }
    errno_hint(os_error(error))
}

fn errno_hint(code: Option<i32>) -> &'static str {
    let Some(code) = code else { return "" };
    if code == rustix::io::Errno::PERM.raw_os_error()
        || code == rustix::io::Errno::ACCESS.raw_os_error()
    {
        "; run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
    } else if means_occupied(code) {
        "; another XDP program is attached: `ip -details link show` names it; stop its owner, or detach it with `ip link set dev … xdp off`"
    } else if code == rustix::io::Errno::OPNOTSUPP.raw_os_error() {
        "; the driver has no native XDP: set `mode = \"generic\"` or \"auto\" under [xdp]"
    } else {
        ""
    }
}
