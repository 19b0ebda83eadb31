//! Calls told step by step: hold, early media, CANCEL, BYE by either side. No audio that an open firewall would let through is lost,
//! and none passes afterwards.

use anyhow::{Result, ensure};
use serde_json::json;
use sipfilter_tests::lab::{
    address::Family,
    call::{Call, Direction, Role},
    daemon::{Filter, Mode},
    sipp::{Answer, Cue, Progress},
    stage::Stage,
    topology::{Network, Topology},
};

use crate::Test;

/// One call each way; each story is told for both.
const INBOUND: u16 = 2;
const OUTBOUND: u16 = 2;
const PACKETS: u32 = 25;

pub fn tests() -> Vec<Test> {
    let stories: [(&str, Story); 4] = [
        ("audio_goes_on_through_hold_and_resume", hold_and_resume),
        ("early_media_is_heard_before_the_answer", early_media),
        ("a_cancelled_call_leaves_nothing_open", cancel),
        ("bye_of_either_side_ends_that_call_only", bye_of_either_side),
    ];
    let mut tests = Vec::new();
    for (name, story) in stories {
        for topology in [Topology::Routed, Topology::NatPrivate] {
            tests.push(Test::new(format!("{name}::{topology}"), move || {
                story(stage(topology, Filter::Sipfilter(Mode::Native))?)
            }));
        }
    }
    // Without a filter the audio of the same stories must arrive, or the stories are wrong.
    for (name, story) in [
        ("hold", hold_and_resume as Story),
        ("early_media", early_media),
    ] {
        tests.push(Test::new(
            format!("without_a_filter_the_story_works::{name}"),
            move || story(stage(Topology::Routed, Filter::None)?),
        ));
    }
    tests
}

type Story = fn(Stage) -> Result<()>;

fn stage(topology: Topology, filter: Filter) -> Result<Stage> {
    let network = Network::build(topology, Family::V4, &[])?;
    Stage::set(network, filter, INBOUND, OUTBOUND)
}

fn all(_: &Call) -> bool {
    true
}

fn hold_and_resume(mut stage: Stage) -> Result<()> {
    stage.place_calls(Answer::AtOnce, Progress::Established)?;
    stage.talk(all, PACKETS)?;
    stage.cue(all, Role::Caller, Cue::Hold, Progress::Hold)?;
    stage.talk(all, PACKETS)?;
    stage.cue(all, Role::Caller, Cue::Resume, Progress::Resume)?;
    stage.talk(all, PACKETS)?;
    stage.cue(all, Role::Callee, Cue::Proceed, Progress::Ended)?;
    nothing_is_left(&stage)
}

fn early_media(mut stage: Stage) -> Result<()> {
    stage.place_calls(Answer::AfterEarlyMedia, Progress::Early)?;
    stage.talk(all, PACKETS)?;
    stage.cue(all, Role::Callee, Cue::Proceed, Progress::Established)?;
    stage.talk(all, PACKETS)?;
    stage.cue(all, Role::Caller, Cue::Proceed, Progress::Ended)?;
    nothing_is_left(&stage)
}

fn cancel(mut stage: Stage) -> Result<()> {
    stage.place_calls(Answer::AfterEarlyMedia, Progress::Early)?;
    stage.talk(all, PACKETS)?;
    stage.cue(all, Role::Caller, Cue::Proceed, Progress::Ended)?;
    nothing_is_left(&stage)
}

fn bye_of_either_side(mut stage: Stage) -> Result<()> {
    stage.place_calls(Answer::AtOnce, Progress::Established)?;
    let even = |call: &Call| call.number.is_multiple_of(2);
    stage.cue(even, Role::Caller, Cue::Proceed, Progress::Ended)?;
    ended(&stage, even)?;
    let odd = |call: &Call| !even(call);
    stage.talk(odd, PACKETS)?;
    stage.cue(odd, Role::Callee, Cue::Proceed, Progress::Ended)?;
    nothing_is_left(&stage)?;
    for call in &stage.calls {
        is_recorded(&stage, call)?;
    }
    Ok(())
}

/// `calls show` tells who talked to whom, what was open for it, and who ended it.
fn is_recorded(stage: &Stage, call: &Call) -> Result<()> {
    let Some(daemon) = &stage.daemon else {
        return Ok(());
    };
    let record = daemon.ctl(&["calls", "show", &call.call_id(), "--json"])?;
    let by_provider = (call.direction == Direction::Inbound) == (call.ends_by() == Role::Caller);
    let (from, reason) = if by_provider {
        ("provider", "bye_remote")
    } else {
        ("pbx", "bye_local")
    };
    let what = |kind: &str, key: &str, value: &str| {
        let timeline = record["timeline"].as_array();
        timeline.into_iter().flatten().any(|moment| {
            moment["kind"] == kind
                && moment[key] == value
                && (kind != "message" || moment["from"] == from)
        })
    };
    let is_told = record["local_media"] == json!([call.pbx_media])
        && record["remote_media"] == json!([call.provider_media])
        && record["end"]["reason"] == reason
        && what("message", "method", "BYE")
        && what("pinhole", "change", "opened")
        && what("pinhole", "change", "closed");
    ensure!(is_told, "the record of {call:?} says: {record}");
    Ok(())
}

fn nothing_is_left(stage: &Stage) -> Result<()> {
    ended(stage, all)?;
    let left = stage.pinholes()?;
    ensure!(left == 0, "{left} pinholes are left after all calls ended");
    Ok(())
}

fn ended(stage: &Stage, chosen: impl Fn(&Call) -> bool) -> Result<()> {
    let (sent, arrived) = stage.talk_after_the_end(chosen)?;
    ensure!(sent > 0, "nothing was sent after the end");
    if stage.daemon.is_some() {
        ensure!(
            arrived == 0,
            "{arrived} of {sent} packets sent after the end reached the PBX"
        );
    } else {
        ensure!(
            arrived == sent,
            "{arrived} of {sent} packets arrived without a filter"
        );
    }
    Ok(())
}
