//! A configuration that is not put in force, and why.

use super::{NothingWaits, answer::unplaced};
use crate::{
    config::{Change, ResolveError},
    shell::datapath::DatapathError,
    view,
};

/// A configuration that cannot.
pub(super) struct Refused {
    pub errors: Vec<view::Problem>,
    pub warnings: Vec<view::Problem>,
    pub changes: Vec<Change>,
}

/// Why a configuration that is good in itself cannot take the place of the one in force.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReloadError {
    /// A key that is read at the start only.
    #[error(
        "`{key}` cannot change while the daemon runs; restart sipfilterd for it (calls in progress go on)"
    )]
    Fixed { key: &'static str },
    /// What it says of interfaces does not hold here.
    #[error(transparent)]
    Resolve(#[from] ResolveError<std::io::Error>),
    /// The programs cannot be loaded or attached.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// Another one is being tried.
    #[error(
        "{file} waits to be confirmed: `sipfilterctl confirm` keeps it, `sipfilterctl rollback` goes back; then try again"
    )]
    Waits { file: String },
    /// The file that the next start reads.
    #[error(
        "{file} is the configuration file, which the next start reads whether or not it was confirmed; apply a copy of it: `sipfilterctl confirm` puts that in its place"
    )]
    NoCopy { file: String },
    /// Nothing is being tried.
    #[error(transparent)]
    NothingWaits(#[from] NothingWaits),
    /// More than there can be.
    #[error("`pinholes` under [limits] is too large")]
    Pinholes,
    /// The thread that prepares it is gone.
    #[error("it could not be prepared: {0}")]
    Thread(#[from] tokio::task::JoinError),
}

impl From<ReloadError> for Refused {
    fn from(error: ReloadError) -> Self {
        Self {
            errors: vec![unplaced(&error)],
            warnings: Vec::new(),
            changes: Vec::new(),
        }
    }
}
