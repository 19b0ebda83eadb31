//! `cargo xtask lint`: everything that a reviewer should not have to say.
//!
//! All checks run, whatever the first ones find; the summary at the end names those that failed. It changes nothing.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use sipfilter_ebpf_toolchain::{BpfTarget, Toolchain, ToolsDir};

use crate::project::{Project, find_program, step};
use crate::setup::{self, CARGO_DENY_VERSION, Purpose};
use crate::unit;

/// Check formatting, lints (also on the eBPF target), documentation, and dependencies' bans, licences and sources.
#[derive(Debug, clap::Args)]
pub struct Arguments {}

type Check = fn(&Project) -> Result<()>;

const CHECKS: [(&str, Check); 7] = [
    ("formatting", formatting),
    ("clippy, every crate", clippy),
    ("the engine alone", engine_alone),
    ("clippy, eBPF target", clippy_ebpf),
    ("documentation", documentation),
    ("systemd unit", unit::check),
    ("dependencies: bans, licences, sources", dependencies),
];

/// Runs every check.
pub fn run(project: &Project, Arguments {}: &Arguments) -> Result<ExitCode> {
    setup::ensure(project, &[Purpose::Build, Purpose::Lint])?;
    let mut failed = Vec::new();
    for (name, check) in CHECKS {
        if let Err(error) = step(name, || check(project)) {
            eprintln!("error: {error:#}");
            failed.push(name);
        }
    }
    if failed.is_empty() {
        eprintln!("lint: all {} checks passed", CHECKS.len());
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("lint: failed: {}", failed.join("; "));
    Ok(ExitCode::FAILURE)
}

fn formatting(project: &Project) -> Result<()> {
    Ok(project
        .shell
        .cmd("cargo")
        .args(["fmt", "--all", "--", "--check"])
        .run()?)
}

fn clippy(project: &Project) -> Result<()> {
    let cargo = project
        .cargo("clippy")
        .args(["--workspace", "--all-targets"]);
    Ok(cargo.args(["--", "-D", "warnings"]).run()?)
}

/// Without the daemon's feature the engine has no library that does I/O; what it had of the shell would not compile.
fn engine_alone(project: &Project) -> Result<()> {
    let cargo = project.cargo("clippy").args([
        "--package",
        "sipfilter-daemon",
        "--lib",
        "--no-default-features",
    ]);
    Ok(cargo.args(["--", "-D", "warnings"]).run()?)
}

fn clippy_ebpf(project: &Project) -> Result<()> {
    let toolchain = Toolchain::find(&ToolsDir::from_env()?)?;
    eprintln!(
        "with {}, rustc {}",
        toolchain.compiler.origin, toolchain.compiler.version
    );
    for package in ["sipfilter-ebpf", "sipfilter-tests-ebpf"] {
        toolchain.clippy(package, &project.ebpf_workspace(), &BpfTarget::host())?;
    }
    Ok(())
}

/// Private items too: most of this workspace is private to its binaries, and its documentation is for who works on it. Links from
/// public items to private ones work in that documentation, so they are no fault.
fn documentation(project: &Project) -> Result<()> {
    let cargo = project
        .cargo("doc")
        .args(["--workspace", "--no-deps", "--document-private-items"]);
    Ok(cargo
        .env(
            "RUSTDOCFLAGS",
            "-D warnings -A rustdoc::private_intra_doc_links",
        )
        .run()?)
}

fn dependencies(project: &Project) -> Result<()> {
    let program: OsString = cargo_deny()?.ok_or_else(|| anyhow!("cargo-deny is missing"))?;
    let check = project.shell.cmd(program).args(["--locked", "check"]);
    Ok(check.args(["bans", "licenses", "sources"]).run()?)
}

/// Our own cargo-deny, else the one on `PATH`.
pub fn cargo_deny() -> Result<Option<OsString>> {
    let ours = ToolsDir::from_env()?
        .root("cargo-deny", CARGO_DENY_VERSION)
        .join("bin/cargo-deny");
    let found = Some(ours)
        .filter(|path| path.is_file())
        .or_else(|| find_program("cargo-deny"));
    Ok(found.map(Into::into))
}
