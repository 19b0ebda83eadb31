//! `sipfilterctl reload`: has the daemon read its configuration again, and shows what that changed.

use std::io::Write;

use super::{CtlError, Outcome, Session, client, output};
use crate::view;

pub(super) fn run(session: &mut Session<'_>) -> Result<Outcome, CtlError> {
    let answer = client::post(session.runtime_dir, "/v1/reload")?;
    print(&answer, session)
}

/// What became of a configuration.
pub(super) fn print(answer: &view::Reload, session: &mut Session<'_>) -> Result<Outcome, CtlError> {
    session.answer(answer, |out, answer| show(answer, out))?;
    Ok(match answer.ok {
        true => Outcome::Done,
        false => Outcome::No,
    })
}

fn show(answer: &view::Reload, out: &mut dyn Write) -> Result<(), CtlError> {
    for problem in answer.warnings.iter().chain(&answer.errors) {
        match problem.place {
            Some(_) => writeln!(out, "{}\n", problem.text)?,
            None => writeln!(out, "{}", problem.text)?,
        }
    }
    if !answer.ok {
        if answer.errors.iter().any(|error| error.place.is_some()) {
            write!(out, "{} is not in force: ", answer.file)?;
        }
        writeln!(out, "nothing has changed")?;
        return Ok(());
    }
    if answer.changes.is_empty() {
        writeln!(out, "{} says what is in force already", answer.file)?;
        return until_confirmed(answer, out);
    }
    for change in &answer.changes {
        writeln!(out, "{}", output::plain(&change.key))?;
        for (sign, list) in [('-', &change.removed), ('+', &change.added)] {
            for item in list {
                writeln!(out, "  {sign} {}", output::plain(item))?;
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
    until_confirmed(answer, out)
}

fn until_confirmed(answer: &view::Reload, out: &mut dyn Write) -> Result<(), CtlError> {
    if let Some(seconds) = answer.confirm_within_seconds {
        writeln!(
            out,
            "for {seconds:.0} s: `sipfilterctl confirm` keeps it, `sipfilterctl rollback` or waiting goes back"
        )?;
    }
    Ok(())
}
