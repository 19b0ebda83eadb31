//! `sipfilterctl monitor` by its filters: under calls and strangers, each shows what it says and nothing else, as text and as JSON.
//!
//! One that follows without a filter tells what there was to show.

use std::{
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;
use sipfilter_daemon::view::Drops;
use sipfilter_tests::lab::{
    address::{Family, Place, SIP_PORT},
    call::{Call, Direction, Role},
    daemon::{Daemon, Filter, Mode},
    sipp::{Answer, Cue, Progress},
    stage::Stage,
    topology::{Network, Topology},
};

use crate::{
    Test,
    drops::{Following, rtp, scan, until},
};

const PATIENCE: Duration = Duration::from_secs(15);
const SCANS: u64 = 6;
const ASTRAY: u64 = 5;
/// More than is sampled in any tenth of a second.
const FLOOD: u64 = 2_000;

pub fn tests() -> Vec<Test> {
    let test = |name: &str, family| {
        Test::new(
            format!("monitor_shows_what_its_filters_say_and_nothing_else::{name}"),
            move || filters(family),
        )
    };
    vec![test("ipv4", Family::V4), test("ipv6", Family::V6)]
}

/// A choice by arguments, and what it is by what each event says.
struct Choice {
    arguments: Vec<String>,
    takes: Box<dyn Fn(&str, &Value) -> bool>,
}

fn choice(arguments: &[&str], takes: impl Fn(&str, &Value) -> bool + 'static) -> Choice {
    Choice {
        arguments: arguments.iter().map(|&text| text.to_owned()).collect(),
        takes: Box::new(takes),
    }
}

/// What belongs to a call, or nearly did.
fn is_of(event: &Value, call: u64) -> bool {
    event["call"] == call || event["near"]["call"] == call
}

fn number(daemon: &Daemon, call: &Call) -> Result<u64> {
    let record = daemon.ctl(&["--json", "calls", "show", &call.call_id()])?;
    record["number"].as_u64().context("a call has a number")
}

/// `before` is in progress when somebody begins to look, `after` begins then.
fn choices(stranger: IpAddr, before: (&Call, u64), after: &Call) -> Vec<Choice> {
    let net = match stranger {
        IpAddr::V4(_) => "192.0.2.0/24",
        IpAddr::V6(_) => "2001:db8:2::/48",
    };
    let begins = after.call_id();
    let begins = begins.trim_end_matches("lab");
    let (before, first) = before;
    // Numbers are given in the order in which calls begin.
    let second = first + 1;
    let (stranger, media) = (stranger.to_string(), after.provider_media.ip().to_string());
    let is_drop = |event: &Value| event["event"] == "drop";
    vec![
        choice(&["--address", net], move |line, _| line.contains(&stranger)),
        choice(
            &["--address", &media.clone(), "--address", "100::1"],
            move |line, _| line.contains(&media),
        ),
        choice(&["--call", &before.call_id()], move |_, event| {
            is_of(event, first)
        }),
        choice(&["--call", &first.to_string()], move |_, event| {
            is_of(event, first)
        }),
        choice(&["--call", begins], move |_, event| is_of(event, second)),
        choice(
            &["--reason", "no_pinhole", "--reason", "unknown_source"],
            |_, event| event["reason"] == "no_pinhole" || event["reason"] == "unknown_source",
        ),
        choice(
            &["--call", begins, "--reason", "no_pinhole", "--address", net],
            move |_, event| {
                is_drop(event) && event["reason"] == "no_pinhole" && is_of(event, second)
            },
        ),
    ]
}

fn filters(family: Family) -> Result<()> {
    let network = Network::build(Topology::Routed, family, &[])?;
    let mut stage = Stage::set(network, Filter::Sipfilter(Mode::Native), 1, 1)?;
    stage.place(Direction::Inbound, Answer::AtOnce, Progress::Established)?;
    let [first, second] = [0, 1].map(|index| stage.calls[index].clone());
    let stranger = Place::Stranger.address(family);
    let daemon = stage.daemon.as_ref().context("a filter")?;
    let choices = choices(stranger, (&first, number(daemon, &first)?), &second);

    let quiet = descriptors(daemon)?;
    let all = Following::start(&stage, "all", &["--json", "monitor"])?;
    let mut following = Vec::new();
    for (index, choice) in choices.iter().enumerate() {
        let words: Vec<&str> = choice.arguments.iter().map(String::as_str).collect();
        let start = |name: &str, begin: &[&str]| {
            Following::start(
                &stage,
                &format!("{name}-{index}"),
                &[begin, &words].concat(),
            )
        };
        following.push((
            start("json", &["--json", "monitor"])?,
            start("text", &["monitor"])?,
        ));
    }
    wait_for_readers(daemon, quiet + 1 + 2 * choices.len())?;

    stage.place(Direction::Outbound, Answer::AtOnce, Progress::Established)?;
    stage.talk(|_| true, 5)?;
    strangers_at_work(&stage, stranger, &first, &second)?;
    stage.cue(|_| true, Role::Caller, Cue::Proceed, Progress::Ended)?;
    let daemon = stage.daemon.take().context("a filter")?;
    ensure!(
        number(&daemon, &second)? == number(&daemon, &first)? + 1,
        "calls have other numbers than their order says"
    );
    // What was counted last has been told by then, too.
    thread::sleep(Duration::from_millis(500));
    daemon.stop(Signal::TERM)?;

    let (_, all) = all.end()?;
    let mut events = Vec::new();
    for line in all.lines() {
        let event: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        events.push((line, event));
    }
    let is_marred =
        |(_, event): &&(&str, Value)| event["event"] == "missed" || event["event"] == "lost";
    ensure!(
        events.iter().find(is_marred).is_none(),
        "something is missing: {all}"
    );
    for (choice, (json, text)) in choices.iter().zip(following) {
        let expected: Vec<&(&str, Value)> = events
            .iter()
            .filter(|(line, event)| (choice.takes)(line, event))
            .collect();
        compare(&expected, &json.end()?.1, &text.end()?.1)
            .with_context(|| format!("monitor {}", choice.arguments.join(" ")))?;
        ensure!(
            !expected.is_empty() && expected.len() < events.len(),
            "{:?} chooses nothing, or all: {all}",
            choice.arguments
        );
    }
    Ok(())
}

/// The same lines as JSON, and as text one line each, of the same time and subject.
fn compare(expected: &[&(&str, Value)], json: &str, text: &str) -> Result<()> {
    let lines: Vec<&str> = expected.iter().map(|(line, _)| *line).collect();
    let found: Vec<&str> = json.lines().collect();
    ensure!(found == lines, "JSON: {found:#?} instead of {lines:#?}");
    ensure!(
        text.lines().count() == lines.len(),
        "as text: {text}\ninstead of {lines:#?}"
    );
    for ((_, event), line) in expected.iter().zip(text.lines()) {
        let subject = match event["event"].as_str() {
            Some("drop") => event["reason"].as_str().unwrap_or_default().to_owned(),
            Some("counted") => "are shown".to_owned(),
            _ => format!("call {}", event["call"]),
        };
        let at = event["at"].as_str().unwrap_or_default();
        let at = at
            .trim_end_matches('Z')
            .split('T')
            .nth(1)
            .unwrap_or_default();
        ensure!(
            line.starts_with(at) && line.contains(&subject),
            "{line:?} tells nothing of {event}"
        );
    }
    Ok(())
}

/// Scanners, media to ports that are another's or nobody's, and more of it than is shown.
fn strangers_at_work(stage: &Stage, stranger: IpAddr, first: &Call, second: &Call) -> Result<()> {
    let pbx = SocketAddr::new(Place::PbxCallee.address(stage.network.family), SIP_PORT);
    let media =
        |call: &Call, more: u16| SocketAddr::new(call.pbx_media.ip(), call.pbx_media.port() + more);
    stage.network.stranger.enter(|| -> std::io::Result<()> {
        let sip = UdpSocket::bind(SocketAddr::new(stranger, SIP_PORT))?;
        let socket = UdpSocket::bind(SocketAddr::new(stranger, 45_678))?;
        for _ in 0..SCANS {
            sip.send_to(scan(pbx).as_bytes(), pbx)?;
        }
        for _ in 0..ASTRAY {
            socket.send_to(&rtp(), first.pbx_media)?;
            socket.send_to(&rtp(), media(second, 2))?;
        }
        Ok(())
    })??;
    let daemon = stage.daemon.as_ref().context("a filter")?;
    let counted = |drops: &Drops, reason: &str| {
        let mut rows = drops.reasons.iter();
        rows.find(|row| row.reason == reason)
            .map_or(0, |row| row.packets)
    };
    // The flood is not to take their places.
    until(daemon, &["drops", "--json"], |drops: &Drops| {
        counted(drops, "unknown_source") == SCANS
            && counted(drops, "wrong_source") == ASTRAY
            && counted(drops, "no_pinhole") == ASTRAY
    })?;
    stage.network.stranger.enter(|| -> std::io::Result<()> {
        let socket = UdpSocket::bind(SocketAddr::new(stranger, 45_679))?;
        for _ in 0..FLOOD {
            socket.send_to(&rtp(), media(first, 5_000))?;
        }
        Ok(())
    })??;
    until(daemon, &["drops", "--json"], |drops: &Drops| {
        counted(drops, "no_pinhole") == ASTRAY + FLOOD
    })?;
    Ok(())
}

fn descriptors(daemon: &Daemon) -> Result<usize> {
    // A connection that was just given up may still be counted.
    thread::sleep(Duration::from_millis(200));
    Ok(fs::read_dir(format!("/proc/{}/fd", daemon.pid()))?.count())
}

/// Waits until the daemon has so many descriptors, and not only for a question's time.
fn wait_for_readers(daemon: &Daemon, expect: usize) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut steady = 0;
    while steady < 2 {
        let found = descriptors(daemon)?;
        steady = if found >= expect { steady + 1 } else { 0 };
        if Instant::now() > deadline {
            bail!("{found} descriptors, not {expect}: {}", daemon.log());
        }
    }
    Ok(())
}
