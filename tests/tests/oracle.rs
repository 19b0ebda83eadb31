//! Generated packets against generated tables, on the host and in the kernel: both must agree on every one.
//!
//! `SIPFILTER_ORACLE_SEED` and `SIPFILTER_ORACLE_PACKETS` choose others, and more. It needs root.

use sipfilter_common::reason::{Counter, Reason};
use sipfilter_tests::policy::oracle;

/// Seed and number of packets of a run without orders. A fixed seed: whoever sees it fail can see it again.
const SEED: u64 = 1;
const PACKETS: u64 = 100_000;

/// From so many packets on, a reason that was never met means that the generator is blind to it.
const TELLING: u64 = 50_000;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number")),
    )
}

#[test]
fn host_and_kernel_agree_on_generated_packets() {
    assert!(
        rustix::process::geteuid().is_root(),
        "the oracle loads programs into the kernel, which needs root: run `cargo xtask test` as root"
    );
    let seed = number("SIPFILTER_ORACLE_SEED").unwrap_or(SEED);
    let packets = number("SIPFILTER_ORACLE_PACKETS").unwrap_or(PACKETS);
    let tally = match oracle::compare(seed, packets as usize) {
        Ok(tally) => tally,
        Err(failure) => panic!("{failure}"),
    };
    println!("seed {seed}: {tally}");
    assert!(
        tally.unclear * 100 <= tally.packets,
        "{} episodes were given up because the clock went on by several ticks during one packet: the machine is too busy",
        tally.unclear
    );
    if packets >= TELLING {
        let missing: Vec<_> = Reason::ALL
            .iter()
            .filter(|&&reason| !tally.counts.contains_key(&Counter::Reason(reason)))
            .map(|reason| reason.name())
            .collect();
        assert!(
            missing.is_empty(),
            "no generated packet came to {missing:?}"
        );
    }
}
