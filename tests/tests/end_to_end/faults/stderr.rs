//! Standard error that nobody reads: a pipe whose other end is open, and full.

use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    thread::sleep,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::{fs::OFlags, process::Signal};
use serde_json::json;
use sipfilter_tests::lab::{
    address::Family,
    daemon::{Daemon, find_program},
    namespace::run,
    sipp::{Answer, Progress},
    stage::Stage,
    topology::{Network, Topology},
};

use super::{Manager, NAME, config, hang_up, says, soon, survive};
use crate::Test;

pub fn tests() -> Vec<Test> {
    vec![Test::new(
        "faults::a_log_that_nobody_reads_stops_nothing",
        unread,
    )]
}

/// A pipe with a name, of which this process holds both ends, so that nobody writes into it in vain.
struct Pipe(File);

impl Pipe {
    fn make(path: &Path) -> Result<Self> {
        run(std::process::Command::new("mkfifo").arg(path))?;
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let both = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(flags)
            .open(path)?;
        Ok(Self(both))
    }

    fn fill(&mut self) -> Result<()> {
        for size in [4_096, 1] {
            loop {
                match self.0.write(&vec![b'\n'; size]) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    /// What is in it, and what comes while it is read.
    fn read(&mut self) -> Result<String> {
        let (mut text, mut quiet) = (Vec::new(), 0);
        while quiet < 10 {
            let mut some = [0; 4_096];
            match self.0.read(&mut some) {
                Ok(size) => {
                    text.extend(&some[..size]);
                    quiet = 0;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    quiet += 1;
                    sleep(Duration::from_millis(50));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

fn unread() -> Result<()> {
    let network = Network::build(Topology::Routed, Family::V4, &[])?;
    let path = network.directory.path().join("unread");
    let mut pipe = Pipe::make(&path)?;
    pipe.fill()?;
    let manager = Manager::listen(&network)?;
    let inside = format!("exec \"$@\" 2>{}", path.display());
    // Something to say of every call.
    let config = config(&network).replacen("[xdp]", "[log]\nlevel = \"debug\"\n\n[xdp]", 1);
    let [env, notify, watchdog] = manager.wrapper();
    let wrapper = [&*env, &*notify, &*watchdog, "bash", "-c", &*inside, "bash"];
    let program = find_program("sipfilterd")?;
    let daemon = Daemon::begin_program(&network, NAME, &config, &wrapper, &program)?;
    manager.hear("READY=1")?;
    let mut stage = Stage::behind(Some(daemon), network, 2, 2)?;
    stage.place_calls(Answer::AtOnce, Progress::Established)?;
    stage.talk(|_| true, 10)?;
    survive(&mut stage, "nobody reads", |_, daemon| {
        let refused = daemon.reload("garbage")?;
        ensure!(refused["ok"] == json!(false), "{refused}");
        let again = daemon.reload(&format!("{config}\n[limits]\ncalls = 77\n"))?;
        ensure!(again["ok"] == json!(true), "{again}");
        manager.is_content()?;
        Ok(daemon)
    })?;
    hang_up(&stage)?;

    let daemon = stage.daemon.take().context("a filter")?;
    let status = daemon.ctl(&["status", "--json"])?;
    ensure!(
        status["daemon"]["log_lines_lost"] == json!(0),
        "there was room for all of it: {status}"
    );
    // Nothing of it is lost, and it comes in its order.
    let log = pipe.read()?;
    let order = [
        "ready",
        "call started",
        "nothing has changed",
        "reloaded",
        "call ended",
    ];
    says("read at last", &log, &order)?;
    let places = order.map(|words| log.find(words));
    ensure!(places.is_sorted(), "{places:?}: {log}");
    // Neither does it stay for want of a reader.
    pipe.fill()?;
    let status = daemon.stop(Signal::TERM)?;
    ensure!(status.success(), "it ended with {status}");
    soon(|| super::none_of_ours(&stage.network))
}
