//! Both sides of the comparison: the programs in the kernel with their maps, and the host's tables, fed step by step.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    maps::{Array, HashMap, MapData, MapError, RingBuf},
    programs::{TestRun as _, TestRunOptions},
};
use rustix::time::{ClockId, clock_gettime};
use sipfilter_common::{
    abi::map,
    addr::{Ipv4, Ipv6},
    budget::SourceSpending,
    classify::{classify_egress, classify_ingress},
    host::{HostSlot, HostTables},
    key::{FlowKey, FragmentKey, PortPlace, SourceKey},
    reason::{Action, Counter, Note, Reason},
    slot::SlotCounts,
    value::Count,
};
use sipfilter_daemon::shell::{
    counters::Counters,
    datapath::Datapath,
    map_writer::KernelPinholes,
    policy::{KernelPinhole, KernelPolicy},
    slots::Slots,
};

use super::{Difference, Tally, compare::compare_copy};
use crate::policy::{
    cases::Way,
    generate::{ORIGIN, Packet, SLOTS, Sizes, Step, Tables},
};

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const TC_SHOT: u32 = 2;
/// `TC_ACT_UNSPEC`: whatever else is attached decides.
const TC_GO_ON: u32 = u32::MAX;

/// An Ethernet header and the longer of both IP headers.
const SHORTEST_IP: usize = 14 + 40;

/// What every kernel takes in a test run.
const LARGEST_IN_ONE_PIECE: usize = 3_400;

/// How closely is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Care {
    /// After each packet what it is known to touch, everything at the end.
    Quick,
    /// Everything after each packet, to find the one that makes the difference.
    Thorough,
}

/// The loaded programs and their maps.
pub struct Machine {
    datapath: Datapath,
    policy: KernelPolicy,
    /// How large frames may be.
    pub sizes: Sizes,
    pinholes: KernelPinholes,
    pub(super) slots: Slots,
    pub(super) fragments: HashMap<MapData, FragmentKey, u32>,
    pub(super) flows4: HashMap<MapData, FlowKey<Ipv4>, u64>,
    pub(super) flows6: HashMap<MapData, FlowKey<Ipv6>, u64>,
    pub(super) sources: HashMap<MapData, SourceKey, SourceSpending>,
    pub(super) provisional: Array<MapData, u64>,
    /// Places that may be open in the kernel.
    opened: BTreeSet<PortPlace>,
    pub(super) counters: Counters,
    arriving: RingBuf<MapData>,
    leaving: RingBuf<MapData>,
}

/// What the kernel did with one packet, as far as it is gone when the next one comes.
struct Seen {
    returned: u32,
    /// The copy.
    record: Option<Vec<u8>>,
}

/// The host's side of an episode.
pub(super) struct Host {
    pub(super) tables: HostTables,
    /// What the kernel's counters must show.
    pub(super) counts: BTreeMap<Counter, Count>,
}

impl Machine {
    /// Loads the programs for a policy.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn load(policy: &KernelPolicy) -> Result<Self> {
        let mut datapath = Datapath::load(policy, SLOTS, None)?;
        let mut policy = policy.clone();
        policy.settings.latch_key = datapath.constants.latch_key;
        let mut machine = Self {
            policy,
            sizes: Sizes {
                ingress: 0,
                egress: 0,
            },
            pinholes: KernelPinholes::take(&mut datapath)?,
            slots: Slots::take(&mut datapath)?,
            fragments: datapath.take(map::FRAGMENTS)?,
            flows4: datapath.take(map::FLOWS4)?,
            flows6: datapath.take(map::FLOWS6)?,
            sources: datapath.take(map::SOURCES)?,
            provisional: datapath.take(map::PROVISIONAL)?,
            opened: BTreeSet::new(),
            counters: datapath.take(map::COUNTERS)?,
            arriving: datapath.take(map::SIGNALLING_IN)?,
            leaving: datapath.take(map::SIGNALLING_OUT)?,
            datapath,
        };
        machine.sizes = Sizes {
            ingress: machine.largest(Way::In)?,
            egress: machine.largest(Way::Out)?,
        };
        Ok(machine)
    }

    /// The largest of a few sizes that a test run takes and the program sees whole: a page less what surrounds a packet, or more
    /// where programs and kernel take a packet in pieces.
    fn largest(&mut self, way: Way) -> Result<usize> {
        let reason = match way {
            Way::In => Reason::NotIp,
            Way::Out => Reason::EgressOther,
        };
        for size in [9_014, LARGEST_IN_ONE_PIECE] {
            // An ethertype for experiments (IEEE 802), which the policy does not read.
            let mut frame = vec![0x88; size];
            frame[13] = 0xb5;
            let before = self.counters.read(Counter::Reason(reason))?.bytes;
            let packet = Packet {
                way,
                frame,
                arrived_on: 0,
            };
            let taken = matches!(self.test_run(&packet), Ok(Some(_)));
            let seen = self.counters.read(Counter::Reason(reason))?.bytes - before;
            if taken && seen == size as u64 {
                return Ok(size);
            }
        }
        anyhow::bail!("no test run takes a frame of {LARGEST_IN_ONE_PIECE} bytes")
    }

    /// Runs an episode on both sides. What comes back in `Ok` is the difference, if there is one.
    ///
    /// # Errors
    /// Where the kernel refuses anything.
    pub fn run(
        &mut self,
        tables: &Tables,
        steps: &[Step],
        care: Care,
    ) -> Result<Result<Tally, Difference>> {
        let start = coarse_now();
        let mut host = self.set_up(tables, start)?;
        let mut tally = Tally::default();
        for (number, step) in steps.iter().enumerate() {
            let outcome = match step {
                Step::Wait(milliseconds) => {
                    sleep(Duration::from_millis(*milliseconds));
                    continue;
                }
                Step::Put(pinhole) => {
                    self.put(&mut host.tables, pinhole, start)?;
                    continue;
                }
                Step::Remove(pinhole) => {
                    self.remove(&mut host.tables, pinhole)?;
                    continue;
                }
                Step::Packet(packet) => {
                    let outcome = self.judge(&mut host, packet, care, &mut tally)?;
                    if packet.way == Way::Out {
                        self.opened
                            .extend(host.tables.provisional_places().into_keys());
                    }
                    outcome
                }
            };
            match outcome {
                Outcome::Agreed => tally.packets += 1,
                Outcome::Refused => {}
                Outcome::Unclear => {
                    tally.unclear += 1;
                    return Ok(Ok(tally));
                }
                Outcome::Differs(text) => return Ok(Err(Difference { step: number, text })),
            }
        }
        if let Some(text) = self.compare_everything(&host)? {
            return Ok(Err(Difference {
                step: steps.len().saturating_sub(1),
                text: format!("at the end: {text}"),
            }));
        }
        Ok(Ok(tally))
    }

    /// Empties the maps of what the last episode left and fills them anew.
    fn set_up(&mut self, tables: &Tables, start: u64) -> Result<Host> {
        for (pinhole, _) in self.pinholes.all()? {
            self.pinholes.remove(pinhole.local)?;
        }
        clear(&mut self.fragments)?;
        clear(&mut self.flows4)?;
        clear(&mut self.flows6)?;
        clear(&mut self.sources)?;
        for place in std::mem::take(&mut self.opened) {
            self.provisional.set(place.index(), 0, 0)?;
        }
        while self.arriving.next().is_some() || self.leaving.next().is_some() {}
        let mut host = self.policy.host_tables(SLOTS as usize);
        let slots: BTreeMap<u32, SlotCounts> = tables.slots.iter().copied().collect();
        for slot in 0..SLOTS {
            let counts = slots.get(&slot).copied().unwrap_or_default();
            let counts = SlotCounts {
                ingress_last: moved(counts.ingress_last, start),
                egress_last: moved(counts.egress_last, start),
                due: moved(counts.due, start),
                ..counts
            };
            self.slots.set(slot, &counts)?;
            host.slots[slot as usize] = HostSlot::from(counts);
        }
        for pinhole in &tables.pinholes {
            self.put(&mut host, pinhole, start)?;
        }
        let counts = Counter::all()
            .map(|counter| Ok((counter, self.counters.read(counter)?)))
            .collect::<Result<_>>()?;
        Ok(Host {
            tables: host,
            counts,
        })
    }

    fn put(&mut self, host: &mut HostTables, pinhole: &KernelPinhole, start: u64) -> Result<()> {
        match *pinhole {
            KernelPinhole::V4(key, mut value) => {
                value.opened = moved(value.opened, start);
                unless_stray(self.pinholes.insert(KernelPinhole::V4(key, value)))?;
                host.pinholes4.insert(key, value);
            }
            KernelPinhole::V6(key, mut value) => {
                value.opened = moved(value.opened, start);
                unless_stray(self.pinholes.insert(KernelPinhole::V6(key, value)))?;
                host.pinholes6.insert(key, value);
            }
        }
        Ok(())
    }

    fn remove(&mut self, host: &mut HostTables, pinhole: &KernelPinhole) -> Result<()> {
        let (was_there, address, port) = match pinhole {
            KernelPinhole::V4(key, _) => {
                let known = host.pinholes4.remove(key);
                (known.is_some(), IpAddr::from(key.address()), key.port())
            }
            KernelPinhole::V6(key, _) => {
                let known = host.pinholes6.remove(key);
                (known.is_some(), IpAddr::from(key.address()), key.port())
            }
        };
        if was_there {
            unless_stray(self.pinholes.remove(SocketAddr::new(address, port)))?;
        }
        Ok(())
    }

    /// One packet on both sides.
    fn judge(
        &mut self,
        host: &mut Host,
        packet: &Packet,
        care: Care,
        tally: &mut Tally,
    ) -> Result<Outcome> {
        let before = coarse_now();
        let Some(returned) = self.test_run(packet)? else {
            tally.refused += 1;
            return Ok(Outcome::Refused);
        };
        let after = coarse_now();
        let (ring, other) = match packet.way {
            Way::In => (&mut self.arriving, &mut self.leaving),
            Way::Out => (&mut self.leaving, &mut self.arriving),
        };
        ensure!(
            other.next().is_none(),
            "{:?}: a copy in the wrong ring",
            packet.way
        );
        let record = ring.next().map(|record| record.to_vec());
        let seen = Seen { returned, record };
        if before == after {
            return self.compare(host, packet, &seen, before, care, tally);
        }
        tally.on_a_tick += 1;
        let mut times = vec![before, after];
        for slot in 0..SLOTS {
            let counts = self.slots.counts(slot)?;
            times.extend([counts.ingress_last, counts.egress_last]);
        }
        times.retain(|time| (before..=after).contains(time));
        for time in times {
            let mut attempt = Host {
                tables: host.tables.clone(),
                counts: host.counts.clone(),
            };
            if let Outcome::Agreed =
                self.compare(&mut attempt, packet, &seen, time, Care::Thorough, tally)?
            {
                *host = attempt;
                return Ok(Outcome::Agreed);
            }
        }
        Ok(Outcome::Unclear)
    }

    /// Lets the host judge at a time, and looks for a difference.
    fn compare(
        &self,
        host: &mut Host,
        packet: &Packet,
        seen: &Seen,
        now: u64,
        care: Care,
        tally: &mut Tally,
    ) -> Result<Outcome> {
        let slots: Vec<SlotCounts> = host.tables.slots.iter().map(HostSlot::counts).collect();
        host.tables.now.set(now);
        let verdict = match packet.way {
            Way::In => classify_ingress(packet, &host.tables),
            Way::Out => classify_egress(packet, &host.tables),
        };
        host.count(Counter::Reason(verdict.reason), packet.frame.len());
        if let Some(start) = verdict.copy_from() {
            host.count(Counter::Note(Note::Copied), packet.frame.len() - start);
        }
        let mut differences = Vec::new();
        let expected = match (packet.way, verdict.action) {
            (Way::In, Action::Pass) => XDP_PASS,
            (Way::In, Action::Drop) => XDP_DROP,
            (Way::Out, Action::Pass) => TC_GO_ON,
            (Way::Out, Action::Drop) => TC_SHOT,
        };
        if seen.returned != expected {
            differences.push(format!(
                "the kernel returned {}, not {expected}",
                seen.returned
            ));
        }
        differences.extend(compare_copy(packet, &verdict, seen.record.as_deref()));
        match care {
            Care::Thorough => differences.extend(self.compare_everything(host)?),
            Care::Quick => {
                differences.extend(self.compare_count(host, Counter::Reason(verdict.reason))?);
                for (slot, (before, now)) in (0..).zip(slots.iter().zip(&host.tables.slots)) {
                    if *before != now.counts() {
                        differences.extend(self.compare_slot(host, slot)?);
                    }
                }
            }
        }
        if differences.is_empty() {
            *tally
                .counts
                .entry(Counter::Reason(verdict.reason))
                .or_default() += 1;
            return Ok(Outcome::Agreed);
        }
        let mut text = format!(
            "the host says {} ({:?}, copy from {:?})",
            verdict.reason.name(),
            verdict.action,
            verdict.copy_from()
        );
        for difference in differences {
            text.push_str("; ");
            text.push_str(&difference);
        }
        Ok(Outcome::Differs(text))
    }

    /// What the program returns; `None` where the kernel takes no such packet.
    fn test_run(&mut self, packet: &Packet) -> Result<Option<u32>> {
        // A `__sk_buff` up to its tenth number, `ingress_ifindex`; the kernel takes the rest for zero.
        let mut context = [0; 40];
        context[36..].copy_from_slice(&packet.arrived_on.to_ne_bytes());
        let options = TestRunOptions {
            data_in: Some(&packet.frame),
            ctx_in: (packet.arrived_on != 0).then_some(&context),
            ..TestRunOptions::default()
        };
        let result = match packet.way {
            Way::In => self.datapath.ingress()?.test_run(options),
            Way::Out => self.datapath.egress()?.test_run(options),
        };
        match result {
            Ok(result) => Ok(Some(result.return_value)),
            // Newer kernels refuse socket buffers that end inside their IP header, as the network stack would never make them; and
            // frames larger than a page, which only `largest` tries.
            Err(_) if packet.way == Way::Out && packet.frame.len() < SHORTEST_IP => Ok(None),
            Err(_) if packet.frame.len() > LARGEST_IN_ONE_PIECE => Ok(None),
            Err(error) => Err(error).with_context(|| {
                format!("no test run with a frame of {} bytes", packet.frame.len())
            }),
        }
    }
}

/// What came of one packet.
enum Outcome {
    Agreed,
    Refused,
    Differs(String),
    Unclear,
}

impl Host {
    fn count(&mut self, counter: Counter, bytes: usize) {
        let count = self.counts.entry(counter).or_default();
        count.packets += 1;
        count.bytes += bytes as u64;
    }
}

/// The kernel's arrays have no place for a pinhole on an address that is not protected; the host's tables have, and never look there.
fn unless_stray(done: Result<(), MapError>) -> Result<()> {
    match done {
        Err(MapError::KeyNotFound) => Ok(()),
        done => Ok(done?),
    }
}

fn clear<K: aya::Pod, V: aya::Pod>(map: &mut HashMap<MapData, K, V>) -> Result<()> {
    let keys = map.keys().collect::<Result<Vec<_>, _>>()?;
    for key in keys {
        map.remove(&key)?;
    }
    ensure!(
        map.keys().next().is_none(),
        "a map that was emptied has entries"
    );
    Ok(())
}

/// A time of the generator's on this machine's clock.
fn moved(time: u64, start: u64) -> u64 {
    if time == 0 {
        0
    } else {
        time.wrapping_sub(ORIGIN).wrapping_add(start)
    }
}

/// The clock that the programs read, in nanoseconds.
fn coarse_now() -> u64 {
    let time = clock_gettime(ClockId::MonotonicCoarse);
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}
