//! What a pinhole is, outside the kernel: one local address and port, the sources that may reach it, and how long.
//!
//! The engine speaks of pinholes only in these types; their layout in the kernel's maps is `sipfilter_common::value`'s matter.

pub mod table;

use std::{
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    time::Duration,
};

use ipnet::IpNet;
use sipfilter_common::value::PayloadTypes;

use super::{CallNumber, settings::ProviderId};

/// The most sources that one pinhole can name (the kernel's table has a fixed number of places).
pub const MAX_SOURCES: usize = sipfilter_common::value::MAX_SOURCES;

/// One source of media: an address or prefix, and the ports it may send from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source {
    /// A single address (`/32`, `/128`), a provider's media prefix, or the whole family (`0.0.0.0/0`, `::/0`).
    pub net: IpNet,
    /// First and last source port.
    pub ports: (u16, u16),
}

impl Source {
    /// One address, ports in `ports`.
    pub fn host(address: IpAddr, ports: RangeInclusive<u16>) -> Self {
        Self {
            net: IpNet::from(address),
            ports: (*ports.start(), *ports.end()),
        }
    }
}

/// What may pass through a pinhole besides being from the right source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    /// RTP, and RTCP where it is multiplexed.
    Rtp,
    /// RTCP on a port of its own.
    Rtcp,
    /// T.38 over UDPTL.
    Udptl,
}

impl Stream {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Rtp, Self::Rtcp, Self::Udptl];

    /// A stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rtp => "rtp",
            Self::Rtcp => "rtcp",
            Self::Udptl => "udptl",
        }
    }
}

/// What else may pass on a stream's port (RFC 7983), because the negotiation needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Extras {
    /// STUN: both sides have ICE credentials (RFC 8445).
    pub stun: bool,
    /// DTLS: both sides have fingerprints (RFC 5763).
    pub dtls: bool,
}

impl Extras {
    /// What either needs.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            stun: self.stun || other.stun,
            dtls: self.dtls || other.dtls,
        }
    }

    /// What both have offered.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            stun: self.stun && other.stun,
            dtls: self.dtls && other.dtls,
        }
    }
}

/// What of a stream may pass, when it comes from the right source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// RTP's payload types; of no meaning for a stream that is not RTP.
    pub payload_types: PayloadTypes,
    /// RTCP may come on this port.
    pub rtcp: bool,
    /// The most packets per second in the long run; [`BURST`] bounds how many may come at once.
    pub packets_per_second: PacketRate,
}

impl Terms {
    /// No terms: whatever comes.
    pub const ANY: Self = Self {
        payload_types: PayloadTypes::ALL,
        rtcp: true,
        packets_per_second: PacketRate::UNLIMITED,
    };

    /// What either allows.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            payload_types: self.payload_types.or(other.payload_types),
            rtcp: self.rtcp || other.rtcp,
            packets_per_second: self.packets_per_second.max(other.packets_per_second),
        }
    }
}

/// Packets per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PacketRate(u32);

impl PacketRate {
    /// As many as come.
    pub const UNLIMITED: Self = Self(u32::MAX);

    /// So many, at least one.
    pub fn new(packets_per_second: u32) -> Self {
        Self(packets_per_second.clamp(1, u32::MAX - 1))
    }

    /// The number; `None` for no limit.
    pub fn number(self) -> Option<u32> {
        (self != Self::UNLIMITED).then_some(self.0)
    }
}

/// What may come at once, in time: after a stall of the network this much of a stream arrives in one burst, and none of it is to be
/// lost. Ten seconds, and something for the kernel's coarse clock.
pub const BURST: Duration = Duration::from_millis(10_500);

/// Which arming of a latch this is. Another number than before orders the kernel to forget the source that it has latched to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Arming {
    /// The newest call that the pinhole is for.
    pub call: CallNumber,
    /// How often its offers and answers have settled.
    pub turn: u32,
}

/// One pinhole as the calls that share its local address and port want it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinhole {
    /// The protected address and port, as packets from outside carry them. The key: there is one pinhole for each.
    pub local: SocketAddr,
    /// Who may send, sorted, without duplicates, at least one and at most [`MAX_SOURCES`].
    pub sources: Vec<Source>,
    /// What kind of stream was negotiated.
    pub stream: Stream,
    /// What else may pass.
    pub extras: Extras,
    /// What of the stream may pass.
    pub terms: Terms,
    /// The first of the sources that sends becomes the only one, until this changes.
    pub latch: Option<Arming>,
    /// Without a packet in either direction for this long, the kernel closes it.
    pub idle: Duration,
    /// Whose call it is.
    pub provider: ProviderId,
    /// The newest call that wants it.
    pub call: CallNumber,
    /// What that call is known by to daemons that come after this one.
    pub label: Label,
}

/// What a call is known by beyond the life of a process: a keyed hash of what every message of its dialogs carries. It lies beside each
/// of the call's pinholes in the kernel, so that a daemon that finds these can tell whose they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(pub u64);

impl Label {
    /// Nobody's, or several calls' at once: no message may close what others still use.
    pub const NONE: Self = Self(0);
}

/// What the shell must do to the kernel's pinholes. The local address and port is the key of all three.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PinholeAction {
    /// Open a pinhole that was not there.
    Open(Pinhole),
    /// Replace the contents of an open one, without a moment in which it is closed, and count its silence anew. It is also sent with
    /// unchanged contents: when signalling renews a call, and when a pinhole is silent while others of its call are not. Where the
    /// kernel has lost the pinhole meanwhile, it is to be put back.
    Update(Pinhole),
    /// Close it. It may not be there, where its `Open` was refused and both came of one input.
    Close {
        /// The key.
        local: SocketAddr,
        /// The call it belonged to.
        call: CallNumber,
    },
}

/// What became of a [`PinholeAction`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PinholeResult {
    /// Done.
    Done,
    /// The kernel's table is full.
    Full,
    /// The system refused.
    Failed,
}
