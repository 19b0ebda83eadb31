//! Another configuration that is not put in force to its end: the daemon dies at each step of it, or is told to end meanwhile.
//!
//! `strace` kills it as it enters the system call that is to be its last; so no step is left to chance.

use std::{
    fs,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use sipfilter_daemon::shell::pins::Pins;
use sipfilter_tests::{
    lab::{daemon::Daemon, topology::Network},
    policy::random::Random,
};

use super::{
    NAME, PATIENCE, calls, config, hang_up, none_of_ours, one_of_each, says, soon, survive,
};
use crate::Test;

const SEED: u64 = 1;
/// More than there are steps of any kind.
const STEPS: u64 = 200;

pub fn tests() -> Vec<Test> {
    vec![
        Test::new(
            "faults::a_death_at_each_rename_of_a_reload_costs_nothing",
            || die_at("rename,renameat,renameat2", &mut (1..=STEPS), order_reload),
        ),
        Test::new(
            "faults::a_death_at_each_rename_of_a_trial_costs_nothing",
            || die_at("rename,renameat,renameat2", &mut (1..=STEPS), order_trial),
        ),
        Test::new(
            "faults::a_death_at_each_removal_of_a_reload_costs_nothing",
            || die_at("unlink,unlinkat", &mut (1..=STEPS), order_reload),
        ),
        Test::new(
            "faults::a_death_between_programs_and_maps_costs_nothing",
            || {
                let mut random = Random::new(SEED);
                let mut step = 0;
                let mut steps = std::iter::from_fn(|| {
                    step += random.between(1, 9);
                    Some(step)
                });
                die_at("bpf", &mut steps, order_reload)
            },
        ),
        Test::new("faults::an_end_in_a_reload_leaves_nothing_half_done", end),
    ]
}

/// The other one of two, which needs other programs and maps of another size.
fn other_than(text: &str, good: &str) -> String {
    match text == good {
        true => format!("egress = \"enforce\"\n{good}\n[limits]\npinholes = 2000\n"),
        false => good.to_owned(),
    }
}

/// By signal; it is what the next start reads.
fn order_reload(_: &Network, daemon: &Daemon, other: &str) -> Result<String> {
    fs::write(daemon.file(), other)?;
    daemon.signal(Signal::HUP);
    Ok(other.to_owned())
}

/// Nobody has confirmed it when the next start reads what was before.
fn order_trial(network: &Network, daemon: &Daemon, other: &str) -> Result<String> {
    let before = fs::read_to_string(daemon.file())?;
    let file = network.directory.path().join("candidate.toml");
    fs::write(&file, other)?;
    // Where the daemon dies, there is no answer.
    let _ = daemon.ctl(&[
        "apply",
        &file.display().to_string(),
        "--confirm",
        "60s",
        "--json",
    ]);
    Ok(before)
}

/// Its last step, counted from now.
fn kill_at(daemon: &Daemon, calls: &str, number: u64) -> Result<Child> {
    let strace = Command::new("strace")
        .args(["-qq", "-o", "/dev/null", "-e"])
        .arg(format!("trace={calls}"))
        .arg("-e")
        .arg(format!("inject={calls}:signal=KILL:when={number}"))
        .args(["-p", &daemon.pid().to_string()])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start strace")?;
    let deadline = Instant::now() + PATIENCE;
    let status = format!("/proc/{}/status", daemon.pid());
    while fs::read_to_string(&status)?.contains("TracerPid:\t0\n") {
        ensure!(
            Instant::now() < deadline,
            "strace does not get hold of the daemon"
        );
        sleep(Duration::from_millis(5));
    }
    Ok(strace)
}

/// Whether the daemon died of what was ordered; it may also have come to its end.
fn died(daemon: &mut Daemon, said: usize) -> Result<bool> {
    let deadline = Instant::now() + PATIENCE;
    while daemon.is_alive() {
        if daemon.log()[said..].contains(" reloaded ") {
            return Ok(false);
        }
        ensure!(
            Instant::now() < deadline,
            "nothing came of it: {}",
            daemon.log()
        );
        sleep(Duration::from_millis(5));
    }
    Ok(true)
}

fn die_at(
    calls_of: &'static str,
    steps: &mut dyn Iterator<Item = u64>,
    order: fn(&Network, &Daemon, &str) -> Result<String>,
) -> Result<()> {
    let mut stage = calls(2, 2)?;
    let mut deaths = 0;
    survive(&mut stage, calls_of, |network, mut daemon| {
        let good = config(network);
        let pinholes = daemon.pinholes()?;
        let mut text = good.clone();
        for step in steps {
            let said = daemon.log().len();
            let mut strace = kill_at(&daemon, calls_of, step)?;
            text = order(network, &daemon, &other_than(&text, &good))?;
            let died = died(&mut daemon, said).with_context(|| format!("step {step}"));
            let _ = strace.kill();
            strace.wait()?;
            if !died? {
                // There may have been time for what is done every second, and to die of that.
                sleep(Duration::from_millis(200));
                return match daemon.is_alive() {
                    true => Ok(daemon),
                    false => Daemon::start_with(network, NAME, &text),
                };
            }
            deaths += 1;
            drop(daemon);
            one_of_each(network).with_context(|| format!("step {step}"))?;
            daemon = Daemon::start_with(network, NAME, &text)?;
            nothing_waits(&daemon).with_context(|| format!("after step {step}"))?;
            let found = daemon.pinholes()?;
            ensure!(
                found == pinholes,
                "step {step}: {found} of {pinholes} pinholes: {}",
                daemon.log()
            );
        }
        bail!("there are more steps than anybody knew of")
    })?;
    ensure!(deaths > 2, "it died {deaths} times");
    hang_up(&stage)
}

fn nothing_waits(daemon: &Daemon) -> Result<()> {
    let mut files = Pins::of_runtime_dir(daemon.runtime()).files();
    files.retain(|name| name.ends_with("_next"));
    ensure!(files.is_empty(), "{files:?} stay behind");
    Ok(())
}

/// A stop and a handover at any moment of a load, and a stop that detaches.
fn end() -> Result<()> {
    let mut stage = calls(2, 2)?;
    let mut random = Random::new(SEED);
    let mut loaded = 0;
    survive(&mut stage, "ends in a reload", |network, daemon| {
        daemon.stop(Signal::USR2)?;
        let good = format!("on_stop = \"keep\"\n{}", config(network));
        let mut text = good.clone();
        let mut daemon = Daemon::start_with(network, NAME, &text)?;
        for signal in [Signal::TERM, Signal::USR2, Signal::INT].repeat(5) {
            text = other_than(&text, &good);
            let said = daemon.log().len();
            order_reload(network, &daemon, &text)?;
            sleep(Duration::from_micros(random.between(0, 200_000)));
            loaded += u32::from(daemon.log()[said..].contains(" reloaded "));
            let pins = daemon.runtime().to_owned();
            let status = daemon.stop(signal)?;
            ensure!(status.success(), "{signal:?}: it ended with {status}");
            one_of_each(network)?;
            let mut files = Pins::of_runtime_dir(&pins).files();
            files.retain(|name| name.ends_with("_next"));
            ensure!(files.is_empty(), "{signal:?}: {files:?} stay behind");
            daemon = Daemon::start_with(network, NAME, &text)?;
        }
        Ok(daemon)
    })?;
    ensure!(
        loaded < 15,
        "every reload came to its end before the daemon"
    );
    hang_up(&stage)?;
    let daemon = stage.daemon.take().context("a filter")?;
    let network = &stage.network;
    let bad = format!("on_stop = \"detach\"\n{}", config(network));
    let answer = daemon.reload(&bad)?;
    ensure!(answer["ok"] == true, "{answer}");
    order_reload(
        network,
        &daemon,
        &other_than(&config(network), &config(network)),
    )?;
    daemon.signal(Signal::TERM);
    let (status, log) = daemon.ended()?;
    ensure!(status.success(), "it ended with {status}: {log}");
    says("a stop", &log, &["detached"])?;
    soon(|| none_of_ours(network))?;
    Ok(())
}
