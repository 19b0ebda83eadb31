//! `sipfilterctl doctor`: everything that can be looked at from this host, with what to do about it.

use std::{io::Write, path::PathBuf};

use super::{CtlError, Outcome, Session, ladder, output};
use crate::{
    config,
    doctor::{self, Scope},
    view::Checkup,
};

/// Arguments of `doctor`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    config: PathBuf,
    /// Where Asterisk's rtp.conf is looked for; it is only read
    #[arg(long, value_name = "DIR", default_value = "/etc/asterisk")]
    asterisk: PathBuf,
    /// Send one SIP OPTIONS to each provider, and wait two seconds for an answer
    #[arg(long)]
    probe: bool,
    /// Leave out what is as it should be
    #[arg(short, long)]
    quiet: bool,
}

pub(super) fn run(args: &Args, session: &mut Session<'_>) -> Result<Outcome, CtlError> {
    let checkup = doctor::examine(&Scope {
        config: args.config.clone(),
        runtime_dir: session.runtime_dir.to_owned(),
        asterisk: args.asterisk.clone(),
        probe: args.probe,
    });
    session.answer(&checkup, |out, checkup| show(out, checkup, args.quiet))?;
    Ok(match checkup.outcome.as_str() {
        "problem" => Outcome::No,
        _ => Outcome::Done,
    })
}

fn show(out: &mut dyn Write, checkup: &Checkup, quiet: bool) -> Result<(), CtlError> {
    const INDENT: usize = 9;
    let width = output::width().saturating_sub(INDENT).max(30);
    for check in &checkup.checks {
        if quiet && check.outcome == "ok" {
            continue;
        }
        let text = format!("{}: {}", check.subject, check.evidence);
        let mark = match check.outcome.as_str() {
            "problem" => "PROBLEM",
            "warning" => "WARNING",
            other => other,
        };
        let remedy = check
            .remedy
            .iter()
            .map(|remedy| ("      ->", remedy.as_str()));
        for (mark, text) in std::iter::once((mark, text.as_str())).chain(remedy) {
            for (number, line) in ladder::wrap(text, width).into_iter().enumerate() {
                let mark = if number == 0 { mark } else { "" };
                writeln!(out, "{mark:<INDENT$}{line}")?;
            }
        }
    }
    let count = |outcome: &str| {
        checkup
            .checks
            .iter()
            .filter(|check| check.outcome == outcome)
            .count()
    };
    writeln!(
        out,
        "{} checks: {} problems, {} warnings, {} could not be looked at",
        checkup.checks.len(),
        count("problem"),
        count("warning"),
        count("unknown")
    )?;
    Ok(())
}
