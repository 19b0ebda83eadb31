//! One call's timeline: its lines, and which of them are left out when there are too many.
//!
//! Lines are stored small and made readable only when somebody asks. They are told in order of time, not of arrival: a pinhole's time
//! is when it was done, while a message's is when the kernel saw it.

use std::{collections::VecDeque, net::SocketAddr, sync::Arc};

use crate::{
    engine::{
        Direction, EndReason, Endpoints, Form, Instant, MessageSummary, Refusal,
        pinhole::{Pinhole, PinholeAction, PinholeResult, Source, Stream, Terms},
    },
    shell::core::payload_types_view,
    view,
};

/// Lines of one timeline.
pub(super) const LINES: usize = 64;
/// Lines of one timeline while there are very many in all.
pub(super) const LINES_WHEN_TIGHT: usize = 24;
/// The first of them, which stay: how the call came about explains most.
pub(super) const FIRST: usize = 16;

/// One line.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) at: Instant,
    pub(super) what: What,
}

/// What happened. The large ones are rare and stand elsewhere.
#[derive(Debug)]
pub(super) enum What {
    Message(MessageSummary),
    Media(Box<Endpoints>),
    Pinhole(Box<PinholeChange>),
    Confirmed,
    Refused(Refusal),
    Ended(EndReason),
}

#[derive(Debug)]
pub(super) struct PinholeChange {
    change: &'static str,
    local: SocketAddr,
    sources: Arc<[Source]>,
    agreed: Option<Agreed>,
    error: Option<&'static str>,
}

/// What a pinhole is for and what of it may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Agreed {
    stream: Stream,
    terms: Terms,
    has_latch: bool,
}

impl Agreed {
    pub(super) fn of(pinhole: &Pinhole) -> Self {
        Self {
            stream: pinhole.stream,
            terms: pinhole.terms,
            has_latch: pinhole.latch.is_some(),
        }
    }

    fn view(&self) -> view::Terms {
        view::Terms {
            payload_types: payload_types_view(self.stream, self.terms),
            rtcp: self.terms.rtcp,
            packets_per_second: self.terms.packets_per_second.number(),
            latch: self.has_latch,
        }
    }
}

impl PinholeChange {
    pub(super) fn new(
        action: &PinholeAction,
        sources: Arc<[Source]>,
        result: PinholeResult,
    ) -> Self {
        let (change, local, agreed) = match action {
            PinholeAction::Open(pinhole) => ("opened", pinhole.local, Some(Agreed::of(pinhole))),
            PinholeAction::Update(pinhole) => ("updated", pinhole.local, Some(Agreed::of(pinhole))),
            PinholeAction::Close { local, .. } => ("closed", *local, None),
        };
        Self {
            change,
            local,
            sources,
            agreed,
            error: match result {
                PinholeResult::Done => None,
                PinholeResult::Full => Some("full"),
                PinholeResult::Failed => Some("failed"),
            },
        }
    }
}

/// The lines of one call: the first [`FIRST`] and the last ones.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    first: Vec<Entry>,
    last: VecDeque<Entry>,
    elided: u64,
}

impl Timeline {
    pub(super) fn len(&self) -> usize {
        self.first.len() + self.last.len()
    }

    pub(super) fn push(&mut self, entry: Entry, is_tight: bool) {
        if self.first.len() < FIRST {
            self.first.push(entry);
            return;
        }
        let limit = if is_tight { LINES_WHEN_TIGHT } else { LINES };
        while self.len() >= limit && self.last.pop_front().is_some() {
            self.elided += 1;
        }
        self.last.push_back(entry);
    }

    pub(super) fn view(&self, started: Instant) -> Vec<view::Moment> {
        let mut first: Vec<&Entry> = self.first.iter().collect();
        let mut last: Vec<&Entry> = self.last.iter().collect();
        if self.elided == 0 {
            first.append(&mut last);
        }
        first.sort_by_key(|entry| entry.at);
        last.sort_by_key(|entry| entry.at);
        let gap = last.first().map(|next| view::Moment {
            at_seconds: next.at.since(started).as_secs_f64(),
            what: view::Happening::Elided { lines: self.elided },
        });
        let moment = |entry: &Entry| view::Moment {
            at_seconds: entry.at.since(started).as_secs_f64(),
            what: entry.what.view(),
        };
        first
            .into_iter()
            .map(moment)
            .chain(gap)
            .chain(last.iter().map(|entry| moment(entry)))
            .collect()
    }
}

impl What {
    pub(super) fn view(&self) -> view::Happening {
        match self {
            Self::Message(message) => view::Happening::Message {
                from: match message.sender {
                    Direction::Ingress => "provider",
                    Direction::Egress => "pbx",
                }
                .to_owned(),
                method: message.verb.name().to_owned(),
                status: match message.form {
                    Form::Request => None,
                    Form::Response(status) => Some(status),
                },
                sdp: message.has_sdp,
                session_expires: message.session_expires,
            },
            Self::Media(endpoints) => view::Happening::Media {
                local: endpoints.local.clone(),
                remote: endpoints.remote.clone(),
            },
            Self::Pinhole(change) => view::Happening::Pinhole {
                change: change.change.to_owned(),
                local: change.local,
                sources: change.sources.iter().map(view::Source::from).collect(),
                stream: change
                    .agreed
                    .as_ref()
                    .map(|agreed| agreed.stream.name().to_owned()),
                terms: change.agreed.as_ref().map(Agreed::view),
                error: change.error.map(str::to_owned),
            },
            Self::Confirmed => view::Happening::Confirmed,
            Self::Refused(refusal) => view::Happening::Refused {
                refusal: refusal.name().to_owned(),
            },
            Self::Ended(reason) => view::Happening::Ended { end: end(*reason) },
        }
    }
}

pub(super) fn end(reason: EndReason) -> view::CallEnd {
    view::CallEnd {
        reason: reason.name().to_owned(),
        status: match reason {
            EndReason::Rejected(status) => Some(status),
            _ => None,
        },
    }
}
