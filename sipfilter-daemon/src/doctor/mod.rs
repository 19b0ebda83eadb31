//! Whether this host, its configuration and its PBX fit together: what an operator would look at one thing after the other.
//!
//! It changes nothing and needs neither the daemon nor privileges: what it cannot look at is `unknown`, and says why. What the system
//! shows is read in one place of each module and judged in another, so that the judgement can be tested without that system.

mod daemon;
mod kernel;
mod links;
mod media;
mod probe;
mod routes;
mod sockets;

use std::path::{Path, PathBuf};

use crate::{
    config::{Config, LoadError},
    engine::settings::Settings,
    shell,
    view::{Check, Checkup},
};

/// What to look at.
#[derive(Debug)]
pub struct Scope {
    /// The configuration file.
    pub config: PathBuf,
    /// The daemon's runtime directory.
    pub runtime_dir: PathBuf,
    /// Where Asterisk's configuration would be.
    pub asterisk: PathBuf,
    /// Whether to send one SIP OPTIONS to each provider.
    pub probe: bool,
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Unknown,
    Ok,
    Warning,
    Problem,
}

impl Outcome {
    const ALL: [Self; 4] = [Self::Unknown, Self::Ok, Self::Warning, Self::Problem];

    fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// The checks of one subject, as they are made. Whatever is not as it should be, or could not be looked at, says what to do.
struct Findings {
    subject: String,
    checks: Vec<Check>,
}

impl Findings {
    fn of(subject: impl Into<String>) -> Self {
        Self {
            subject: subject.into(),
            checks: Vec::new(),
        }
    }

    fn add(&mut self, outcome: Outcome, code: &str, evidence: String, remedy: Option<String>) {
        self.checks.push(Check {
            subject: self.subject.clone(),
            code: code.to_owned(),
            outcome: outcome.name().to_owned(),
            evidence,
            remedy,
        });
    }

    fn ok(&mut self, code: &str, evidence: impl Into<String>) {
        self.add(Outcome::Ok, code, evidence.into(), None);
    }

    fn unknown(&mut self, code: &str, why: impl Into<String>, remedy: impl Into<String>) {
        self.add(Outcome::Unknown, code, why.into(), Some(remedy.into()));
    }

    fn warning(&mut self, code: &str, evidence: impl Into<String>, remedy: impl Into<String>) {
        self.add(Outcome::Warning, code, evidence.into(), Some(remedy.into()));
    }

    fn problem(&mut self, code: &str, evidence: impl Into<String>, remedy: impl Into<String>) {
        self.add(Outcome::Problem, code, evidence.into(), Some(remedy.into()));
    }
}

/// Looks at everything.
pub fn examine(scope: &Scope) -> Checkup {
    let mut checks = kernel::checks();
    let (config, of_config) = configuration(&scope.config);
    checks.extend(of_config);
    if let Some((config, settings)) = &config {
        let status = daemon::ask(&scope.runtime_dir);
        checks.extend(daemon::checks(&scope.runtime_dir, status.as_ref()));
        for interface in &config.interfaces {
            checks.extend(links::checks(
                interface,
                config.xdp,
                status.as_ref(),
                &scope.runtime_dir,
            ));
        }
        checks.extend(routes::checks(config, settings));
        checks.extend(sockets::checks(settings));
        checks.extend(media::checks(config, settings, &scope.asterisk));
        if scope.probe {
            checks.extend(probe::checks(settings));
        }
    } else {
        checks.extend(daemon::checks(
            &scope.runtime_dir,
            daemon::ask(&scope.runtime_dir).as_ref(),
        ));
    }
    let worst = Outcome::ALL
        .into_iter()
        .rev()
        .find(|outcome| checks.iter().any(|check| check.outcome == outcome.name()))
        .unwrap_or(Outcome::Ok)
        .max(Outcome::Ok);
    Checkup {
        config: scope.config.display().to_string(),
        outcome: worst.name().to_owned(),
        checks,
    }
}

/// The configuration, where it can be used on this host.
fn configuration(path: &Path) -> (Option<(Config, Settings)>, Vec<Check>) {
    let mut found = Findings::of("configuration");
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(error @ LoadError::Read { .. }) => {
            found.problem(
                "config",
                error.to_string(),
                "write one: `sipfilterctl providers` lists what a trunk can name; the example is config/sipfilter.toml",
            );
            return (None, found.checks);
        }
        Err(LoadError::Invalid(invalid)) => {
            let first = invalid.0.first().map(|first| first.message.clone());
            found.problem(
                "config",
                format!(
                    "{} cannot be used: {}",
                    path.display(),
                    first.unwrap_or_default()
                ),
                format!(
                    "`sipfilterctl check-config --config {}` names every error",
                    path.display()
                ),
            );
            return (None, found.checks);
        }
    };
    match config.warnings.first() {
        None => found.ok("config", format!("{} is good", path.display())),
        Some(first) => found.warning(
            "config",
            format!(
                "{} warnings, the first: {}",
                config.warnings.len(),
                first.message
            ),
            format!(
                "`sipfilterctl check-config --config {}` shows all",
                path.display()
            ),
        ),
    }
    match config.resolve(shell::interface::addresses_if_there) {
        Ok(settings) => (Some((config, settings)), found.checks),
        Err(error) => {
            found.problem(
                "protected_addresses",
                error.to_string(),
                "correct `interfaces`, or name `pbx.addresses`",
            );
            (None, found.checks)
        }
    }
}
