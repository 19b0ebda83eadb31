//! What a report keeps of each call: the engine forgets calls that are over, a report does not.
//!
//! Bounds: [`MAX_CALLS`] calls are told, [`MAX_PINHOLES`] pinholes of each; the rest is counted.

use std::{collections::BTreeMap, net::SocketAddr};

use sipfilter_common::reason::{Action, Reason};

use super::{
    flows::by_name,
    report::{CallReport, Clock, MediaCount, PinholeReport},
};
use crate::{
    engine::{
        CallNumber, CallView, Direction, Event, Instant, Refusal, pinhole::Pinhole,
        settings::Settings,
    },
    view,
};

/// Calls that are told one by one.
pub const MAX_CALLS: usize = 65_536;
/// Pinholes of one call that are told one by one.
const MAX_PINHOLES: usize = 64;

#[derive(Debug)]
struct Record {
    call_id: String,
    provider_call_id: Option<(String, String)>,
    provider: String,
    direction: Direction,
    state: &'static str,
    started: Instant,
    confirmed: Option<Instant>,
    ended: Option<(Instant, &'static str)>,
    local_media: Vec<SocketAddr>,
    remote_media: Vec<SocketAddr>,
    passed: u64,
    dropped: BTreeMap<Reason, u64>,
    sent: u64,
    near_misses: u64,
    pinholes: Vec<Hole>,
    pinholes_left_out: u64,
    refusals: BTreeMap<Refusal, u64>,
}

#[derive(Debug)]
struct Hole {
    pinhole: Pinhole,
    opened: Instant,
    closed: Option<Instant>,
}

/// All calls.
#[derive(Debug, Default)]
pub struct Calls {
    records: BTreeMap<CallNumber, Record>,
    /// Whose record holds the pinhole that is open here.
    open: BTreeMap<SocketAddr, CallNumber>,
    left_out: u64,
}

impl Calls {
    /// Takes an event.
    pub fn handle_event(&mut self, now: Instant, event: &Event, settings: &Settings) {
        match event {
            Event::CallStarted {
                call,
                call_id,
                provider,
                direction,
            } => {
                if self.records.len() >= MAX_CALLS {
                    self.left_out += 1;
                    return;
                }
                let provider = settings
                    .providers
                    .get(usize::from(provider.0))
                    .map_or("?", |provider| &provider.name);
                self.records
                    .insert(*call, Record::new(now, call_id, provider, *direction));
            }
            Event::CallConfirmed { call } => {
                if let Some(record) = self.records.get_mut(call) {
                    record.confirmed = Some(now);
                }
            }
            Event::CallEnded { call, reason } => {
                if let Some(record) = self.records.get_mut(call) {
                    record.ended = Some((now, reason.name()));
                    record.state = "ended";
                }
            }
            Event::Refused {
                call: Some(call),
                refusal,
            } => {
                if let Some(record) = self.records.get_mut(call) {
                    *record.refusals.entry(*refusal).or_default() += 1;
                }
            }
            Event::Refused { call: None, .. } | Event::Message { .. } | Event::Related { .. } => {}
        }
    }

    /// A pinhole was opened or changed.
    pub fn open(&mut self, now: Instant, pinhole: &Pinhole) {
        let owner = self.open.get(&pinhole.local).copied();
        if owner != Some(pinhole.call) {
            self.close(now, pinhole.local);
        }
        let Some(record) = self.records.get_mut(&pinhole.call) else {
            return;
        };
        self.open.insert(pinhole.local, pinhole.call);
        let is_full = record.pinholes.len() >= MAX_PINHOLES;
        let known = record
            .pinholes
            .iter_mut()
            .find(|hole| hole.closed.is_none() && hole.pinhole.local == pinhole.local);
        match known {
            Some(hole) => hole.pinhole = pinhole.clone(),
            None if is_full => record.pinholes_left_out += 1,
            None => record.pinholes.push(Hole {
                pinhole: pinhole.clone(),
                opened: now,
                closed: None,
            }),
        }
    }

    /// A pinhole was closed.
    pub fn close(&mut self, now: Instant, local: SocketAddr) {
        let Some(record) = self
            .open
            .remove(&local)
            .and_then(|call| self.records.get_mut(&call))
        else {
            return;
        };
        let hole = record
            .pinholes
            .iter_mut()
            .find(|hole| hole.closed.is_none() && hole.pinhole.local == local);
        if let Some(hole) = hole {
            hole.closed = Some(now);
        }
    }

    /// What the engine knows of a call now; an engine that has forgotten it changes nothing.
    pub fn refresh(&mut self, view: &CallView<'_>) {
        let Some(record) = self.records.get_mut(&view.number) else {
            return;
        };
        record.state = view.state.name();
        if record.provider_call_id.is_none() {
            record.provider_call_id = view
                .provider_call_id
                .map(|(name, value)| (name.to_owned(), value.to_owned()));
        }
        if !view.local_media.is_empty() {
            record.local_media.clone_from(&view.local_media);
        }
        if !view.remote_media.is_empty() {
            record.remote_media.clone_from(&view.remote_media);
        }
    }

    /// Counts a packet that met this call's pinhole.
    pub fn count(&mut self, call: CallNumber, direction: Direction, reason: Reason) {
        let Some(record) = self.records.get_mut(&call) else {
            return;
        };
        match (direction, reason.action()) {
            (Direction::Egress, _) => record.sent += 1,
            (Direction::Ingress, Action::Pass) => record.passed += 1,
            (Direction::Ingress, Action::Drop) => *record.dropped.entry(reason).or_default() += 1,
        }
    }

    /// Counts a packet that met no pinhole, and came nearest to this call's.
    pub fn count_near_miss(&mut self, call: CallNumber) {
        if let Some(record) = self.records.get_mut(&call) {
            record.near_misses += 1;
        }
    }

    /// The report, in order of appearance, and how many calls are left out.
    pub fn report(self, clock: &Clock) -> (Vec<CallReport>, u64) {
        let calls = self
            .records
            .into_iter()
            .map(|(number, record)| record.report(number, clock))
            .collect();
        (calls, self.left_out)
    }
}

impl Record {
    fn new(now: Instant, call_id: &str, provider: &str, direction: Direction) -> Self {
        Self {
            call_id: call_id.to_owned(),
            provider_call_id: None,
            provider: provider.to_owned(),
            direction,
            state: "inviting",
            started: now,
            confirmed: None,
            ended: None,
            local_media: Vec::new(),
            remote_media: Vec::new(),
            passed: 0,
            dropped: BTreeMap::new(),
            sent: 0,
            near_misses: 0,
            pinholes: Vec::new(),
            pinholes_left_out: 0,
            refusals: BTreeMap::new(),
        }
    }

    fn report(self, number: CallNumber, clock: &Clock) -> CallReport {
        CallReport {
            number: number.0,
            call_id: self.call_id,
            provider_call_id: self.provider_call_id,
            provider: self.provider,
            direction: self.direction.call_name(),
            state: self.state,
            end_reason: self.ended.map(|(_, reason)| reason),
            started_seconds: clock.seconds(self.started),
            confirmed_seconds: self.confirmed.map(|at| clock.seconds(at)),
            ended_seconds: self.ended.map(|(at, _)| clock.seconds(at)),
            local_media: self.local_media,
            remote_media: self.remote_media,
            media: MediaCount {
                passed: self.passed,
                dropped: by_name(&self.dropped),
                sent: self.sent,
                near_misses: self.near_misses,
            },
            pinholes: self
                .pinholes
                .into_iter()
                .map(|hole| hole.report(clock))
                .collect(),
            pinholes_left_out: self.pinholes_left_out,
            refusals: self
                .refusals
                .into_iter()
                .map(|(refusal, count)| (refusal.name(), count))
                .collect(),
        }
    }
}

impl Hole {
    fn report(self, clock: &Clock) -> PinholeReport {
        PinholeReport {
            local: self.pinhole.local,
            stream: self.pinhole.stream.name(),
            also: [
                (self.pinhole.extras.stun, "stun"),
                (self.pinhole.extras.dtls, "dtls"),
            ]
            .into_iter()
            .filter_map(|(is_let_in, name)| is_let_in.then_some(name))
            .collect(),
            sources: self
                .pinhole
                .sources
                .iter()
                .map(view::Source::from)
                .collect(),
            opened_seconds: clock.seconds(self.opened),
            closed_seconds: self.closed.map(|at| clock.seconds(at)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::settings::ProviderId,
        simulate::setup::{self, Overrides, Providers},
    };

    #[test]
    fn calls_beyond_the_reports_room_are_counted() {
        let overrides = Overrides {
            pbx: vec![[203, 0, 113, 10].into()],
            rtp_ports: None,
            providers: Providers::Any,
        };
        let settings = setup::settings(None, &overrides).expect("enough");
        let mut calls = Calls::default();
        for number in 0..MAX_CALLS as u64 + 3 {
            let event = Event::CallStarted {
                call: CallNumber(number),
                call_id: String::new(),
                provider: ProviderId(0),
                direction: Direction::Ingress,
            };
            calls.handle_event(Instant::default(), &event, &settings);
        }
        let (told, left_out) = calls.report(&Clock::default());
        assert_eq!((told.len(), left_out), (MAX_CALLS, 3));
    }
}
