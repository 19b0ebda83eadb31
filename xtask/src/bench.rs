//! `cargo xtask bench`: the places of the measurements to come.
//!
//! Nothing is measured yet, and nothing is printed that looks like a figure; every bench ends with exit code 2 until it exists.

use std::process::ExitCode;

use anyhow::Result;
use clap::ValueEnum as _;

/// List the benches, or run one (none measures anything yet).
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Which bench; without it, the list.
    #[arg(value_enum)]
    bench: Option<Bench>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Bench {
    /// Time per packet and verdict in the kernel, by BPF_PROG_TEST_RUN.
    Verdict,
    /// Packets per second through a veth pair, by live frames.
    Throughput,
    /// Signalling messages per second through the engine, on the host.
    Engine,
}

/// Says what there is to measure, and that it is not measured yet.
pub fn run(Arguments { bench }: &Arguments) -> Result<ExitCode> {
    let benches = Bench::value_variants().iter().filter(|variant| {
        bench.is_none_or(|bench| std::mem::discriminant(&bench) == std::mem::discriminant(variant))
    });
    for value in benches.filter_map(clap::ValueEnum::to_possible_value) {
        let about = value
            .get_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        eprintln!("{:<12} not measured yet: {about}", value.get_name());
    }
    Ok(ExitCode::from(2))
}
