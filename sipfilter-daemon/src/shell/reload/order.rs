//! What the task that owns the configuration can be told.

use std::time::Duration;

use tokio::sync::oneshot;

use crate::{config::Config, view};

/// Where another configuration comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// The daemon's own file.
    File,
    /// This text, to be tried for so long.
    Text {
        /// Where it is from.
        file: String,
        /// What it says.
        text: String,
        /// How long it is in force unless it is confirmed.
        patience: Duration,
    },
    /// What was in force before the one that waits to be confirmed.
    Before(Box<Config>),
    /// What is in force, whose interfaces are others by now, or have other addresses.
    Again,
}

/// An order to load another configuration. `asker` hears what became of it, unless it has gone.
#[derive(Debug)]
pub struct Order {
    /// Where it is.
    pub source: Source,
    /// Who wants to know.
    pub asker: Option<oneshot::Sender<view::Reload>>,
}

/// What can be told the task that owns the configuration.
#[derive(Debug)]
pub enum Command {
    /// Load another one.
    Load(Order),
    /// Keep the one that waits for it.
    Confirm(oneshot::Sender<Result<view::Confirmed, NothingWaits>>),
    /// Go back from it.
    RollBack(oneshot::Sender<view::Reload>),
}

/// There is no configuration to confirm.
#[derive(Debug, thiserror::Error)]
#[error(
    "no configuration waits to be confirmed; `sipfilterctl apply FILE` tries one, and the log says what became of the last"
)]
pub struct NothingWaits;
