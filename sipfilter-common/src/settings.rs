//! Load-time constants: what does not change while a program is loaded, so that the verifier can fold it into the code.
//!
//! Every field is read by [`constant`], a volatile load: the compiler must not fold the zeros that stand in the object file,
//! while the kernel's verifier, which sees the frozen section, prunes what the loaded values rule out.

use crate::{
    addr::{Ipv4, Ipv6},
    place::Place,
    reason::{Action, Reason},
};

/// Protected addresses per family.
pub const MAX_PROTECTED: usize = 16;
/// Outer interfaces whose packets are told from the PBX's own on their way out.
pub const MAX_OUTER: usize = 8;
/// SIP ports per transport.
pub const MAX_PORTS: usize = 4;

/// A transport of SIP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum Transport {
    /// SIP over UDP.
    Udp = 0,
    /// SIP over TCP.
    Tcp = 1,
    /// SIP over TLS over TCP.
    Tls = 2,
}

impl Transport {
    /// Its bit in [`crate::value::ProviderRule::transports`].
    #[inline(always)]
    pub const fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// A port range; `min` above `max` is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct PortRange {
    /// First port.
    pub min: u16,
    /// Last port.
    pub max: u16,
}

/// SIP ports of one side, by transport; 0 fills unused places, which come last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Ports {
    /// SIP over UDP.
    pub udp: [u16; MAX_PORTS],
    /// SIP over TCP.
    pub tcp: [u16; MAX_PORTS],
    /// SIP over TLS.
    pub tls: [u16; MAX_PORTS],
}

/// A deviation from how the policy is applied by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum Mode {
    /// Everything is judged and counted, nothing is dropped.
    Observe = 1,
    /// What is neither voice nor allowed is dropped.
    Strict = 1 << 1,
    /// Some provider's replies may come to media ports without a pinhole.
    Replies = 1 << 2,
    /// What leaves is dropped where the rules call for it, not only counted.
    EnforceEgress = 1 << 3,
    /// What the PBX's SDP names may receive media for a moment before the daemon has read it.
    Provisional = 1 << 4,
}

/// The modes that are on, one bit each ([`Mode`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct Modes(u16);

impl Modes {
    /// None: the rules are enforced, on voice alone.
    pub const DEFAULT: Self = Self(0);

    /// These and one more.
    #[must_use]
    pub const fn with(self, mode: Mode) -> Self {
        Self(self.0 | mode as u16)
    }

    /// Whether a mode is on.
    #[inline(always)]
    pub const fn has(self, mode: Mode) -> bool {
        self.0 & mode as u16 != 0
    }

    /// What the rules call for, whether or not they are enforced.
    #[inline(always)]
    pub const fn ruling(self, reason: Reason) -> Action {
        match reason {
            Reason::EgressForeignSignalling | Reason::EgressForeignMedia | Reason::EgressForged
                if !self.has(Mode::EnforceEgress) =>
            {
                Action::Pass
            }
            _ => reason.action(),
        }
    }

    /// What becomes of a packet.
    #[inline(always)]
    pub const fn action(self, reason: Reason) -> Action {
        match self.ruling(reason) {
            Action::Drop if !self.has(Mode::Observe) => Action::Drop,
            _ => Action::Pass,
        }
    }
}

/// The policy's constants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Settings {
    /// How many of `protected4` count.
    pub protected4_count: u32,
    /// How many of `protected6` count.
    pub protected6_count: u32,
    /// Protected IPv4 addresses.
    pub protected4: [Ipv4; MAX_PROTECTED],
    /// Protected IPv6 addresses.
    pub protected6: [Ipv6; MAX_PROTECTED],
    /// The PBX's RTP ports.
    pub rtp: PortRange,
    /// The PBX's UDPTL ports, where they are apart.
    pub udptl: PortRange,
    /// SIP ports of the PBX.
    pub pbx: Ports,
    /// SIP ports of the providers, all together.
    pub providers: Ports,
    /// Indices of the outer interfaces, where nothing of the PBX's comes in; 0 fills unused places, which come last.
    pub outer: [u32; MAX_OUTER],
    /// How the policy is applied.
    pub modes: Modes,
    /// Fills up to the alignment of 8 of what follows.
    pub zero: [u16; 3],
    /// Key of the hash that latches remember IPv6 sources by: random, and no part of what the operator has configured.
    pub latch_key: [u64; 2],
}

impl Settings {
    /// No address is protected: everything passes.
    pub const EMPTY: Self = Self {
        protected4_count: 0,
        protected6_count: 0,
        protected4: [Ipv4::from_bytes([0; 4]); MAX_PROTECTED],
        protected6: [Ipv6::from_bytes([0; 16]); MAX_PROTECTED],
        rtp: PortRange { min: 1, max: 0 },
        udptl: PortRange { min: 1, max: 0 },
        pbx: Ports {
            udp: [0; MAX_PORTS],
            tcp: [0; MAX_PORTS],
            tls: [0; MAX_PORTS],
        },
        providers: Ports {
            udp: [0; MAX_PORTS],
            tcp: [0; MAX_PORTS],
            tls: [0; MAX_PORTS],
        },
        outer: [0; MAX_OUTER],
        modes: Modes::DEFAULT,
        zero: [0; 3],
        latch_key: [0; 2],
    };

    /// The modes, as loaded.
    #[inline(always)]
    pub fn modes(&self) -> Modes {
        constant(&self.modes)
    }

    /// Whether it can be told at all what came in from outside; then [`Settings::is_outer`] tells.
    #[inline(always)]
    pub fn knows_outer(&self) -> bool {
        constant(&self.outer[0]) != 0
    }

    /// Whether the interface of this index is an outer one.
    #[inline(always)]
    pub fn is_outer(&self, interface: u32) -> bool {
        interface != 0 && self.outer.iter().any(|outer| constant(outer) == interface)
    }

    /// How many places there are.
    pub const fn places(&self) -> u32 {
        (self.protected4_count + self.protected6_count) << 16
    }

    #[inline(always)]
    pub(crate) fn index4(&self, address: Ipv4) -> Option<u32> {
        let place = place_of(&self.protected4, constant(&self.protected4_count), address);
        place.map(|place| place.0)
    }

    #[inline(always)]
    pub(crate) fn index6(&self, address: Ipv6) -> Option<u32> {
        let place = place_of(&self.protected6, constant(&self.protected6_count), address);
        place.map(|place| constant(&self.protected4_count) + place.0)
    }

    /// What is known of a local port without a pinhole, before anything has come there.
    pub fn empty_place(&self, port: u16) -> Place {
        if self.pbx.is_udp(port) {
            Place::SIGNALLING
        } else if self.is_media_port(port) {
            Place::MEDIA
        } else {
            Place::OTHER
        }
    }

    /// Whether media may be negotiated for this local port.
    #[inline(always)]
    pub fn is_media_port(&self, port: u16) -> bool {
        self.rtp.contains(port) || self.udptl.contains(port)
    }
}

/// An address family's list of protected addresses.
pub trait Protects<A> {
    /// The place in the list of an address whose packets are ours to judge.
    fn protected(&self, address: A) -> Option<Protected>;

    /// Whether packets to this address are ours to judge.
    #[inline(always)]
    fn is_protected(&self, address: A) -> bool {
        self.protected(address).is_some()
    }
}

/// The place of a protected address among those of its family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protected(pub u32);

impl Protects<Ipv4> for Settings {
    #[inline(always)]
    fn protected(&self, address: Ipv4) -> Option<Protected> {
        place_of(&self.protected4, constant(&self.protected4_count), address)
    }
}

impl Protects<Ipv6> for Settings {
    #[inline(always)]
    fn protected(&self, address: Ipv6) -> Option<Protected> {
        place_of(&self.protected6, constant(&self.protected6_count), address)
    }
}

impl PortRange {
    /// Whether the port lies in the range.
    #[inline(always)]
    pub fn contains(&self, port: u16) -> bool {
        port >= constant(&self.min) && port <= constant(&self.max)
    }
}

impl Ports {
    /// Whether `port` is one for SIP over UDP.
    #[inline(always)]
    pub fn is_udp(&self, port: u16) -> bool {
        is_port(&self.udp, port)
    }

    /// The transport that `port` stands for on TCP, if it is one for SIP.
    #[inline(always)]
    pub fn over_tcp(&self, port: u16) -> Option<Transport> {
        if is_port(&self.tcp, port) {
            Some(Transport::Tcp)
        } else if is_port(&self.tls, port) {
            Some(Transport::Tls)
        } else {
            None
        }
    }
}

#[inline(always)]
fn place_of<A: Copy + Eq>(list: &[A; MAX_PROTECTED], count: u32, address: A) -> Option<Protected> {
    let [first, others @ ..] = list;
    if count == 0 {
        return None;
    }
    // Most hosts have one, whose packets shall not pay for a loop.
    if constant(first) == address {
        return Some(Protected(0));
    }
    for (index, protected) in (1..).zip(others) {
        if index >= count {
            return None;
        }
        if constant(protected) == address {
            return Some(Protected(index));
        }
    }
    None
}

#[inline(always)]
fn is_port(list: &[u16; MAX_PORTS], port: u16) -> bool {
    for candidate in list {
        let candidate = constant(candidate);
        if candidate == 0 {
            return false;
        }
        if candidate == port {
            return true;
        }
    }
    false
}

/// Reads a load-time constant.
#[inline(always)]
pub(crate) fn constant<T: Copy>(field: &T) -> T {
    // SAFETY: a reference is valid and aligned for reads.
    unsafe { core::ptr::read_volatile(field) }
}

const _: () = {
    assert!(size_of::<Settings>() == 8 + 64 + 256 + 8 + 24 + 24 + 4 * MAX_OUTER + 8 + 16);
    assert!(size_of::<Settings>().is_multiple_of(8));
};
