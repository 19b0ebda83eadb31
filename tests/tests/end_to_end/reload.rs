//! Another configuration while calls talk: all of it or nothing, and no packet of a call that goes on is lost.

use std::{os::unix::net::UnixDatagram, time::Duration};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};
use sipfilter_tests::lab::{
    address::Family,
    call::{Direction, Role},
    daemon::{self, Daemon, Filter, Mode},
    namespace::join,
    sipp::{Answer, Cue, Progress},
    stage::Stage,
    topology::{Attachments, Network, OUTER, Topology},
};

use crate::Test;

const SECOND: &str = "outer1";

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("a_reload_loses_no_packet", another_policy),
        Test::new("reloads_in_a_row_lose_no_packet", many_reloads),
        Test::new(
            "a_provider_that_goes_takes_its_calls_along_and_no_others",
            provider_that_goes,
        ),
        Test::new(
            "a_provider_whose_prefixes_change_keeps_the_calls_that_they_cover",
            prefixes_that_change,
        ),
        Test::new(
            "a_configuration_that_cannot_be_used_changes_nothing",
            refused_configurations,
        ),
        Test::new("a_reload_moves_the_filter_between_interfaces", interfaces),
        Test::new("the_service_manager_hears_of_a_reload", notifications),
        Test::new(
            "calls_after_a_reload_follow_the_new_policy",
            calls_afterwards,
        ),
    ]
}

fn stage() -> Result<(Stage, String)> {
    let network = Network::build(Topology::Routed, Family::V4, &[])?;
    let stage = Stage::set(network, Filter::Sipfilter(Mode::Native), 2, 2)?;
    let config = daemon::config(&stage.network, &[OUTER], Mode::Native);
    Ok((stage, config))
}

/// What must not get lost: other numbers of providers, other sizes of maps, another scope and other addresses.
fn another_policy() -> Result<()> {
    let (mut stage, config) = stage()?;
    stage.place_calls(Answer::AtOnce, Progress::Established)?;
    let before = stage.pinholes()?;
    let other = "[[provider]]\nname = \"other\"\nsignalling = [\"203.0.113.200/32\"]\nmedia = { source = \"signalled\", ports = \"40000-60000\" }\n\n[[trunk]]\nprovider = \"other\"\n\n[[trunk]]";
    for (what, from, to, keys) in [
        (
            "a limit",
            "[xdp]",
            "[limits]\ncalls = 77\n\n[xdp]",
            &["limits.calls"][..],
        ),
        (
            "a provider in front",
            "[[trunk]]",
            other,
            &["provider.other.signalling", "trunk"],
        ),
        (
            "fewer pinholes",
            "[xdp]",
            "[limits]\npinholes = 1000\n\n[xdp]",
            &["limits.pinholes"],
        ),
        (
            "more pinholes",
            "[xdp]",
            "[limits]\npinholes = 3000\n\n[xdp]",
            &["limits.pinholes"],
        ),
        (
            "strict scope",
            "interfaces",
            "scope = \"strict\"\nprovisional = false\ninterfaces",
            &["scope", "provisional"],
        ),
        (
            "another port range",
            "10000-20000",
            "10000-22000",
            &["pbx.rtp_ports"],
        ),
    ] {
        let changed = config.replacen(from, to, 1);
        ensure!(
            changed != config,
            "{what}: the lab's configuration has no `{from}`"
        );
        let mut answer = Value::Null;
        let through = stage
            .talk_through(|_, daemon| {
                let daemon = daemon.context("no daemon")?;
                answer = daemon.reload(&changed)?;
                Ok(daemon)
            })
            .context(what)?;
        ensure!(
            through.sent > 0 && through.strangers_sent > 0,
            "{what}: silence"
        );
        ensure!(answer["ok"] == json!(true), "{what}: {answer}");
        for key in keys {
            ensure!(
                names(&answer, key),
                "{what}: no `{key}` among the changes: {answer}"
            );
        }
        ensure!(stage.pinholes()? == before, "{what}: pinholes were lost");
    }
    stage.hang_up()
}

fn many_reloads() -> Result<()> {
    let (mut stage, config) = stage()?;
    stage.place_calls(Answer::AtOnce, Progress::Established)?;
    let before = stage.pinholes()?;
    stage.talk_through(|_, daemon| {
        let daemon = daemon.context("no daemon")?;
        for number in 0..10 {
            let changed = config.replacen(
                "[xdp]",
                &format!("[limits]\npinholes = {}\n[xdp]", 500 + number % 3),
                1,
            );
            let answer = daemon.reload(&changed)?;
            ensure!(answer["ok"] == json!(true), "{answer}");
        }
        // By signal, of which several may come at once.
        for _ in 0..3 {
            daemon.hang_up();
        }
        Ok(daemon)
    })?;
    ensure!(stage.pinholes()? == before, "pinholes were lost");
    // What the last reload left is what the next start finds.
    stage.talk_through(|network, daemon| {
        daemon.context("no daemon")?.stop(Signal::KILL)?;
        Daemon::start(network, Mode::Native)
    })?;
    ensure!(stage.pinholes()? == before, "the next start lost pinholes");
    Ok(())
}

/// Calls come from one address of the provider and go to another: two providers.
fn provider_that_goes() -> Result<()> {
    let (mut stage, config) = stage()?;
    let two = split(&config)?;
    let daemon = stage.daemon.as_ref().context("no daemon")?;
    ensure!(
        daemon.reload(&two)?["ok"] == json!(true),
        "two providers are refused"
    );
    stage.place_calls(Answer::AtOnce, Progress::Established)?;
    let before = stage.pinholes()?;
    let one = two.replacen("[[trunk]]\nprovider = \"lab-in\"\n", "", 1);
    ensure!(one != two, "there is no such trunk");
    let answer = stage.daemon.as_ref().context("no daemon")?.reload(&one)?;
    ensure!(
        answer["calls_ended"] == json!(2) && names(&answer, "provider.lab-in.signalling"),
        "two calls had to end: {answer}"
    );
    let after = stage.pinholes()?;
    ensure!(
        after > 0 && after * 2 == before && answer["pinholes_closed"] == json!(before - after),
        "{before} pinholes before, {after} after: {answer}"
    );
    stage.talk(|call| call.direction == Direction::Outbound, 10)?;
    let (sent, arrived) = stage.talk_after_the_end(|call| call.direction == Direction::Inbound)?;
    ensure!(
        sent > 0 && arrived == 0,
        "{arrived} of {sent} packets of a provider that is gone arrived"
    );
    Ok(())
}

/// Wider ones, others beside them, and then only those of one direction's calls.
fn prefixes_that_change() -> Result<()> {
    let (mut stage, config) = stage()?;
    let before = addresses(&config)?;
    stage.place_calls(Answer::AtOnce, Progress::Established)?;
    let pinholes = stage.pinholes()?;
    let wider = before
        .replacen("198.51.100.10/32", "198.51.100.8/29", 1)
        .replacen("2001:db8:51::a/128", "2001:db8:51::/64", 1);
    let more = before.replacen("[", "[\"203.0.113.200/32\", ", 1);
    let own: Vec<&str> = before
        .trim_start_matches("signalling = [")
        .trim_end_matches(']')
        .split(", ")
        .skip(1)
        .step_by(2)
        .collect();
    let fewer = format!("signalling = [{}]", own.join(", "));
    for (what, changed) in [("wider", wider), ("more", more), ("fewer", fewer)] {
        let mut answer = Value::Null;
        let through = stage
            .talk_through(|_, daemon| {
                let daemon = daemon.context("no daemon")?;
                answer = daemon.reload(&config.replacen(&before, &changed, 1))?;
                Ok(daemon)
            })
            .context(what)?;
        ensure!(through.sent > 0, "{what}: silence");
        ensure!(
            answer["ok"] == json!(true)
                && answer["calls_ended"] == json!(0)
                && names(&answer, "provider.lab.signalling"),
            "{what}: {answer}"
        );
        ensure!(stage.pinholes()? == pinholes, "{what}: pinholes were lost");
    }
    // What is still covered is still understood.
    stage.cue(
        |call| call.direction == Direction::Outbound,
        Role::Caller,
        Cue::Proceed,
        Progress::Ended,
    )?;
    let (sent, arrived) = stage.talk_after_the_end(|call| call.direction == Direction::Outbound)?;
    ensure!(
        sent > 0 && arrived == 0 && stage.pinholes()? * 2 == pinholes,
        "{arrived} of {sent} packets after BYE arrived"
    );
    Ok(())
}

fn addresses(config: &str) -> Result<String> {
    let mut lines = config.lines();
    let line = lines.find(|line| line.starts_with("signalling"));
    Ok(line
        .context("the provider has no signalling addresses")?
        .to_owned())
}

fn refused_configurations() -> Result<()> {
    let (mut stage, config) = stage()?;
    join(
        (&stage.network.edge, SECOND),
        (&stage.network.provider, "spare0"),
    )?;
    stage.place_calls(Answer::AtOnce, Progress::Established)?;
    let before = status(&stage)?;
    for (what, from, to, word) in [
        ("no TOML", "[pbx]", "[pbx", "sipfilter.toml:"),
        ("an unknown key", "rtp_ports", "rtp_portz", "rtp_portz"),
        (
            "an interface that is not there",
            "\"outer0\"",
            "\"outer0\", \"outer9\"",
            "outer9",
        ),
        (
            "another form of the log",
            "[xdp]",
            "[log]\nformat = \"json\"\n[xdp]",
            "log.format",
        ),
        (
            "metrics",
            "[xdp]",
            "[metrics]\nlisten = \"127.0.0.1:9\"\n[xdp]",
            "metrics.listen",
        ),
        ("another mode", "\"native\"", "\"generic\"", "mode"),
        (
            "too few pinholes",
            "[xdp]",
            "[limits]\npinholes = 1\n[xdp]",
            "pinholes",
        ),
    ] {
        let changed = config.replacen(from, to, 1);
        ensure!(
            changed != config,
            "{what}: the lab's configuration has no `{from}`"
        );
        let mut answer = Value::Null;
        stage
            .talk_through(|_, daemon| {
                let daemon = daemon.context("no daemon")?;
                answer = daemon.reload(&changed)?;
                Ok(daemon)
            })
            .context(what)?;
        ensure!(answer["ok"] == json!(false), "{what}: {answer}");
        let errors = answer["errors"].to_string();
        ensure!(errors.contains(word), "{what}: no `{word}` in {errors}");
        ensure!(status(&stage)? == before, "{what} changed something");
    }
    // The same file, put right.
    let daemon = stage.daemon.as_ref().context("no daemon")?;
    let answer = daemon.reload(&config)?;
    ensure!(
        answer["ok"] == json!(true) && answer["changes"] == json!([]),
        "{answer}"
    );
    Ok(())
}

/// What must not change; counters and times may.
fn status(stage: &Stage) -> Result<Value> {
    let daemon = stage.daemon.as_ref().context("no daemon")?;
    let status = daemon.ctl(&["status", "--json"])?;
    let mut kept = serde_json::Map::new();
    for key in [
        "pid",
        "interfaces",
        "protected",
        "rtp_ports",
        "scope",
        "providers",
        "calls",
        "pinholes",
    ] {
        let value = status["daemon"].get(key);
        kept.insert(
            key.to_owned(),
            value
                .with_context(|| format!("no {key} in {status}"))?
                .clone(),
        );
    }
    Ok(Value::Object(kept))
}

fn interfaces() -> Result<()> {
    let (mut stage, config) = stage()?;
    join(
        (&stage.network.edge, SECOND),
        (&stage.network.provider, "spare0"),
    )?;
    stage.place_calls(Answer::AtOnce, Progress::Established)?;
    let is_on = |stage: &Stage, interface| -> Result<bool> {
        Ok(!Attachments::on(&stage.network.edge, interface)?.is_empty())
    };
    for (interfaces, second) in [("\"outer0\", \"outer1\"", true), ("\"outer0\"", false)] {
        let changed = config.replacen("\"outer0\"", interfaces, 1);
        stage.talk_through(|_, daemon| {
            let daemon = daemon.context("no daemon")?;
            let answer = daemon.reload(&changed)?;
            ensure!(answer["ok"] == json!(true), "{answer}");
            Ok(daemon)
        })?;
        ensure!(is_on(&stage, OUTER)?, "{OUTER} is filtered no more");
        // The kernel lets go of a link a moment after its last name.
        std::thread::sleep(Duration::from_millis(300));
        ensure!(
            is_on(&stage, SECOND)? == second,
            "{interfaces}: wrong on {SECOND}"
        );
    }
    Ok(())
}

/// What a service manager shows is what is filtered now, and each reload that it hears of has an end.
fn notifications() -> Result<()> {
    let network = Network::build(Topology::Routed, Family::V4, &[])?;
    join((&network.edge, SECOND), (&network.provider, "spare0"))?;
    let config = daemon::config(&network, &[OUTER], Mode::Native);
    let path = network.directory.path().join("notify");
    let socket = UnixDatagram::bind(&path)?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut heard = String::new();
    let mut hear = |wanted: &str| -> Result<()> {
        loop {
            let mut message = [0; 1_024];
            let size = socket
                .recv(&mut message)
                .with_context(|| format!("`{wanted}` did not come, but {heard}"))?;
            let message = String::from_utf8_lossy(&message[..size]);
            heard.push_str(&message);
            if message.lines().any(|line| line == wanted) {
                return Ok(());
            }
        }
    };
    let address = format!("NOTIFY_SOCKET={}", path.display());
    let program = daemon::find_program("sipfilterd")?;
    let wrapper = ["env", address.as_str()];
    let daemon = Daemon::start_program(&network, "notify", &config, &wrapper, &program)?;
    hear("STATUS=filtering on outer0")?;
    let both = config.replacen("\"outer0\"", "\"outer0\", \"outer1\"", 1);
    ensure!(daemon.reload(&both)?["ok"] == json!(true));
    hear("RELOADING=1")?;
    hear("STATUS=filtering on outer0, outer1")?;
    // One that is refused ends as well, and nothing has changed.
    ensure!(daemon.reload("scope = 1")?["ok"] == json!(false));
    hear("RELOADING=1")?;
    hear("STATUS=filtering on outer0, outer1")?;
    daemon.stop(Signal::TERM)?;
    hear("STOPPING=1")
}

/// A provider that was not there gets calls through once it is.
fn calls_afterwards() -> Result<()> {
    let (mut stage, config) = stage()?;
    let two = split(&config)?;
    let without = two.replacen("[[trunk]]\nprovider = \"lab-in\"\n", "", 1);
    let reload = |stage: &Stage, config: &str| -> Result<()> {
        let answer = stage.daemon.as_ref().context("no daemon")?.reload(config)?;
        ensure!(answer["ok"] == json!(true), "{answer}");
        Ok(())
    };
    reload(&stage, &without)?;
    stage.place(Direction::Outbound, Answer::AtOnce, Progress::Established)?;
    reload(&stage, &two)?;
    stage.place(Direction::Inbound, Answer::AtOnce, Progress::Established)?;
    stage.talk(|_| true, 10)
}

fn names(answer: &Value, key: &str) -> bool {
    let changes = answer["changes"].as_array();
    changes.is_some_and(|changes| changes.iter().any(|change| change["key"] == json!(key)))
}

/// The lab's provider as two, one for each direction of calls.
fn split(config: &str) -> Result<String> {
    let (head, provider) = config
        .split_once("[[provider]]")
        .context("the lab's configuration has no provider")?;
    let line = provider
        .lines()
        .find(|line| line.starts_with("signalling"))
        .context("the provider has no signalling addresses")?;
    let addresses: Vec<&str> = line
        .trim_start_matches("signalling = [")
        .trim_end_matches(']')
        .split(", ")
        .collect();
    // Two places for each family, the caller's first.
    let of = |offset: usize| -> String {
        let list: Vec<&str> = addresses.iter().skip(offset).step_by(2).copied().collect();
        format!("signalling = [{}]", list.join(", "))
    };
    let (section, _) = provider
        .split_once("[[trunk]]")
        .context("the lab's configuration has no trunk")?;
    let named = |name: &str, signalling: &str| {
        let section = section.replacen("\"lab\"", &format!("\"{name}\""), 1);
        format!("[[provider]]{}", section.replacen(line, signalling, 1))
    };
    Ok(format!(
        "{head}{}{}[[trunk]]\nprovider = \"lab-in\"\n\n[[trunk]]\nprovider = \"lab-out\"\n",
        named("lab-in", &of(0)),
        named("lab-out", &of(1)),
    ))
}
