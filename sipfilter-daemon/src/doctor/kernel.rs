//! The kernel: its version and what the programs need of it, and what this process may do.

use std::{fs, io, path::Path};

use super::Findings;
use crate::{
    shell::{pins::BPFFS, privileges},
    view::Check,
};

/// The oldest with the helpers that the programs use.
const OLDEST: (u32, u32) = (5, 18);
/// From here on a program of TC is attached by a link, which is replaced in one step.
const TCX: (u32, u32) = (6, 6);
const BTF: &str = "/sys/kernel/btf/vmlinux";
const JIT: &str = "/proc/sys/net/core/bpf_jit_enable";

pub(super) fn checks() -> Vec<Check> {
    let mut found = Findings::of("kernel");
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    version(&mut found, &release);
    if Path::new(BTF).exists() {
        found.ok("btf", format!("{BTF} is there"));
    } else {
        found.warning(
            "btf",
            format!("there is no {BTF}: the kernel was built without CONFIG_DEBUG_INFO_BTF"),
            "use the distribution's kernel; the programs may load without it",
        );
    }
    bpffs(
        &mut found,
        fs::read_to_string("/proc/mounts").ok().as_deref(),
    );
    match fs::read_to_string(JIT).as_deref().map(str::trim) {
        Ok("0") => found.warning(
            "jit",
            format!("{JIT} is 0: the programs are interpreted, several times slower"),
            "sysctl net.core.bpf_jit_enable=1",
        ),
        Ok(value) => found.ok("jit", format!("{JIT} is {value}")),
        Err(error) => no_jit(&mut found, error),
    }
    match privileges::check() {
        Ok(()) => found.ok(
            "capabilities",
            "this process may load and attach the programs",
        ),
        Err(missing) => found.unknown(
            "capabilities",
            format!(
                "{missing}; sipfilterd needs them, doctor does not, but sees less without root"
            ),
            "run doctor as root: it changes nothing",
        ),
    }
    found.checks
}

/// The setting is the machine's, and only its first network namespace shows it; a kernel without a compiler has none.
fn no_jit(found: &mut Findings, error: &io::Error) {
    found.unknown(
        "jit",
        format!("{JIT} cannot be read ({error}): a network namespace of its own, as containers have, does not show it"),
        "ask the machine itself, outside of the namespace or container: `sysctl net.core.bpf_jit_enable`, or `nsenter --target 1 --net sysctl \
         net.core.bpf_jit_enable`. 1 is right; 0 makes the programs several times slower: `sysctl net.core.bpf_jit_enable=1`. No such key there: the \
         kernel was built without CONFIG_BPF_JIT",
    );
}

fn version(found: &mut Findings, release: &str) {
    let mut numbers = release
        .split(|letter: char| !letter.is_ascii_digit())
        .map_while(|word| word.parse::<u32>().ok());
    let (Some(major), Some(minor)) = (numbers.next(), numbers.next()) else {
        return found.unknown(
            "kernel_version",
            format!("Linux {release}"),
            format!(
                "see that it is Linux {}.{} or later, better 6.6",
                OLDEST.0, OLDEST.1
            ),
        );
    };
    match (major, minor) {
        version if version < OLDEST => found.problem(
            "kernel_version",
            format!("Linux {release}: without the helpers that the programs use"),
            format!("Linux {}.{} or later, better 6.6", OLDEST.0, OLDEST.1),
        ),
        version if version < TCX => found.ok(
            "kernel_version",
            format!(
                "Linux {release}: ring buffers, bpf_loop; egress by clsact, for want of TCX (6.6)"
            ),
        ),
        _ => found.ok(
            "kernel_version",
            format!("Linux {release}: ring buffers, bpf_loop, TCX"),
        ),
    }
}

fn bpffs(found: &mut Findings, mounts: Option<&str>) {
    let Some(mounts) = mounts else {
        return found.unknown(
            "bpffs",
            "/proc/mounts cannot be read",
            format!("see that `findmnt {BPFFS}` shows a file system of type bpf; `mount -t bpf bpf {BPFFS}` mounts one"),
        );
    };
    let is_mounted = mounts.lines().any(|line| {
        let mut words = line.split_whitespace().skip(1);
        words.next() == Some(BPFFS) && words.next() == Some("bpf")
    });
    if is_mounted {
        found.ok("bpffs", format!("mounted at {BPFFS}"));
    } else {
        found.warning(
            "bpffs",
            format!("no BPF file system at {BPFFS}: nothing can outlive the daemon"),
            format!("mount -t bpf bpf {BPFFS}; systemd does it at boot, and sipfilterd tries to"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_told_by_what_they_have() {
        for (release, outcome, part) in [
            ("5.10.0-28-amd64", "problem", "5.18 or later"),
            ("5.18.0", "ok", "clsact"),
            ("6.1.0-18-amd64", "ok", "clsact"),
            ("6.6.1", "ok", "TCX"),
            ("7.0-rc1", "ok", "TCX"),
            ("custom", "unknown", "custom"),
        ] {
            let mut found = Findings::of("kernel");
            version(&mut found, release);
            let check = &found.checks[0];
            let text = format!("{} {:?}", check.evidence, check.remedy);
            assert_eq!(check.outcome, outcome, "{release}");
            assert!(text.contains(part), "{release}: {text}");
        }
    }

    #[test]
    fn a_bpf_file_system_is_one_only_in_its_place() {
        for (mounts, outcome) in [
            (Some("bpf /sys/fs/bpf bpf rw 0 0\n"), "ok"),
            (Some("none /run/bpf bpf rw 0 0\n"), "warning"),
            (Some("tmpfs /sys/fs/bpf tmpfs rw 0 0\n"), "warning"),
            (None, "unknown"),
        ] {
            let mut found = Findings::of("kernel");
            bpffs(&mut found, mounts);
            assert_eq!(found.checks[0].outcome, outcome, "{mounts:?}");
        }
    }
}
