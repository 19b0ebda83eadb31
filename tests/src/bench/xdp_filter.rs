//! xdp-filter of the xdp-tools, loaded as its user would: on an interface of a namespace of ours, with its own command.

use std::process::Command;

use anyhow::{Context as _, Result};
use aya::programs::{ProgramInfo, loaded_programs};
use serde_json::Value;

use super::programs::Timed;
use crate::lab::{
    cleanup,
    namespace::{self, Namespace},
};

/// Loads it with these features (`--features`), refusing everything but these UDP destination ports, and hands the program out. Its
/// own pinned maps and its lock lie in file systems that go with the command, so that several runs, and an xdp-filter in earnest, keep apart.
///
/// # Errors
/// Where xdp-filter is missing or refuses.
pub fn load(features: &str, ports: &[u16]) -> Result<Timed> {
    let lab = cleanup::unique_name();
    let (one, other) = (
        Namespace::create(&lab, "filter")?,
        Namespace::create(&lab, "peer")?,
    );
    namespace::join((&one, "filtered"), (&other, "peer"))?;
    let mut script = format!(
        "set -e; mount -t bpf bpf /sys/fs/bpf; mount -t tmpfs tmpfs /run; \
         xdp-filter load --mode native --policy deny --features {features} filtered"
    );
    for port in ports {
        script += &format!("; xdp-filter port --proto udp --mode dst {port}");
    }
    namespace::run(
        one.command("unshare")
            .args(["--mount", "sh", "-c", &script]),
    )
    .context("xdp-filter (of the Debian package xdp-tools) did not load")?;
    let shown = namespace::run(Command::new("ip").args([
        "-n",
        one.name(),
        "-json",
        "link",
        "show",
        "filtered",
    ]))?;
    let shown: Value = serde_json::from_str(&shown)?;
    let id = shown
        .pointer("/0/xdp/prog/id")
        .and_then(Value::as_u64)
        .with_context(|| format!("no XDP program in {shown}"))?;
    // The namespaces go now; the program stays for as long as somebody holds it.
    Timed::xdp(by_id(u32::try_from(id)?)?)
}

fn by_id(id: u32) -> Result<ProgramInfo> {
    loaded_programs()
        .filter_map(Result::ok)
        .find(|program| program.id() == id)
        .with_context(|| format!("program {id} is gone"))
}
