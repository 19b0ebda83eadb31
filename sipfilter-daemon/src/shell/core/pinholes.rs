//! What the engine's owner answers about pinholes: open ones with their traffic, and those that closed last.

use std::net::SocketAddr;

use super::Core;
use crate::{
    engine::{
        Instant,
        pinhole::{Pinhole, Stream, Terms},
    },
    shell::{
        api::pages::{Page, Rows},
        clock,
    },
    view,
};

impl Core {
    pub(super) fn pinholes(
        &self,
        page: &Page<SocketAddr>,
        now: Instant,
    ) -> Rows<view::Pinhole, SocketAddr> {
        let behind = self.engine.pinholes_behind(page.after);
        Rows::of(page, behind, |pinhole| {
            (pinhole.local, self.pinhole(pinhole, now))
        })
    }

    pub(super) fn closed(&self, now: Instant) -> Vec<view::ClosedPinhole> {
        let closed = self.ledger.closed().map(|closed| view::ClosedPinhole {
            local: closed.local,
            sources: closed.sources.iter().map(view::Source::from).collect(),
            provider: closed.provider.clone(),
            call: closed.call.0,
            closed_seconds: now.since(closed.at).as_secs_f64(),
        });
        closed.collect()
    }

    fn pinhole(&self, pinhole: &Pinhole, now: Instant) -> view::Pinhole {
        let traffic = self.writer.traffic(&pinhole.local).unwrap_or_default();
        let last = traffic.ingress_last.max(traffic.egress_last);
        view::Pinhole {
            local: pinhole.local,
            sources: pinhole.sources.iter().map(view::Source::from).collect(),
            stream: pinhole.stream.name().to_owned(),
            payload_types: payload_types_view(pinhole.stream, pinhole.terms),
            rtcp: pinhole.terms.rtcp,
            packets_per_second: pinhole.terms.packets_per_second.number(),
            latch: traffic.latch.map(|latch| latch.to_string()),
            provider: self.provider_name(pinhole.provider).to_owned(),
            call: pinhole.call.0,
            idle_limit_seconds: pinhole.idle.as_secs_f64(),
            idle_seconds: last.map(|last| now.since(clock::from_kernel(last)).as_secs_f64()),
            ingress_packets: traffic.ingress_packets,
            egress_packets: traffic.egress_packets,
            dropped_packets: traffic.dropped_packets,
        }
    }
}

/// Payload types for a report; T.38 has none.
pub fn payload_types_view(stream: Stream, terms: Terms) -> Option<Vec<u8>> {
    (stream != Stream::Udptl).then(|| view::payload_types(terms.payload_types))
}
