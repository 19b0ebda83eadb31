//! `cargo xtask build`: the programs that an operator installs, optimised.

use std::process::ExitCode;

use anyhow::Result;

use crate::project::{Project, step};
use crate::setup::{self, Purpose};

/// Build sipfilterd and sipfilterctl, optimised, with the eBPF programs inside.
#[derive(Debug, clap::Args)]
pub struct Arguments {}

/// Builds and says where the programs are.
pub fn run(project: &Project, Arguments {}: &Arguments) -> Result<ExitCode> {
    setup::ensure(project, &[Purpose::Build])?;
    step("building sipfilterd and sipfilterctl", || {
        Ok(project
            .cargo("build")
            .args(["--release", "--package", "sipfilter-daemon"])
            .run()?)
    })?;
    for program in ["sipfilterd", "sipfilterctl"] {
        println!("{}", project.target.join("release").join(program).display());
    }
    Ok(ExitCode::SUCCESS)
}
