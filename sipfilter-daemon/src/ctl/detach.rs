//! `sipfilterctl detach`: takes the programs that a daemon has left attached off their interfaces. Works without the daemon only.

use schemars::JsonSchema;
use serde::Serialize;

use super::{CtlError, Outcome, Session, output};
use crate::shell::{self, datapath, interface, pins::Pins, runtime_dir::RuntimeDir};

/// The JSON answer.
#[derive(Serialize, JsonSchema)]
pub(super) struct Answer {
    /// Interfaces that were filtered; those that are gone by their number.
    detached: Vec<String>,
}

pub(super) fn run(session: &mut Session<'_>) -> Result<Outcome, CtlError> {
    let pins = Pins::of_runtime_dir(session.runtime_dir);
    // A running daemon holds the lock, and is what ought to be stopped.
    let _lock = RuntimeDir::lock(session.runtime_dir)?;
    let detached: Vec<String> = datapath::attachments(&pins)
        .into_iter()
        .map(|attachment| {
            interface::name(attachment.index).unwrap_or_else(|| format!("#{}", attachment.index.0))
        })
        .collect();
    shell::detach_all(&pins);
    let outcome = match detached.is_empty() {
        true => Outcome::No,
        false => Outcome::Done,
    };
    if session.json {
        output::json(session.out, &Answer { detached })?;
    } else if detached.is_empty() {
        writeln!(session.out, "nothing is attached")?;
    } else {
        writeln!(
            session.out,
            "detached from {}: nothing is filtered there any more",
            detached.join(", ")
        )?;
    }
    Ok(outcome)
}
