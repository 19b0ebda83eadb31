//! What can be missing or go wrong, each with its way out.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

use crate::compiler::LlvmMajor;
use crate::tools::BPF_LINKER_VERSION;

/// A place that was looked at and why it did not do.
#[derive(Debug, Clone)]
pub struct Rejected {
    /// The place, as a person would name it.
    pub place: String,
    /// The reason, without a full stop.
    pub reason: String,
}

/// Why there is no eBPF object.
#[derive(Debug)]
pub enum Error {
    /// No compiler with library source was found.
    NoCompiler(Vec<Rejected>),
    /// The compiler is there but no linker for its LLVM.
    NoLinker {
        /// The LLVM that the compiler writes bitcode for.
        llvm: LlvmMajor,
        /// The directory in which `cargo xtask setup` would put it.
        root: PathBuf,
    },
    /// Neither `SIPFILTER_TOOLS` nor `XDG_CACHE_HOME` nor `HOME` is set.
    NoToolsDir,
    /// A variable that cargo sets for build scripts is not set.
    NoBuildScript(&'static str),
    /// A program could not be started.
    Spawn {
        /// The program.
        program: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The inner cargo ran and failed; it has already said why.
    Build {
        /// How it ended.
        status: ExitStatus,
        /// Which linker was in use, for the commonest cause.
        linker: PathBuf,
    },
    /// Clippy ran and refused something; it has already said what.
    Lint(ExitStatus),
    /// The file that should be the object cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is there but is no object for the kernel.
    NotEbpf(PathBuf),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCompiler(rejected) => {
                writeln!(f, "no compiler for the eBPF programs. Looked at:")?;
                for Rejected { place, reason } in rejected {
                    writeln!(f, "  - {place}: {reason}")?;
                }
                write!(
                    f,
                    "Run `cargo xtask setup`. By hand, one of these does:\n  \
                     rustup toolchain install nightly --component rust-src\n  \
                     apt-get install rustc-web cargo-web rust-web-src        (Debian 12, as root)"
                )
            }
            Self::NoLinker { llvm, root } => write!(
                f,
                "no bpf-linker for LLVM {llvm}: neither {root}/bin/bpf-linker nor a bpf-linker on PATH runs.\n\
                 Run `cargo xtask setup`. By hand, with llvm-{llvm}-dev and g++ installed:\n  \
                 LLVM_PREFIX=/usr/lib/llvm-{llvm} cargo install bpf-linker --version {BPF_LINKER_VERSION} --locked \
                 --no-default-features --features llvm-{llvm} --root {root}",
                root = root.display(),
            ),
            Self::NoToolsDir => f.write_str(
                "no directory for the build tools: set SIPFILTER_TOOLS, XDG_CACHE_HOME or HOME to an absolute path",
            ),
            Self::NoBuildScript(name) => write!(f, "{name} is not set: this is no build script"),
            Self::Spawn { program, source } => {
                write!(f, "cannot run {}: {source}", program.display())
            }
            Self::Build { status, linker } => write!(
                f,
                "the eBPF programs did not build ({status}); the compiler's own messages are above. If it complains about \
                 bitcode or an LLVM version, {} was built for another LLVM: take it off PATH and run `cargo xtask setup`",
                linker.display(),
            ),
            Self::Lint(status) => write!(
                f,
                "clippy refuses the eBPF programs ({status}); its messages are above"
            ),
            Self::Unreadable { path, source } => {
                write!(f, "cannot read the eBPF object {}: {source}", path.display())
            }
            Self::NotEbpf(path) => write!(
                f,
                "{} is not an eBPF object (an ELF file for machine 247)",
                path.display()
            ),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Spawn { source, .. } | Self::Unreadable { source, .. } => Some(source),
            _ => None,
        }
    }
}
