//! `sipfilterctl`: the operator's commands.
//!
//! This file knows the command line and which module answers each command, one file per command; `output` prints. A command
//! returns [`Outcome`]; only the binary knows exit codes: 0 done, 1 no, 2 usage or failure.
//!
//! To add a command: a module with `Args` and `run`, a variant of [`Command`], an arm in [`run`].

mod check_config;
mod output;
mod providers;

use std::{
    io::{self, Write},
    path::PathBuf,
};

use clap::{Parser, Subcommand};

use crate::config::LoadError;

/// The directory of the daemon's socket and pinned maps, unless the operator says otherwise.
pub const DEFAULT_RUNTIME_DIR: &str = "/run/sipfilter";

/// See and check what sipfilter does.
#[derive(Debug, Parser)]
#[command(
    name = "sipfilterctl",
    version,
    after_help = "Exit status: 0 done, 1 the answer is no, 2 usage error or failure."
)]
pub struct Cli {
    /// The daemon's runtime directory
    #[arg(long, global = true, value_name = "DIR", default_value = DEFAULT_RUNTIME_DIR)]
    pub runtime_dir: PathBuf,
    /// Print JSON for programs instead of tables for people
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check a configuration file and show what it means; exit status 1 if it has errors
    CheckConfig(check_config::Args),
    /// List the providers that a trunk can name, and what is known of them
    Providers(providers::Args),
}

/// How a command that was carried out ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Done, or the answer is yes.
    Done,
    /// The answer is no: the configuration has errors, there is no such call, ….
    No,
}

/// Why a command could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum CtlError {
    /// A configuration that the command needs cannot be read or used.
    #[error("{0}")]
    Config(#[from] LoadError),
    /// The output cannot be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
    /// A value cannot be written as JSON: a mistake of this program's.
    #[error("cannot write the output as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// Carries a command out and writes what it has to say to `out`.
pub fn run(cli: &Cli, out: &mut dyn Write) -> Result<Outcome, CtlError> {
    match &cli.command {
        Command::CheckConfig(args) => check_config::run(args, cli.json, out),
        Command::Providers(args) => providers::run(args, cli.json, out),
    }
}
