//! `sipfilterctl strangers`: who sends SIP and is no provider, and who among them claims to be one.
//!
//! What they claim is what their messages say, and is printed without control characters.

use std::{io::Write, path::Path};

use super::{
    CtlError, Outcome,
    call_record::plain,
    client,
    drops::{more, seconds},
    output,
};
use crate::view::{Stranger, Strangers};

/// How many.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Show at most so many networks
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
}

pub(super) fn run(
    args: &Args,
    runtime_dir: &Path,
    json: bool,
    out: &mut dyn Write,
) -> Result<Outcome, CtlError> {
    let resource = format!("/v1/strangers?limit={}", args.limit);
    let strangers: Strangers = client::get(runtime_dir, &resource)?;
    if json {
        output::json(out, &strangers)?;
    } else if strangers.packets == 0 {
        writeln!(out, "no stranger has knocked since {}", strangers.since)?;
    } else {
        print(out, &strangers)?;
    }
    Ok(Outcome::Done)
}

fn print(out: &mut dyn Write, strangers: &Strangers) -> Result<(), CtlError> {
    let rows = strangers.strangers.iter().map(|row| {
        let methods: Vec<String> = row
            .methods
            .iter()
            .map(|(method, count)| format!("{} {count}", plain(method)))
            .collect();
        vec![
            output::net(&row.network),
            row.claims.clone().unwrap_or_else(|| "-".to_owned()),
            match row.packets > row.samples {
                true => format!("~{}", row.packets),
                false => row.packets.to_string(),
            },
            methods.join(", "),
            cell(&row.user_agents),
            cell(&row.domains),
            seconds(&row.last_seen),
        ]
    });
    let head = [
        "NETWORK",
        "CLAIMS",
        "PACKETS",
        "METHODS",
        "USER AGENT",
        "DOMAINS",
        "LAST SEEN",
    ];
    output::table(out, &head, rows)?;
    more(out, strangers.more_strangers, "networks")?;
    writeln!(
        out,
        "looked at {} of {} packets of SIP from nobody's signalling address",
        strangers.samples, strangers.packets
    )?;
    for row in strangers.strangers.iter().filter(|row| row.is_trunk) {
        writeln!(out, "\n{}", warning(row))?;
    }
    Ok(())
}

fn warning(row: &Stranger) -> String {
    let name = row.claims.as_deref().unwrap_or_default();
    format!(
        "{} claims to be {name}, which you have a trunk with, and is not in its list of addresses. Anybody can claim that; but if calls of \
         {name} are missing, the list may have drifted: compare its documents with `sipfilterctl providers`",
        output::net(&row.network)
    )
}

fn cell(texts: &[String]) -> String {
    let texts: Vec<String> = texts.iter().map(|text| plain(text)).collect();
    output::cell(&texts, "-")
}
