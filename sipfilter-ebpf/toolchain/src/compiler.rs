//! The search for a compiler that can build `core` for the kernel's virtual machine.
//!
//! A place counts only when rustc runs, is recent enough, and has the library source where `-Z build-std` looks for it; a
//! nightly without `rust-src` is as good as none. Every refusal is kept, so that the message at the end tells the whole search.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::environment;
use crate::error::Rejected;

/// The oldest compiler that builds the workspace; the same as `rust-version` in Cargo.toml.
const MINIMUM: RustVersion = RustVersion {
    major: 1,
    minor: 95,
};

/// A rustc and cargo pair with the library source beside them.
#[derive(Debug, Clone)]
pub struct Compiler {
    /// Where it came from.
    pub origin: Origin,
    /// The compiler itself, never a rustup proxy.
    pub rustc: PathBuf,
    /// The cargo that belongs to it.
    pub cargo: PathBuf,
    /// Its release.
    pub version: RustVersion,
    /// The LLVM inside, which bpf-linker must match.
    pub llvm: LlvmMajor,
}

/// Who installed a compiler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A toolchain of rustup, by name.
    Rustup(String),
    /// Debian's packages; unstable features need `RUSTC_BOOTSTRAP=1`.
    Debian,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rustup(name) => write!(f, "rustup's {name}"),
            Self::Debian => f.write_str("Debian's rustc-web"),
        }
    }
}

/// The major version of an LLVM, as in `llvm-22-dev`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LlvmMajor(pub u16);

impl fmt::Display for LlvmMajor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A Rust release, without the patch number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RustVersion {
    /// 1.
    pub major: u16,
    /// 95 in 1.95.
    pub minor: u16,
}

impl fmt::Display for RustVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl Compiler {
    /// Every compiler that has everything, in the order that the crate's documentation gives, and why the other places did
    /// not do.
    pub fn survey() -> (Vec<Self>, Vec<Rejected>) {
        let (mut found, mut rejected) = (Vec::new(), Vec::new());
        let nightlies = nightlies();
        if nightlies.is_empty() {
            rejected.push(Rejected {
                place: "rustup".into(),
                reason: "no nightly toolchain".into(),
            });
        }
        let debian = (Origin::Debian, PathBuf::from("/usr/bin"));
        for (origin, bin) in nightlies.into_iter().chain([debian]) {
            match Self::at(origin.clone(), &bin) {
                Ok(compiler) => found.push(compiler),
                Err(reason) => rejected.push(Rejected {
                    place: format!("{origin} ({})", bin.display()),
                    reason,
                }),
            }
        }
        (found, rejected)
    }

    fn at(origin: Origin, bin: &Path) -> Result<Self, String> {
        let [rustc, cargo] = ["rustc", "cargo"].map(|program| bin.join(program));
        for program in [&rustc, &cargo] {
            if !program.is_file() {
                return Err(format!("{} does not exist", program.display()));
            }
        }
        // Some people link rustup's proxies into /usr/bin; what they run depends on settings that are not ours.
        if fs::canonicalize(&rustc).is_ok_and(|real| real.ends_with("rustup")) {
            return Err(format!("{} is a proxy of rustup", rustc.display()));
        }
        let about = run(&rustc, &["--version", "--verbose"])?;
        let (version, llvm) = parse_version(&about)
            .ok_or_else(|| format!("{} -vV names no release and LLVM", rustc.display()))?;
        if version < MINIMUM {
            return Err(format!("rustc {version} is older than {MINIMUM}"));
        }
        let library = PathBuf::from(run(&rustc, &["--print", "sysroot"])?.trim_end())
            .join("lib/rustlib/src/rust/library");
        if !library.join("core").is_dir() {
            let missing = match origin {
                Origin::Rustup(_) => "the component rust-src",
                Origin::Debian => "the package rust-web-src",
            };
            return Err(format!(
                "no library source in {}: {missing} is missing",
                library.display()
            ));
        }
        Ok(Self {
            origin,
            rustc,
            cargo,
            version,
            llvm,
        })
    }
}

/// rustup's nightlies, `nightly` itself before the dated ones and the newest of these first.
///
/// The directory is read instead of asking rustup, which may be absent while its toolchains are not, and is slower.
fn nightlies() -> Vec<(Origin, PathBuf)> {
    let home = env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".rustup")));
    let Some(Ok(entries)) = home.map(|home| fs::read_dir(home.join("toolchains"))) else {
        return Vec::new();
    };
    let mut found: Vec<(String, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            Some((
                entry.file_name().into_string().ok()?,
                entry.path().join("bin"),
            ))
        })
        .filter(|(name, _)| name == "nightly" || name.starts_with("nightly-"))
        .collect();
    found.sort_by_key(|(name, _)| {
        let dated = name
            .strip_prefix("nightly-")
            .is_some_and(|rest| rest.starts_with("20"));
        (!dated, name.clone())
    });
    found
        .into_iter()
        .rev()
        .map(|(name, bin)| (Origin::Rustup(name), bin))
        .collect()
}

fn run(program: &Path, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(program);
    command.args(arguments);
    environment::clean(&mut command);
    let output = command
        .output()
        .map_err(|error| format!("cannot run {}: {error}", program.display()))?;
    if !output.status.success() {
        let arguments: OsString = arguments.join(" ").into();
        return Err(format!(
            "{} {} failed ({}): {}",
            program.display(),
            arguments.display(),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim(),
        ));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Reads the lines `release: 1.96.0` and `LLVM version: 22.1.8` of `rustc -vV`.
fn parse_version(about: &str) -> Option<(RustVersion, LlvmMajor)> {
    let field = |name: &str| {
        about
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    };
    let mut release = field("release")?.split('.');
    let version = RustVersion {
        major: release.next()?.parse().ok()?,
        minor: release.next()?.parse().ok()?,
    };
    let llvm = field("LLVM version")?.split('.').next()?.parse().ok()?;
    Some((version, LlvmMajor(llvm)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn release_and_llvm_are_read_from_the_compilers_own_words() {
        fn check(about: &str, expect: Option<(u16, u16, u16)>) {
            let found = parse_version(about).map(|(rust, llvm)| (rust.major, rust.minor, llvm.0));
            assert_eq!(found, expect, "{about}");
        }

        check(
            "rustc 1.96.0 (ac68faa20 2026-05-25)\nbinary: rustc\nrelease: 1.96.0\nLLVM version: 22.1.8\n",
            Some((1, 96, 22)),
        );
        check(
            "release: 1.97.0-nightly\nLLVM version: 22.1.4",
            Some((1, 97, 22)),
        );
        check("release: 1.97.0-nightly\n", None);
        check("release: one\nLLVM version: 22.1.4", None);
        check("", None);
    }

    #[test]
    fn a_directory_without_a_compiler_is_refused_by_name() {
        let refused = Compiler::at(Origin::Debian, Path::new("/nonexistent")).map(|_| ());
        assert_eq!(refused, Err("/nonexistent/rustc does not exist".into()));
    }
}
