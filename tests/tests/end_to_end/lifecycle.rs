//! Starting, stopping and refusing: what is attached when, two daemons side by side, and messages that say what to do.

use std::time::{Duration, Instant};

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
            "sigkill_leaves_the_filter_attached_and_the_next_start_takes_it_over",
            start_after_sigkill,
        ),
        Test::new(
            "a_stopped_filter_stays_attached_where_the_configuration_says_so",
            stop_that_keeps,
        ),
        Test::new(
            "every_signal_leaves_what_the_configuration_says",
            every_signal,
        ),
        Test::new(
            "a_stop_and_a_start_in_mid_call_lose_no_audio",
            stop_in_mid_call,
        ),
        Test::new(
            "no_death_of_the_daemon_loses_audio_or_lets_strangers_in",
            deaths_in_mid_call,
        ),
        Test::new(
            "calls_end_and_move_after_the_daemon_that_saw_them_begin",
            calls_older_than_the_daemon,
        ),
        Test::new(
            "another_policy_and_size_at_the_next_start_keep_the_calls",
            changed_policy,
        ),
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
    for mode in [Mode::Native, Mode::Generic] {
        let daemon = Daemon::start(&network, mode)?;
        daemon.stop(Signal::KILL)?;
        // The kernel lets go of a dead process's descriptors a moment later.
        std::thread::sleep(Duration::from_millis(500));
        Attachments::one_of_each(&network.edge, OUTER)?;
        let daemon = Daemon::start(&network, mode)?;
        Attachments::one_of_each(&network.edge, OUTER)?;
        daemon.stop(Signal::TERM)?;
        nothing_attached(&network, OUTER)?;
    }
    Ok(())
}

fn stop_that_keeps() -> Result<()> {
    let network = routed()?;
    let config = daemon::config(&network, &[OUTER], Mode::Native);
    let keeping = format!("on_stop = \"keep\"\n{config}");
    let daemon = Daemon::start_with(&network, "sipfilter", &keeping)?;
    let runtime = daemon.runtime().to_path_buf();
    daemon.stop(Signal::TERM)?;
    Attachments::one_of_each(&network.edge, OUTER)?;
    let ctl = |word| daemon::ctl(network.edge.name(), &runtime, &[word, "--json"]);
    let answer = ctl("detach")?;
    ensure!(
        answer["detached"] == serde_json::json!([OUTER]),
        "detach says {answer}"
    );
    nothing_attached(&network, OUTER)
}

/// Also where the configuration says so since a reload only.
fn every_signal() -> Result<()> {
    let network = routed()?;
    let config = daemon::config(&network, &[OUTER], Mode::Native);
    let written = |on_stop: &str| format!("on_stop = \"{on_stop}\"\n{config}");
    for (at_start, in_the_end, signal, stays) in [
        ("detach", "detach", Signal::INT, false),
        ("keep", "keep", Signal::INT, true),
        ("detach", "detach", Signal::TERM, false),
        ("keep", "keep", Signal::TERM, true),
        // A restart keeps in any case.
        ("detach", "detach", Signal::USR2, true),
        ("detach", "keep", Signal::TERM, true),
        ("keep", "detach", Signal::TERM, false),
    ] {
        let daemon = Daemon::start_with(&network, "sipfilter", &written(at_start))?;
        if in_the_end != at_start {
            let answer = daemon.reload(&written(in_the_end))?;
            ensure!(answer["ok"] == serde_json::json!(true), "{answer}");
        }
        Attachments::one_of_each(&network.edge, OUTER)?;
        let status = daemon.stop(signal)?;
        ensure!(
            status.success(),
            "{signal:?}: sipfilterd ended with {status}"
        );
        // The kernel lets go of a link a moment after its last name.
        std::thread::sleep(Duration::from_millis(300));
        let left = match stays {
            true => Attachments::one_of_each(&network.edge, OUTER),
            false => nothing_attached(&network, OUTER),
        };
        left.with_context(|| format!("{signal:?} after on_stop = {at_start}, then {in_the_end}"))?;
    }
    Ok(())
}

/// While it is stopped nothing is filtered; the second daemon finds the pinholes of the first one's calls.
fn stop_in_mid_call() -> Result<()> {
    let mut stage = Stage::set(routed()?, Filter::Sipfilter(Mode::Native), 2, 2)?;
    stage.place_calls(Answer::AtOnce, Progress::Established)?;
    stage.talk(|_| true, 10)?;
    if let Some(daemon) = stage.daemon.take() {
        daemon.stop(Signal::TERM)?;
    }
    nothing_attached(&stage.network, OUTER)?;
    stage.talk(|_| true, 10)?;
    stage.daemon = Some(Daemon::start(&stage.network, Mode::Native)?);
    stage.talk(|_| true, 10).context("after a stop and a start")
}

fn deaths_in_mid_call() -> Result<()> {
    let mut stage = Stage::set(routed()?, Filter::Sipfilter(Mode::Native), 4, 4)?;
    stage.place_calls(Answer::AtOnce, Progress::Established)?;
    let before = stage.pinholes()?;
    for signal in [Signal::KILL, Signal::USR2, Signal::ABORT] {
        let through = stage
            .talk_through(|network, daemon| {
                daemon.context("no daemon")?.stop(signal)?;
                std::thread::sleep(Duration::from_millis(300));
                Daemon::start(network, Mode::Native)
            })
            .with_context(|| format!("{signal:?} and a new start"))?;
        ensure!(
            through.sent > 0 && through.strangers_sent > 0,
            "nobody sent anything"
        );
        let after = stage.pinholes()?;
        ensure!(
            after == before,
            "{before} pinholes before {signal:?}, {after} after it"
        );
        Attachments::one_of_each(&stage.network.edge, OUTER)?;
    }
    Ok(())
}

fn calls_older_than_the_daemon() -> Result<()> {
    let mut stage = Stage::set(routed()?, Filter::Sipfilter(Mode::Native), 2, 2)?;
    stage.place_calls(Answer::AtOnce, Progress::Established)?;
    restart(&mut stage)?;
    stage.hang_up()
}

/// Another provider in front (other numbers), and room for fewer pinholes; then the provider goes.
fn changed_policy() -> Result<()> {
    let mut stage = Stage::set(routed()?, Filter::Sipfilter(Mode::Native), 2, 2)?;
    stage.place_calls(Answer::AtOnce, Progress::Established)?;
    let before = stage.pinholes()?;
    let config = daemon::config(&stage.network, &[OUTER], Mode::Native);
    let other = "[[provider]]\nname = \"other\"\nsignalling = [\"203.0.113.200/32\"]\nmedia = { source = \"signalled\", ports = \"40000-60000\" }\n";
    let changed = config.replacen(
        "[[trunk]]",
        &format!(
            "{other}\n[limits]\npinholes = 1000\n\n[[trunk]]\nprovider = \"other\"\n\n[[trunk]]"
        ),
        1,
    );
    stage.talk_through(|network, daemon| {
        daemon.context("no daemon")?.stop(Signal::KILL)?;
        Daemon::start_with(network, "sipfilter", &changed)
    })?;
    ensure!(
        stage.pinholes()? == before,
        "the other policy lost pinholes"
    );
    if let Some(daemon) = stage.daemon.take() {
        daemon.stop(Signal::USR2)?;
    }
    let without = config.replace("\"lab\"", "\"other\"");
    stage.daemon = Some(Daemon::start_with(&stage.network, "sipfilter", &without)?);
    ensure!(
        stage.pinholes()? == 0,
        "the provider is gone, its pinholes are not"
    );
    Ok(())
}

fn restart(stage: &mut Stage) -> Result<()> {
    if let Some(daemon) = stage.daemon.take() {
        daemon.stop(Signal::KILL)?;
    }
    stage.daemon = Some(Daemon::start(&stage.network, Mode::Native)?);
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
    // The kernel lets go of a link a moment after its last name.
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        let attached = Attachments::on(&network.edge, interface)?;
        if attached.is_empty() {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "still attached to {interface}: {attached:?}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}
