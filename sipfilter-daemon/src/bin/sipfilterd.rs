//! sipfilterd: the daemon.
//!
//! Exit status: 0 it was asked to end, 1 something went wrong that another attempt may mend, 2 a configuration or a command line that no
//! attempt will mend. The systemd unit restarts it after 1 and not after 2.

use std::{io::Write as _, process::ExitCode};

use clap::Parser;
use sipfilter_daemon::{
    arguments::Arguments,
    config::Config,
    error_text,
    shell::{
        self,
        logging::{self, Flush, Lines},
        privacy::Redactor,
    },
};

/// Something went wrong.
const FAILED: u8 = 1;
/// The configuration is wrong; clap's status for a wrong command line, too.
const WRONG_CONFIG: u8 = 2;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let config = match Config::load(&arguments.config) {
        Ok(config) => config,
        Err(error) => return fail(WRONG_CONFIG, &error.into(), None),
    };
    let redactor = Redactor::new(shell::hash_key(), config.privacy.redact);
    let log = match logging::start(config.log, redactor.clone()) {
        Ok(log) => log,
        Err(error) => return fail(FAILED, &error.into(), None),
    };
    let lines = log.lines.clone();
    let _flush = Flush(lines.clone());
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(FAILED, &error.into(), Some(&lines)),
    };
    match runtime.block_on(shell::run(config, &arguments.runtime_dir, log, redactor)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(FAILED, &error, Some(&lines)),
    }
}

/// Says why, behind whatever was logged. What the operator wrote is named as it is.
fn fail(status: u8, error: &anyhow::Error, lines: Option<&Lines>) -> ExitCode {
    let text = format!("sipfilterd: {}\n", error_text::with_causes(error.as_ref()));
    match lines {
        Some(lines) => lines.push(text.as_bytes()),
        // Where nobody can be told, the status still says it; `eprint` would end in another one.
        None => drop(std::io::stderr().write_all(text.as_bytes())),
    }
    ExitCode::from(status)
}
