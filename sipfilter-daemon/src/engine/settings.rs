//! What the engine must know of the configuration: addresses, port ranges, providers, limits and timers.
//!
//! Plain checked data, made by `config`; nothing here reads a file or names a configuration key.

use std::{collections::BTreeMap, net::IpAddr, ops::RangeInclusive, time::Duration};

use ipnet::IpNet;

/// Everything that the engine is told once, at its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The PBX, as the outside sees it.
    pub pbx: Pbx,
    /// The trunks' providers. The index into this list is the provider's number ([`ProviderId`]) everywhere.
    pub providers: Vec<Provider>,
    /// Caps on every table.
    pub limits: Limits,
    /// How long things last.
    pub timers: Timers,
    /// How the packet policy is applied.
    pub filtering: Filtering,
}

/// How the packet policy is applied. The engine does not look at it: what it opens is the same in every mode.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filtering {
    /// Whether drops are carried out.
    pub enforcement: Enforcement,
    /// Whether more than voice is judged.
    pub scope: Scope,
    /// Whether what leaves is dropped, too.
    pub egress: Egress,
    /// Whether media may come before the daemon has read of it.
    pub provisional: Provisional,
}

/// Whether the ports that the PBX's SDP names may receive the provider's media for the moment until the daemon has read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Provisional {
    /// They may.
    #[default]
    On,
    /// They have to wait.
    Off,
}

/// What becomes of SIP to strangers, and of media to where no provider's limits reach, on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Egress {
    /// It is counted.
    #[default]
    Count,
    /// It is dropped.
    Enforce,
}

/// Whether drops are carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Enforcement {
    /// They are.
    #[default]
    Enforce,
    /// Everything is judged and counted, nothing is dropped.
    Observe,
}

/// How far the filter reaches.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Scope {
    /// Voice alone.
    #[default]
    Voice,
    /// Everything to a protected address: what is neither voice nor on this list is dropped.
    Strict(Vec<Allow>),
}

/// One line of the allow-list of strict scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allow {
    /// IANA protocol number.
    pub protocol: u8,
    /// Destination ports, for UDP and TCP; empty for every other protocol.
    pub ports: Vec<RangeInclusive<u16>>,
    /// Where it may come from; empty for anywhere.
    pub from: Vec<IpNet>,
}

/// A provider's index in [`Settings::providers`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProviderId(pub u16);

/// The protected side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pbx {
    /// Protected addresses: the ones that packets from outside carry as destination.
    pub addresses: Vec<IpAddr>,
    /// Local UDP ports that SDP from the PBX may name for RTP and RTCP.
    pub rtp_ports: RangeInclusive<u16>,
    /// Local UDP ports that SDP from the PBX may name for T.38 (UDPTL), where the PBX has a range of its own for them.
    pub udptl_ports: Option<RangeInclusive<u16>>,
    /// Addresses that the PBX writes into its SDP, and the protected address that each stands for outside (NAT).
    pub nat: BTreeMap<IpAddr, IpAddr>,
    /// Ports on which the PBX takes SIP.
    pub signalling: SignallingPorts,
}

/// SIP ports by transport.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignallingPorts {
    /// SIP over UDP.
    pub udp: Vec<u16>,
    /// SIP over TCP.
    pub tcp: Vec<u16>,
    /// SIP over TLS.
    pub tls: Vec<u16>,
}

/// A SIP transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// SIP over UDP.
    Udp,
    /// SIP over TCP.
    Tcp,
    /// SIP over TLS: passed, never read.
    Tls,
}

/// One provider of trunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// The name that the configuration and every report use.
    pub name: String,
    /// Prefixes from which its SIP comes.
    pub signalling: Vec<IpNet>,
    /// Transports that it may use.
    pub transports: Vec<Transport>,
    /// Its own SIP ports: the destination of what the PBX sends to it.
    pub signalling_ports: SignallingPorts,
    /// Where its media may come from.
    pub media: Media,
    /// When media may arrive for a call that the PBX made.
    pub early_media: EarlyMedia,
    /// How much SIP each of its addresses may send.
    pub rates: SignallingRates,
}

/// Packets that one source address may send in a second. The kernel drops what is more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignallingRates {
    /// Datagrams with requests that can begin something (INVITE, REGISTER, OPTIONS, …), or with what is no SIP.
    pub requests: u32,
    /// Datagrams with responses and with requests that belong to something begun (ACK, BYE, CANCEL, …).
    pub messages: u32,
    /// TCP segments, of TLS too.
    pub segments: u32,
}

/// Where a provider's media may come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media {
    /// How the allowed source follows from the SDP.
    pub source: MediaSource,
    /// The provider's own RTP ports: the *source* ports of what arrives.
    pub ports: RangeInclusive<u16>,
    /// The provider's media prefixes; empty where it publishes none. Where there are some, every source must lie in them.
    pub prefixes: Vec<IpNet>,
    /// Its ports from which replies to packets of the PBX's own may come without a pinhole; empty for none.
    pub replies: Vec<RangeInclusive<u16>>,
    /// The most packets per second of one stream; `None` for what its negotiation calls for.
    pub packets_per_second: Option<u32>,
}

/// How the allowed source of a stream follows from the provider's SDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaSource {
    /// The SDP's address, any port in the provider's range.
    Signalled,
    /// The SDP's address and port.
    Exact,
    /// Any address in the provider's media prefixes, any port in its range.
    Prefix,
    /// The first one that sends, of any address in the provider's media prefixes (any at all where it has none) and any port in its
    /// range, until signalling settles anew.
    Latch,
}

/// When a stream that the PBX offered may first receive media.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EarlyMedia {
    /// As soon as the PBX's offer is out, from anywhere in the provider's limits, until an answer narrows it.
    OnOffer,
    /// Once the provider's SDP has arrived.
    OnAnswer,
}

/// Caps. What does not fit is refused and counted; a confirmed call is never given up for a new one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Calls at once, over all providers.
    pub calls: usize,
    /// Calls at once for one provider.
    pub calls_per_provider: usize,
    /// Dialogs in one call (forking).
    pub dialogs_per_call: usize,
    /// Media descriptions in one SDP.
    pub media_per_session: usize,
    /// Pinholes at once.
    pub pinholes: usize,
}

/// How long things last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timers {
    /// A pinhole without a packet for this long closes.
    pub media_idle: Duration,
    /// The same while the call is on hold.
    pub hold_idle: Duration,
    /// How long an INVITE may stay without a final answer (RFC 3261 timer C is at least three minutes).
    pub invite: Duration,
    /// How long a 200 may stay without its ACK (RFC 3261 §13.3.1.4: 64*T1).
    pub ack: Duration,
    /// How long an ended call is remembered, so that late retransmissions open nothing.
    pub linger: Duration,
}

/// Far above what a thousand calls a second take (one INVITE and half a dozen other messages each).
impl Default for SignallingRates {
    fn default() -> Self {
        Self {
            requests: 4_000,
            messages: 16_000,
            segments: 32_000,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            calls: 20_000,
            calls_per_provider: 10_000,
            dialogs_per_call: 16,
            media_per_session: 16,
            pinholes: 65_536,
        }
    }
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            media_idle: Duration::from_secs(300),
            hold_idle: Duration::from_secs(3_600),
            invite: Duration::from_secs(300),
            ack: Duration::from_secs(32),
            linger: Duration::from_secs(32),
        }
    }
}

impl Default for SignallingPorts {
    fn default() -> Self {
        Self {
            udp: vec![5060],
            tcp: vec![5060],
            tls: vec![5061],
        }
    }
}
