//! `cargo xtask test-kernels`: the programs in older kernels, each booted in an emulated machine.
//!
//! A kernel's verifier is stricter the older it is, and 6.1 has no TCX; only running there tells. Each kernel runs the policy's
//! case table by `BPF_PROG_TEST_RUN`, and then a few real calls through a real daemon attached to veth, with attackers around.
//!
//! The guest is an archive in memory of busybox, the tests and the libraries that they name; there is no disk and no network
//! card. QEMU emulates the processor: nested virtualization is not to be had everywhere, and speed is not what is tested. All machines
//! run at the same time, because each uses one processor for most of its time; what they say is told one after the other.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use sipfilter_ebpf_toolchain::ToolsDir;

use crate::project::{Project, find_program, step};
use crate::setup::{self, Purpose};

/// The oldest kernel that is supported, and the one of the next Debian release.
const SERIES: [&str; 2] = ["6.1", "6.12"];

/// What the guests need beyond what is built in, in the order in which they are loaded.
const MODULES: [&str; 6] = ["llc", "stp", "bridge", "veth", "sch_ingress", "cls_bpf"];

/// What the tests start, besides themselves.
const PROGRAMS: [&str; 6] = ["ethtool", "ip", "nsenter", "setpriv", "sipp", "tcpdump"];

/// What an emulated machine may take; a loaded host needs several times the usual half minute.
const BOUND: &str = "600";

/// Processors of one machine: its tests run one after the other, and little runs beside them.
const MOST_PROCESSORS: usize = 2;

/// What the guest must say of each of its tests.
const TESTS: [&str; 2] = ["policy", "calls"];

/// Load, attach and try the programs in older kernels, booted under QEMU.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Which series, like 6.1; all, if none is named.
    series: Vec<String>,
}

/// Boots the named kernels.
pub fn run(project: &Project, Arguments { series }: &Arguments) -> Result<ExitCode> {
    if let Some(unknown) = series.iter().find(|name| !SERIES.contains(&name.as_str())) {
        bail!(
            "there is no test on Linux {unknown}; there are {}",
            SERIES.join(", ")
        );
    }
    let chosen = SERIES
        .into_iter()
        .filter(|name| series.is_empty() || series.iter().any(|wanted| wanted == name));
    test(project, chosen)?;
    Ok(ExitCode::SUCCESS)
}

/// Why no kernel can be booted on this machine, whatever is installed.
pub fn obstacle() -> Option<&'static str> {
    (std::env::consts::ARCH != "x86_64").then_some("the kernels are Debian's for x86_64")
}

/// Every series.
pub fn test_all(project: &Project) -> Result<()> {
    test(project, SERIES)
}

/// Boots the kernels; one that fails does not keep the others from running.
fn test(project: &Project, chosen: impl IntoIterator<Item = &'static str>) -> Result<()> {
    setup::ensure(project, &[Purpose::Build, Purpose::Lab, Purpose::Kernels])?;
    if let Some(obstacle) = obstacle() {
        bail!("{obstacle}");
    }
    let programs = step("building the programs and their tests", || build(project))?;
    let mut machines = Vec::new();
    let mut failed = Vec::new();
    for series in chosen {
        let machine = step(&format!("a machine for Linux {series}"), || {
            let kernel = Kernel::fetch(project, series)?;
            let guest = Guest::assemble(project, &kernel, &programs)?;
            Ok((kernel, guest))
        });
        match machine {
            Ok(machine) => machines.push(machine),
            Err(error) => {
                eprintln!("error: {error:#}");
                failed.push(series.to_owned());
            }
        }
    }
    ensure!(!machines.is_empty(), "failed: Linux {}", failed.join(", "));
    let names: Vec<&str> = machines
        .iter()
        .map(|(kernel, _)| kernel.series.as_str())
        .collect();
    let what = format!("Linux {}, emulated at the same time", names.join(" and "));
    let outcomes = step(&what, || Ok(boot_all(&project.root, &machines)))?;
    for ((kernel, _), outcome) in machines.iter().zip(outcomes) {
        match outcome {
            Ok(lines) => lines.iter().for_each(|line| eprintln!("    {line}")),
            Err(error) => {
                eprintln!("error: {error:#}");
                failed.push(kernel.series.clone());
            }
        }
    }
    ensure!(failed.is_empty(), "failed: Linux {}", failed.join(", "));
    Ok(())
}

/// Runs all machines to their ends. Tells of each, in their order, what is worth saying, or what is wrong.
fn boot_all(root: &Path, machines: &[(Kernel, Guest)]) -> Vec<Result<Vec<String>>> {
    let here = thread::available_parallelism().map_or(1, usize::from);
    let processors = (here / machines.len().max(1)).clamp(1, MOST_PROCESSORS);
    thread::scope(|scope| {
        let running: Vec<_> = machines
            .iter()
            .map(|(kernel, guest)| scope.spawn(move || guest.boot(root, kernel, processors)))
            .collect();
        let ended = running.into_iter().map(|machine| {
            let outcome = machine.join();
            outcome.unwrap_or_else(|_| bail!("whoever waited for the machine panicked"))
        });
        ended.collect()
    })
}

/// The programs under test, by the name that they have in the guest.
fn build(project: &Project) -> Result<Vec<(&'static str, PathBuf)>> {
    let packages = ["-p", "sipfilter-daemon", "-p", "sipfilter-tests"];
    project
        .cargo("build")
        .args(["--bins"])
        .args(packages)
        .run()?;
    let messages = project
        .cargo("test")
        .args(["--no-run", "-p", "sipfilter-tests", "--test", "policy"])
        .args(["--message-format", "json-render-diagnostics"])
        .read()?;
    // One JSON object per line. The package's programs are made along with its tests.
    let policy = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["kind"][0] == "test")
        .find_map(|message| Some(PathBuf::from(message.get("executable")?.as_str()?)))
        .context("cargo does not say where the policy's test program is")?;
    let bin = project.target.join("debug");
    Ok(vec![
        ("policy", policy),
        ("demo", bin.join("demo")),
        ("sipfilterd", bin.join("sipfilterd")),
        ("sipfilterctl", bin.join("sipfilterctl")),
    ])
}

/// A Debian kernel, unpacked.
struct Kernel {
    series: String,
    directory: PathBuf,
}

impl Kernel {
    /// The newest of a series that Debian's package lists have; packages are kept among the tools, and downloaded once.
    fn fetch(project: &Project, series: &str) -> Result<Self> {
        let package = newest_package(project, series)?;
        let directory = ToolsDir::from_env()?.path().join(&package);
        if !directory.is_dir() {
            let unpacked = directory.with_extension("part");
            let _ = fs::remove_dir_all(&unpacked);
            fs::create_dir_all(&unpacked)
                .with_context(|| format!("cannot make {}", unpacked.display()))?;
            let shell = xshell::Shell::new()?;
            shell.change_dir(&unpacked);
            shell
                .cmd("apt-get")
                .args(["download", "--quiet"])
                .arg(&package)
                .ignore_stdout()
                .run()?;
            let archive = fs::read_dir(&unpacked)?
                .flatten()
                .map(|entry| entry.path())
                .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
                .with_context(|| format!("apt-get did not bring {package}"))?;
            shell.cmd("dpkg").arg("-x").arg(&archive).arg(".").run()?;
            fs::remove_file(&archive)?;
            // Whole or not at all.
            fs::rename(&unpacked, &directory)?;
        }
        Ok(Self {
            series: series.to_owned(),
            directory,
        })
    }

    fn image(&self) -> Result<PathBuf> {
        find_file(&self.directory.join("boot"), &|name| {
            name.starts_with("vmlinuz-")
        })
        .with_context(|| format!("there is no kernel in {}", self.directory.display()))
    }

    /// A module's file; `None` where it is built in or not there.
    fn module(&self, name: &str) -> Option<PathBuf> {
        let (plain, packed) = (format!("{name}.ko"), format!("{name}.ko.xz"));
        find_file(&self.directory, &|file| file == plain || file == packed)
    }
}

fn newest_package(project: &Project, series: &str) -> Result<String> {
    let pattern = format!(
        r"^linux-image-{}\.[0-9][-.+0-9a-z]*-cloud-amd64$",
        series.replace('.', r"\.")
    );
    let found = project
        .shell
        .cmd("apt-cache")
        .args(["search", "--names-only", &pattern])
        .read()?;
    found
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| !name.ends_with("-unsigned"))
        .max_by_key(|name| numbers(name))
        .map(str::to_owned)
        .with_context(|| {
            format!(
                "no Debian package list here has a cloud kernel {series} for amd64: Debian 12 with its security updates has"
            )
        })
}

/// The numbers in a name, which order `6.1.0-9` before `6.1.0-10`.
fn numbers(name: &str) -> Vec<u32> {
    name.split(|letter: char| !letter.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

fn find_file(directory: &Path, wanted: &dyn Fn(&str) -> bool) -> Option<PathBuf> {
    for entry in fs::read_dir(directory).ok()?.flatten() {
        let path = entry.path();
        if entry.file_type().ok()?.is_dir() {
            if let Some(found) = find_file(&path, wanted) {
                return Some(found);
            }
        } else if wanted(entry.file_name().to_str()?) {
            return Some(path);
        }
    }
    None
}

/// The archive that a kernel unpacks into memory and starts `/init` from.
struct Guest {
    archive: PathBuf,
    log: PathBuf,
}

impl Guest {
    fn assemble(project: &Project, kernel: &Kernel, programs: &[(&str, PathBuf)]) -> Result<Self> {
        let work = project.target.join("kernels");
        let root = work.join(&kernel.series);
        let _ = fs::remove_dir_all(&root);
        for directory in [
            "bin", "dev", "etc", "modules", "proc", "run", "sys", "tmp", "var/tmp", "usr/bin",
        ] {
            fs::create_dir_all(root.join(directory))?;
        }
        // The lab looks users up.
        fs::write(root.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\n")?;
        fs::write(root.join("etc/group"), "root:x:0:\n")?;
        fs::copy(project.root.join("tests/kernels/init"), root.join("init"))?;
        let busybox = find_program("busybox").context("busybox is not installed")?;
        fs::copy(&busybox, root.join("bin/busybox"))?;

        let mut order = File::create(root.join("modules/order"))?;
        for name in MODULES {
            if let Some(module) = kernel.module(name) {
                unpack_module(&module, &root.join(format!("modules/{name}.ko")))?;
                writeln!(order, "{name}.ko")?;
            }
        }
        for (name, path) in programs {
            let inside = root.join("bin").join(name);
            // Debug information is most of these programs, and memory is all that the guest has.
            project
                .shell
                .cmd("strip")
                .arg("-o")
                .arg(&inside)
                .arg(path)
                .quiet()
                .run()?;
            copy_libraries(path, &root)?;
        }
        for name in PROGRAMS {
            let path = find_program(name).with_context(|| format!("{name} is not installed"))?;
            fs::copy(&path, root.join("usr/bin").join(name))?;
            copy_libraries(&path, &root)?;
        }
        let guest = Self {
            archive: work.join(format!("{}.cpio", kernel.series)),
            log: work.join(format!("{}.log", kernel.series)),
        };
        let pack = format!(
            "cd '{}' && find . | cpio --create --format=newc --quiet > '{}'",
            root.display(),
            guest.archive.display()
        );
        project.shell.cmd("sh").args(["-c", &pack]).quiet().run()?;
        fs::remove_dir_all(&root)?;
        Ok(guest)
    }

    /// Runs the machine to its end, and believes only what the guest says of every test. Tells what is worth saying.
    fn boot(&self, root: &Path, kernel: &Kernel, processors: usize) -> Result<Vec<String>> {
        let begin = Instant::now();
        let log = File::create(&self.log)?;
        let status = Command::new("timeout")
            .args(["--kill-after=5", BOUND])
            .args(["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max"])
            .args(["-m", "1G", "-smp", &processors.to_string()])
            .args(["-nic", "none", "-nographic", "-no-reboot"])
            .arg("-kernel")
            .arg(kernel.image()?)
            .arg("-initrd")
            .arg(&self.archive)
            .args(["-append", "console=ttyS0 panic=-1 quiet"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .current_dir(root)
            .status()
            .context("cannot start qemu-system-x86_64")?;
        let said = String::from_utf8_lossy(&fs::read(&self.log)?).into_owned();
        let outcome = judge(&said, &kernel.series);
        let complaint = match (&outcome, status.success()) {
            (Ok(release), true) => {
                let seconds = begin.elapsed().as_secs_f64();
                let verifier = said.lines().filter(|line| line.starts_with("VERIFIER "));
                let head = format!("{release}: {}, after {seconds:.1} s", TESTS.join(", "));
                let lines = verifier.map(|line| line.trim_end().to_owned());
                return Ok([head].into_iter().chain(lines).collect());
            }
            (Ok(_), false) => format!("the machine did not end by itself ({status})"),
            (Err(complaint), _) => complaint.to_string(),
        };
        let lines: Vec<String> = said.lines().map(|line| format!("    | {line}")).collect();
        let last = lines.len().saturating_sub(60);
        bail!(
            "Linux {}: {complaint}; all that it printed is in {}, and last\n{}",
            kernel.series,
            self.log.display(),
            lines.get(last..).unwrap_or_default().join("\n")
        );
    }
}

/// The kernel's release, if it is of the series and every test ended well.
fn judge(said: &str, series: &str) -> Result<String> {
    let told = |what: &str| {
        said.lines().find_map(|line| {
            // The first line stands behind what the firmware does to the screen.
            let (_, rest) = line.trim_end().split_once("KERNEL-TEST ")?;
            Some(rest.strip_prefix(what)?.strip_prefix(' ')?.to_owned())
        })
    };
    let release = told("release").context("it did not come up")?;
    ensure!(
        release.starts_with(&format!("{series}.")),
        "{release} came up"
    );
    for test in TESTS {
        match told(test).as_deref() {
            Some("0") => {}
            Some(code) => bail!("the test `{test}` failed (exit status {code})"),
            None => bail!("the test `{test}` did not end"),
        }
    }
    Ok(release)
}

/// Debian compresses modules since 6.12, and busybox loads none that are.
fn unpack_module(module: &Path, to: &Path) -> Result<()> {
    if module
        .extension()
        .is_some_and(|extension| extension == "ko")
    {
        fs::copy(module, to)?;
        return Ok(());
    }
    let status = Command::new("xz")
        .args(["--decompress", "--stdout"])
        .arg(module)
        .stdout(File::create(to)?)
        .status()?;
    ensure!(status.success(), "xz cannot unpack {}", module.display());
    Ok(())
}

/// Copies what the dynamic linker would load, to the same places.
fn copy_libraries(program: &Path, root: &Path) -> Result<()> {
    let output = Command::new("ldd").arg(program).output()?;
    for word in String::from_utf8_lossy(&output.stdout).split_whitespace() {
        let Some(inside) = word.strip_prefix('/') else {
            continue;
        };
        let place = root.join(inside);
        if !place.exists()
            && let Some(parent) = place.parent()
        {
            fs::create_dir_all(parent)?;
            fs::copy(word, &place).with_context(|| format!("cannot copy {word}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_ordered_by_number() {
        let names = [
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-50-cloud-amd64",
            "linux-image-6.1.0-47-cloud-amd64",
        ];
        assert_eq!(
            names.iter().max_by_key(|name| numbers(name)),
            Some(&names[1])
        );
    }

    #[test]
    fn a_guest_is_believed_only_when_it_says_that_every_test_passed() {
        let whole = "\x1b[2JKERNEL-TEST release 6.1.0-50-cloud-amd64\r\nKERNEL-TEST policy 0\r\nKERNEL-TEST calls 0\r\n";
        assert_eq!(judge(whole, "6.1").unwrap(), "6.1.0-50-cloud-amd64");
        for (said, series) in [
            ("", "6.1"),
            (whole, "6.12"),
            (&whole.replace("policy 0", "policy 101"), "6.1"),
            (&whole.replace("KERNEL-TEST calls 0", ""), "6.1"),
            (&whole.replace("calls 0", "calls 1"), "6.1"),
        ] {
            assert!(judge(said, series).is_err(), "{said}");
        }
    }
}
