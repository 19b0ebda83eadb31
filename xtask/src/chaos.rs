//! `cargo xtask chaos`: calls that talk on while the filter under them is killed, restarted, upgraded and changed.
//!
//! The run itself is the program `chaos` of the lab; this verb builds it and the daemon and gets out of the way, so
//! that its arguments, its standard output and its exit code are its own.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::project::{Project, step};
use crate::setup::{self, Purpose};

/// Show calls keep their audio while the filter is killed, restarted, upgraded and changed (needs root).
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
    if !project.is_root {
        bail!(
            "this makes network namespaces and loads eBPF programs, which needs root: run `sudo -E env PATH=\"$PATH\" \
             cargo xtask chaos`, or use a root shell"
        );
    }
    setup::ensure(project, &[Purpose::Build, Purpose::Lab])?;
    step("building the programs and the lab", || {
        let packages = [
            "--package",
            "sipfilter-daemon",
            "--package",
            "sipfilter-tests",
        ];
        Ok(project
            .cargo("build")
            .args(["--release", "--bins"])
            .args(packages)
            .run()?)
    })?;
    let bin = project.target.join("release");
    let output = project
        .shell
        .cmd(bin.join("chaos"))
        .args(arguments)
        .env("SIPFILTER_BIN_DIR", &bin)
        .quiet()
        .ignore_status();
    let status = std::process::Command::from(output).status()?;
    // What was ended by a signal has no code, and has not shown anything.
    let code = status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(2);
    Ok(ExitCode::from(code))
}
