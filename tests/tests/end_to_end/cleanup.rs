//! The lab leaves nothing behind: not on SIGTERM, and not after SIGKILL once the next lab has started.

use std::{
    fs,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::Test;

const PATIENCE: Duration = Duration::from_secs(20);

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("a_terminated_lab_removes_itself", terminated),
        Test::new("a_killed_lab_is_removed_by_the_next", killed),
    ]
}

fn terminated() -> Result<()> {
    let mut lab = start_lab()?;
    let id = lab.id();
    signal(id, Signal::TERM)?;
    let status = lab.wait()?;
    ensure!(!status.success(), "a terminated lab reported success");
    gone(id)
}

fn killed() -> Result<()> {
    let mut lab = start_lab()?;
    let id = lab.id();
    signal(id, Signal::KILL)?;
    lab.wait()?;
    ensure!(
        !namespaces(id).is_empty(),
        "nothing was left behind, so that this test shows nothing"
    );
    let mut next = start_lab()?;
    let removed = gone(id);
    signal(next.id(), Signal::TERM)?;
    next.wait()?;
    removed
}

/// A demo without a filter, as soon as its calls' agents run.
fn start_lab() -> Result<Child> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_demo"))
        .args(["--no-filter", "--calls", "4", "--packets", "1000"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start the demo")?;
    let log = format!("sfl-{}-0/inbound-callee.log", child.id());
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        if std::env::temp_dir().join(&log).exists() {
            return Ok(child);
        }
        if let Some(status) = child.try_wait()? {
            bail!("the demo ended at its start: {status}");
        }
        thread::sleep(Duration::from_millis(20));
    }
    signal(child.id(), Signal::TERM)?;
    bail!("the demo made no lab within {} s", PATIENCE.as_secs())
}

fn signal(id: u32, signal: Signal) -> Result<()> {
    let pid = i32::try_from(id)
        .ok()
        .and_then(Pid::from_raw)
        .context("no process id")?;
    Ok(kill_process(pid, signal)?)
}

fn gone(id: u32) -> Result<()> {
    let left = namespaces(id);
    ensure!(left.is_empty(), "namespaces were left: {left:?}");
    let directory = std::env::temp_dir().join(format!("sfl-{id}-0"));
    ensure!(!directory.exists(), "{} was left", directory.display());
    Ok(())
}

fn namespaces(id: u32) -> Vec<String> {
    fs::read_dir("/run/netns")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with(&format!("sfl-{id}-")))
        .collect()
}
