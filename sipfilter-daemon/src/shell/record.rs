//! What happened in each call, for `calls show`: a timeline per call, while it lasts and for a while afterwards.
//!
//! It decides nothing and the engine does not know of it. Invariant: everything is capped. A timeline keeps its beginning and its end and
//! counts what it left out between; of ended calls the newest stay, and those that nobody answered never push out those that somebody did.

mod entry;
mod media;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::SystemTime,
};

use entry::{Agreed, Entry, Timeline, What};
use media::Media;
pub use media::Witness;

use super::feed::Feed;

use crate::{
    diagnosis,
    engine::{
        CallNumber, CallView, Direction, EndReason, Endpoints, Event, Instant, Relation,
        pinhole::{PinholeAction, PinholeResult, Source},
        settings::ProviderId,
    },
    shell::map_writer::Traffic,
    view,
};

/// Answered calls that are remembered after their end.
pub const ENDED_ANSWERED: usize = 1_000;
/// The same for calls that nobody answered, which anybody with a provider's address can make any number of.
pub const ENDED_UNANSWERED: usize = 250;
/// Lines over all timelines, from which on each one may have only few.
const MANY_LINES: usize = 500_000;
/// Relations to other calls.
const LINKS: usize = 8;
/// Calls with a REFER that are asked, the newest first, whether it led to another call: that comes within seconds.
const REFERRERS: usize = 64;

/// The records of all calls.
#[derive(Debug, Default)]
pub struct Records {
    calls: BTreeMap<CallNumber, Record>,
    /// Whoever may send an INVITE may name other calls in it: they are found without a look at each.
    by_call_id: BTreeSet<(String, CallNumber)>,
    referrers: BTreeSet<CallNumber>,
    answered: VecDeque<CallNumber>,
    unanswered: VecDeque<CallNumber>,
    lines: usize,
    feed: Feed,
}

/// One call's record.
#[derive(Debug)]
pub struct Record {
    /// The call.
    pub number: CallNumber,
    /// Its Call-ID.
    pub call_id: String,
    /// Its provider.
    pub provider: ProviderId,
    /// Who sent the INVITE.
    pub direction: Direction,
    /// How it ended, and when.
    pub end: Option<(EndReason, Instant)>,
    /// When its first message was seen.
    pub started: Instant,
    wall: SystemTime,
    provider_call_id: Option<(String, String)>,
    endpoints: Endpoints,
    confirmed: bool,
    links: Vec<Link>,
    /// What its pinholes let in, so that one that is only renewed makes no line.
    open: BTreeMap<SocketAddr, (Arc<[Source]>, Agreed)>,
    media: Media,
    hold: bool,
    timeline: Timeline,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Link {
    relation: &'static str,
    value: String,
    call: Option<CallNumber>,
}

/// Why a text names no call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// Nothing fits.
    #[error(
        "no call in progress or among the last ones has the number or Call-ID {0:?}; `sipfilterctl calls` lists those in progress"
    )]
    Unknown(String),
    /// More than one fits.
    #[error("{text:?} may be any of {count} calls ({}, …); name one by its number", numbers.join(", "))]
    Ambiguous {
        /// What was asked for.
        text: String,
        /// How many calls fit.
        count: usize,
        /// The first of them.
        numbers: Vec<String>,
    },
}

impl Records {
    /// Empty ones that tell whoever follows of every line.
    pub fn telling(feed: Feed) -> Self {
        Self {
            feed,
            ..Self::default()
        }
    }

    /// Takes an event. Wall-clock time is the time of the input, too.
    pub fn handle_event(&mut self, event: &Event, now: Instant, wall: SystemTime) {
        match event {
            Event::CallStarted {
                call,
                call_id,
                provider,
                direction,
            } => {
                let record = Record::new((*call, call_id), *provider, *direction, now, wall);
                self.by_call_id.insert((call_id.clone(), *call));
                self.calls.insert(*call, record);
            }
            Event::Message { call, message } => self.note(*call, now, What::Message(*message)),
            Event::Related {
                call,
                relation,
                value,
            } => self.relate(*call, *relation, value),
            Event::CallConfirmed { call } => {
                if let Some(record) = self.calls.get_mut(call) {
                    record.confirmed = true;
                }
                self.note(*call, now, What::Confirmed);
            }
            Event::CallEnded { call, reason } => {
                self.note(*call, now, What::Ended(*reason));
                self.end(*call, *reason, now);
            }
            Event::Refused { call, refusal } => {
                if let Some(call) = call {
                    self.note(*call, now, What::Refused(*refusal));
                }
            }
        }
    }

    /// Notes what the engine knows of a call now and may forget.
    pub fn handle_state(
        &mut self,
        call: &CallView<'_>,
        endpoints: Option<Endpoints>,
        now: Instant,
    ) {
        let Some(record) = self.calls.get_mut(&call.number) else {
            return;
        };
        if record.provider_call_id.is_none() {
            record.provider_call_id = call
                .provider_call_id
                .map(|(name, value)| (name.to_owned(), value.to_owned()));
        }
        let Some(mut endpoints) = endpoints else {
            return;
        };
        record.hold = call.hold;
        if endpoints.local.is_empty() {
            endpoints.local.clone_from(&record.endpoints.local);
        }
        if endpoints.remote.is_empty() {
            endpoints.remote.clone_from(&record.endpoints.remote);
        }
        if endpoints != record.endpoints {
            record.endpoints = endpoints.clone();
            self.note(call.number, now, What::Media(Box::new(endpoints)));
        }
    }

    /// Takes what was done to a pinhole, with what success, and what it has carried if it closed.
    pub fn handle_pinhole(
        &mut self,
        action: &PinholeAction,
        result: PinholeResult,
        traffic: Option<Traffic>,
        now: Instant,
    ) {
        let number = match action {
            PinholeAction::Open(pinhole) | PinholeAction::Update(pinhole) => pinhole.call,
            PinholeAction::Close { call, .. } => *call,
        };
        let Some(record) = self.calls.get_mut(&number) else {
            return;
        };
        let sources = match action {
            PinholeAction::Open(pinhole) | PinholeAction::Update(pinhole) => {
                let known = record.open.get(&pinhole.local);
                let agreed = Agreed::of(pinhole);
                let is_same = known.is_some_and(|(sources, known)| {
                    **sources == *pinhole.sources && *known == agreed
                });
                if is_same && result == PinholeResult::Done {
                    return;
                }
                let sources: Arc<[Source]> = Arc::from(pinhole.sources.as_slice());
                if result == PinholeResult::Done {
                    let shown = (Arc::clone(&sources), agreed);
                    record.open.insert(pinhole.local, shown);
                }
                sources
            }
            PinholeAction::Close { local, .. } => {
                record.open.remove(local);
                Arc::default()
            }
        };
        if result == PinholeResult::Done {
            record.media.handle(action, &sources, traffic, now);
        }
        let change = entry::PinholeChange::new(action, sources, result);
        self.note(number, now, What::Pinhole(Box::new(change)));
    }

    /// The record of the call with this number.
    pub fn call(&self, number: CallNumber) -> Option<&Record> {
        self.calls.get(&number)
    }

    /// The call that a text means: a call's number, a Call-ID, or the beginning of exactly one.
    ///
    /// # Errors
    /// [`LookupError`] if it means none or several.
    pub fn find(&self, text: &str) -> Result<&Record, LookupError> {
        let number = text.parse().ok().map(CallNumber);
        if let Some(record) = number.and_then(|number| self.call(number)) {
            return Ok(record);
        }
        let fitting = |is_fitting: &dyn Fn(&str) -> bool| -> Vec<&Record> {
            self.calls
                .values()
                .filter(|record| is_fitting(&record.call_id))
                .collect()
        };
        let mut found = fitting(&|call_id| call_id == text);
        if found.is_empty() && !text.is_empty() {
            found = fitting(&|call_id| call_id.starts_with(text));
        }
        match found.as_slice() {
            [] => Err(LookupError::Unknown(text.to_owned())),
            [record] => Ok(record),
            several => Err(LookupError::Ambiguous {
                text: text.to_owned(),
                count: several.len(),
                numbers: several
                    .iter()
                    .take(3)
                    .map(|record| record.number.0.to_string())
                    .collect(),
            }),
        }
    }

    fn note(&mut self, call: CallNumber, at: Instant, what: What) {
        if let Some(record) = self.calls.get_mut(&call) {
            let before = record.timeline.len();
            let is_tight = self.lines >= MANY_LINES;
            self.feed
                .publish(SystemTime::now(), || view::Occurrence::Call {
                    call: call.0,
                    call_id: record.call_id.clone(),
                    what: what.view(),
                });
            record.timeline.push(Entry { at, what }, is_tight);
            self.lines = self.lines + record.timeline.len() - before;
        }
    }

    fn end(&mut self, call: CallNumber, reason: EndReason, now: Instant) {
        let Some(record) = self.calls.get_mut(&call) else {
            return;
        };
        record.end = Some((reason, now));
        let (ended, limit) = if record.confirmed {
            (&mut self.answered, ENDED_ANSWERED)
        } else {
            (&mut self.unanswered, ENDED_UNANSWERED)
        };
        ended.push_back(call);
        if ended.len() > limit
            && let Some(oldest) = ended.pop_front()
            && let Some(forgotten) = self.calls.remove(&oldest)
        {
            self.lines -= forgotten.timeline.len();
            self.referrers.remove(&oldest);
            self.by_call_id.remove(&(forgotten.call_id, oldest));
        }
    }

    /// Links a call with the one that its message names, both ways if that one is known.
    fn relate(&mut self, call: CallNumber, relation: Relation, value: &str) {
        let Some(record) = self.calls.get(&call) else {
            return;
        };
        let (call_id, provider) = (record.call_id.clone(), record.provider);
        let other = |number: &CallNumber| self.calls.get(number).filter(|it| it.number != call);
        let is_new = record.links.iter().all(|link| link.value != value);
        let (name, back, other) = match relation {
            Relation::Replaces => (
                "replaces",
                "replaced_by",
                self.with_call_id(value)
                    .filter_map(|number| other(&number))
                    .find(|other| other.provider == provider),
            ),
            // A REFER has the header as well (RFC 3892 §2.1), and the INVITE that follows repeats it.
            Relation::ReferredBy if is_new => (
                "referred_by",
                "referred",
                self.referrers
                    .iter()
                    .rev()
                    .take(REFERRERS)
                    .filter_map(other)
                    .find(|other| {
                        let mut links = other.links.iter();
                        links.any(|link| link.relation == "referred_by" && link.value == value)
                    }),
            ),
            Relation::ReferredBy => return,
            Relation::ReferTo => ("refer_to", "", None),
        };
        let other = other.map(|other| other.number);
        self.link(
            call,
            Link {
                relation: name,
                value: value.to_owned(),
                call: other,
            },
        );
        if let Some(other) = other {
            self.link(
                other,
                Link {
                    relation: back,
                    value: call_id,
                    call: Some(call),
                },
            );
        }
    }

    /// The calls with exactly this Call-ID, the newest first.
    fn with_call_id(&self, call_id: &str) -> impl Iterator<Item = CallNumber> {
        let at = |number| (call_id.to_owned(), CallNumber(number));
        let same = self.by_call_id.range(at(0)..=at(u64::MAX));
        same.rev().map(|(_, number)| *number)
    }

    fn link(&mut self, call: CallNumber, link: Link) {
        if let Some(record) = self.calls.get_mut(&call)
            && record.links.len() < LINKS
            && !record.links.contains(&link)
        {
            if link.relation == "refer_to" {
                self.referrers.insert(call);
            }
            record.links.push(link);
        }
    }
}

impl Record {
    fn new(
        (number, call_id): (CallNumber, &str),
        provider: ProviderId,
        direction: Direction,
        started: Instant,
        wall: SystemTime,
    ) -> Self {
        Self {
            number,
            call_id: call_id.to_owned(),
            provider,
            direction,
            end: None,
            started,
            wall,
            provider_call_id: None,
            endpoints: Endpoints::default(),
            confirmed: false,
            links: Vec::new(),
            open: BTreeMap::new(),
            media: Media::default(),
            hold: false,
            timeline: Timeline::default(),
        }
    }

    /// The record as the control socket gives it. `state` is the engine's word for how far the call is, `kernel` what an open pinhole
    /// has carried, and who was dropped at it.
    pub fn view(
        &self,
        provider: &str,
        state: &str,
        kernel: &dyn Witness,
        now: Instant,
    ) -> view::CallRecord {
        let until = self.end.map_or(now, |(_, at)| at);
        let mut record = view::CallRecord {
            number: self.number.0,
            call_id: self.call_id.clone(),
            provider_call_ids: self.provider_call_id.iter().cloned().collect(),
            provider: provider.to_owned(),
            direction: self.direction.call_name().to_owned(),
            state: state.to_owned(),
            observing: false,
            started: view::time(self.wall),
            duration_seconds: until.since(self.started).as_secs_f64(),
            end: self.end.map(|(reason, _)| entry::end(reason)),
            local_media: self.endpoints.local.clone(),
            remote_media: self.endpoints.remote.clone(),
            links: self
                .links
                .iter()
                .map(|link| view::CallLink {
                    relation: link.relation.to_owned(),
                    value: link.value.clone(),
                    call: link.call.map(|call| call.0),
                })
                .collect(),
            hold: self.hold,
            media: self.media.view(self.started, until, kernel),
            findings: Vec::new(),
            timeline: self.timeline.view(self.started),
        };
        record.findings = diagnosis::diagnose(&record);
        record
    }
}
