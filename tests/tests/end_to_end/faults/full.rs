//! Tables that are full: the ring buffer of signalling copies, the pinholes, and a new table that is too small for the old one's pinholes.

use std::{
    net::{IpAddr, Ipv4Addr},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use sipfilter_tests::lab::{
    address::{Family, Place},
    call::{Call, Direction, Role},
    daemon::{self, Daemon, Mode},
    flood::Flood,
    sipp::{Answer, Cue, Progress},
    stage::Stage,
    topology::{Network, OUTER, Topology},
};

use super::{NAME, calls, config, hang_up, says, soon, survive, wait_for};
use crate::Test;

/// Protected like the PBX's addresses, but nobody has it.
const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 99));

pub fn tests() -> Vec<Test> {
    vec![
        Test::new(
            "faults::a_ring_buffer_that_overflows_costs_no_call_in_progress",
            ring_buffer,
        ),
        Test::new(
            "faults::a_full_table_of_pinholes_keeps_what_it_has",
            pinholes,
        ),
        Test::new(
            "faults::slots_that_are_free_again_are_handed_out_again",
            slots,
        ),
        Test::new(
            "faults::a_new_table_that_is_too_small_says_what_it_leaves_out",
            too_small,
        ),
    ]
}

/// The daemon is stopped for so long that the kernel runs out of room for copies.
fn ring_buffer() -> Result<()> {
    let network = Network::build(Topology::Routed, Family::V4, &[])?;
    let config = daemon::config_with(&network, &[OUTER], Mode::Native, &[NOBODY], &[]);
    let daemon = Daemon::start_with(&network, NAME, &config)?;
    let mut stage = Stage::behind(Some(daemon), network, 2, 2)?;
    stage.place_calls(Answer::AtOnce, Progress::Established)?;
    survive(&mut stage, "overflow", |network, daemon| {
        daemon.signal(Signal::STOP);
        let flood = Flood::of_answers(network, Place::ProviderCaller, NOBODY, 100_000)?;
        sleep(Duration::from_secs(3));
        let sent = flood.finish();
        daemon.signal(Signal::CONT);
        wait_for(&daemon, "copies are lost")
            .with_context(|| format!("{sent} answers were sent"))?;
        Ok(daemon)
    })?;
    hang_up(&stage)
}

fn pinholes() -> Result<()> {
    let network = Network::build(Topology::Routed, Family::V4, &[])?;
    let config = format!("{}\n[limits]\npinholes = 4\n", config(&network));
    let daemon = Daemon::start_with(&network, NAME, &config)?;
    let mut stage = Stage::behind(Some(daemon), network, 2, 2)?;
    let first = |call: &Call| call.direction == Direction::Inbound;
    stage.place(Direction::Inbound, Answer::AtOnce, Progress::Established)?;
    stage.talk(first, 10)?;
    // Their signalling passes; there is no room for their media.
    stage.place(Direction::Outbound, Answer::AtOnce, Progress::Established)?;
    stage.talk(first, 25)?;
    ensure!(
        stage.talk(|call| !first(call), 5).is_err(),
        "calls without a pinhole were heard"
    );
    let daemon = stage.daemon.as_ref().context("a filter")?;
    let status = daemon.ctl(&["status", "--json"])?;
    let refused = &status["daemon"]["counters"]["refusals.too_many_pinholes"];
    ensure!(refused.as_u64() > Some(0), "{status}");
    wait_for(daemon, "`pinholes` under [limits]")?;
    ensure!(stage.pinholes()? == 4, "{} pinholes", stage.pinholes()?);
    hang_up(&stage)
}

/// Room for two calls: the third is told that there is none, and once one of the first two is over, another has its place.
fn slots() -> Result<()> {
    let network = Network::build(Topology::Routed, Family::V4, &[])?;
    let config = format!("{}\n[limits]\npinholes = 4\n", config(&network));
    let daemon = Daemon::start_with(&network, NAME, &config)?;
    let mut stage = Stage::behind(Some(daemon), network, 3, 1)?;
    stage.place(Direction::Inbound, Answer::AtOnce, Progress::Established)?;
    let daemon = stage.daemon.as_ref().context("a filter")?;
    wait_for(daemon, "`pinholes` under [limits]")?;
    let all = daemon.ctl(&["calls", "--json"])?;
    let all = all["calls"].as_array().context("no calls")?;
    let mut refused = 0;
    for call in all {
        let number = call["number"].to_string();
        let record = daemon.ctl(&["calls", "show", &number, "--json"])?;
        refused += usize::from(record.to_string().contains("too_many_pinholes"));
    }
    ensure!(
        all.len() == 3 && refused == 1,
        "{refused} were refused of {all:?}"
    );
    let metrics = crate::eyes::scrape(&stage.network.edge)?;
    for line in [
        "sipfilter_table_entries{table=\"pinholes\"} 4",
        "sipfilter_table_capacity{table=\"pinholes\"} 4",
    ] {
        ensure!(metrics.contains(line), "no {line} in\n{metrics}");
    }
    let refused = crate::eyes::value(
        &metrics,
        "sipfilter_refusals_total{refusal=\"too_many_pinholes\"}",
    )?;
    ensure!(refused > 0.0, "{metrics}");

    // They were placed one after the other.
    let (over, kept, last) = (0, 1, 2);
    stage.talk(
        |call| call.number != last && call.direction == Direction::Inbound,
        10,
    )?;
    stage.cue(
        |call| call.number == over,
        Role::Caller,
        Cue::Proceed,
        Progress::Ended,
    )?;
    comes_to(&stage, 2)?;
    stage.place(Direction::Outbound, Answer::AtOnce, Progress::Established)?;
    comes_to(&stage, 4)?;
    let talks = |call: &Call| call.number == kept || call.direction == Direction::Outbound;
    stage.talk(talks, 25)?;
    ensure!(
        stage.talk(|call| call.number == last, 5).is_err(),
        "a call without a pinhole was heard"
    );
    stage.cue(
        |call| call.number != over,
        Role::Caller,
        Cue::Proceed,
        Progress::Ended,
    )?;
    comes_to(&stage, 0)
}

/// Waits until so many pinholes are open.
fn comes_to(stage: &Stage, pinholes: usize) -> Result<()> {
    soon(|| {
        let open = stage.pinholes()?;
        ensure!(open == pinholes, "{open} pinholes are open, not {pinholes}");
        Ok(())
    })
}

/// Fewer places than pinholes: whoever changes the limit hears what it costs.
fn too_small() -> Result<()> {
    let mut stage = calls(2, 2)?;
    let daemon = stage.daemon.take().context("a filter")?;
    daemon.stop(Signal::USR2)?;
    let small = format!("{}\n[limits]\npinholes = 6\n", config(&stage.network));
    let daemon = Daemon::start_with(&stage.network, NAME, &small)?;
    says(
        "too small",
        &daemon.log(),
        &["6", "`pinholes` under [limits]"],
    )?;
    ensure!(daemon.pinholes()? == 6, "{} pinholes", daemon.pinholes()?);
    stage.daemon = Some(daemon);
    hang_up(&stage)
}
