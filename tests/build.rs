//! Builds the benchmarks' kernel programs and puts them where `src/bench/programs.rs` embeds them from: `$OUT_DIR/bench.bpf.o`.

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use sipfilter_ebpf_toolchain::{BpfTarget, Toolchain, ToolsDir, Workspace};

/// What the object is made of, relative to this package.
const SOURCES: [&str; 4] = ["build.rs", "ebpf/Cargo.toml", "ebpf/src", "../Cargo.lock"];

fn main() -> ExitCode {
    match embed() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\n{error}\n");
            ExitCode::FAILURE
        }
    }
}

fn embed() -> Result<(), Box<dyn Error>> {
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
    }
    for name in ToolsDir::VARIABLES {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let out_dir = PathBuf::from(std::env::var("OUT_DIR")?);
    let toolchain = Toolchain::find(&ToolsDir::from_env()?)?;
    let (workspace, target) = (Workspace::of_build_script()?, BpfTarget::of_build_script()?);
    let object = toolchain.build("sipfilter-tests-ebpf", &workspace, &target)?;
    fs::copy(&object, out_dir.join("bench.bpf.o"))
        .map_err(|error| format!("cannot copy {}: {error}", object.display()))?;
    Ok(())
}
