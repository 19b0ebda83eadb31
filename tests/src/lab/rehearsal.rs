//! What `sipfilterctl simulate` says of a capture, and whether it agrees with the filter that stood in the capture's way.
//!
//! It runs the real program on a capture file. What had to pass, only the story knows that was captured.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::{
    capture::{Film, LinkLayer},
    daemon,
    topology::Network,
};

/// Packets by the policy's reasons, in the simulator or in the kernel.
pub type Reasons = BTreeMap<String, u64>;

const PASSED: &str = "media";
/// What passed because the daemon had not read of it yet; the simulator's always has.
const PASSED_EARLY: &str = "provisional";
const LEFT: &str = "egress_media";
const NO_PINHOLE: &str = "no_pinhole";
const LEFT_OTHERWISE: &str = "egress_other";
/// What concerns no call; the simulator leaves most of it out, and the kernel counts it before and after the capture as well.
const UNRELATED: [&str; 5] = [
    "not_ip",
    "not_protected",
    "other_protocol",
    "other_traffic",
    LEFT_OTHERWISE,
];

/// The simulator's report, as far as it is needed here.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Rehearsal {
    dropped: u64,
    reasons: Reasons,
    calls: Vec<Call>,
    flows: Vec<Flow>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Call {
    call_id: String,
    state: String,
    media: Media,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Media {
    passed: u64,
    dropped: Reasons,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Flow {
    src: String,
    dst: String,
    direction: String,
    kind: String,
    packets: u64,
    passed: u64,
    dropped: Reasons,
}

/// How many packets may have gone the other way at a filter whose daemon needs a moment to read what the simulator reads in none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Slack {
    /// Dropped, or left, before their pinhole was open.
    pub opening: u64,
    /// Passed, or left, before their pinhole was closed.
    pub closing: u64,
}

impl Rehearsal {
    /// Simulates a film with a configuration.
    ///
    /// # Errors
    /// Where the program fails, or says something else than a report.
    pub fn of(network: &Network, film: &Film, config: &str, link: LinkLayer) -> Result<Self> {
        let directory = network.directory.path();
        let capture = directory.join(format!("{link:?}.pcap"));
        let file = directory.join("simulate.toml");
        film.write(&capture, link)?;
        std::fs::write(&file, config)?;
        let answer = daemon::ctl(
            network.edge.name(),
            directory,
            &[
                "simulate",
                &capture.display().to_string(),
                "--config",
                &file.display().to_string(),
                "--json",
            ],
        )?;
        let this: Self = serde_json::from_value(answer).context("not a simulator's report")?;
        ensure!(
            !this.calls.is_empty() && !this.flows.is_empty(),
            "the simulator saw no call: {this:?}"
        );
        Ok(this)
    }

    /// Media towards the PBX that passed, and packets of any kind that were dropped.
    #[must_use]
    pub fn media(&self) -> (u64, u64) {
        (counted(&self.reasons, PASSED), self.dropped)
    }

    /// Whether every call ended, and lost nothing at its pinholes: a packet that was dropped met none at all. Where a story sends
    /// packets on purpose that nobody agreed on, `beside` is how many of them may have met a pinhole.
    ///
    /// # Errors
    /// With what is wrong.
    pub fn check_calls(&self, beside: u64) -> Result<()> {
        for call in &self.calls {
            ensure!(
                call.state == "ended",
                "the simulator leaves {} {}",
                call.call_id,
                call.state
            );
        }
        let dropped: u64 = self
            .calls
            .iter()
            .flat_map(|call| call.media.dropped.values())
            .sum();
        ensure!(
            dropped <= beside,
            "the simulator dropped {dropped} packets at pinholes: {:?}\n{}",
            self.calls,
            self.lost_flows()
        );
        Ok(())
    }

    /// The flows that lost something, a line each.
    #[must_use]
    pub fn lost_flows(&self) -> String {
        self.flows
            .iter()
            .filter(|flow| flow.passed < flow.packets)
            .map(|flow| {
                format!(
                    "{} {} > {}: {} of {} {} passed, dropped {:?}\n",
                    flow.direction,
                    flow.src,
                    flow.dst,
                    flow.passed,
                    flow.packets,
                    flow.kind,
                    flow.dropped
                )
            })
            .collect()
    }

    /// How many calls it saw.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.calls.len() as u64
    }

    /// Compares it with the counters of the filter that saw the same packets. They must be equal, but for media that crosses the opening
    /// or the closing of a pinhole.
    ///
    /// # Errors
    /// With the first difference.
    pub fn agree(&self, live: &Reasons, slack: Slack) -> Result<()> {
        let both = || format!("simulated {:?}, live {live:?}", self.reasons);
        let names = self.reasons.keys().chain(live.keys());
        let is_compared =
            |name: &&String| name.as_str() != PASSED_EARLY && !UNRELATED.contains(&name.as_str());
        for name in names.filter(is_compared) {
            let (simulated, live) = (counted(&self.reasons, name), counted(live, name));
            let (fewer, more) = match name.as_str() {
                PASSED | LEFT => (slack.opening, slack.closing),
                NO_PINHOLE => (slack.closing, slack.opening),
                _ => (0, 0),
            };
            ensure!(
                live + fewer >= simulated && live <= simulated + more,
                "`{name}`: the simulator counts {simulated}, the filter {live}, allowed -{fewer} to +{more}: {}",
                both()
            );
        }
        let towards = |reasons: &Reasons| counted(reasons, PASSED) + counted(reasons, NO_PINHOLE);
        ensure!(
            towards(&self.reasons) == towards(live),
            "`{PASSED}` and `{NO_PINHOLE}` together differ: {}",
            both()
        );
        Ok(())
    }
}

/// Packets of one reason; media is one whether it met its pinhole or came before it.
fn counted(reasons: &Reasons, name: &str) -> u64 {
    let of = |name| reasons.get(name).copied().unwrap_or_default();
    match name {
        PASSED => of(PASSED) + of(PASSED_EARLY),
        _ => of(name),
    }
}
