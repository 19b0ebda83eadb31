//! The project's own commands: `cargo xtask VERB`, one file per verb.
//!
//! It only starts other programs; what they do is theirs. It must compile in seconds on a machine that has nothing but rustup,
//! because `setup` is how that machine gets the rest, so it never depends on the daemon.

mod bench;
mod build;
mod chaos;
mod demo;
mod fuzz;
mod kernels;
mod lab;
mod lint;
mod package;
mod project;
mod setup;
mod test;
mod test_package;
mod unit;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::project::Project;

/// The project's own commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Setup(setup::Arguments),
    Build(build::Arguments),
    Package(package::Arguments),
    Demo(demo::Arguments),
    Chaos(chaos::Arguments),
    Test(test::Arguments),
    TestKernels(kernels::Arguments),
    TestPackage(test_package::Arguments),
    Lint(lint::Arguments),
    Bench(bench::Arguments),
    Fuzz(fuzz::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = Project::locate().and_then(|project| match &arguments.verb {
        Verb::Setup(arguments) => setup::run(&project, arguments),
        Verb::Build(arguments) => build::run(&project, arguments),
        Verb::Package(arguments) => package::run(&project, arguments),
        Verb::Demo(arguments) => demo::run(&project, arguments),
        Verb::Chaos(arguments) => chaos::run(&project, arguments),
        Verb::Test(arguments) => test::run(&project, arguments),
        Verb::TestKernels(arguments) => kernels::run(&project, arguments),
        Verb::TestPackage(arguments) => test_package::run(&project, arguments),
        Verb::Lint(arguments) => lint::run(&project, arguments),
        Verb::Bench(arguments) => bench::run(&project, arguments),
        Verb::Fuzz(arguments) => fuzz::run(&project, arguments),
    });
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
