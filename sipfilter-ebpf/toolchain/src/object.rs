//! The inner cargo: one command line for building the object and for linting its source.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Toolchain;
use crate::compiler::LlvmMajor;
use crate::environment;
use crate::error::Error;

/// The first LLVM whose BPF back end can be told that the kernel's processor reads words at any address.
const MISALIGNED_ACCESS: LlvmMajor = LlvmMajor(22);

/// The source tree and the place for the inner cargo's output.
#[derive(Debug, Clone)]
pub struct Workspace {
    /// The directory of the workspace's Cargo.toml.
    pub root: PathBuf,
    /// A target directory of the inner cargo's own. It may lie inside the outer one, but must not be it: the outer cargo
    /// holds that lock while it waits for us.
    pub target_dir: PathBuf,
}

/// The machine whose kernel will load the object.
#[derive(Debug, Clone)]
pub struct BpfTarget {
    /// As in `CARGO_CFG_TARGET_ARCH`; chooses the layout of kernel structures.
    pub arch: String,
    /// As in `CARGO_CFG_TARGET_ENDIAN`.
    pub big_endian: bool,
}

impl Workspace {
    /// For the build script of a package that lies directly in the workspace's root. The inner cargo's output goes beside the outer
    /// cargo's profiles, so that debug and release builds share it.
    ///
    /// # Errors
    ///
    /// [`Error::NoBuildScript`] outside of a build script.
    pub fn of_build_script() -> Result<Self, Error> {
        let package = PathBuf::from(script_variable("CARGO_MANIFEST_DIR")?);
        let out_dir = PathBuf::from(script_variable("OUT_DIR")?);
        // Cargo marks the top of its target directory with `CACHEDIR.TAG`.
        let top = out_dir
            .ancestors()
            .find(|directory| directory.join("CACHEDIR.TAG").is_file());
        Ok(Self {
            root: package.parent().unwrap_or(&package).to_owned(),
            target_dir: top.unwrap_or(&out_dir).join("ebpf"),
        })
    }
}

fn script_variable(name: &'static str) -> Result<String, Error> {
    env::var(name).map_err(|_| Error::NoBuildScript(name))
}

impl BpfTarget {
    /// The machine for which the build script's package is compiled.
    ///
    /// # Errors
    ///
    /// [`Error::NoBuildScript`] outside of a build script.
    pub fn of_build_script() -> Result<Self, Error> {
        Ok(Self {
            arch: script_variable("CARGO_CFG_TARGET_ARCH")?,
            big_endian: script_variable("CARGO_CFG_TARGET_ENDIAN")? == "big",
        })
    }

    /// The machine that this code was compiled for.
    pub fn host() -> Self {
        Self {
            arch: env::consts::ARCH.into(),
            big_endian: cfg!(target_endian = "big"),
        }
    }

    /// The compilation target's name.
    pub fn triple(&self) -> &'static str {
        if self.big_endian {
            "bpfeb-unknown-none"
        } else {
            "bpfel-unknown-none"
        }
    }

    /// Which structures of the kernel apply, in the words of aya-ebpf.
    fn arch_cfg(&self) -> String {
        let arch = if self.arch.starts_with("riscv64") {
            "riscv64"
        } else {
            &self.arch
        };
        format!("--cfg=bpf_target_arch=\"{arch}\"")
    }
}

/// What the inner cargo is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CargoVerb {
    /// Compile and link the object.
    Build,
    /// Lint the source for the kernel's target, warnings refused. Needs the clippy of the same toolchain.
    Clippy,
}

impl Toolchain {
    /// Builds a package's object and returns its path.
    ///
    /// # Errors
    ///
    /// [`Error::Spawn`] and [`Error::Build`] when the inner cargo did not run or failed, [`Error::NotEbpf`] when what came
    /// out is something else.
    pub fn build(
        &self,
        package: &str,
        workspace: &Workspace,
        target: &BpfTarget,
    ) -> Result<PathBuf, Error> {
        self.run(CargoVerb::Build, package, workspace, target)?;
        let object = workspace
            .target_dir
            .join(target.triple())
            .join("release")
            .join(package);
        check_object(&object)?;
        Ok(object)
    }

    /// Lints an eBPF package on its own target.
    ///
    /// # Errors
    ///
    /// [`Error::Spawn`] and [`Error::Lint`].
    pub fn clippy(
        &self,
        package: &str,
        workspace: &Workspace,
        target: &BpfTarget,
    ) -> Result<(), Error> {
        self.run(CargoVerb::Clippy, package, workspace, target)
    }

    fn run(
        &self,
        verb: CargoVerb,
        package: &str,
        workspace: &Workspace,
        target: &BpfTarget,
    ) -> Result<(), Error> {
        let mut command = self.command(verb, package, workspace, target);
        // A build script's standard output is a list of orders to the outer cargo; nothing of ours may get into it.
        let status = command
            .stdout(Stdio::null())
            .status()
            .map_err(|source| Error::Spawn {
                program: self.compiler.cargo.clone(),
                source,
            })?;
        match verb {
            _ if status.success() => Ok(()),
            CargoVerb::Build => Err(Error::Build {
                status,
                linker: self.linker.path.clone(),
            }),
            CargoVerb::Clippy => Err(Error::Lint(status)),
        }
    }

    fn command(
        &self,
        verb: CargoVerb,
        package: &str,
        workspace: &Workspace,
        target: &BpfTarget,
    ) -> Command {
        let compiler = &self.compiler;
        let mut command = Command::new(&compiler.cargo);
        environment::clean(&mut command);
        command
            .current_dir(&workspace.root)
            .arg(match verb {
                CargoVerb::Build => "build",
                CargoVerb::Clippy => "clippy",
            })
            .args([
                "--release",
                "--locked",
                "-Z",
                "build-std=core",
                "--package",
                package,
            ])
            .args(["--target", target.triple()])
            .arg("--target-dir")
            .arg(&workspace.target_dir)
            .env("RUSTC", &compiler.rustc)
            // A rustup nightly accepts -Z as it is; Debian's compiler is a stable release.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_ENCODED_RUSTFLAGS", self.rustflags(target))
            .env("PATH", self.path());
        if verb == CargoVerb::Clippy {
            command.args(["--", "-D", "warnings"]);
        }
        command
    }

    /// Debug information is where the linker takes BTF from, without which maps and functions have no names in bpftool.
    fn rustflags(&self, target: &BpfTarget) -> OsString {
        let mut linker = OsString::from("-Clinker=");
        linker.push(&self.linker.path);
        let mut flags = vec![
            target.arch_cfg().into(),
            "-Cdebuginfo=2".into(),
            linker,
            "-Clink-arg=--btf".into(),
        ];
        if self.compiler.llvm >= MISALIGNED_ACCESS {
            // IP headers start two bytes off a word; without this every field of one is loaded byte by byte.
            flags.push("-Ctarget-feature=+allows-misaligned-mem-access".into());
        }
        flags.join(&OsString::from("\x1f"))
    }

    /// The toolchain's own programs go first: `cargo clippy` finds cargo-clippy and clippy-driver by name, and rustup's
    /// proxies of the same name usually stand first on a developer's `PATH`.
    fn path(&self) -> OsString {
        let mut path = OsString::new();
        if let Some(bin) = self.compiler.cargo.parent() {
            path.push(bin);
        }
        if let Some(rest) = env::var_os("PATH") {
            path.push(":");
            path.push(rest);
        }
        path
    }
}

/// Checks that a file is an ELF object for the kernel's virtual machine, in either byte order.
///
/// # Errors
///
/// [`Error::Unreadable`] or [`Error::NotEbpf`].
pub fn check_object(path: &Path) -> Result<(), Error> {
    // e_ident is 16 bytes, then e_type and e_machine of two bytes each (System V gABI, chapter 4).
    let mut header = [0; 20];
    let unreadable = |source| Error::Unreadable {
        path: path.to_owned(),
        source,
    };
    let mut file = File::open(path).map_err(unreadable)?;
    match file.read_exact(&mut header) {
        Ok(()) if is_ebpf(&header) => Ok(()),
        Ok(()) => Err(Error::NotEbpf(path.to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            Err(Error::NotEbpf(path.to_owned()))
        }
        Err(error) => Err(unreadable(error)),
    }
}

fn is_ebpf(header: &[u8; 20]) -> bool {
    const EM_BPF: u16 = 247;
    let machine = [header[18], header[19]];
    let machine = match header[5] {
        1 => u16::from_le_bytes(machine),
        2 => u16::from_be_bytes(machine),
        _ => return false,
    };
    header.starts_with(b"\x7fELF") && machine == EM_BPF
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_elf_files_for_the_kernels_machine_are_objects() {
        fn check(magic: &[u8; 4], order: u8, machine: [u8; 2], expect: bool) {
            let mut header = [0; 20];
            header[..4].copy_from_slice(magic);
            header[5] = order;
            header[18..].copy_from_slice(&machine);
            assert_eq!(is_ebpf(&header), expect, "{magic:?} {order} {machine:?}");
        }

        check(b"\x7fELF", 1, [247, 0], true);
        check(b"\x7fELF", 2, [0, 247], true);
        check(b"\x7fELF", 2, [247, 0], false);
        check(b"\x7fELF", 1, [62, 0], false);
        check(b"#!/b", 1, [247, 0], false);
        check(b"\x7fELF", 0, [247, 0], false);
    }

    #[test]
    fn byte_order_chooses_the_target() {
        let target = |arch: &str, big_endian| BpfTarget {
            arch: arch.into(),
            big_endian,
        };
        assert_eq!(target("x86_64", false).triple(), "bpfel-unknown-none");
        assert_eq!(target("s390x", true).triple(), "bpfeb-unknown-none");
        assert_eq!(
            target("riscv64gc", false).arch_cfg(),
            "--cfg=bpf_target_arch=\"riscv64\""
        );
    }
}
