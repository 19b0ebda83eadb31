//! What both sides must have come to: counters, slots, copies, and what is remembered of fragments, flows and sources.
//!
//! Each function tells a difference in words, or nothing.

use std::{collections::BTreeMap, fmt::Debug};

use anyhow::Result;
use aya::maps::{HashMap, MapData};
use sipfilter_common::{
    classify::{FragmentFate, Verdict},
    reason::Counter,
    record::{EGRESS, INGRESS, RecordHeader},
    value::Provisional,
};

use super::machine::{Host, Machine};
use crate::policy::{
    cases::Way,
    generate::{Packet, SLOTS},
};

impl Machine {
    pub(super) fn compare_everything(&self, host: &Host) -> Result<Option<String>> {
        let mut differences = Vec::new();
        for counter in Counter::all() {
            differences.extend(self.compare_count(host, counter)?);
        }
        for slot in 0..SLOTS {
            differences.extend(self.compare_slot(host, slot)?);
        }
        for (place, wanted) in host.tables.provisional_places() {
            let found = Provisional(self.provisional.get(&place.index(), 0)?);
            if found != wanted {
                differences.push(format!(
                    "{place:?}: the kernel has {found:?}, the host {wanted:?}"
                ));
            }
        }
        let fragments = contents(&self.fragments, FragmentFate::from_number)?;
        let wanted = host.tables.fragments();
        differences.extend(compare_map(
            "first fragments",
            fragments,
            wanted.into_iter().map(|(key, fate)| (key, Some(fate))),
        ));
        let flows = contents(&self.flows4, Some)?;
        let wanted = host.tables.flows4();
        differences.extend(compare_map(
            "IPv4 flows",
            flows,
            wanted.into_iter().map(|(key, sent)| (key, Some(sent))),
        ));
        let flows = contents(&self.flows6, Some)?;
        let wanted = host.tables.flows6();
        differences.extend(compare_map(
            "IPv6 flows",
            flows,
            wanted.into_iter().map(|(key, sent)| (key, Some(sent))),
        ));
        let sources = contents(&self.sources, |spending| spending)?;
        let wanted = host.tables.sources();
        differences.extend(compare_map("sources", sources, wanted.into_iter()));
        Ok((!differences.is_empty()).then(|| differences.join("; ")))
    }

    pub(super) fn compare_count(&self, host: &Host, counter: Counter) -> Result<Option<String>> {
        let found = self.counters.read(counter)?;
        let wanted = host.counts.get(&counter).copied().unwrap_or_default();
        Ok((found != wanted).then(|| {
            format!(
                "counter {}: the kernel has {found:?}, the host {wanted:?}",
                counter.name()
            )
        }))
    }

    pub(super) fn compare_slot(&self, host: &Host, slot: u32) -> Result<Option<String>> {
        let found = self.slots.counts(slot)?;
        let wanted = host.tables.slots[slot as usize].counts();
        Ok((found != wanted)
            .then(|| format!("slot {slot}: the kernel has {found:?}, the host {wanted:?}")))
    }
}

/// Checks the copy that the daemon would get.
pub(super) fn compare_copy(
    packet: &Packet,
    verdict: &Verdict,
    record: Option<&[u8]>,
) -> Option<String> {
    let (record, start) = match (record, verdict.copy_from()) {
        (None, None) => return None,
        (Some(record), Some(start)) => (record, start),
        (Some(_), None) => return Some("the kernel made a copy".to_owned()),
        (None, Some(_)) => return Some("the kernel made no copy".to_owned()),
    };
    let Some((header, bytes)) = RecordHeader::split(record) else {
        return Some("the copy is shorter than it says".to_owned());
    };
    let wanted = packet.frame.get(start..).unwrap_or_default();
    let direction = match packet.way {
        Way::In => INGRESS,
        Way::Out => EGRESS,
    };
    let is_same = bytes == wanted
        && header.original as usize == wanted.len()
        && header.direction == direction
        && header.zero == [0; 7];
    (!is_same).then(|| format!("the copy is another: {header:?}, {bytes:02x?}"))
}

fn compare_map<K: Ord + Debug, V: PartialEq + Debug>(
    what: &str,
    found: BTreeMap<K, V>,
    wanted: impl Iterator<Item = (K, V)>,
) -> Option<String> {
    let wanted: BTreeMap<K, V> = wanted.collect();
    (found != wanted).then(|| format!("{what}: the kernel has {found:?}, the host {wanted:?}"))
}

fn contents<K: aya::Pod + Ord, V: aya::Pod, W>(
    map: &HashMap<MapData, K, V>,
    read: impl Fn(V) -> W,
) -> Result<BTreeMap<K, W>> {
    map.iter()
        .map(|entry| {
            let (key, value) = entry?;
            Ok((key, read(value)))
        })
        .collect()
}
