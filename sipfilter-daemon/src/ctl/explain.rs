//! `sipfilterctl explain`: what would become of one packet, by which rule, and what it would need to pass.
//!
//! It asks the policy itself, over a copy of the kernel's maps or over a configuration alone. No packet is sent and nothing is counted.

mod frame;
mod scene;

use std::{
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::ValueEnum;
use sipfilter_common::{
    classify::{classify_egress, classify_ingress},
    reason::{Action, Reason},
};

use self::scene::Copied;
use super::{
    CtlError, Outcome, Session,
    client::{self, ClientError},
    output,
};
use crate::{
    config::{self, Config},
    engine::{
        CallNumber, Direction,
        pinhole::{Source, Stream},
        settings::Settings,
    },
    explain::{Scene as _, nearest::History, packet::Packet},
    shell::{
        self,
        datapath::attachments,
        pins::{PinError, Pins},
        policy::KernelPolicy,
    },
    view,
};

/// Arguments of `explain`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What carries it
    protocol: Protocol,
    /// Where it comes from
    #[arg(value_name = "SRC:PORT")]
    source: SocketAddr,
    /// Where it goes
    #[arg(value_name = "DST:PORT")]
    destination: SocketAddr,
    /// The payload type of RTP; by default one that the pinhole there takes
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(..128))]
    payload_type: Option<u8>,
    /// Judge by this configuration alone, as if no call were in progress, instead of by what the daemon has in the kernel
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// With --config: judge by the maps that a daemon which does not run any more has left, too
    #[arg(long, requires = "config")]
    maps: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Protocol {
    /// A datagram: SIP to or from a SIP port, else RTP
    Udp,
    /// The first segment of a connection
    Tcp,
}

pub(super) fn run(args: &Args, session: &mut Session<'_>) -> Result<Outcome, CtlError> {
    let basis = Basis::find(args, session.runtime_dir)?;
    let explanation = explain(args, &basis)?;
    let outcome = match explanation.verdict.as_str() {
        "drop" => Outcome::No,
        _ => Outcome::Done,
    };
    session.answer(&explanation, show)?;
    Ok(outcome)
}

/// What a packet is judged by.
struct Basis {
    name: &'static str,
    scene: Copied,
    history: History,
    calls: Vec<view::Call>,
    closed: Vec<view::ClosedPinhole>,
    notes: Vec<String>,
}

impl Basis {
    fn find(args: &Args, runtime_dir: &Path) -> Result<Self, CtlError> {
        let pins = Pins::of_runtime_dir(runtime_dir);
        if let Some(file) = &args.config {
            let settings = Config::load(file)?.resolve(shell::interface::addresses)?;
            return match args.maps {
                true => Self::of_maps(settings, &pins),
                false => Ok(Self::of_settings(settings)),
            };
        }
        match client::get::<view::Status>(runtime_dir, "/v1/status") {
            Ok(status) => Self::of_daemon(&status, args, runtime_dir, &pins),
            Err(ClientError::Down { .. }) => {
                let config = Config::load(Path::new(config::DEFAULT_PATH))?;
                Self::of_maps(config.resolve(shell::interface::addresses)?, &pins)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn of_settings(settings: Settings) -> Self {
        Self::new("configuration", Copied::of_settings(settings))
    }

    fn of_maps(settings: Settings, pins: &Pins) -> Result<Self, CtlError> {
        let state = match attachments(pins).is_empty() {
            true => {
                "sipfilterd does not run, and nothing is filtered now: this is what its maps would say"
            }
            false => {
                "sipfilterd does not run: what it left attached still filters, and new calls get no media"
            }
        };
        let note = other_policy(&settings, pins)?;
        let mut basis = Self::new("maps", Copied::of_maps(settings, pins, &[])?);
        basis.notes.push(state.to_owned());
        basis.notes.extend(note);
        Ok(basis)
    }

    fn of_daemon(
        status: &view::Status,
        args: &Args,
        runtime_dir: &Path,
        pins: &Pins,
    ) -> Result<Self, CtlError> {
        let config = Config::load(Path::new(&status.config))?;
        let summary = config.summary();
        let is_same = [
            (summary.enforcement, &status.enforcement),
            (summary.scope, &status.scope),
            (summary.egress, &status.egress),
        ]
        .iter()
        .all(|(file, daemon)| *file == daemon.as_str());
        let mut settings = config.settings;
        settings.pbx.addresses.clone_from(&status.protected);
        let note = match is_same {
            true => other_policy(&settings, pins)?,
            false => Some(OTHER_POLICY.to_owned()),
        };
        let told: Vec<view::Pinhole> = client::list(runtime_dir, "/v1/pinholes")?;
        let mut basis = Self::new("daemon", Copied::of_maps(settings, pins, &told)?);
        basis.notes.extend(note);
        basis.calls = client::list(runtime_dir, "/v1/calls")?;
        basis.closed = client::get(runtime_dir, "/v1/pinholes/closed")?;
        for closed in &basis.closed {
            let at = basis.scene.ago(closed.closed_seconds);
            let sources = closed.sources.iter().filter_map(source_in_words);
            let call = CallNumber(closed.call);
            basis
                .history
                .add_closed(closed.local, call, sources.collect(), at);
        }
        let limited = status
            .limited_sources
            .iter()
            .find(|limited| limited.source.contains(&args.source.ip()));
        if let Some(limited) = limited {
            basis.notes.push(format!(
                "{} sends more signalling than it may, and some of it is dropped for that (`sipfilterctl status`)",
                limited.source
            ));
        }
        Ok(basis)
    }

    fn new(name: &'static str, scene: Copied) -> Self {
        let mut history = History::default();
        for (opened, pinhole) in scene.pinholes() {
            history.open(opened, pinhole);
        }
        Self {
            name,
            scene,
            history,
            calls: Vec::new(),
            closed: Vec::new(),
            notes: Vec::new(),
        }
    }

    fn call(&self, number: u64) -> view::ExplainedCall {
        let call = self.calls.iter().find(|call| call.number == number);
        let closed = || self.closed.iter().find(|closed| closed.call == number);
        view::ExplainedCall {
            number,
            call_id: call.map(|call| call.call_id.clone()),
            provider: call
                .map(|call| call.provider.clone())
                .or_else(|| Some(closed()?.provider.clone())),
        }
    }
}

const OTHER_POLICY: &str = "the configuration has changed since sipfilterd read it: its modes and ports are taken from the file as it is now";

/// Whether the file says something else than what the maps were filled with.
fn other_policy(settings: &Settings, pins: &Pins) -> Result<Option<String>, PinError> {
    let hash = KernelPolicy::new(settings).hash();
    Ok((pins.stamp()?.policy != hash).then(|| OTHER_POLICY.to_owned()))
}

fn source_in_words(source: &view::Source) -> Option<Source> {
    let (first, last) = source.ports.split_once('-')?;
    Some(Source {
        net: source.net,
        ports: (first.parse().ok()?, last.parse().ok()?),
    })
}

fn explain(args: &Args, basis: &Basis) -> Result<view::Explanation, CtlError> {
    let (source, destination) = (args.source, args.destination);
    let scene = &basis.scene;
    let (payload, content) = payload(args, scene);
    let frame = match args.protocol {
        Protocol::Udp => frame::udp(source, destination, &payload),
        Protocol::Tcp => frame::tcp(source, destination),
    };
    let frame = frame.ok_or(CtlError::Families {
        source_address: source,
        destination,
    })?;
    let packet = Packet::read(&frame).ok_or(CtlError::Families {
        source_address: source,
        destination,
    })?;
    let settings = &scene.tables.settings;
    // What concerns no protected address is asked about as coming from outside.
    let direction = packet.direction(settings).unwrap_or(Direction::Ingress);
    let (verdict, local) = match direction {
        Direction::Ingress => (
            classify_ingress(&frame.as_slice(), &scene.tables),
            destination,
        ),
        Direction::Egress => (classify_egress(&frame.as_slice(), &scene.tables), source),
    };
    let reason = verdict.reason;
    let ruling = settings.modes().ruling(reason);
    let pinhole = scene
        .pinhole(&local)
        .filter(|_| reason.met_pinhole() || reason == Reason::EgressForeignMedia);
    let miss = match ruling {
        Action::Drop => basis.history.nearest(scene, &packet, reason),
        Action::Pass => None,
    };
    let call = pinhole
        .map(|pinhole| pinhole.call)
        .or(miss.and_then(|miss| miss.call))
        .and_then(scene::known)
        .map(|number| basis.call(number));
    Ok(view::Explanation {
        basis: basis.name.to_owned(),
        protocol: match args.protocol {
            Protocol::Udp => "udp",
            Protocol::Tcp => "tcp",
        }
        .to_owned(),
        source,
        destination,
        content,
        direction: match direction {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        }
        .to_owned(),
        verdict: match (ruling, verdict.action) {
            (_, Action::Drop) => "drop",
            (Action::Drop, Action::Pass) => "would drop",
            (Action::Pass, Action::Pass) => "pass",
        }
        .to_owned(),
        reason: reason.name().to_owned(),
        rule: reason.text().to_owned(),
        pinhole: pinhole.map(|pinhole| pinhole.local),
        call,
        nearest_miss: miss.map(|miss| view::NearestMiss {
            why: miss.why.name().to_owned(),
            text: basis.history.explain(scene, &packet, &miss),
            place: miss.place,
        }),
        notes: basis.notes.clone(),
    })
}

/// What the packet carries, in bytes and in words.
fn payload(args: &Args, scene: &Copied) -> (Vec<u8>, String) {
    if args.protocol == Protocol::Tcp {
        return (Vec::new(), "a request for a connection".to_owned());
    }
    let pbx = &scene.settings().pbx.signalling;
    let is_sip = [args.source, args.destination]
        .iter()
        .any(|end| end.port() == 5_060 || pbx.udp.contains(&end.port()));
    if is_sip && args.payload_type.is_none() {
        return (frame::sip(), "SIP".to_owned());
    }
    let pinhole = scene
        .pinhole(&args.destination)
        .or_else(|| scene.pinhole(&args.source));
    let is_rtcp = pinhole.is_some_and(|pinhole| pinhole.stream == Stream::Rtcp);
    if is_rtcp && args.payload_type.is_none() {
        return (frame::rtcp(), "RTCP".to_owned());
    }
    let taken = pinhole.and_then(|pinhole| {
        view::payload_types(pinhole.terms.payload_types)
            .first()
            .copied()
    });
    let number = args.payload_type.or(taken).unwrap_or(0);
    (frame::rtp(number), format!("RTP of payload type {number}"))
}

fn show(out: &mut dyn Write, explanation: &view::Explanation) -> Result<(), CtlError> {
    let kind = format!(
        "{} {} -> {}, {}",
        explanation.protocol, explanation.source, explanation.destination, explanation.content
    );
    let call = explanation.call.as_ref().map(|call| {
        let mut text = call.number.to_string();
        if let Some(id) = &call.call_id {
            text = format!("{text}, {}", output::plain(id));
        }
        if let Some(provider) = &call.provider {
            text = format!("{text}, {provider}");
        }
        text
    });
    let verdict = match explanation.verdict.as_str() {
        "would drop" => "would drop, but enforcement only observes",
        word => word,
    };
    let fields = [
        ("packet", Some(kind)),
        ("direction", Some(explanation.direction.clone())),
        ("verdict", Some(verdict.to_owned())),
        ("reason", Some(explanation.reason.clone())),
        ("rule", Some(explanation.rule.clone())),
        ("call", call),
        (
            "nearest miss",
            explanation
                .nearest_miss
                .as_ref()
                .map(|miss| miss.text.clone()),
        ),
        ("judged by", Some(basis_text(&explanation.basis).to_owned())),
    ];
    output::fields(
        out,
        fields
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?))),
    )?;
    for note in &explanation.notes {
        writeln!(out, "\nnote: {note}")?;
    }
    Ok(())
}

fn basis_text(basis: &str) -> &'static str {
    match basis {
        "daemon" => "the running daemon's pinholes",
        "maps" => "the pinned maps",
        _ => "the configuration alone, as if no call were in progress",
    }
}
