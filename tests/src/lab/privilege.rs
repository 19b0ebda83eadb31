//! Whether this machine lets the lab run at all: root's privileges and the programs that it uses.

use anyhow::{Result, bail};

use super::{cleanup, namespace::Namespace};

/// What the lab starts, and the Debian package that brings it.
const PROGRAMS: [(&str, &str); 10] = [
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("ethtool", "ethtool"),
    ("sipp", "sip-tester"),
    ("baresip", "baresip-core"),
    ("kamailio", "kamailio"),
    ("ss", "iproute2"),
    ("bpftool", "bpftool"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
];

/// Finds out whether a lab can be built.
///
/// # Errors
/// With everything that is missing and how to come by it.
pub fn check() -> Result<()> {
    let mut missing = Vec::new();
    for (program, package) in PROGRAMS {
        if !installed(program) {
            missing.push(format!(
                "{program} is not in PATH (apt-get install {package})"
            ));
        }
    }
    if !missing.is_empty() {
        bail!("{}", missing.join("; "));
    }
    if !rustix::process::geteuid().is_root() {
        bail!("network namespaces need root: run as root, or with sudo");
    }
    // Root in a container may still be refused.
    cleanup::prepare();
    Namespace::create(&cleanup::unique_name(), "probe").map(drop)
}

fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}
