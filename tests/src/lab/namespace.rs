//! One network namespace: made under a unique name, entered by threads or by programs, deleted on drop.
//!
//! Programs enter by `nsenter`, not by `ip netns exec`, which mounts a fresh /sys and thereby hides the BPF file system.

use std::{
    fs::File,
    os::fd::AsFd as _,
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::cleanup;

/// A network namespace that this process made.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes the namespace with its loopback up, reverse-path filters off and no IPv6 router discovery.
    ///
    /// # Errors
    /// Without root's privileges, or where `ip` is missing.
    pub fn create(lab: &str, role: &str) -> Result<Self> {
        let name = format!("{lab}-{role}");
        cleanup::register_namespace(&name);
        run(Command::new("ip").args(["netns", "add", &name]))
            .context("cannot make a network namespace: run as root, with iproute2 installed")?;
        let this = Self { name };
        this.ip("link set lo up")?;
        for scope in ["all", "default"] {
            this.sysctl(&format!("net.ipv4.conf.{scope}.rp_filter=0"))?;
            this.sysctl(&format!("net.ipv6.conf.{scope}.accept_ra=0"))?;
            this.sysctl(&format!("net.ipv6.conf.{scope}.accept_dad=0"))?;
        }
        Ok(this)
    }

    /// Its name, as `ip netns` shows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A program to be run inside; it is killed when the thread that starts it ends.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{}", self.name))
            .args(["setpriv", "--pdeathsig", "KILL", "--", program]);
        command
    }

    /// Runs `ip` on this namespace; the arguments are split at white space.
    ///
    /// # Errors
    /// With what `ip` says.
    pub fn ip(&self, arguments: &str) -> Result<()> {
        run(Command::new("ip")
            .args(["-n", &self.name])
            .args(arguments.split_whitespace()))
        .map(drop)
    }

    /// Sets one `key=value` of the kernel's per-namespace settings.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn sysctl(&self, setting: &str) -> Result<()> {
        let (key, value) = setting
            .split_once('=')
            .ok_or_else(|| anyhow!("`{setting}` is not key=value"))?;
        let path = format!("/proc/sys/{}", key.replace('.', "/"));
        self.enter(|| std::fs::write(&path, value))?
            .with_context(|| format!("cannot write {value} to {path}"))
    }

    /// Runs `body` on a thread of its own inside; sockets that it makes stay in this namespace wherever they are used.
    ///
    /// # Errors
    /// Where the namespace cannot be entered.
    pub fn enter<T: Send>(&self, body: impl FnOnce() -> T + Send) -> Result<T> {
        let path = format!("/run/netns/{}", self.name);
        let file = File::open(&path).with_context(|| format!("cannot open {path}"))?;
        thread::scope(|scope| {
            let handle = scope.spawn(move || -> Result<T> {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                    .context("cannot enter the namespace")?;
                Ok(body())
            });
            match handle.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        cleanup::remove_namespace(&self.name);
    }
}

/// Joins two namespaces by a veth pair, with every offload off, so that a packet on the wire is a packet as it was sent: no merged
/// segments, no checksums and no VLAN tags left to hardware that is not there.
///
/// # Errors
/// Where `ip` or `ethtool` fails.
pub fn join(one: (&Namespace, &str), other: (&Namespace, &str)) -> Result<()> {
    run(Command::new("ip").args([
        "link",
        "add",
        one.1,
        "netns",
        one.0.name(),
        "type",
        "veth",
        "peer",
        "name",
        other.1,
        "netns",
        other.0.name(),
    ]))?;
    for (namespace, interface) in [one, other] {
        bare(namespace, interface)?;
    }
    Ok(())
}

/// Takes every offload off an interface, and brings it up.
///
/// # Errors
/// Where `ip` or `ethtool` fails.
pub fn bare(namespace: &Namespace, interface: &str) -> Result<()> {
    run(namespace.command("ethtool").args([
        "-K", interface, "rx", "off", "tx", "off", "gso", "off", "tso", "off", "gro", "off",
    ]))?;
    namespace.ip(&format!("link set {interface} up"))
}

/// Runs a command to its end and gives its standard output.
///
/// # Errors
/// Where it cannot be started or does not succeed; the message carries its standard error.
pub fn run(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}").replace('"', "");
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {shown}"))?;
    if !output.status.success() {
        bail!(
            "{shown}: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
