//! Installs what the survey found missing, or says exactly what to install where it may not.

use std::env;
use std::fs::{self, File, TryLockError};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use sipfilter_ebpf_toolchain::{BPF_LINKER_VERSION, LlvmMajor, ToolsDir};

use super::survey::{BPFFS, Item, Remedy, State, llvm_prefix};
use super::{CARGO_DEB_VERSION, CARGO_DENY_VERSION};
use crate::project::{Project, find_program, step};

const APT_INSTALL: &str = "apt-get install --no-install-recommends --no-remove";

/// Takes the right to install, of which there is one per tools directory.
///
/// `None` means that somebody else had it until now: look again before installing anything.
pub fn take_turn() -> Result<Option<File>> {
    let tools = ToolsDir::from_env()?;
    let directory = tools.path();
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let path = directory.join("setup.lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => {
            eprintln!(
                "==> waiting for another setup to finish ({})",
                path.display()
            );
            file.lock()?;
            Ok(None)
        }
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

/// Installs; what needs packages waits for the next round.
pub fn install(project: &Project, missing: &[Item]) -> Result<()> {
    let remedies = || {
        missing.iter().filter_map(|item| match &item.state {
            State::Missing(remedy, _) => Some(remedy),
            State::Present(_) => None,
        })
    };
    let mut packages: Vec<&str> = remedies()
        .filter_map(|remedy| match remedy {
            Remedy::Packages(packages) => Some(packages),
            _ => None,
        })
        .flatten()
        .map(String::as_str)
        .collect();
    packages.sort_unstable();
    packages.dedup();
    let mount = remedies().any(|remedy| *remedy == Remedy::MountBpffs);

    if (!packages.is_empty() || mount) && !project.is_root {
        bail!(by_hand(&packages, mount, missing, "not root"));
    }
    if !packages.is_empty() {
        if find_program("apt-get").is_none() {
            bail!(by_hand(&packages, mount, missing, "no apt-get here"));
        }
        apt(project, &packages)
            .with_context(|| by_hand(&packages, false, missing, "apt-get did not install them"))?;
    }
    for remedy in remedies() {
        match remedy {
            Remedy::Packages(_) => {}
            Remedy::Linker(llvm) => linker(project, *llvm)?,
            Remedy::CargoDeny => cargo_tool(project, "cargo-deny", CARGO_DENY_VERSION)?,
            Remedy::CargoDeb => cargo_tool(project, "cargo-deb", CARGO_DEB_VERSION)?,
            Remedy::Component(name) => component(project, name)?,
            Remedy::MountBpffs => step("mounting bpffs", || {
                Ok(project
                    .shell
                    .cmd("mount")
                    .args(["-t", "bpf", "bpf", BPFFS])
                    .quiet()
                    .run()?)
            })?,
        }
    }
    Ok(())
}

/// The message for who has to do it without us.
fn by_hand(packages: &[&str], mount: bool, missing: &[Item], why: &str) -> String {
    let mut text = format!("cannot install what is missing ({why}).\n");
    for Item { name, state } in missing {
        if let State::Missing(_, why) = state {
            text += &format!("  missing: {name}: {why}\n");
        }
    }
    text += "On Debian 12 or later, as root:\n";
    if !packages.is_empty() {
        text += "  apt-get update\n";
        text += &format!("  {APT_INSTALL} {}\n", packages.join(" "));
    }
    if mount {
        text += &format!("  mount -t bpf bpf {BPFFS}\n");
    }
    if packages.contains(&"rustc-web") {
        text += "Instead of rustc-web, cargo-web and rust-web-src, a rustup nightly does (any distribution):\n  \
                 rustup toolchain install nightly --component rust-src --component clippy\n\
                 The compiler's LLVM decides which llvm-NN-dev and bpf-linker go with it; setup names them once it is there.\n";
    }
    if packages.iter().any(|package| package.starts_with("llvm-")) {
        text += "Instead of the LLVM package, a bpf-linker on PATH that was built for the compiler's LLVM does.\n";
    }
    text + "Elsewhere, install the packages of the same programs. Then run `cargo xtask setup` again."
}

/// `--no-remove`, because rustc-web conflicts with Debian's old rustc, which somebody may still want.
fn apt(project: &Project, packages: &[&str]) -> Result<()> {
    let apt = || {
        project
            .shell
            .cmd("apt-get")
            .args([
                "-qq",
                "-o",
                "DPkg::Lock::Timeout=600",
                "-o",
                "Dpkg::Use-Pty=0",
            ])
            .env("DEBIAN_FRONTEND", "noninteractive")
            .quiet()
    };
    // A list that cannot be fetched (a third party's repository, say) is no reason not to try.
    if let Err(error) = step("apt-get update", || Ok(apt().arg("update").run()?)) {
        eprintln!("warning: {error:#}");
    }
    step(&format!("apt-get install {}", packages.join(" ")), || {
        let install = apt().args(["install", "--yes", "--no-install-recommends", "--no-remove"]);
        Ok(install.args(packages).ignore_stdout().run()?)
    })
}

fn linker(project: &Project, llvm: LlvmMajor) -> Result<()> {
    let root = ToolsDir::from_env()?.linker_root(llvm);
    let feature = format!("llvm-{llvm}");
    step(
        &format!("building bpf-linker {BPF_LINKER_VERSION} for LLVM {llvm} (about 40 s)"),
        || {
            let cargo = cargo_install(project, "bpf-linker", BPF_LINKER_VERSION, &root);
            let features = ["--no-default-features", "--features", &feature];
            // Without LLVM_PREFIX the link step does not find Debian's LLVM; LLVM_SYS_*_PREFIX does not help.
            Ok(cargo
                .args(features)
                .env("LLVM_PREFIX", llvm_prefix(llvm))
                .run()?)
        },
    )
}

/// Their release profiles optimise across all crates, which doubles the build; they run for a second.
fn cargo_tool(project: &Project, name: &str, version: &str) -> Result<()> {
    let root = ToolsDir::from_env()?.root(name, version);
    step(
        &format!("building {name} {version} (about 2 minutes)"),
        || {
            let cargo = cargo_install(project, name, version, &root);
            Ok(cargo
                .env("CARGO_PROFILE_RELEASE_LTO", "off")
                .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
                .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
                .run()?)
        },
    )
}

/// With a target directory of its own that cargo removes afterwards; in the workspace's, half a gigabyte would stay behind.
fn cargo_install<'a>(
    project: &'a Project,
    name: &str,
    version: &str,
    root: &Path,
) -> xshell::Cmd<'a> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let install = project.shell.cmd(cargo).args([
        "install",
        name,
        "--version",
        version,
        "--locked",
        "--force",
        "--root",
    ]);
    [
        "CARGO_TARGET_DIR",
        "CARGO_BUILD_TARGET_DIR",
        "RUSTFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
    ]
    .into_iter()
    .fold(install.arg(root).quiet(), |install, name| {
        install.env_remove(name)
    })
}

fn component(project: &Project, name: &str) -> Result<()> {
    if find_program("rustup").is_none() {
        bail!(
            "{name} is missing, and there is no rustup to install it: install your distribution's {name}"
        );
    }
    step(&format!("rustup component add {name}"), || {
        Ok(project
            .shell
            .cmd("rustup")
            .args(["component", "add", name])
            .quiet()
            .run()?)
    })
}
