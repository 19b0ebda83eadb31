//! What a report may show of a call: a snapshot that borrows and decides nothing.

use std::{net::SocketAddr, sync::Arc};

use super::{
    Call, Phase,
    dialog::Stage,
    offer_answer::Exchange,
    session::{LocalSession, RemoteSession},
};
use crate::engine::{CallNumber, Direction, EndReason, Instant, settings::ProviderId};

/// A call's state, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallState {
    /// INVITE sent, nobody has answered.
    Inviting,
    /// A provisional response has made a dialog.
    Ringing,
    /// Refused for want of credentials or parameters; another INVITE is expected.
    Challenged,
    /// A 2xx was seen.
    Confirmed,
    /// Over, and for how long it is remembered no concern of a report.
    Ended(EndReason),
}

impl CallState {
    /// A stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Inviting => "inviting",
            Self::Ringing => "ringing",
            Self::Challenged => "challenged",
            Self::Confirmed => "confirmed",
            Self::Ended(_) => "ended",
        }
    }
}

/// One call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallView<'a> {
    /// Its number.
    pub number: CallNumber,
    /// Its Call-ID.
    pub call_id: &'a str,
    /// Its provider.
    pub provider: ProviderId,
    /// The provider's own identifier: header name and value.
    pub provider_call_id: Option<(&'a str, &'a str)>,
    /// Who sent the INVITE.
    pub direction: Direction,
    /// How far it is.
    pub state: CallState,
    /// When the INVITE was seen.
    pub started: Instant,
    /// When the first 2xx was seen.
    pub confirmed_at: Option<Instant>,
    /// Every stream is on hold.
    pub hold: bool,
    /// The local addresses and ports of its pinholes, wanted or open.
    pub pinholes: &'a [SocketAddr],
    /// Where the PBX receives media.
    pub local_media: Vec<SocketAddr>,
    /// Where the provider said it receives media.
    pub remote_media: Vec<SocketAddr>,
}

/// What both sides last said about where they receive media, agreed or not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Endpoints {
    /// The PBX, as packets from outside name its places.
    pub local: Vec<SocketAddr>,
    /// The provider.
    pub remote: Vec<SocketAddr>,
}

impl Call {
    /// Where both sides said they receive media, over all dialogs. A call that is over has none.
    pub fn endpoints(&self) -> Endpoints {
        let mut endpoints = Endpoints::default();
        if self.is_ended() {
            return endpoints;
        }
        let mut local: Vec<&LocalSession> = Vec::new();
        let mut remote: Vec<&RemoteSession> = Vec::new();
        for dialog in &self.dialogs {
            local.extend(dialog.negotiation().last_local());
            remote.extend(dialog.negotiation().last_remote());
        }
        if let Some(sides) = self.offer.as_ref().map(Exchange::sides) {
            if local.is_empty() {
                local.extend(sides.local.last().map(Arc::as_ref));
            }
            if remote.is_empty() {
                remote.extend(sides.remote.last().map(Arc::as_ref));
            }
        }
        for place in local.iter().flat_map(|session| &session.media) {
            add(&mut endpoints.local, &place.rtp);
        }
        for place in remote.iter().flat_map(|session| &session.media) {
            add(&mut endpoints.remote, place.declared.as_slice());
        }
        endpoints
    }

    /// The call as a report may show it.
    pub fn view(&self) -> CallView<'_> {
        let state = match self.phase {
            Phase::Inviting { .. } if self.dialogs.iter().any(|d| d.stage() != Stage::Ended) => {
                CallState::Ringing
            }
            Phase::Inviting { .. } => CallState::Inviting,
            Phase::Challenged { .. } => CallState::Challenged,
            Phase::Confirmed { .. } => CallState::Confirmed,
            Phase::Ended { reason, .. } => CallState::Ended(reason),
        };
        let mut local_media = Vec::new();
        let mut remote_media = Vec::new();
        let (mut streams, mut held) = (0_usize, 0_usize);
        let agreed = self
            .dialogs
            .iter()
            .filter_map(|dialog| dialog.negotiation().agreements().next());
        for sides in agreed {
            let (Some(local), Some(remote)) = (sides.local.last(), sides.remote.last()) else {
                continue;
            };
            for (ours, theirs) in local.media.iter().zip(&remote.media) {
                if ours.stream.is_none() || !theirs.active {
                    continue;
                }
                streams += 1;
                held += usize::from(ours.held || theirs.held);
                local_media.extend(ours.rtp.iter().copied());
                remote_media.extend(theirs.declared);
            }
        }
        CallView {
            number: self.number,
            call_id: &self.call_id,
            provider: self.provider,
            provider_call_id: self
                .provider_call_id
                .as_ref()
                .map(|pair| (&*pair.0, &*pair.1)),
            direction: self.inviter,
            state,
            started: self.started,
            confirmed_at: self.confirmed_at,
            hold: streams > 0 && streams == held,
            pinholes: &self.planned.locals,
            local_media,
            remote_media,
        }
    }
}

fn add(list: &mut Vec<SocketAddr>, places: &[SocketAddr]) {
    for place in places {
        if !list.contains(place) {
            list.push(*place);
        }
    }
}
