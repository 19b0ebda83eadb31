//! How soon a pinhole is open, and what is lost where media comes sooner.
//!
//! The opening is timed by the daemon: from the kernel's stamp in the copy of the message that opens the pinhole (taken by the program at
//! TC egress, by the same clock) to the end of the write into the kernel's map. Nothing outside is as near to both ends: a stamp of the
//! pinhole is taken before it is written, and a capture's after the packet has left. What it means for a call is counted outside, by the
//! packets that the PBX has or has not received.

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use super::{
    Options, SubBench,
    outcome::{Outcome, Table},
    statistics::{median, rounded},
    trunk::{Plan, Tally, Trunk},
};
use crate::lab::{
    address::Family,
    daemon::{Daemon, Mode},
    topology::{Network, Topology},
};

/// The sub-bench.
pub const BENCH: SubBench = SubBench {
    name: "latency",
    about: "from the PBX's SDP leaving to the pinhole being open, and the first RTP packets lost",
    run,
};

/// Calls per second, calls, and how often, at most.
const LOADS: [(u32, u32, usize); 3] = [(10, 100, 3), (100, 10_000, 1), (1_000, 10_000, 3)];
/// The load whose times stand in the summary.
const SUMMARY: u32 = 1_000;
/// Of each call, the first of them at once.
const PACKETS: u32 = 5;
/// At 1 000 calls per second a port is used again after two seconds.
const PORTS: u32 = 2_000;

struct Run {
    tally: Tally,
    /// The daemon's part of the story, if there was one.
    daemon: Option<Value>,
}

fn run(options: &Options) -> Result<Outcome> {
    let mut table = Table::new(
        "Calls from a provider that sends audio as soon as it has the 200",
        &[
            "calls/s",
            "calls",
            "SDP read p50 us",
            "open p50 us",
            "p99 us",
            "p99.9 us",
            "max us",
            "provider has 200 us",
            "first RTP lost",
            "RTP lost",
            "first lost, no filter",
        ],
    );
    let (mut first_lost, mut summary) = (Map::new(), Map::new());
    for (rate, calls, most) in LOADS {
        let (mut open, mut filtered) = (Vec::new(), Vec::new());
        for _ in 0..options.rounds.min(most) {
            open.push(one(rate, calls.min(rate * 10), false)?);
            filtered.push(one(rate, calls, true)?);
        }
        let of = |runs: &[Run], figure: &dyn Fn(&Run) -> f64| {
            median(&runs.iter().map(figure).collect::<Vec<_>>())
        };
        let delay = |of_what: &'static str, name: &'static str| {
            move |run: &Run| {
                let daemon = run.daemon.as_ref();
                daemon
                    .and_then(|daemon| daemon[of_what][name].as_f64())
                    .unwrap_or_default()
            }
        };
        let us = |figure: f64| format!("{figure:.0}");
        let lost = of(&filtered, &|run| f64::from(run.tally.first_lost));
        table.row([
            rate.to_string(),
            calls.to_string(),
            us(of(&filtered, &delay("reading", "p50_us"))),
            us(of(&filtered, &delay("opening", "p50_us"))),
            us(of(&filtered, &delay("opening", "p99_us"))),
            us(of(&filtered, &delay("opening", "p999_us"))),
            us(of(&filtered, &delay("opening", "max_us"))),
            us(of(&filtered, &|run| {
                run.tally.turnaround.as_secs_f64() * 1e6
            })),
            us(lost),
            us(of(&filtered, &|run| run.tally.lost as f64)),
            us(of(&open, &|run| f64::from(run.tally.first_lost))),
        ]);
        first_lost.insert(rate.to_string(), json!(lost as u64));
        if rate == SUMMARY {
            for name in ["p50_us", "p99_us", "p999_us"] {
                let figure = of(&filtered, &delay("opening", name));
                summary.insert(name.into(), json!(rounded(figure)));
            }
        }
    }
    summary.insert("first_lost".into(), first_lost.into());
    Ok(Outcome {
        summary: summary.into(),
        tables: vec![table],
        notes: vec![
            "Provider and PBX are a thread each; the PBX answers an INVITE at once, and the provider sends the first of five RTP packets as \
             the first thing it does with the 200, before its ACK. There is a routing edge and a bridge between them, but no delay: a \
             provider that is one millisecond away needs a millisecond more. `open` is the time from the 200 passing TC egress to both of \
             its pinholes (RTP, then RTCP) being in the kernel's map, counted for each; `provider has 200` the median time from \
             the PBX's sending it to the provider's having read it."
                .into(),
        ],
        ..Outcome::default()
    })
}

fn one(rate: u32, calls: u32, is_filtered: bool) -> Result<Run> {
    let network = Network::build(Topology::Routed, Family::V4, &[])?;
    let daemon = is_filtered
        .then(|| Daemon::start(&network, Mode::Native))
        .transpose()?;
    let plan = Plan {
        rate,
        calls,
        packets: PACKETS,
        ports: PORTS,
        ..Plan::default()
    };
    let tally = Trunk::new(&network, plan)?.run()?;
    tally.expect_all_calls(&plan)?;
    let daemon = daemon
        .map(|daemon| daemon.ctl(&["status", "--json"]))
        .transpose()?
        .map(|mut status| status["daemon"].take());
    if let Some(daemon) = &daemon {
        let opened = daemon["opening"]["count"].as_u64();
        opened
            .context("sipfilterctl status --json does not tell how long pinholes took to open")?;
    }
    eprintln!(
        "    {rate} calls/s, {}: {} of {calls} first packets lost",
        if is_filtered {
            "sipfilter"
        } else {
            "no filter"
        },
        tally.first_lost
    );
    Ok(Run { tally, daemon })
}
