//! `cargo xtask setup`: finds what the build, the tests and the lints need, and installs what is missing.
//!
//! It installs Debian packages and mounts bpffs only as root and only on Debian; tools of Rust's own go to the tools directory,
//! never into the source tree. Running it again changes nothing. It removes nothing, and never replaces a package by another.
//!
//! Everything is decided by looking ([`survey`]), never by remembering: after each round of installing it looks again, because what
//! is missing next depends on what came (the compiler's LLVM decides which linker).

mod install;
mod survey;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};

use crate::project::Project;
use survey::{Item, State};

/// The release of cargo-deny that is installed.
pub const CARGO_DENY_VERSION: &str = "0.20.2";

/// The release of cargo-deb that is installed.
pub const CARGO_DEB_VERSION: &str = "3.8.0";

/// Packages, then what is built with them, then what that reveals: more rounds than this mean that installing does not help.
const MAX_ROUNDS: usize = 5;

/// Find or install what building, testing and linting need.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Only report; exit 1 when something is missing.
    #[arg(long)]
    check: bool,
}

/// What a tool is needed for; a verb asks only for its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Compiling the workspace with its eBPF programs.
    Build,
    /// The demo, and tests in the kernel and in network namespaces.
    Lab,
    /// `cargo xtask test-kernels`.
    Kernels,
    /// `cargo xtask lint`.
    Lint,
    /// The programs that `cargo xtask bench` compares with.
    Bench,
    /// `cargo xtask package`, and `test-package`.
    Package,
}

/// Sets everything up, or only reports.
pub fn run(project: &Project, Arguments { check }: &Arguments) -> Result<ExitCode> {
    let all = [
        Purpose::Build,
        Purpose::Lab,
        Purpose::Kernels,
        Purpose::Lint,
        Purpose::Bench,
        Purpose::Package,
    ];
    if !check {
        ensure(project, &all)?;
    }
    let items = survey::look(project, &all)?;
    for Item { name, state } in &items {
        match state {
            State::Present(what) => println!("ok       {name}: {what}"),
            State::Missing(_, why) => println!("MISSING  {name}: {why}"),
        }
    }
    let missing = items.iter().any(Item::is_missing);
    Ok(if missing {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Makes sure that everything for these purposes is there, and is silent when it is.
///
/// # Errors
///
/// When something cannot be installed; the message says what to do by hand.
pub fn ensure(project: &Project, purposes: &[Purpose]) -> Result<()> {
    let start = Instant::now();
    let mut before: Vec<Item> = Vec::new();
    for round in 0..MAX_ROUNDS {
        let missing: Vec<Item> = survey::look(project, purposes)?
            .into_iter()
            .filter(Item::is_missing)
            .collect();
        if missing.is_empty() {
            if round > 0 {
                eprintln!(
                    "==> setup complete in {:.1} s",
                    start.elapsed().as_secs_f64()
                );
            }
            return Ok(());
        }
        if missing == before {
            break;
        }
        // Somebody else's setup may have finished while this one waited for its turn.
        let Some(_turn) = install::take_turn()? else {
            continue;
        };
        install::install(project, &missing)?;
        before = missing;
    }
    let names: Vec<String> = before.iter().map(|item| item.name.clone()).collect();
    bail!(
        "still missing after installing: {}. `cargo xtask setup --check` says why",
        names.join(", ")
    )
}
