//! Tables and packets from a seed, such that every rule of the policy is met from both sides.
//!
//! Addresses and ports come from small pools, so that packets hit the tables' entries and one another's state. Nothing here knows
//! what becomes of a packet: that is what the host and the kernel are asked.
//!
//! Times are told as if an episode began at [`ORIGIN`]; whoever runs it moves them to its own clock.

mod packets;
mod tables;

use std::net::{Ipv4Addr, Ipv6Addr};

use sipfilter_common::{reader::Reader, slot::SlotCounts};
use sipfilter_daemon::shell::policy::{KernelPinhole, KernelPolicy};

use super::{cases::Way, random::Random};

pub use self::{packets::steps, tables::policy};

/// When an episode begins, in its own times. A time of 0 means never and stays so.
pub const ORIGIN: u64 = 1 << 62;

/// Slots of each table. Few, because every one is compared.
pub const SLOTS: u32 = 24;

/// Everything that packets meet, besides the policy that was loaded.
#[derive(Debug, Clone, PartialEq)]
pub struct Tables {
    /// What is in the pinhole maps when the episode begins.
    pub pinholes: Vec<KernelPinhole>,
    /// What is in the slots, by number; the others are empty.
    pub slots: Vec<(u32, SlotCounts)>,
}

/// What happens next.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// A packet.
    Packet(Packet),
    /// User space writes a pinhole.
    Put(KernelPinhole),
    /// User space removes the pinhole on the same address and port.
    Remove(KernelPinhole),
    /// The clock goes on by some milliseconds.
    Wait(u64),
}

/// A packet before one of the programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Which program.
    pub way: Way,
    /// The frame.
    pub frame: Vec<u8>,
    /// On which interface it came in, if it leaves: 0 for none.
    pub arrived_on: u32,
}

impl Reader for Packet {
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.frame.as_slice().bytes(offset)
    }

    fn length(&self) -> usize {
        self.frame.len()
    }

    fn arrived_on(&self) -> u32 {
        self.arrived_on
    }
}

/// How large a frame may be that a test run takes and the program sees whole.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Before XDP.
    pub ingress: usize,
    /// Before TC.
    pub egress: usize,
}

/// One load of the programs: a policy, and what happens under it.
#[derive(Debug, Clone)]
pub struct Load {
    /// The policy.
    pub policy: KernelPolicy,
    random: Random,
}

impl Load {
    /// The load of a seed.
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        Self {
            policy: policy(&mut random),
            random,
        }
    }

    /// The next episode: fresh tables, and about so many packets one after the other.
    pub fn episode(&mut self, sizes: Sizes, packets: usize) -> (Tables, Vec<Step>) {
        let tables = tables::tables(&mut self.random, &self.policy);
        let steps = steps(&mut self.random, &self.policy, &tables, sizes, packets);
        (tables, steps)
    }
}

fn pbx4(index: u8) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, 10 + index)
}

fn pbx6(index: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x10 + index)
}

fn far4(random: &mut Random) -> Ipv4Addr {
    match random.below(20) {
        0 => Ipv4Addr::from_bits(random.number() as u32),
        1..=13 => Ipv4Addr::new(198, 51, 100, random.byte() % 16),
        _ => Ipv4Addr::new(192, 0, 2, random.byte() % 4),
    }
}

fn far6(random: &mut Random) -> Ipv6Addr {
    let last = random.number() as u16 % 8;
    match random.below(20) {
        0 => Ipv6Addr::from_bits(u128::from(random.number()) << 64 | u128::from(random.number())),
        1..=13 => Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, last),
        _ => Ipv6Addr::new(0x2001, 0xdb8, 3, last % 2, 0, 0, 0, last),
    }
}

/// Ports that rules name, and their neighbours.
const PORTS: [u16; 24] = [
    0, 1, 22, 53, 67, 68, 443, 546, 547, 3478, 4000, 5059, 5060, 5061, 5062, 5080, 9999, 10_000,
    10_015, 10_016, 33_000, 40_000, 45_000, 65_535,
];

fn port(random: &mut Random) -> u16 {
    match random.below(10) {
        0 => random.number() as u16,
        1..=4 => 10_000 + random.number() as u16 % 18,
        _ => random.pick(&PORTS),
    }
}

fn far_port(random: &mut Random) -> u16 {
    match random.below(4) {
        0 => port(random),
        1 => random.pick(&[5060, 5061, 5080, 3478]),
        _ => 40_000 + random.number() as u16 % 6,
    }
}
