//! Real traffic against what a pinhole takes besides its sources: payload types, a packet budget, a latch. Each reason of a drop is
//! reached, and what belongs to the call arrives.

use anyhow::{Context as _, Result, ensure};
use sipfilter_tests::lab::{
    address::Family,
    attack::{Attack, Kind},
    call::{Call, Role},
    daemon::{self, Daemon, Filter, Mode},
    rehearsal::Reasons,
    sipp::{Answer, Cue, Progress},
    stage::Stage,
    topology::{Network, OUTER, Topology},
};

use crate::Test;

const PACKETS: u32 = 25;
const ROUNDS: usize = 5;

pub fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    for (name, family) in [("ipv4", Family::V4), ("ipv6", Family::V6)] {
        tests.push(Test::new(
            format!("a_latch_shuts_out_whoever_comes_second::{name}"),
            move || latch(family),
        ));
    }
    tests.push(Test::new(
        "what_was_not_negotiated_does_not_pass",
        payload_type,
    ));
    tests.push(Test::new("a_stream_has_a_budget", budget));
    tests
}

fn all(_: &Call) -> bool {
    true
}

/// One call each way under a filter whose provider's `media` says this.
fn stage(family: Family, from: &str, to: &str) -> Result<Stage> {
    let network = Network::build(Topology::Routed, family, &[])?;
    let config = daemon::config(&network, &[OUTER], Mode::Native);
    ensure!(config.contains(from), "the lab's configuration has changed");
    let daemon = Daemon::start_with(&network, "sipfilter", &config.replace(from, to))?;
    let mut stage = Stage::set(network, Filter::None, 1, 1)?;
    stage.daemon = Some(daemon);
    stage.place_calls(Answer::AtOnce, Progress::Established)?;
    Ok(stage)
}

fn reasons(stage: &Stage) -> Result<Reasons> {
    let daemon = stage.daemon.as_ref().context("a filter")?;
    daemon.settled_reasons()
}

fn ensure_counted(stage: &Stage, reason: &str, least: u64) -> Result<()> {
    let counts = reasons(stage)?;
    ensure!(
        counts.get(reason).is_some_and(|&count| count >= least),
        "{reason} was to be counted {least} times: {counts:?}"
    );
    Ok(())
}

/// Strangers and the provider's other hosts are all within the limits: only the latch tells them from the peer.
fn latch(family: Family) -> Result<()> {
    let mut stage = stage(family, "source = \"signalled\"", "source = \"latch\"")?;
    stage.talk(all, PACKETS)?;
    let attack = Attack::on_media(&stage.network, &stage.calls, ROUNDS)?;
    let fired = attack.fired();
    attack.finish();
    for kind in [
        Kind::OpenPort,
        Kind::WrongProviderAddress,
        Kind::PayloadType,
    ] {
        ensure!(fired.count(kind) > 0, "{} was not tried", kind.title());
        let arrived = stage.arrived(kind);
        ensure!(arrived == 0, "{}: {arrived} arrived", kind.title());
    }
    ensure_counted(
        &stage,
        "wrong_source",
        fired.count(Kind::OpenPort) + fired.count(Kind::WrongProviderAddress),
    )?;
    stage.talk(all, PACKETS)?;
    stage.cue(all, Role::Caller, Cue::Hold, Progress::Hold)?;
    stage.talk(all, PACKETS)?;
    stage.cue(all, Role::Caller, Cue::Resume, Progress::Resume)?;
    stage.talk(all, PACKETS)
}

fn payload_type() -> Result<()> {
    let mut stage = stage(Family::V4, "source", "source")?;
    let attack = Attack::on_media(&stage.network, &stage.calls, ROUNDS)?;
    let fired = attack.fired();
    attack.finish();
    let tried = fired.count(Kind::PayloadType);
    ensure!(tried > 0 && stage.arrived(Kind::PayloadType) == 0);
    ensure_counted(&stage, "payload_type", tried)?;
    stage.talk(all, PACKETS)
}

fn budget() -> Result<()> {
    let media = "source = \"signalled\"";
    let limited = format!("{media}, packets_per_second = 1");
    let mut stage = stage(Family::V4, media, &limited)?;
    stage.agents.send(|_| true, 4 * PACKETS)?;
    stage.agents.settle();
    ensure_counted(&stage, "rate_limited", 2 * u64::from(PACKETS))?;
    let passed = reasons(&stage)?.get("media").copied().unwrap_or_default();
    // Eleven at once for each of two streams, and one more for each second since.
    ensure!((22..=60).contains(&passed), "{passed} packets passed");
    Ok(())
}
