//! Who was dropped, and who knocks: `GET /v1/drops` and `GET /v1/strangers`.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `GET /v1/drops`. What is told of sources rests on samples; what is told of reasons is counted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Drops {
    /// Since when: the start of the daemon, UTC, RFC 3339.
    pub since: String,
    /// What of it was asked for; without it, everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chosen: Option<Chosen>,
    /// What was dropped, by reason, most first; reasons without a packet are left out. These are counts of all packets: they can be
    /// chosen by reason, but addresses and calls do not narrow them.
    pub reasons: Vec<DroppedReason>,
    /// By source and reason, most first. Where calls were chosen, only those packets of each that nearly belonged to one of them.
    pub sources: Vec<DroppedSource>,
    /// Sources that are not shown or not remembered any more.
    pub more_sources: u64,
    /// Those among them that are not remembered any more. Whether they were asked for, nobody can tell.
    #[serde(default)]
    pub forgotten_sources: u64,
    /// Packets that were looked at and nearly belonged to the chosen calls, or may have, and are in no row, because there was no more
    /// room for them.
    #[serde(default)]
    pub left_out_samples: u64,
}

/// What was asked for. Of several kinds, each must fit; of one kind, any.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Default)]
pub struct Chosen {
    /// Sources in these networks, or that hold one of them (a source of IPv6 is a /64); empty: all.
    #[schemars(with = "Vec<String>")]
    pub addresses: Vec<IpNet>,
    /// What nearly belonged to these calls, by their numbers; empty: all.
    pub calls: Vec<u64>,
    /// For these reasons; empty: for any.
    pub reasons: Vec<String>,
}

/// One reason's packets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DroppedReason {
    /// The reason.
    pub reason: String,
    /// `drop`, or `would drop` where nothing is enforced.
    pub verdict: String,
    /// All packets.
    pub packets: u64,
    /// Those among them that were looked at.
    pub samples: u64,
}

/// One source's packets of one reason.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DroppedSource {
    /// The address; of IPv6 the /64, unless calls were chosen.
    #[schemars(with = "String")]
    pub source: IpNet,
    /// The reason.
    pub reason: String,
    /// About how many packets: samples, each worth what was not sampled at the time.
    pub packets: u64,
    /// Packets that were looked at.
    pub samples: u64,
    /// The first of them: UTC, RFC 3339.
    pub first_seen: String,
    /// The last of them.
    pub last_seen: String,
    /// Where the last one went; port 0 where it has none.
    pub destination: Option<SocketAddr>,
    /// The call that one of them nearly belonged to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub near: Option<Near>,
}

/// The pinhole that came nearest to a dropped packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Near {
    /// Its call's number.
    pub call: u64,
    /// Its local address and port.
    pub pinhole: SocketAddr,
    /// `same_port` (it is there, and did not let this in), `closed` (it was there a moment ago), `next_port`, `other_address`
    /// (the same port of another protected address) or `other_port` (it expects media from the packet's address).
    pub how: String,
}

/// `GET /v1/strangers`: SIP from addresses that are no provider's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Strangers {
    /// Since when: the start of the daemon, UTC, RFC 3339.
    pub since: String,
    /// All their packets (`unknown_source`).
    pub packets: u64,
    /// Those among them that were looked at.
    pub samples: u64,
    /// Those that claim a provider's domain first, of your own providers before others; then most first.
    pub strangers: Vec<Stranger>,
    /// Strangers that are not shown or not remembered any more.
    pub more_strangers: u64,
}

/// What comes from one network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Stranger {
    /// A /24, of IPv6 a /48.
    #[schemars(with = "String")]
    pub network: IpNet,
    /// The provider whose domain its messages claim. Anybody can claim it; a provider whose addresses have changed does, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claims: Option<String>,
    /// That provider is one of your trunks'.
    pub is_trunk: bool,
    /// What to do, where it claims a provider's domain; said by `sipfilterctl`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    /// About how many packets.
    pub packets: u64,
    /// Packets that were looked at.
    pub samples: u64,
    /// Messages among the samples, by method; `-` is what is no SIP, or the end of a TCP message.
    pub methods: BTreeMap<String, u64>,
    /// User-Agents, the first few.
    pub user_agents: Vec<String>,
    /// Domains that it claims, the first few.
    pub domains: Vec<String>,
    /// Addresses, the first few.
    #[schemars(with = "Vec<String>")]
    pub addresses: Vec<IpAddr>,
    /// The first sample: UTC, RFC 3339.
    pub first_seen: String,
    /// The last one.
    pub last_seen: String,
}
