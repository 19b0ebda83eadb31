//! Two daemons where there is room for one, and a daemon whose runtime directory somebody takes away.

use std::{
    fs,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use sipfilter_tests::lab::{
    address::Family,
    daemon::Daemon,
    topology::{Network, OUTER, Topology},
};

use super::{
    NAME, PATIENCE, calls, config, hang_up, none_of_ours, one_of_each, says, soon, survive,
    wait_for,
};
use crate::Test;

const OTHER: &str = "other";

pub fn tests() -> Vec<Test> {
    vec![
        Test::new(
            "faults::a_start_beside_a_daemon_leaves_it_alone",
            beside_another,
        ),
        Test::new(
            "faults::a_daemon_of_another_directory_leaves_the_interface_alone",
            same_interface,
        ),
        Test::new("faults::of_two_that_start_at_once_one_filters", race),
        Test::new(
            "faults::a_runtime_directory_that_is_taken_away_comes_back",
            without_directory,
        ),
    ]
}

/// Starts another one with the same runtime directory, which must end.
fn refused_beside(network: &Network, daemon: &Daemon, words: &[&str]) -> Result<()> {
    let other = Daemon::begin_in(network, OTHER, daemon.runtime(), &config(network))?;
    let (status, log) = other.ended()?;
    ensure!(!status.success(), "it ended with {status}: {log}");
    says("a second daemon", &log, words)?;
    soon(|| one_of_each(network))
}

fn beside_another() -> Result<()> {
    let mut stage = calls(2, 2)?;
    survive(&mut stage, "a second daemon", |network, daemon| {
        refused_beside(network, &daemon, &["another sipfilterd", "--runtime-dir"])?;
        Ok(daemon)
    })?;
    hang_up(&stage)
}

/// It is another instance, and yet there is only one place for XDP.
fn same_interface() -> Result<()> {
    let mut stage = calls(2, 2)?;
    survive(&mut stage, "another instance", |network, daemon| {
        for _ in 0..3 {
            let (status, log) = Daemon::refused(network, OTHER, &config(network))?;
            ensure!(!status.success(), "it ended with {status}: {log}");
            says("another instance", &log, &[OUTER, "already"])?;
            soon(|| one_of_each(network))?;
        }
        Ok(daemon)
    })?;
    hang_up(&stage)
}

/// Of one instance and of two, on an interface where nothing is yet and beside what a dead one has left.
fn race() -> Result<()> {
    let network = Network::build(Topology::Routed, Family::V4, &[])?;
    let config = config(&network);
    let directory = network.directory.path();
    for other in [NAME, OTHER] {
        let runtimes = [NAME, other].map(|name| directory.join(format!("{name}.run")));
        for signal in [Signal::KILL, Signal::TERM, Signal::KILL, Signal::TERM] {
            let first = Daemon::begin_in(&network, "first", &runtimes[0], &config)?;
            let second = Daemon::begin_in(&network, "second", &runtimes[1], &config)?;
            let winner = only_one([first, second])?;
            soon(|| one_of_each(&network))?;
            winner.stop(signal)?;
            if signal == Signal::TERM {
                soon(|| none_of_ours(&network))?;
            }
        }
    }
    Ok(())
}

/// The one that lives on; it answers.
fn only_one(mut racers: [Daemon; 2]) -> Result<Daemon> {
    let deadline = Instant::now() + PATIENCE;
    while racers.iter_mut().all(Daemon::is_alive) {
        ensure!(Instant::now() < deadline, "both live: {}", racers[1].log());
        sleep(Duration::from_millis(20));
    }
    let [first, second] = racers;
    let mut alive = Vec::new();
    for mut racer in [first, second] {
        match racer.is_alive() {
            true => alive.push(racer),
            false => says("the loser", &racer.log(), &["sipfilterd: "])?,
        }
    }
    let winner = alive.pop().context("both ended")?;
    wait_for(&winner, "ready")?;
    answers(&winner)?;
    Ok(winner)
}

fn answers(daemon: &Daemon) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while daemon.ctl(&["status", "--json"])?["running"] != true {
        ensure!(
            Instant::now() < deadline,
            "it does not answer: {}",
            daemon.log()
        );
        sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// The pinned objects are one instance's, whatever lock is still to be found.
fn without_directory() -> Result<()> {
    let mut stage = calls(2, 2)?;
    survive(&mut stage, "no directory", |network, daemon| {
        for times in 1..=2 {
            fs::remove_dir_all(daemon.runtime())?;
            refused_beside(network, &daemon, &["another sipfilterd"])?;
            wait_until(&daemon, || {
                daemon.log().matches("made anew").count() == times
            })?;
            answers(&daemon)?;
            // And it is locked as it was.
            refused_beside(network, &daemon, &["another sipfilterd", "--runtime-dir"])?;
        }
        let other = format!("{}\n[limits]\ncalls = 77\n", config(network));
        let answer = daemon.reload(&other)?;
        ensure!(answer["ok"] == true, "{answer}");
        Ok(daemon)
    })?;
    hang_up(&stage)
}

fn wait_until(daemon: &Daemon, is_so: impl Fn() -> bool) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        ensure!(
            Instant::now() < deadline,
            "it does not come to it: {}",
            daemon.log()
        );
        sleep(Duration::from_millis(50));
    }
    Ok(())
}
