//! `cargo xtask bench`: what things cost.
//!
//! It builds and starts the programs that measure; their standard output is theirs. What is not measured yet says so and ends with exit
//! code 2, so that nothing is printed that looks like a figure.

use std::process::ExitCode;

use anyhow::Result;
use clap::ValueEnum as _;

use crate::project::Project;

/// Measure something; without a name, list what there is.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Which bench; without it, the list.
    #[arg(value_enum)]
    bench: Option<Bench>,
    /// One JSON document instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Bench {
    /// Time per packet and verdict in the kernel, by BPF_PROG_TEST_RUN (not measured yet).
    Verdict,
    /// Packets per second through a veth pair, by live frames (not measured yet).
    Throughput,
    /// Time, allocations and memory of SIP messages and whole calls in the engine, on the host.
    Engine,
}

/// Runs one bench, or lists them.
pub fn run(project: &Project, Arguments { bench, json }: &Arguments) -> Result<ExitCode> {
    match bench {
        Some(Bench::Engine) => engine(project, *json),
        Some(Bench::Verdict | Bench::Throughput) => {
            eprintln!("error: this is not measured yet");
            Ok(ExitCode::from(2))
        }
        None => {
            for value in Bench::value_variants()
                .iter()
                .filter_map(clap::ValueEnum::to_possible_value)
            {
                let about = value
                    .get_help()
                    .map(ToString::to_string)
                    .unwrap_or_default();
                eprintln!("{:<12} {about}", value.get_name());
            }
            Ok(ExitCode::from(2))
        }
    }
}

/// The daemon's own bench target, optimised.
fn engine(project: &Project, json: bool) -> Result<ExitCode> {
    let cargo = project.cargo("bench").arg("--quiet");
    let cargo = cargo.args(["--package", "sipfilter-daemon", "--bench", "engine"]);
    let cargo = if json {
        cargo.args(["--", "--json"])
    } else {
        cargo
    };
    cargo.quiet().run()?;
    Ok(ExitCode::SUCCESS)
}
