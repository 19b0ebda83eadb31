//! `sipfilterctl monitor` and `drops` by their filters: under calls and strangers, each shows what it says and nothing else, as text and as
//! JSON.
//!
//! A monitor without a filter tells what there was to show.

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
    drops::{Following, ctl, rtp, scan, until},
};

const PATIENCE: Duration = Duration::from_secs(15);
const SCANS: u64 = 6;
const ASTRAY: u64 = 5;
const LATE: u64 = 3;
/// More than is sampled in any tenth of a second.
const FLOOD: u64 = 2_000;

pub fn tests() -> Vec<Test> {
    let test = |name: &str, family| {
        Test::new(
            format!("filters_show_what_they_say_and_nothing_else::{name}"),
            move || filters(family),
        )
    };
    vec![test("ipv4", Family::V4), test("ipv6", Family::V6)]
}

/// Whether an event is chosen, by its line and what that means.
type Takes = Box<dyn Fn(&str, &Value) -> bool>;

/// A choice by arguments, and what it is by what each event says.
struct Choice {
    arguments: Vec<String>,
    takes: Takes,
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
    let choices = choices(
        stranger,
        (&first, daemon.call_number(&first.call_id())?),
        &second,
    );

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
    late_media(&stage, stranger, &first)?;
    let daemon = stage.daemon.take().context("a filter")?;
    let numbers = [
        daemon.call_number(&first.call_id())?,
        daemon.call_number(&second.call_id())?,
    ];
    ensure!(
        numbers[1] == numbers[0] + 1,
        "calls have other numbers than their order says"
    );
    drops(&daemon, stranger, &first, numbers)?;
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

/// Media that comes to a port when its call is over.
fn late_media(stage: &Stage, stranger: IpAddr, first: &Call) -> Result<()> {
    let daemon = stage.daemon.as_ref().context("a filter")?;
    until(daemon, &["pinholes", "--json"], |answer: &Value| {
        answer["pinholes"].as_array().is_some_and(Vec::is_empty)
    })?;
    stage.network.stranger.enter(|| -> std::io::Result<()> {
        let socket = UdpSocket::bind(SocketAddr::new(stranger, 45_678))?;
        for _ in 0..LATE {
            socket.send_to(&rtp(), first.pbx_media)?;
        }
        Ok(())
    })??;
    until(daemon, &["drops", "--json"], |drops: &Drops| {
        packets(drops, "no_pinhole") == ASTRAY + FLOOD + LATE
    })?;
    Ok(())
}

fn packets(drops: &Drops, reason: &str) -> u64 {
    let mut rows = drops.reasons.iter();
    rows.find(|row| row.reason == reason)
        .map_or(0, |row| row.packets)
}

/// Sources are chosen by all three, reasons by reason alone; a call's packets are its own, whatever else their source sent.
fn drops(daemon: &Daemon, stranger: IpAddr, first: &Call, numbers: [u64; 2]) -> Result<()> {
    const NO_PINHOLE: (&str, u64) = ("no_pinhole", ASTRAY + FLOOD + LATE);
    const UNKNOWN: (&str, u64) = ("unknown_source", SCANS);
    const WRONG: (&str, u64) = ("wrong_source", ASTRAY);
    const ALL: &[(&str, u64)] = &[NO_PINHOLE, UNKNOWN, WRONG];
    let check =
        |arguments: &[&str], reasons: &[(&str, u64)], sources: &[(&str, u64, Option<u64>)]| {
            let whole = [&["--json", "drops"], arguments].concat();
            let drops: Drops = serde_json::from_value(daemon.ctl(&whole)?)?;
            let found: Vec<_> = drops
                .reasons
                .iter()
                .map(|row| (row.reason.as_str(), row.packets))
                .collect();
            ensure!(found == reasons, "{arguments:?}: {drops:#?}");
            let mut found: Vec<_> = drops
                .sources
                .iter()
                .map(|row| {
                    let near = row.near.as_ref().map(|near| near.call);
                    (row.reason.as_str(), row.packets, near)
                })
                .collect();
            found.sort_unstable();
            ensure!(found == sources, "{arguments:?}: {drops:#?}");
            ensure!(
                drops
                    .sources
                    .iter()
                    .all(|row| row.source.contains(&stranger))
                    && drops.chosen.is_none() == arguments.is_empty()
                    && (drops.forgotten_sources, drops.left_out_samples) == (0, 0),
                "{arguments:?}: {drops:#?}"
            );
            let output = ctl(daemon.runtime())?
                .arg("drops")
                .args(arguments)
                .output()?;
            let text = String::from_utf8(output.stdout)?;
            let rows = text
                .lines()
                .filter(|line| line.contains(&drops.since[..10]) && !line.starts_with("nothing"))
                .count();
            ensure!(rows == sources.len(), "{arguments:?}: {text}");
            let narrows = arguments.contains(&"--address") || arguments.contains(&"--call");
            ensure!(
                text.contains("These are all packets") == narrows,
                "{arguments:?}: {text}"
            );
            if std::env::var_os("SIPFILTER_SHOW").is_some() {
                eprintln!("$ sipfilterctl drops {}\n{text}", arguments.join(" "));
            }
            Ok(drops)
        };
    let [one, two] = numbers;
    let id = first.call_id();
    let (stranger, second) = (stranger.to_string(), two.to_string());
    // Which call was nearest last, and how many packets a flood had, is told with an estimate.
    let unknown = (UNKNOWN.0, UNKNOWN.1, None);
    let wrong = (WRONG.0, WRONG.1, Some(one));
    let late = ("no_pinhole", LATE, Some(one));
    let beside = ("no_pinhole", ASTRAY, Some(two));
    check(&["--call", &id], ALL, &[late, wrong])?;
    check(&["--call", &second], ALL, &[beside])?;
    check(
        &["--call", &id, "--call", &second],
        ALL,
        &[late, beside, wrong],
    )?;
    check(&["--call", "999999"], ALL, &[])?;
    check(&["--reason", "unknown_source"], &[UNKNOWN], &[unknown])?;
    let both = ["--reason", "unknown_source", "--reason", "wrong_source"];
    check(&both, &[UNKNOWN, WRONG], &[unknown, wrong])?;
    check(&["--reason", "payload_type"], &[], &[])?;
    let here = ["--address", stranger.as_str()];
    check(
        &[&here[..], &both].concat(),
        &[UNKNOWN, WRONG],
        &[unknown, wrong],
    )?;
    check(
        &["--address", "198.51.100.99", "--address", "100::/8"],
        ALL,
        &[],
    )?;
    let mixed = ["--call", &id, "--reason", "wrong_source"];
    check(&mixed, &[WRONG], &[wrong])?;
    check(&[&mixed[..], &here].concat(), &[WRONG], &[wrong])?;
    let elsewhere = ["--address", "198.51.100.99"];
    check(&[&mixed[..], &elsewhere].concat(), &[WRONG], &[])?;
    let least = check(
        &[&both[..], &["--limit", "1"]].concat(),
        &[UNKNOWN, WRONG],
        &[unknown],
    )?;
    ensure!(least.more_sources == 1, "{least:#?}");

    let output = ctl(daemon.runtime())?
        .args(["drops", "--call", "nobody's"])
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(
        output.status.code() == Some(1) && text.contains("no call"),
        "{:?}: {text}",
        output.status
    );
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
    // The flood is not to take their places.
    until(daemon, &["drops", "--json"], |drops: &Drops| {
        packets(drops, "unknown_source") == SCANS
            && packets(drops, "wrong_source") == ASTRAY
            && packets(drops, "no_pinhole") == ASTRAY
    })?;
    stage.network.stranger.enter(|| -> std::io::Result<()> {
        let socket = UdpSocket::bind(SocketAddr::new(stranger, 45_679))?;
        for _ in 0..FLOOD {
            socket.send_to(&rtp(), media(first, 5_000))?;
        }
        Ok(())
    })??;
    until(daemon, &["drops", "--json"], |drops: &Drops| {
        packets(drops, "no_pinhole") == ASTRAY + FLOOD
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
