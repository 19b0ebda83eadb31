//! The log: its form for the whole run, and its level, which can change.

use tracing_subscriber::EnvFilter;

use super::privacy::Redactor;
use crate::config::{Log, LogFormat, LogLevel};

/// Another level from now on.
pub struct LevelSwitch(Box<dyn Fn(EnvFilter) + Send>);

impl LevelSwitch {
    /// Sets the level, unless `RUST_LOG` has.
    pub fn set(&self, level: LogLevel) {
        if EnvFilter::try_from_default_env().is_err() {
            (self.0)(EnvFilter::new(level.to_string()));
        }
    }
}

/// Begins to log to standard error, through what redacts. `RUST_LOG` overrides the configured level, so that one run can be looked at more closely.
pub fn start(log: Log, redactor: Redactor) -> LevelSwitch {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(log.level.to_string()));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // A line that cannot be written (a full disk, a journal that is gone) is lost: saying so on standard error would end the process.
        .log_internal_errors(false)
        .with_writer(redactor);
    // Set by systemd where standard error is the journal, which notes the time of each line itself.
    let is_journal = std::env::var_os("JOURNAL_STREAM").is_some();
    match log.format {
        LogFormat::Text if is_journal => {
            let builder = builder
                .with_target(false)
                .with_ansi(false)
                .without_time()
                .with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            LevelSwitch(Box::new(move |filter| drop(handle.reload(filter))))
        }
        LogFormat::Text => {
            let builder = builder
                .with_target(false)
                .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
                .with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            // It can only fail once nothing is logged any more.
            LevelSwitch(Box::new(move |filter| drop(handle.reload(filter))))
        }
        LogFormat::Json => {
            let builder = builder.json().with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            LevelSwitch(Box::new(move |filter| drop(handle.reload(filter))))
        }
    }
}
