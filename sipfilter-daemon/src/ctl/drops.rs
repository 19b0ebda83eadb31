//! `sipfilterctl drops`: who was dropped, why, and which call it nearly belonged to.

use std::io::Write;

use ipnet::IpNet;

use super::{
    CtlError, Outcome, Session, call_record,
    client::{self, ClientError},
    monitor::{self, near_text},
    output,
};
use crate::view::{Chosen, DroppedReason, DroppedSource, Drops};

/// Which sources, and how many. Where several kinds of filters are given, each must fit; of one kind, any.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only sources in this network, or with this address (of IPv6, a /64 is one source). May be repeated
    #[arg(long, value_name = "ADDRESS", value_parser = monitor::network)]
    address: Vec<IpNet>,
    /// Only what nearly belonged to this call, by its number, its Call-ID or the beginning of that. May be repeated
    #[arg(long, value_name = "ID")]
    call: Vec<String>,
    /// Only this reason, as `stats` names it. May be repeated
    #[arg(long, value_name = "REASON", value_parser = monitor::reason)]
    reason: Vec<String>,
    /// Show at most so many sources
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
}

pub(super) fn run(args: &Args, session: &mut Session<'_>) -> Result<Outcome, CtlError> {
    let calls: Result<Vec<u64>, _> = args
        .call
        .iter()
        .map(|id| match id.parse() {
            // One that is over and forgotten has left its number here.
            Ok(number) => Ok(number),
            Err(_) => call_record::number(id, session.runtime_dir),
        })
        .collect();
    let calls = match calls {
        Ok(calls) => calls,
        Err(ClientError::Unknown(error)) => return session.refuse(error),
        Err(error) => return Err(error.into()),
    };
    let drops = args.choose(
        client::get(session.runtime_dir, &args.resource(&calls))?,
        calls,
    );
    session.answer(&drops, print)?;
    Ok(Outcome::Done)
}

impl Args {
    /// What the daemon is asked: addresses and reasons are chosen from its answer, so that it must be whole.
    fn resource(&self, calls: &[u64]) -> String {
        let limit = match self.address.is_empty() && self.reason.is_empty() {
            true => self.limit,
            false => usize::MAX,
        };
        let numbers: Vec<String> = calls.iter().map(u64::to_string).collect();
        let calls = match numbers.is_empty() {
            true => String::new(),
            false => format!("&call={}", numbers.join(",")),
        };
        format!("/v1/drops?limit={limit}{calls}")
    }

    fn choose(&self, mut drops: Drops, calls: Vec<u64>) -> Drops {
        let is_near = |row: &DroppedSource| {
            let mut nets = self.address.iter();
            self.address.is_empty()
                || nets.any(|net| net.contains(&row.source) || row.source.contains(net))
        };
        let is_wanted = |reason: &String| self.reason.is_empty() || self.reason.contains(reason);
        drops.reasons.retain(|row| is_wanted(&row.reason));
        drops
            .sources
            .retain(|row| is_wanted(&row.reason) && is_near(row));
        let hidden = drops.sources.len().saturating_sub(self.limit);
        drops.sources.truncate(self.limit);
        drops.more_sources += hidden as u64;
        let chosen = Chosen {
            addresses: self.address.clone(),
            calls,
            reasons: self.reason.clone(),
        };
        drops.chosen = (chosen != Chosen::default()).then_some(chosen);
        drops
    }
}

fn print(out: &mut dyn Write, drops: &Drops) -> Result<(), CtlError> {
    let chosen = drops.chosen.as_ref();
    if drops.reasons.is_empty() {
        let why = match chosen.map_or(&[][..], |chosen| &chosen.reasons) {
            [] => String::new(),
            reasons => format!(" for {}", reasons.join(" or ")),
        };
        writeln!(out, "nothing was dropped{why} since {}", drops.since)?;
        return Ok(());
    }
    let rows = drops.reasons.iter().map(|row| {
        let DroppedReason {
            reason,
            verdict,
            packets,
            samples,
        } = row;
        vec![
            reason.clone(),
            verdict.clone(),
            packets.to_string(),
            format!("{samples} of {packets}"),
        ]
    });
    output::table(out, &["REASON", "VERDICT", "PACKETS", "LOOKED AT"], rows)?;
    if chosen.is_some_and(|chosen| !chosen.addresses.is_empty() || !chosen.calls.is_empty()) {
        writeln!(
            out,
            "These are all packets: only sources can be chosen by address and call, as far as packets were looked at."
        )?;
    }
    if drops.sources.is_empty() && chosen.is_some() {
        writeln!(out, "\nno such source")?;
    }
    if !drops.sources.is_empty() {
        writeln!(out)?;
        sources(out, drops)?;
    }
    let shown = drops.more_sources.saturating_sub(drops.forgotten_sources);
    if chosen.is_none() {
        return more(out, drops.more_sources, "sources");
    }
    more(out, shown, "such sources")?;
    if drops.forgotten_sources > 0 {
        writeln!(
            out,
            "and {} sources that are not remembered any more, such ones or others",
            drops.forgotten_sources
        )?;
    }
    if drops.left_out_samples > 0 {
        writeln!(
            out,
            "and {} packets that were looked at, nearly of these calls or of others, for which there was no room",
            drops.left_out_samples
        )?;
    }
    Ok(())
}

fn sources(out: &mut dyn Write, drops: &Drops) -> Result<(), CtlError> {
    let rows = drops.sources.iter().map(|row| {
        vec![
            output::net(&row.source),
            row.reason.clone(),
            about(row),
            seconds(&row.first_seen),
            seconds(&row.last_seen),
            row.destination.map_or_else(
                || "-".to_owned(),
                |at| match at.port() {
                    0 => at.ip().to_string(),
                    _ => at.to_string(),
                },
            ),
            row.near.as_ref().map_or_else(|| "-".to_owned(), near_text),
        ]
    });
    let head = [
        "SOURCE",
        "REASON",
        "PACKETS",
        "FIRST SEEN",
        "LAST SEEN",
        "LAST TO",
        "NEAREST CALL",
    ];
    output::table(out, &head, rows)
}

/// An estimate looks like one.
fn about(row: &DroppedSource) -> String {
    if row.packets > row.samples {
        format!("~{}", row.packets)
    } else {
        row.packets.to_string()
    }
}

/// A time of the daemon's without parts of a second.
pub(super) fn seconds(time: &str) -> String {
    match time.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => time.to_owned(),
    }
}

/// What is not in a table.
pub(super) fn more(out: &mut dyn Write, count: u64, what: &str) -> Result<(), CtlError> {
    if count > 0 {
        writeln!(out, "and {count} more {what}")?;
    }
    Ok(())
}
