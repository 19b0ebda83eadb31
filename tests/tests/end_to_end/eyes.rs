//! What an operator sees, with a real daemon and real packets behind it: metrics.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use sipfilter_tests::lab::{
    address::Family,
    daemon::{self, Daemon, Filter, Mode},
    namespace::Namespace,
    sipp::{Answer, Progress},
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
    ]
}

/// What the edge's own Prometheus would get.
fn scrape(edge: &Namespace) -> Result<String> {
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

fn value(text: &str, series: &str) -> Result<f64> {
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
