//! `cargo xtask bench`: what things cost.
//!
//! It installs what sipfilter is compared with, builds the programs that measure, and starts them; their standard output is theirs.
//! Nothing here runs in CI but a smoke of the quickest one: figures of a shared machine are no reason to fail.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::lab;
use crate::project::Project;
use crate::setup::Purpose;

/// Measure what sipfilter costs; without a name, everything but `engine` and `questions` (needs root).
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Which benches.
    #[arg(value_enum)]
    benches: Vec<Bench>,
    /// JSON instead of tables; the last line holds the ratios.
    #[arg(long)]
    json: bool,
    /// How often each candidate is measured; figures are medians.
    #[arg(long)]
    rounds: Option<u16>,
    /// Small tables and few packets, to see that it runs; the figures mean nothing.
    #[arg(long)]
    quick: bool,
    /// Also write benchmarks.md, plots and raw results below this directory.
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Bench {
    /// Time, allocations and memory of SIP messages and whole calls in the engine, on the host (alone, without root).
    Engine,
    /// How long questions hold up the task that opens pinholes, with many calls (alone).
    Questions,
    /// Time per packet and verdict in the kernel, against xdp-filter.
    Verdict,
    /// Packets dropped per second, against nftables.
    Flood,
    /// Accepted RTP delivered per second and processor time per packet, against nftables with conntrack.
    Media,
    /// From the PBX's SDP leaving to the pinhole being open, and the first RTP packets lost.
    Latency,
    /// Calls heard with sipfilter and with the kernel's SIP helper.
    Helper,
    /// CPU and memory of sipfilterd under many calls.
    Load,
}

/// Benches that are targets of packages.
const OWN: [(Bench, &str, &str); 2] = [
    (Bench::Engine, "sipfilter-daemon", "engine"),
    (Bench::Questions, "sipfilter-tests", "questions"),
];

/// Builds and measures.
pub fn run(project: &Project, arguments: &Arguments) -> Result<ExitCode> {
    let Arguments {
        benches,
        json,
        rounds,
        quick,
        report,
    } = arguments;
    for (bench, package, name) in OWN {
        if benches.contains(&bench) {
            if benches.len() > 1 {
                bail!("`{name}` prints its own document: run it alone");
            }
            return target(project, package, name, *json);
        }
    }
    let names = benches
        .iter()
        .filter_map(clap::ValueEnum::to_possible_value);
    let mut options: Vec<OsString> = names.map(|name| name.get_name().into()).collect();
    if *json {
        options.push("--json".into());
    }
    if *quick {
        options.push("--quick".into());
    }
    if let Some(rounds) = rounds {
        options.push(format!("--rounds={rounds}").into());
    }
    if let Some(report) = report {
        options.push("--report".into());
        options.push(report.into());
    }
    lab::run(
        project,
        "bench",
        &[Purpose::Build, Purpose::Lab, Purpose::Bench],
        &options,
    )
}

/// A package's own bench target, optimised.
fn target(project: &Project, package: &str, name: &str, json: bool) -> Result<ExitCode> {
    let cargo = project.cargo("bench").arg("--quiet");
    let cargo = cargo.args(["--package", package, "--bench", name]);
    let cargo = if json {
        cargo.args(["--", "--json"])
    } else {
        cargo
    };
    cargo.quiet().run()?;
    Ok(ExitCode::SUCCESS)
}
