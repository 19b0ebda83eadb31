//! `sipfilterctl pinholes`: what is open, for whom, and what has passed through it in each direction.

use schemars::JsonSchema;
use serde::Serialize;

use super::{CtlError, Outcome, Session, client, output};
use crate::view;

/// The JSON answer.
#[derive(Serialize, JsonSchema)]
pub(super) struct Answer {
    /// Open pinholes, in order of their addresses.
    pinholes: Vec<view::Pinhole>,
}

pub(super) fn run(session: &mut Session<'_>) -> Result<Outcome, CtlError> {
    let pinholes: Vec<view::Pinhole> = client::list(session.runtime_dir, "/v1/pinholes")?;
    if session.json {
        output::json(session.out, &Answer { pinholes })?;
        return Ok(Outcome::Done);
    }
    let rows = pinholes.iter().map(|pinhole| {
        let sources: Vec<_> = pinhole.sources.iter().map(output::source).collect();
        vec![
            pinhole.local.to_string(),
            output::cell(&sources, "-"),
            pinhole.stream.clone(),
            output::payload_types(pinhole.payload_types.as_deref()),
            pinhole
                .packets_per_second
                .map_or_else(|| "-".to_owned(), |rate| rate.to_string()),
            pinhole.latch.clone().unwrap_or_else(|| "-".to_owned()),
            pinhole.provider.clone(),
            pinhole.call.to_string(),
            pinhole.ingress_packets.to_string(),
            pinhole.egress_packets.to_string(),
            pinhole.dropped_packets.to_string(),
            pinhole
                .idle_seconds
                .map_or_else(|| "-".to_owned(), output::duration),
            output::duration(pinhole.idle_limit_seconds),
        ]
    });
    let head = [
        "LOCAL", "FROM", "STREAM", "TYPES", "PPS", "LATCH", "PROVIDER", "CALL", "IN", "OUT",
        "DROPPED", "IDLE", "LIMIT",
    ];
    output::table(session.out, &head, rows)?;
    Ok(Outcome::Done)
}
