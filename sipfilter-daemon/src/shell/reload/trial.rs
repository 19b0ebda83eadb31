//! A configuration on trial: in force until somebody confirms it, or until its time is up.
//!
//! It says when to go back and to what; `reload` does it. The configuration file is what was confirmed last, so that a start goes back by
//! itself, whatever the daemon died of; a file in the runtime directory lets it say so. Invariant: at most one is on trial.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use super::NothingWaits;
use crate::{config::Config, engine::Instant, view};

/// The note in the runtime directory.
const NOTE: &str = "unconfirmed";
/// Until going back is tried again where it failed.
const AGAIN: Duration = Duration::from_secs(5);

/// A configuration that is to be tried.
#[derive(Debug)]
pub struct Candidate {
    /// Where it is from.
    pub file: String,
    /// What it says.
    pub text: String,
    /// What was in force before.
    pub before: Config,
    /// How long it is tried.
    pub patience: Duration,
}

/// Whether a configuration is on trial, and which.
#[derive(Debug)]
pub struct Trial {
    note: PathBuf,
    candidate: Option<(Candidate, Instant)>,
}

impl Trial {
    /// None, after a look at what the last run left.
    pub fn after_start(runtime_dir: &Path) -> Self {
        let note = runtime_dir.join(NOTE);
        if let Ok(file) = fs::read_to_string(&note) {
            tracing::warn!(
                file,
                "the last run ended before this configuration was confirmed: rolled back, the configuration file is in force"
            );
        }
        let trial = Self {
            note,
            candidate: None,
        };
        trial.remove_note();
        trial
    }

    /// It is in force from now on.
    pub fn begin(&mut self, candidate: Candidate, now: Instant) {
        if let Err(error) = fs::write(&self.note, &candidate.file) {
            tracing::warn!(path = %self.note.display(), %error, "a next start will go back without a word");
        }
        tracing::warn!(
            file = candidate.file,
            seconds = candidate.patience.as_secs(),
            "in force until it is confirmed (`sipfilterctl confirm`)"
        );
        let deadline = now + candidate.patience;
        self.candidate = Some((candidate, deadline));
    }

    /// Keeps it, for the daemon's file.
    pub fn confirm(&mut self, config: &Path) -> Result<view::Confirmed, NothingWaits> {
        let (candidate, _) = self.candidate.take().ok_or(NothingWaits)?;
        self.remove_note();
        tracing::info!(file = candidate.file, "confirmed");
        Ok(view::Confirmed {
            file: candidate.file,
            config: config.display().to_string(),
            text: candidate.text,
        })
    }

    /// What was before it is in force again.
    pub fn end(&mut self) {
        if let Some((candidate, _)) = self.candidate.take() {
            tracing::warn!(file = candidate.file, "rolled back");
        }
        self.remove_note();
    }

    /// Going back has failed.
    pub fn postpone(&mut self, now: Instant) {
        if let Some((candidate, deadline)) = &mut self.candidate {
            *deadline = now + AGAIN;
            tracing::error!(
                file = candidate.file,
                seconds = AGAIN.as_secs(),
                "not rolled back; trying again"
            );
        }
    }

    /// What was in force before the one on trial.
    pub fn before(&self) -> Option<Config> {
        let (candidate, _) = self.candidate.as_ref()?;
        Some(candidate.before.clone())
    }

    /// The same, if its time is up. It is not said again until [`Self::postpone`].
    pub fn take_overdue(&mut self, now: Instant) -> Option<Config> {
        let (candidate, deadline) = self.candidate.as_mut()?;
        if now < *deadline {
            return None;
        }
        *deadline = Instant(Duration::MAX);
        Some(candidate.before.clone())
    }

    /// Until when it waits.
    pub fn deadline(&self) -> Option<Instant> {
        let (_, deadline) = self.candidate.as_ref()?;
        Some(*deadline).filter(|deadline| deadline.0 < Duration::MAX)
    }

    /// The file of the one on trial.
    pub fn file(&self) -> Option<&str> {
        self.candidate
            .as_ref()
            .map(|(candidate, _)| candidate.file.as_str())
    }

    /// File and deadline, for `status`.
    pub fn view(&self) -> Option<(String, Instant)> {
        let (candidate, deadline) = self.candidate.as_ref()?;
        Some((candidate.file.clone(), *deadline))
    }

    fn remove_note(&self) {
        match fs::remove_file(&self.note) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.note.display(), %error, "the note of an unconfirmed configuration stays behind");
            }
            _ => {}
        }
    }
}
