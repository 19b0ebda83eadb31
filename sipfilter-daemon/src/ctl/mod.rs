//! `sipfilterctl`: the operator's commands.
//!
//! This file knows the command line and which module answers each command, one file per command; `output` prints. A command
//! returns [`Outcome`]; only the binary knows exit codes: 0 done, 1 no, 2 usage or failure.
//!
//! To add a command: a module with `Args` and `run`, a variant of [`Command`], an arm in [`run`].

mod apply;
mod call_record;
mod calls;
mod capture;
mod check_config;
mod client;
mod detach;
mod doctor;
mod drops;
mod explain;
mod ladder;
mod maps;
mod monitor;
mod output;
mod pinholes;
mod providers;
mod reload;
mod report;
pub mod schema;
mod simulate;
mod stats;
mod status;
mod strangers;
mod top;

use std::{
    io::{self, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::{Parser, Subcommand};
use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    config::{LoadError, ResolveError},
    shell::{
        pins::PinError,
        runtime_dir::{self, RuntimeDirError},
    },
    view::Failure,
};
pub use capture::CaptureError;
use client::ClientError;
pub use simulate::SimulateError;

/// See and check what sipfilter does.
#[derive(Debug, Parser)]
#[command(
    name = "sipfilterctl",
    version,
    after_help = "Exit status: 0 done, 1 the answer is no, 2 usage error or failure."
)]
pub struct Cli {
    /// The daemon's runtime directory
    #[arg(long, global = true, value_name = "DIR", default_value = runtime_dir::DEFAULT)]
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
    /// Show whether sipfilterd runs, where it filters and how much is going on; exit status 1 if it does not run
    Status,
    /// List the calls in progress, or show what happened in one
    Calls(calls::Args),
    /// List the open pinholes and their traffic
    Pinholes,
    /// Show the kernel's counters by reason; works without the daemon
    Stats,
    /// Follow what happens: drops, calls, pinholes and losses, until Ctrl-C
    Monitor(monitor::Args),
    /// Show who was dropped since the daemon's start, why, and which call it nearly belonged to
    Drops(drops::Args),
    /// Show who sends SIP and is no provider, with what it claims; those that claim a provider's domain come first
    Strangers(strangers::Args),
    /// Write dropped packets, signalling or one call's into a pcapng file, with verdict and reason as comments; for root alone. Exit
    /// status 1 if there is no such call
    Capture(capture::Args),
    /// Look into the pinned kernel maps; works without the daemon
    Maps(maps::Args),
    /// Take the programs of a daemon that does not run any more off their interfaces; exit status 1 if there are none
    Detach,
    /// Have sipfilterd read its configuration again, all of it or nothing, and show what changed; exit status 1 if it was refused
    ///
    /// Calls in progress go on; those of a provider that is not configured any more end. SIGHUP does the same, and says it in the log.
    Reload,
    /// Watch calls, pinholes and reasons with their rates in the terminal, until q is pressed; with --json, one reading
    Top(top::Args),
    /// Look at kernel, interfaces, routes, sockets, the PBX's ports and the daemon, and say what to do; exit status 1 if something is wrong
    Doctor(doctor::Args),
    /// Try another configuration, which goes by itself unless it is confirmed; exit status 1 if it was refused
    ///
    /// It is in force at once, all of it or nothing. Unless `sipfilterctl confirm` keeps it within the time, what was in force before is again. The
    /// configuration file is not touched until then, so that a restart goes back as well, whatever the daemon ends by.
    Apply(apply::Args),
    /// Keep the configuration that was applied, and write it to the configuration file; exit status 1 if none waits
    ///
    /// Where sipfilterd was started with another file than the usual one, --config names it: the daemon has fewer rights than whoever confirms, so that
    /// it is not asked where to write.
    Confirm(apply::ConfirmArgs),
    /// Go back from the configuration that was applied; exit status 1 if none waits
    Rollback,
    /// Check a configuration file and show what it means; exit status 1 if it has errors
    CheckConfig(check_config::Args),
    /// List the providers that a trunk can name, and what is known of them; or compare them with DNS
    Providers(providers::Args),
    /// Say what enforcing would have broken since the daemon started, call by call; exit status 1 if it is not safe to enforce
    Report,
    /// Say what would become of a packet, by which rule, and what it would need to pass; exit status 1 if it would be dropped
    Explain(explain::Args),
    /// Run a capture file through the filter: what would have passed and dropped, and why; needs no privileges
    Simulate(simulate::Args),
    /// Print the JSON schema of what a command prints with --json
    Schema(schema::Args),
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
    /// The daemon cannot be asked.
    #[error("{0}")]
    Client(#[from] ClientError),
    /// A file that the command needs cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The daemon's configuration file is not the one that is meant.
    #[error(
        "sipfilterd was started with {told} and not with {}; if that is its configuration file, confirm with --config {told}", given.display()
    )]
    OtherConfig {
        /// The one that is meant.
        given: PathBuf,
        /// What the daemon says.
        told: String,
    },
    /// What was confirmed is not where the next start looks for it.
    #[error(
        "{file} stays in force, but {config} could not be written, and the next start reads that: {source}; put it there yourself: cp {file} {config}"
    )]
    Unwritten {
        /// What was applied.
        file: String,
        /// The configuration file.
        config: String,
        /// What the system said.
        source: io::Error,
    },
    /// The pinned maps cannot be read.
    #[error("{0}")]
    Pins(#[from] PinError),
    /// The runtime directory cannot be locked.
    #[error("{0}")]
    RuntimeDir(#[from] RuntimeDirError),
    /// The protected addresses cannot be told.
    #[error("{0}")]
    Resolve(#[from] ResolveError<io::Error>),
    /// No packet goes from one family to the other.
    #[error(
        "no packet goes from {source_address} to {destination}: one is IPv4, the other IPv6; name two addresses of one family"
    )]
    Families {
        /// Where from.
        source_address: SocketAddr,
        /// Where to.
        destination: SocketAddr,
    },
    /// A capture cannot be written.
    #[error("{0}")]
    Capture(#[from] CaptureError),
    /// Nobody of this name is known.
    #[error("no provider is called {0:?}; `sipfilterctl providers` lists them")]
    UnknownProvider(String),
    /// Host names were given, and more than one provider.
    #[error(
        "--host is for one provider; name it: sipfilterctl providers check PROVIDER --host NAME"
    )]
    WhoseName,
    /// There is nothing to ask for.
    #[error(
        "{0}: no host name is documented; name yours: sipfilterctl providers check PROVIDER --host NAME"
    )]
    NoNames(String),
    /// The system's resolvers cannot be told.
    #[error("no resolver: {0}; name one with --resolver ADDRESS:PORT")]
    Resolver(String),
    /// DNS did not answer.
    #[error(
        "the resolver ({0}) did not answer every question; ask again, or another one with --resolver ADDRESS:PORT"
    )]
    NoAnswer(String),
    /// A capture cannot be simulated, or not to its end.
    #[error("{0}")]
    Simulate(#[from] SimulateError),
    /// The output cannot be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
    /// A value cannot be written as JSON: a mistake of this program's.
    #[error("cannot write the output as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// What every command is given: which daemon is meant, and how to answer.
struct Session<'a> {
    /// The daemon's runtime directory.
    runtime_dir: &'a Path,
    /// JSON for programs instead of tables for people.
    json: bool,
    /// Where to.
    out: &'a mut dyn Write,
}

impl Session<'_> {
    /// Prints an answer: the object itself, or what `text` makes of it.
    fn answer<T: Serialize + JsonSchema>(
        &mut self,
        answer: &T,
        text: impl FnOnce(&mut dyn Write, &T) -> Result<(), CtlError>,
    ) -> Result<(), CtlError> {
        if self.json {
            output::json(self.out, answer)
        } else {
            text(self.out, answer)
        }
    }

    /// The answer is no, and this is why.
    fn refuse(&mut self, error: String) -> Result<Outcome, CtlError> {
        self.answer(&Failure { error }, |out, failure| {
            writeln!(out, "{}", failure.error)?;
            Ok(())
        })?;
        Ok(Outcome::No)
    }
}

/// Carries a command out and writes what it has to say to `out`.
pub fn run(cli: &Cli, out: &mut dyn Write) -> Result<Outcome, CtlError> {
    let session = &mut Session {
        runtime_dir: &cli.runtime_dir,
        json: cli.json,
        out,
    };
    match &cli.command {
        Command::Status => status::run(session),
        Command::Calls(args) => calls::run(args, session),
        Command::Pinholes => pinholes::run(session),
        Command::Stats => stats::run(session),
        Command::Monitor(args) => monitor::run(args, session),
        Command::Drops(args) => drops::run(args, session),
        Command::Strangers(args) => strangers::run(args, session),
        Command::Capture(args) => capture::run(args, session),
        Command::Maps(args) => maps::run(args, session),
        Command::Detach => detach::run(session),
        Command::Reload => reload::run(session),
        Command::Top(args) => top::run(args, session),
        Command::Doctor(args) => doctor::run(args, session),
        Command::Apply(args) => apply::run(args, session),
        Command::Confirm(args) => apply::confirm(args, session),
        Command::Rollback => apply::roll_back(session),
        Command::CheckConfig(args) => check_config::run(args, session),
        Command::Providers(args) => providers::run(args, session),
        Command::Report => report::run(session),
        Command::Explain(args) => explain::run(args, session),
        Command::Simulate(args) => simulate::run(args, session),
        Command::Schema(args) => schema::run(args, session.out),
    }
}

/// The daemon's status.
///
/// # Errors
/// [`ClientError`] if it does not run or does not answer.
pub fn ask_status(runtime_dir: &Path) -> Result<crate::view::Status, ClientError> {
    client::get(runtime_dir, "/v1/status")
}
