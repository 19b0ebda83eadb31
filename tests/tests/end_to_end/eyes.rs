//! What an operator sees, with a real daemon and real packets behind it: metrics, and what becomes of a packet.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;
use sipfilter_tests::lab::{
    address::{Family, Place},
    call::{Call, Role},
    daemon::{self, Daemon, Filter, Mode},
    namespace::Namespace,
    sipp::{Answer, Cue, Progress},
    stage::Stage,
    topology::{Network, OUTER, Topology},
};

use crate::Test;

const METRICS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9_760);
const PATIENCE: Duration = Duration::from_secs(10);

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("metrics_tell_of_calls_and_packets", metrics),
        Test::new("metrics_are_no_reason_not_to_filter", metrics_refused),
        Test::new(
            "explain_says_what_becomes_of_a_packet_with_and_without_the_daemon",
            explain,
        ),
    ]
}

/// What the edge's own Prometheus would get.
pub fn scrape(edge: &Namespace) -> Result<String> {
    let answer = edge.enter(|| -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&METRICS, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })??;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    ensure!(
        answer.contains("application/openmetrics-text") && answer.ends_with("# EOF\n"),
        "no OpenMetrics:\n{answer}"
    );
    Ok(answer)
}

pub fn value(text: &str, series: &str) -> Result<f64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
        .with_context(|| format!("no {series} in\n{text}"))?;
    Ok(line.parse()?)
}

fn metrics() -> Result<()> {
    let network = Network::build(Topology::Routed, Family::V4, &[])?;
    let mut stage = Stage::set(network, Filter::Sipfilter(Mode::Native), 2, 1)?;
    stage.place_calls(Answer::AtOnce, Progress::Established)?;
    stage.talk(|_| true, 20)?;
    let open = stage.pinholes()? as f64;
    let expected = [
        ("sipfilter_enforcing", 1.0),
        (
            "sipfilter_calls_in_progress{provider=\"lab\",state=\"confirmed\"}",
            3.0,
        ),
        (
            "sipfilter_calls_one_way{provider=\"lab\",silent=\"pbx\"}",
            0.0,
        ),
        ("sipfilter_table_entries{table=\"pinholes\"}", open),
        ("sipfilter_pinhole_opening_seconds_count", open),
        ("sipfilter_calls_confirmed_total", 3.0),
        (
            "sipfilter_packets_total{reason=\"media\",verdict=\"pass\"}",
            60.0,
        ),
        (
            "sipfilter_provider_packets_total{provider=\"lab\",outcome=\"media\"}",
            60.0,
        ),
        (
            "sipfilter_provider_packets_total{provider=\"lab\",outcome=\"egress_media\"}",
            60.0,
        ),
        (
            "sipfilter_signalling_copies_total{outcome=\"copy_lost\"}",
            0.0,
        ),
    ];
    // Pinholes are looked at once a second, and an answer is given again for a second.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = scrape(&stage.network.edge)?;
        let mut wrong = Vec::new();
        for (series, expect) in expected {
            let found = value(&text, series)?;
            if found != expect {
                wrong.push(format!("{series} is {found}, not {expect}"));
            }
        }
        if wrong.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{}", wrong.join("\n"));
        }
        thread::sleep(Duration::from_millis(500));
    }
}

/// Switched off, nobody listens; where somebody else does, the daemon says so and filters.
fn metrics_refused() -> Result<()> {
    let network = Network::build(Topology::Routed, Family::V4, &[])?;
    let config = daemon::config(&network, &[OUTER], Mode::Native);
    let off = format!("{config}\n[metrics]\nlisten = \"off\"\n");
    let daemon = Daemon::start_with(&network, "off", &off)?;
    let refused = network.edge.enter(|| TcpStream::connect(METRICS))?;
    ensure!(
        refused.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused),
        "somebody listens"
    );
    drop(daemon);
    let _taken = network.edge.enter(|| TcpListener::bind(METRICS))??;
    let daemon = Daemon::start_with(&network, "taken", &config)?;
    ensure!(
        daemon.log().contains("no metrics") && daemon.log().contains("127.0.0.1:9760"),
        "the log does not say why there are no metrics:\n{}",
        daemon.log()
    );
    Ok(())
}

/// Asks about a datagram until the answer holds these words, by its fields. The daemon reads what agents say while they go on, and
/// a machine that is busy with something else may let it fall behind.
fn explained(
    ask: &impl Fn(&[&str]) -> Result<Value>,
    (source, destination): (SocketAddr, SocketAddr),
    more: &[&str],
    expect: &[(&str, &str)],
) -> Result<()> {
    let (source, destination) = (source.to_string(), destination.to_string());
    let words = ["--json", "explain", "udp", &source, &destination];
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = ask(&[&words, more].concat())?;
        let wrong = expect.iter().find(|(pointer, expect)| {
            match answer.pointer(pointer).unwrap_or(&Value::Null) {
                Value::String(text) => !text.contains(expect),
                Value::Null => *expect != "null",
                _ => true,
            }
        });
        let Some((pointer, expect)) = wrong else {
            return Ok(());
        };
        if Instant::now() > deadline {
            bail!("{source} -> {destination} {more:?}: no {expect:?} at {pointer}: {answer:#}");
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn explain() -> Result<()> {
    let network = Network::build(Topology::Routed, Family::V4, &[])?;
    let mut stage = Stage::set(network, Filter::Sipfilter(Mode::Native), 2, 0)?;
    stage.place_calls(Answer::AtOnce, Progress::Established)?;
    stage.talk(|_| true, 5)?;
    let [first, second] = [&stage.calls[0], &stage.calls[1]].map(Call::clone);
    let stranger = SocketAddr::new(Place::Stranger.address(Family::V4), 4_000);
    let beside = SocketAddr::new(first.pbx_media.ip(), first.pbx_media.port() + 2);
    let daemon = stage.daemon.take().context("a daemon")?;
    let ask = |words: &[&str]| daemon.ctl(words);
    let right = (first.provider_media, first.pbx_media);
    let place = first.pbx_media.to_string();
    explained(
        &ask,
        right,
        &[],
        &[
            ("/basis", "daemon"),
            ("/verdict", "pass"),
            ("/reason", "media"),
            ("/pinhole", &place),
            ("/call/provider", "lab"),
            ("/nearest_miss", "null"),
        ],
    )?;
    explained(
        &ask,
        (stranger, first.pbx_media),
        &[],
        &[
            ("/verdict", "drop"),
            ("/reason", "wrong_source"),
            ("/nearest_miss/why", "wrong_source"),
            (
                "/nearest_miss/text",
                &format!("expects {}", first.provider_media.ip()),
            ),
        ],
    )?;
    explained(
        &ask,
        right,
        &["--payload-type", "77"],
        &[
            ("/reason", "payload_type"),
            ("/nearest_miss/text", "arrived with payload type 77"),
        ],
    )?;
    explained(
        &ask,
        (first.provider_media, beside),
        &[],
        &[
            ("/reason", "no_pinhole"),
            ("/nearest_miss/why", "next_port"),
            ("/nearest_miss/text", "below this one"),
        ],
    )?;
    explained(
        &ask,
        (stranger, SocketAddr::new(first.pbx_media.ip(), 5_060)),
        &[],
        &[
            ("/content", "SIP"),
            ("/reason", "unknown_source"),
            ("/nearest_miss/why", "not_a_provider"),
        ],
    )?;
    stage.cue(
        |call| call.number == first.number,
        Role::Caller,
        Cue::Proceed,
        Progress::Ended,
    )?;
    explained(
        &ask,
        right,
        &[],
        &[
            ("/reason", "no_pinhole"),
            ("/nearest_miss/why", "closed"),
            ("/nearest_miss/text", "s ago)"),
        ],
    )?;

    let runtime = daemon.runtime().to_owned();
    daemon.stop(Signal::KILL)?;
    let edge = stage.network.edge.name().to_owned();
    let file = stage.network.directory.path().join("sipfilter.toml");
    let file = file.to_str().context("a plain path")?;
    let ask = |words: &[&str]| daemon::ctl(&edge, &runtime, words);
    let right = (second.provider_media, second.pbx_media);
    explained(
        &ask,
        right,
        &["--config", file, "--maps"],
        &[
            ("/basis", "maps"),
            ("/reason", "media"),
            ("/call", "null"),
            ("/notes/0", "still filters"),
        ],
    )?;
    explained(
        &ask,
        right,
        &["--config", file],
        &[("/basis", "configuration"), ("/reason", "no_pinhole")],
    )
}
