//! Looks at what is there. Changes nothing, and is quick: a few programs are asked for their version.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Result;
use sipfilter_ebpf_toolchain::{Compiler, LlvmMajor, Origin, Rejected, ToolsDir};

use super::Purpose;
use crate::lint;
use crate::package;
use crate::project::{Project, find_program};

/// The programs that the lab starts, and the Debian packages that bring them.
const LAB_PROGRAMS: [(&str, &str); 16] = [
    ("baresip", "baresip-core"),
    ("bpftool", "bpftool"),
    ("conntrack", "conntrack"),
    ("dnsmasq", "dnsmasq-base"),
    ("ethtool", "ethtool"),
    ("faketime", "faketime"),
    ("ip", "iproute2"),
    ("kamailio", "kamailio"),
    ("nft", "nftables"),
    ("nsenter", "util-linux"),
    ("ping", "iputils-ping"),
    ("sipp", "sip-tester"),
    ("ss", "iproute2"),
    ("strace", "strace"),
    ("tcpdump", "tcpdump"),
    ("tshark", "tshark"),
];

/// What booting other kernels needs, besides the kernels.
const KERNEL_PROGRAMS: [(&str, &str); 6] = [
    ("busybox", "busybox-static"),
    ("cpio", "cpio"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("strip", "binutils"),
    ("timeout", "coreutils"),
    ("xz", "xz-utils"),
];

/// What the benchmarks need besides the lab: what sipfilter is compared with.
const BENCH_PROGRAMS: [(&str, &str); 1] = [("xdp-filter", "xdp-tools")];

/// What looks at the systemd unit.
const LINT_PROGRAMS: [(&str, &str); 1] = [("systemd-analyze", "systemd")];

/// What making the Debian package and trying it needs.
const PACKAGE_PROGRAMS: [(&str, &str); 5] = [
    ("debootstrap", "debootstrap"),
    ("dpkg-deb", "dpkg"),
    ("git", "git"),
    ("lintian", "lintian"),
    ("unshare", "util-linux"),
];

const EBPF_COMPILER: [&str; 3] = ["cargo-web", "rust-web-src", "rustc-web"];

/// Where the kernel's pinned maps live.
pub const BPFFS: &str = "/sys/fs/bpf";

/// One thing that is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// What a person would call it.
    pub name: String,
    /// Whether it is there.
    pub state: State,
}

/// Whether a thing is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It is, and this is what was found.
    Present(String),
    /// It is not: how it gets there, and why it is thought missing.
    Missing(Remedy, String),
}

/// How a missing thing gets there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remedy {
    /// Debian packages.
    Packages(Vec<String>),
    /// bpf-linker for this LLVM, whose development files are installed.
    Linker(LlvmMajor),
    /// cargo-deny, from the Rust package registry.
    CargoDeny,
    /// cargo-deb, from the same.
    CargoDeb,
    /// A component of the rustup toolchain that runs us.
    Component(&'static str),
    /// The file system for pinned maps.
    MountBpffs,
}

impl Item {
    /// Whether it has to be installed.
    pub fn is_missing(&self) -> bool {
        matches!(self.state, State::Missing(..))
    }

    fn present(name: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            state: State::Present(what.into()),
        }
    }

    fn missing(name: impl Into<String>, remedy: Remedy, why: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            state: State::Missing(remedy, why.into()),
        }
    }
}

/// Looks for everything that these purposes need.
pub fn look(project: &Project, purposes: &[Purpose]) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    let needs = |purpose| purposes.contains(&purpose);
    if needs(Purpose::Build) || needs(Purpose::Lint) {
        toolchain(&mut items, needs(Purpose::Lint))?;
    }
    if needs(Purpose::Lab) {
        items.extend(LAB_PROGRAMS.map(|(program, package)| lab_program(program, package)));
        items.push(bpffs());
    }
    if needs(Purpose::Kernels) {
        items.extend(KERNEL_PROGRAMS.map(|(program, package)| lab_program(program, package)));
    }
    if needs(Purpose::Bench) {
        items.extend(BENCH_PROGRAMS.map(|(program, package)| lab_program(program, package)));
    }
    if needs(Purpose::Package) {
        items.extend(PACKAGE_PROGRAMS.map(|(program, package)| lab_program(program, package)));
        items.push(match package::cargo_deb()? {
            Some(path) => Item::present("cargo-deb", path.display().to_string()),
            None => Item::missing(
                "cargo-deb",
                Remedy::CargoDeb,
                "not in the tools directory nor on PATH",
            ),
        });
    }
    if needs(Purpose::Lint) {
        items.extend(LINT_PROGRAMS.map(|(program, package)| lab_program(program, package)));
        items.push(component(project, "rustfmt", "fmt"));
        items.push(component(project, "clippy", "clippy"));
        items.push(match lint::cargo_deny()? {
            Some(path) => Item::present("cargo-deny", path.display().to_string()),
            None => Item::missing(
                "cargo-deny",
                Remedy::CargoDeny,
                "not in the tools directory nor on PATH",
            ),
        });
    }
    Ok(items)
}

/// The eBPF compiler, the linker for it, and for linting its clippy.
fn toolchain(items: &mut Vec<Item>, with_clippy: bool) -> Result<()> {
    let tools = ToolsDir::from_env()?;
    let (compilers, rejected) = Compiler::survey();
    let linked = compilers
        .iter()
        .find_map(|compiler| Some((compiler, tools.find_linker(compiler.llvm).ok()?)));
    // A nightly may be ahead of every LLVM that this machine can have; then the next compiler in the order is as good.
    let buildable = || compilers.iter().find(|compiler| has_llvm(compiler.llvm));
    let chosen = linked
        .as_ref()
        .map(|(compiler, _)| *compiler)
        .or_else(buildable)
        .or(compilers.last());

    let Some(compiler) = chosen else {
        let refusals = rejected
            .iter()
            .map(|Rejected { place, reason }| format!("{place}: {reason}"));
        let why = refusals.collect::<Vec<_>>().join("; ");
        let mut packages: Vec<String> = EBPF_COMPILER.map(String::from).to_vec();
        if with_clippy {
            packages.push("rust-web-clippy".into());
        }
        items.push(Item::missing(
            "eBPF compiler",
            Remedy::Packages(packages),
            why,
        ));
        return Ok(());
    };
    let what = format!(
        "{}, rustc {}, LLVM {}, {}",
        compiler.origin,
        compiler.version,
        compiler.llvm,
        compiler.rustc.display()
    );
    items.push(Item::present("eBPF compiler", what));
    items.push(match linked {
        Some((_, linker)) => Item::present("bpf-linker", linker.path.display().to_string()),
        None => missing_linker(compiler.llvm),
    });
    if with_clippy {
        items.push(ebpf_clippy(compiler));
    }
    Ok(())
}

fn missing_linker(llvm: LlvmMajor) -> Item {
    let mut packages = Vec::new();
    if !has_llvm(llvm) {
        packages.push(format!("llvm-{llvm}-dev"));
    }
    // The linker's build links the C++ library that LLVM is made with, whose development files come with the compiler.
    if find_program("g++").is_none() {
        packages.push("g++".into());
    }
    if packages.is_empty() {
        Item::missing(
            "bpf-linker",
            Remedy::Linker(llvm),
            format!("none for LLVM {llvm} yet"),
        )
    } else {
        let why = format!("none for LLVM {llvm}, and building it needs packages");
        Item::missing("bpf-linker", Remedy::Packages(packages), why)
    }
}

fn has_llvm(llvm: LlvmMajor) -> bool {
    let prefix = llvm_prefix(llvm);
    let prefix = Path::new(&prefix);
    prefix.join("lib/libLLVM.so").exists() && prefix.join("include/llvm-c").exists()
}

/// Where Debian puts an LLVM.
pub fn llvm_prefix(llvm: LlvmMajor) -> String {
    format!("/usr/lib/llvm-{llvm}")
}

fn ebpf_clippy(compiler: &Compiler) -> Item {
    let name = "clippy for the eBPF target";
    let driver = compiler.rustc.with_file_name("clippy-driver");
    if driver.is_file() {
        return Item::present(name, driver.display().to_string());
    }
    let why = format!("{} does not exist", driver.display());
    let remedy = match compiler.origin {
        Origin::Debian => Remedy::Packages(vec!["rust-web-clippy".into()]),
        Origin::Rustup(_) => Remedy::Component("clippy"),
    };
    Item::missing(name, remedy, why)
}

fn lab_program(program: &str, package: &str) -> Item {
    match find_program(program) {
        Some(path) => Item::present(program, path.display().to_string()),
        None => Item::missing(
            program,
            Remedy::Packages(vec![package.into()]),
            "not on PATH",
        ),
    }
}

fn component(project: &Project, component: &'static str, verb: &str) -> Item {
    let name = format!("cargo {verb}");
    let status = Command::new("cargo")
        .args([verb, "--version"])
        .current_dir(&project.root)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if status.is_ok_and(|status| status.success()) {
        Item::present(name, component)
    } else {
        Item::missing(name, Remedy::Component(component), "it does not run")
    }
}

/// Field 2 of a line in /proc/mounts is the mount point, field 3 the type (proc(5)).
fn bpffs() -> Item {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mounted = mounts.lines().any(|line| {
        let mut fields = line.split(' ').skip(1);
        fields.next() == Some(BPFFS) && fields.next() == Some("bpf")
    });
    if mounted {
        Item::present("bpffs", BPFFS)
    } else {
        Item::missing(
            "bpffs",
            Remedy::MountBpffs,
            format!("not mounted at {BPFFS}"),
        )
    }
}
