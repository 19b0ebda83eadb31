//! `sipfilterctl strangers`: who sends SIP and is no provider, and who among them claims to be one.
//!
//! What they claim is what their messages say, and is printed without control characters.

use std::io::Write;

use super::{
    CtlError, Outcome, Session, client,
    drops::{more, seconds},
    ladder,
    output::{self, plain},
};
use crate::view::{Status, Stranger, Strangers};

/// How many.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Show at most so many networks
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
}

pub(super) fn run(args: &Args, session: &mut Session<'_>) -> Result<Outcome, CtlError> {
    let resource = format!("/v1/strangers?limit={}", args.limit);
    let mut strangers: Strangers = client::get(session.runtime_dir, &resource)?;
    let mut claiming = strangers
        .strangers
        .iter_mut()
        .filter(|row| row.claims.is_some())
        .peekable();
    if claiming.peek().is_some() {
        let status: Status = client::get(session.runtime_dir, "/v1/status")?;
        for row in claiming {
            row.advice = advice(row, &status.config);
        }
    }
    session.answer(&strangers, print)?;
    Ok(Outcome::Done)
}

fn print(out: &mut dyn Write, strangers: &Strangers) -> Result<(), CtlError> {
    if strangers.packets == 0 {
        writeln!(out, "no stranger has knocked since {}", strangers.since)?;
        return Ok(());
    }
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
    for advice in strangers
        .strangers
        .iter()
        .filter_map(|row| row.advice.as_ref())
    {
        writeln!(out)?;
        for line in ladder::wrap(advice, output::width().max(40)) {
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}

/// What to do about somebody who claims a provider's domain; `config` is the daemon's configuration file.
fn advice(row: &Stranger, config: &str) -> Option<String> {
    let name = row.claims.as_deref()?;
    let network = output::net(&row.network);
    Some(match row.is_trunk {
        true => format!(
            "{network} claims to be {name}, which you have a trunk with, and is none of its addresses that are let in. Anybody can claim that; it is dropped. \
             If calls of {name} are missing, check with {name} (its documents, its support) from which addresses it signals, set `signalling` in its [[trunk]] \
             in {config} to all of them (it goes before the list that is known), and run `systemctl reload sipfilterd`."
        ),
        false => format!(
            "{network} claims to be {name}, which you have no trunk with. Anybody can claim that; it is dropped. If {name} is to reach you, check with \
             {name} from which addresses it signals, add a [[trunk]] with provider = {provider:?} and these as `signalling` to {config}, and run `systemctl \
             reload sipfilterd`. `sipfilterctl providers` lists the names of those that are known.",
            provider = name
        ),
    })
}

fn cell(texts: &[String]) -> String {
    let texts: Vec<String> = texts.iter().map(|text| plain(text)).collect();
    output::cell(&texts, "-")
}
