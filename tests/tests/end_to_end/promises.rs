//! The scoreboard in every topology, mode and IP version; and once without a filter, where every promise that a filter makes must break.

use anyhow::{Result, bail, ensure};
use sipfilter_tests::lab::{
    address::Family,
    daemon::{Filter, Mode},
    scoreboard::{self, Run, SETTLE},
    topology::Topology,
};

use crate::Test;

const CALLS: u16 = 20;
const PACKETS: u32 = 50;

pub fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    for topology in Topology::ALL {
        for family in [Family::V4, Family::V6] {
            if topology.is_nat() && family == Family::V6 {
                continue;
            }
            let ip = match family {
                Family::V4 => "ipv4",
                Family::V6 => "ipv6",
            };
            for mode in [Mode::Native, Mode::Generic] {
                tests.push(Test::new(
                    format!("promises_hold::{topology}::{ip}::{}", mode.name()),
                    move || hold(topology, family, mode),
                ));
            }
            tests.push(Test::new(
                format!("without_a_filter_every_attack_arrives::{topology}::{ip}"),
                move || break_without_filter(topology, family),
            ));
        }
    }
    tests
}

fn hold(topology: Topology, family: Family, mode: Mode) -> Result<()> {
    let scoreboard = scoreboard::run(
        Run {
            topology,
            family,
            filter: Filter::Sipfilter(mode),
            calls: CALLS,
            packets: PACKETS,
            settle: SETTLE,
        },
        |_| {},
    )?;
    let broken = scoreboard.broken();
    if !broken.is_empty() {
        bail!("{}", broken.join("\n"));
    }
    ensure!(
        scoreboard.detail.pinholes_open >= usize::from(CALLS),
        "{} pinholes were open for {CALLS} calls: RTP was not held back by pinholes at all",
        scoreboard.detail.pinholes_open
    );
    Ok(())
}

fn break_without_filter(topology: Topology, family: Family) -> Result<()> {
    let scoreboard = scoreboard::run(
        Run {
            topology,
            family,
            filter: Filter::None,
            calls: CALLS,
            packets: PACKETS,
            settle: SETTLE,
        },
        |_| {},
    )?;
    for (kind, sent, delivered) in &scoreboard.detail.attacks {
        ensure!(
            *sent > 0 && delivered == sent,
            "{}: {delivered} of {sent} arrived, so that a filter's zero would prove nothing",
            kind.title()
        );
    }
    ensure!(
        scoreboard.rtp_after_bye_delivered == scoreboard.detail.after_bye_sent,
        "{} of {} packets after BYE arrived, so that a filter's zero would prove nothing",
        scoreboard.rtp_after_bye_delivered,
        scoreboard.detail.after_bye_sent
    );
    ensure!(
        scoreboard.rtp_sent == u64::from(CALLS) * u64::from(PACKETS) * 2
            && scoreboard.rtp_delivered == scoreboard.rtp_sent,
        "an open network delivered {} of {} RTP packets",
        scoreboard.rtp_delivered,
        scoreboard.rtp_sent
    );
    ensure!(
        scoreboard.broken().len() == scoreboard.detail.attacks.len() + 1,
        "{:?}",
        scoreboard.broken()
    );
    Ok(())
}
