//! `sipfilterctl drops`: who was dropped, why, and which call it nearly belonged to.

use std::{io::Write, path::Path};

use super::{CtlError, Outcome, client, monitor::near_text, output};
use crate::view::{DroppedReason, DroppedSource, Drops};

/// How many.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Show at most so many sources
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
}

pub(super) fn run(
    args: &Args,
    runtime_dir: &Path,
    json: bool,
    out: &mut dyn Write,
) -> Result<Outcome, CtlError> {
    let resource = format!("/v1/drops?limit={}", args.limit);
    let drops: Drops = client::get(runtime_dir, &resource)?;
    if json {
        output::json(out, &drops)?;
    } else if drops.reasons.is_empty() {
        writeln!(out, "nothing was dropped since {}", drops.since)?;
    } else {
        print(out, &drops)?;
    }
    Ok(Outcome::Done)
}

fn print(out: &mut dyn Write, drops: &Drops) -> Result<(), CtlError> {
    let rows = drops.reasons.iter().map(|row| {
        let DroppedReason {
            reason,
            verdict,
            packets,
            samples,
        } = row;
        vec![
            reason.clone(),
            verdict.clone(),
            packets.to_string(),
            format!("{samples} of {packets}"),
        ]
    });
    output::table(out, &["REASON", "VERDICT", "PACKETS", "LOOKED AT"], rows)?;
    if drops.sources.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    let rows = drops.sources.iter().map(|row| {
        vec![
            output::net(&row.source),
            row.reason.clone(),
            about(row),
            seconds(&row.first_seen),
            seconds(&row.last_seen),
            row.destination.map_or_else(
                || "-".to_owned(),
                |at| match at.port() {
                    0 => at.ip().to_string(),
                    _ => at.to_string(),
                },
            ),
            row.near.as_ref().map_or_else(|| "-".to_owned(), near_text),
        ]
    });
    let head = [
        "SOURCE",
        "REASON",
        "PACKETS",
        "FIRST SEEN",
        "LAST SEEN",
        "LAST TO",
        "NEAREST CALL",
    ];
    output::table(out, &head, rows)?;
    more(out, drops.more_sources, "sources")
}

/// An estimate looks like one.
fn about(row: &DroppedSource) -> String {
    if row.packets > row.samples {
        format!("~{}", row.packets)
    } else {
        row.packets.to_string()
    }
}

/// A time of the daemon's without parts of a second.
pub(super) fn seconds(time: &str) -> String {
    match time.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => time.to_owned(),
    }
}

/// What is not in a table.
pub(super) fn more(out: &mut dyn Write, count: u64, what: &str) -> Result<(), CtlError> {
    if count > 0 {
        writeln!(out, "and {count} more {what}")?;
    }
    Ok(())
}
