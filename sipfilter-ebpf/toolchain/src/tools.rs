//! The directory of the project's own build tools, and the linker in it.
//!
//! The directory is shared by all clones of one user, because building a tool costs from half a minute to minutes. Each tool
//! has its own root, named by version (and LLVM), so that clones at different commits do not take turns overwriting it.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::compiler::LlvmMajor;
use crate::error::Error;

/// The release of bpf-linker that `cargo xtask setup` installs.
pub const BPF_LINKER_VERSION: &str = "0.13.0";

const BPF_LINKER: &str = "bpf-linker";

/// Where build tools are kept: `SIPFILTER_TOOLS`, else `sipfilter/tools` in the user's cache directory.
#[derive(Debug, Clone)]
pub struct ToolsDir(PathBuf);

impl ToolsDir {
    /// The variables that decide, for a build script's `rerun-if-env-changed`.
    pub const VARIABLES: [&str; 3] = ["SIPFILTER_TOOLS", "XDG_CACHE_HOME", "HOME"];

    /// Reads the environment; nothing has to exist yet.
    ///
    /// # Errors
    ///
    /// [`Error::NoToolsDir`] when no variable names an absolute path.
    pub fn from_env() -> Result<Self, Error> {
        Self::choose(|name| env::var_os(name).map(PathBuf::from)).ok_or(Error::NoToolsDir)
    }

    /// Relative paths are ignored, as the XDG base directory specification asks: a build script's working directory is not
    /// the one in which the user set the variable.
    fn choose(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<Self> {
        let absolute = |name| variable(name).filter(|path| path.is_absolute());
        absolute("SIPFILTER_TOOLS")
            .or_else(|| absolute("XDG_CACHE_HOME").map(|cache| cache.join("sipfilter/tools")))
            .or_else(|| absolute("HOME").map(|home| home.join(".cache/sipfilter/tools")))
            .map(Self)
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The `cargo install --root` of one tool; the program is in `bin/` below it.
    pub fn root(&self, tool: &str, version: &str) -> PathBuf {
        self.0.join(format!("{tool}-{version}"))
    }

    /// The root of the bpf-linker that is linked against this LLVM.
    pub fn linker_root(&self, llvm: LlvmMajor) -> PathBuf {
        self.root(BPF_LINKER, &format!("{BPF_LINKER_VERSION}-llvm-{llvm}"))
    }

    /// The linker for this LLVM: our own, else the one on `PATH`.
    ///
    /// Ours goes first because its LLVM is known; a bpf-linker does not tell which LLVM it was built for.
    ///
    /// # Errors
    ///
    /// [`Error::NoLinker`] when there is none.
    pub fn find_linker(&self, llvm: LlvmMajor) -> Result<Linker, Error> {
        let root = self.linker_root(llvm);
        let ours = root.join("bin").join(BPF_LINKER);
        [Some(ours), on_path(BPF_LINKER)]
            .into_iter()
            .flatten()
            .find(|path| runs(path))
            .map(|path| Linker { path })
            .ok_or(Error::NoLinker { llvm, root })
    }
}

/// A bpf-linker that can be run.
#[derive(Debug, Clone)]
pub struct Linker {
    /// Its absolute path; the file name is `bpf-linker`, from which rustc infers how to talk to it.
    pub path: PathBuf,
}

/// The linker is bound to a shared LLVM, and its file may well outlive that package.
fn runs(program: &Path) -> bool {
    Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn on_path(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_absolute_variable_decides() {
        fn check(variables: &[(&str, &str)], expect: Option<&str>) {
            let chosen = ToolsDir::choose(|name| {
                let (_, value) = variables.iter().find(|(key, _)| *key == name)?;
                Some(PathBuf::from(value))
            });
            assert_eq!(
                chosen.as_ref().map(ToolsDir::path),
                expect.map(Path::new),
                "{variables:?}"
            );
        }

        check(
            &[
                ("SIPFILTER_TOOLS", "/t"),
                ("XDG_CACHE_HOME", "/c"),
                ("HOME", "/h"),
            ],
            Some("/t"),
        );
        check(
            &[("XDG_CACHE_HOME", "/c"), ("HOME", "/h")],
            Some("/c/sipfilter/tools"),
        );
        check(&[("HOME", "/h")], Some("/h/.cache/sipfilter/tools"));
        check(
            &[
                ("SIPFILTER_TOOLS", "t"),
                ("XDG_CACHE_HOME", ""),
                ("HOME", "/h"),
            ],
            Some("/h/.cache/sipfilter/tools"),
        );
        check(&[("HOME", "")], None);
        check(&[], None);
    }

    #[test]
    fn our_linker_is_named_by_version_and_llvm() {
        let tools = ToolsDir(PathBuf::from("/t"));
        assert_eq!(
            tools.linker_root(LlvmMajor(22)),
            Path::new("/t/bpf-linker-0.13.0-llvm-22")
        );
    }
}
