//! `sipfilterctl reload`: has the daemon read its configuration again, and shows what that changed.

use std::{io::Write, path::Path};

use super::{CtlError, Outcome, client, output};
use crate::view;

pub(super) fn run(
    runtime_dir: &Path,
    json: bool,
    out: &mut dyn Write,
) -> Result<Outcome, CtlError> {
    let answer: view::Reload = client::post(runtime_dir, "/v1/reload")?;
    if json {
        output::json(out, &answer)?;
    } else {
        show(&answer, out)?;
    }
    Ok(match answer.ok {
        true => Outcome::Done,
        false => Outcome::No,
    })
}

/// What became of a configuration, for people.
pub(super) fn show(answer: &view::Reload, out: &mut dyn Write) -> Result<(), CtlError> {
    for problem in answer.warnings.iter().chain(&answer.errors) {
        match problem.place {
            Some(_) => writeln!(out, "{}\n", problem.text)?,
            None => writeln!(out, "{}: {}", answer.file, problem.text)?,
        }
    }
    if !answer.ok {
        writeln!(out, "{} is not in force: nothing has changed", answer.file)?;
        return Ok(());
    }
    if answer.changes.is_empty() {
        writeln!(out, "{} says what is in force already", answer.file)?;
        return Ok(());
    }
    for change in &answer.changes {
        writeln!(out, "{}", output::printable(&change.key))?;
        for (sign, list) in [('-', &change.removed), ('+', &change.added)] {
            for item in list {
                writeln!(out, "  {sign} {}", output::printable(item))?;
            }
        }
    }
    writeln!(out, "{} is in force", answer.file)?;
    if answer.calls_ended > 0 || answer.pinholes_closed > 0 {
        writeln!(
            out,
            "calls ended: {}, pinholes closed: {}",
            answer.calls_ended, answer.pinholes_closed
        )?;
    }
    Ok(())
}
