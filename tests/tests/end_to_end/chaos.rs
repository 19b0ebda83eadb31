//! That chaos is able to fail: what it counts is counted where there is no filter, or none for a moment.

use std::time::Duration;

use anyhow::{Result, ensure};
use sipfilter_tests::lab::{
    chaos::{self, Phase, Report, Run},
    daemon::Mode,
};

use crate::Test;

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("chaos_without_a_filter_is_broken", without_filter),
        Test::new("chaos_notices_a_moment_without_a_filter", a_moment),
    ]
}

fn run(filter: Option<Mode>, phase: Phase) -> Result<Report> {
    let run = Run {
        calls: 4,
        filter,
        phases: vec![phase],
        dead: Duration::from_millis(500),
    };
    chaos::run(&run, |_| {})
}

fn without_filter() -> Result<()> {
    let report = run(None, Phase::Kill)?;
    breaks(&report, "packets of strangers arrived")?;
    breaks(&report, "moment without a filter")?;
    breaks(&report, "sent after BYE arrived")?;
    let json = serde_json::to_value(&report)?;
    let delivered = &json["phases"]["nothing"]["strangers_delivered"];
    ensure!(delivered.as_u64() > Some(0), "{json}");
    Ok(())
}

fn a_moment() -> Result<()> {
    let report = run(Some(Mode::Native), Phase::Gap)?;
    breaks(&report, "moment without a filter")?;
    let (_, counted) = &report.phases[0];
    ensure!(counted.rtp_lost == 0, "{counted:?}");
    Ok(())
}

fn breaks(report: &Report, promise: &str) -> Result<()> {
    let broken = report.broken();
    ensure!(
        broken.iter().any(|message| message.contains(promise)),
        "nothing is said of `{promise}`: {broken:?}"
    );
    Ok(())
}
