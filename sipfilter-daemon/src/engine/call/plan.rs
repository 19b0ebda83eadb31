//! From offers and answers to wanted pinholes: the PBX's places times the provider's sources, for every pair in force.
//!
//! It decides per call and keeps nothing; `pinhole::table` unites what several calls want. Its invariant: every want has at least
//! one source, and all of a want's sources are of its place's address family.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use sipfilter_common::value::PayloadTypes;

use super::{
    offer_answer::Negotiation,
    session::{LocalMedia, LocalSession, Packets, RemoteMedia, RemoteSession},
};
use crate::engine::{
    pinhole::{Arming, Extras, MAX_SOURCES, PacketRate, Source, Stream, Terms},
    sdp::MediaKind,
    settings::{Media, MediaSource, Timers},
};

/// What one call wants of one local address and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// Who may send: the first that was negotiated comes first, and is the last to go where there are too many.
    pub sources: Vec<Source>,
    /// What is to flow.
    pub stream: Stream,
    /// What else may pass.
    pub extras: Extras,
    /// What of the stream may pass.
    pub terms: Terms,
    /// Whether the first source becomes the only one, and as of when.
    pub latch: Option<Arming>,
    /// The longest silence.
    pub idle: Duration,
}

impl Want {
    /// Takes what another one wants in addition. Tells whether every source found a place.
    pub fn unite(&mut self, other: &Self) -> bool {
        self.stream = loosest(self.stream, other.stream);
        self.extras = self.extras.or(other.extras);
        self.terms = self.terms.or(other.terms);
        // Who is not to be latched to must not be shut out by who is.
        self.latch = self
            .latch
            .zip(other.latch)
            .map(|(one, other)| one.max(other));
        self.idle = self.idle.max(other.idle);
        let mut complete = true;
        for source in &other.sources {
            complete &= self.add(source);
        }
        complete
    }

    fn add(&mut self, source: &Source) -> bool {
        if self.sources.iter().any(|known| covers(known, source)) {
            return true;
        }
        self.sources.retain(|known| !covers(source, known));
        if self.sources.len() == MAX_SOURCES {
            return false;
        }
        self.sources.reserve_exact(1);
        self.sources.push(source.clone());
        true
    }
}

/// Where one port serves two streams for a while (the switch to T.38 on the same port), what either needs must pass: UDPTL cannot be
/// told from anything else, and RTP may carry RTCP.
fn loosest(one: Stream, other: Stream) -> Stream {
    match (one, other) {
        (Stream::Udptl, _) | (_, Stream::Udptl) => Stream::Udptl,
        (Stream::Rtp, _) | (_, Stream::Rtp) => Stream::Rtp,
        (Stream::Rtcp, Stream::Rtcp) => Stream::Rtcp,
    }
}

fn covers(wide: &Source, narrow: &Source) -> bool {
    wide.net.contains(&narrow.net)
        && wide.ports.0 <= narrow.ports.0
        && wide.ports.1 >= narrow.ports.1
}

/// What is to flow from somewhere to somewhere.
#[derive(Debug, Clone, Copy)]
struct Flow {
    stream: Stream,
    extras: Extras,
    terms: Terms,
    latch: Option<Arming>,
    idle: Duration,
}

impl Flow {
    /// The RTCP beside it, on a port of its own.
    fn rtcp(self, packets_per_second: PacketRate) -> Self {
        Self {
            stream: Stream::Rtcp,
            terms: Terms {
                payload_types: PayloadTypes::default(),
                rtcp: true,
                packets_per_second,
            },
            ..self
        }
    }
}

/// How to read a pair of media descriptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pairing {
    /// An answer and its offer: RTCP is multiplexed if both say so (RFC 5761 §5.1.1).
    Answered,
    /// An offer that nobody has answered: RTCP may come either way.
    Unanswered,
}

/// All that a call wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan<'a> {
    /// By local address and port.
    pub wants: BTreeMap<SocketAddr, Want>,
    /// Some source found no place.
    pub is_cut: bool,
    timers: &'a Timers,
    media: &'a Media,
    arming: Arming,
}

impl<'a> Plan<'a> {
    /// Nothing yet. `arming`: the one for latches.
    pub fn new(timers: &'a Timers, media: &'a Media, arming: Arming) -> Self {
        Self {
            wants: BTreeMap::new(),
            is_cut: false,
            timers,
            media,
            arming,
        }
    }

    /// Everything that a dialog's negotiation calls for. `limit` is from where streams may come that the provider has never
    /// described, if the call lets them in early.
    pub fn add_negotiation(&mut self, negotiation: &Negotiation, limit: Option<&[Source]>) {
        for agreement in negotiation.agreements() {
            for local in &agreement.local {
                for remote in &agreement.remote {
                    self.add_pair(local, remote, Pairing::Answered);
                }
            }
        }
        // Who offers must be ready to receive at once (RFC 3264 §8): from where the other side was until now, since that is all
        // that both have agreed on.
        let mut known = 0;
        for offer in negotiation.open() {
            let Some(local) = offer.unanswered_local() else {
                continue;
            };
            for remote in negotiation.agreements().flat_map(|sides| &sides.remote) {
                self.add_pair(local, remote, Pairing::Unanswered);
                known = known.max(remote.media.len());
            }
            if known > 0
                && let Some(limit) = limit
            {
                self.add_media(local, known, limit);
            }
        }
    }

    /// An offer that nobody has answered, opened towards everything that the provider's limits allow.
    pub fn add_offer(&mut self, local: &LocalSession, limit: &[Source]) {
        self.add_media(local, 0, limit);
    }

    fn add_media(&mut self, local: &LocalSession, skipped: usize, limit: &[Source]) {
        for media in local.media.iter().skip(skipped) {
            let Some(stream) = media.stream else {
                continue;
            };
            let flow = Flow {
                stream,
                extras: media.extras,
                terms: self.terms(stream, media.packets, media.mux),
                latch: self.latch(media.extras, self.media.source == MediaSource::Latch),
                idle: self.idle(media.held),
            };
            self.add(&media.rtp, limit, flow);
            let rate = self.rate(Stream::Rtcp, media.packets);
            self.add(&media.rtcp, limit, flow.rtcp(rate));
        }
    }

    /// The n-th section of one belongs to the n-th of the other (RFC 3264 §6); a missing one is a rejected one.
    fn add_pair(&mut self, local: &LocalSession, remote: &RemoteSession, pairing: Pairing) {
        for (ours, theirs) in local.media.iter().zip(&remote.media) {
            // A stream that the other side has removed has no sources.
            let Some(stream) = ours.stream else {
                continue;
            };
            let extras = match pairing {
                Pairing::Answered => ours.extras.and(theirs.extras),
                // What the other side will say is not known yet; its checks may come before its answer (RFC 8445 §7.3).
                Pairing::Unanswered => ours.extras,
            };
            let packets = ours.packets.with(theirs.packets);
            let flow = Flow {
                stream,
                extras,
                terms: self.terms(stream, packets, ours.mux || theirs.mux),
                latch: self.latch(extras, theirs.latched),
                idle: self.idle(ours.held || theirs.held),
            };
            self.add(&ours.rtp, &theirs.rtp, flow);
            if !is_multiplexed(ours, theirs, pairing) {
                let rate = self.rate(Stream::Rtcp, packets);
                self.add(&ours.rtcp, &theirs.rtcp, flow.rtcp(rate));
            }
        }
    }

    /// What of a stream may pass. The receiver's payload types are those that should be sent (RFC 3264 §5.1, §6.1), and some send by
    /// their own list all the same: the section has both sides' in it. Where RTCP and RTP share a port without a word of
    /// multiplexing, the want for RTCP on that port adds it.
    fn terms(&self, stream: Stream, packets: Packets, mux: bool) -> Terms {
        Terms {
            payload_types: packets.types,
            rtcp: mux,
            packets_per_second: self.rate(stream, packets),
        }
    }

    fn rate(&self, stream: Stream, packets: Packets) -> PacketRate {
        match self.media.packets_per_second {
            Some(rate) => PacketRate::new(rate),
            None => packet_rate(stream, packets),
        }
    }

    /// With ICE, checks come from several candidates and the endpoints agree on one of them: nothing to latch to.
    fn latch(&self, extras: Extras, is_latched: bool) -> Option<Arming> {
        (is_latched && !extras.stun).then_some(self.arming)
    }

    fn idle(&self, held: bool) -> Duration {
        if held {
            self.timers.hold_idle
        } else {
            self.timers.media_idle
        }
    }

    fn add(&mut self, places: &[SocketAddr], from: &[Source], flow: Flow) {
        for place in places {
            let mut want = Want {
                sources: Vec::new(),
                stream: flow.stream,
                extras: flow.extras,
                terms: flow.terms,
                latch: flow.latch,
                idle: flow.idle,
            };
            for source in from {
                if source.net.addr().is_ipv4() == place.is_ipv4() {
                    self.is_cut |= !want.add(source);
                }
            }
            if want.sources.is_empty() {
                continue;
            }
            match self.wants.get_mut(place) {
                Some(known) => self.is_cut |= !known.unite(&want),
                None => {
                    self.wants.insert(*place, want);
                }
            }
        }
    }
}

/// The least time in one packet that is reckoned with where SDP names none, in milliseconds. Usual is 20; 10 is the default of some
/// codecs (RFC 3551 §4.5).
const PACKET_TIME: u16 = 10;
/// How many times as many packets as the packet time calls for: forks that ring at once, events beside audio (RFC 4733), redundancy
/// (RFC 2198), clocks, and RTCP.
const HEADROOM: u32 = 4;
/// Video has no packet time: this many packets of 1200 bytes are 48 Mbit/s. Where the receiver names no bandwidth.
const VIDEO: u32 = 5_000;
/// What video is cut into, to fit the usual links, in bits; with the headroom, a quarter of that will do.
const VIDEO_PACKET: u64 = 1_200 * 8;
/// Whatever a body says of bandwidth, at least audio's and at most what no call sends (a gigabit with headroom).
const OF_BANDWIDTH: (u64, u64) = (400, 416_000);
/// RTCP's reports are seconds apart (RFC 3550 §6.2); feedback (RFC 4585) is as frequent as losses, and beside video many times that.
const RTCP: u32 = 200;
const RTCP_OF_VIDEO: u32 = 1_000;

/// What a stream can need at most: a bound on what a flood from the right source may bring, far above what calls send.
fn packet_rate(stream: Stream, packets: Packets) -> PacketRate {
    let is_video = packets.kind == MediaKind::Video;
    PacketRate::new(match stream {
        Stream::Rtcp if is_video => RTCP_OF_VIDEO,
        Stream::Rtcp => RTCP,
        Stream::Rtp if is_video => packets.bandwidth.map_or(VIDEO, video_rate),
        Stream::Rtp | Stream::Udptl => {
            let time = packets
                .time
                .map_or(PACKET_TIME, |time| time.clamp(1, PACKET_TIME));
            HEADROOM * 1_000 / u32::from(time)
        }
    })
}

fn video_rate(bits_per_second: u64) -> u32 {
    let rate = bits_per_second.saturating_mul(HEADROOM.into()) / VIDEO_PACKET;
    rate.clamp(OF_BANDWIDTH.0, OF_BANDWIDTH.1) as u32
}

fn is_multiplexed(ours: &LocalMedia, theirs: &RemoteMedia, pairing: Pairing) -> bool {
    ours.mux && theirs.mux && pairing == Pairing::Answered
}
