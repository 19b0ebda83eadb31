//! Deaths at any moment of a life: before a program is loaded, between two maps, while a link changes its program.

use std::{
    fs,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use rustix::process::Signal;
use sipfilter_common::abi::map;
use sipfilter_daemon::shell::pins::Pins;
use sipfilter_tests::{
    lab::daemon::{Daemon, Mode},
    policy::random::Random,
};

use super::{NAME, calls, config, hang_up, survive};
use crate::Test;

const SEED: u64 = 1;
const LIVES: u32 = 100;
/// No life is longer, however slow the machine.
const LONGEST: Duration = Duration::from_millis(600);

pub fn tests() -> Vec<Test> {
    vec![
        Test::new(
            "faults::a_hundred_deaths_at_random_moments_cost_nothing",
            deaths,
        ),
        Test::new(
            "faults::deaths_while_the_tables_change_their_size_cost_nothing",
            deaths_between_sizes,
        ),
        Test::new(
            "faults::a_death_between_two_renames_costs_nothing",
            death_between_renames,
        ),
    ]
}

fn deaths() -> Result<()> {
    die(LIVES, |_| "")
}

/// Every other life has a table of another size, into which it must move the pinholes first.
fn deaths_between_sizes() -> Result<()> {
    die(40, |life| match life.is_multiple_of(2) {
        true => "\n[limits]\npinholes = 2000\n",
        false => "",
    })
}

fn die(lives: u32, more: impl Fn(u32) -> &'static str) -> Result<()> {
    let mut stage = calls(3, 3)?;
    let mut random = Random::new(SEED);
    let mut ready = 0;
    survive(&mut stage, "deaths", |network, daemon| {
        daemon.stop(Signal::KILL)?;
        let config = config(network);
        let began = Instant::now();
        Daemon::start(network, Mode::Native)?.stop(Signal::KILL)?;
        let longest = (began.elapsed() * 5 / 4).min(LONGEST);
        let longest = u64::try_from(longest.as_micros())?;
        for life in 0..lives {
            let config = format!("{config}{}", more(life));
            let daemon = Daemon::begin(network, NAME, &config)?;
            sleep(Duration::from_micros(random.between(0, longest)));
            ready += u32::from(daemon.log().contains("ready"));
            daemon.stop(Signal::KILL)?;
        }
        Daemon::start(network, Mode::Native)
    })?;
    ensure!(
        ready < lives,
        "every one of {lives} lives was long enough to become ready: nothing was interrupted"
    );
    let pins = Pins::of_runtime_dir(&stage.network.directory.path().join("sipfilter.run"));
    let mut files = pins.files();
    files.retain(|name| name.ends_with("_next"));
    ensure!(files.is_empty(), "{files:?} stay behind");
    hang_up(&stage)
}

/// As if it had died when some of the objects were in place and others, with the stamp, were not.
fn death_between_renames() -> Result<()> {
    let mut stage = calls(2, 2)?;
    for waiting in [
        &[map::STAMP][..],
        &[map::SLOTS, map::STAMP],
        &[map::PINHOLES4, map::PROVIDERS4, map::STAMP],
    ] {
        survive(&mut stage, &format!("{waiting:?}"), |network, daemon| {
            let pins = Pins::of_runtime_dir(daemon.runtime());
            daemon.stop(Signal::KILL)?;
            for name in waiting {
                fs::rename(pins.path(name), pins.next_path(name))?;
            }
            Daemon::start(network, Mode::Native)
        })?;
    }
    hang_up(&stage)
}
