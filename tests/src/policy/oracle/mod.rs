//! The host's policy as the oracle of the kernel's programs: the same packets against the same tables, one after the other, and after
//! each of them both must have come to the same.
//!
//! Compared are, after each packet, what the program returns, the counter of the reason, the copy in the ring buffer, and every slot
//! that the host has touched; at the end of an episode, or after each packet where a difference is looked for, all counters, slots,
//! first fragments and flows. Nothing here says what is right: that is what the table of cases is for.
//!
//! **The clock** is the kernel's and cannot be set, but it is coarse and can be read: where it shows the same before and after a test
//! run, it showed that to the program too, and the host judges by exactly this time. So idle limits, budgets and time stamps are
//! compared to the nanosecond. Where a tick lies between, the host tries both times, and those that the program left in the tables; a
//! packet that agrees with none of them ends its episode and is counted as unclear, of which there may be few.

mod compare;
mod machine;
mod shrink;

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
};

use anyhow::Result;
use sipfilter_common::reason::Counter;
use sipfilter_daemon::shell::policy::KernelPolicy;

use super::generate::{Load, Step, Tables};

pub use self::machine::{Care, Machine};

/// Packets of an episode: so many meet the same tables.
const EPISODE: usize = 250;

/// Packets of a load of the programs.
const LOAD: usize = 2_500;

/// What was compared.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Packets on which both agreed.
    pub packets: usize,
    /// Packets that the kernel takes in no test run: socket buffers that end inside their IP header.
    pub refused: usize,
    /// Packets that a tick of the clock fell upon.
    pub on_a_tick: usize,
    /// Episodes that were given up because no time explains what the kernel did: several ticks fell upon one packet.
    pub unclear: usize,
    /// By counter.
    pub counts: BTreeMap<Counter, usize>,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.packets += other.packets;
        self.refused += other.refused;
        self.on_a_tick += other.on_a_tick;
        self.unclear += other.unclear;
        for (counter, count) in other.counts {
            *self.counts.entry(counter).or_default() += count;
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} packets, {} on a tick, {} unclear, {} refused;",
            self.packets, self.on_a_tick, self.unclear, self.refused
        )?;
        for (counter, count) in &self.counts {
            write!(f, " {} {count}", counter.name())?;
        }
        Ok(())
    }
}

/// Where host and kernel came to different ends.
#[derive(Debug, Clone)]
pub struct Difference {
    /// The step after which it was found.
    pub step: usize,
    /// What differs.
    pub text: String,
}

/// What ends a comparison.
#[derive(Debug)]
pub enum Failure {
    /// Host and kernel disagree; the text says how to see it again.
    Difference(String),
    /// It could not be made.
    Broken(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Broken(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Difference(text) => f.write_str(text),
            Self::Broken(error) => write!(f, "the comparison could not be made: {error:#}"),
        }
    }
}

/// Compares at least so many packets, of as many loads as that takes, each with the seed that follows the one before.
///
/// # Errors
/// The first difference, made as small as it gets.
pub fn compare(seed: u64, packets: usize) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    let mut seed = seed;
    while tally.packets < packets {
        let wanted = LOAD.min(packets - tally.packets);
        tally.add(compare_load(seed, wanted)?);
        seed = seed.wrapping_add(1);
    }
    Ok(tally)
}

fn compare_load(seed: u64, packets: usize) -> Result<Tally, Failure> {
    let mut load = Load::new(seed);
    let mut machine = Machine::load(&load.policy)?;
    let mut tally = Tally::default();
    let mut episodes = 0;
    while tally.packets < packets && episodes < 2 * LOAD / EPISODE {
        let (tables, steps) = load.episode(machine.sizes, EPISODE);
        match machine.run(&tables, &steps, Care::Quick)? {
            Ok(compared) => tally.add(compared),
            Err(found) => {
                let scene = Scene {
                    policy: load.policy,
                    tables,
                    steps,
                };
                return Err(Failure::Difference(report(seed, &scene, &found)));
            }
        }
        episodes += 1;
    }
    Ok(tally)
}

/// All that leads to a difference.
#[derive(Debug, Clone)]
pub struct Scene {
    /// What was loaded.
    pub policy: KernelPolicy,
    /// What was in the maps.
    pub tables: Tables,
    /// What happened.
    pub steps: Vec<Step>,
}

fn report(seed: u64, scene: &Scene, found: &Difference) -> String {
    let mut text = format!(
        "host and kernel disagree; SIPFILTER_ORACLE_SEED={seed} shows it again\n{} (step {})\n",
        found.text, found.step
    );
    match shrink::shrink(scene, found) {
        Ok(Some((small, difference))) => {
            // Writing to a string cannot fail.
            let _ = write!(text, "\nas small as it gets: {}\n{small}", difference.text);
        }
        Ok(None) => {
            let _ = write!(
                text,
                "\nit did not show again on the same tables, so it depends on the time:\n{scene}"
            );
        }
        Err(error) => {
            let _ = write!(text, "\nit could not be made smaller: {error:#}\n{scene}");
        }
    }
    text
}

impl fmt::Display for Scene {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let policy = &self.policy;
        writeln!(f, "settings: {:?}", policy.settings)?;
        for (prefix, rule) in &policy.providers {
            writeln!(f, "provider {prefix}: {rule:?}")?;
        }
        for (prefix, list) in &policy.allowed {
            writeln!(f, "allowed {prefix}: {list:?}")?;
        }
        for (prefix, limits) in &policy.media {
            writeln!(f, "media {prefix}: {limits:?}")?;
        }
        for pinhole in &self.tables.pinholes {
            writeln!(f, "pinhole: {pinhole:?}")?;
        }
        for (slot, counts) in &self.tables.slots {
            writeln!(f, "slot {slot}: {counts:?}")?;
        }
        for step in &self.steps {
            match step {
                Step::Packet(packet) => {
                    let way = packet.way;
                    write!(f, "packet {way:?} from interface {}: ", packet.arrived_on)?;
                    for byte in &packet.frame {
                        write!(f, "{byte:02x}")?;
                    }
                    writeln!(f)?;
                }
                other => writeln!(f, "{other:?}")?,
            }
        }
        Ok(())
    }
}
