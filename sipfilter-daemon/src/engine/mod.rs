//! The engine: from captured signalling to pinholes, without I/O and without a clock.
//!
//! Call [`Engine::handle`] with each input or [`Engine::handle_timeout`] when a deadline passes, then [`Engine::poll_output`]
//! until it is empty, then [`Engine::poll_timeout`]. The stages are `decode` → `reassemble` → `sip` → `sdp` → `call` → `pinhole`;
//! each may name the types of the stages before it, never of one after it. Only `run` knows them all.
//!
//! It does not touch maps, sockets or files (`shell` does), and it never judges a media packet (the kernel does, by
//! `sipfilter_common::classify`).

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic
    )
)]

mod adopted;
pub mod call;
pub mod counters;
mod decode;
pub mod pinhole;
pub mod reassemble;
mod run;
pub mod sdp;
pub mod settings;
pub mod sip;
mod trunk;

use std::{net::SocketAddr, ops::Add, time::Duration};

use pinhole::{PinholeAction, PinholeResult};
use settings::ProviderId;

pub use call::message::{Aside, Form, Verb};
pub use call::view::{CallState, CallView, Endpoints};
pub use counters::Counters;
pub use run::Engine;

/// A point in time: what has passed since an origin that the shell chose (its monotonic clock).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(pub Duration);

impl Instant {
    /// Later than everything: no deadline at all.
    const FAR: Self = Self(Duration::MAX);

    /// What has passed since then; zero if that is to come.
    pub fn since(self, then: Self) -> Duration {
        self.0.saturating_sub(then.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

/// A call's number, given in order of appearance and never used twice in one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallNumber(pub u64);

/// Which way a packet went through the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// From outside, towards the PBX: what it carries is the remote side's word.
    Ingress,
    /// From the PBX (or the host it runs on), outwards: the local side's word.
    Egress,
}

impl Direction {
    /// The other way.
    pub fn opposite(self) -> Self {
        match self {
            Self::Ingress => Self::Egress,
            Self::Egress => Self::Ingress,
        }
    }

    /// What a call is that was begun this way, by a stable name: `inbound` if the provider makes it.
    pub fn call_name(self) -> &'static str {
        match self {
            Self::Ingress => "inbound",
            Self::Egress => "outbound",
        }
    }
}

/// Where a SIP message was seen: the addresses on the wire, and the way it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// Which way it went.
    pub direction: Direction,
    /// Source address and port on the wire.
    pub source: SocketAddr,
    /// Destination address and port on the wire.
    pub destination: SocketAddr,
}

/// What the shell tells the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input<'a> {
    /// A captured packet, from its IP header on.
    Packet {
        /// Which way it went.
        direction: Direction,
        /// The IP packet's bytes.
        bytes: &'a [u8],
        /// The kernel could copy only the beginning.
        truncated: bool,
    },
    /// What became of an `Open` or `Update` of this local address and port: each is answered once, in their order. There may be other
    /// inputs before it, and other actions on the same place.
    PinholeResult {
        /// The pinhole's key.
        local: SocketAddr,
        /// The outcome.
        result: PinholeResult,
    },
    /// The system refused to remove this pinhole. The engine is done with it; the shell tries until it is gone.
    PinholeNotClosed {
        /// The pinhole's key.
        local: SocketAddr,
    },
    /// No packet has used this pinhole for its idle limit: the kernel has closed it.
    PinholeIdle {
        /// The pinhole's key.
        local: SocketAddr,
    },
    /// Copies of signalling that were lost between the kernel and the engine.
    CaptureLost {
        /// How many packets since the last such input.
        packets: u64,
    },
    /// The operator ends a call's pinholes.
    EndCall(CallNumber),
}

/// What the engine tells the shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Carry this out, and answer an `Open` or `Update` with [`Input::PinholeResult`].
    Pinhole(PinholeAction),
    /// Worth a log line.
    Event(Event),
}

/// What happened, for logs and the call record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A call's first INVITE.
    CallStarted {
        /// The call.
        call: CallNumber,
        /// Its Call-ID.
        call_id: String,
        /// Its provider.
        provider: ProviderId,
        /// Who sent the INVITE.
        direction: Direction,
    },
    /// A message of a call, before anything that follows from it. Copies of a message are messages too.
    Message {
        /// The call.
        call: CallNumber,
        /// What it was.
        message: MessageSummary,
    },
    /// A call's message named another call.
    Related {
        /// The call.
        call: CallNumber,
        /// In which way.
        relation: Relation,
        /// The Call-ID, or the header's value.
        value: String,
    },
    /// A 2xx to its first INVITE.
    CallConfirmed {
        /// The call.
        call: CallNumber,
    },
    /// It is over; its pinholes are closed.
    CallEnded {
        /// The call.
        call: CallNumber,
        /// Why.
        reason: EndReason,
    },
    /// Something was refused: whose fault, and what.
    Refused {
        /// The call, where one is concerned.
        call: Option<CallNumber>,
        /// Why.
        refusal: Refusal,
    },
}

/// A message as a call's record tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageSummary {
    /// Who sent it.
    pub sender: Direction,
    /// Request or response.
    pub form: Form,
    /// Its method, or the method that it answers.
    pub verb: Verb,
    /// Whether it brought SDP.
    pub has_sdp: bool,
    /// How long it says the session lasts without a refresh, in seconds (RFC 4028).
    pub session_expires: Option<u32>,
}

/// How a message names another call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Relation {
    /// The INVITE takes the place of the call with this Call-ID (RFC 3891), which ends by its own BYE.
    Replaces,
    /// The INVITE, or the REFER that asks for it, is by order of this party (RFC 3892).
    ReferredBy,
    /// The REFER asks for a call to this party (RFC 3515).
    ReferTo,
}

/// Why a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndReason {
    /// BYE by this side.
    Bye(Direction),
    /// CANCEL and its 487.
    Cancelled,
    /// A final error answer to the INVITE.
    Rejected(u16),
    /// No final answer in time.
    NoAnswer,
    /// No ACK to the 200 in time.
    NoAck,
    /// All of its pinholes went idle.
    Idle,
    /// The operator's order.
    Operator,
    /// Its provider is in the configuration no more.
    ProviderRemoved,
    /// Nobody on our side had answered it, and its place was needed for a newer call.
    Shed,
}

/// Why something was refused, sorted by fault. Each is a counter (see [`Refusal::name`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// Peer's fault: not SIP, or SIP that breaks a rule the engine depends on.
    MalformedSip,
    /// Peer's fault: an SDP body that cannot be read.
    MalformedSdp,
    /// Peer's fault: SDP of the PBX names an address that is not the PBX's own.
    ForeignLocalAddress,
    /// Peer's fault: SDP of the PBX names a port outside its RTP range.
    ForeignLocalPort,
    /// Peer's fault: SDP of the provider names media outside the provider's limits.
    ForeignRemoteMedia,
    /// Peer's fault: a message that claims a dialog it does not belong to.
    WrongDialog,
    /// Nobody's fault, or a peer's: a message of a dialog whose beginning was not seen (it is older than this run, was shed by a
    /// limit, or never was).
    UnknownDialog,
    /// Peer's fault: neither end of the packet is a provider's signalling address.
    UnknownPeer,
    /// Unsupported: SIP over TLS cannot be read.
    Tls,
    /// Unsupported: a host name where an address is needed.
    HostName,
    /// The kernel's copy was cut short.
    Truncated,
    /// Limit reached: calls in total.
    TooManyCalls,
    /// Limit reached: calls of one provider.
    TooManyCallsOfProvider,
    /// Limit reached: dialogs of one call.
    TooManyDialogs,
    /// Limit reached: media descriptions of one session description.
    TooManyMedia,
    /// Limit reached: sources of one pinhole.
    TooManySources,
    /// Limit reached: pinholes in total, or the kernel's table.
    TooManyPinholes,
    /// Our fault or the system's: the shell could not carry an action out.
    ActionFailed,
}
