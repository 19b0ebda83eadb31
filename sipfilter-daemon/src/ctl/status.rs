//! `sipfilterctl status`: whether the daemon runs and what it is doing; if it does not run, what it left in the kernel.

use std::io::Write;

use schemars::JsonSchema;
use serde::Serialize;
use sipfilter_common::value::Stamp;

use super::{
    CtlError, Outcome, Session,
    client::{self, ClientError},
    output,
};
use crate::{
    shell::pins::{PinError, Pins},
    view,
};

/// The JSON answer.
#[derive(Serialize, JsonSchema)]
pub(super) struct Answer {
    /// Whether a daemon answers.
    running: bool,
    /// What it says.
    #[serde(skip_serializing_if = "Option::is_none")]
    daemon: Option<view::Status>,
    /// What is pinned, whoever pinned it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pinned: Option<Pinned>,
}

#[derive(Serialize, JsonSchema)]
struct Pinned {
    /// Where.
    directory: String,
    /// The layout of the maps.
    abi_version: u16,
    /// Pinholes that there is room for.
    pinhole_capacity: u32,
    /// A hash of what decides about packets: addresses, ports, providers.
    policy: String,
}

pub(super) fn run(session: &mut Session<'_>) -> Result<Outcome, CtlError> {
    let pins = Pins::of_runtime_dir(session.runtime_dir);
    let (daemon, why) = match client::get::<view::Status>(session.runtime_dir, "/v1/status") {
        Ok(status) => (Some(status), None),
        Err(error @ ClientError::Down { .. }) => (None, Some(error)),
        Err(error) => return Err(error.into()),
    };
    let pinned = match pins.stamp() {
        Ok(stamp) => Some(Pinned::new(&pins, &stamp)),
        Err(PinError::Absent { .. }) => None,
        // The socket answers the daemon's group, while the pins are its user's alone.
        Err(_) if daemon.is_some() => None,
        Err(error) => return Err(error.into()),
    };
    let outcome = if daemon.is_some() {
        Outcome::Done
    } else {
        Outcome::No
    };
    if session.json {
        output::json(
            session.out,
            &Answer {
                running: daemon.is_some(),
                daemon,
                pinned,
            },
        )?;
        return Ok(outcome);
    }
    if let Some(status) = &daemon {
        show(session.out, status)?;
    }
    if let Some(why) = why {
        writeln!(session.out, "{why}")?;
        match &pinned {
            Some(pinned) => writeln!(
                session.out,
                "its maps are still pinned at {}: `sipfilterctl stats` and `sipfilterctl maps dump` read them",
                pinned.directory
            )?,
            None => writeln!(session.out, "nothing is pinned either")?,
        }
    }
    Ok(outcome)
}

impl Pinned {
    fn new(pins: &Pins, stamp: &Stamp) -> Self {
        Self {
            directory: pins.directory().display().to_string(),
            abi_version: stamp.abi_version,
            pinhole_capacity: stamp.pinholes,
            policy: format!("{:016x}", stamp.policy),
        }
    }
}

fn enforcement(status: &view::Status) -> String {
    match status.enforcement.as_str() {
        "observe" => format!(
            "observe: NOTHING IS DROPPED; {} packets would have been (`sipfilterctl stats` says why)",
            status.packets_to_drop
        ),
        word => format!("{word}: {} packets dropped", status.packets_to_drop),
    }
}

fn show(out: &mut dyn Write, status: &view::Status) -> Result<(), CtlError> {
    let interfaces: Vec<_> = status
        .interfaces
        .iter()
        .map(|interface| {
            let (name, mode) = (&interface.name, &interface.mode);
            match (
                interface.state.as_str(),
                &interface.now_called,
                &interface.fallback,
            ) {
                ("gone", ..) => format!("{name} (GONE)"),
                ("awaited", ..) => format!("{name} (AWAITED)"),
                ("refused", ..) => format!("{name} (NOT FILTERED)"),
                (_, Some(other), _) => format!("{name} ({mode}; NOW CALLED {other})"),
                (_, None, Some(why)) => format!("{name} ({mode}: {why})"),
                (_, None, None) => format!("{name} ({mode})"),
            }
        })
        .collect();
    let protected: Vec<_> = status.protected.iter().map(ToString::to_string).collect();
    let mut rows = vec![
        (
            "sipfilterd",
            format!(
                "{}, process {}, up {}",
                status.version,
                status.pid,
                output::duration(status.uptime_seconds)
            ),
        ),
        ("configuration", status.config.clone()),
        (
            "unconfirmed",
            status.unconfirmed.as_ref().map_or_else(
                || "-".to_owned(),
                |it| {
                    format!(
                        "{}, for another {:.0} s",
                        output::plain(&it.file),
                        it.seconds_left
                    )
                },
            ),
        ),
        ("filtering on", output::cell(&interfaces, "-")),
        ("protected", output::cell(&protected, "-")),
        ("rtp ports", status.rtp_ports.clone()),
        ("enforcement", enforcement(status)),
        ("scope", status.scope.clone()),
        ("egress", status.egress.clone()),
        ("providers", output::cell(&status.providers, "-")),
        ("calls", status.calls.to_string()),
        ("pinholes", status.pinholes.to_string()),
    ];
    if status.adopted_pinholes > 0 {
        rows.push(("of earlier runs", status.adopted_pinholes.to_string()));
    }
    for interface in &status.interfaces {
        let name = &interface.name;
        let text = match (
            interface.state.as_str(),
            &interface.now_called,
            &interface.refusal,
        ) {
            ("gone", ..) => format!(
                "interface {name} is gone; one of this name is filtered as soon as it is there"
            ),
            ("awaited", ..) => format!(
                "there has been no interface {name} yet; it is filtered as soon as there is: is the name right (`ip link`)?"
            ),
            (_, Some(other), _) => format!(
                "interface {name} is called {other} now, and filtered: write that under `interfaces` and reload"
            ),
            (_, _, Some(why)) => {
                format!("interface {name} is not filtered: {}", output::plain(why))
            }
            _ => continue,
        };
        rows.push(("warning", text));
    }
    if status.routes_changed {
        let text = "the routes to the PBX have changed since they were asked, so that its own packets count as forged: `sipfilterctl reload`";
        rows.push(("warning", text.to_owned()));
    }
    if status.log_lines_lost > 0 {
        let text = format!(
            "{} lines of the log are lost: nobody took them from sipfilterd's standard error in time",
            status.log_lines_lost
        );
        rows.push(("warning", text));
    }
    if status.forged_packets > 0 {
        let text = format!(
            "{} packets from outside claim to be the PBX's",
            status.forged_packets
        );
        rows.push(("forged", text));
    }
    output::fields(
        out,
        rows.into_iter()
            .map(|(name, value)| (name.to_owned(), value)),
    )?;
    if !status.limited_sources.is_empty() {
        writeln!(out)?;
        output::table(
            out,
            &[
                "LIMITED SOURCE",
                "PROVIDER",
                "REQUESTS",
                "MESSAGES",
                "SEGMENTS",
            ],
            status.limited_sources.iter().map(|limited| {
                vec![
                    output::net(&limited.source),
                    limited.provider.clone(),
                    limited.requests.to_string(),
                    limited.messages.to_string(),
                    limited.segments.to_string(),
                ]
            }),
        )?;
    }
    let counted: Vec<_> = status
        .counters
        .iter()
        .filter(|(_, count)| **count > 0)
        .collect();
    if !counted.is_empty() {
        writeln!(out)?;
        output::table(
            out,
            &["COUNTED BY THE DAEMON", ""],
            counted
                .into_iter()
                .map(|(name, count)| vec![name.clone(), count.to_string()]),
        )?;
    }
    Ok(())
}
