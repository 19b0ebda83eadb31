//! Puts the eBPF object where the daemon embeds it from: `$OUT_DIR/sipfilter.bpf.o`.
//!
//! The object is built here from `sipfilter-ebpf`, or taken from `SIPFILTER_EBPF_OBJECT` for a build on a machine without the
//! eBPF toolchain. Nothing is ever installed from here; a missing piece fails the build with the command that installs it.

use std::env;
use std::error::Error;
use std::fs;
use std::path::PathBuf;
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
    // The engine alone runs no programs.
    if env::var_os("CARGO_FEATURE_DAEMON").is_none() {
        return Ok(());
    }
    println!("cargo::rerun-if-env-changed={GIVEN_OBJECT}");
    let object = match env::var_os(GIVEN_OBJECT).filter(|path| !path.is_empty()) {
        Some(path) => given(PathBuf::from(path))?,
        None => build()?,
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

fn build() -> Result<PathBuf, Box<dyn Error>> {
    let (workspace, target) = (Workspace::of_build_script()?, BpfTarget::of_build_script()?);
    for source in SOURCES {
        let source = workspace.root.join(source);
        println!("cargo::rerun-if-changed={}", source.display());
    }
    for name in ToolsDir::VARIABLES {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let toolchain = Toolchain::find(&ToolsDir::from_env()?)?;
    Ok(toolchain.build("sipfilter-ebpf", &workspace, &target)?)
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("{name}: {error}"))
}
