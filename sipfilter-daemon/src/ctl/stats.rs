//! `sipfilterctl stats`: the kernel's counters, one line for each reason. It reads the pinned maps, so it works without the daemon.

use std::io::Write;

use schemars::JsonSchema;
use serde::Serialize;
use sipfilter_common::{abi::map, settings::Mode};

use super::{CtlError, Outcome, Session, output};
use crate::{
    shell::{
        counters::Counters,
        pins::{PinError, Pins},
    },
    view,
};

/// The JSON answer.
#[derive(Serialize, JsonSchema)]
pub(super) struct Answer {
    /// Nothing is dropped: what the rules call for is only counted.
    observing: bool,
    /// One for each reason and note.
    counters: Vec<view::Counter>,
}

pub(super) fn run(session: &mut Session<'_>) -> Result<Outcome, CtlError> {
    let (counters, observing) = read(&Pins::of_runtime_dir(session.runtime_dir))?;
    if session.json {
        let answer = Answer {
            observing,
            counters,
        };
        output::json(session.out, &answer)?;
    } else {
        if observing {
            let packets: u64 = counters
                .iter()
                .filter(|counter| counter.kind == "would drop")
                .map(|counter| counter.packets)
                .sum();
            writeln!(
                session.out,
                "NOTHING IS DROPPED (enforcement = \"observe\"): {packets} packets would have been\n"
            )?;
        }
        table(session.out, &counters)?;
    }
    Ok(Outcome::Done)
}

/// Every counter, from the pinned map, and whether drops are only observed.
pub(super) fn read(pins: &Pins) -> Result<(Vec<view::Counter>, bool), PinError> {
    let modes = pins.stamp()?.modes;
    let map = pins.open(map::COUNTERS)?;
    Counters::try_from(map)
        .and_then(|counters| counters.view(modes))
        .map(|counters| (counters, modes.has(Mode::Observe)))
        .map_err(|source| pins.map_error(map::COUNTERS, source))
}

/// The table of counters, also shown by `maps dump`.
pub(super) fn table(out: &mut dyn Write, counters: &[view::Counter]) -> Result<(), CtlError> {
    let rows = counters.iter().map(|counter| {
        vec![
            counter.name.clone(),
            counter.kind.clone(),
            counter.packets.to_string(),
            counter.bytes.to_string(),
        ]
    });
    output::table(out, &["REASON", "VERDICT", "PACKETS", "BYTES"], rows)
}
