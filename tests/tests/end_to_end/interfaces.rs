//! Interfaces that go down, are called otherwise, vanish and come back, while calls talk over them.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::programs::xdp::XdpMode;
use rustix::process::Signal;
use serde_json::{Value, json};
use sipfilter_daemon::shell::interface;
use sipfilter_tests::bench::programs::Programs;
use sipfilter_tests::lab::{
    address::Family,
    call::Direction,
    daemon::{self, Daemon, Filter, Mode},
    namespace::{join, run},
    sipp::{Answer, Progress},
    stage::Stage,
    topology::{Attachments, Network, OUTER, Topology},
};

use crate::Test;

pub const SECOND: &str = "outer1";
const OTHER: &str = "wan0";
const PATIENCE: Duration = Duration::from_secs(20);
/// An interface that is there again is filtered within that time; on an idle machine it takes milliseconds.
const UNFILTERED: Duration = Duration::from_secs(2);

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("interfaces::down_and_up_costs_no_call", down_and_up),
        Test::new(
            "interfaces::one_that_is_renamed_stays_filtered_until_the_configuration_says_otherwise",
            renamed,
        ),
        Test::new(
            "interfaces::one_that_is_made_again_is_filtered_at_once",
            made_again,
        ),
        Test::new(
            "interfaces::one_that_is_made_again_with_the_same_number_is_filtered",
            made_again_alike,
        ),
        Test::new(
            "interfaces::one_that_is_gone_keeps_no_other_from_being_filtered",
            several,
        ),
        Test::new(
            "interfaces::one_that_is_not_there_yet_keeps_no_other_from_being_filtered",
            awaited,
        ),
        Test::new(
            "interfaces::another_xdp_program_is_named_with_the_way_out",
            occupied,
        ),
        Test::new(
            "interfaces::one_that_comes_back_with_another_xdp_program_is_filtered_once_that_is_gone",
            comes_back_occupied,
        ),
    ]
}

fn stage() -> Result<(Stage, String)> {
    let network = Network::build(Topology::Routed, Family::V4, &[])?;
    let mut stage = Stage::set(network, Filter::Sipfilter(Mode::Native), 2, 2)?;
    let config = daemon::config(&stage.network, &[OUTER], Mode::Native);
    stage.place(Direction::Inbound, Answer::AtOnce, Progress::Established)?;
    Ok((stage, config))
}

fn down_and_up() -> Result<()> {
    let (mut stage, _) = stage()?;
    for _ in 0..3 {
        stage.network.edge.ip(&format!("link set {OUTER} down"))?;
        is_filtered(&stage.network, OUTER)?;
        sleep(Duration::from_millis(300));
        stage.network.edge.ip(&format!("link set {OUTER} up"))?;
        is_filtered(&stage.network, OUTER)?;
    }
    works(&mut stage, OUTER)?;
    ensure!(shown(&stage, OUTER)?["state"] == json!("filtered"));
    stage.hang_up()
}

fn renamed() -> Result<()> {
    let (mut stage, config) = stage()?;
    stage.place(Direction::Outbound, Answer::AtOnce, Progress::Established)?;
    let before = stage.pinholes()?;
    for (from, to) in [(OUTER, OTHER), (OTHER, OUTER), (OUTER, OTHER)] {
        stage
            .talk_through(|network, daemon| {
                let daemon = daemon.context("no daemon")?;
                let said = daemon.log().len();
                network.edge.ip(&format!("link set {from} name {to}"))?;
                let words = match to {
                    OTHER => "stays filtered",
                    _ => "was filtered all the time",
                };
                daemon.wait_for(said, words)?;
                Ok(daemon)
            })
            .with_context(|| format!("{from} renamed {to}"))?;
        is_filtered(&stage.network, to)?;
    }
    let now = shown(&stage, OUTER)?;
    ensure!(
        now["state"] == json!("renamed") && now["now_called"] == json!(OTHER),
        "{now}"
    );
    let metrics = crate::eyes::scrape(&stage.network.edge)?;
    ensure!(
        metrics.contains("sipfilter_interface_filtered{interface=\"outer0\"} 1"),
        "{metrics}"
    );
    // What is reloaded reaches the one that it no longer names by its name, in maps of another size.
    let other_size = config.replacen("[xdp]", "[limits]\npinholes = 1000\n\n[xdp]", 1);
    let other_name = other_size.replacen("\"outer0\"", "\"wan0\"", 1);
    for changed in [&other_size, &other_name] {
        stage.talk_through(|_, daemon| {
            let daemon = daemon.context("no daemon")?;
            let answer = daemon.reload(changed)?;
            ensure!(answer["ok"] == json!(true), "{answer}");
            Ok(daemon)
        })?;
        is_filtered(&stage.network, OTHER)?;
        ensure!(stage.pinholes()? == before, "pinholes were lost");
    }
    ensure!(shown(&stage, OTHER)?["state"] == json!("filtered"));
    stage.hang_up()
}

fn made_again() -> Result<()> {
    let (mut stage, _) = stage()?;
    let before = stage.pinholes()?;
    for _ in 0..2 {
        let daemon = stage.daemon.as_ref().context("no daemon")?;
        let said = daemon.log().len();
        stage.network.delete_outer()?;
        daemon.wait_for(said, "the interface is gone")?;
        ensure!(shown(&stage, OUTER)?["state"] == json!("gone"));
        let metrics = crate::eyes::scrape(&stage.network.edge)?;
        ensure!(
            metrics.contains("sipfilter_interface_filtered{interface=\"outer0\"} 0"),
            "{metrics}"
        );
        stage.network.make_outer(None)?;
        soon_filtered(&stage.network, OUTER)?;
        daemon.wait_for(said, "there again: filtered")?;
        // The programs know the interface's number, so that others are loaded.
        daemon.wait_for(said, "reloaded")?;
        stage.network.connect_outer()?;
        ensure!(stage.pinholes()? == before, "pinholes were lost");
        let status = stage
            .daemon
            .as_ref()
            .context("no daemon")?
            .ctl(&["status", "--json"])?;
        ensure!(
            status["daemon"]["routes_changed"] == json!(false)
                && status["daemon"]["interfaces"][0]["state"] == json!("filtered"),
            "{status}"
        );
    }
    works(&mut stage, OUTER)?;
    stage.hang_up()
}

/// Nothing that is asked for afterwards tells the new one from the old one.
fn made_again_alike() -> Result<()> {
    let (mut stage, _) = stage()?;
    let index = stage
        .network
        .edge
        .enter(|| interface::index(OUTER))?
        .context("no index")?
        .0;
    stage.network.delete_outer()?;
    stage.network.make_outer(Some(index))?;
    soon_filtered(&stage.network, OUTER)?;
    stage.network.connect_outer()?;
    works(&mut stage, OUTER)?;
    stage.hang_up()
}

fn several() -> Result<()> {
    let (mut stage, config) = stage()?;
    join(
        (&stage.network.edge, SECOND),
        (&stage.network.provider, "spare0"),
    )?;
    let both = config.replacen("\"outer0\"", "\"outer0\", \"outer1\"", 1);
    let answer = stage.daemon.as_ref().context("no daemon")?.reload(&both)?;
    ensure!(answer["ok"] == json!(true), "{answer}");
    let daemon = stage.daemon.as_ref().context("no daemon")?;
    let said = daemon.log().len();
    stage.network.edge.ip(&format!("link delete {SECOND}"))?;
    daemon.wait_for(said, "the interface is gone")?;
    stage.network.delete_outer()?;
    stage.network.make_outer(None)?;
    soon_filtered(&stage.network, OUTER)?;
    stage.network.connect_outer()?;
    works(&mut stage, OUTER)?;
    // One that was there is waited for; one that never was is a mistake.
    let daemon = stage.daemon.as_ref().context("no daemon")?;
    let answer = daemon.reload(&format!("{both}\n[limits]\ncalls = 77\n"))?;
    ensure!(
        answer["ok"] == json!(true) && answer["warnings"].to_string().contains(SECOND),
        "{answer}"
    );
    let wrong = daemon.reload(&both.replacen(SECOND, "outer9", 1))?;
    ensure!(
        wrong["ok"] == json!(false) && wrong["errors"].to_string().contains("outer9"),
        "{wrong}"
    );
    ensure!(shown(&stage, SECOND)?["state"] == json!("gone"));
    join(
        (&stage.network.edge, SECOND),
        (&stage.network.provider, "spare0"),
    )?;
    soon_filtered(&stage.network, SECOND)?;
    stage.hang_up()
}

/// A card that comes up late, or a name that is misspelt.
fn awaited() -> Result<()> {
    let network = Network::build(Topology::Routed, Family::V4, &[])?;
    let config = daemon::config(&network, &[SECOND, OUTER], Mode::Native);
    let none = daemon::config(&network, &[SECOND, "outer9"], Mode::Native);
    let (status, log) = Daemon::refused(&network, "sipfilter", &none)?;
    // Not as a wrong configuration, so that the unit's next attempt may find one.
    ensure!(status.code() == Some(1), "it ended with {status}: {log}");
    ensure!(
        log.contains(SECOND) && log.contains("does not exist"),
        "{log}"
    );

    let daemon = Daemon::start_with(&network, "sipfilter", &config)?;
    let mut stage = Stage::behind(Some(daemon), network, 2, 2)?;
    stage.place(Direction::Inbound, Answer::AtOnce, Progress::Established)?;
    let daemon = stage.daemon.as_ref().context("no daemon")?;
    let log = daemon.log();
    let warning = log
        .lines()
        .find(|line| line.contains("there is no such interface"));
    ensure!(warning.is_some_and(|line| line.contains(SECOND)), "{log}");
    ensure!(shown(&stage, OUTER)?["state"] == json!("filtered"));
    let second = shown(&stage, SECOND)?;
    ensure!(
        second["state"] == json!("awaited") && second["mode"] == json!("none"),
        "{second}"
    );
    let metrics = crate::eyes::scrape(&stage.network.edge)?;
    for line in [
        "sipfilter_interface_filtered{interface=\"outer0\"} 1",
        "sipfilter_interface_filtered{interface=\"outer1\"} 0",
    ] {
        ensure!(metrics.contains(line), "no {line} in\n{metrics}");
    }
    let file = daemon.file().display().to_string();
    let checkup = daemon.ctl(&["doctor", "--json", "--config", &file])?;
    let checks = checkup["checks"].as_array().context("no checks")?;
    ensure!(
        checks
            .iter()
            .any(|check| check["subject"] == "interface outer1"
                && check["code"] == "exists"
                && check["outcome"] == "problem"),
        "{checkup:#}"
    );
    let again = daemon.reload(&format!("{config}\n[limits]\ncalls = 77\n"))?;
    ensure!(
        again["ok"] == json!(true) && again["warnings"].to_string().contains(SECOND),
        "{again}"
    );

    join(
        (&stage.network.edge, SECOND),
        (&stage.network.provider, "spare0"),
    )?;
    soon_filtered(&stage.network, SECOND)?;
    let daemon = stage.daemon.as_ref().context("no daemon")?;
    daemon.wait_for(log.len(), "the interface is there: filtered")?;
    let second = shown(&stage, SECOND)?;
    ensure!(
        second["state"] == json!("filtered") && second["mode"] == json!("native"),
        "{second}"
    );
    works(&mut stage, OUTER)?;
    stage.hang_up()
}

/// A program of somebody else's on an interface, by a link that lives as long as this value.
fn others_program(network: &Network, mode: XdpMode) -> Result<Programs> {
    let mut programs = Programs::load()?;
    let program = programs.xdp("pass")?;
    network.edge.enter(|| program.attach(OUTER, mode))??;
    Ok(programs)
}

/// Refused by every mode that the configuration may ask for; what the message says takes the other one off.
fn occupied() -> Result<()> {
    let network = Network::build(Topology::Routed, Family::V4, &[])?;
    for (mode, theirs) in [
        (Mode::Native, XdpMode::Driver),
        (Mode::Generic, XdpMode::Driver),
        (Mode::Native, XdpMode::Skb),
    ] {
        for by_link in [true, false] {
            let mut programs = Programs::load()?;
            let id = programs.xdp("pass")?.info()?.id();
            if by_link {
                let program = programs.xdp("pass")?;
                network.edge.enter(|| program.attach(OUTER, theirs))??;
            } else {
                let word = match theirs {
                    XdpMode::Skb => "xdpgeneric",
                    _ => "xdpdrv",
                };
                let pin = format!("/sys/fs/bpf/{}-other", network.edge.name());
                programs.xdp("pass")?.pin(&pin)?;
                let attached = run(network
                    .edge
                    .command("bpftool")
                    .args(["net", "attach", word, "pinned", &pin, "dev", OUTER]));
                std::fs::remove_file(&pin)?;
                attached?;
            }
            let config = daemon::config(&network, &[OUTER], mode);
            let (status, log) = Daemon::refused(&network, "sipfilter", &config)?;
            ensure!(!status.success(), "it ended with {status}: {log}");
            let who = format!("\"pass\" (id {id}");
            for words in [OUTER, "another XDP program", &who] {
                ensure!(log.contains(words), "no `{words}` in:\n{log}");
            }
            // The kernel lets go of a link a moment after its last name.
            let deadline = Instant::now() + UNFILTERED;
            while Attachments::on(&network.edge, OUTER)?.egress > 0 {
                ensure!(Instant::now() < deadline, "half of the filter stays");
                sleep(Duration::from_millis(20));
            }
            let command = log
                .rsplit_once("take it off: `")
                .and_then(|(_, rest)| rest.split_once('`'))
                .with_context(|| format!("no command in:\n{log}"))?
                .0;
            ensure!(command.starts_with("bpftool link") == by_link, "{command}");
            let words: Vec<&str> = command.split_whitespace().collect();
            run(network.edge.command(words[0]).args(&words[1..]))?;
            drop(programs);
            let daemon = Daemon::start_with(&network, "sipfilter", &config)?;
            is_filtered(&network, OUTER)?;
            daemon.stop(Signal::TERM)?;
        }
    }
    Ok(())
}

fn comes_back_occupied() -> Result<()> {
    let (mut stage, _) = stage()?;
    let daemon = stage.daemon.as_ref().context("no daemon")?;
    let said = daemon.log().len();
    // Somebody is quicker: while the daemon does not look.
    daemon.signal(Signal::STOP);
    stage.network.delete_outer()?;
    stage.network.make_outer(None)?;
    let others = others_program(&stage.network, XdpMode::Driver)?;
    daemon.signal(Signal::CONT);
    daemon.wait_for(said, "NOT FILTERED")?;
    daemon.wait_for(said, "bpftool link detach id")?;
    let now = shown(&stage, OUTER)?;
    ensure!(
        now["state"] == json!("refused") && now["refusal"].to_string().contains("pass"),
        "{now}"
    );
    drop(others);
    daemon.wait_for(said, "there again: filtered")?;
    stage.network.connect_outer()?;
    works(&mut stage, OUTER)?;
    stage.hang_up()
}

/// Calls in progress are heard, strangers are not, and another call comes about.
pub fn works(stage: &mut Stage, name: &str) -> Result<()> {
    is_filtered(&stage.network, name)?;
    // Neighbours and bridge ports need a moment.
    sleep(Duration::from_secs(1));
    let before = stage.pinholes()?;
    stage.place(Direction::Outbound, Answer::AtOnce, Progress::Established)?;
    // There are as many calls in the one direction as in the other.
    let deadline = Instant::now() + PATIENCE;
    while stage.pinholes()? < 2 * before {
        ensure!(
            Instant::now() < deadline,
            "the other calls have no pinholes"
        );
        sleep(Duration::from_millis(20));
    }
    let through = stage.talk_through(|_, daemon| {
        sleep(Duration::from_millis(300));
        daemon.context("no daemon")
    })?;
    ensure!(
        through.sent > 0 && through.strangers_sent > 0,
        "nobody sent anything"
    );
    Ok(())
}

fn shown(stage: &Stage, name: &str) -> Result<Value> {
    let daemon = stage.daemon.as_ref().context("no daemon")?;
    let status = daemon.ctl(&["status", "--json"])?;
    let interfaces = status["daemon"]["interfaces"].as_array();
    let found = interfaces.and_then(|all| all.iter().find(|shown| shown["name"] == json!(name)));
    found
        .cloned()
        .with_context(|| format!("no {name} in {status}"))
}

fn is_filtered(network: &Network, name: &str) -> Result<()> {
    Attachments::one_of_each(&network.edge, name)
}

fn soon_filtered(network: &Network, name: &str) -> Result<()> {
    let deadline = Instant::now() + UNFILTERED;
    while is_filtered(network, name).is_err() && Instant::now() < deadline {
        sleep(Duration::from_millis(5));
    }
    is_filtered(network, name)
}
