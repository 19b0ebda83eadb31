//! `sipfilterctl schema COMMAND`: what a command's `--json` looks like, as a JSON Schema made from the types that are printed.
//!
//! To add a command: its answer's type in [`SCHEMAS`]. `output::json` takes nothing without a schema, and a test looks for
//! commands that are not listed.

use std::io::Write;

use clap::CommandFactory;
use schemars::{JsonSchema, Schema, schema_for};

use super::{Cli, CtlError, Outcome};
use crate::{simulate::report, view};

/// A command's words, and the schema of one line of its `--json`.
type Entry = (&'static str, fn() -> Schema);

/// Every command that prints JSON.
const SCHEMAS: &[Entry] = &[
    ("status", || schema_for!(super::status::Answer)),
    ("calls", || schema_for!(super::calls::Answer)),
    ("calls show", || schema_for!(OrFailure<view::CallRecord>)),
    ("calls close", || schema_for!(OrFailure<view::CallRecord>)),
    ("pinholes", || schema_for!(super::pinholes::Answer)),
    ("stats", || schema_for!(super::stats::Answer)),
    ("maps dump", || schema_for!(super::maps::Dump)),
    ("detach", || schema_for!(super::detach::Answer)),
    ("top", || schema_for!(view::Top)),
    ("doctor", || schema_for!(view::Checkup)),
    ("check-config", || {
        schema_for!(super::check_config::Answer<'_>)
    }),
    ("apply", || schema_for!(view::Reload)),
    ("confirm", || schema_for!(OrFailure<super::apply::Answer>)),
    ("rollback", || schema_for!(view::Reload)),
    ("reload", || schema_for!(view::Reload)),
    ("providers", || schema_for!(super::providers::Answer)),
    ("providers check", || schema_for!(view::NameCheck)),
    ("monitor", || schema_for!(view::Event)),
    ("drops", || schema_for!(OrFailure<view::Drops>)),
    ("strangers", || schema_for!(view::Strangers)),
    ("report", || schema_for!(view::Report)),
    ("capture", || schema_for!(OrFailure<view::Captured>)),
    ("explain", || schema_for!(view::Explanation)),
    ("simulate", || schema_for!(report::Report)),
];

/// Commands without JSON of their own: they print nothing, or what they print is JSON in any case.
#[cfg(test)]
const WITHOUT: &[&str] = &["maps remove", "schema"];

/// An answer, or why there is none (exit status 1).
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
enum OrFailure<T> {
    /// The answer.
    Answer(T),
    /// The answer is no.
    Failure(view::Failure),
}

/// Whose.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The command, for example `calls show`; without one, the commands that have a schema are listed
    command: Vec<String>,
}

/// What one line of the `--json` of the command with these words looks like; `None` if it prints none.
pub fn of(command: &str) -> Option<Schema> {
    SCHEMAS
        .iter()
        .find(|(name, _)| *name == command)
        .map(|(_, schema)| schema())
}

pub(super) fn run(args: &Args, out: &mut dyn Write) -> Result<Outcome, CtlError> {
    let wanted = args.command.join(" ");
    if wanted.is_empty() {
        for (command, _) in SCHEMAS {
            writeln!(out, "{command}")?;
        }
        return Ok(Outcome::Done);
    }
    match of(&wanted) {
        Some(schema) => {
            serde_json::to_writer_pretty(&mut *out, &schema)?;
            writeln!(out)?;
            Ok(Outcome::Done)
        }
        None => {
            writeln!(
                out,
                "{wanted:?} prints no JSON; `{} schema` lists the commands that do",
                Cli::command().get_name()
            )?;
            Ok(Outcome::No)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words of every command that can be given, those with subcommands only where they do something without.
    fn leaves(command: &clap::Command, words: &str, found: &mut Vec<String>) {
        if !words.is_empty() && !command.is_subcommand_required_set() {
            found.push(words.to_owned());
        }
        for sub in command.get_subcommands() {
            leaves(sub, format!("{words} {}", sub.get_name()).trim(), found);
        }
    }

    #[test]
    fn every_command_has_a_schema_or_prints_no_json() {
        let mut found = Vec::new();
        leaves(&Cli::command(), "", &mut found);
        let mut listed: Vec<_> = SCHEMAS
            .iter()
            .map(|(command, _)| *command)
            .chain(WITHOUT.iter().copied())
            .collect();
        found.sort();
        listed.sort_unstable();
        assert_eq!(found, listed);
    }

    #[test]
    fn every_field_is_described() {
        let mut bare = Vec::new();
        for (command, schema) in SCHEMAS {
            look(schema().as_value(), command, &mut bare);
        }
        assert!(bare.is_empty(), "no description of {bare:#?}");
    }

    /// Collects the properties that have neither a description nor a type that has one.
    fn look(value: &serde_json::Value, path: &str, bare: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(fields) => {
                if let Some(serde_json::Value::Object(properties)) = fields.get("properties") {
                    for (name, property) in properties {
                        if property.get("description").is_none() && property.get("const").is_none()
                        {
                            bare.push(format!("{path}/{name}"));
                        }
                    }
                }
                for (name, field) in fields {
                    look(field, &format!("{path}/{name}"), bare);
                }
            }
            serde_json::Value::Array(items) => items.iter().for_each(|item| look(item, path, bare)),
            _ => {}
        }
    }
}
