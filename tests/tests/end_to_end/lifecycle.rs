//! Starting, stopping and refusing: what is attached when, two daemons side by side, and messages that say what to do.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use sipfilter_tests::lab::{
    address::Family,
    call::Role,
    daemon::{self, Daemon, Filter, Mode},
    namespace::join,
    sipp::{Answer, Cue, Progress},
    stage::Stage,
    topology::{Attachments, Network, OUTER, Topology},
};

use crate::Test;

const SECOND: &str = "outer1";

pub fn tests() -> Vec<Test> {
    vec![
        Test::new(
            "sigterm_leaves_nothing_attached",
            sigterm_leaves_nothing_attached,
        ),
        Test::new(
            "sigkill_leaves_nothing_attached_and_the_next_start_is_clean",
            start_after_sigkill,
        ),
        Test::new("a_restart_in_mid_call_loses_no_audio", restart_in_mid_call),
        Test::new("pinned_maps_are_read_without_a_daemon", maps_without_daemon),
        Test::new("two_daemons_filter_two_interfaces", two_daemons),
        Test::new("a_bad_configuration_attaches_nothing", bad_configuration),
        Test::new("without_privilege_it_says_what_it_needs", no_privilege),
    ]
}

fn routed() -> Result<Network> {
    Network::build(Topology::Routed, Family::V4, &[])
}

fn sigterm_leaves_nothing_attached() -> Result<()> {
    let network = routed()?;
    for mode in [Mode::Native, Mode::Generic] {
        nothing_attached(&network, OUTER)?;
        let daemon = Daemon::start(&network, mode)?;
        let attached = Attachments::on(&network.edge, OUTER)?;
        // bpftool calls the native mode by its place, the driver.
        let word = match mode {
            Mode::Native => "driver",
            Mode::Generic => "generic",
        };
        ensure!(
            attached.xdp.len() == 1 && attached.xdp[0].contains(word) && attached.egress == 1,
            "in {} mode {attached:?} is on {OUTER}",
            mode.name()
        );
        let status = daemon.stop(Signal::TERM)?;
        ensure!(status.success(), "sipfilterd ended with {status}");
        nothing_attached(&network, OUTER)?;
    }
    Ok(())
}

fn start_after_sigkill() -> Result<()> {
    let network = routed()?;
    Daemon::start(&network, Mode::Native)?.stop(Signal::KILL)?;
    // The kernel lets go of a dead process's links a moment later.
    std::thread::sleep(Duration::from_millis(500));
    nothing_attached(&network, OUTER)?;
    let daemon = Daemon::start(&network, Mode::Native)?;
    let attached = Attachments::on(&network.edge, OUTER)?;
    ensure!(
        attached.xdp.len() == 1 && attached.egress == 1,
        "one program of each kind belongs on {OUTER}: {attached:?}"
    );
    daemon.stop(Signal::TERM)?;
    nothing_attached(&network, OUTER)
}

/// The second daemon finds the pinholes of the first one's calls in the pinned maps.
fn restart_in_mid_call() -> Result<()> {
    for signal in [Signal::TERM, Signal::KILL] {
        let mut stage = Stage::set(routed()?, Filter::Sipfilter(Mode::Native), 2, 2)?;
        stage.place_calls(Answer::AtOnce, Progress::Established)?;
        let before = stage.pinholes()?;
        stage.talk(|_| true, 10)?;
        if let Some(daemon) = stage.daemon.take() {
            daemon.stop(signal)?;
        }
        stage.talk(|_| true, 10)?;
        stage.daemon = Some(Daemon::start(&stage.network, Mode::Native)?);
        stage.talk(|_| true, 10).with_context(|| {
            format!("after {signal:?} and a new start ({before} pinholes before)")
        })?;
    }
    Ok(())
}

/// `stats` and `maps dump` read the pinned maps.
fn maps_without_daemon() -> Result<()> {
    let network = routed()?;
    let daemon = Daemon::start(&network, Mode::Native)?;
    let runtime = daemon.runtime().to_path_buf();
    daemon.stop(Signal::KILL)?;
    for arguments in [&["stats", "--json"][..], &["maps", "dump", "--json"]] {
        let answer = daemon::ctl(network.edge.name(), &runtime, arguments)?;
        let empty = answer.as_array().is_some_and(Vec::is_empty)
            || answer.as_object().is_some_and(serde_json::Map::is_empty);
        ensure!(!empty, "{arguments:?} says nothing: {answer}");
    }
    Ok(())
}

fn two_daemons() -> Result<()> {
    let network = routed()?;
    join((&network.edge, SECOND), (&network.provider, "spare0"))?;
    let mut stage = Stage::set(network, Filter::Sipfilter(Mode::Native), 2, 2)?;
    let config = daemon::config(&stage.network, &[SECOND], Mode::Native);
    let second = Daemon::start_with(&stage.network, "second", &config)?;
    ensure!(
        !Attachments::on(&stage.network.edge, SECOND)?.is_empty(),
        "the second daemon is not on {SECOND}"
    );
    stage.place_calls(Answer::AtOnce, Progress::Established)?;
    ensure!(stage.pinholes()? > 0, "the first daemon sees no call");
    ensure!(
        second.pinholes()? == 0,
        "the second daemon opened pinholes for the first one's calls"
    );
    stage.talk(|_| true, 10)?;
    second.stop(Signal::TERM)?;
    nothing_attached(&stage.network, SECOND)?;
    ensure!(
        !Attachments::on(&stage.network.edge, OUTER)?.is_empty(),
        "stopping one daemon detached the other"
    );
    stage.talk(|_| true, 10)?;
    stage.cue(|_| true, Role::Caller, Cue::Proceed, Progress::Ended)?;
    let (sent, arrived) = stage.talk_after_the_end(|_| true)?;
    ensure!(
        sent > 0 && arrived == 0,
        "{arrived} of {sent} packets after BYE arrived"
    );
    Ok(())
}

fn bad_configuration() -> Result<()> {
    let network = routed()?;
    let good = daemon::config(&network, &[OUTER], Mode::Native);
    // What is put in the place of what, and the words that the message must hold: what is wrong, and what would be right.
    network.edge.ip("tuntap add tunnel0 mode tun")?;
    let cases: [(&str, &str, &str, &[&str]); 6] = [
        (
            "unknown-key",
            "rtp_ports =",
            "rtp_portz =",
            &["rtp_portz", "rtp_ports"],
        ),
        (
            "bad-prefix",
            "198.51.100.10/32",
            "198.51.100.10/33",
            &["198.51.100.10/33"],
        ),
        (
            "unknown-provider",
            "provider = \"lab\"",
            "provider = \"lob\"",
            &["lob"],
        ),
        (
            "reversed-range",
            "10000-20000",
            "20000-10000",
            &["20000-10000"],
        ),
        ("missing-interface", "\"outer0\"", "\"outer9\"", &["outer9"]),
        (
            "tunnel",
            "\"outer0\"",
            "\"tunnel0\"",
            &["tunnel0", "Ethernet"],
        ),
    ];
    for (name, right, wrong, words) in cases {
        ensure!(
            good.contains(right),
            "{name}: the lab's configuration has no `{right}`"
        );
        let (status, log) = Daemon::refused(&network, name, &good.replacen(right, wrong, 1))?;
        ensure!(!status.success(), "{name}: sipfilterd ended well");
        for word in words {
            ensure!(
                log.contains(word),
                "{name}: the message does not say `{word}`:\n{log}"
            );
        }
        ensure!(!log.contains("panicked"), "{name}: {log}");
        nothing_attached(&network, OUTER)?;
    }
    Ok(())
}

fn no_privilege() -> Result<()> {
    let network = routed()?;
    let config = daemon::config(&network, &[OUTER], Mode::Native);
    let (status, log) = Daemon::refused_without_privilege(&network, "nobody", &config)?;
    ensure!(
        !status.success(),
        "sipfilterd ended well without privileges"
    );
    ensure!(
        ["root", "CAP_NET_ADMIN"]
            .iter()
            .any(|word| log.contains(word)),
        "the message does not say which privilege is missing:\n{log}"
    );
    nothing_attached(&network, OUTER)
}

fn nothing_attached(network: &Network, interface: &str) -> Result<()> {
    let attached = Attachments::on(&network.edge, interface)?;
    ensure!(
        attached.is_empty(),
        "still attached to {interface}: {attached:?}"
    );
    Ok(())
}
