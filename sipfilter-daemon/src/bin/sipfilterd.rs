//! sipfilterd: the daemon.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use sipfilter_daemon::{
    config::{self, Config, Log, LogFormat},
    error_text,
    shell::{self, runtime_dir},
};
use tracing_subscriber::EnvFilter;

/// Lets through the signalling of your providers and the media of live calls, and drops everything else that is aimed at the PBX's
/// voice ports.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    config: PathBuf,
    /// Where the control socket and the lock are; each daemon needs its own
    #[arg(long, value_name = "DIR", default_value = runtime_dir::DEFAULT)]
    runtime_dir: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let config = match Config::load(&arguments.config) {
        Ok(config) => config,
        Err(error) => return fail(&error.into()),
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
        Err(error) => return fail(&error.into()),
    };
    match runtime.block_on(shell::run(config, &arguments.runtime_dir)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// `RUST_LOG` overrides the configured level, so that one run can be looked at more closely.
fn start_logging(log: Log) {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(log.level.to_string()));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match log.format {
        LogFormat::Text => builder
            .with_target(false)
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .init(),
        LogFormat::Json => builder.json().init(),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("sipfilterd: {}", error_text::with_causes(error.as_ref()));
    ExitCode::from(2)
}
