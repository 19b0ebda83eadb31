//! Faults, each tried while calls talk and strangers send: every packet of a call must arrive and none of a stranger's, the daemon must
//! say what is wrong, and afterwards the calls must end as they should.
//!
//! `lifecycle` has what belongs to a daemon's usual life; here are the accidents.

mod beside;
mod clock;
mod control;
mod deaths;
mod descriptors;
mod disk;
mod full;
mod interrupted;
mod pins;
mod reloads;
mod starts;
mod stderr;

use std::{
    os::unix::net::UnixDatagram,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use sipfilter_tests::lab::{
    address::Family,
    daemon::{self, Daemon, Filter, Mode},
    sipp::{Answer, Progress},
    stage::Stage,
    topology::{Attachments, Network, OUTER, Topology},
};

use crate::Test;

pub fn tests() -> Vec<Test> {
    deaths::tests()
        .into_iter()
        .chain(beside::tests())
        .chain(clock::tests())
        .chain(control::tests())
        .chain(descriptors::tests())
        .chain(disk::tests())
        .chain(full::tests())
        .chain(interrupted::tests())
        .chain(pins::tests())
        .chain(reloads::tests())
        .chain(starts::tests())
        .chain(stderr::tests())
        .collect()
}

const NAME: &str = "sipfilter";
/// How long a daemon may take to say something.
const PATIENCE: Duration = Duration::from_secs(20);

/// Calls in progress behind a filter.
fn calls(inbound: u16, outbound: u16) -> Result<Stage> {
    let network = Network::build(Topology::Routed, Family::V4, &[])?;
    let mut stage = Stage::set(network, Filter::Sipfilter(Mode::Native), inbound, outbound)?;
    stage.place_calls(Answer::AtOnce, Progress::Established)?;
    // On a busy machine the daemon may read of an answer later than the agents do.
    let pinholes = 2 * usize::from(inbound + outbound);
    soon(|| {
        let open = stage.pinholes()?;
        ensure!(open == pinholes, "{open} of {pinholes} pinholes are open");
        Ok(())
    })?;
    stage.talk(|_| true, 5)?;
    Ok(stage)
}

fn config(network: &Network) -> String {
    daemon::config(network, &[OUTER], Mode::Native)
}

/// Lets a fault happen; nothing may be lost, no stranger may get through, and all pinholes must still be there.
fn survive(
    stage: &mut Stage,
    what: &str,
    fault: impl FnOnce(&Network, Daemon) -> Result<Daemon>,
) -> Result<()> {
    let before = stage.pinholes()?;
    ensure!(before > 0, "{what}: no pinhole is open");
    let through = stage
        .talk_through(|network, daemon| fault(network, daemon.context("no daemon")?))
        .with_context(|| what.to_owned())?;
    ensure!(
        through.sent > 0 && through.strangers_sent > 0,
        "{what}: nobody sent anything: {through:?}"
    );
    let after = stage.pinholes()?;
    ensure!(
        after == before,
        "{what}: {before} pinholes before, {after} after it"
    );
    one_of_each(&stage.network).with_context(|| what.to_owned())
}

/// Ends the calls, which must leave nothing behind.
fn hang_up(stage: &Stage) -> Result<()> {
    stage.hang_up()
}

fn one_of_each(network: &Network) -> Result<()> {
    Attachments::one_of_each(&network.edge, OUTER)
}

/// What must be so soon: the kernel lets go of a link some time after the process that held it.
fn soon(is_so: impl Fn() -> Result<()>) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(3);
    loop {
        match is_so() {
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => sleep(Duration::from_millis(20)),
            Ok(()) => return Ok(()),
        }
    }
}

fn none_of_ours(network: &Network) -> Result<()> {
    let left = Attachments::on(&network.edge, OUTER)?;
    ensure!(left.xdp.is_empty() && left.egress == 0, "{left:?} stays");
    Ok(())
}

/// Waits until the daemon says so.
fn wait_for(daemon: &Daemon, words: &str) -> Result<()> {
    daemon.wait_for(0, words)
}

/// Every word must be in what the daemon says.
fn says(what: &str, log: &str, words: &[&str]) -> Result<()> {
    for word in words {
        ensure!(
            log.contains(word),
            "{what}: nothing is said of `{word}`:\n{log}"
        );
    }
    ensure!(!log.contains("panicked"), "{what}: {log}");
    Ok(())
}

/// A service manager: what it hears of a daemon (sd_notify(3)).
struct Manager {
    socket: UnixDatagram,
    path: String,
}

impl Manager {
    /// A sign of life is due within so long.
    const WATCHDOG: Duration = Duration::from_secs(3);

    fn listen(network: &Network) -> Result<Self> {
        let path = network.directory.path().join("notify");
        Ok(Self {
            socket: UnixDatagram::bind(&path)?,
            path: path.display().to_string(),
        })
    }

    /// The words before a daemon's that name it.
    fn wrapper(&self) -> [String; 3] {
        [
            "env".to_owned(),
            format!("NOTIFY_SOCKET={}", self.path),
            format!("WATCHDOG_USEC={}", Self::WATCHDOG.as_micros()),
        ]
    }

    /// Waits until it hears this.
    fn hear(&self, wanted: &str) -> Result<()> {
        self.hear_within(wanted, PATIENCE)
    }

    fn hear_within(&self, wanted: &str, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        let mut heard = String::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "`{wanted}` did not come, but {heard:?}");
            self.socket.set_read_timeout(Some(left))?;
            let mut message = [0; 1_024];
            let size = self.socket.recv(&mut message).unwrap_or_default();
            heard.push_str(&String::from_utf8_lossy(&message[..size]));
            if heard.lines().any(|line| line == wanted) {
                return Ok(());
            }
        }
    }

    /// What it has heard by now is over; from now on each sign of life must come in time.
    fn is_content(&self) -> Result<()> {
        self.socket.set_nonblocking(true)?;
        let mut message = [0; 1_024];
        while self.socket.recv(&mut message).is_ok() {}
        self.socket.set_nonblocking(false)?;
        for _ in 0..3 {
            self.hear_within("WATCHDOG=1", Self::WATCHDOG)?;
        }
        Ok(())
    }
}
