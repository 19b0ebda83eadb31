//! What the kernel itself asks of who loads and attaches the programs: three capabilities, each of them, and nothing else. The systemd
//! unit gives exactly these.

use std::path::Path;

use anyhow::{Result, bail, ensure};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
use sipfilter_daemon::{
    config::{Config, XdpMode},
    shell::{datapath::Datapath, policy::KernelPolicy},
};
use sipfilter_tests::lab::{cleanup, namespace::Namespace};

use crate::Test;

const NEEDED: CapabilitySet = CapabilitySet::BPF
    .union(CapabilitySet::NET_ADMIN)
    .union(CapabilitySet::PERFMON);

const CONFIG: &str = "interfaces = [\"filtered0\"]\n[pbx]\npreset = \"asterisk\"\naddresses = [\"203.0.113.10\"]\n\
                      [[trunk]]\nprovider = \"vapi-us\"\n";

pub fn tests() -> Vec<Test> {
    [
        ("nothing", CapabilitySet::empty(), true),
        ("bpf", CapabilitySet::BPF, false),
        ("net_admin", CapabilitySet::NET_ADMIN, false),
        ("perfmon", CapabilitySet::PERFMON, false),
    ]
    .into_iter()
    .map(|(name, without, works)| {
        Test::new(
            format!("rights::of_the_three_the_kernel_asks_for_each::without_{name}"),
            move || with(NEEDED.difference(without), works),
        )
    })
    .collect()
}

/// Loads and attaches with these capabilities alone, on a thread of its own.
fn with(rights: CapabilitySet, works: bool) -> Result<()> {
    let namespace = Namespace::create(&cleanup::unique_name(), "rights")?;
    namespace.ip("link add filtered0 type veth peer name other0")?;
    let settings =
        Config::parse(Path::new("sipfilter.toml"), CONFIG)?.resolve(|_| no_interface())?;
    let policy = KernelPolicy::new(&settings);
    // With all rights first: what the loader finds out about the kernel it remembers for the whole process.
    Datapath::load(&policy, 64, None)?;
    let attached = namespace.enter(|| -> Result<()> {
        let sets = CapabilitySets {
            effective: rights,
            permitted: rights,
            inheritable: CapabilitySet::empty(),
        };
        set_capabilities(None, sets)?;
        Datapath::load(&policy, 64, None)?.attach("filtered0", XdpMode::Native)?;
        Ok(())
    })?;
    match attached {
        Err(error) if works => bail!("refused, although nothing is missing: {error:#}"),
        result => {
            ensure!(result.is_ok() == works, "it works with {rights:?} alone");
            Ok(())
        }
    }
}

/// The configuration names its addresses.
fn no_interface() -> std::io::Result<Vec<std::net::IpAddr>> {
    Err(std::io::ErrorKind::NotFound.into())
}
