//! What each of a call's pinholes carried: counts are read when it closes, and until then when somebody asks.
//!
//! Invariant: at most [`PINHOLES`] are remembered, closed ones forgotten first.

use std::{net::SocketAddr, ops::RangeInclusive, sync::Arc};

use crate::{
    engine::{
        Instant,
        pinhole::{PinholeAction, Source, Stream},
    },
    shell::{clock, ledger::Stray, map_writer::Traffic},
    view,
};

/// Pinholes of one call that are remembered: some streams, opened anew a few times.
const PINHOLES: usize = 16;

/// Who knows what the records do not hold.
pub trait Witness {
    /// What a pinhole that is open carries.
    fn traffic(&self, local: &SocketAddr) -> Option<Traffic>;
    /// Who sent media to a port within a time and was dropped.
    fn strays(&self, local: SocketAddr, time: &RangeInclusive<Instant>) -> Vec<Stray>;
}

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

    /// What they carried until then.
    pub(super) fn view(
        &self,
        started: Instant,
        until: Instant,
        kernel: &dyn Witness,
    ) -> Vec<view::MediaRecord> {
        self.0
            .iter()
            .enumerate()
            .filter_map(|(number, place)| {
                let carried = match place.closed {
                    Some((_, carried)) => carried,
                    None => kernel.traffic(&place.local)?,
                };
                let at = |last: Option<u64>| {
                    last.map(|at| clock::from_kernel(at).since(started).as_secs_f64())
                };
                let before = self.0.iter().take(number);
                let since = before
                    .filter(|earlier| earlier.local == place.local)
                    .filter_map(|earlier| earlier.closed)
                    .map(|(at, _)| at)
                    .fold(started, Instant::max);
                let until = place.closed.map_or(until, |(at, _)| at);
                let strays = kernel.strays(place.local, &(since..=until));
                let stray = |stray: Stray| view::Stray {
                    source: stray.source,
                    reason: stray.reason.name().to_owned(),
                    packets: stray.packets.round() as u64,
                    first_seconds: stray.first.since(started).as_secs_f64(),
                };
                Some(view::MediaRecord {
                    local: place.local,
                    stream: place.stream.name().to_owned(),
                    sources: place.sources.iter().map(view::Source::from).collect(),
                    opened_seconds: place.opened.since(started).as_secs_f64(),
                    closed_seconds: place.closed.map(|(at, _)| at.since(started).as_secs_f64()),
                    ingress_packets: carried.ingress_packets,
                    egress_packets: carried.egress_packets,
                    dropped_packets: carried.dropped_packets,
                    last_ingress_seconds: at(carried.ingress_last),
                    last_egress_seconds: at(carried.egress_last),
                    strays: strays.into_iter().map(stray).collect(),
                })
            })
            .collect()
    }
}
