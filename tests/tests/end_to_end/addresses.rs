//! The interfaces' own addresses, where the configuration names none: those that come while the daemon runs.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use sipfilter_tests::lab::{
    address::{Family, Place},
    call::Direction,
    daemon::{self, Daemon, Mode},
    namespace::join,
    sipp::{Answer, Progress},
    stage::Stage,
    topology::{Network, OUTER, Topology},
};

use crate::{
    Test,
    interfaces::{SECOND, works},
};

const PATIENCE: Duration = Duration::from_secs(20);

pub fn tests() -> Vec<Test> {
    vec![Test::new(
        "interfaces::addresses_that_come_later_are_protected_and_stay_so",
        addressed_late,
    )]
}

/// The file names no address: a PBX host whose interface comes, and gets its addresses, when the daemon runs already.
fn addressed_late() -> Result<()> {
    const FIRST: &str = "203.0.113.200";
    const NEW: &str = "203.0.113.201";
    const STORM: u8 = 30;
    let network = Network::build(Topology::OnHost, Family::V4, &[])?;
    let config = daemon::config(&network, &[SECOND, OUTER], Mode::Native);
    let named = config.lines().filter(|line| line.starts_with("addresses"));
    ensure!(named.count() == 1, "{config}");
    let config = config.replace("addresses = [", "# addresses = [");
    let own = Place::PbxCallee.address(Family::V4).to_string();
    network.delete_outer()?;
    join((&network.edge, SECOND), (&network.provider, "spare0"))?;
    network
        .edge
        .ip(&format!("address add {FIRST}/32 dev {SECOND}"))?;
    let daemon = Daemon::start_with(&network, "sipfilter", &config)?;
    ensure!(protected(&daemon)? == [FIRST], "{}", daemon.log());

    network.make_outer(None)?;
    network.connect_outer()?;
    soon_protected(&daemon, &own)?;
    forget_neighbours(&network)?;
    let mut stage = Stage::behind(Some(daemon), network, 2, 2)?;
    stage.place(Direction::Inbound, Answer::AtOnce, Progress::Established)?;
    works(&mut stage, OUTER)?;

    let daemon = stage.daemon.as_ref().context("no daemon")?;
    stage
        .network
        .edge
        .ip(&format!("address add {NEW}/32 dev {OUTER}"))?;
    soon_protected(daemon, NEW)?;
    // All of them by now.
    let (all, pinholes) = (protected(daemon)?, stage.pinholes()?);
    ensure!(pinholes > 0, "the calls have no pinholes");
    let loads = |daemon: &Daemon| daemon.log().matches("did not have before").count();
    let before = loads(daemon);

    // Interfaces and addresses that go and come again are nothing new.
    let said = daemon.log().len();
    stage.network.delete_outer()?;
    daemon.wait_for(said, "the interface is gone")?;
    ensure!(protected(daemon)? == all && stage.pinholes()? == pinholes);
    stage.network.make_outer(None)?;
    daemon.wait_for(said, "there again: filtered")?;
    stage.network.connect_outer()?;
    forget_neighbours(&stage.network)?;
    for _ in 0..STORM {
        for verb in ["add", "delete"] {
            stage
                .network
                .edge
                .ip(&format!("address {verb} {NEW}/32 dev {OUTER}"))?;
        }
    }
    ensure!(protected(daemon)? == all && stage.pinholes()? == pinholes);
    ensure!(loads(daemon) == before, "{}", daemon.log());

    // A storm of new ones loads seldom.
    let begin = Instant::now();
    for host in 0..STORM {
        let address = format!("203.0.113.{}/32 dev {OUTER}", 210 + host);
        stage.network.edge.ip(&format!("address add {address}"))?;
        stage
            .network
            .edge
            .ip(&format!("address delete {address}"))?;
        sleep(Duration::from_millis(100));
    }
    let (more, seconds) = (loads(daemon) - before, begin.elapsed().as_secs());
    ensure!(
        more as u64 <= 2 + seconds / 2,
        "{more} loads in {seconds} s: {}",
        daemon.log()
    );
    stage.talk_through(|_, daemon| daemon.context("no daemon"))?;
    stage.hang_up()
}

/// An interface that is made again is another neighbour than before, which nobody knows until it has sent something.
fn forget_neighbours(network: &Network) -> Result<()> {
    for namespace in [&network.provider, &network.stranger] {
        namespace.ip("neighbour flush all")?;
    }
    Ok(())
}

fn protected(daemon: &Daemon) -> Result<Vec<String>> {
    let status = daemon.ctl(&["status", "--json"])?;
    let protected = status["daemon"]["protected"].as_array();
    let protected = protected.with_context(|| format!("{status}"))?;
    Ok(protected
        .iter()
        .filter_map(|address| Some(address.as_str()?.to_owned()))
        .collect())
}

fn soon_protected(daemon: &Daemon, address: &str) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !protected(daemon)?.iter().any(|known| known == address) {
        ensure!(
            Instant::now() < deadline,
            "{address} is not protected:\n{}",
            daemon.log()
        );
        sleep(Duration::from_millis(50));
    }
    Ok(())
}
