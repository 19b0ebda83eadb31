//! Finds the compiler, the library source and the linker for sipfilter's eBPF object, and runs them.
//!
//! Used by `sipfilter-daemon`'s build script and by `cargo xtask`, which is why it depends on nothing but std. It installs
//! nothing: `cargo xtask setup` does, and every error here names what is missing and how to get it.
//!
//! The places are tried in this order, and the first complete one wins:
//!
//! 1. a rustup nightly that has the `rust-src` component, `nightly` itself before dated ones;
//! 2. Debian's `rustc-web`, `cargo-web` and `rust-web-src` (`/usr/bin/rustc`), with `RUSTC_BOOTSTRAP=1`.
//!
//! `bpf-linker` must be built for the LLVM of that compiler. It is looked for in the [tools directory](ToolsDir), under a name
//! that says its version and LLVM, and then on `PATH`. It must run: one whose LLVM was removed since counts as missing.
//!
//! Invariant: the inner cargo never shares a target directory or a compiler setting with a cargo that runs around it.

mod compiler;
mod environment;
mod error;
mod object;
mod tools;

pub use compiler::{Compiler, LlvmMajor, Origin, RustVersion};
pub use error::{Error, Rejected};
pub use object::{BpfTarget, CargoVerb, Workspace, check_object};
pub use tools::{BPF_LINKER_VERSION, Linker, ToolsDir};

/// Everything that a build of the eBPF object needs.
#[derive(Debug, Clone)]
pub struct Toolchain {
    /// The compiler, with the library source beside it.
    pub compiler: Compiler,
    /// The linker that understands that compiler's bitcode.
    pub linker: Linker,
}

impl Toolchain {
    /// The first complete compiler for which there is a linker.
    ///
    /// # Errors
    ///
    /// [`Error::NoCompiler`] with a line for every place that was looked at, or [`Error::NoLinker`] for the first compiler.
    pub fn find(tools: &ToolsDir) -> Result<Self, Error> {
        let (compilers, rejected) = Compiler::survey();
        let mut first_error = None;
        for compiler in compilers {
            match tools.find_linker(compiler.llvm) {
                Ok(linker) => return Ok(Self { compiler, linker }),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        Err(first_error.unwrap_or(Error::NoCompiler(rejected)))
    }
}
