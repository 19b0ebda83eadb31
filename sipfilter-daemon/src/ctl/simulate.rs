//! `sipfilterctl simulate`: what the filter would have done with the packets of a capture.
//!
//! It needs neither the daemon nor privileges. A file that is cut short is reported as far as it goes, and then is a failure.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Write},
    net::IpAddr,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use ipnet::IpNet;

use super::{CtlError, Outcome, Session, output};
use crate::{
    config::{Config, ResolveError},
    engine::settings::Settings,
    shell,
    simulate::{
        self, CaptureError, Report,
        report::{CallReport, FlowReport},
        setup::{self, Overrides, Providers, SetupError},
    },
};

/// Rows of one table for people; JSON has them all.
const MAX_ROWS: usize = 100;

/// Arguments of `simulate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The capture: a pcap or pcapng file
    #[arg(value_name = "CAPTURE")]
    capture: PathBuf,
    /// The configuration file; may be left out with --pbx and --provider or --any-provider
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// An address of the PBX as the capture shows it, in place of the configuration's; may be repeated
    #[arg(long, value_name = "ADDR")]
    pbx: Vec<IpAddr>,
    /// A prefix that a provider signals from, in place of the configuration's trunks; may be repeated
    #[arg(long, value_name = "PREFIX", value_parser = parse_prefix, conflicts_with = "any_provider")]
    provider: Vec<IpNet>,
    /// Take everybody for a provider
    #[arg(long)]
    any_provider: bool,
    /// The PBX's RTP ports, in place of the configuration's [default without one: 5062-65535]
    #[arg(long, value_name = "FIRST-LAST", value_parser = parse_ports)]
    rtp_ports: Option<RangeInclusive<u16>>,
}

/// Why a capture was not simulated, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// The file cannot be opened.
    #[error("cannot open the capture {}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is no capture.
    #[error("cannot read the capture {}: {source}", path.display())]
    Capture {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: CaptureError,
    },
    /// It was read in part, and the report is out.
    #[error("the capture {} is incomplete: {why}; the report covers what comes before", path.display())]
    Incomplete {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The command line says too little.
    #[error("{0}")]
    Setup(#[from] SetupError),
    /// The configuration means the interfaces' own addresses, and they cannot be told here.
    #[error("{0}; or give the PBX's address as the capture shows it with --pbx ADDR")]
    Resolve(#[from] ResolveError<io::Error>),
}

pub(super) fn run(args: &Args, session: &mut Session<'_>) -> Result<Outcome, CtlError> {
    let settings = settings(args)?;
    let path = &args.capture;
    let file = File::open(path).map_err(|source| SimulateError::Open {
        path: path.clone(),
        source,
    })?;
    let report = simulate::run(file, &settings, shell::hash_key()).map_err(|source| {
        SimulateError::Capture {
            path: path.clone(),
            source,
        }
    })?;
    if session.json {
        output::json(session.out, &report)?;
    } else {
        people(session.out, path, &report)?;
    }
    match report.capture.incomplete {
        None => Ok(Outcome::Done),
        Some(why) => {
            session.out.flush()?;
            Err(SimulateError::Incomplete {
                path: path.clone(),
                why,
            }
            .into())
        }
    }
}

fn settings(args: &Args) -> Result<Settings, CtlError> {
    let overrides = Overrides {
        pbx: args.pbx.clone(),
        rtp_ports: args.rtp_ports.clone(),
        providers: match (args.any_provider, args.provider.is_empty()) {
            (true, _) => Providers::Any,
            (false, true) => Providers::Configured,
            (false, false) => Providers::Prefixes(args.provider.clone()),
        },
    };
    let configured = match &args.config {
        None => None,
        Some(path) => {
            let config = Config::load(path)?;
            // Where the command line names the PBX, nobody needs to know the interfaces, which may be another machine's.
            Some(if overrides.pbx.is_empty() {
                config
                    .resolve(shell::interface::addresses)
                    .map_err(SimulateError::from)?
            } else {
                config.settings
            })
        }
    };
    Ok(setup::settings(configured, &overrides).map_err(SimulateError::from)?)
}

/// A prefix, or a single address.
fn parse_prefix(text: &str) -> Result<IpNet, String> {
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map(|net| net.trunc())
        .map_err(|_| "write an address or a prefix, such as 198.51.100.0/24".to_owned())
}

fn parse_ports(text: &str) -> Result<RangeInclusive<u16>, String> {
    let range = text
        .split_once('-')
        .and_then(|(first, last)| Some((first.trim().parse().ok()?, last.trim().parse().ok()?)));
    match range {
        Some((first, last)) if 0 < first && first <= last => Ok(first..=last),
        _ => Err("write the first and the last port, such as 10000-20000".to_owned()),
    }
}

fn people(out: &mut dyn Write, path: &Path, report: &Report) -> Result<(), CtlError> {
    let capture = &report.capture;
    let pbx: Vec<String> = report.settings.pbx.iter().map(IpAddr::to_string).collect();
    let mut fields = vec![
        (
            "capture",
            format!(
                "{}: {}, {}, {:.1} s",
                path.display(),
                capture.format,
                capture.link_types.join(" "),
                capture.seconds
            ),
        ),
        ("pbx", pbx.join(" ")),
        ("pbx rtp ports", report.settings.rtp_ports.clone()),
        ("providers", report.settings.providers.join(" ")),
        (
            "packets",
            format!(
                "{} ({} to the PBX, {} from it, {} unrelated)",
                report.packets, report.ingress, report.egress, report.unrelated
            ),
        ),
        ("passed", report.passed.to_string()),
        ("dropped", report.dropped.to_string()),
    ];
    if report.settings.observing {
        fields.push((
            "enforcement",
            "observe: NOTHING IS DROPPED; what stands as dropped here is what the rules call for"
                .to_owned(),
        ));
    }
    for (name, count, hint) in [
        (
            "cut when captured",
            capture.cut,
            " (signalling among them cannot be read; capture with `tcpdump -s 0`)",
        ),
        ("out of order", capture.out_of_order, ""),
        ("unreadable", capture.unreadable, " (their link layer)"),
    ] {
        if count > 0 {
            fields.push((name, format!("{count}{hint}")));
        }
    }
    output::fields(
        out,
        fields
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value)),
    )?;
    writeln!(out)?;
    let reasons = report
        .reasons
        .iter()
        .map(|(reason, count)| vec![(*reason).to_owned(), count.to_string()]);
    output::table(out, &["REASON", "PACKETS"], reasons)?;
    let refusals: Vec<_> = report
        .engine
        .iter()
        .filter_map(|(name, count)| Some((name.strip_prefix("refusals.")?, count)))
        .collect();
    if !refusals.is_empty() {
        writeln!(out)?;
        let rows = refusals
            .into_iter()
            .map(|(name, count)| vec![name.to_owned(), count.to_string()]);
        output::table(out, &["REFUSED SIGNALLING", "TIMES"], rows)?;
    }
    calls(out, report)?;
    flows(out, report)
}

fn calls(out: &mut dyn Write, report: &Report) -> Result<(), CtlError> {
    if report.calls.is_empty() {
        writeln!(out, "\nno call")?;
        return Ok(());
    }
    let total = |count: fn(&CallReport) -> u64| report.calls.iter().map(count).sum::<u64>();
    writeln!(
        out,
        "\ncalls: {}; media in: {} passed, {} dropped; media out: {}\n",
        report.calls.len() as u64 + report.calls_left_out,
        total(|call| call.media.passed),
        total(|call| call.media.dropped.values().sum()),
        total(|call| call.media.sent),
    )?;
    let rows = report.calls.iter().take(MAX_ROWS).map(|call| {
        let state = match call.end_reason {
            Some(reason) => format!("{}, {reason}", call.state),
            None => call.state.to_owned(),
        };
        vec![
            call.number.to_string(),
            call.provider.clone(),
            call.direction.to_owned(),
            state,
            format!("{:.3}", call.started_seconds),
            call.ended_seconds
                .map_or_else(|| "-".to_owned(), |at| format!("{at:.3}")),
            call.media.passed.to_string(),
            reasons(&call.media.dropped),
            call.media.sent.to_string(),
            call.media.near_misses.to_string(),
            output::plain(&call.call_id),
        ]
    });
    let head = [
        "CALL",
        "PROVIDER",
        "DIRECTION",
        "STATE",
        "FROM",
        "TO",
        "IN",
        "DROPPED",
        "OUT",
        "MISSED",
        "CALL-ID",
    ];
    output::table(out, &head, rows)?;
    more(out, report.calls.len())
}

/// Flows with drops first, the largest first: they are what a capture is simulated for.
fn flows(out: &mut dyn Write, report: &Report) -> Result<(), CtlError> {
    let dropped = |flow: &FlowReport| flow.packets - flow.passed;
    let mut flows: Vec<&FlowReport> = report
        .flows
        .iter()
        .filter(|flow| dropped(flow) > 0)
        .collect();
    flows.sort_by_key(|flow| std::cmp::Reverse(dropped(flow)));
    if flows.is_empty() {
        writeln!(
            out,
            "\nno flow lost a packet ({} flows; --json lists them)",
            report.flows.len()
        )?;
        return Ok(());
    }
    writeln!(
        out,
        "\nflows with drops: {} of {}\n",
        flows.len(),
        report.flows.len()
    )?;
    let rows = flows.iter().take(MAX_ROWS).map(|flow| {
        let nearest: Vec<String> = flow
            .nearest
            .iter()
            .map(|nearest| nearest.text.clone())
            .collect();
        vec![
            flow.src.to_string(),
            flow.dst.to_string(),
            flow.kind.to_owned(),
            flow.passed.to_string(),
            reasons(&flow.dropped),
            output::cell(&nearest, "-"),
        ]
    });
    output::table(
        out,
        &[
            "SOURCE",
            "DESTINATION",
            "KIND",
            "PASSED",
            "DROPPED",
            "NEAREST MISS",
        ],
        rows,
    )?;
    more(out, flows.len())
}

fn more(out: &mut dyn Write, rows: usize) -> Result<(), CtlError> {
    if rows > MAX_ROWS {
        writeln!(out, "… and {} more; --json lists them", rows - MAX_ROWS)?;
    }
    Ok(())
}

fn reasons(counts: &BTreeMap<&'static str, u64>) -> String {
    let texts: Vec<String> = counts
        .iter()
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    output::cell(&texts, "0")
}
