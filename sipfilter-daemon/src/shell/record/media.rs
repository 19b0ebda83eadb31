//! What each of a call's pinholes carried: counts are read when it closes, and until then when somebody asks.
//!
//! Invariant: at most [`PINHOLES`] are remembered, closed ones forgotten first.

use std::{net::SocketAddr, sync::Arc};

use crate::{
    engine::{
        Instant,
        pinhole::{PinholeAction, Source, Stream},
    },
    shell::{
        clock,
        core::{seconds_since, source_view, stream_name},
        map_writer::Traffic,
    },
    view,
};

/// Pinholes of one call that are remembered: some streams, opened anew a few times.
const PINHOLES: usize = 16;

/// The pinholes of one call, in the order in which they opened.
#[derive(Debug, Default)]
pub(super) struct Media(Vec<Place>);

#[derive(Debug)]
struct Place {
    local: SocketAddr,
    stream: Stream,
    sources: Arc<[Source]>,
    opened: Instant,
    closed: Option<(Instant, Traffic)>,
}

impl Media {
    /// Takes a change that was carried out; `traffic` is what a pinhole that closes has carried.
    pub(super) fn handle(
        &mut self,
        action: &PinholeAction,
        sources: &Arc<[Source]>,
        traffic: Option<Traffic>,
        at: Instant,
    ) {
        let open = |place: &&mut Place| place.closed.is_none();
        match action {
            PinholeAction::Open(pinhole) | PinholeAction::Update(pinhole) => {
                let mut known = self.0.iter_mut().filter(open);
                if let Some(place) = known.find(|place| place.local == pinhole.local) {
                    place.sources = Arc::clone(sources);
                    return;
                }
                if self.0.len() >= PINHOLES {
                    let Some(oldest) = self.0.iter().position(|place| place.closed.is_some())
                    else {
                        return;
                    };
                    self.0.remove(oldest);
                }
                self.0.push(Place {
                    local: pinhole.local,
                    stream: pinhole.stream,
                    sources: Arc::clone(sources),
                    opened: at,
                    closed: None,
                });
            }
            PinholeAction::Close { local, .. } => {
                let mut known = self.0.iter_mut().filter(open);
                if let Some(place) = known.find(|place| place.local == *local) {
                    place.closed = Some((at, traffic.unwrap_or_default()));
                }
            }
        }
    }

    /// What they carried; `traffic` asks for one that is open.
    pub(super) fn view(
        &self,
        started: Instant,
        traffic: &dyn Fn(&SocketAddr) -> Option<Traffic>,
    ) -> Vec<view::MediaRecord> {
        self.0
            .iter()
            .filter_map(|place| {
                let carried = match place.closed {
                    Some((_, carried)) => carried,
                    None => traffic(&place.local)?,
                };
                let at = |last: Option<u64>| {
                    last.map(|at| seconds_since(started, clock::from_kernel(at)))
                };
                Some(view::MediaRecord {
                    local: place.local,
                    stream: stream_name(place.stream).to_owned(),
                    sources: place.sources.iter().map(source_view).collect(),
                    opened_seconds: seconds_since(started, place.opened),
                    closed_seconds: place.closed.map(|(at, _)| seconds_since(started, at)),
                    ingress_packets: carried.ingress_packets,
                    egress_packets: carried.egress_packets,
                    dropped_packets: carried.dropped_packets,
                    last_ingress_seconds: at(carried.ingress_last),
                    last_egress_seconds: at(carried.egress_last),
                    strays: Vec::new(),
                })
            })
            .collect()
    }
}
