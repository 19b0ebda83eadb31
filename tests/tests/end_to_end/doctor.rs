//! `sipfilterctl doctor` in namespaces that are set up wrong on purpose: each mistake is named, and a host without one gets no complaint.

use std::{
    fs,
    net::{Ipv4Addr, UdpSocket},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use sipfilter_tests::lab::{
    address::Family,
    daemon::{self, Daemon, Mode},
    topology::{Network, OUTER, Topology},
};

use crate::Test;

pub fn tests() -> Vec<Test> {
    vec![Test::new("doctor_names_what_is_set_up_wrong", doctor)]
}

struct Host {
    network: Network,
    config: String,
}

impl Host {
    /// What doctor says of this configuration.
    fn doctor(&self, config: &str, runtime: &str, more: &[&str]) -> Result<Value> {
        let directory = self.network.directory.path();
        let file = directory.join("doctor.toml");
        fs::write(&file, config)?;
        let file = file.to_str().context("a path")?;
        let nowhere = directory.join("no-asterisk");
        let mut arguments = vec!["doctor", "--json", "--config", file];
        if more.is_empty() {
            arguments.extend(["--asterisk", nowhere.to_str().context("a path")?]);
        }
        arguments.extend(more);
        let answer = daemon::ctl(
            self.network.edge.name(),
            &directory.join(runtime),
            &arguments,
        )?;
        // Whatever is not as it should be, or could not be looked at, says what to do.
        for check in answer["checks"].as_array().into_iter().flatten() {
            let remedy = check["remedy"].as_str().unwrap_or_default();
            ensure!(
                check["outcome"] == "ok" || !remedy.is_empty(),
                "no remedy: {check:#}"
            );
        }
        Ok(answer)
    }

    fn expect(&self, config: &str, code: &str, outcome: &str, evidence: &str) -> Result<()> {
        said(&self.doctor(config, "none", &[])?, code, outcome, evidence)
    }
}

/// A check of that name came out like that, and says this.
fn said(answer: &Value, code: &str, outcome: &str, evidence: &str) -> Result<()> {
    let found = answer["checks"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|check| {
            check["code"] == code
                && check["outcome"] == outcome
                && check["evidence"]
                    .as_str()
                    .is_some_and(|text| text.contains(evidence))
                && (outcome == "ok" || check["remedy"].is_string())
        });
    ensure!(found, "no {outcome} {code:?} with {evidence:?}: {answer:#}");
    Ok(())
}

fn doctor() -> Result<()> {
    let network = Network::build(Topology::Routed, Family::V4, &[])?;
    let config = daemon::config(&network, &[OUTER], Mode::Native);
    let host = Host { network, config };
    let edge = &host.network.edge;
    let good = host.config.clone();
    let interfaces = format!("interfaces = [\"{OUTER}\"]");
    ensure!(
        good.contains(&interfaces),
        "the lab's configuration has changed: {good}"
    );
    let addresses = good
        .lines()
        .find(|line| line.starts_with("addresses"))
        .context("the PBX's addresses")?
        .to_owned();

    let answer = host.doctor(&good, "none", &[])?;
    ensure!(
        answer["outcome"] != "problem",
        "nothing is wrong here: {answer:#}"
    );
    said(&answer, "protected_addresses", "ok", "is behind this host")?;
    said(&answer, "other_xdp", "ok", "no XDP program")?;
    said(&answer, "running", "warning", "not running")?;
    // A namespace does not show the machine's settings.
    said(&answer, "jit", "unknown", "a network namespace of its own")?;

    let missing = good.replace(&interfaces, "interfaces = [\"nosuch0\"]");
    host.expect(&missing, "exists", "problem", "nosuch0")?;
    let elsewhere = good.replace(&addresses, "addresses = [\"198.51.100.200\"]");
    host.expect(
        &elsewhere,
        "protected_addresses",
        "problem",
        "leads out of outer0",
    )?;
    host.expect("interfaces = [", "config", "problem", "cannot be used")?;

    edge.sysctl("net.ipv4.ip_forward=0")?;
    host.expect(&good, "protected_addresses", "problem", "does not forward")?;
    edge.sysctl("net.ipv4.ip_forward=1")?;
    edge.sysctl("net.ipv4.ip_local_port_range=15000 60999")?;
    host.expect(&good, "ephemeral_ports", "warning", "15000-60999")?;
    edge.sysctl("net.ipv4.ip_local_port_range=32768 60999")?;
    edge.sysctl("net.ipv4.conf.all.rp_filter=1")?;
    edge.ip("link add second0 type veth peer name second1")?;
    let two = good.replace(
        &interfaces,
        &format!("interfaces = [\"{OUTER}\", \"second0\"]"),
    );
    host.expect(&two, "rp_filter", "warning", "strict reverse-path")?;
    edge.sysctl("net.ipv4.conf.all.rp_filter=0")?;
    let other = good.replace(&interfaces, "interfaces = [\"second0\"]");
    host.expect(&other, "way_out", "warning", "not filtered")?;

    pbx_on_this_host(&host, &good, &addresses)?;
    asterisk(&host, &good)?;

    // Its programs are another instance's for whoever asks by another runtime directory.
    let daemon = Daemon::start_with(&host.network, "ours", &good)?;
    host.expect(&good, "other_xdp", "problem", "somebody else")?;
    let runtime = daemon.runtime().file_name().and_then(|name| name.to_str());
    let answer = host.doctor(&good, runtime.context("a name")?, &[])?;
    said(&answer, "other_xdp", "ok", "is ours")?;
    said(&answer, "running", "ok", "runs")?;
    said(&answer, "xdp_mode", "ok", "attached in native mode")
}

/// The PBX's address is the edge's own, and private; nothing listens there, but for a program that is no PBX.
fn pbx_on_this_host(host: &Host, good: &str, addresses: &str) -> Result<()> {
    let edge = &host.network.edge;
    edge.ip("address add 10.99.0.1/32 dev second0")?;
    let here = good.replace(addresses, "addresses = [\"10.99.0.1\"]");
    let _stranger = edge.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 10_500)))??;
    let answer = host.doctor(&here, "none", &[])?;
    said(&answer, "nat", "warning", "10.99.0.1 is private")?;
    said(
        &answer,
        "sip_sockets",
        "problem",
        "nothing on this host listens",
    )?;
    said(&answer, "media_ports_used", "warning", "0.0.0.0:10500")
}

fn asterisk(host: &Host, good: &str) -> Result<()> {
    let directory = host.network.directory.path().join("asterisk");
    fs::create_dir(&directory)?;
    let at = directory.to_str().context("a path")?;
    for (conf, outcome) in [
        ("[general]\nrtpstart=10000\nrtpend=20000\n", "ok"),
        ("[general]\nrtpstart=16384\nrtpend=32767\n", "problem"),
    ] {
        fs::write(directory.join("rtp.conf"), conf)?;
        let answer = host.doctor(good, "none", &["--asterisk", at])?;
        said(&answer, "pbx_range", outcome, "rtp.conf")?;
    }
    Ok(())
}
