//! What the PBX's SDP may open: addresses that are the PBX's own, ports in its range, nothing else.
//!
//! It does not care who may send there (`remote`) nor whether anybody answered.

use std::net::{IpAddr, SocketAddr};

use super::{
    Digest, Packets, canonical, extras_of, is_held, refuse, rtcp_of, rtp_ports, stream_of,
};
use crate::engine::{
    Refusal,
    pinhole::{Extras, Stream},
    sdp::{Connection, MediaDescription},
    settings::Pbx,
};

/// One session description that the PBX sent.
#[derive(Debug, PartialEq, Eq)]
pub struct LocalSession {
    /// Of its body.
    pub digest: Digest,
    /// By index of the `m=` line.
    pub media: Box<[LocalMedia]>,
}

/// One of its media descriptions: the places that it opens, as packets from outside name them.
#[derive(Debug, PartialEq, Eq)]
pub struct LocalMedia {
    /// What is to flow; `None` if the stream is removed or none of ours.
    pub stream: Option<Stream>,
    /// On hold, in whatever form.
    pub held: bool,
    /// `a=rtcp-mux`.
    pub mux: bool,
    /// What else it asks for on its ports.
    pub extras: Extras,
    /// What it says of its packets.
    pub packets: Packets,
    /// Where RTP (or UDPTL) is received.
    pub rtp: Box<[SocketAddr]>,
    /// Where RTCP is received unless it is multiplexed. Only RTP has any.
    pub rtcp: Box<[SocketAddr]>,
}

impl LocalMedia {
    pub(super) fn read(
        described: &MediaDescription,
        before: Option<&Self>,
        pbx: &Pbx,
        refusals: &mut Vec<Refusal>,
    ) -> Self {
        let mut places = Places {
            pbx,
            refusals,
            rtp: Vec::new(),
            rtcp: Vec::new(),
        };
        let mut held = is_held(described);
        let stream = stream_of(described);
        if let Some(stream) = stream {
            for connection in &described.connections {
                match connection {
                    // An address that stands for nothing is hold by the old convention (RFC 3264 §8.4).
                    Connection::Address(address) if canonical(*address).is_unspecified() => {
                        held = true;
                    }
                    Connection::Address(address) => {
                        places.add(described, stream, canonical(*address));
                    }
                    Connection::Name(_) => refuse(places.refusals, Refusal::HostName),
                }
            }
            if stream == Stream::Rtp {
                places.add_candidates(described);
            }
            if places.rtp.is_empty() && held {
                places.keep(described, stream, before);
            }
        }
        Self {
            stream,
            held,
            mux: described.rtcp.mux,
            extras: extras_of(described),
            packets: Packets::of(described),
            rtp: places.rtp.into_boxed_slice(),
            rtcp: places.rtcp.into_boxed_slice(),
        }
    }
}

/// The places collected so far.
struct Places<'a> {
    pbx: &'a Pbx,
    refusals: &'a mut Vec<Refusal>,
    rtp: Vec<SocketAddr>,
    rtcp: Vec<SocketAddr>,
}

impl Places<'_> {
    fn add(&mut self, described: &MediaDescription, stream: Stream, address: IpAddr) {
        let Some(address) = self.own(address) else {
            refuse(self.refusals, Refusal::ForeignLocalAddress);
            return;
        };
        for port in rtp_ports(described) {
            if !self.is_own_port(stream, port) {
                refuse(self.refusals, Refusal::ForeignLocalPort);
                continue;
            }
            let rtp = SocketAddr::new(address, port);
            push(&mut self.rtp, rtp);
            if stream == Stream::Rtp {
                self.add_rtcp(described, rtp);
            }
        }
    }

    fn add_rtcp(&mut self, described: &MediaDescription, rtp: SocketAddr) {
        let Some(mut rtcp) = rtcp_of(described, rtp).filter(|rtcp| rtcp.port() != 0) else {
            return;
        };
        if rtcp.ip().is_unspecified() {
            rtcp.set_ip(rtp.ip());
        }
        let Some(address) = self.own(rtcp.ip()) else {
            refuse(self.refusals, Refusal::ForeignLocalAddress);
            return;
        };
        rtcp.set_ip(address);
        if self.is_own_port(Stream::Rtcp, rtcp.port()) {
            push(&mut self.rtcp, rtcp);
        } else if !described.rtcp.mux {
            // With multiplexing offered, the separate port is a fallback that hardly anybody uses: no news.
            refuse(self.refusals, Refusal::ForeignLocalPort);
        }
    }

    /// A host with several networks lists candidates that the outside never sees: those are skipped without a word.
    fn add_candidates(&mut self, described: &MediaDescription) {
        for candidate in &described.candidates {
            let Some(address) = self.own(canonical(candidate.address)) else {
                continue;
            };
            if !self.is_own_port(Stream::Rtp, candidate.port) {
                continue;
            }
            let place = SocketAddr::new(address, candidate.port);
            match candidate.component {
                1 => push(&mut self.rtp, place),
                2 => push(&mut self.rtcp, place),
                _ => {}
            }
        }
    }

    /// Hold without an address keeps the addresses of before.
    fn keep(&mut self, described: &MediaDescription, stream: Stream, before: Option<&LocalMedia>) {
        let mut addresses: Vec<IpAddr> = Vec::new();
        for place in before.into_iter().flat_map(|media| media.rtp.iter()) {
            if !addresses.contains(&place.ip()) {
                addresses.push(place.ip());
            }
        }
        for address in addresses {
            self.add(described, stream, address);
        }
    }

    /// The protected address that an address in the PBX's SDP stands for, if it is the PBX's own.
    fn own(&self, address: IpAddr) -> Option<IpAddr> {
        let outside = self.pbx.nat.get(&address).copied().unwrap_or(address);
        self.pbx.addresses.contains(&outside).then_some(outside)
    }

    fn is_own_port(&self, stream: Stream, port: u16) -> bool {
        match (&self.pbx.udptl_ports, stream) {
            (Some(ports), Stream::Udptl) => ports.contains(&port),
            _ => self.pbx.rtp_ports.contains(&port),
        }
    }
}

fn push(places: &mut Vec<SocketAddr>, place: SocketAddr) {
    if !places.contains(&place) {
        places.push(place);
    }
}
