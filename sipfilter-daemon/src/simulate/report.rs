//! What a simulation found: the JSON schema of `sipfilterctl simulate --json`.
//!
//! Fields are added, never renamed or given another meaning. Times are seconds since the capture's first packet, as Wireshark shows them.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use schemars::JsonSchema;
use serde::Serialize;

use crate::{engine::Instant, view};

/// Everything.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Report {
    /// The file.
    pub capture: CaptureReport,
    /// Whom the simulation protected and trusted.
    pub settings: SettingsReport,
    /// Packets in the file.
    pub packets: u64,
    /// Of these, towards the PBX.
    pub ingress: u64,
    /// Of these, from the PBX.
    pub egress: u64,
    /// Of these, neither, or between protected addresses, or no IP.
    pub unrelated: u64,
    /// Packets from and to the PBX that would have passed.
    pub passed: u64,
    /// Packets to the PBX that would have been dropped.
    pub dropped: u64,
    /// Packets from and to the PBX by verdict.
    pub reasons: BTreeMap<&'static str, u64>,
    /// Calls, in order of appearance.
    pub calls: Vec<CallReport>,
    /// Calls beyond the report's room.
    pub calls_left_out: u64,
    /// Flows, in order of appearance.
    pub flows: Vec<FlowReport>,
    /// Packets of flows beyond the report's room.
    pub flows_left_out: LeftOut,
    /// The engine's counters that are not zero; labelled ones as `refusals.wrong_dialog`.
    pub engine: BTreeMap<String, u64>,
}

/// The file.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct CaptureReport {
    /// `pcap` or `pcapng`.
    pub format: &'static str,
    /// Link types of its packets.
    pub link_types: Vec<&'static str>,
    /// When the first packet was captured, in seconds since 1970.
    pub start: f64,
    /// From the first packet to the last.
    pub seconds: f64,
    /// Packets of which only the beginning was captured. Signalling among them cannot be read.
    pub cut: u64,
    /// Packets that were captured before the one in front of them; they are judged at the later time.
    pub out_of_order: u64,
    /// Packets whose link layer cannot be read.
    pub unreadable: u64,
    /// Why the file was not read to its end.
    pub incomplete: Option<String>,
}

/// Whom the simulation protected and trusted.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct SettingsReport {
    /// Protected addresses.
    pub pbx: Vec<IpAddr>,
    /// Local RTP ports, `first-last`.
    pub rtp_ports: String,
    /// The configuration says `enforcement = "observe"`: what counts as dropped here is what the rules call for, and passes.
    pub observing: bool,
    /// Providers.
    pub providers: Vec<String>,
}

/// One call.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct CallReport {
    /// Its number in this report.
    pub number: u64,
    /// Call-ID.
    pub call_id: String,
    /// The provider's own identifier, header name and value.
    pub provider_call_id: Option<(String, String)>,
    /// Its provider.
    pub provider: String,
    /// `inbound` (the provider called) or `outbound`.
    pub direction: &'static str,
    /// How far it was at the end of the capture.
    pub state: &'static str,
    /// Why it ended.
    pub end_reason: Option<&'static str>,
    /// Its first INVITE.
    pub started_seconds: f64,
    /// Its first 2xx.
    pub confirmed_seconds: Option<f64>,
    /// Its end.
    pub ended_seconds: Option<f64>,
    /// Where the PBX said it receives media, as the outside sees it.
    pub local_media: Vec<SocketAddr>,
    /// Where the provider said it receives media.
    pub remote_media: Vec<SocketAddr>,
    /// Packets at its pinholes.
    pub media: MediaCount,
    /// Its pinholes, with what they were last.
    pub pinholes: Vec<PinholeReport>,
    /// Pinholes beyond the report's room.
    pub pinholes_left_out: u64,
    /// What was refused of its messages.
    pub refusals: BTreeMap<&'static str, u64>,
}

/// Packets at a call's pinholes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct MediaCount {
    /// Came in and passed.
    pub passed: u64,
    /// Came in and were dropped there.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Left from them.
    pub sent: u64,
    /// Met no pinhole, and came nearest to one of this call: after its end, or beside its port.
    pub near_misses: u64,
}

/// One pinhole.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct PinholeReport {
    /// The protected address and port.
    pub local: SocketAddr,
    /// `rtp`, `rtcp` or `udptl`.
    pub stream: &'static str,
    /// What else could pass on it: `stun`, `dtls`.
    pub also: Vec<&'static str>,
    /// Who could send.
    pub sources: Vec<view::Source>,
    /// From.
    pub opened_seconds: f64,
    /// Until; null if the capture ended first.
    pub closed_seconds: Option<f64>,
}

/// One direction of one conversation.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct FlowReport {
    /// Source; port 0 where it has none.
    pub src: SocketAddr,
    /// Destination; port 0 where it has none.
    pub dst: SocketAddr,
    /// `udp`, `tcp`, `icmp`, `icmpv6`, or a number.
    pub protocol: String,
    /// `ingress` or `egress`.
    pub direction: &'static str,
    /// `rtp`, `rtcp`, `sip`, `udptl`, `stun`, `dtls`, `fragment` or `other`.
    pub kind: &'static str,
    /// Packets.
    pub packets: u64,
    /// Of these, passed.
    pub passed: u64,
    /// The others, by reason.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Its first packet.
    pub first_seconds: f64,
    /// Its last packet.
    pub last_seconds: f64,
    /// The calls whose pinholes it met.
    pub calls: Vec<u64>,
    /// What its dropped packets missed.
    pub nearest: Vec<NearestReport>,
}

/// What dropped packets missed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct NearestReport {
    /// A stable name.
    pub why: &'static str,
    /// How many of the flow's packets.
    pub packets: u64,
    /// Whose pinhole.
    pub call: Option<u64>,
    /// In words, of the first of them.
    pub text: String,
}

/// Packets of flows that have no place of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
pub struct LeftOut {
    /// Packets.
    pub packets: u64,
    /// Of these, passed.
    pub passed: u64,
}

/// Turns the engine's time into the report's.
#[derive(Debug, Clone, Copy, Default)]
pub struct Clock {
    start: Duration,
}

impl Clock {
    /// Counts from here.
    pub fn new(start: Instant) -> Self {
        Self { start: start.0 }
    }

    /// Seconds since the start.
    pub fn seconds(&self, at: Instant) -> f64 {
        at.0.saturating_sub(self.start).as_secs_f64()
    }

    /// The same in words.
    pub fn text(&self, at: Instant) -> String {
        format!("{:.3} s", self.seconds(at))
    }
}
