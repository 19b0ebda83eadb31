//! The kernel's counters, summed over CPUs. Works on the loaded map and on the pinned one.

use aya::maps::{Map, MapData, MapError, PerCpuArray};
use sipfilter_common::{
    reason::{Action, Counter},
    settings::Modes,
    value::Count,
};

use crate::view;

/// The counter array.
pub struct Counters(PerCpuArray<MapData, Count>);

impl TryFrom<Map> for Counters {
    type Error = MapError;

    fn try_from(map: Map) -> Result<Self, MapError> {
        PerCpuArray::try_from(map).map(Self)
    }
}

impl Counters {
    /// One counter.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn read(&self, counter: Counter) -> Result<Count, MapError> {
        let per_cpu = self.0.get(&counter.index(), 0)?;
        Ok(per_cpu.iter().fold(Count::default(), |sum, count| Count {
            packets: sum.packets.wrapping_add(count.packets),
            bytes: sum.bytes.wrapping_add(count.bytes),
        }))
    }

    /// Every counter, in order of its number. `modes` are those that the programs counted under.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn view(&self, modes: Modes) -> Result<Vec<view::Counter>, MapError> {
        Counter::all()
            .map(|counter| {
                let count = self.read(counter)?;
                Ok(view::Counter {
                    name: counter.name().to_owned(),
                    kind: kind(counter, modes).to_owned(),
                    packets: count.packets,
                    bytes: count.bytes,
                })
            })
            .collect()
    }
}

/// How a counter's packets fared.
pub(super) fn kind(counter: Counter, modes: Modes) -> &'static str {
    match counter {
        Counter::Reason(reason) => match (modes.ruling(reason), modes.action(reason)) {
            (_, Action::Drop) => "drop",
            (Action::Drop, Action::Pass) => "would drop",
            (Action::Pass, Action::Pass) => "pass",
        },
        Counter::Note(_) => "note",
    }
}
