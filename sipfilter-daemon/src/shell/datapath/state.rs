//! Which maps of an earlier run can be used again, and how pinholes move where the tables have another size.
//!
//! It reads what is pinned and changes nothing of it. Invariant: a map is used again only where its stamp says that it means the same, and
//! the kernel that it has the same shape.

use aya::{
    Ebpf, Pod,
    maps::{Array, MapData, MapInfo, MapType},
};
use sipfilter_common::{
    abi::{self, map},
    addr::{Address, Ipv4, Ipv6},
    budget::SourceSpending,
    key::{FlowKey, FragmentKey, SourceKey},
    reason::COUNTERS,
    slot::{AsideWords, SlotWords},
    value::{Count, Pinhole, Stamp},
};

use super::{DatapathError, FLOW_MAPS};
use crate::shell::{
    pins::{PinError, Pins},
    slots::Slots,
};

/// What was found pinned at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// Maps that mean the same and have the same size: in use again, with the pinholes in them.
    Same {
        /// The policy is the one that they were used with last.
        policy: bool,
        /// So is the way in which it is applied. If not, the counters begin anew, which would mix what was dropped with what was not.
        modes: bool,
    },
    /// Maps for another number of pinholes. The pinholes were moved into new ones.
    Resized(Stamp),
    /// Maps of another version, or that cannot be read: left alone until new ones have taken their place.
    Different(Stamp),
}

/// What to do with what is there.
pub(super) struct Plan {
    pub found: Found,
    pub reused: Vec<&'static str>,
    pub stamp: Stamp,
}

/// How many elements the maps of pinholes are to have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub four: u32,
    pub six: u32,
    pub slots: u32,
}

/// These go together: a pinhole names its slot.
const PINHOLES: [&str; 4] = [map::PINHOLES4, map::PINHOLES6, map::SLOTS, map::ASIDES];

impl Plan {
    /// For maps that nobody else has.
    pub fn nothing(stamp: Stamp) -> Self {
        Self {
            found: Found::Nothing,
            reused: Vec::new(),
            stamp,
        }
    }

    /// Looks at what is pinned. `wanted` is the stamp that is to be written; keys that the old state rests on are kept in it.
    pub fn new(pins: &Pins, wanted: Stamp, sizes: Sizes) -> Result<Self, PinError> {
        pins.create()?;
        pins.finish_commit()?;
        pins.remove_pending()?;
        let old = match pins.stamp() {
            Ok(old) => old,
            // A run that died before it was done leaves nothing worth keeping.
            Err(PinError::Absent { .. }) => return Ok(Self::nothing(wanted)),
            Err(PinError::Map { .. }) => {
                return Ok(Self {
                    found: Found::Different(Stamp::default()),
                    ..Self::nothing(wanted)
                });
            }
            Err(error) => return Err(error),
        };
        let different = Self {
            found: Found::Different(old),
            ..Self::nothing(wanted)
        };
        if !old.is_readable_by(&wanted) {
            return Ok(different);
        }
        let fits = |name: &str| shape_of(pins, name) == Some(shape(name, sizes));
        for name in map::STATE {
            let is_there = pins.path(name).symlink_metadata().is_ok();
            if is_there && name != map::STAMP && !PINHOLES.contains(&name) && !fits(name) {
                tracing::warn!(
                    path = %pins.path(name).display(),
                    "what is pinned there is no map of ours, or of another shape: made anew"
                );
            }
        }
        let mut reused: Vec<&'static str> = map::STATE
            .into_iter()
            .chain(FLOW_MAPS)
            .filter(|name| *name != map::STAMP && !PINHOLES.contains(name) && fits(name))
            .collect();
        let found = if PINHOLES.iter().all(|name| fits(name)) {
            reused.extend(PINHOLES);
            Found::Same {
                policy: old.policy == wanted.policy,
                modes: old.modes == wanted.modes,
            }
        } else if PINHOLES.iter().all(|name| {
            let (size, _) = shape(name, sizes);
            shape_of(pins, name).is_some_and(|(found, _)| found == size)
        }) {
            Found::Resized(old)
        } else {
            return Ok(different);
        };
        Ok(Self {
            found,
            reused,
            stamp: Stamp {
                latch_key: old.latch_key,
                label_key: old.label_key,
                ..wanted
            },
        })
    }
}

impl Plan {
    /// Everything that is there goes on being used, but for tables of pinholes of another size.
    pub fn is_continued(&self) -> bool {
        let mut others = map::STATE
            .iter()
            .filter(|name| **name != map::STAMP && !PINHOLES.contains(name));
        matches!(self.found, Found::Same { .. } | Found::Resized(_))
            && others.all(|name| self.reused.contains(name))
    }
}

/// Whether a map of this value size and number of entries is pinned.
pub(super) fn has_shape(pins: &Pins, name: &str, shape: Shape) -> bool {
    shape_of(pins, name) == Some(shape)
}

/// A map's value size and number of entries.
pub(super) type Shape = (usize, u32);

fn shape_of(pins: &Pins, name: &str) -> Option<Shape> {
    let info = MapInfo::from_pin(pins.path(name)).ok()?;
    let found = (info.map_type().ok()?, info.key_size() as usize);
    if found != kind(name) {
        return None;
    }
    Some((info.value_size() as usize, info.max_entries()))
}

/// What a map is, and the size of its keys: what differs in it has nothing to do with ours.
fn kind(name: &str) -> (MapType, usize) {
    match name {
        map::FRAGMENTS => (MapType::LruHash, size_of::<FragmentKey>()),
        map::SOURCES => (MapType::LruHash, size_of::<SourceKey>()),
        map::FLOWS4 => (MapType::LruHash, size_of::<FlowKey<Ipv4>>()),
        map::FLOWS6 => (MapType::LruHash, size_of::<FlowKey<Ipv6>>()),
        map::COUNTERS => (MapType::PerCpuArray, size_of::<u32>()),
        map::SIGNALLING_IN | map::SIGNALLING_OUT => (MapType::RingBuf, 0),
        _ => (MapType::Array, size_of::<u32>()),
    }
}

fn shape(name: &str, sizes: Sizes) -> Shape {
    match name {
        map::PINHOLES4 => (size_of::<Pinhole<Ipv4>>(), sizes.four),
        map::PINHOLES6 => (size_of::<Pinhole<Ipv6>>(), sizes.six),
        map::SLOTS => (size_of::<SlotWords>(), sizes.slots),
        map::ASIDES => (size_of::<AsideWords>(), sizes.slots),
        map::FRAGMENTS => (size_of::<u32>(), abi::FRAGMENTED_DATAGRAMS),
        map::COUNTERS => (size_of::<Count>(), COUNTERS),
        map::SOURCES => (size_of::<SourceSpending>(), abi::SIGNALLING_SOURCES),
        map::FLOWS4 | map::FLOWS6 => (size_of::<u64>(), abi::FLOWS),
        map::STAMP => (size_of::<Stamp>(), 1),
        // What is left are the ring buffers.
        _ => (0, abi::RING_BYTES),
    }
}

/// Copies the pinholes and what is known of their traffic into tables of another size, as many as there is room for. Packets that come
/// meanwhile count in the old tables.
pub(super) fn migrate(pins: &Pins, ebpf: &mut Ebpf, sizes: Sizes) -> Result<(), DatapathError> {
    let four = copy_family::<Ipv4>(pins, ebpf, (map::PINHOLES4, sizes.four), 0, sizes.slots)?;
    let six = copy_family::<Ipv6>(
        pins,
        ebpf,
        (map::PINHOLES6, sizes.six),
        four.free,
        sizes.slots,
    )?;
    let left_out = four.left_out + six.left_out;
    if left_out > 0 {
        tracing::warn!(
            room = sizes.slots,
            left_out,
            "more pinholes are open than there is room for (`pinholes` under [limits]); the calls of those that are left out have no media any more"
        );
    }
    Ok(())
}

/// What became of one family's pinholes.
struct Copied {
    /// The first slot that is still free.
    free: u32,
    /// Pinholes for which there was no room.
    left_out: u32,
}

fn copy_family<A: Address>(
    pins: &Pins,
    ebpf: &mut Ebpf,
    (name, elements): (&'static str, u32),
    first_slot: u32,
    slots: u32,
) -> Result<Copied, DatapathError>
where
    Pinhole<A>: Pod,
{
    let failed = DatapathError::of_map;
    let old: Array<MapData, Pinhole<A>> = pins.open(name)?.try_into().map_err(failed(name))?;
    let old_slots = Slots::open(pins)?;
    let (mut copied, mut left_out) = (0, 0);
    for entry in old.iter() {
        let mut pinhole = entry.map_err(failed(name))?;
        if pinhole.local.port() == 0 {
            continue;
        }
        let slot = first_slot + copied;
        if copied >= elements || slot >= slots {
            left_out += 1;
            continue;
        }
        let (words, others) = old_slots.counts(pinhole.slot).unwrap_or_default().words();
        pinhole.slot = slot;
        set(ebpf, map::SLOTS, slot, words)?;
        set(ebpf, map::ASIDES, slot, others)?;
        set(ebpf, name, copied, pinhole)?;
        copied += 1;
    }
    Ok(Copied {
        free: first_slot + copied,
        left_out,
    })
}

fn set<V: Pod>(
    ebpf: &mut Ebpf,
    name: &'static str,
    index: u32,
    value: V,
) -> Result<(), DatapathError> {
    let map = ebpf.map_mut(name).ok_or(DatapathError::Missing(name))?;
    Array::try_from(map)
        .and_then(|mut array| array.set(index, value, 0))
        .map_err(DatapathError::of_map(name))
}
