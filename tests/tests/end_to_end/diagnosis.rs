//! Calls with one-way audio: which direction is silent, and whose media came instead, as `sipfilterctl calls` says it.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use sipfilter_tests::lab::{
    address::Family,
    call::{Call, Direction},
    daemon::{Filter, Mode},
    namespace::{Namespace, run},
    sipp::{Answer, Progress},
    stage::Stage,
    topology::{Network, Topology},
};

use crate::{Test, drops::ctl};

const PACKETS: u32 = 110;
/// From where no SDP of the provider's names media.
const ASTRAY: &str = "198.51.100.99";
/// No verdict on a call's media before that.
const SETTLED: Duration = Duration::from_secs(2);

pub fn tests() -> Vec<Test> {
    vec![Test::new(
        "one_way_audio_is_said_with_its_direction",
        one_way_audio,
    )]
}

/// The provider's media of the inbound call comes from elsewhere; the PBX's of the outbound one never leaves.
fn one_way_audio() -> Result<()> {
    let network = Network::build(Topology::Routed, Family::V4, &[])?;
    let mut stage = Stage::set(network, Filter::Sipfilter(Mode::Native), 1, 1)?;
    stage.place_calls(Answer::AtOnce, Progress::Established)?;
    let of = |direction| stage.calls.iter().find(|call| call.direction == direction);
    let astray = of(Direction::Inbound).context("an inbound call")?.clone();
    let mute = of(Direction::Outbound).context("an outbound call")?.clone();
    rules(
        &stage,
        &stage.network.provider,
        &format!(
            "type filter hook postrouting priority 0; udp dport {} ip saddr set {ASTRAY};",
            astray.pbx_media.port()
        ),
    )?;
    rules(
        &stage,
        &stage.network.edge,
        &format!(
            "type filter hook forward priority 0; udp sport {} drop;",
            mute.pbx_media.port()
        ),
    )?;
    ensure!(
        stage.talk(|_| true, PACKETS).is_err(),
        "no stream lost packets, so the rules do nothing"
    );
    std::thread::sleep(SETTLED);

    let daemon = stage.daemon.as_ref().context("a filter")?;
    let listed = daemon.ctl(&["calls", "--json"])?;
    for (call, code, parts) in [
        (
            &astray,
            "silent_provider",
            &[
                "one-way audio: nothing was let in from the provider",
                "were dropped",
                "media came from 198.51.100.99:",
                " instead of 198.51.100.20 ports 40000-60000 (wrong_source, at least ",
            ][..],
        ),
        (
            &mute,
            "silent_pbx",
            &["one-way audio: nothing left from the PBX"],
        ),
    ] {
        let shown = daemon.ctl(&["calls", "show", &call.call_id(), "--json"])?;
        let finding = &shown["findings"][0];
        let text = finding.to_string();
        ensure!(
            finding["code"] == code && parts.iter().all(|part| text.contains(part)),
            "{code}: {shown}"
        );
        if std::env::var_os("SIPFILTER_SHOW").is_some() {
            let show = ctl(daemon.runtime())?
                .args(["calls", "show", &call.call_id()])
                .output()?;
            eprintln!("{}", String::from_utf8_lossy(&show.stdout));
        }
        let of_list = in_list(&listed, call)?;
        ensure!(of_list["finding"] == code, "{code}: {of_list}");
    }
    Ok(())
}

fn in_list<'a>(listed: &'a Value, call: &Call) -> Result<&'a Value> {
    listed["calls"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|listed| listed["call_id"] == call.call_id())
        .with_context(|| format!("{} is not listed: {listed}", call.call_id()))
}

fn rules(stage: &Stage, namespace: &Namespace, rules: &str) -> Result<()> {
    let file = stage
        .network
        .directory
        .path()
        .join(format!("{}.nft", namespace.name()));
    fs::write(
        &file,
        format!("table ip astray {{ chain one {{ {rules} }}; }}\n"),
    )?;
    run(namespace.command("nft").arg("-f").arg(&file))?;
    Ok(())
}
