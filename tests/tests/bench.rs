//! That the benchmarks run, on tables and floods too small to say anything about speed.
//!
//! It needs root, and the program that `verdict` compares with.

use sipfilter_tests::bench::{self, Options, Output};

#[test]
fn the_quick_benches_measure_something() {
    assert!(
        rustix::process::geteuid().is_root(),
        "the benches need root: run `cargo xtask test` as root"
    );
    let options = Options {
        rounds: 1,
        quick: true,
    };
    let output = Output {
        json: true,
        report: None,
    };
    bench::run(&["verdict".into(), "flood".into()], &options, output).expect("figures");
}
