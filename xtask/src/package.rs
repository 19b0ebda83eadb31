//! `cargo xtask package`: the Debian package, from `[package.metadata.deb]` in `sipfilter-daemon/Cargo.toml`.
//!
//! cargo-deb puts it together; what it takes besides the programs (manual pages, completions, the first configuration) is written by the
//! daemon's example `documents`, from the programs' own definitions. The same commit built at the same place by the same toolchain is
//! the same package, byte for byte: times are the commit's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};

use crate::project::{Project, find_program, step};
use crate::setup::{self, CARGO_DEB_VERSION, Purpose};
use sipfilter_ebpf_toolchain::ToolsDir;

/// Make the Debian package, and have lintian look at it.
#[derive(Debug, clap::Args)]
pub struct Arguments {}

/// Which build of the programs goes into the package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Build {
    /// What is given to people.
    Release,
    /// What the tests have built anyhow, and which checks itself; without its debug information.
    Debug,
}

/// Makes the package and says where it is.
pub fn run(project: &Project, Arguments {}: &Arguments) -> Result<ExitCode> {
    setup::ensure(project, &[Purpose::Build, Purpose::Package])?;
    let package = make(project, Build::Release, None)?;
    step("lintian", || check(project, &package))?;
    println!("{}", package.display());
    Ok(ExitCode::SUCCESS)
}

/// Makes the package of a build, as of another version than the workspace's if one is given.
pub fn make(project: &Project, build: Build, version: Option<&str>) -> Result<PathBuf> {
    let (profile, directory, speed) = match build {
        Build::Release => ("release", "release", None),
        Build::Debug => ("dev", "debug", Some("--fast")),
    };
    step("building sipfilterd and sipfilterctl", || {
        let cargo = project.cargo("build").args(["--profile", profile]);
        Ok(cargo
            .args(["--package", "sipfilter-daemon", "--bins"])
            .run()?)
    })?;
    let products = project.target.join(directory);
    let documents = products.join("package");
    step("writing manual pages and completions", || {
        let cargo = project.cargo("run").args(["--quiet", "--package"]);
        Ok(cargo
            .args(["sipfilter-daemon", "--example", "documents", "--"])
            .arg(&documents)
            .run()?)
    })?;
    let time = Time::of_commit(project)?;
    // The package's own first issue of that version.
    let number = &format!("{}-1", version.unwrap_or(env!("CARGO_PKG_VERSION")));
    let log = documents.join("changelog.Debian");
    fs::write(&log, changelog(number, &time.words))?;
    let changes = documents.join("changelog");
    fs::copy(project.root.join("CHANGELOG.md"), &changes)?;
    let mut to_pack = vec![log, changes];
    for section in ["man1", "man5", "man8"] {
        let pages = fs::read_dir(documents.join(section))?.flatten();
        to_pack.extend(pages.map(|page| page.path()));
    }
    let gzip = project.shell.cmd("gzip").args(["--best", "--no-name"]);
    gzip.args(&to_pack).quiet().run()?;
    let package = project
        .target
        .join(format!("sipfilter_{number}_{}.deb", architecture(project)?));
    step("putting the package together", || {
        let cargo_deb = cargo_deb()?.context("cargo-deb is missing")?;
        let version = ["--deb-version", number.as_str()];
        Ok(project
            .shell
            .cmd(cargo_deb)
            .args(["--no-build", "--locked", "--package", "sipfilter-daemon"])
            .args(["--profile", profile, "--strip", "--quiet"])
            .args(version)
            .args(speed)
            .arg("--output")
            .arg(&package)
            .env("SOURCE_DATE_EPOCH", &time.seconds)
            .env("CARGO_TARGET_DIR", &project.target)
            .run()?)
    })?;
    Ok(package)
}

/// Debian's own checks.
pub fn check(project: &Project, package: &Path) -> Result<()> {
    let lintian = find_program("lintian").context("lintian is not installed")?;
    let check = project
        .shell
        .cmd(lintian)
        .args(["--fail-on", "error,warning", "--allow-root"])
        // It is no upload to Debian, whose first one closes the bug that asked for the package.
        .args(["--suppress-tags", "initial-upload-closes-no-bugs"]);
    Ok(check.arg(package).run()?)
}

/// The last commit's time, in seconds and in the words of a Debian changelog.
struct Time {
    seconds: String,
    words: String,
}

impl Time {
    fn of_commit(project: &Project) -> Result<Self> {
        let git = |format: &str| {
            let log = project.shell.cmd("git").args(["log", "-1"]);
            log.args(["--date=rfc2822", format]).quiet().read()
        };
        Ok(Self {
            seconds: git("--format=%ct")?,
            words: git("--format=%cD")?,
        })
    }
}

/// Debian wants its own form; what changed stands in the project's file.
fn changelog(version: &str, time: &str) -> String {
    format!(
        "sipfilter ({version}) unstable; urgency=medium\n\n  * See /usr/share/doc/sipfilter/changelog.gz.\n\n \
         -- sipfilter maintainers <maintainers@sipfilter.example>  {time}\n"
    )
}

fn architecture(project: &Project) -> Result<String> {
    let found = project
        .shell
        .cmd("dpkg")
        .arg("--print-architecture")
        .quiet()
        .read()?;
    ensure!(!found.is_empty(), "dpkg does not know its architecture");
    Ok(found)
}

/// Our own cargo-deb, else the one on `PATH`.
pub fn cargo_deb() -> Result<Option<PathBuf>> {
    let ours = ToolsDir::from_env()?
        .root("cargo-deb", CARGO_DEB_VERSION)
        .join("bin/cargo-deb");
    Ok(Some(ours)
        .filter(|path| path.is_file())
        .or_else(|| find_program("cargo-deb")))
}
