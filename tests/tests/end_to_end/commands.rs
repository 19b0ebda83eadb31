//! Every command of `sipfilterctl` on a call that nobody hears: each prints JSON as its schema says, and text for people that ends alike.
//!
//! What they say is other tests' matter. Their texts lie in the lab's directory, which stays where `SIPFILTER_LAB_KEEP` is set.

use std::{collections::BTreeSet, fs, net::SocketAddr, net::UdpSocket, process::Output};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use sipfilter_tests::lab::{
    address::{Family, Place},
    daemon::{self, Filter, Mode, find_program},
    namespace::Namespace,
    schema,
    sipp::{Answer, Progress},
    stage::Stage,
    topology::{Network, OUTER, Topology},
};

use crate::{Test, drops::rtp};

/// Those that go on until they are told to end; the tests of drops and captures hold their JSON against its schema.
const WITHOUT_END: [&str; 2] = ["monitor", "capture"];

/// Those that look and change nothing, with what they need, and their exit statuses.
const LOOKING: &[(&str, &[&str], &[i32])] = &[
    ("status", &[], &[0]),
    ("calls", &[], &[0]),
    ("calls show", &["{call}"], &[0]),
    ("pinholes", &[], &[0]),
    ("stats", &[], &[0]),
    ("maps dump", &[], &[0]),
    ("top", &["--once"], &[0]),
    // The lab's host may lack something.
    ("doctor", &["--config", "{config}"], &[0, 1]),
    ("check-config", &["--config", "{config}"], &[0]),
    ("providers", &["--config", "{config}"], &[0]),
    // Nobody answers here.
    (
        "providers check",
        &[
            "vapi-us",
            "--resolver",
            "127.0.0.1:9",
            "--config",
            "{config}",
        ],
        &[2],
    ),
    ("drops", &[], &[0]),
    ("strangers", &[], &[0]),
    // It enforces already, and a call is silent.
    ("report", &[], &[0, 1]),
    ("explain", &["udp", "{stranger}", "{media}"], &[1]),
    (
        "simulate",
        &[
            "{capture}",
            "--pbx",
            "203.0.113.10",
            "--provider",
            "198.51.100.20/32",
        ],
        &[0],
    ),
];

/// Those that change something, in this order; the last one once the daemon is gone.
const DOING: &[(&str, &[&str], &[i32])] = &[
    ("reload", &[], &[0]),
    ("confirm", &["--config", "{config}"], &[1]),
    ("rollback", &[], &[1]),
    ("apply", &["{other}", "--confirm", "60s"], &[0]),
    ("rollback", &[], &[0]),
    ("calls close", &["{call}"], &[0]),
    ("calls close", &["nobody"], &[1]),
    ("detach", &[], &[0]),
];

pub fn tests() -> Vec<Test> {
    vec![Test::new(
        "commands::each_answers_as_its_schema_says",
        every_command,
    )]
}

fn run(edge: &Namespace, words: &[String]) -> Result<Output> {
    let program = find_program("sipfilterctl")?;
    let mut command = edge.command(program.to_str().context("a plain path")?);
    Ok(command.args(words).output()?)
}

/// Runs one and holds its answer against the schema.
fn check_json(
    edge: &Namespace,
    (name, more, statuses): (&str, &[String], &[i32]),
    runtime: &str,
) -> Result<()> {
    let mut words: Vec<String> = name.split(' ').map(ToOwned::to_owned).collect();
    words.extend_from_slice(more);
    let arguments: Vec<&str> = words.iter().map(String::as_str).collect();
    let all = [
        &[
            "--json".to_owned(),
            "--runtime-dir".to_owned(),
            runtime.to_owned(),
        ],
        words.as_slice(),
    ]
    .concat();
    let output = run(edge, &all)?;
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    let status = output.status.code().unwrap_or(-1);
    ensure!(
        statuses.contains(&status),
        "{words:?}: {status}: {text}{errors}"
    );
    let answer =
        serde_json::from_str(&text).with_context(|| format!("{words:?}: {text}{errors}"))?;
    schema::check(&arguments, &answer)
}

fn check_text(
    edge: &Namespace,
    (name, more, statuses): (&str, &[String], &[i32]),
    runtime: &str,
) -> Result<String> {
    let mut words = vec!["--runtime-dir".to_owned(), runtime.to_owned()];
    words.extend(name.split(' ').map(ToOwned::to_owned));
    words.extend_from_slice(more);
    let output = run(edge, &words)?;
    let text = String::from_utf8(output.stdout)?;
    let status = output.status.code().unwrap_or(-1);
    ensure!(statuses.contains(&status), "{words:?}: {status}: {text}");
    ensure!(!text.trim().is_empty(), "{words:?} says nothing");
    let is_harmless = |letter: char| letter == '\n' || !letter.is_control();
    ensure!(text.chars().all(is_harmless), "{words:?}: {text:?}");
    let errors = String::from_utf8_lossy(&output.stderr);
    Ok(format!("{text}{errors}exit {status}\n"))
}

/// A capture file with one datagram of nobody's.
fn capture_file() -> Vec<u8> {
    let payload = rtp();
    let length = |more: usize| u16::try_from(payload.len() + more).unwrap_or(u16::MAX);
    let mut packet = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0];
    packet.extend(length(28).to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 66, 203, 0, 113, 10]);
    packet.extend(4_000_u16.to_be_bytes());
    packet.extend(10_000_u16.to_be_bytes());
    packet.extend(length(8).to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(&payload);
    let size = u32::try_from(packet.len()).unwrap_or(u32::MAX);
    let mut file = Vec::new();
    for word in [
        0xa1b2_c3d4,
        0x0004_0002,
        0,
        0,
        65_535,
        1,
        1_700_000_000,
        0,
        size,
        size,
    ] {
        file.extend(u32::to_le_bytes(word));
    }
    file.extend(packet);
    file
}

fn every_command() -> Result<()> {
    let network = Network::build(Topology::Routed, Family::V4, &[])?;
    let config = daemon::config(&network, &[OUTER], Mode::Native);
    let mut stage = Stage::set(network, Filter::Sipfilter(Mode::Native), 1, 0)?;
    stage.place_calls(Answer::AtOnce, Progress::Established)?;
    let call = stage.calls[0].clone();
    let stranger = SocketAddr::new(Place::Stranger.address(Family::V4), 4_000);
    let socket = stage
        .network
        .stranger
        .enter(|| UdpSocket::bind(stranger))??;
    for _ in 0..5 {
        socket.send_to(&rtp(), call.pbx_media)?;
    }
    let directory = stage.network.directory.path().to_owned();
    let path = |name: &str| directory.join(name).display().to_string();
    fs::write(path("capture.pcap"), capture_file())?;
    fs::write(
        path("other.toml"),
        format!("{config}\n[timers]\nmedia_idle = \"4m\"\n"),
    )?;
    let daemon = stage.daemon.take().context("a daemon")?;
    let runtime = daemon.runtime().display().to_string();
    let filled = |words: &[&str]| -> Vec<String> {
        let fill = |word: &&str| match *word {
            "{call}" => call.call_id(),
            "{config}" => daemon.file().display().to_string(),
            "{capture}" => path("capture.pcap"),
            "{other}" => path("other.toml"),
            "{stranger}" => stranger.to_string(),
            "{media}" => call.pbx_media.to_string(),
            word => word.to_owned(),
        };
        words.iter().map(fill).collect()
    };
    let edge = &stage.network.edge;
    let mut texts = String::new();
    for (name, more, statuses) in LOOKING {
        let more = filled(more);
        check_json(edge, (name, &more, statuses), &runtime)?;
        let text = check_text(edge, (name, &more, statuses), &runtime)?;
        texts += &format!("$ sipfilterctl {name} {}\n{text}\n", more.join(" "));
    }
    fs::write(path("texts"), texts)?;
    let doing: Vec<_> = DOING
        .iter()
        .map(|(name, more, statuses)| (*name, filled(more), *statuses))
        .collect();
    let mut daemon = Some(daemon);
    for (name, more, statuses) in &doing {
        if *name == "detach" {
            daemon.take().context("a daemon")?.stop(Signal::KILL)?;
        }
        check_json(edge, (name, more, statuses), &runtime)?;
    }

    let listed = run(edge, &["schema".to_owned()])?;
    let listed = String::from_utf8(listed.stdout)?;
    let listed: BTreeSet<&str> = listed.lines().collect();
    let asked = LOOKING.iter().chain(DOING).map(|(name, ..)| *name);
    let asked: BTreeSet<&str> = asked.chain(WITHOUT_END).collect();
    ensure!(
        listed == asked,
        "not asked: {:?}",
        listed.symmetric_difference(&asked)
    );
    Ok(())
}
