//! `cargo xtask demo`: calls through a real filter, in network namespaces made for the purpose.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;

use crate::lab;
use crate::project::Project;
use crate::setup::Purpose;

/// Show calls keep their audio through sipfilter while strangers get nothing (needs root).
#[derive(Debug, clap::Args)]
// The program explains its own options.
#[command(disable_help_flag = true)]
pub struct Arguments {
    /// Passed to the program as they are; --help lists them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Builds what is needed and runs it.
pub fn run(project: &Project, Arguments { arguments }: &Arguments) -> Result<ExitCode> {
    lab::run(project, "demo", &[Purpose::Build, Purpose::Lab], arguments)
}
