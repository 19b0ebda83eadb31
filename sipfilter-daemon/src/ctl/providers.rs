//! `sipfilterctl providers`: every provider that a trunk can name, what is known of it, and whether it can be used as it stands.
//!
//! It reads files only; the daemon need not run, and nothing is asked of DNS but by `check`.

mod ask;
mod check;

use std::{io::Write, path::Path, path::PathBuf};

use schemars::JsonSchema;
use serde::Serialize;

use super::{CtlError, Outcome, Session, output};
use crate::config::{self, Config, ProviderSummary};

/// Arguments of `providers`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration file whose trunks and own providers are shown too [default: the usual one, if it exists]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Compare what DNS says of the providers' documented names with what is let in; exit status 1 if they differ
    ///
    /// A hint and nothing else: no file is changed, and no address is let in for what DNS says, because a provider's names need not lead to the
    /// addresses that it signals from. A, AAAA and SRV records (_sip._udp, _sip._tcp, _sips._tcp) are asked for, for 20 seconds at most.
    Check(check::Args),
}

/// The JSON answer.
#[derive(Serialize, JsonSchema)]
pub(super) struct Answer {
    /// Those of the catalogue and of the configuration.
    providers: Vec<ProviderSummary>,
}

pub(super) fn run(args: &Args, session: &mut Session<'_>) -> Result<Outcome, CtlError> {
    let usual = Path::new(config::DEFAULT_PATH);
    let path = match &args.config {
        Some(path) => Some(path.as_path()),
        None => usual.exists().then_some(usual),
    };
    let config = path.map(Config::load).transpose()?;
    let providers = config::providers(config.as_ref());
    if let Some(Command::Check(args)) = &args.command {
        return check::run(args, providers, session);
    }
    if session.json {
        output::json(session.out, &Answer { providers })?;
        return Ok(Outcome::Done);
    }
    table(session.out, &providers)?;
    for provider in &providers {
        if let Some(missing) = &provider.missing {
            writeln!(session.out, "\n{}: {missing}", provider.name)?;
        }
    }
    Ok(Outcome::Done)
}

/// The table of providers, also shown by `check-config`.
pub(super) fn table(out: &mut dyn Write, providers: &[ProviderSummary]) -> Result<(), CtlError> {
    let unknown = || "-".to_owned();
    let rows = providers.iter().map(|provider| {
        let state = match (provider.configured, provider.loadable) {
            (true, _) => "trunk",
            (false, true) => "ready",
            (false, false) => "incomplete",
        };
        let mut media = vec![format!(
            "{} {}",
            provider.media_source.unwrap_or("-"),
            provider.media_ports.as_deref().unwrap_or("-")
        )];
        media.extend(provider.media_prefixes.iter().cloned());
        if !provider.media_replies.is_empty() {
            media.push(format!("replies {}", provider.media_replies.join(" ")));
        }
        vec![
            provider.name.clone(),
            state.to_owned(),
            provider.origin.to_owned(),
            output::cell(&provider.signalling, "none published"),
            output::cell(&provider.transports, "-"),
            media.join("\n"),
            provider.early_media.map_or_else(unknown, ToOwned::to_owned),
            provider.verified.clone().unwrap_or_else(unknown),
        ]
    });
    output::table(
        out,
        &[
            "PROVIDER",
            "STATE",
            "FROM",
            "SIGNALLING",
            "PORTS",
            "MEDIA",
            "EARLY MEDIA",
            "VERIFIED",
        ],
        rows,
    )
}
