//! `cargo xtask test-package`: the Debian package on a Debian, from installing to purging, under a systemd that really runs.
//!
//! The Debian is a minimal one that debootstrap makes once (kept among the tools); systemd is its process 1, in namespaces of its own on
//! this machine's kernel. What is promised stands in `tests/package/story.sh`, and only what the story says is believed. The package
//! holds the programs that the tests use, not optimised ones.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use sipfilter_ebpf_toolchain::ToolsDir;

use crate::package::{self, Build};
use crate::project::{Project, step};
use crate::setup::{self, Purpose};

/// The release that the package is for.
const RELEASE: &str = "bookworm";

/// What a server has and the smallest Debian lacks.
const INCLUDE: &str = "--include=systemd,systemd-sysv,dbus,iproute2";

/// What the story may take, in seconds, on a busy machine.
const BOUND: &str = "300";

/// Install, start, kill, upgrade, remove and purge the Debian package under a real systemd (needs root).
#[derive(Debug, clap::Args)]
pub struct Arguments {}

/// Makes the package in two versions and tells the story.
pub fn run(project: &Project, Arguments {}: &Arguments) -> Result<ExitCode> {
    ensure!(
        project.is_root,
        "namespaces and a file system of its own need root"
    );
    setup::ensure(project, &[Purpose::Build, Purpose::Package])?;
    let out = project.target.join("package-test");
    let _ = fs::remove_dir_all(&out);
    fs::create_dir_all(&out)?;
    let number = env!("CARGO_PKG_VERSION");
    for (name, version) in [
        ("old.deb", number.to_owned()),
        ("new.deb", format!("{number}+next")),
    ] {
        let package = package::make(project, Build::Debug, Some(&version))?;
        fs::rename(&package, out.join(name))?;
    }
    step("building the calls", || {
        let cargo = project
            .cargo("build")
            .args(["--package", "sipfilter-tests"]);
        Ok(cargo.args(["--bin", "calls"]).run()?)
    })?;
    step("lintian", || package::check(project, &out.join("old.deb")))?;
    let root = debian(project)?;
    step("the package under systemd", || tell(project, &root, &out))?;
    Ok(ExitCode::SUCCESS)
}

/// The Debian's root directory, made if it is not there yet; nothing writes to it afterwards.
fn debian(project: &Project) -> Result<PathBuf> {
    let root = ToolsDir::from_env()?
        .path()
        .join(format!("debian-{RELEASE}"));
    if !root.is_dir() {
        step(&format!("debootstrap {RELEASE} (about 1 minute)"), || {
            let unfinished = root.with_extension("part");
            let _ = fs::remove_dir_all(&unfinished);
            let debootstrap = project.shell.cmd("debootstrap").args(["--variant=minbase"]);
            debootstrap
                .args([INCLUDE, RELEASE])
                .arg(&unfinished)
                .ignore_stdout()
                .run()?;
            // Whole or not at all.
            Ok(fs::rename(&unfinished, &root)?)
        })?;
    }
    Ok(root)
}

fn tell(project: &Project, root: &Path, out: &Path) -> Result<()> {
    let scripts = project.root.join("tests/package");
    for name in ["story.sh", "story.service"] {
        fs::copy(scripts.join(name), out.join(name))?;
    }
    fs::copy(project.target.join("debug/calls"), out.join("calls"))?;
    let work = project.target.join("package-test-root");
    fs::create_dir_all(&work)?;
    // Nothing less ends process 1 of another namespace, and all of it ends with that.
    let status = project
        .shell
        .cmd("timeout")
        .args(["--signal=KILL", BOUND, "sh"])
        .arg(scripts.join("boot"))
        .args([root, &work, out])
        .ignore_status()
        .output()
        .context("cannot start the Debian")?;
    let story = fs::read_to_string(out.join("story"))
        .with_context(|| format!("systemd did not come up ({})", status.status))?;
    match judge(&story) {
        Ok(count) => {
            let saw = story
                .lines()
                .filter_map(|line| line.strip_prefix("PACKAGE-TEST saw "));
            saw.for_each(|line| eprintln!("    {line}"));
            eprintln!("    {count} promises kept");
            Ok(())
        }
        Err(error) => {
            eprintln!("{story}");
            bail!("{error}; all of it is in {}", out.join("story").display())
        }
    }
}

/// How many promises were kept, if all were and the story came to its end.
fn judge(story: &str) -> Result<usize> {
    let told = || {
        story
            .lines()
            .filter_map(|line| line.strip_prefix("PACKAGE-TEST "))
    };
    let broken: Vec<&str> = told()
        .filter_map(|line| line.strip_prefix("FAILED "))
        .collect();
    ensure!(broken.is_empty(), "broken: {}", broken.join("; "));
    ensure!(
        told().next_back() == Some("end"),
        "the story did not come to its end"
    );
    let kept = told().filter(|line| line.starts_with("ok ")).count();
    ensure!(kept > 0, "nothing was promised");
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_story_is_believed_only_when_it_ends_and_keeps_every_promise() {
        let whole =
            "chatter\nPACKAGE-TEST ok it starts\nPACKAGE-TEST ok it stops\nPACKAGE-TEST end\n";
        assert_eq!(judge(whole).unwrap(), 2);
        for told in [
            "",
            "PACKAGE-TEST end\n",
            &whole.replace("ok it stops", "FAILED it stops (status 1: false)"),
            &whole.replace("PACKAGE-TEST end\n", ""),
        ] {
            assert!(judge(told).is_err(), "{told}");
        }
    }
}
