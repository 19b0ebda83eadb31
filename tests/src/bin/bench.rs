//! `bench`: runs the sub-benches that are named, or all. `cargo xtask bench` builds and starts it.
//!
//! It needs root: everything that it measures happens in the kernel or in network namespaces of its own.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use sipfilter_tests::{
    bench::{self, Options, Output},
    lab::cleanup,
};

/// Measure what sipfilter costs, against what a user would otherwise run.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Arguments {
    /// Which sub-benches; without a name, all.
    benches: Vec<String>,
    /// JSON instead of tables; the last line holds the ratios.
    #[arg(long)]
    json: bool,
    /// How often each candidate is measured; figures are medians.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Small tables and few packets, to see that it runs; the figures mean nothing.
    #[arg(long, conflicts_with = "report")]
    quick: bool,
    /// Also write benchmarks.md, plots and raw results below this directory.
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    cleanup::prepare();
    let options = Options {
        rounds: arguments.rounds.into(),
        quick: arguments.quick,
    };
    let output = Output {
        json: arguments.json,
        report: arguments.report.as_deref(),
    };
    match bench::run(&arguments.benches, &options, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}
