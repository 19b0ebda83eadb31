//! Open pinholes and their traffic.

use std::net::SocketAddr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sipfilter_common::value::PayloadTypes;

use crate::engine::pinhole;

/// One of `GET /v1/pinholes?after=ADDRESS:PORT&limit=N`, both as one likes: in the order of their places, those behind this one, at most
/// two thousand. Where there are more, the answer's `Link` header names the rest (`rel="next"`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Pinhole {
    /// The protected address and port.
    pub local: SocketAddr,
    /// Who may send.
    pub sources: Vec<Source>,
    /// `rtp`, `rtcp` or `udptl`.
    pub stream: String,
    /// RTP payload types that may come; `null` where they do not matter.
    #[serde(default)]
    pub payload_types: Option<Vec<u8>>,
    /// Whether RTCP may come on this port.
    #[serde(default)]
    pub rtcp: bool,
    /// Packets per second in the long run; `null` without a limit.
    #[serde(default)]
    pub packets_per_second: Option<u32>,
    /// `waiting`, the source that it has latched to, or `latched` where only a hash of that is known; `null` without a latch.
    #[serde(default)]
    pub latch: Option<String>,
    /// Its provider.
    pub provider: String,
    /// The call's number.
    pub call: u64,
    /// Closed after this long without a packet.
    pub idle_limit_seconds: f64,
    /// Since the last packet in either direction, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_seconds: Option<f64>,
    /// Packets that came in and passed.
    pub ingress_packets: u64,
    /// Packets that left.
    pub egress_packets: u64,
    /// Packets that came in and were dropped.
    pub dropped_packets: u64,
}

/// One of `GET /v1/pinholes/closed`: the last thousand or so, the oldest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ClosedPinhole {
    /// The protected address and port.
    pub local: SocketAddr,
    /// Who was allowed to send.
    pub sources: Vec<Source>,
    /// Its provider.
    pub provider: String,
    /// The call's number.
    pub call: u64,
    /// For how long it has been closed.
    pub closed_seconds: f64,
}

/// The numbers in a set of payload types.
pub fn payload_types(set: PayloadTypes) -> Vec<u8> {
    (0..128).filter(|&number| set.admits(number)).collect()
}

/// An address range and a port range, in words that `tcpdump` users read without thinking.
pub fn source_text(source: &Source) -> String {
    let net = &source.net;
    if net.prefix_len() == 0 {
        format!("any ports {}", source.ports)
    } else if net.prefix_len() == net.max_prefix_len() {
        format!("{} ports {}", net.addr(), source.ports)
    } else {
        format!("{net} ports {}", source.ports)
    }
}

/// Several of them.
pub fn sources_text(sources: &[Source]) -> String {
    let sources: Vec<String> = sources.iter().map(source_text).collect();
    sources.join(", ")
}

/// An address range and a port range.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Source {
    /// A prefix.
    #[schemars(with = "String")]
    pub net: IpNet,
    /// `first-last`.
    pub ports: String,
}

impl From<&pinhole::Source> for Source {
    fn from(source: &pinhole::Source) -> Self {
        Self {
            net: source.net,
            ports: format!("{}-{}", source.ports.0, source.ports.1),
        }
    }
}
