//! `sipfilterctl report`: what enforcing would have broken, and whether it is safe. It shows what the daemon has counted.

use std::io::Write;

use super::{CtlError, Outcome, Session, client, output};
use crate::view;

/// Sources of the rest that are shown.
const SHOWN: usize = 20;

pub(super) fn run(session: &mut Session<'_>) -> Result<Outcome, CtlError> {
    let report: view::Report = client::get(session.runtime_dir, "/v1/report")?;
    let outcome = match report.safe_to_enforce {
        true => Outcome::Done,
        false => Outcome::No,
    };
    session.answer(&report, show)?;
    Ok(outcome)
}

fn show(out: &mut dyn Write, report: &view::Report) -> Result<(), CtlError> {
    let mut safe = match report.safe_to_enforce {
        true => "yes".to_owned(),
        false => "no".to_owned(),
    };
    for objection in &report.objections {
        safe = format!("{safe}\n  {}", output::plain(objection));
    }
    let fields = [
        (
            "since",
            format!("{} ({})", report.since, output::duration(report.seconds)),
        ),
        ("enforcement", report.enforcement.clone()),
        ("calls answered", report.calls_answered.to_string()),
        ("safe to enforce", safe),
    ];
    output::fields(out, fields.map(|(name, value)| (name.to_owned(), value)))?;
    calls(out, report)?;
    signalling(out, &report.signalling)?;
    if !report.rest.is_empty() {
        writeln!(out, "\nTHE REST (samples)")?;
        dropped(out, report.rest.iter().take(SHOWN))?;
    }
    let more = report.more_sources + report.rest.len().saturating_sub(SHOWN) as u64;
    if more > 0 {
        writeln!(out, "and {more} sources more")?;
    }
    if report.reasons.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nIN ALL (counted)")?;
    let rows = report.reasons.iter().map(|reason| {
        vec![
            reason.reason.clone(),
            reason.verdict.clone(),
            reason.packets.to_string(),
        ]
    });
    output::table(out, &["REASON", "VERDICT", "PACKETS"], rows)
}

fn calls(out: &mut dyn Write, report: &view::Report) -> Result<(), CtlError> {
    for (kind, head) in [
        ((true, false), "CALLS THAT LOSE MEDIA"),
        ((true, true), "SILENT CALLS THAT ONLY OTHERS SENT TO"),
        ((false, false), "CALLS THAT OTHERS SENT TO"),
    ] {
        let chosen = || {
            let mut calls = report.calls.iter();
            std::iter::from_fn(move || {
                calls.find(|call| (call.loses_media, call.only_others) == kind)
            })
        };
        if chosen().next().is_none() {
            continue;
        }
        writeln!(out, "\n{head}")?;
        for call in chosen() {
            one(out, call)?;
        }
    }
    if report.more_calls > 0 {
        writeln!(out, "and {} calls more", report.more_calls)?;
    }
    Ok(())
}

fn one(out: &mut dyn Write, call: &view::ReportedCall) -> Result<(), CtlError> {
    let id = call.call_id.as_deref().unwrap_or("-");
    writeln!(
        out,
        "call {}, {}, {}: {}",
        call.number,
        output::plain(id),
        call.provider,
        call.because
    )?;
    for pinhole in &call.pinholes {
        writeln!(
            out,
            "    {} {}: in {}, out {}, to be dropped {}",
            pinhole.local,
            pinhole.stream,
            pinhole.ingress_packets,
            pinhole.egress_packets,
            pinhole.dropped_packets
        )?;
    }
    for source in &call.sources {
        let destination = match call
            .pinholes
            .iter()
            .any(|at| at.local == source.destination)
        {
            true => String::new(),
            false => format!(" to {}", source.destination),
        };
        writeln!(
            out,
            "    from {} port {}{destination}: {}, about {} packets, {} to {}",
            source.source,
            source.port,
            source.reason,
            source.packets,
            source.first_seen,
            source.last_seen
        )?;
    }
    Ok(())
}

fn signalling(out: &mut dyn Write, signalling: &view::ReportedSignalling) -> Result<(), CtlError> {
    if !signalling.providers.is_empty() {
        writeln!(out, "\nFROM PROVIDERS' SIGNALLING ADDRESSES (samples)")?;
        dropped(out, signalling.providers.iter())?;
    }
    if !signalling.limited.is_empty() {
        writeln!(out, "\nPROVIDERS THAT SEND MORE THAN THEY MAY (counted)")?;
        let rows = signalling.limited.iter().map(|limited| {
            vec![
                output::net(&limited.source),
                limited.provider.clone(),
                (limited.requests + limited.messages + limited.segments).to_string(),
            ]
        });
        output::table(out, &["SOURCE", "PROVIDER", "PACKETS"], rows)?;
    }
    if !signalling.claims.is_empty() {
        writeln!(out, "\nSTRANGERS IN THE NAME OF YOUR PROVIDERS (samples)")?;
        let rows = signalling.claims.iter().map(|stranger| {
            vec![
                output::net(&stranger.network),
                stranger.claims.clone().unwrap_or_default(),
                stranger.packets.to_string(),
                stranger.first_seen.clone(),
                stranger.last_seen.clone(),
            ]
        });
        output::table(
            out,
            &["NETWORK", "CLAIMS", "PACKETS", "FIRST", "LAST"],
            rows,
        )?;
    }
    Ok(())
}

fn dropped<'a>(
    out: &mut dyn Write,
    sources: impl Iterator<Item = &'a view::DroppedSource>,
) -> Result<(), CtlError> {
    let rows = sources.map(|source| {
        vec![
            output::net(&source.source),
            source.reason.clone(),
            source.packets.to_string(),
            source
                .destination
                .map_or_else(|| "-".to_owned(), |to| to.to_string()),
            source.first_seen.clone(),
            source.last_seen.clone(),
        ]
    });
    output::table(
        out,
        &["SOURCE", "REASON", "PACKETS", "TO", "FIRST", "LAST"],
        rows,
    )
}
