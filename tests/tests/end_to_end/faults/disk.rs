//! No room to write: for the log, for what lies in the runtime directory, for the configuration that was confirmed.
//!
//! A file system that is full is one of the daemon's own, in a mount namespace.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};
use sipfilter_tests::lab::{
    daemon::{self, Daemon, Mode, find_program},
    topology::Network,
};

use super::{NAME, PATIENCE, calls, config, hang_up, one_of_each, says, survive, wait_for};
use crate::Test;

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("faults::a_log_that_cannot_be_written_ends_nothing", log),
        Test::new(
            "faults::a_start_without_room_says_where_and_leaves_the_filter_alone",
            no_room_to_start,
        ),
        Test::new(
            "faults::a_trial_without_room_for_its_note_begins_and_ends",
            no_room_for_a_note,
        ),
        Test::new(
            "faults::a_confirmation_without_room_leaves_the_configuration_whole",
            no_room_to_confirm,
        ),
    ]
}

/// Starts one whose words go elsewhere, or whose sockets do; `runtime` is where they are to be seen.
fn start(
    network: &Network,
    config: &str,
    inside: &str,
    runtime: impl FnOnce(&Daemon) -> PathBuf,
) -> Result<(Daemon, PathBuf)> {
    let wrapper = ["unshare", "--mount", "bash", "-c", inside, "bash"];
    let daemon = Daemon::begin_program(
        network,
        NAME,
        config,
        &wrapper,
        &find_program("sipfilterd")?,
    )?;
    let runtime = runtime(&daemon);
    let deadline = Instant::now() + PATIENCE;
    loop {
        // Between two daemons, the first one's pinholes are there and nobody answers.
        match ask(network, &runtime, &["status"]) {
            Ok(status) if status["running"] == json!(true) => return Ok((daemon, runtime)),
            other => ensure!(
                Instant::now() < deadline,
                "it does not answer: {other:?}; {}",
                daemon.log()
            ),
        }
        sleep(Duration::from_millis(50));
    }
}

fn ask(network: &Network, runtime: &Path, words: &[&str]) -> Result<Value> {
    daemon::ctl(network.edge.name(), runtime, &[words, &["--json"]].concat())
}

/// As on a full disk, and as where the journal has died.
fn log() -> Result<()> {
    let mut stage = calls(2, 2)?;
    for inside in ["exec \"$@\" 2>/dev/full", "exec \"$@\" 2> >(exec true)"] {
        survive(&mut stage, inside, |network, daemon| {
            daemon.stop(Signal::KILL)?;
            let (daemon, _) = start(network, &config(network), inside, |daemon| {
                daemon.runtime().to_owned()
            })?;
            // Something to say, as an error and as a change.
            fs::write(daemon.file(), "garbage")?;
            daemon.signal(Signal::HUP);
            sleep(Duration::from_millis(300));
            let other = format!("{}\n[limits]\ncalls = 77\n", config(network));
            let answer = daemon.reload(&other)?;
            ensure!(answer["ok"] == json!(true), "{answer}");
            Ok(daemon)
        })?;
    }
    let daemon = stage.daemon.as_ref().context("a filter")?;
    daemon.ctl(&["status", "--json"])?;
    hang_up(&stage)
}

/// A file system of the runtime directory's own, with room for so many files besides itself.
fn room_for(files: u32, runtime: &Path) -> String {
    format!(
        "mount -t tmpfs -o mode=755,nr_inodes={} none {} && exec \"$@\"",
        files + 1,
        runtime.display()
    )
}

fn no_room_to_start() -> Result<()> {
    let mut stage = calls(2, 2)?;
    survive(&mut stage, "no room", |network, daemon| {
        let runtime = daemon.runtime().to_owned();
        daemon.stop(Signal::KILL)?;
        for (files, what) in [
            (0, "runtime directory"),
            (1, "control.sock"),
            (2, "admin.sock"),
        ] {
            let inside = room_for(files, &runtime);
            let wrapper = ["unshare", "--mount", "sh", "-c", &inside, "sh"];
            let (status, log) = Daemon::refused_within(
                network,
                NAME,
                &config(network),
                &wrapper,
                &find_program("sipfilterd")?,
            )?;
            ensure!(!status.success(), "{what}: it ended with {status}: {log}");
            says(
                what,
                &log,
                &[what, "No space left on device", "--runtime-dir"],
            )?;
            one_of_each(network).context(what)?;
        }
        Daemon::start(network, Mode::Native)
    })?;
    hang_up(&stage)
}

/// The lock and both sockets take all the room that there is.
fn no_room_for_a_note() -> Result<()> {
    let mut stage = calls(2, 2)?;
    survive(&mut stage, "no room for a note", |network, daemon| {
        let place = daemon.runtime().to_owned();
        daemon.stop(Signal::KILL)?;
        let config = config(network);
        let (daemon, runtime) = start(network, &config, &room_for(3, &place), |daemon| {
            seen_through(daemon, &place)
        })?;
        let candidate = place.with_file_name("candidate.toml");
        fs::write(&candidate, format!("{config}\n[limits]\ncalls = 77\n"))?;
        let candidate = candidate.display().to_string();
        let answer = ask(
            network,
            &runtime,
            &["apply", &candidate, "--confirm", "60s"],
        )?;
        ensure!(answer["ok"] == json!(true), "{answer}");
        wait_for(&daemon, "a next start will go back without a word")?;
        says("no note", &daemon.log(), &["No space left on device"])?;
        let answer = ask(network, &runtime, &["rollback"])?;
        ensure!(answer["ok"] == json!(true), "{answer}");
        daemon.stop(Signal::KILL)?;
        Daemon::start(network, Mode::Native)
    })?;
    hang_up(&stage)
}

/// The file system of the configuration has room for it once, and for a name or two.
fn no_room_to_confirm() -> Result<()> {
    let mut stage = calls(2, 2)?;
    survive(&mut stage, "no room to confirm", |network, daemon| {
        let runtime = daemon.runtime().to_owned();
        daemon.stop(Signal::KILL)?;
        let directory = network.directory.path().join("etc");
        fs::create_dir(&directory)?;
        let (file, config) = (directory.join("sipfilter.toml"), config(network));
        let link = network.directory.path().join(format!("{NAME}.toml"));
        fs::remove_file(&link)?;
        std::os::unix::fs::symlink(&file, &link)?;
        let etc = directory.display();
        let inside = format!(
            "mount -t tmpfs -o mode=755,size=12k none {etc} && cat {etc}.text > {etc}/sipfilter.toml && ! head -c 20000 /dev/zero > {etc}/fill && \
             exec \"$@\""
        );
        fs::write(directory.with_extension("text"), &config)?;
        let (daemon, runtime) = start(network, &config, &inside, |_| runtime)?;
        let candidate = network.directory.path().join("candidate.toml");
        fs::write(&candidate, format!("{config}\n[limits]\ncalls = 77\n"))?;
        let name = candidate.display().to_string();
        let answer = ask(network, &runtime, &["apply", &name, "--confirm", "60s"])?;
        ensure!(answer["ok"] == json!(true), "{answer}");
        let output = Command::new("nsenter")
            .arg(format!("--mount=/proc/{}/ns/mnt", daemon.pid()))
            .arg(find_program("sipfilterctl")?)
            .arg("--runtime-dir")
            .arg(&runtime)
            .args(["confirm", "--config"])
            .arg(&link)
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success(), "it was confirmed: {said}");
        says(
            "confirm",
            &said,
            &["No space left on device", &*file.display().to_string()],
        )?;
        let whole = fs::read_to_string(seen_through(&daemon, &file))?;
        ensure!(whole == config, "the configuration is not whole: {whole:?}");
        let status = ask(network, &runtime, &["status"])?;
        ensure!(
            !status["daemon"]["unconfirmed"].is_null(),
            "nothing waits to be confirmed: {status}"
        );
        daemon.stop(Signal::KILL)?;
        fs::remove_file(&link)?;
        Daemon::start(network, Mode::Native)
    })?;
    hang_up(&stage)
}

/// What a daemon in a mount namespace sees at a path.
fn seen_through(daemon: &Daemon, path: &Path) -> PathBuf {
    let root = PathBuf::from(format!("/proc/{}/root", daemon.pid()));
    path.strip_prefix("/")
        .map_or(root.clone(), |path| root.join(path))
}
