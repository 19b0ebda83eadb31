//! Puts the eBPF object where the daemon embeds it from: `$OUT_DIR/sipfilter.bpf.o`.
//!
//! The object is built here from `sipfilter-ebpf`, or taken from `SIPFILTER_EBPF_OBJECT` for a build on a machine without the
//! eBPF toolchain. Nothing is ever installed from here; a missing piece fails the build with the command that installs it.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use sipfilter_ebpf_toolchain::{BpfTarget, Toolchain, ToolsDir, Workspace, check_object};

const GIVEN_OBJECT: &str = "SIPFILTER_EBPF_OBJECT";

/// What the object is made of, relative to the workspace.
const SOURCES: [&str; 6] = [
    "Cargo.lock",
    "Cargo.toml",
    "sipfilter-common/Cargo.toml",
    "sipfilter-common/src",
    "sipfilter-ebpf/Cargo.toml",
    "sipfilter-ebpf/src",
];

fn main() -> ExitCode {
    match embed() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\n{error}\n");
            eprintln!("(Or set {GIVEN_OBJECT} to an eBPF object that was built elsewhere.)");
            ExitCode::FAILURE
        }
    }
}

fn embed() -> Result<(), Box<dyn Error>> {
    let out_dir = PathBuf::from(variable("OUT_DIR")?);
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={GIVEN_OBJECT}");
    let object = match env::var_os(GIVEN_OBJECT).filter(|path| !path.is_empty()) {
        Some(path) => given(PathBuf::from(path))?,
        None => build(&out_dir)?,
    };
    fs::copy(&object, out_dir.join("sipfilter.bpf.o"))
        .map_err(|error| format!("cannot copy the eBPF object {}: {error}", object.display()))?;
    Ok(())
}

fn given(path: PathBuf) -> Result<PathBuf, Box<dyn Error>> {
    // A build script runs in its package's directory, which is not where the user wrote a relative path.
    if path.is_relative() {
        let path = path.display();
        return Err(format!("{GIVEN_OBJECT} is {path}; give an absolute path").into());
    }
    println!("cargo::rerun-if-changed={}", path.display());
    check_object(&path)?;
    Ok(path)
}

fn build(out_dir: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")?)
        .parent()
        .ok_or("the daemon's package is not inside a workspace")?
        .to_owned();
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", root.join(source).display());
    }
    for name in ToolsDir::VARIABLES {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let target = BpfTarget {
        arch: variable("CARGO_CFG_TARGET_ARCH")?,
        big_endian: variable("CARGO_CFG_TARGET_ENDIAN")? == "big",
    };
    let workspace = Workspace {
        root,
        target_dir: target_dir(out_dir),
    };
    Ok(Toolchain::find(&ToolsDir::from_env()?)?.build(&workspace, &target)?)
}

/// A directory beside the outer cargo's profiles, so that debug and release builds of the daemon share one eBPF build.
///
/// Cargo marks the top of its target directory with `CACHEDIR.TAG`.
fn target_dir(out_dir: &Path) -> PathBuf {
    out_dir
        .ancestors()
        .find(|directory| directory.join("CACHEDIR.TAG").is_file())
        .unwrap_or(out_dir)
        .join("ebpf")
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("{name}: {error}"))
}
