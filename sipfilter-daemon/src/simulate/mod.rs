//! A rehearsal: the same policy and the same engine over a capture file, without a kernel and without privileges.
//!
//! [`run`] reads a pcap or pcapng, takes what goes to the PBX as packets from outside and what comes from it as packets that leave, and
//! reports which would have passed, which not, and what those missed. It judges nothing itself: `world` runs
//! `sipfilter_common::classify` and [`crate::engine`], and everything here counts and explains what they say.
//!
//! Time is the capture's. Pinholes open and close in the same instant as the signalling that asks for it, where the daemon takes a few
//! microseconds. Memory is bounded by the caps in `flows`, `calls` and `nearest`, whatever the file holds.

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic
    )
)]

mod calls;
mod capture_file;
mod flows;
mod link;
pub mod report;
pub mod setup;
mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
    net::SocketAddr,
};

use sipfilter_common::{
    host::HostTables,
    reason::{Action, Reason},
};

use crate::{
    engine::{
        Direction, Event, Instant,
        pinhole::Pinhole,
        settings::{Enforcement, Settings},
    },
    explain::{
        Scene,
        nearest::History,
        packet::{Kind, Packet},
    },
};

pub use capture_file::CaptureError;
pub use report::Report;

use calls::Calls;
use capture_file::{Capture, Header};
use flows::{Flows, Judged};
use link::LinkType;
use report::{CaptureReport, Clock, SettingsReport};
use world::{Happening, World};

/// Runs a capture through the filter. A file that cannot be read to its end is reported as far as it goes, with the reason in
/// `capture.incomplete`. `hash_key` is the engine's.
///
/// # Errors
/// [`CaptureError`] if it is no capture at all.
pub fn run(
    file: impl Read,
    settings: &Settings,
    hash_key: [u64; 2],
) -> Result<Report, CaptureError> {
    let mut capture = Capture::open(file)?;
    let mut run = Run::new(settings, hash_key);
    let mut data = Vec::new();
    let mut frame = Vec::new();
    let incomplete = loop {
        match capture.next_packet(&mut data) {
            Ok(Some(header)) => run.packet(&header, &data, &mut frame),
            Ok(None) => break None,
            Err(error) => break Some(error.to_string()),
        }
    };
    Ok(run.report(capture.format(), incomplete))
}

struct Run {
    world: World,
    calls: Calls,
    flows: Flows,
    history: History,
    clock: Option<Clock>,
    links: BTreeSet<LinkType>,
    packets: u64,
    ingress: u64,
    egress: u64,
    cut: u64,
    out_of_order: u64,
    unreadable: u64,
    reasons: BTreeMap<Reason, u64>,
    start: Instant,
}

impl Run {
    fn new(settings: &Settings, hash_key: [u64; 2]) -> Self {
        Self {
            world: World::new(settings, hash_key),
            calls: Calls::default(),
            flows: Flows::default(),
            history: History::default(),
            clock: None,
            links: BTreeSet::new(),
            packets: 0,
            ingress: 0,
            egress: 0,
            cut: 0,
            out_of_order: 0,
            unreadable: 0,
            reasons: BTreeMap::new(),
            start: Instant::default(),
        }
    }

    fn packet(&mut self, header: &Header, data: &[u8], frame: &mut Vec<u8>) {
        self.packets += 1;
        let time = Instant(header.time);
        if self.clock.is_none() {
            self.clock = Some(Clock::new(time));
            self.start = time;
        } else if time < self.world.now() {
            self.out_of_order += 1;
        }
        self.world.advance(time);
        self.take_happenings();
        let Ok(link) = header.link else {
            self.unreadable += 1;
            return;
        };
        self.links.insert(link);
        let Some(is_cut) = link.frame(data, header.original, frame) else {
            self.unreadable += 1;
            return;
        };
        self.cut += u64::from(is_cut);
        if let Some(packet) = Packet::read(frame)
            && let Some(direction) = packet.direction(&self.world.tables().settings)
        {
            self.judge(direction, packet, frame, is_cut);
        }
    }

    fn judge(&mut self, direction: Direction, packet: Packet<'_>, frame: &[u8], is_cut: bool) {
        let verdict = self.world.packet(direction, frame, is_cut);
        let reason = verdict.reason;
        *self.reasons.entry(reason).or_default() += 1;
        let local = match direction {
            Direction::Ingress => {
                self.ingress += 1;
                packet.destination
            }
            Direction::Egress => {
                self.egress += 1;
                packet.source
            }
        };
        let pinhole = self.world.pinhole(&local);
        let (call, stream) = pinhole
            .filter(|_| reason.met_pinhole())
            .map(|pinhole| (pinhole.call, pinhole.stream))
            .unzip();
        let ruling = self.world.tables().settings.modes().ruling(reason);
        let miss = match ruling {
            Action::Pass => None,
            Action::Drop => {
                let clock = self.clock.unwrap_or_default();
                self.history
                    .nearest(&Filmed(&self.world, clock), &packet, reason)
            }
        };
        match (call, miss.and_then(|miss| miss.call)) {
            (Some(call), _) => self.calls.count(call, direction, reason),
            (None, Some(near)) => self.calls.count_near_miss(near),
            (None, None) => {}
        }
        let judged = Judged {
            now: self.world.now(),
            direction,
            packet,
            kind: Kind::of(&packet, reason, stream),
            reason,
            ruling,
            call,
            miss,
        };
        let clock = self.clock.unwrap_or_default();
        self.flows.count(&judged, |miss| {
            self.history
                .explain(&Filmed(&self.world, clock), &packet, miss)
        });
        self.take_happenings();
    }

    fn take_happenings(&mut self) {
        while let Some((at, happening)) = self.world.poll_happening() {
            let concerned = match &happening {
                Happening::Opened(pinhole) => {
                    self.history.open(at, pinhole);
                    self.calls.open(at, pinhole);
                    Some(pinhole.call)
                }
                Happening::Closed(local) => {
                    self.history.close(at, *local);
                    self.calls.close(at, *local);
                    None
                }
                Happening::Event(event) => {
                    self.calls
                        .handle_event(at, event, self.world.engine().settings());
                    match event {
                        Event::CallStarted { call, .. }
                        | Event::Message { call, .. }
                        | Event::Related { call, .. }
                        | Event::CallConfirmed { call }
                        | Event::CallEnded { call, .. } => Some(*call),
                        Event::Refused { call, .. } => *call,
                    }
                }
            };
            if let Some(view) = concerned.and_then(|call| self.world.engine().call(call)) {
                self.calls.refresh(&view);
            }
        }
    }

    fn report(mut self, format: &'static str, incomplete: Option<String>) -> Report {
        for view in self.world.engine().calls() {
            self.calls.refresh(&view);
        }
        let clock = self.clock.unwrap_or_default();
        let modes = self.world.tables().settings.modes();
        let dropped = self
            .reasons
            .iter()
            .filter(|(reason, _)| modes.ruling(**reason) == Action::Drop)
            .map(|(_, count)| count)
            .sum();
        let judged = self.ingress + self.egress;
        let end = self.world.now();
        let (calls, calls_left_out) = self.calls.report(&clock);
        let (flows, flows_left_out) = self.flows.report(&self.history, &clock);
        Report {
            capture: CaptureReport {
                format,
                link_types: self.links.iter().map(|link| link.name()).collect(),
                start: self.start.0.as_secs_f64(),
                seconds: clock.seconds(end),
                cut: self.cut,
                out_of_order: self.out_of_order,
                unreadable: self.unreadable,
                incomplete,
            },
            settings: settings_report(self.world.engine().settings()),
            packets: self.packets,
            ingress: self.ingress,
            egress: self.egress,
            unrelated: self.packets - judged,
            passed: judged - dropped,
            dropped,
            reasons: flows::by_name(&self.reasons),
            calls,
            calls_left_out,
            flows,
            flows_left_out,
            engine: counters(&self.world),
        }
    }
}

/// The world as an explanation sees it, with the capture's own times.
struct Filmed<'a>(&'a World, Clock);

impl Scene for Filmed<'_> {
    fn settings(&self) -> &Settings {
        self.0.engine().settings()
    }

    fn tables(&self) -> &HostTables {
        self.0.tables()
    }

    fn pinhole(&self, local: &SocketAddr) -> Option<&Pinhole> {
        self.0.pinhole(local)
    }

    fn latched(&self, local: &SocketAddr) -> Option<SocketAddr> {
        self.0.latched(local)
    }

    fn last_packet(&self, local: &SocketAddr) -> Option<Instant> {
        self.0.last_packet(local)
    }

    fn when(&self, at: Instant) -> String {
        self.1.text(at)
    }
}

fn settings_report(settings: &Settings) -> SettingsReport {
    let ports = &settings.pbx.rtp_ports;
    SettingsReport {
        pbx: settings.pbx.addresses.clone(),
        rtp_ports: format!("{}-{}", ports.start(), ports.end()),
        observing: settings.filtering.enforcement == Enforcement::Observe,
        providers: settings
            .providers
            .iter()
            .map(|provider| provider.name.clone())
            .collect(),
    }
}

fn counters(world: &World) -> BTreeMap<String, u64> {
    world
        .counters()
        .readings()
        .filter(|reading| reading.value > 0)
        .map(|reading| {
            let name = match reading.label {
                Some((_, label)) => format!("{}.{label}", reading.name),
                None => reading.name.to_owned(),
            };
            (name, reading.value)
        })
        .collect()
}
