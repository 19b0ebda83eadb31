//! What sipfilter costs, measured against what a user would otherwise run: `cargo xtask bench`.
//!
//! A sub-bench is one function that returns an [`Outcome`]; this file lists them and runs those that were asked for. It knows nothing
//! of what they measure. Every figure is the median of rounds in which the candidates take turns, so that a noisy moment of the machine
//! hits all of them; what is compared is compared within one run.

pub mod flood;
pub mod helper;
pub mod latency;
pub mod load;
pub mod machine;
pub mod media;
pub mod outcome;
pub mod programs;
pub mod report;
pub mod statistics;
pub mod trunk;
pub mod verdict;
pub mod xdp_filter;

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value};

use machine::Machine;
use outcome::{Outcome, Recorded};

/// What every sub-bench is told.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How often each candidate is measured.
    pub rounds: usize,
    /// Small tables and few packets, to see that it runs; the figures mean nothing.
    pub quick: bool,
}

/// One sub-bench.
#[derive(Debug, Clone, Copy)]
pub struct SubBench {
    /// Its name on the command line and in the JSON.
    pub name: &'static str,
    /// One line for `--help`.
    pub about: &'static str,
    /// Measures. What it says on the way goes to standard error.
    pub run: fn(&Options) -> Result<Outcome>,
}

/// Every sub-bench, in the order in which they run.
pub const ALL: &[SubBench] = &[
    verdict::BENCH,
    flood::BENCH,
    media::BENCH,
    latency::BENCH,
    helper::BENCH,
    load::BENCH,
];

/// What to do with what was measured.
#[derive(Debug, Clone, Copy)]
pub struct Output<'a> {
    /// JSON on standard output instead of tables.
    pub json: bool,
    /// Where the report is written, if it is.
    pub report: Option<&'a Path>,
}

/// Runs the named sub-benches, or all. With `json`, the last line of standard output holds every one's summary under its name, and
/// the line before it everything that was measured.
///
/// # Errors
/// For an unknown name before anything is measured; for a sub-bench that failed after all of them have had their turn.
pub fn run(names: &[String], options: &Options, output: Output<'_>) -> Result<()> {
    let chosen = choose(names)?;
    let machine = Machine::look().context("cannot describe this machine")?;
    eprintln!("{machine}");
    let (mut recorded, mut failed) = (Vec::new(), Vec::new());
    for bench in chosen {
        eprintln!("==> {}: {}", bench.name, bench.about);
        match (bench.run)(options) {
            Ok(outcome) => {
                let done = Recorded {
                    name: bench.name.into(),
                    about: bench.about.into(),
                    machine: machine.clone(),
                    rounds: options.rounds,
                    outcome,
                };
                if !output.json {
                    print!("{}", report::text(&done));
                }
                recorded.push(done);
            }
            Err(error) => {
                eprintln!("error: {}: {error:#}", bench.name);
                failed.push(bench.name);
            }
        }
    }
    if let Some(directory) = output.report {
        report::write(directory, &recorded)?;
    }
    if output.json {
        let summary: Map<String, Value> = recorded
            .iter()
            .map(|done| (done.name.clone(), done.outcome.summary.clone()))
            .collect();
        println!("{}", serde_json::to_string(&recorded)?);
        println!("{}", Value::Object(summary));
    }
    if !failed.is_empty() {
        bail!("not measured: {}", failed.join(", "));
    }
    Ok(())
}

fn choose(names: &[String]) -> Result<Vec<&'static SubBench>> {
    if names.is_empty() {
        return Ok(ALL.iter().collect());
    }
    names
        .iter()
        .map(|name| {
            ALL.iter()
                .find(|bench| bench.name == name)
                .with_context(|| {
                    let known: Vec<_> = ALL.iter().map(|bench| bench.name).collect();
                    format!("there is no bench {name}; there are {}", known.join(", "))
                })
        })
        .collect()
}
