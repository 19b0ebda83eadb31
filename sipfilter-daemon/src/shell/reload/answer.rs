//! What became of a configuration, for whoever ordered it and for the log.

use std::path::Path;

use super::refusal::Refused;
use crate::{
    config::{Change, Diagnostic, LoadError},
    error_text, view,
};

pub(super) fn report(answer: &view::Reload) {
    for warning in &answer.warnings {
        tracing::warn!("{}", warning.message);
    }
    for error in &answer.errors {
        match &error.place {
            Some(place) => {
                tracing::error!("{}:{}: {}", place.file, place.line, error.message);
            }
            None => tracing::error!("{}", error.message),
        }
    }
    if !answer.ok {
        tracing::error!("nothing has changed");
        return;
    }
    for view::Change {
        key,
        removed,
        added,
    } in &answer.changes
    {
        tracing::info!(key, ?removed, ?added, "changed");
    }
    tracing::info!(
        file = answer.file,
        changes = answer.changes.len(),
        calls_ended = answer.calls_ended,
        pinholes_closed = answer.pinholes_closed,
        "reloaded"
    );
}

pub(super) fn refusal(path: &Path, refused: Refused) -> view::Reload {
    view::Reload {
        errors: refused.errors,
        warnings: refused.warnings,
        changes: refused.changes.iter().map(change_view).collect(),
        ..empty(path)
    }
}

pub(super) fn empty(path: &Path) -> view::Reload {
    view::Reload {
        ok: false,
        file: path.display().to_string(),
        changes: Vec::new(),
        calls_ended: 0,
        pinholes_closed: 0,
        confirm_within_seconds: None,
        errors: Vec::new(),
        warnings: Vec::new(),
    }
}

pub(super) fn change_view(change: &Change) -> view::Change {
    view::Change {
        key: change.key.clone(),
        removed: change.removed.clone(),
        added: change.added.clone(),
    }
}

pub(super) fn problems(error: &LoadError) -> Vec<view::Problem> {
    match error.diagnostics() {
        [] => vec![unplaced(error)],
        some => some.iter().map(problem).collect(),
    }
}

pub(super) fn problem(diagnostic: &Diagnostic) -> view::Problem {
    view::Problem {
        place: Some(view::ProblemPlace {
            file: diagnostic.file.name.clone(),
            line: diagnostic.line(),
            column: diagnostic.column(),
            key: diagnostic.key.clone(),
        }),
        message: format!("{}; {}", diagnostic.message, diagnostic.help),
        text: diagnostic.to_string(),
    }
}

pub(super) fn unplaced(error: &(dyn std::error::Error + 'static)) -> view::Problem {
    spoken(&error_text::with_causes(error))
}

pub(super) fn spoken(message: &str) -> view::Problem {
    view::Problem {
        place: None,
        message: message.to_owned(),
        text: message.to_owned(),
    }
}
