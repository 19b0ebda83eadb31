//! `cargo xtask test`: everything that can fail.
//!
//! Host tests need no privilege. The lab's tests load programs into the kernel and make network namespaces, so they need root;
//! without it they are left out aloud, and in CI that is a failure, because a green run must mean that they ran.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::kernels;
use crate::project::{Project, step};
use crate::setup::{self, Purpose};

const LAB: &str = "sipfilter-tests";

/// Run all tests: on the host, in the kernel and in network namespaces (the last two need root).
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Run only the tests that need no privilege.
    #[arg(long)]
    host: bool,
}

/// Runs the tests; the first group that fails does not keep the next from running.
pub fn run(project: &Project, Arguments { host }: &Arguments) -> Result<ExitCode> {
    let with_lab = project.is_root && !host;
    let purposes: &[Purpose] = if with_lab {
        &[Purpose::Build, Purpose::Lab, Purpose::Bench]
    } else {
        &[Purpose::Build]
    };
    setup::ensure(project, purposes)?;

    let mut groups = vec![step("host tests", || {
        let cargo = project.cargo("test").arg("--no-fail-fast");
        Ok(cargo.args(["--workspace", "--exclude", LAB]).run()?)
    })];
    if with_lab {
        groups.push(step("kernel and namespace tests", || lab(project)));
        groups.push(step("chaos", || chaos(project)));
        match kernels::obstacle() {
            None => groups.push(step("older kernels", || kernels::test_all(project))),
            Some(obstacle) => eprintln!("NOT RUN, because {obstacle}: older kernels"),
        }
    } else {
        groups.push(step("the lab's own host tests", || {
            Ok(project
                .cargo("test")
                .args(["--package", LAB, "--lib", "--bins"])
                .run()?)
        }));
    }

    let mut failed = groups.iter().filter(|group| group.is_err()).count() > 0;
    for error in groups.into_iter().filter_map(Result::err) {
        eprintln!("error: {error:#}");
    }
    if !with_lab {
        let left_out = lab_tests(project)?.join(", ");
        let why = if *host {
            "--host was given"
        } else {
            "they need root"
        };
        eprintln!("NOT RUN, because {why}: {left_out} (kernel and namespace tests), older kernels");
        if project.is_ci && !host {
            eprintln!("error: CI is set, where leaving tests out is a failure; run as root");
            failed = true;
        }
    }
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Debug builds of the programs are used, because they check their invariants after every step.
fn lab(project: &Project) -> Result<()> {
    project
        .cargo("build")
        .args(["--package", "sipfilter-daemon", "--bins"])
        .run()?;
    let cargo = project
        .cargo("test")
        .args(["--no-fail-fast", "--package", LAB]);
    Ok(cargo
        .env("SIPFILTER_BIN_DIR", project.target.join("debug"))
        .run()?)
}

/// Alone, because two hundred calls take what the machine has.
fn chaos(project: &Project) -> Result<()> {
    let bin = project.target.join("debug");
    project
        .cargo("build")
        .args(["--package", "sipfilter-daemon", "--package", LAB, "--bins"])
        .run()?;
    let chaos = project.shell.cmd(bin.join("chaos"));
    Ok(chaos.env("SIPFILTER_BIN_DIR", &bin).run()?)
}

fn lab_tests(project: &Project) -> Result<Vec<String>> {
    let directory = project.root.join("tests/tests");
    let entries =
        fs::read_dir(&directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut names: Vec<String> = entries
        .flatten()
        // One test program is a file, or a directory with a main.rs.
        .filter_map(|entry| Some(entry.path().file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}
