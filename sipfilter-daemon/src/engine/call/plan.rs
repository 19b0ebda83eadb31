//! From offers and answers to wanted pinholes: the PBX's places times the provider's sources, for every pair in force.
//!
//! It decides per call and keeps nothing; `pinhole::table` unites what several calls want. Its invariant: every want has at least
//! one source, and all of a want's sources are of its place's address family.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use super::{
    offer_answer::Negotiation,
    session::{LocalMedia, LocalSession, RemoteSession},
};
use crate::engine::{
    pinhole::{Arming, Extras, MAX_SOURCES, Source, Stream, Terms},
    settings::Timers,
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
        // Any change of either must change the sum; and who is not to be latched to must not be shut out by who is.
        self.latch = self
            .latch
            .zip(other.latch)
            .map(|(one, other)| Arming(one.0.wrapping_add(other.0)));
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
    idle: Duration,
}

impl Flow {
    /// The RTCP beside it, on a port of its own.
    fn rtcp(self) -> Self {
        Self {
            stream: Stream::Rtcp,
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
}

impl<'a> Plan<'a> {
    /// Nothing yet.
    pub fn new(timers: &'a Timers) -> Self {
        Self {
            wants: BTreeMap::new(),
            is_cut: false,
            timers,
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
                idle: self.idle(media.held),
            };
            self.add(&media.rtp, limit, flow);
            if stream == Stream::Rtp {
                self.add(&media.rtcp, limit, flow.rtcp());
            }
        }
    }

    /// The n-th section of one belongs to the n-th of the other (RFC 3264 §6); a missing one is a rejected one.
    fn add_pair(&mut self, local: &LocalSession, remote: &RemoteSession, pairing: Pairing) {
        for (ours, theirs) in local.media.iter().zip(&remote.media) {
            // A stream that the other side has removed has no sources.
            let Some(stream) = ours.stream else {
                continue;
            };
            let flow = Flow {
                stream,
                extras: match pairing {
                    Pairing::Answered => ours.extras.and(theirs.extras),
                    // What the other side will say is not known yet; its checks may come before its answer (RFC 8445 §7.3).
                    Pairing::Unanswered => ours.extras,
                },
                idle: self.idle(ours.held || theirs.held),
            };
            self.add(&ours.rtp, &theirs.rtp, flow);
            if has_own_rtcp(ours, theirs.mux, stream, pairing) {
                self.add(&ours.rtcp, &theirs.rtcp, flow.rtcp());
            }
        }
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
                terms: Terms::ANY,
                latch: None,
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

fn has_own_rtcp(ours: &LocalMedia, theirs_mux: bool, stream: Stream, pairing: Pairing) -> bool {
    let multiplexed = ours.mux && theirs_mux && pairing == Pairing::Answered;
    stream == Stream::Rtp && !multiplexed
}
