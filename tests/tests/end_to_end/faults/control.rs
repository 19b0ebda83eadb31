//! What comes from the operator's side: connections that ask nothing.

use std::{fs, os::unix::net::UnixStream};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Resource, Rlimit, setrlimit};

use super::{calls, config, hang_up, survive};
use crate::Test;

const IDLE: usize = 10_000;
/// Sockets of conversations, maps, links and whatever else a daemon has open.
const FEW: usize = 400;

pub fn tests() -> Vec<Test> {
    vec![Test::new(
        "faults::ten_thousand_idle_connections_keep_nobody_out",
        idle,
    )]
}

fn idle() -> Result<()> {
    let files = Some(2 * IDLE as u64);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: files,
            maximum: files,
        },
    )
    .context("cannot raise the limit of open files")?;
    let mut stage = calls(2, 2)?;
    survive(&mut stage, "idle connections", |network, daemon| {
        let sockets = ["control.sock", "admin.sock"].map(|name| daemon.runtime().join(name));
        let mut silent = Vec::new();
        for (number, path) in sockets.iter().cycle().take(IDLE).enumerate() {
            let stream = UnixStream::connect(path)
                .with_context(|| format!("connection {number} to {}", path.display()))?;
            silent.push(stream);
            if number % 2_500 == 0 {
                daemon.ctl(&["status", "--json"])?;
            }
        }
        let open = fs::read_dir(format!("/proc/{}/fd", daemon.pid()))?.count();
        ensure!(open < FEW, "the daemon has {open} files open");
        ensure!(daemon.pinholes()? > 0, "no pinhole is told");
        let other = format!("{}\n[limits]\ncalls = 77\n", config(network));
        let answer = daemon.reload(&other)?;
        ensure!(answer["ok"] == true, "{answer}");
        drop(silent);
        Ok(daemon)
    })?;
    hang_up(&stage)
}
