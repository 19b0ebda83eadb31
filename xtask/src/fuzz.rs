//! `cargo xtask fuzz`: every fuzz target for a bounded time, on from the committed corpus.
//!
//! libFuzzer's instrumentation needs a nightly compiler. Without one, the corpus is replayed and mutated at random on the stable
//! toolchain, which is said aloud: it keeps old findings fixed, and hardly makes new ones. What is found stays in the target directory;
//! turning it into a fixture (`tests/fuzz/regressions/TARGET/`) is for a person.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result};
use sipfilter_ebpf_toolchain::ToolsDir;

use crate::project::{Project, find_program, step};
use crate::setup::{self, Purpose};

/// The release of cargo-fuzz that is installed.
const CARGO_FUZZ_VERSION: &str = "0.13.2";

/// Where the targets are, below the workspace's root.
const DIRECTORY: &str = "tests/fuzz";

/// Fuzz every target (or the named ones) for so many seconds each.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// How long each target runs.
    #[arg(long, default_value_t = 20)]
    seconds: u32,
    /// Which targets; all, if none is named.
    targets: Vec<String>,
}

/// Runs the targets one after the other; one that fails does not keep the next from running.
pub fn run(project: &Project, Arguments { seconds, targets }: &Arguments) -> Result<ExitCode> {
    setup::ensure(project, &[Purpose::Build])?;
    if !has_nightly() {
        eprintln!(
            "no nightly compiler here, which fuzzing needs: `rustup toolchain install nightly` brings one. \
             Replaying the corpus and random mutations of it on this toolchain instead"
        );
        step("replay of the fuzz corpus", || {
            let cargo = project.cargo("test").args(["--package", "sipfilter-fuzz"]);
            Ok(cargo.run()?)
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    let cargo_fuzz = cargo_fuzz(project)?;
    let known = known_targets(project)?;
    let chosen: Vec<&String> = match targets.as_slice() {
        [] => known.iter().collect(),
        named => named.iter().collect(),
    };
    let mut failed = Vec::new();
    for target in chosen {
        anyhow::ensure!(
            known.contains(target),
            "there is no fuzz target {target}; there are {}",
            known.join(", ")
        );
        let result = step(&format!("fuzzing {target} for {seconds} s"), || {
            fuzz(project, &cargo_fuzz, target, *seconds)
        });
        if let Err(error) = result {
            eprintln!("error: {error:#}");
            failed.push(target.as_str());
        }
    }
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("fuzz: failed: {}", failed.join(", "));
    Ok(ExitCode::FAILURE)
}

/// No sanitizer: there is no unsafe code in what is fuzzed, and without one the targets run several times as fast.
fn fuzz(project: &Project, cargo_fuzz: &PathBuf, target: &str, seconds: u32) -> Result<()> {
    let root = project.root.join(DIRECTORY);
    let work = project.target.join("fuzz");
    // New inputs go to the first corpus directory, which is not the committed one.
    let corpus = work.join("corpus").join(target);
    let findings = work.join("findings").join(target);
    for directory in [&corpus, &findings] {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
    }
    // As a cargo subcommand, because cargo-fuzz calls the cargo that called it: rustup's, for `+nightly`.
    let mut command = project
        .shell
        .cmd(cargo_fuzz)
        .env("RUSTUP_TOOLCHAIN", "nightly")
        .env_remove("CARGO")
        .args(["fuzz", "run", "--sanitizer", "none", "--fuzz-dir"])
        .arg(&root)
        .arg("--target-dir")
        .arg(work.join("build"))
        .arg(target)
        .arg(&corpus)
        .arg(root.join("corpus").join(target))
        .args([
            "--",
            "-timeout=10",
            "-max_len=4096",
            "-print_final_stats=1",
            "-verbosity=0",
        ])
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-artifact_prefix={}/", findings.display()));
    let dictionary = root.join("dictionaries").join(format!("{target}.dict"));
    if dictionary.is_file() {
        command = command.arg(format!("-dict={}", dictionary.display()));
    }
    command
        .quiet()
        .run()
        .with_context(|| format!("what broke {target} is in {}", findings.display()))
}

/// The targets, as files are named.
fn known_targets(project: &Project) -> Result<Vec<String>> {
    let directory = project.root.join(DIRECTORY).join("fuzz_targets");
    let mut names: Vec<String> = fs::read_dir(&directory)
        .with_context(|| format!("cannot read {}", directory.display()))?
        .flatten()
        .filter_map(|entry| Some(entry.path().file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}

/// Quiet about why not: every reason has the same remedy.
fn has_nightly() -> bool {
    Command::new("rustc")
        .args(["+nightly", "--version"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Our own cargo-fuzz, else the one on `PATH`, else installed now.
fn cargo_fuzz(project: &Project) -> Result<PathBuf> {
    let root = ToolsDir::from_env()?.root("cargo-fuzz", CARGO_FUZZ_VERSION);
    let ours = root.join("bin/cargo-fuzz");
    if ours.is_file() {
        return Ok(ours);
    }
    if let Some(found) = find_program("cargo-fuzz") {
        return Ok(found);
    }
    step(
        &format!("building cargo-fuzz {CARGO_FUZZ_VERSION} (about a minute)"),
        || {
            let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
            let install = project.shell.cmd(cargo).args([
                "install",
                "cargo-fuzz",
                "--version",
                CARGO_FUZZ_VERSION,
                "--locked",
                "--root",
            ]);
            let install = ["CARGO_TARGET_DIR", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"]
                .into_iter()
                .fold(install.arg(&root).quiet(), |install, name| {
                    install.env_remove(name)
                });
            Ok(install.run()?)
        },
    )?;
    Ok(ours)
}
