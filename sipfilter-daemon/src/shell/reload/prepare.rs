//! Another configuration, as far as that takes time and touches nothing that runs: read, checked, its programs loaded.

use std::path::Path;

use super::{
    Source,
    answer::{problem, problems, spoken, unplaced},
    refusal::{Refused, ReloadError},
};
use crate::{
    config::{Change, Config, changes},
    engine::settings::Settings,
    shell::{
        datapath::{Datapath, DatapathError, Provisional},
        ephemeral, interface,
        outer::Outer,
        pins::Pins,
        policy::KernelPolicy,
        sessions,
    },
    view,
};

const ADDRESSES: &str = "pbx.addresses";

/// What is in force, for whoever prepares what comes after it.
#[derive(Debug, Clone)]
pub(super) struct InForce {
    pub config: Config,
    pub settings: Settings,
    pub policy: KernelPolicy,
}

/// A configuration that can be put in force.
pub(super) enum Loaded {
    /// It says what is in force already.
    Same { warnings: Vec<view::Problem> },
    /// It says something else, and its programs are loaded.
    Other(Box<Prepared>),
}

pub(super) struct Prepared {
    pub config: Config,
    pub settings: Settings,
    pub policy: KernelPolicy,
    pub outer: Outer,
    pub capacity: u32,
    pub datapath: Datapath,
    pub changes: Vec<Change>,
    pub warnings: Vec<view::Problem>,
    pub is_again: bool,
}

/// Everything that can fail and does not touch what runs.
pub(super) fn prepare(source: &Source, in_force: &InForce, pins: &Pins) -> Result<Loaded, Refused> {
    let path = &in_force.config.path;
    let config = match source {
        Source::File => Config::load(path),
        Source::Text { file, text, .. } => Config::parse_for(Path::new(file), path, text),
        Source::Before(config) => Ok(Config::clone(config)),
        Source::Again => Ok(in_force.config.clone()),
    };
    let config = config.map_err(|error| Refused {
        errors: problems(&error),
        warnings: Vec::new(),
        changes: Vec::new(),
    })?;
    let mut changes = changes(&in_force.config, &config);
    let mut warnings: Vec<view::Problem> = config.warnings.iter().map(problem).collect();
    let refuse = |error: ReloadError, changes: &[Change], warnings: &[view::Problem]| Refused {
        errors: vec![unplaced(&error)],
        warnings: warnings.to_vec(),
        changes: changes.to_vec(),
    };
    warnings.extend(
        config
            .interfaces
            .iter()
            .filter(|name| interface::index(name).is_none())
            .map(|name| {
                spoken(&format!(
                    "interface {name:?} is not there; it is filtered as soon as it is"
                ))
            }),
    );
    let checked = check(&config, in_force, source);
    let Checked {
        settings,
        policy,
        outer,
        capacity,
    } = checked.map_err(|error| refuse(error, &changes, &warnings))?;
    warnings.extend(
        ephemeral::overlap(&settings)
            .into_iter()
            .map(|warning| spoken(&warning.to_string())),
    );
    warnings.extend(
        sessions::not_allowed(&settings)
            .iter()
            .map(|warning| spoken(&warning.to_string())),
    );
    let written = |settings: &Settings| -> Vec<String> {
        let addresses = settings.pbx.addresses.iter();
        addresses.map(ToString::to_string).collect()
    };
    if !changes.iter().any(|change| change.key == ADDRESSES) {
        // They may be the interfaces' own, and those may be others by now.
        let (before, after) = (written(&in_force.settings), written(&settings));
        changes.extend(Change::of_lists(ADDRESSES, &before, &after));
    }
    let is_again = matches!(source, Source::Again);
    if !is_again && changes.is_empty() && settings == in_force.settings && policy == in_force.policy
    {
        return Ok(Loaded::Same { warnings });
    }
    let provisional = if keeps_numbers(&in_force.settings, &settings) {
        Provisional::Kept
    } else {
        Provisional::New
    };
    let datapath = Datapath::load_beside(&policy, capacity, pins, provisional)
        .map_err(|error| refuse(error.into(), &changes, &warnings))?;
    Ok(Loaded::Other(Box::new(Prepared {
        config,
        settings,
        policy,
        outer,
        capacity,
        datapath,
        changes,
        warnings,
        is_again,
    })))
}

/// What a configuration means here and now.
struct Checked {
    settings: Settings,
    policy: KernelPolicy,
    outer: Outer,
    capacity: u32,
}

/// Interfaces that are not there are waited for only where they were before, so that no misspelt name goes unnoticed.
fn check(config: &Config, in_force: &InForce, source: &Source) -> Result<Checked, ReloadError> {
    let before = &in_force.config;
    for (key, is_same) in [
        ("log.format", config.log.format == before.log.format),
        ("metrics.listen", config.metrics == before.metrics),
    ] {
        if !is_same {
            return Err(ReloadError::Fixed { key });
        }
    }
    let mut present = Vec::new();
    for name in &config.interfaces {
        match interface::check(name) {
            Err(DatapathError::NoInterface(_))
                if before.interfaces.contains(name) || matches!(source, Source::Before(_)) => {}
            checked => {
                checked?;
                present.push(name.clone());
            }
        }
    }
    let settings = match source {
        // Those of an interface that has just been made may not be there yet.
        Source::Again => {
            let protected = &in_force.settings.pbx.addresses;
            config.resolve_beside(protected, interface::addresses_if_there)?
        }
        _ => config.resolve(interface::addresses_if_there)?,
    };
    let mut policy = KernelPolicy::new(&settings);
    let outer = Outer::find(&settings.pbx.addresses, &present);
    policy.settings.outer = outer.indices();
    let capacity = u32::try_from(settings.limits.pinholes).map_err(|_| ReloadError::Pinholes)?;
    Ok(Checked {
        settings,
        policy,
        outer,
        capacity,
    })
}

/// Whether protected addresses and providers have the numbers that they had. More providers behind them do no harm.
fn keeps_numbers(before: &Settings, after: &Settings) -> bool {
    let mut providers = before.providers.iter().zip(&after.providers);
    before.pbx.addresses == after.pbx.addresses
        && before.providers.len() <= after.providers.len()
        && providers.all(|(before, after)| before.name == after.name)
}
