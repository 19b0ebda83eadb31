//! Where things are, who we are, and how a step is announced; shared by the verbs.
//!
//! Progress goes to standard error, so that a verb's standard output is only what the program it runs prints there.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result};
use sipfilter_ebpf_toolchain::Workspace;
use xshell::{Cmd, Shell};

/// Where administrators' programs live; `PATH` lacks them for users, and for root after a plain `su`.
const SYSTEM_DIRECTORIES: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// The source tree and the surroundings of this run.
pub struct Project {
    /// Starts programs in the workspace's root.
    pub shell: Shell,
    /// The workspace's root.
    pub root: PathBuf,
    /// The target directory that this very program was built in.
    pub target: PathBuf,
    /// Whether the effective user is root.
    pub is_root: bool,
    /// Whether `CI` is set to something.
    pub is_ci: bool,
}

impl Project {
    /// Finds the workspace around this package.
    pub fn locate() -> Result<Self> {
        let manifest =
            env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let root = Path::new(&manifest)
            .parent()
            .context("xtask is not inside a workspace")?
            .to_owned();
        let target = own_target_dir().unwrap_or_else(|| root.join("target"));
        let shell = Shell::new().context("cannot use the current directory")?;
        shell.change_dir(&root);
        shell.set_var("PATH", search_path()?);
        Ok(Self {
            shell,
            root,
            target,
            // The owner of a process's directory in /proc is its effective user.
            is_root: fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0),
            is_ci: env::var_os("CI").is_some_and(|value| !value.is_empty()),
        })
    }

    /// The cargo that runs us, with this verb, on the versions that Cargo.lock names.
    pub fn cargo(&self, verb: &str) -> Cmd<'_> {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        self.shell.cmd(cargo).arg(verb).arg("--locked")
    }

    /// The eBPF crate's own build directory, the same as the one of the daemon's build script.
    pub fn ebpf_workspace(&self) -> Workspace {
        Workspace {
            root: self.root.clone(),
            target_dir: self.target.join("ebpf"),
        }
    }
}

/// Runs a step under a heading, and says how long it took.
pub fn step<T>(what: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("==> {what}");
    let start = Instant::now();
    let result = run();
    let seconds = start.elapsed().as_secs_f64();
    match &result {
        Ok(_) => eprintln!("    done in {seconds:.1} s"),
        Err(_) => eprintln!("    failed after {seconds:.1} s"),
    }
    result
}

/// The file that a program's name stands for on the search path.
pub fn find_program(name: &str) -> Option<PathBuf> {
    env::split_paths(&search_path().ok()?)
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
}

fn search_path() -> Result<OsString> {
    let given = env::var_os("PATH").unwrap_or_default();
    let mut directories: Vec<PathBuf> = env::split_paths(&given).collect();
    for directory in SYSTEM_DIRECTORIES.map(PathBuf::from) {
        if !directories.contains(&directory) {
            directories.push(directory);
        }
    }
    env::join_paths(directories).context("PATH holds a directory with a colon in its name")
}

/// Cargo marks the top of its target directory with `CACHEDIR.TAG`; wherever a user's settings put it, we run from inside.
fn own_target_dir() -> Option<PathBuf> {
    let program = env::current_exe().ok()?;
    let marked = program
        .ancestors()
        .find(|directory| directory.join("CACHEDIR.TAG").is_file());
    marked.map(Path::to_owned)
}
