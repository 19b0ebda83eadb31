//! sipfilterd: the daemon.
//!
//! Exit status: 0 it was asked to end, 1 something went wrong that another attempt may mend, 2 a configuration or a command line that no
//! attempt will mend. The systemd unit restarts it after 1 and not after 2.

use std::process::ExitCode;

use clap::Parser;
use sipfilter_daemon::{
    arguments::Arguments,
    config::{Config, Log, LogFormat},
    error_text, shell,
};
use tracing_subscriber::EnvFilter;

/// Something went wrong.
const FAILED: u8 = 1;
/// The configuration is wrong; clap's status for a wrong command line, too.
const WRONG_CONFIG: u8 = 2;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let config = match Config::load(&arguments.config) {
        Ok(config) => config,
        Err(error) => return fail(WRONG_CONFIG, &error.into()),
    };
    start_logging(config.log);
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(FAILED, &error.into()),
    };
    match runtime.block_on(shell::run(config, &arguments.runtime_dir)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(FAILED, &error),
    }
}

/// `RUST_LOG` overrides the configured level, so that one run can be looked at more closely.
fn start_logging(log: Log) {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(log.level.to_string()));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // Set by systemd where standard error is the journal, which notes the time of each line itself.
    let is_journal = std::env::var_os("JOURNAL_STREAM").is_some();
    match log.format {
        LogFormat::Text if is_journal => builder
            .with_target(false)
            .with_ansi(false)
            .without_time()
            .init(),
        LogFormat::Text => builder
            .with_target(false)
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .init(),
        LogFormat::Json => builder.json().init(),
    }
}

fn fail(status: u8, error: &anyhow::Error) -> ExitCode {
    eprintln!("sipfilterd: {}", error_text::with_causes(error.as_ref()));
    ExitCode::from(status)
}
