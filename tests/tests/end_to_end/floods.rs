//! A flood under a provider's address: other calls are set up and heard, that provider's calls in progress end as they should, and when it
//! is over everything is as before.

use std::{
    net::{IpAddr, Ipv4Addr},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use sipfilter_tests::lab::{
    address::{Family, Place},
    call::{Call, Direction, Role},
    daemon::{self, Daemon, Mode},
    flood::{self, Flood},
    sipp::{Answer, Cue, Progress},
    stage::Stage,
    topology::{Network, OUTER, Topology},
};

use crate::Test;

/// Calls in progress under the address that the flood comes from.
const THEIRS: u16 = 10;
/// Calls that begin meanwhile, with another address.
const OTHERS: u16 = 100;
const PACKETS: u32 = 25;
/// Protected like the PBX's addresses, but nobody has it: what a PBX makes of thousands of requests a second is its own matter.
const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 99));
const MOST: u64 = 600_000;
/// A flood of fewer proves nothing.
const LEAST: u64 = 100_000;

pub fn tests() -> Vec<Test> {
    vec![Test::new(
        "a_flood_under_a_providers_address_starves_nobody",
        starves_nobody,
    )]
}

fn starves_nobody() -> Result<()> {
    let network = Network::build(Topology::Routed, Family::V4, &[])?;
    let config = daemon::config_with(&network, &[OUTER], Mode::Native, &[NOBODY], &[]);
    let daemon = Daemon::start_with(&network, "sipfilter", &config)?;
    let mut stage = Stage::behind(Some(daemon), network, THEIRS, OTHERS)?;
    let theirs = |call: &Call| call.direction == Direction::Inbound;
    let others = |call: &Call| !theirs(call);
    stage.place(Direction::Inbound, Answer::AtOnce, Progress::Established)?;
    stage.talk(theirs, PACKETS)?;

    let from = Place::ProviderCaller;
    let flood = Flood::start(&stage.network, from, NOBODY, MOST)?;
    stage.place(Direction::Outbound, Answer::AtOnce, Progress::Established)?;
    stage.talk(|_| true, PACKETS)?;
    stage.cue(theirs, Role::Caller, Cue::Proceed, Progress::Ended)?;
    stage.cue(others, Role::Callee, Cue::Proceed, Progress::Ended)?;
    let sent = flood.finish();
    ensure!(sent >= LEAST, "{sent} packets are no flood");

    let (after_the_end, arrived) = stage.talk_after_the_end(|_| true)?;
    ensure!(
        arrived == 0,
        "{arrived} of {after_the_end} packets sent after the end reached the PBX"
    );
    let daemon = stage.daemon.as_ref().context("a filter")?;
    let reasons = daemon.settled_reasons()?;
    let limited = reasons.get("signalling_limited").copied().unwrap_or(0);
    ensure!(
        limited > sent / 2,
        "{limited} of {sent} packets were dropped: {reasons:?}"
    );
    let status = daemon.ctl(&["status", "--json"])?;
    let source = &status["daemon"]["limited_sources"][0];
    ensure!(
        source["source"] == format!("{}/32", from.address(Family::V4))
            && source["requests"] == limited
            && source["messages"] == 0,
        "status names {source}"
    );
    ensure!(
        daemon.log().contains("send more than they may"),
        "nothing in the log"
    );
    sleep(Duration::from_millis(300));
    flood::send_invite(&stage.network, from, NOBODY, "after-the-flood@lab")?;
    sleep(Duration::from_millis(300));
    daemon
        .ctl(&["calls", "show", "after-the-flood@lab", "--json"])
        .context("a new call of that provider is not heard of")?;
    Ok(())
}
