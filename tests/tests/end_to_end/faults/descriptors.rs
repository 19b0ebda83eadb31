//! No file descriptor left: taken by connections that ask nothing, up to the limit.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    thread::sleep,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use sipfilter_tests::lab::{
    address::Family,
    daemon::{Daemon, find_program},
    sipp::{Answer, Progress},
    stage::Stage,
    topology::{Network, Topology},
};

use super::{Manager, NAME, config, hang_up, says, survive, wait_for};
use crate::Test;

pub fn tests() -> Vec<Test> {
    vec![Test::new(
        "faults::no_descriptor_left_stops_no_call_and_ends_with_its_cause",
        exhausted,
    )]
}

const METRICS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9_760);
/// Of each socket: more than descriptors that are free below the limit.
const CONNECTIONS: usize = 40;
const WORDS: &str = "nobody can connect";

/// Connections that take every descriptor that a daemon may have, until they are dropped.
struct Exhausted {
    pid: Pid,
    before: Rlimit,
    _unix: Vec<UnixStream>,
    _tcp: Vec<TcpStream>,
}

impl Exhausted {
    fn of(network: &Network, daemon: &Daemon) -> Result<Self> {
        let open = fs::read_dir(format!("/proc/{}/fd", daemon.pid()))?.count();
        let pid = i32::try_from(daemon.pid())
            .ok()
            .and_then(Pid::from_raw)
            .context("a process")?;
        // The limit is one of their numbers: as many are free below as are used above, for the connections to take.
        let before = limit(pid, Some(open as u64))?;
        let (mut unix, mut tcp) = (Vec::new(), Vec::new());
        for _ in 0..CONNECTIONS {
            for name in ["control.sock", "admin.sock"] {
                unix.push(UnixStream::connect(daemon.runtime().join(name))?);
            }
            tcp.push(network.edge.enter(|| TcpStream::connect(METRICS))??);
        }
        Ok(Self {
            pid,
            before,
            _unix: unix,
            _tcp: tcp,
        })
    }
}

impl Drop for Exhausted {
    fn drop(&mut self) {
        let _ = prlimit(Some(self.pid), Resource::Nofile, self.before);
    }
}

fn limit(pid: Pid, current: Option<u64>) -> Result<Rlimit> {
    let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
    Ok(prlimit(
        Some(pid),
        Resource::Nofile,
        Rlimit { current, maximum },
    )?)
}

/// Processor time of a process, in hundredths of a second.
fn processor_time(pid: u32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(") ").context("no name")?;
    let times = fields.split(' ').skip(11).take(2);
    times.map(|time| Ok(time.parse::<u64>()?)).sum()
}

fn exhausted() -> Result<()> {
    let network = Network::build(Topology::Routed, Family::V4, &[])?;
    let manager = Manager::listen(&network)?;
    let wrapper = manager.wrapper();
    let wrapper = wrapper.each_ref().map(String::as_str);
    let program = find_program("sipfilterd")?;
    let daemon = Daemon::start_program(&network, NAME, &config(&network), &wrapper, &program)?;
    let mut stage = Stage::behind(Some(daemon), network, 2, 2)?;

    // Calls that begin meanwhile are followed.
    let daemon = stage.daemon.as_ref().context("a filter")?;
    let exhausted = Exhausted::of(&stage.network, daemon)?;
    wait_for(daemon, WORDS)?;
    stage.place_calls(Answer::AtOnce, Progress::Established)?;
    stage.talk(|_| true, 10)?;
    drop(exhausted);
    let daemon = stage.daemon.as_ref().context("a filter")?;
    wait_for(daemon, "connections are taken again")?;

    survive(&mut stage, "no descriptors", |network, daemon| {
        let exhausted = Exhausted::of(network, &daemon)?;
        manager.is_content()?;
        let before = processor_time(daemon.pid())?;
        sleep(Duration::from_secs(3));
        let spent = processor_time(daemon.pid())? - before;
        ensure!(
            spent < 100,
            "{spent} hundredths of a second are spent on nothing"
        );
        drop(exhausted);
        Ok(daemon)
    })?;
    let daemon = stage.daemon.as_ref().context("a filter")?;
    let log = daemon.log();
    says("exhausted", &log, &["LimitNOFILE"])?;
    for socket in ["control.sock", "admin.sock", "metrics"] {
        let lines = log.lines().filter(|line| line.contains(WORDS));
        let said = lines.filter(|line| line.contains(socket)).count();
        ensure!(said == 1, "{socket}: said {said} times:\n{log}");
    }
    // Whoever could not be asked about is not gone.
    for words in [
        "is gone",
        "NOT FILTERED",
        "detached",
        "routes",
        "cannot be told",
    ] {
        ensure!(!log.contains(words), "`{words}`:\n{log}");
    }
    let status = daemon.ctl(&["status", "--json"])?;
    let of_interface = &status["daemon"]["interfaces"][0]["state"];
    ensure!(of_interface == "filtered", "{status}");
    let answer = daemon.reload(&format!(
        "{}\n[limits]\ncalls = 77\n",
        config(&stage.network)
    ))?;
    ensure!(answer["ok"] == true, "{answer}");
    crate::eyes::scrape(&stage.network.edge)?;
    hang_up(&stage)
}
