//! What the engine's owner answers about calls: those in progress, and the record of one.

use std::{net::SocketAddr, ops::RangeInclusive};

use super::Core;
use crate::{
    diagnosis::{self, Flow, Stillness},
    engine::{
        CallNumber, CallState, CallView, EndReason, Instant, pinhole::Stream, settings::Enforcement,
    },
    shell::{
        api::pages::{Page, Rows},
        clock,
        ledger::Stray,
        map_writer::Traffic,
        record::{LookupError, Witness},
    },
    view,
};

impl Core {
    pub(super) fn calls(
        &self,
        page: &Page<CallNumber>,
        now: Instant,
    ) -> Rows<view::Call, CallNumber> {
        let behind = self.engine.calls_behind(page.after);
        let behind = behind.filter(is_in_progress);
        Rows::of(page, behind, |call| (call.number, self.call(&call, now)))
    }

    fn call(&self, call: &CallView<'_>, now: Instant) -> view::Call {
        view::Call {
            number: call.number.0,
            call_id: call.call_id.to_owned(),
            provider_call_id: call
                .provider_call_id
                .map(|(name, value)| (name.to_owned(), value.to_owned())),
            provider: self.provider_name(call.provider).to_owned(),
            direction: call.direction.call_name().to_owned(),
            state: call.state.name().to_owned(),
            hold: call.hold,
            age_seconds: now.since(call.started).as_secs_f64(),
            local_media: call.local_media.clone(),
            remote_media: call.remote_media.clone(),
            pinholes: call.pinholes.to_vec(),
            finding: self
                .stillness(call, now)
                .map(|still| still.code().to_owned()),
        }
    }

    pub(super) fn record(&self, id: &str, now: Instant) -> Result<view::CallRecord, LookupError> {
        let record = self.records.find(id)?;
        let state = match self.engine.call(record.number) {
            Some(call) if record.end.is_none() => call.state,
            _ => CallState::Ended(EndReason::Operator),
        };
        Ok(view::CallRecord {
            observing: self.settings.filtering.enforcement == Enforcement::Observe,
            ..record.view(self.provider_name(record.provider), state.name(), self, now)
        })
    }

    /// Which direction of a call's media is silent now. It is asked of every call at once, so it reads no timeline.
    fn stillness(&self, call: &CallView<'_>, now: Instant) -> Option<Stillness> {
        let answered = call.confirmed_at.filter(|_| !call.hold)?;
        let mut flow = Flow::default();
        let ago = |last: Option<u64>, before: Option<f64>| {
            let last = last.map(|last| now.since(clock::from_kernel(last)).as_secs_f64());
            [last, before].into_iter().flatten().reduce(f64::min)
        };
        for local in call.pinholes {
            let is_media = self
                .engine
                .pinhole(*local)
                .is_some_and(|pinhole| pinhole.stream != Stream::Rtcp);
            if !is_media {
                continue;
            }
            let traffic = self.writer.traffic(local)?;
            flow.from_provider += traffic.ingress_packets;
            flow.from_pbx += traffic.egress_packets;
            flow.provider_still = ago(traffic.ingress_last, flow.provider_still);
            flow.pbx_still = ago(traffic.egress_last, flow.pbx_still);
        }
        diagnosis::judge_media(&flow, now.since(answered).as_secs_f64())
    }
}

/// The engine remembers ended calls for a while, so that late messages open nothing; they are not in progress any more.
pub(super) fn is_in_progress(call: &CallView<'_>) -> bool {
    !matches!(call.state, CallState::Ended(_))
}

impl Witness for Core {
    fn traffic(&self, local: &SocketAddr) -> Option<Traffic> {
        self.writer.traffic(local)
    }

    fn strays(&self, local: SocketAddr, time: &RangeInclusive<Instant>) -> Vec<Stray> {
        self.watch.drops.lock().strays(local, time)
    }
}
