//! Configurations that are none, and signals by the thousand.

use std::{fs, thread::sleep, time::Duration};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use sipfilter_tests::lab::daemon::Daemon;

use super::{NAME, calls, config, hang_up, one_of_each, says, survive, wait_for};
use crate::Test;

const SIGNALS: u32 = 1_000;

pub fn tests() -> Vec<Test> {
    vec![
        Test::new(
            "faults::garbage_for_a_configuration_changes_nothing",
            garbage,
        ),
        Test::new("faults::a_storm_of_sighups_ends_with_the_last_word", storm),
    ]
}

fn garbage() -> Result<()> {
    let mut stage = calls(2, 2)?;
    let good = config(&stage.network);
    let file = stage.network.directory.path().join("sipfilter.toml");
    let cases: [(&str, Vec<u8>, &str); 5] = [
        ("no TOML", b"]]] garbage [[[".to_vec(), "this is not TOML"),
        ("no text", vec![0xff; 4096], "UTF-8"),
        ("nothing", Vec::new(), "interfaces"),
        (
            "an interface that is not there",
            good.replacen("outer0", "outer9", 1).into_bytes(),
            "outer9",
        ),
        (
            "much of it",
            b"interfaces = ["
                .iter()
                .copied()
                .chain(b"[".repeat(100_000))
                .collect(),
            "this is not TOML",
        ),
    ];
    survive(&mut stage, "garbage", |network, daemon| {
        for (name, bytes, word) in &cases {
            let said = daemon.log().len();
            fs::write(&file, bytes)?;
            daemon.signal(Signal::HUP);
            daemon
                .wait_for(said, "nothing has changed")
                .context(*name)?;
            says(name, &daemon.log()[said..], &[word])?;
        }
        let said = daemon.log().len();
        fs::remove_file(&file)?;
        daemon.signal(Signal::HUP);
        daemon.wait_for(said, "sipfilter.toml")?;
        daemon.ctl(&["status", "--json"])?;
        // It is there at the next start, too.
        daemon.stop(Signal::KILL)?;
        for (name, bytes, word) in &cases {
            let (status, log) = Daemon::refused(network, NAME, bytes)?;
            ensure!(
                status.code().is_some_and(|code| code > 0),
                "{name}: it ended with {status}: {log}"
            );
            says(name, &log, &[word])?;
            one_of_each(network).context(*name)?;
        }
        Daemon::start_with(network, NAME, &good)
    })?;
    hang_up(&stage)
}

/// The file changes while signals come; what it says last must be in force, and nobody may have queued a thousand loads.
fn storm() -> Result<()> {
    let mut stage = calls(2, 2)?;
    survive(&mut stage, "a storm", |network, daemon| {
        let good = config(network);
        let file = network.directory.path().join(format!("{NAME}.toml"));
        for number in 1..=SIGNALS {
            if number % 100 == 0 {
                let next = file.with_extension("next");
                fs::write(&next, format!("{good}\n[limits]\ncalls = {number}\n"))?;
                fs::rename(&next, &file)?;
            }
            daemon.signal(Signal::HUP);
            sleep(Duration::from_millis(1));
        }
        wait_for(&daemon, &SIGNALS.to_string())?;
        let reloads = daemon.log().matches("reloading").count();
        ensure!(
            (1..=SIGNALS as usize).contains(&reloads),
            "{reloads} reloads of {SIGNALS} signals"
        );
        daemon.ctl(&["status", "--json"])?;
        Ok(daemon)
    })?;
    hang_up(&stage)
}
