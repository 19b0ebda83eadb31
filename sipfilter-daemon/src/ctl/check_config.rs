//! `sipfilterctl check-config`: what a configuration means, or everything that is wrong with it.
//!
//! It needs neither the daemon nor privileges, and does not ask whether the interfaces exist: a file may be checked on another
//! machine than the one it is for.

use std::{io::Write, path::PathBuf};

use schemars::JsonSchema;
use serde::Serialize;

use super::{CtlError, Outcome, Session, output};
use crate::config::{self, Config, Diagnostic, LoadError, Severity, Summary};

/// Arguments of `check-config`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    config: PathBuf,
    /// Print nothing but what is wrong with it
    #[arg(short, long)]
    quiet: bool,
}

/// The JSON answer.
#[derive(Serialize, JsonSchema)]
pub(super) struct Answer<'a> {
    /// Whether the configuration can be used.
    ok: bool,
    /// Which.
    file: String,
    /// What keeps it from being used.
    errors: Vec<&'a Diagnostic>,
    /// What was probably not meant.
    warnings: Vec<&'a Diagnostic>,
    /// What is in effect; null where there are errors.
    effective: Option<Summary>,
}

pub(super) fn run(args: &Args, session: &mut Session<'_>) -> Result<Outcome, CtlError> {
    let result = Config::load(&args.config);
    let (config, diagnostics) = match &result {
        Ok(config) => (Some(config), config.warnings.as_slice()),
        Err(LoadError::Invalid(invalid)) => (None, invalid.0.as_slice()),
        // Not an answer about the configuration, but the lack of one.
        Err(LoadError::Read { .. }) => return result.map(|_| Outcome::No).map_err(Into::into),
    };
    let outcome = match config {
        Some(_) => Outcome::Done,
        None => Outcome::No,
    };
    if session.json {
        let of = |severity| {
            diagnostics
                .iter()
                .filter(move |diagnostic| diagnostic.severity == severity)
                .collect()
        };
        let answer = Answer {
            ok: config.is_some(),
            file: args.config.display().to_string(),
            errors: of(Severity::Error),
            warnings: of(Severity::Warning),
            effective: config.map(Config::summary),
        };
        output::json(session.out, &answer)?;
        return Ok(outcome);
    }
    for diagnostic in diagnostics {
        writeln!(session.out, "{diagnostic}\n")?;
    }
    match config {
        Some(_) if args.quiet => {}
        Some(config) => {
            summary(session.out, &config.summary())?;
            writeln!(session.out, "\n{} is good", args.config.display())?;
        }
        None => {
            let errors = diagnostics
                .iter()
                .filter(|diagnostic| diagnostic.severity == Severity::Error)
                .count();
            let plural = if errors == 1 { "" } else { "s" };
            writeln!(
                session.out,
                "{} has {errors} error{plural}",
                args.config.display()
            )?;
        }
    }
    Ok(outcome)
}

fn scope(summary: &Summary) -> String {
    let rules = summary.allow.iter().map(|rule| {
        let mut words = vec![rule.protocol.clone()];
        words.extend(rule.ports.iter().cloned());
        words.push("from".to_owned());
        if rule.from.is_empty() {
            words.push("anywhere".to_owned());
        }
        words.extend(rule.from.iter().cloned());
        words.join(" ")
    });
    std::iter::once(summary.scope.to_owned())
        .chain(rules)
        .collect::<Vec<_>>()
        .join("\n")
}

fn summary(out: &mut dyn Write, summary: &Summary) -> Result<(), CtlError> {
    let ports = summary
        .signalling
        .iter()
        .flat_map(|(transport, ports)| ports.iter().map(move |port| format!("{transport}:{port}")))
        .collect::<Vec<_>>();
    let nat: Vec<String> = summary
        .nat
        .iter()
        .map(|(private, public)| format!("{private} = {public}"))
        .collect();
    let mut fields = vec![
        ("interfaces", summary.interfaces.join(" ")),
        ("xdp mode", summary.xdp_mode.clone()),
        (
            "enforcement",
            match summary.enforcement {
                "observe" => "observe: NOTHING IS DROPPED".to_owned(),
                word => word.to_owned(),
            },
        ),
        ("scope", scope(summary)),
        ("egress", summary.egress.to_owned()),
        (
            "provisional",
            if summary.provisional { "true" } else { "false" }.to_owned(),
        ),
        (
            "pbx preset",
            summary.preset.clone().unwrap_or_else(|| "none".to_owned()),
        ),
        (
            "pbx addresses",
            output::cell(&summary.addresses, "the interfaces' own"),
        ),
        ("pbx sip ports", ports.join(" ")),
        ("pbx rtp ports", summary.rtp_ports.clone()),
        (
            "pbx udptl ports",
            summary
                .udptl_ports
                .clone()
                .unwrap_or_else(|| "those of RTP".to_owned()),
        ),
    ];
    if !nat.is_empty() {
        fields.push(("pbx nat", nat.join("\n")));
    }
    let limits = summary
        .limits
        .iter()
        .map(|(key, value)| (format!("limits.{key}"), value.to_string()));
    let signalling = summary.providers.iter().filter_map(|provider| {
        let limits = provider.signalling_limits?;
        Some((
            format!("{} may send", provider.name),
            format!(
                "{} requests, {} messages, {} segments per second and address",
                limits.requests_per_second, limits.messages_per_second, limits.segments_per_second
            ),
        ))
    });
    let timers = summary
        .timers
        .iter()
        .map(|(key, value)| (format!("timers.{key}"), value.clone()));
    let log = format!("{} {}", summary.log.format, summary.log.level);
    let rows = fields
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .chain(limits)
        .chain(signalling)
        .chain(timers)
        .chain([
            ("log".to_owned(), log),
            ("redacted".to_owned(), summary.privacy.redact.to_string()),
            (
                "metrics".to_owned(),
                summary.metrics.clone().unwrap_or_else(|| "off".to_owned()),
            ),
        ]);
    output::fields(out, rows)?;
    writeln!(out)?;
    super::providers::table(out, &summary.providers)
}
