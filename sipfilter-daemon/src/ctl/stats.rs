//! `sipfilterctl stats`: the kernel's counters, one line for each reason. It reads the pinned maps, so it works without the daemon.

use std::{io::Write, path::Path};

use serde::Serialize;
use sipfilter_common::abi::map;

use super::{CtlError, Outcome, output};
use crate::{
    shell::{
        counters::Counters,
        pins::{PinError, Pins},
    },
    view,
};

/// The JSON answer.
#[derive(Serialize)]
struct Answer {
    counters: Vec<view::Counter>,
}

pub(super) fn run(
    runtime_dir: &Path,
    json: bool,
    out: &mut dyn Write,
) -> Result<Outcome, CtlError> {
    let counters = read(&Pins::of_runtime_dir(runtime_dir))?;
    if json {
        output::json(out, &Answer { counters })?;
    } else {
        table(out, &counters)?;
    }
    Ok(Outcome::Done)
}

/// Every counter, from the pinned map.
pub(super) fn read(pins: &Pins) -> Result<Vec<view::Counter>, PinError> {
    let map = pins.open(map::COUNTERS)?;
    Counters::try_from(map)
        .and_then(|counters| counters.view())
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
