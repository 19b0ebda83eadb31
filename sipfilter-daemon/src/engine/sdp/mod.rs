//! SDP bodies: the endpoints that a session description declares (RFC 8866), in the order of its media descriptions.
//!
//! A line filter in front of `sdp-types` keeps what moves media and forgets the rest. It does not resolve names and does not
//! compare an offer with an answer (`call` does). No input panics; what could move media and cannot be read refuses the body.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod filter;
mod read;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

/// The largest body that is read.
pub const MAX_BODY: usize = 32 * 1024;
/// The most `c=` lines in one section.
pub const MAX_CONNECTIONS: usize = 16;
/// The most UDP candidates in one section.
pub const MAX_CANDIDATES: usize = 64;

/// Reads a session description (RFC 8866) with at most `max_media` media descriptions.
///
/// # Errors
/// See [`SdpError`]. A body without media descriptions is none: it declares nothing.
pub fn parse(body: &[u8], max_media: usize) -> Result<SessionDescription, SdpError> {
    let lines = filter::filter(body, max_media)?;
    read::session(sdp_types::Session::parse(&lines)?)
}

/// Why a body is not a session description that the engine can use.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SdpError {
    /// The body is larger than [`MAX_BODY`].
    #[error("the SDP has {size} bytes, more than the {MAX_BODY} that are read")]
    TooLarge {
        /// Its size.
        size: usize,
    },
    /// More media descriptions than the configured limit.
    #[error("the SDP has more than {limit} media descriptions")]
    TooManyMedia {
        /// The limit.
        limit: usize,
    },
    /// More `c=` lines or candidates in one section than [`MAX_CONNECTIONS`] or [`MAX_CANDIDATES`].
    #[error("the SDP has more than {limit} addresses of one kind in one section")]
    TooManyAddresses {
        /// The limit.
        limit: usize,
    },
    /// No `v=0` in front (RFC 8866 §5.1), or a second `v=` line: an offer or answer is one description (RFC 3264 §5).
    #[error("the SDP does not begin with one v=0 line")]
    Version,
    /// The port of an `m=` line is no plain number, or its ports (`49170/2`) end behind 65535 or are none.
    #[error(
        "the port of media description {section} is not a plain number, or its count does not fit"
    )]
    Port {
        /// Which `m=` line, from 0.
        section: usize,
    },
    /// A `c=` line holds neither an address nor a host name.
    #[error("a c= line holds neither an address nor a host name")]
    Address,
    /// `sdp-types` refuses a line that moves media.
    #[error("the SDP breaks the grammar: {0}")]
    Grammar(#[from] sdp_types::ParserError),
}

/// One session description, reduced to where media goes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SessionDescription {
    /// The media descriptions, by index of their `m=` line: an answer's n-th belongs to the offer's n-th (RFC 3264 §6).
    pub media: Vec<MediaDescription>,
}

/// One `m=` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaDescription {
    /// `audio`, `video`, `image`, …
    pub kind: MediaKind,
    /// The transport protocol field.
    pub protocol: Protocol,
    /// The port; 0 means the stream is rejected or removed (RFC 3264 §6, §8.2).
    pub port: u16,
    /// The number of ports (`49170/2`); 1 where none is given.
    pub port_count: u16,
    /// The connection addresses that hold here: the section's own `c=` lines, else the session's. May be empty.
    pub connections: Vec<Connection>,
    /// Direction (RFC 8866 §6.7), the section's own or the session's.
    pub direction: MediaDirection,
    /// Where RTCP goes. An attribute that cannot be read counts as absent.
    pub rtcp: Rtcp,
    /// `a=candidate` lines over UDP (RFC 8839 §5.1) with a literal address: extra addresses that media may come from or go to.
    pub candidates: Vec<Candidate>,
    /// The section has ICE credentials (`a=ice-ufrag`, its own or the session's): STUN is to be expected.
    pub ice: bool,
    /// The section has a DTLS fingerprint (`a=fingerprint`, its own or the session's).
    pub fingerprint: bool,
    /// The section has SDES keys (`a=crypto`).
    pub crypto: bool,
    /// Payload types of the `m=` line, bit n for type n; 0 where the protocol has none.
    pub payload_types: u128,
    /// The time that one packet is to hold (`a=ptime`, RFC 8866 §6.4), in whole milliseconds, at least 1.
    pub packet_time: Option<u16>,
    /// The most that the describer wants to receive (`b=AS`, RFC 8866 §5.8; `b=TIAS`, RFC 3890), in bits per second, never 0; the larger one
    /// where there are several. Of the section alone: the session's is for all of them.
    pub bandwidth: Option<u64>,
}

/// The media field of an `m=` line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaKind {
    /// `audio`
    Audio,
    /// `video`
    Video,
    /// `image` (T.38)
    Image,
    /// Anything else (`application`, `text`, `message`, …).
    Other,
}

/// The protocol field of an `m=` line, by what it puts on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// RTP or SRTP over UDP (`RTP/AVP`, `RTP/SAVP`, `UDP/TLS/RTP/SAVPF`, …).
    Rtp,
    /// T.38 over UDPTL (`udptl`, RFC 7345's `UDP/TLS/UDPTL` too).
    Udptl,
    /// Anything else: no pinhole.
    Other,
}

/// The address of a `c=` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Connection {
    /// A literal address; `0.0.0.0` and `::` mean hold (RFC 3264 §8.4).
    Address(IpAddr),
    /// A host name: unresolvable by design.
    Name(String),
}

/// `sendrecv`, `sendonly`, `recvonly`, `inactive`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MediaDirection {
    /// Both ways; the default.
    #[default]
    SendRecv,
    /// The describer only sends.
    SendOnly,
    /// The describer only receives.
    RecvOnly,
    /// Neither.
    Inactive,
}

/// Where a section's RTCP goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rtcp {
    /// `a=rtcp-mux` (RFC 5761) is there.
    pub mux: bool,
    /// `a=rtcp:port [IN IP4 address]` (RFC 3605): the port, never 0, and the address where a literal,
    /// specified one is given.
    pub explicit: Option<(u16, Option<IpAddr>)>,
}

/// One UDP candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// 1 is RTP, 2 is RTCP.
    pub component: u16,
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
}
