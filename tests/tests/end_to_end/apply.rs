//! A configuration on trial, with calls that talk through its beginning and its end.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};
use sipfilter_tests::lab::{
    address::Family,
    daemon::{self, Daemon, Filter, Mode},
    sipp::{Answer, Progress},
    stage::Stage,
    topology::{Network, OUTER, Topology},
};

use crate::Test;

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("what_nobody_confirms_goes_again", unconfirmed),
        Test::new("what_is_confirmed_is_what_the_next_start_reads", confirmed),
        Test::new("a_trial_ends_by_rollback_and_by_a_death", rolled_back),
    ]
}

/// Calls in progress, and a configuration to try.
struct Trial {
    stage: Stage,
    before: String,
    candidate: String,
}

impl Trial {
    fn set() -> Result<Self> {
        let network = Network::build(Topology::Routed, Family::V4, &[])?;
        let mut stage = Stage::set(network, Filter::Sipfilter(Mode::Native), 2, 2)?;
        let before = daemon::config(&stage.network, &[OUTER], Mode::Native);
        let candidate = before.replacen("[xdp]", "[limits]\ncalls = 77\n\n[xdp]", 1);
        fs::write(stage.network.directory.path().join("new.toml"), &candidate)?;
        stage.place_calls(Answer::AtOnce, Progress::Established)?;
        Ok(Self {
            stage,
            before,
            candidate,
        })
    }

    fn ctl(&self, arguments: &[&str]) -> Result<Value> {
        let daemon = self.stage.daemon.as_ref().context("no daemon")?;
        daemon.ctl(&[arguments, &["--json"]].concat())
    }

    fn apply(&self, seconds: &str) -> Result<Value> {
        let file = self.stage.network.directory.path().join("new.toml");
        self.ctl(&["apply", &file.display().to_string(), "--confirm", seconds])
    }

    fn is_waiting(&self) -> Result<bool> {
        Ok(!self.ctl(&["status"])?["daemon"]["unconfirmed"].is_null())
    }

    /// Calls talk while `disturb` happens.
    fn through(&mut self, disturb: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        let pinholes = self.stage.pinholes()?;
        disturb(self)?;
        self.stage.talk(|_| true, 10)?;
        ensure!(self.stage.pinholes()? == pinholes, "pinholes were lost");
        Ok(())
    }

    /// Whether what was in force before the trial is.
    fn is_as_before(&self) -> Result<bool> {
        let answer = self.ctl(&["reload"])?;
        ensure!(answer["ok"] == json!(true), "{answer}");
        Ok(answer["changes"] == json!([]))
    }

    fn confirm(&self) -> Result<Value> {
        let file = self.stage.daemon.as_ref().context("no daemon")?.file();
        self.ctl(&["confirm", "--config", &file.display().to_string()])
    }

    fn file(&self) -> Result<String> {
        let daemon = self.stage.daemon.as_ref().context("no daemon")?;
        Ok(fs::read_to_string(daemon.file())?)
    }
}

fn unconfirmed() -> Result<()> {
    let mut trial = Trial::set()?;
    trial.through(|trial| {
        let answer = trial.apply("3s")?;
        ensure!(
            answer["ok"] == json!(true) && answer["confirm_within_seconds"] == json!(3.0),
            "{answer}"
        );
        ensure!(trial.is_waiting()?, "it does not wait");
        // Neither a second one nor another way out.
        for second in [trial.apply("3s")?, trial.ctl(&["reload"])?] {
            ensure!(
                second["ok"] == json!(false) && second["errors"].to_string().contains("new.toml"),
                "{second}"
            );
        }
        let deadline = Instant::now() + Duration::from_secs(15);
        while trial.is_waiting()? {
            ensure!(Instant::now() < deadline, "it never goes");
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    })?;
    ensure!(trial.is_as_before()?, "something of it stayed");
    ensure!(
        trial.file()? == trial.before,
        "the configuration file changed"
    );
    let late = trial.confirm()?;
    ensure!(late["error"].is_string(), "confirmed after the end: {late}");
    let nothing = trial.ctl(&["rollback"])?;
    ensure!(
        nothing["ok"] == json!(false),
        "rolled back twice: {nothing}"
    );
    Ok(())
}

fn confirmed() -> Result<()> {
    let mut trial = Trial::set()?;
    trial.through(|trial| {
        let answer = trial.apply("60s")?;
        ensure!(answer["ok"] == json!(true), "{answer}");
        let answer = trial.confirm()?;
        let previous = answer["previous"].as_str().context("no old file")?;
        ensure!(
            fs::read_to_string(previous)? == trial.before,
            "the old text is lost"
        );
        ensure!(!trial.is_waiting()?, "it still waits");
        Ok(())
    })?;
    ensure!(
        trial.file()? == trial.candidate,
        "the file says something else"
    );
    ensure!(trial.is_as_before()?, "the file is not what is in force");
    Ok(())
}

fn rolled_back() -> Result<()> {
    let mut trial = Trial::set()?;
    // The configuration file itself is nothing to try.
    let file = trial.stage.daemon.as_ref().context("no daemon")?.file();
    let refused = trial.ctl(&["apply", &file.display().to_string()])?;
    ensure!(refused["ok"] == json!(false), "{refused}");
    trial.through(|trial| {
        ensure!(trial.apply("60s")?["ok"] == json!(true), "refused");
        let answer = trial.ctl(&["rollback"])?;
        ensure!(
            answer["ok"] == json!(true) && answer["changes"].to_string().contains("limits.calls"),
            "{answer}"
        );
        ensure!(!trial.is_waiting()?, "it still waits");
        Ok(())
    })?;
    ensure!(trial.is_as_before()?, "something of it stayed");
    ensure!(
        trial.apply("60s")?["ok"] == json!(true),
        "a second trial is refused"
    );
    let before = trial.before.clone();
    trial.stage.talk_through(|network, daemon| {
        daemon.context("no daemon")?.stop(Signal::KILL)?;
        Daemon::start_with(network, "sipfilter", &before)
    })?;
    ensure!(!trial.is_waiting()?, "it waits after a death");
    let log = trial.stage.daemon.as_ref().context("no daemon")?.log();
    ensure!(
        log.contains("rolled back"),
        "the log does not say so:\n{log}"
    );
    ensure!(
        trial.is_as_before()?,
        "something of it stayed after a death"
    );
    Ok(())
}
