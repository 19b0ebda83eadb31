//! What the engine's owner says of what happened: to the log, and to whoever follows.

use std::time::SystemTime;

use super::Core;
use crate::{
    engine::{Event, pinhole::PinholeAction},
    view,
};

impl Core {
    /// What the records do not tell.
    pub(super) fn publish(&self, event: &Event) {
        let feed = &self.watch.feed;
        match event {
            Event::CallStarted {
                call,
                call_id,
                provider,
                direction,
            } => feed.publish(SystemTime::now(), || view::Occurrence::CallStarted {
                call: call.0,
                call_id: call_id.clone(),
                provider: self.provider_name(*provider).to_owned(),
                direction: direction.call_name().to_owned(),
            }),
            Event::Refused {
                call: None,
                refusal,
            } => feed.publish(SystemTime::now(), || view::Occurrence::Refused {
                refusal: refusal.name().to_owned(),
            }),
            _ => {}
        }
    }

    /// Lines that a peer can cause are at debug level, so that nobody fills the disk from outside.
    pub(super) fn log_event(&self, event: &Event) {
        match event {
            Event::CallStarted {
                call,
                call_id,
                provider,
                direction,
            } => tracing::debug!(
                call = call.0,
                call_id,
                provider = self.provider_name(*provider),
                direction = direction.call_name(),
                "call started"
            ),
            Event::Message { call, message } => tracing::trace!(call = call.0, ?message, "message"),
            Event::Related {
                call,
                relation,
                value,
            } => tracing::trace!(call = call.0, ?relation, value, "related"),
            Event::CallConfirmed { call } => tracing::debug!(call = call.0, "call confirmed"),
            Event::CallEnded { call, reason } => {
                tracing::debug!(call = call.0, reason = reason.name(), "call ended");
            }
            Event::Refused { call, refusal } => {
                tracing::debug!(
                    call = call.map(|call| call.0),
                    refusal = refusal.name(),
                    "refused"
                );
            }
        }
    }
}

pub(super) fn log_action(action: &PinholeAction) {
    match action {
        PinholeAction::Open(pinhole) => {
            tracing::debug!(call = pinhole.call.0, local = %pinhole.local, sources = ?pinhole.sources, "pinhole opened")
        }
        PinholeAction::Update(pinhole) => {
            tracing::debug!(call = pinhole.call.0, local = %pinhole.local, sources = ?pinhole.sources, "pinhole updated")
        }
        PinholeAction::Close { local, call } => {
            tracing::debug!(call = call.0, %local, "pinhole closed")
        }
    }
}
