//! Session descriptions under our limits: what the PBX's SDP may open, and whom the provider's SDP may let in.
//!
//! The two sides are two types, so that no code path can take a provider's word for the PBX's: a [`LocalSession`] is only ever made
//! from SDP that was seen leaving, a [`RemoteSession`] only from SDP that was seen arriving. Addresses and ports outside the
//! limits are refused here, before anything else sees them. It does not pair offers with answers (`offer_answer`, `plan`).

mod local;
mod remote;

use std::net::{IpAddr, SocketAddr};

pub use local::{LocalMedia, LocalSession};
pub use remote::{Nets, RemoteMedia, RemoteSession};

use sipfilter_common::value::PayloadTypes;

use super::message::HashKey;
use crate::engine::{
    Refusal,
    pinhole::{Extras, Stream},
    sdp::{self, MediaDescription, MediaDirection, MediaKind, Protocol, SdpError},
    settings::{Provider, Settings},
};

/// The most ports of one `m=` line (`49170/2`, RFC 8866 §5.14) that are opened.
const MAX_PORT_COUNT: u16 = 8;

/// A hash of the body: the same SDP again changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest(u64);

/// Everything that reading a session description takes.
#[derive(Debug, Clone, Copy)]
pub struct Limits<'a> {
    /// The configuration.
    pub settings: &'a Settings,
    /// The call's provider.
    pub provider: &'a Provider,
    /// Its media prefixes as sources.
    pub nets: &'a Nets,
    /// For digests.
    pub key: HashKey,
}

impl Limits<'_> {
    /// The body's digest.
    pub fn digest(&self, body: &[u8]) -> Digest {
        Digest(self.key.hash(body))
    }

    /// Reads SDP of the PBX. Addresses on hold stand for those of `before`.
    pub fn read_local(
        &self,
        body: &[u8],
        before: Option<&LocalSession>,
        refusals: &mut Vec<Refusal>,
    ) -> Option<LocalSession> {
        let media = self.parse(body, refusals)?;
        let media = media
            .iter()
            .enumerate()
            .map(|(index, described)| {
                let before = before.and_then(|session| session.media.get(index));
                LocalMedia::read(described, before, &self.settings.pbx, refusals)
            })
            .collect();
        Some(LocalSession {
            digest: self.digest(body),
            media,
        })
    }

    /// Reads SDP of the provider. Addresses on hold stand for those of `before`.
    pub fn read_remote(
        &self,
        body: &[u8],
        before: Option<&RemoteSession>,
        refusals: &mut Vec<Refusal>,
    ) -> Option<RemoteSession> {
        let media = self.parse(body, refusals)?;
        let media = media
            .iter()
            .enumerate()
            .map(|(index, described)| {
                let before = before.and_then(|session| session.media.get(index));
                RemoteMedia::read(described, before, &self.provider.media, self.nets, refusals)
            })
            .collect();
        Some(RemoteSession {
            digest: self.digest(body),
            media,
        })
    }

    fn parse(&self, body: &[u8], refusals: &mut Vec<Refusal>) -> Option<Vec<MediaDescription>> {
        match sdp::parse(body, self.settings.limits.media_per_session) {
            Ok(session) => Some(session.media),
            Err(error) => {
                refuse(refusals, refusal_of(&error));
                None
            }
        }
    }
}

fn refusal_of(error: &SdpError) -> Refusal {
    match error {
        SdpError::TooManyMedia { .. } => Refusal::TooManyMedia,
        _ => Refusal::MalformedSdp,
    }
}

/// Notes a refusal once per session description: a section with ten bad candidates is one piece of news.
fn refuse(refusals: &mut Vec<Refusal>, refusal: Refusal) {
    if !refusals.contains(&refusal) {
        refusals.push(refusal);
    }
}

/// What a section says of the packets that it wants or sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packets {
    /// What they are of.
    pub kind: MediaKind,
    /// The payload types that it lists.
    pub types: PayloadTypes,
    /// How many milliseconds each holds, where it says so.
    pub time: Option<u16>,
    /// The bits per second that its describer wants at most, where it says so.
    pub bandwidth: Option<u64>,
}

impl Packets {
    fn of(described: &MediaDescription) -> Self {
        Self {
            kind: described.kind,
            types: PayloadTypes::new(described.payload_types),
            time: described.packet_time,
            bandwidth: described.bandwidth,
        }
    }

    /// What two sections say of one stream: the receiver's kind and then the sender's word, either's types, the shorter time. Who does not
    /// limit what it receives is not limited by what the other side would receive; else the more generous of the two.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self {
            kind: self.kind,
            types: self.types.or(other.types),
            time: [self.time, other.time].into_iter().flatten().min(),
            bandwidth: self
                .bandwidth
                .max(other.bandwidth)
                .filter(|_| self.bandwidth.is_some()),
        }
    }
}

/// What the section asks for, or `None` if it asks for nothing that a pinhole could serve.
fn stream_of(described: &MediaDescription) -> Option<Stream> {
    match described.protocol {
        _ if described.port == 0 => None,
        Protocol::Rtp => Some(Stream::Rtp),
        Protocol::Udptl => Some(Stream::Udptl),
        Protocol::Other => None,
    }
}

/// What the section needs besides its media.
fn extras_of(described: &MediaDescription) -> Extras {
    Extras {
        stun: described.ice,
        dtls: described.fingerprint,
    }
}

/// Hold by direction (RFC 3264 §8.4): less may flow than both ways, so long silence is to be expected.
fn is_held(described: &MediaDescription) -> bool {
    described.direction != MediaDirection::SendRecv
}

/// The section's RTP ports.
fn rtp_ports(described: &MediaDescription) -> impl Iterator<Item = u16> {
    let first = described.port;
    (0..described.port_count.clamp(1, MAX_PORT_COUNT))
        .filter_map(move |index| first.checked_add(index.checked_mul(2)?))
}

/// Where RTCP goes when RTP goes to `rtp` and nothing is multiplexed (RFC 3605 §2.1, else RFC 3550 §11).
fn rtcp_of(described: &MediaDescription, rtp: SocketAddr) -> Option<SocketAddr> {
    match described.rtcp.explicit {
        Some((port, address)) if rtp.port() == described.port => {
            Some(SocketAddr::new(address.map_or(rtp.ip(), canonical), port))
        }
        _ => Some(SocketAddr::new(rtp.ip(), rtp.port().checked_add(1)?)),
    }
}

/// One form for each address: an IPv4 address in IPv6 clothes is an IPv4 address.
fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}
