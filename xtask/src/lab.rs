//! The programs of the lab that a verb stands for: `demo`, `chaos`, `bench`.
//!
//! The verb builds the program and the daemon and gets out of the way, so that arguments, standard output and exit code are the
//! program's own.

use std::{
    ffi::OsString,
    process::{Command, ExitCode},
};

use anyhow::{Result, bail};

use crate::project::{Project, step};
use crate::setup::{self, Purpose};

/// Installs what `purposes` ask for, builds what is needed, optimised, and runs the program `name`.
///
/// # Errors
/// Without root, and where something cannot be installed or built.
pub fn run(
    project: &Project,
    name: &str,
    purposes: &[Purpose],
    arguments: &[OsString],
) -> Result<ExitCode> {
    if !project.is_root {
        bail!(
            "this makes network namespaces and loads eBPF programs, which needs root: run `sudo -E env PATH=\"$PATH\" \
             cargo xtask {name}`, or use a root shell"
        );
    }
    setup::ensure(project, purposes)?;
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
    let command = project
        .shell
        .cmd(bin.join(name))
        .args(arguments)
        .env("SIPFILTER_BIN_DIR", &bin)
        .quiet()
        .ignore_status();
    let status = Command::from(command).status()?;
    // What was ended by a signal has no code, and has not shown anything.
    let code = status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(2);
    Ok(ExitCode::from(code))
}
