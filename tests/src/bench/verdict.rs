//! Time per packet and verdict in the kernel.

use anyhow::{Result, bail};

use super::{Options, SubBench, outcome::Outcome};

/// The sub-bench.
pub const BENCH: SubBench = SubBench {
    name: "verdict",
    about: "time per packet and verdict in the kernel, by BPF_PROG_TEST_RUN",
    run,
};

fn run(_options: &Options) -> Result<Outcome> {
    bail!("this is not measured yet")
}
