//! Packets dropped per second.

use anyhow::{Result, bail};

use super::{Options, SubBench, outcome::Outcome};

/// The sub-bench.
pub const BENCH: SubBench = SubBench {
    name: "flood",
    about: "packets dropped per second, against nftables",
    run,
};

fn run(_options: &Options) -> Result<Outcome> {
    bail!("this is not measured yet")
}
