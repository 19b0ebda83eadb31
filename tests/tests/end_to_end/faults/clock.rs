//! Clocks that are others than they were: the machine's time of day steps, and a container has a clock of its own.

use std::{fs, path::PathBuf, thread::sleep, time::Duration};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use sipfilter_tests::lab::daemon::{Daemon, find_program};

use super::{NAME, calls, config, hang_up, says, survive};
use crate::Test;

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("faults::a_clock_that_steps_by_decades_ends_no_call", steps),
        Test::new(
            "faults::a_container_with_another_clock_keeps_the_calls",
            other_clock,
        ),
    ]
}

/// The time of day goes to the farthest that Linux can be told, and to the beginning; nothing that decides may rest on it.
fn steps() -> Result<()> {
    let mut stage = calls(2, 2)?;
    survive(&mut stage, "steps of the clock", |network, daemon| {
        daemon.stop(Signal::USR2)?;
        let time = network.directory.path().join("time");
        fs::write(&time, "+0")?;
        let file = format!("FAKETIME_TIMESTAMP_FILE={}", time.display());
        let library = format!("LD_PRELOAD={}", libfaketime()?.display());
        let wrapper = [
            "env",
            &library,
            &file,
            "FAKETIME_NO_CACHE=1",
            // That one never steps.
            "FAKETIME_DONT_FAKE_MONOTONIC=1",
        ];
        let config = config(network);
        let program = find_program("sipfilterd")?;
        let daemon = Daemon::start_program(network, NAME, &config, &wrapper, &program)?;
        for (calls, now, year) in [
            (71, "@2200-01-01 00:00:00", "2200-01-01"),
            (72, "@1970-01-02 00:00:00", "1970-01-0"),
            (73, "@2038-01-19 03:14:00", "2038-01-19"),
        ] {
            fs::write(&time, now)?;
            let said = daemon.log().len();
            // Drops are noted with their time meanwhile.
            sleep(Duration::from_millis(500));
            let answer = daemon.reload(&format!("{config}\n[limits]\ncalls = {calls}\n"))?;
            ensure!(answer["ok"] == true, "{answer}");
            says(now, &daemon.log()[said..], &[year])?;
            for words in [
                &["status"][..],
                &["calls"],
                &["calls", "show", "1"],
                &["drops"],
            ] {
                daemon
                    .ctl(&[words, &["--json"]].concat())
                    .with_context(|| format!("{words:?} at {now}"))?;
            }
        }
        Ok(daemon)
    })?;
    stage.talk(|_| true, 25)?;
    hang_up(&stage)
}

/// A library that tells whoever it is loaded into another time.
fn libfaketime() -> Result<PathBuf> {
    let directories = fs::read_dir("/usr/lib")?.flatten();
    directories
        .map(|entry| entry.path().join("faketime/libfaketime.so.1"))
        .find(|path| path.exists())
        .context("there is no libfaketime: install the package faketime (cargo xtask setup)")
}

/// The kernel's programs know the machine's clock only. A time namespace shows another one to the daemon: days ahead or behind.
fn other_clock() -> Result<()> {
    let mut stage = calls(2, 2)?;
    for days in ["864000", "0"] {
        survive(&mut stage, "another clock", |network, daemon| {
            daemon.stop(Signal::USR2)?;
            let wrapper = [
                "unshare",
                "--time",
                "--monotonic",
                days,
                "--fork",
                "--kill-child",
            ];
            let program = find_program("sipfilterd")?;
            Daemon::start_program(network, NAME, &config(network), &wrapper, &program)
        })?;
        stage.talk(|_| true, 25)?;
    }
    hang_up(&stage)
}
